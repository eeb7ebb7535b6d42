//! A driver that dies takes nothing else with it: the device is fenced in the
//! design's order, its disk is gone with a clear error, and everything else
//! goes on.

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::image;
use crate::image::damage::Fault;

/// Kills the driver of the second disk while it is being read, then uses what
/// is left. `ps` gives the process's number first.
const SCRIPT: &str = "\
echo '== before'; cat /mnt/*/GOOD.TXT; lsblk
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

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    [1, 4]
        .into_iter()
        .map(|cpus| {
            let disks = [
                Disk::new(image::demo()?, Access::Snapshot),
                // Its primary table is damaged and its files are whole, so it
                // serves as a second disk that is quick to make.
                Disk::new(Fault::GptPrimary.image()?, Access::ReadOnly),
            ];
            let name = format!("driver-killed-cpus-{cpus}");
            Ok(SystemTest::new(name, SCRIPT, check).cpus(cpus).disks(disks))
        })
        .collect()
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
