//! Start and end of a process.

use proto::fs::{Bytes, FilesClient, OpenFlags};
use rt::process::{Child, Command, Stdio};
use rt::sync::Once;
use rt::{AsHandle, Channel, Deadline, Vmo};

use crate::measure::{Failure, Section, measure_plain};
use crate::section;

const SPAWN: Section = section!(6);

const PROCESSES: u32 = 100;
/// No child takes so long to end.
const LIMIT_S: u64 = 30;

/// Where the child's program may be: in the boot archive or on the root.
const PROGRAMS: [&str; 2] = ["/boot/bin/bench-child", "/bin/bench-child"];

/// The channel to the file service.
///
/// # Errors
///
/// When this process was given none.
pub fn files() -> Result<FilesClient, Failure> {
    let channel = rt::startup::handle::<Channel>("file")
        .ok_or_else(|| Failure::new("files", rt::Error::NotFound))?;
    let channel = channel
        .duplicate()
        .map_err(|error| Failure::new("files", error))?;
    Ok(FilesClient::new(channel))
}

/// The child's program, read once.
fn program() -> Result<&'static Vmo, Failure> {
    static PROGRAM: Once<Vmo> = Once::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program);
    }
    let files = files()?;
    let mut failure = None;
    for path in PROGRAMS {
        match files.open(Bytes::from(path), OpenFlags::READ) {
            Ok((_, file)) => {
                let (_, vmo) = file.vmo().map_err(|error| Failure::new(path, error))?;
                return Ok(PROGRAM.get_or_init(|| vmo));
            }
            Err(error) => failure = Some(Failure::new(path, error)),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::new("program", rt::Error::NotFound)))
}

/// Starts the child's program, with `calls` as its handle of that name.
///
/// # Errors
///
/// When there is no program or no room for a process.
pub fn start_child(calls: Option<Channel>) -> Result<Child, Failure> {
    let mut command = Command::new(program()?, "bench-child")
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null);
    if let Some(calls) = calls {
        command = command.handle("calls", calls);
    }
    command
        .spawn()
        .map_err(|error| Failure::new("spawn", error))
}

/// Waits for the end of a child, which has to be a good one.
///
/// # Errors
///
/// When it does not end or fails.
pub fn reap(child: &mut Child) -> Result<(), Failure> {
    let exited = child
        .wait(Deadline::after_secs(LIMIT_S))
        .map_err(|error| Failure::new("wait", error))?;
    if !exited.success() {
        return Err(Failure::new("the child's end", exited.reason));
    }
    Ok(())
}

/// The row `spawn`: a process is made from a program in memory, runs, ends and is waited
/// for, one after the other.
///
/// # Errors
///
/// When a child cannot be started or fails.
pub fn spawn(row: &str) -> Result<bool, Failure> {
    program()?;
    measure_plain(row, SPAWN, PROCESSES, || {
        for _ in 0..PROCESSES {
            reap(&mut start_child(None)?)?;
        }
        Ok(())
    })
}
