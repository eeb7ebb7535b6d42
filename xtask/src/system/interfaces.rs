//! Network interfaces: frames go out and come in over each driver, and its death costs frames and nothing else.
//!
//! The other side is QEMU's user network, whose gateway answers echoes. The frames of each test are also written to a
//! file by QEMU, outside of the guest, and counted there.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::{Report, SystemTest};
use crate::build;
use crate::guest::nic::{self, Model, Nic};

/// Echoes of each size: short frames, which are padded, and the longest.
const SIZES: &[(u32, u32)] = &[(100, 1), (300, 1472)];

/// Echoes while the driver is killed, of 1400 bytes, and how often it is.
const UNDER_FIRE: u32 = 4000;
const KILLS: u32 = 4;

fn script(driver: &str) -> String {
    // The interface has one queue, and the network stack has it: it makes room.
    let mut script = String::from("svc stop httpd; svc stop netstack; sleep 1\n");
    for (count, size) in SIZES {
        script.push_str(&format!(
            "echo '== echo {size}'; test-net eth0 {count} {size} 16; echo status $?\n"
        ));
    }
    script.push_str(&format!(
        "\
drv policy eth0 budget=1000 pause-min-ms=1 pause-max-ms=1
echo '== killed'
( for i in {}; do sleep 0.1; ps | grep {driver} | {{ read pid rest; kill -9 $pid; }}; done ) &
test-net eth0 {UNDER_FIRE} 1400 8; echo status $?
wait
sleep 1
echo '== after'; test-net eth0 20 64 1; echo status $?
drv list
true
",
        (1..=KILLS)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    ));
    script
}

/// A number that `test-net` printed.
fn number(section: &str, name: &str) -> anyhow::Result<u32> {
    let mut lines = section.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no line {name:?} in {section:?}"))?;
    Ok(value.parse()?)
}

fn check_echoes(section: &str, count: u32) -> anyhow::Result<()> {
    ensure!(
        section.contains("status 0\n") && number(section, "answered")? == count,
        "{section:?}"
    );
    ensure!(number(section, "damaged")? == 0, "{section:?}");
    Ok(())
}

fn check(report: &Report, capture: &Path) -> anyhow::Result<()> {
    report.expect_status(0)?;
    for (count, size) in SIZES {
        check_echoes(report.section(&format!("echo {size}"))?, *count)?;
    }
    let killed = report.section("killed")?;
    check_echoes(killed, UNDER_FIRE)?;
    ensure!(
        number(killed, "epoch")? > 1,
        "the driver was not killed: {killed:?}"
    );
    let after = report.section("after")?;
    check_echoes(after, 20)?;
    ensure!(after.contains("running"), "{after:?}");
    // What the guest says that it got was on the wire.
    let least = SIZES.iter().map(|(count, _)| count).sum::<u32>() + UNDER_FIRE + 20;
    let (requests, replies) = echoes(&fs::read(capture)?)?;
    ensure!(
        requests >= least && replies >= least && replies <= requests,
        "at least {least} echoes, the capture has {requests} requests and {replies} replies"
    );
    Ok(())
}

/// ICMP echo requests and replies in a capture (pcap of QEMU: little-endian, Ethernet). Every frame has to be whole.
fn echoes(capture: &[u8]) -> anyhow::Result<(u32, u32)> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    let (mut requests, mut replies) = (0, 0);
    let mut rest = capture.get(FILE_HEADER..).context("a capture")?;
    while let Some((header, after)) = rest.split_at_checked(RECORD_HEADER) {
        let word = |at: usize| {
            let bytes = header.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        let (kept, whole) = word(8).zip(word(12)).context("a record")?;
        ensure!(kept == whole, "a frame of {whole} bytes is cut to {kept}");
        let frame = after.get(..kept).context("a capture that is cut off")?;
        rest = after.get(kept..).unwrap_or_default();
        if frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1) {
            match frame.get(34) {
                Some(8) => requests += 1,
                Some(0) => replies += 1,
                _ => {}
            }
        }
    }
    Ok((requests, replies))
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let folder = build::target_folder("system")?;
    let machines = [
        ("virtio", "virtio-net", Model::Virtio, 1),
        ("virtio-cpus-4", "virtio-net", Model::Virtio, 4),
        ("e1000e", "e1000", Model::E1000e, 1),
        ("e1000", "e1000", Model::E1000, 1),
    ];
    let tests = machines.map(|(label, driver, model, cpus)| {
        let name = format!("net-{label}");
        let capture = folder.join(format!("{name}.pcap"));
        let arguments = nic::arguments(&[Nic::new(model)], &[], Some(&capture))?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let judge = move |report: &Report| check(report, &capture);
        Ok(SystemTest::new(name, script(driver), judge)
            .cpus(cpus)
            .devices(&arguments))
    });
    tests.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_counted() {
        let mut capture = vec![0; 24];
        for kind in [8, 0, 8, 3] {
            let mut frame = vec![0; 42];
            frame[12..14].copy_from_slice(&[8, 0]);
            (frame[23], frame[34]) = (1, kind);
            capture.extend([0; 8]);
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend(frame);
        }
        assert_eq!(echoes(&capture).unwrap(), (2, 1));
        capture.truncate(capture.len() - 1);
        assert!(echoes(&capture).is_err());
    }

    #[test]
    fn numbers_of_the_guest() {
        assert_eq!(number("a\nanswered 7\n", "answered").unwrap(), 7);
        assert!(number("answer 7\n", "answered").is_err());
    }
}
