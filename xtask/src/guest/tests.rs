//! What a run promises about outputs and outcomes, with a guest of a few
//! instructions (`testguest/guest.S`) and the real QEMU.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

fn test_guest(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guest/testguest/guest.S");
    let file = folder.join("guest.elf");
    let status = Command::new("cc")
        .args(["-m32", "-nostdlib", "-static", "-no-pie"])
        .args(["-Wl,-Ttext=0x100000", "-Wl,-e,start", "-Wl,--build-id=none"])
        .arg("-o")
        .arg(&file)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
    file
}

struct Run {
    outcome: Outcome,
    console: Vec<u8>,
    log: Vec<u8>,
}

fn run_with(letter: &str, limit_s: u64, input: Option<Box<dyn Read + Send>>) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(test_guest(folder.path()), None);
    machine.command_line = letter.to_owned();
    machine.memory = "64M".to_owned();
    let (mut console, mut log) = (Vec::new(), Vec::new());
    let outcome = run(
        &machine,
        Some(Duration::from_secs(limit_s)),
        &mut Streams {
            console: &mut console,
            log: &mut log,
            input,
        },
    )
    .unwrap();
    Run {
        outcome,
        console,
        log,
    }
}

#[test]
fn a_status_comes_out_with_the_exact_bytes_of_log_and_console() {
    let run = run_with("e", 60, None);
    assert_eq!(run.outcome, Outcome::Exit(7));
    assert_eq!(run.console, b"console \xff\r\n");
    assert_eq!(run.log, b"log\n");
}

#[test]
fn a_panic_is_told_with_its_whole_report() {
    let run = run_with("p", 60, None);
    assert_eq!(run.outcome, Outcome::Panic);
    assert_eq!(run.log, b"log\nkernel panic: a test\n");
}

#[test]
fn an_end_without_a_status_is_told() {
    for letter in ["d", "r"] {
        let run = run_with(letter, 60, None);
        assert!(matches!(run.outcome, Outcome::Died(_)), "{letter}");
        assert_eq!(run.log, b"log\n");
    }
}

#[test]
fn time_runs_out() {
    let started = Instant::now();
    let run = run_with("h", 3, None);
    assert_eq!(run.outcome, Outcome::TimedOut);
    assert_eq!(run.console, b"console \xff\r\n");
    assert!(started.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_guest_that_does_not_switch_off_is_told() {
    let run = run_with("s", 60, None);
    assert_eq!(run.outcome, Outcome::StayedOn(7));
}

#[test]
fn input_reaches_the_console() {
    let run = run_with(
        "c",
        60,
        Some(Box::new(Cursor::new(b"abc\r\x7f\x00zq".to_vec()))),
    );
    assert_eq!(run.outcome, Outcome::Exit(7));
    // A zero byte ends the guest's own text, so it comes back as nothing.
    assert_eq!(run.console, b"console \xff\r\nabc\r\x7fz");
}

#[test]
fn ctrl_a_x_ends_qemu() {
    let run = run_with("c", 60, Some(Box::new(Cursor::new(b"a\x01x".to_vec()))));
    assert_eq!(run.outcome, Outcome::Quit);
}

#[test]
fn a_console_that_nobody_reads_ends_the_run() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(test_guest(folder.path()), None);
    machine.command_line = "f".to_owned();
    let outcome = run(
        &machine,
        Some(Duration::from_secs(60)),
        &mut Streams {
            console: &mut Closed,
            log: &mut io::sink(),
            input: None,
        },
    );
    assert_eq!(outcome.unwrap(), Outcome::ConsoleClosed);
}

#[test]
fn ctrl_a_x_leaves_and_ctrl_a_twice_is_one_ctrl_a() {
    let mut keys = Keys::default();
    assert_eq!(keys.filter(b"ls\r"), (b"ls\r".to_vec(), false));
    assert_eq!(keys.filter(b"\x01\x01b"), (b"\x01b".to_vec(), false));
    assert_eq!(keys.filter(b"a\x01"), (b"a".to_vec(), false));
    assert_eq!(keys.filter(b"x"), (Vec::new(), true));
}

#[test]
fn statuses_are_told_apart() {
    let outcomes = [
        Outcome::Exit(0),
        Outcome::Exit(1),
        Outcome::Panic,
        Outcome::TimedOut,
        Outcome::Died(String::new()),
        Outcome::Signal(SIGINT),
        Outcome::Signal(SIGTERM),
    ];
    let statuses: Vec<u8> = outcomes.iter().map(Outcome::status).collect();
    assert_eq!(statuses, [0, 1, 101, 124, 102, 130, 143]);
}
