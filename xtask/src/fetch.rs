//! Files from a guest's web server by curl, and their hashes by the host's own program.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail, ensure};

/// Bytes of each frame that a capture for [`fetch`] needs: the headers.
pub const CAPTURED_BYTES: usize = 96;
/// How often a request is made again that QEMU forgot.
const TIMES_MAX: usize = 3;
/// curl's status when it takes too long.
const TIMED_OUT: i32 = 28;

/// What curl fetches, within a minute.
///
/// # Errors
/// When it fails, with what it said.
pub fn curl(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    fetch(arguments, 60, None)
}

/// What curl fetches within `limit_s` seconds through QEMU's user network. With a capture of the guest's frames, a request that QEMU
/// forgot is made again, three times at most, and a line says so.
///
/// QEMU's user network (libslirp, 4.7 for one) is at fault there: the option of a SYN for the longest segment has it size its buffers
/// anew and empty (`tcp_dooptions`, `tcp_mss`, `sbreserve`). So when the guest answers a SYN a second time, because its first answer
/// or the client's next frame was lost, what the client has sent meanwhile is gone, and the guest waits for it for ever.
///
/// # Errors
/// When it fails, with what it said.
pub fn fetch(arguments: &[&str], limit_s: u32, capture: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    for _ in 0..TIMES_MAX {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail"]);
        command.args(["--max-time", &limit_s.to_string()]);
        command.args(["--write-out", "%{stderr}\nfrom port %{local_port}\n"]);
        if capture.is_some() {
            // Nothing at all for that long.
            command.args(["--speed-limit", "1"]);
            command.args(["--speed-time", &(limit_s / 3).to_string()]);
        }
        let output = command.args(arguments).output().context("curl")?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let (said, port) = said
            .trim_end()
            .rsplit_once("from port ")
            .unwrap_or((&said, ""));
        if let (Some(capture), Some(TIMED_OUT), true, Ok(port)) = (
            capture,
            output.status.code(),
            output.stdout.is_empty(),
            port.parse(),
        ) && answers_to_syn(capture, port)? > 1
        {
            eprintln!(
                "note    the guest answered a SYN from port {port} twice: QEMU forgot the request, curl asks again"
            );
            continue;
        }
        bail!("curl {}: {}", arguments.join(" "), said.trim());
    }
    bail!(
        "curl {}: QEMU forgot the request {TIMES_MAX} times",
        arguments.join(" ")
    )
}

/// How many of the frames to a client's port say that its SYN has come (SYN and ACK: RFC 9293, 3.1, over IPv4 and Ethernet).
fn answers_to_syn(capture: &Path, port: u16) -> anyhow::Result<usize> {
    const FILE_HEADER: u64 = 24;
    const RECORD_HEADER: usize = 16;
    const SYN_ACK: u8 = 0x12;
    let mut file = BufReader::new(File::open(capture).context("the capture")?);
    std::io::copy(&mut file.by_ref().take(FILE_HEADER), &mut std::io::sink())?;
    let mut count = 0;
    loop {
        let mut header = [0; RECORD_HEADER];
        match file.read_exact(&mut header) {
            // QEMU may be writing the next one.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(count),
            read => read?,
        }
        let [.., a, b, c, d, _, _, _, _] = header;
        let mut frame = Vec::new();
        let captured = u32::from_le_bytes([a, b, c, d]);
        file.by_ref()
            .take(captured.into())
            .read_to_end(&mut frame)?;
        let (ethernet, packet) = frame.split_at(frame.len().min(14));
        let is_tcp = ethernet.get(12..14) == Some(&[8, 0]) && packet.get(9) == Some(&6);
        let length = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
        let segment = packet.get(length..).filter(|_| is_tcp).unwrap_or_default();
        let is_answer = segment
            .get(13)
            .is_some_and(|flags| flags & SYN_ACK == SYN_ACK);
        if is_answer && segment.get(2..4) == Some(&port.to_be_bytes()) {
            count += 1;
        }
    }
}

/// The hash of bytes, by the host's program.
///
/// # Errors
/// When that fails.
pub fn sha256(bytes: &[u8]) -> anyhow::Result<String> {
    let mut command = Command::new("sha256sum");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("sha256sum")?;
    child.stdin.take().context("sha256sum")?.write_all(bytes)?;
    hash_said(&child.wait_with_output()?)
}

/// The same of a file.
///
/// # Errors
/// When that fails.
pub fn sha256_of(file: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(file).output();
    hash_said(&output.context("sha256sum")?)
}

fn hash_said(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "sha256sum: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let hash = text.split_whitespace().next();
    Ok(hash.context("sha256sum said nothing")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of a frame over Ethernet and IPv4 to a port.
    fn record(protocol: u8, port: u16, flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 20];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = protocol;
        frame[34 + 2..34 + 4].copy_from_slice(&port.to_be_bytes());
        frame[34 + 13] = flags;
        let mut record = vec![0; 16];
        record[8..12].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        record.extend(frame);
        record
    }

    #[test]
    fn answers_to_a_clients_syn_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("frames.pcap");
        let mut bytes = vec![0; 24];
        for (protocol, port, flags) in [
            (6, 4000, 0x12),
            (6, 4000, 0x10),
            (6, 4001, 0x12),
            (17, 4000, 0x12),
            (6, 4000, 0x12),
        ] {
            bytes.extend(record(protocol, port, flags));
        }
        // Half a record at the end.
        bytes.extend([0; 7]);
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(answers_to_syn(&file, 4000).unwrap(), 2);
        assert_eq!(answers_to_syn(&file, 4001).unwrap(), 1);
        assert_eq!(answers_to_syn(&file, 4002).unwrap(), 0);
    }
}
