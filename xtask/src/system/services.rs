//! A service that dies takes nothing else with it: init starts it again, its scheme lives on, and those who
//! use it see a pause. One that dies too often is given up with a clean error.

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::image;

/// Kills the VFS between and in the middle of reads, then too often.
const VFS: &str = "\
kill_service() { ps | grep \" $1\\$\" | { read pid rest; kill -9 $pid; }; }
svc policy vfs budget=1000 pause-min-ms=1 pause-max-ms=1
echo '== before'; sha256sum -c /SHA256SUMS | grep -c ': OK'
kill_service vfs
echo '== after'; sha256sum -c /SHA256SUMS | grep -c ': OK'
( for i in 1 2 3 4 5; do kill_service vfs; sleep 0.3; done ) &
echo '== under load'; for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== list'; svc list
echo '== given up'
svc policy acpi budget=0
kill_service acpi
sleep 0.3
svc list | grep acpi
svc start acpi; echo status $?
svc --json info acpi
echo '== file system'
kill_service ext
sha256sum -c /SHA256SUMS | grep -c ': OK'
( for i in 1 2 3 4 5; do kill_service ext; sleep 0.3; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
mount
true
";

/// The line that says how many files are right, if they are as many as there must be.
fn whole(section: &str) -> anyhow::Result<String> {
    let first = section.lines().next().unwrap_or_default();
    let count: u32 = first
        .parse()
        .with_context(|| format!("no count: {section:?}"))?;
    ensure!(count > 100, "only {count} files are right at the start");
    Ok(format!("{first}\n"))
}

fn check_vfs(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let whole = whole(report.section("before")?)?;
    compare("after", report.section("after")?, &whole)?;
    compare(
        "under load",
        report.section("under load")?,
        &whole.repeat(3),
    )?;
    let list = report.section("list")?;
    let vfs = list.lines().find(|line| line.starts_with("vfs"));
    let words: Vec<&str> = vfs.unwrap_or_default().split_whitespace().collect();
    ensure!(
        words.get(1) == Some(&"running") && words.get(3) == Some(&"7"),
        "svc list: {list:?}"
    );
    let given_up = report.section("given up")?;
    ensure!(
        given_up.contains("quarantined") && given_up.contains("killed"),
        "not given up: {given_up:?}"
    );
    ensure!(
        given_up.contains("status 0") && given_up.contains("\"state\":\"running\""),
        "not started again: {given_up:?}"
    );
    let files = report.section("file system")?;
    ensure!(
        files.starts_with(&whole.repeat(4)) && files.contains("ext4"),
        "a file system died: {files:?}"
    );
    Ok(())
}

/// The device manager dies while its drivers serve, alone and together with one of them.
const DEVMGR: &str = "\
echo '== warm'; sha256sum -c /SHA256SUMS | grep -c ': OK'
kill -9 devmgr; sleep 0.3; kill -9 devmgr; sleep 0.3
kill -9 virtio-blk; sleep 0.5
lsdev > /dev/null; lsblk > /dev/null
sha256sum -c /SHA256SUMS | grep -c ': OK'
echo '== counts before'; kernstat -l
echo '== drivers before'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
echo '== alone'
( for i in 1 2 3 4 5 6 7 8; do kill -9 devmgr; sleep 0.2; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== drivers after'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
lsblk; drv list
echo '== together'
( for i in 1 2 3 4 5 6; do kill -9 virtio-blk devmgr; sleep 0.2; kill -9 devmgr virtio-blk; sleep 0.3; done ) &
for i in 1 2 3 4; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== bus'
ps | grep virtio-blk | { read pid rest; echo $pid; }
( for i in 1 2 3; do kill -9 pci; sleep 0.3; done ) &
sha256sum -c /SHA256SUMS | grep -c ': OK'
wait
ps | grep virtio-blk | { read pid rest; echo $pid; }
for i in 1 2 3; do kill -9 virtio-blk pci; sleep 0.3; done
sha256sum -c /SHA256SUMS | grep -c ': OK'
for i in 1 2 3; do kill -9 pci devmgr virtio-blk; sleep 0.3; done
sha256sum -c /SHA256SUMS | grep -c ': OK'
lsdev | head -n 3
echo '== away'
svc stop devmgr
kill -9 virtio-blk
svc start devmgr
sha256sum -c /SHA256SUMS | grep -c ': OK'
sleep 0.5
echo '== counts after'; kernstat -l
echo '== list'; drv list; svc list
true
";

fn check_devmgr(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let warm = report.section("warm")?;
    let whole = whole(warm)?;
    compare("warm", warm, &whole.repeat(2))?;
    let alone = report.section("alone")?;
    compare(
        "reading while the device manager dies",
        alone,
        &whole.repeat(3),
    )?;
    let drivers = report.section("drivers before")?;
    ensure!(drivers.lines().count() == 2, "drivers: {drivers:?}");
    let after = report.section("drivers after")?;
    ensure!(
        after.starts_with(drivers),
        "drivers were restarted: {drivers:?}, then {after:?}"
    );
    ensure!(
        after.contains("virtio0p1") && after.contains("running"),
        "what the tree shows afterwards: {after:?}"
    );
    let together = report.section("together")?;
    compare("both die", together, &whole.repeat(4))?;
    let bus: Vec<&str> = report.section("bus")?.lines().collect();
    ensure!(
        bus.len() == 8 && bus[0] == bus[2] && [bus[1], bus[3], bus[4]] == [whole.trim(); 3],
        "the bus driver dies: {bus:?}"
    );
    ensure!(bus[6].contains("running"), "the bus afterwards: {bus:?}");
    compare("a driver dies alone", report.section("away")?, &whole)?;
    let list = report.section("list")?;
    ensure!(
        list.lines().filter(|line| line.contains("running")).count() >= 10,
        "not everything runs: {list:?}"
    );
    super::endurance::check_counts(report)
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let patient = "budget=10000,pause-min-ms=1,pause-max-ms=1";
    let machine =
        |name: &str, cpus: u32, script: &str, check: fn(&Report) -> anyhow::Result<()>| {
            let disk = Disk::new(image::demo()?, Access::Snapshot);
            let words =
                ["volumes", "devmgr", "buses"].map(|name| format!("restart.{name}={patient}"));
            Ok(
                SystemTest::new(format!("services-{name}-cpus-{cpus}"), script, check)
                    .command_line(&words.join(" "))
                    .cpus(cpus)
                    .disks([disk]),
            )
        };
    let policy = "drv policy virtio0 budget=10000 pause-min-ms=1 pause-max-ms=1\n";
    let devmgr = format!("{policy}{DEVMGR}");
    [1, 4]
        .into_iter()
        .flat_map(|cpus| {
            [
                machine("vfs", cpus, VFS, check_vfs),
                machine("devmgr", cpus, &devmgr, check_devmgr),
            ]
        })
        .collect()
}
