//! The judge of every frame: a decoder that nobody here wrote.

use std::path::Path;

use anyhow::{Context, bail};

use crate::setup::{Needed, needed};
use crate::tool;

pub(super) const NEEDS: &[Needed] = &[needed("tshark", "tshark")];

/// What no frame may be.
const WRONG: &str = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 \
                     || udp.checksum.status == 0 || icmp.checksum.status == 0";
/// What is seen only where something was lost.
const LOSS: &str =
    "tcp.analysis.retransmission || tcp.analysis.lost_segment || tcp.analysis.out_of_order";

/// Frames of the capture that a filter lets pass, of so many at most.
fn frames(capture: &Path, filter: &str) -> anyhow::Result<Vec<String>> {
    let mut command = tool::command("tshark");
    for check in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{check}.check_checksum:TRUE")]);
    }
    // Frames are looked at as what they say they are, whatever their port.
    command.args(["-n", "-Y", filter, "-r"]).arg(capture);
    let text = String::from_utf8_lossy(&tool::read(&mut command)?).into_owned();
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// Looks at all frames. `deaths`: how often the driver died, which loses frames.
pub(super) fn judge(capture: &Path, deaths: u64) -> anyhow::Result<String> {
    let wrong = frames(capture, WRONG)?;
    if let Some(first) = wrong.first() {
        bail!(
            "{} malformed frames or wrong checksums; the first: {first}",
            wrong.len()
        );
    }
    let lost = frames(capture, LOSS)?.len();
    if lost > 0 && deaths == 0 {
        bail!("{lost} signs of loss, and nothing was lost");
    }
    let length = std::fs::metadata(capture).context("the capture")?.len();
    Ok(format!(
        "{} MiB of frames: none malformed, no checksum wrong; {lost} signs of loss at {deaths} deaths",
        length >> 20
    ))
}
