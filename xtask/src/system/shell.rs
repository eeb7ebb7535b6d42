//! Statuses and outputs of commands without a terminal, and bad requests.

use anyhow::ensure;

use super::{Report, SystemTest};
use crate::guest::Outcome;
use crate::guest::disk::{Access, Disk};
use crate::image;

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let demo = || -> anyhow::Result<Disk> { Ok(Disk::new(image::demo()?, Access::Snapshot)) };
    let mut tests = Vec::new();
    // The status of the last command, and standard output without a byte more.
    for (name, script, status, output) in [
        ("true", "true", 0, ""),
        ("false", "false", 1, ""),
        ("exit-status", "echo one; exit 7", 7, "one\n"),
        ("no-line-feed", "false; echo -n two", 0, "two"),
        ("and-or", "false || echo three && false", 1, "three\n"),
        (
            "pipe",
            "echo b a | tr ' ' '\\n' | sort | cat -n",
            0,
            "     1\ta\n     2\tb\n",
        ),
        (
            "raw-bytes",
            "head -c 3 /big.bin | hexdump -C | wc -l",
            0,
            "2\n",
        ),
        (
            "variables",
            "x=4; for i in 1 2 3; do echo \"$i$x\"; done",
            0,
            "14\n24\n34\n",
        ),
    ] {
        let check = move |report: &Report| {
            report.expect_status(status)?;
            report.expect_console(output)
        };
        tests.push(SystemTest::new(format!("exec-{name}"), script, check).disks([demo()?]));
    }
    tests.push(
        SystemTest::new("unknown-command", "no-such-command", |report| {
            report.expect_status(127)?;
            report.expect_console("")?;
            report.log_line(&["no-such-command", "not found"])?;
            Ok(())
        })
        .disks([demo()?]),
    );
    tests.push(
        SystemTest::new("missing-file", "cat /no/such/file", |report| {
            report.expect_status(1)?;
            report.expect_console("")?;
            report.log_line(&["cat", "/no/such/file", "no such file or directory"])?;
            Ok(())
        })
        .disks([demo()?]),
    );
    tests.push(
        SystemTest::new("time-out", "echo before; sleep 1000", |report| {
            ensure!(
                report.outcome == Outcome::TimedOut,
                "ended with {:?}, expected a time-out",
                report.outcome
            );
            report.expect_console("before\n")
        })
        .disks([demo()?])
        .time_limit(15)
        .mostly_waits(),
    );
    // A system without a disk still comes up, with the boot archive's programs.
    tests.push(SystemTest::new("no-disk", "echo up; lsblk", |report| {
        report.expect_status(0)?;
        ensure!(report.console.starts_with("up\n"), "{:?}", report.console);
        Ok(())
    }));
    Ok(tests)
}
