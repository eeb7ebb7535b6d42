//! The judge of every frame: a decoder that nobody here wrote.

use std::path::Path;

use anyhow::{Context, bail};

use crate::setup::{Needed, needed};
use crate::tool;

pub(super) const NEEDS: &[Needed] = &[needed("tshark", "tshark")];

/// Marks that no frame may have.
const MALFORMED: &str = "_ws.malformed";
/// What a decoder finds out about checksums: 0 for a wrong one.
const CHECKSUMS: [&str; 4] = [
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
];
/// The decoder's remark that a checksum of TCP is 0xffff where it should be 0. Both are right: they are the same number in ones'
/// complement (RFC 1624, 3). QEMU's 82574L writes it that way.
const NEGATIVE_ZERO: &str = "tcp.checksum.ffff";
/// What is seen only where something was lost.
const LOSS: &str =
    "tcp.analysis.retransmission || tcp.analysis.lost_segment || tcp.analysis.out_of_order";

/// What the decoder prints of each frame that is wrong, or tells of a loss: its number, whether it is malformed, its checksums.
fn odd_frames(capture: &Path) -> anyhow::Result<String> {
    let mut command = tool::command("tshark");
    for check in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{check}.check_checksum:TRUE")]);
    }
    // What travels in streams is for the clients to look at: to put gigabytes together in the order of the streams, over everything that
    // was lost with a driver, takes a decoder hours.
    command.args(["-o", "tcp.desegment_tcp_streams:FALSE"]);
    for port in super::PORTS {
        command.args(["-d", &format!("tcp.port=={port},data")]);
    }
    let wrong = CHECKSUMS
        .map(|status| format!("{status} == 0"))
        .join(" || ");
    let filter = format!("{MALFORMED} || {wrong} || {LOSS}");
    command.args(["-n", "-Y", &filter, "-T", "fields"]);
    let fields = ["frame.number", MALFORMED, NEGATIVE_ZERO];
    for field in fields.into_iter().chain(CHECKSUMS) {
        command.args(["-e", field]);
    }
    command.arg("-r").arg(capture);
    Ok(String::from_utf8_lossy(&tool::read(&mut command)?).into_owned())
}

/// What is wrong with the frame of a line of [`odd_frames`].
fn fault(line: &str) -> Option<String> {
    let mut fields = line.split('\t');
    let number = fields.next()?;
    if fields.next().is_some_and(|mark| !mark.is_empty()) {
        return Some(format!("frame {number} is malformed"));
    }
    let is_negative_zero = fields.next().is_some_and(|mark| !mark.is_empty());
    let wrong = CHECKSUMS
        .into_iter()
        .zip(fields)
        .filter(|(name, _)| !(is_negative_zero && name.starts_with("tcp.")))
        // Of each header of that kind.
        .find(|(_, seen)| seen.split(',').any(|status| status == "0"))?;
    Some(format!("frame {number}: {} is 0", wrong.0))
}

/// Looks at all frames. `deaths`: how often the driver died, which loses frames.
pub(super) fn judge(capture: &Path, deaths: u64) -> anyhow::Result<String> {
    let odd = odd_frames(capture)?;
    let wrong: Vec<String> = odd.lines().filter_map(fault).collect();
    if let Some(first) = wrong.first() {
        bail!(
            "{} malformed frames or wrong checksums; the first: {first}",
            wrong.len()
        );
    }
    let lost = odd.lines().count();
    if lost > 0 && deaths == 0 {
        bail!("{lost} signs of loss, and nothing was lost");
    }
    let length = std::fs::metadata(capture).context("the capture")?.len();
    Ok(format!(
        "{} MiB of frames: none malformed, no checksum wrong; {lost} signs of loss at {deaths} deaths",
        length >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn faults_are_told_from_losses() {
        assert_eq!(fault("7\t\t\t1\t1\t\t"), None);
        assert_eq!(fault("8\t\t\t1\t2\t\t"), None);
        assert_eq!(fault("8\t\tshould be 0x0000\t1\t0\t\t"), None);
        assert_eq!(
            fault("9\t\t\t1,1\t0\t\t").as_deref(),
            Some("frame 9: tcp.checksum.status is 0")
        );
        // The packet inside of an ICMP error has headers of its own.
        assert_eq!(
            fault("10\t\t\t1,0\t\t\t1").as_deref(),
            Some("frame 10: ip.checksum.status is 0")
        );
        assert_eq!(
            fault("11\t_ws.malformed\t\t1\t\t\t").as_deref(),
            Some("frame 11 is malformed")
        );
    }
}
