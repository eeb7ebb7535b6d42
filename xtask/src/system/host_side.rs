//! What `cargo xtask run` itself promises: one clear line for a bad request,
//! the documented statuses, and no QEMU left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{STATUS_TIMEOUT, STATUS_USAGE};

/// The body of a test of the host's side.
pub(super) type Check = fn() -> anyhow::Result<()>;

/// Tests of the host's side, the longest first.
pub(super) const TESTS: &[(&str, Check)] = &[
    ("campaign-share", super::injected::share),
    ("tutorial", super::tutorial::commands_of_the_book),
    ("run-time-out", time_out),
    ("headless", super::headless::a_running_system),
    (
        "control-line-garbage",
        super::control_line::garbage_on_the_line,
    ),
    ("run-signals", signals),
    ("run-bad-requests", bad_requests),
    ("run-output-and-status", output_and_status),
];

pub(super) fn xtask(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn bad_requests() -> anyhow::Result<()> {
    let requests: [(&[&str], &str); 7] = [
        (
            &["run", "--disk", "/no/such.img", "--exec", "true"],
            "/no/such.img",
        ),
        (&["run", "--disk", "/", "--exec", "true"], "folder"),
        (&["run", "--disk", "x.img,bus=floppy"], "floppy"),
        (&["run", "--script", "/no/such.sh"], "/no/such.sh"),
        (&["run", "--cpus", "9"], "9"),
        (&["run", "--frobnicate"], "--frobnicate"),
        (&["frobnicate"], "frobnicate"),
    ];
    for (arguments, named) in requests {
        let output = xtask(arguments)?.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(i32::from(STATUS_USAGE)),
            "{arguments:?}: {}",
            output.status
        );
        ensure!(
            output.stdout.is_empty(),
            "{arguments:?} wrote to standard output"
        );
        ensure!(
            text.lines().count() == 1 && text.contains(named),
            "{arguments:?} said {text:?}"
        );
    }
    Ok(())
}

fn output_and_status() -> anyhow::Result<()> {
    let output = xtask(&["run", "--exec", "echo out; echo err >&2; exit 3"])?.output()?;
    ensure!(output.status.code() == Some(3), "{}", output.status);
    ensure!(
        output.stdout == b"out\n",
        "standard output {:?}",
        output.stdout
    );
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        log.lines().any(|line| line.trim_end().ends_with("err")),
        "standard error lacks the command's line: {log:?}"
    );
    Ok(())
}

fn time_out() -> anyhow::Result<()> {
    let output = xtask(&["run", "--timeout-s", "10", "--exec", "sleep 1000"])?.output()?;
    ensure!(
        output.status.code() == Some(i32::from(STATUS_TIMEOUT)),
        "{}",
        output.status
    );
    Ok(())
}

/// Each signal ends xtask with its status and QEMU with it, even the one that
/// xtask cannot catch.
fn signals() -> anyhow::Result<()> {
    for (signal, status) in [
        (Signal::INT, Some(130)),
        (Signal::TERM, Some(143)),
        (Signal::KILL, None),
    ] {
        let mut command = xtask(&["run", "--exec", "echo started; sleep 1000"])?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line == "started\n", "the guest said {line:?}");
        let qemu = children(child.id())?;
        ensure!(!qemu.is_empty(), "xtask has no QEMU");
        kill_process(Pid::from_child(&child), signal)?;
        let ended = child.wait()?;
        ensure!(ended.code() == status, "{signal:?}: {ended}");
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while qemu.iter().any(|pid| is_running(*pid)) {
            ensure!(Instant::now() < deadline, "{signal:?} left QEMU behind");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Process ids of a process's children.
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .context("the list of its children")?;
    Ok(text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect())
}

fn is_running(pid: u32) -> bool {
    // A process that has ended and was not waited for is a zombie.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
        !text
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim()
            .starts_with('Z')
    })
}
