//! `cargo xtask sh`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use control_link::{COMMAND_BYTES_MAX, Ending};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Client, Ended, Interrupt, Limits, registry};
use crate::{STATUS_DIED, STATUS_NOT_SERVED, STATUS_TIMEOUT, UsageError};

/// What `cargo xtask sh` takes.
///
/// Output, errors and exit status are those of the commands; 124 when time ran
/// out, 130 and 143 after Ctrl-C and SIGTERM (the commands are killed then), 125
/// when the system could not run them, 102 when it ended meanwhile, other than by
/// switching itself off.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ShArgs {
    /// The system: its process id or control address, as `run --headless` printed them. Without it the
    /// only one that runs.
    #[arg(long, value_name = "PID|ADDRESS")]
    system: Option<String>,
    /// Give up after so many seconds.
    #[arg(long, value_name = "N")]
    timeout_s: Option<u64>,
    /// Pass standard input on to the commands; otherwise theirs is empty.
    #[arg(long)]
    stdin: bool,
    /// Shell commands.
    #[arg(value_name = "COMMANDS")]
    commands: String,
}

/// Runs commands in a running system.
///
/// # Errors
/// When no system is meant, or the connection breaks.
pub fn sh(args: &ShArgs) -> anyhow::Result<ExitCode> {
    if args.commands.len() > COMMAND_BYTES_MAX {
        return Err(UsageError(format!(
            "commands of {} bytes, where {COMMAND_BYTES_MAX} is the most; pass a script with --stdin to `sh`",
            args.commands.len()
        ))
        .into());
    }
    let address = registry::find(args.system.as_deref())?;
    let mut client = Client::connect(&address)?;
    let limits = Limits {
        time: args.timeout_s.map(Duration::from_secs),
        interrupt: Interrupt::by(&[SIGINT, SIGTERM, SIGHUP])?,
    };
    let input: Option<Box<dyn io::Read + Send>> = match args.stdin {
        true => Some(Box::new(io::stdin())),
        false => None,
    };
    let outputs: [&mut dyn io::Write; 2] = [&mut io::stdout(), &mut io::stderr()];
    let ended = match client.execute(&args.commands, input, outputs, &limits) {
        Ok(ended) => ended,
        Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::from(141)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            return Ok(ExitCode::from(STATUS_DIED));
        }
    };
    Ok(ExitCode::from(status(&ended)))
}

/// Whether nobody reads the output any more.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit status that tells a caller; says on standard error what needs saying.
pub(super) fn status(ended: &Ended) -> u8 {
    match ended {
        Ended::ByItself(Ending::Exited { status }) => *status,
        // What was asked for has no such end.
        Ended::ByItself(Ending::Replaced { .. }) => STATUS_NOT_SERVED,
        Ended::ByItself(Ending::Cancelled) => {
            eprintln!("xtask: the request was cancelled");
            STATUS_NOT_SERVED
        }
        Ended::ByItself(Ending::SwitchedOff { status }) => {
            eprintln!("xtask: the system switched itself off with status {status}");
            *status
        }
        Ended::ByItself(Ending::Failed { reason }) => {
            eprintln!("xtask: {reason}");
            STATUS_NOT_SERVED
        }
        Ended::TimedOut => {
            eprintln!("xtask: time ran out; the commands were killed");
            STATUS_TIMEOUT
        }
        Ended::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(255),
    }
}
