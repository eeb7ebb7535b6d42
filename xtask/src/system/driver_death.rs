//! A driver that dies takes nothing else with it: the device is fenced in the
//! design's order. Where no restart is wanted its disk is gone with a clear error;
//! elsewhere those who use it see a pause, and what it held comes back. Everything
//! else goes on.

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Bus, Disk};
use crate::image;
use crate::image::damage::Fault;

/// Kills the driver of the second disk while it is being read, then uses what
/// is left. `ps` gives the process's number first.
const SCRIPT: &str = "\
echo '== before'; cat /mnt/*/GOOD.TXT; lsblk
drv policy virtio1 budget=0
echo '== processes'; ps
echo '== kill'
ps | grep virtio-blk | tail -n 1 | { read pid rest; kill -9 $pid; echo $?; }
sleep 2
echo '== after'; cat /mnt/*/LAST.BIN | wc -c; echo $?
echo '== processes after'; ps
echo '== lsblk'; lsblk
echo '== lsdev'; lsdev
echo '== root'; sha256sum -c /SHA256SUMS | grep -v -c ': OK'
echo '== spawn'; for i in 1 2 3 4 5 6 7 8 9 10; do echo $i | cat; done | wc -l
true
";

/// Kills the driver again and again while its disk is read. What the kernel
/// counts is taken after five deaths, when everybody has the memory that they need
/// for one and init as many reports as it keeps, and after many more. `DISK` and `DRIVER`
/// stand for their names.
const RESTARTS: &str = "\
drv policy DISK budget=1000 pause-min-ms=1 pause-max-ms=1
kill_driver() { ps | grep DRIVER | { read pid rest; kill -9 $pid; }; sleep 0.1; }
echo '== warm'; sha256sum -c /SHA256SUMS | grep -v -c ': OK'
for i in 1 2 3 4 5; do kill_driver; done; sleep 1
echo '== counts before'; kernstat -l
echo '== reading'
( for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill_driver; done ) &
for i in 1 2 3 4 5; do sha256sum -c /SHA256SUMS | grep -v -c ': OK'; done
wait
sleep 1
echo '== counts after'; kernstat -l
echo '== list'; drv list
echo '== loop'
drv policy DISK budget=2
kill_driver
sleep 1
drv list; lsblk
cat /big.bin | wc -c
echo '== again'
drv start 00:01.0; echo $?
drv list
true
";

fn check_restarts(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("warm", report.section("warm")?, "0\n")?;
    compare("reading", report.section("reading")?, &"0\n".repeat(5))?;
    let counts = |section: &str| -> anyhow::Result<Vec<(String, u64)>> {
        let text = report.section(section)?;
        text.lines()
            .map(|line| {
                let (name, count) = line.split_once(' ').context("not a count")?;
                Ok((name.to_string(), count.parse()?))
            })
            .collect()
    };
    let (before, after) = (counts("counts before")?, counts("counts after")?);
    ensure!(before.len() > 10, "kernstat told little: {before:?}");
    // Heaps keep a page that they needed once; a death must not cost one.
    let allowed = |name: &str| if name == "used-bytes" { 19 * 4096 } else { 0 };
    let changed: Vec<String> = before
        .iter()
        .zip(&after)
        .filter(|((name, before), (_, after))| after.saturating_sub(*before) > allowed(name))
        .map(|((name, before), (_, after))| format!("{name}: {before} before, {after} after"))
        .collect();
    ensure!(
        changed.is_empty(),
        "after 20 deaths: {}",
        changed.join("; ")
    );
    let list = report.section("list")?;
    ensure!(
        list.contains("running") && list.contains(" 25 "),
        "drv list: {list:?}"
    );
    let given_up = report.section("loop")?;
    ensure!(
        given_up.contains("quarantined") && given_up.contains("given up after 2 restarts"),
        "the budget does not hold: {given_up:?}"
    );
    let again = report.section("again")?;
    ensure!(
        again.starts_with("0\n") && again.contains("running"),
        "not started again: {again:?}"
    );
    Ok(())
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let restarts = [(Bus::Virtio, 1), (Bus::Virtio, 4), (Bus::Nvme, 4)];
    let restarts = restarts.into_iter().map(|(bus, cpus)| {
        let (label, driver, name) = match bus {
            Bus::Virtio => ("", "virtio-blk", "virtio0"),
            Bus::Nvme => ("nvme-", "nvme", "nvme0n1"),
        };
        let disk = Disk {
            bus,
            ..Disk::new(image::demo()?, Access::Snapshot)
        };
        let script = RESTARTS.replace("DISK", name).replace("DRIVER", driver);
        let name = format!("{label}driver-restarted-cpus-{cpus}");
        let test = SystemTest::new(name, script, check_restarts)
            .cpus(cpus)
            .reliable()
            .disks([disk]);
        // Domains of the IOMMU have to come back to their count as well.
        Ok(if cpus == 1 { test } else { test.iommu() })
    });
    let gone = [1, 4].into_iter().map(|cpus| {
        let disks = [
            Disk::new(image::demo()?, Access::Snapshot),
            // Its primary table is damaged and its files are whole, so it
            // serves as a second disk that is quick to make.
            Disk::new(Fault::GptPrimary.image()?, Access::ReadOnly),
        ];
        let name = format!("driver-killed-cpus-{cpus}");
        Ok(SystemTest::new(name, SCRIPT, check).cpus(cpus).disks(disks))
    });
    restarts.chain(gone).collect()
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let before = report.section("before")?;
    ensure!(before.starts_with("this file is whole\n"), "{before:?}");
    compare("kill", report.section("kill")?, "0\n")?;

    // One driver process less, and nothing else.
    let drivers = |section: &str| -> anyhow::Result<usize> {
        let text = report.section(section)?;
        Ok(text
            .lines()
            .filter(|line| line.contains("virtio-blk"))
            .count())
    };
    ensure!(drivers("processes")? == 2, "there were not two drivers");
    ensure!(drivers("processes after")? == 1, "not one driver is left");

    // The order of the teardown, from one line of the device manager.
    let line = report
        .log
        .lines()
        .find(|line| line.contains("bus mastering"))
        .context("no line of the log tells of the fence")?
        .to_lowercase();
    let places = ["interrupt", "bus mastering", "reset", "quarantine"].map(|step| line.find(step));
    ensure!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "the teardown was not in order: {line:?}"
    );

    let lsblk = report.section("lsblk")?;
    ensure!(
        lsblk.contains("virtio0") && !lsblk.contains("virtio1"),
        "lsblk after the death: {lsblk:?}"
    );
    let after = report.section("after")?;
    ensure!(
        !after.starts_with("6291456\n"),
        "a file of a dead disk was read: {after:?}"
    );
    compare("files of the other disk", report.section("root")?, "0\n")?;
    compare("new processes", report.section("spawn")?, "10\n")
}
