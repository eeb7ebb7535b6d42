//! Reload and live upgrade: a new version takes over with the state of the old one; one that fails in its
//! start, does not understand the state, never comes into service or dies later makes room for the old one.
//! Disks are reloaded while they are read.

use anyhow::ensure;

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Bus, Disk};
use crate::image;

/// The device that `test-versions` matches, behind a port that can reset it.
const DEVICES: [&str; 4] = [
    "-device",
    "pcie-root-port,id=rp0,chassis=1,addr=8",
    "-device",
    "pvpanic-pci,bus=rp0",
];

const VERSIONS: &str = "\
reload() { drv reload /pci/01:00.0 $1 2>&1; echo status $?; }
tell() { drv info /pci/01:00.0; drv list | grep versions; }
echo '== first'; tell
echo '== next'; reload /boot/bin/test-version-next; tell
echo '== start'; reload /boot/bin/test-version-start; tell
echo '== restore'; reload /boot/bin/test-version-restore; tell
drv policy /pci/01:00.0 start-ms=700
echo '== silent'; reload /boot/bin/test-version-silent; tell
echo '== later'; reload /boot/bin/test-version-later; sleep 2; tell
echo '== wrong'; reload /boot/bin/nvme; reload /boot/bin/sh; reload /etc/passwd-that-is-not-there; tell
drv policy /pci/01:00.0 probation-ms=100
echo '== proven'; reload; sleep 1; tell
echo '== policy'; drv --json policy /pci/01:00.0
echo '== log'; drv log -n 1 versions
echo '== stop'; drv suspend versions; drv list | grep versions; drv resume versions; drv stop versions
drv list | grep versions; reload /boot/bin/test-version-first; tell
true
";

fn check_versions(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let has = |name: &str, words: &[&str]| -> anyhow::Result<()> {
        let text = report.section(name)?;
        for word in words {
            ensure!(text.contains(word), "{name}: no {word:?} in {text:?}");
        }
        Ok(())
    };
    has(
        "first",
        &["version: versions 1.0.0", "in probation", "running"],
    )?;
    has(
        "next",
        &["versions 2.0.0", "status 0", "1 fields of state", "running"],
    )?;
    report.log_line(&["versions", "Serves: 1 served before"])?;
    let back = "back to versions 2.0.0";
    has("start", &["status 1", back, "running", "fell back"])?;
    report.log_line(&["versions", "Serves: 2 served before"])?;
    has(
        "restore",
        &[
            "status 1",
            "schema of the state: expected 0x2",
            back,
            "running",
        ],
    )?;
    has(
        "silent",
        &["status 1", "not in service after 0.7 s", back, "running"],
    )?;
    has(
        "later",
        &[
            "versions 5.0.0",
            "status 0",
            back,
            "version: versions 2.0.0",
            "running",
        ],
    )?;
    has(
        "wrong",
        &[
            "expected versions",
            "no driver's manifest",
            "status 1",
            "version: versions 2.0.0",
        ],
    )?;
    has(
        "proven",
        &["status 0", "proven", "last known good: versions 2.0.0"],
    )?;
    has("policy", &["\"deaths\":0"])?;
    has("log", &["versions[", "Serves: "])?;
    has(
        "stop",
        &["suspended", "stopped", "versions 1.0.0", "running"],
    )
}

/// Reloads the disk's driver again and again while files are read from it, then suspends it, before a read and in the
/// middle of one. `DISK` and `PROGRAM` stand for their names.
const UNDER_LOAD: &str = "\
echo '== reloads'
( for i in 1 2 3 4; do drv reload DISK /boot/bin/PROGRAM; drv reload DISK; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -v -c ': OK'; done
wait
echo '== suspended'
drv suspend DISK; echo status $?; drv list | grep DISK
( sha256sum -c /SHA256SUMS | grep -v -c ': OK' ) &
sleep 0.5; echo resuming; drv resume DISK; echo status $?
wait
( for i in 1 2 3; do drv suspend DISK; sleep 0.1; drv resume DISK; done ) &
sha256sum -c /SHA256SUMS | grep -v -c ': OK'
wait
drv suspend DISK; drv restart DISK; drv suspend DISK; drv stop DISK; drv start DISK
sha256sum -c /SHA256SUMS | grep -v -c ': OK'
echo '== list'; drv list; drv --json policy DISK
true
";

fn check_under_load(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let reloads = report.section("reloads")?;
    let (gaps, sums): (Vec<&str>, Vec<&str>) =
        reloads.lines().partition(|line| line.contains("serves"));
    ensure!(gaps.len() == 8, "not 8 reloads: {reloads:?}");
    compare("sums", &(sums.join("\n") + "\n"), &"0\n".repeat(3))?;
    let mut suspended: Vec<&str> = report.section("suspended")?.lines().collect();
    ensure!(
        suspended.len() == 7 && suspended[1].contains("suspended"),
        "suspension: {suspended:?}"
    );
    // Nobody reads while it is suspended, and all of it is right afterwards.
    let mut after = suspended.split_off(3);
    after.sort_unstable();
    ensure!(
        suspended[0] == "status 0" && suspended[2] == "resuming",
        "suspension: {suspended:?}, then {after:?}"
    );
    ensure!(
        after == ["0", "0", "0", "status 0"],
        "after the suspension: {after:?}"
    );
    let list = report.section("list")?;
    ensure!(
        list.contains("running") && list.contains("\"deaths\":0"),
        "afterwards: {list:?}"
    );
    Ok(())
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let mut tests =
        vec![SystemTest::new("reload-versions", VERSIONS, check_versions).devices(&DEVICES)];
    for (bus, program, name) in [
        (Bus::Virtio, "virtio-blk", "virtio0"),
        (Bus::Nvme, "nvme", "nvme0n1"),
    ] {
        let disk = Disk {
            bus,
            ..Disk::new(image::demo()?, Access::Snapshot)
        };
        let script = UNDER_LOAD.replace("DISK", name).replace("PROGRAM", program);
        let test = SystemTest::new(format!("reload-{program}-read"), script, check_under_load);
        let test = test.cpus(2).disks([disk]);
        tests.push(if bus == Bus::Nvme { test.iommu() } else { test });
    }
    Ok(tests)
}
