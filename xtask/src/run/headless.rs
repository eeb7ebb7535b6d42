//! A system without a terminal, for scripts: it says when it is ready, and how to reach it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use control_link::Ending;
use std::os::unix::net::UnixStream;

use crate::build::Built;
use crate::control::registry::{self, Entry, System};
use crate::control::switch::Switch;
use crate::control::{Client, Ended, Limits};
use crate::guest::{self, ControlPort, Machine, Outcome, Streams, Transport};
use crate::symbols::{Annotator, Symbols};
use crate::{STATUS_DIED, build};

/// How long a system may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// What clients get to read their last answers.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Boots, prints the line of a system that is ready, and stays to its end.
pub(super) fn run(
    mut machine: Machine,
    transport: Transport,
    time_limit: Option<Duration>,
    built: &Built,
) -> anyhow::Result<Outcome> {
    machine.command_line = format!("{} console=off {}", transport.word(), machine.command_line);
    // Not below the repository: a socket's address may have 107 bytes at most.
    let folder = tempfile::Builder::new().prefix("bulkhead-").tempdir()?;
    let system = System {
        control: folder.path().join("control"),
        pid: std::process::id(),
        log: registry::log_file()?,
        ports: registry::forwards(&machine.extra),
    };
    let mut log = File::create(&system.log)
        .with_context(|| format!("cannot write {}", system.log.display()))?;

    let (opened, line) = mpsc::channel();
    machine.control = Some(ControlPort { transport, opened });
    let (ready, announced) = mpsc::channel();
    thread::spawn(move || match announce(&line, &system) {
        Ok(Some(parts)) => drop(ready.send(parts)),
        Ok(None) => {}
        Err(error) => {
            eprintln!("xtask: {error:#}; the log is {}", system.log.display());
            // QEMU goes with its parent.
            std::process::exit(i32::from(STATUS_DIED));
        }
    });
    let outcome = guest::run(
        &machine,
        time_limit,
        &mut Streams {
            console: &mut io::sink(),
            log: &mut Annotator::new(Symbols::of(built), &mut log),
            input: None,
        },
    )?;
    if let Ok((switch, entry)) = announced.try_recv() {
        drop(entry);
        switch.end(match &outcome {
            Outcome::Exit(status) => Ending::SwitchedOff { status: *status },
            other => Ending::Failed {
                reason: format!("the system ended: {}", words(other)),
            },
        });
        thread::sleep(LAST_WORDS);
    }
    Ok(outcome)
}

/// Waits until the system serves, enters it and prints its line. `None` if QEMU did not start, which is
/// told elsewhere.
fn announce(
    line: &Receiver<UnixStream>,
    system: &System,
) -> anyhow::Result<Option<(Switch, Entry)>> {
    let Ok(line) = line.recv() else {
        return Ok(None);
    };
    let switch = Switch::start(line, &system.control)?;
    switch.wait_for_system(READY_LIMIT)?;
    // A shell waits for the file systems before it does anything.
    let limits = Limits {
        time: Some(READY_LIMIT),
        ..Limits::default()
    };
    let outputs: [&mut dyn Write; 2] = [&mut io::sink(), &mut io::sink()];
    let ended = Client::connect(&system.control)?.execute("true", None, outputs, &limits)?;
    if ended != Ended::ByItself(Ending::Exited { status: 0 }) {
        bail!("the system does not run commands: {ended:?}");
    }
    let entry = registry::enter(system)?;
    let mut stdout = io::stdout();
    let text = serde_json::to_string(system)?;
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("standard output")?;
    Ok(Some((switch, entry)))
}

/// How a run ended, for those who wait for an answer.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Panic => "the kernel panicked".to_owned(),
        Outcome::TimedOut => "its time was up".to_owned(),
        Outcome::Died(reason) => reason.clone(),
        Outcome::Crashed(signal) => format!("QEMU crashed (signal {signal})"),
        Outcome::Signal(signal) => format!("signal {signal} came"),
        other => format!("status {}", other.status()),
    }
}

/// Does the same in a process of its own, and comes back when that has printed its line.
///
/// # Errors
/// When it cannot be started.
pub(super) fn detach() -> anyhow::Result<ExitCode> {
    let arguments = std::env::args_os().skip(1);
    let mut before_extra = true;
    let arguments = arguments.filter(|argument| {
        before_extra &= argument != "--";
        !(before_extra && argument == "--detach")
    });
    let messages = tempfile::Builder::new()
        .prefix("detached-")
        .suffix(".txt")
        .tempfile_in(build::target_folder("systems")?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(messages.reopen()?);
    // Neither the terminal's signals nor its end are for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("cannot start a process")?;
    let stdout = child.stdout.take().context("its output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        let status = child.wait()?;
        let text = std::fs::read_to_string(messages.path()).unwrap_or_default();
        eprint!("{text}");
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(STATUS_DIED)));
    }
    print!("{line}");
    io::stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}
