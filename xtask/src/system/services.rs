//! A service that dies takes nothing else with it: init starts it again, its scheme lives on, and those who
//! use it see a pause. One that dies too often is given up with a clean error.

use anyhow::ensure;

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::image;

/// Kills the VFS between and in the middle of reads, then too often.
const VFS: &str = "\
kill_service() { ps | grep \" $1\\$\" | { read pid rest; kill -9 $pid; }; }
svc policy vfs budget=1000 pause-min-ms=1 pause-max-ms=1
echo '== before'; sha256sum -c /SHA256SUMS | grep -v -c ': OK'
kill_service vfs
echo '== after'; sha256sum -c /SHA256SUMS | grep -v -c ': OK'
( for i in 1 2 3 4 5; do kill_service vfs; sleep 0.3; done ) &
echo '== under load'; for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -v -c ': OK'; done
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
sha256sum -c /SHA256SUMS | grep -v -c ': OK'
( for i in 1 2 3 4 5; do kill_service ext; sleep 0.3; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -v -c ': OK'; done
wait
mount
true
";

fn check_vfs(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("before", report.section("before")?, "0\n")?;
    compare("after", report.section("after")?, "0\n")?;
    compare("under load", report.section("under load")?, "0\n0\n0\n")?;
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
        files.starts_with("0\n0\n0\n0\n") && files.contains("ext4"),
        "a file system died: {files:?}"
    );
    Ok(())
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    [1, 4]
        .into_iter()
        .map(|cpus| {
            let disk = Disk::new(image::demo()?, Access::Snapshot);
            let test = SystemTest::new(format!("services-vfs-cpus-{cpus}"), VFS, check_vfs);
            let test =
                test.command_line("restart.volumes=budget=1000,pause-min-ms=1,pause-max-ms=1");
            Ok(test.cpus(cpus).disks([disk]))
        })
        .collect()
}
