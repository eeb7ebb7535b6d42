//! The first process of a Linux guest that drives devices from a program.
//!
//! It mounts what a program needs, loads the modules that `/modules` names, gives the functions that `/functions`
//! names to vfio-pci, runs `/program` with the lines of `/arguments`, writes `exit STATUS` to port 0xe9, and
//! switches the machine off. The program's standard output goes to the second serial port, and everything
//! else to the first, the console.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use ddk_backend_vfio::bind_to_vfio;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot};

/// Status when the program could not be run at all.
const STATUS_NOT_RUN: i32 = 125;

fn main() {
    let status = match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("linux-init: {error}");
            STATUS_NOT_RUN
        }
    };
    say_outcome(status);
    // The machine is off after this, or the kernel panics because its first process ended.
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> Result<i32, String> {
    for (kind, folder) in [
        (c"proc", c"/proc"),
        (c"sysfs", c"/sys"),
        (c"devtmpfs", c"/dev"),
    ] {
        mount_at(kind, folder)?;
    }
    for module in lines("/modules")? {
        let image = fs::read(&module).map_err(|e| format!("{module}: {e}"))?;
        init_module(&image, c"").map_err(|e| format!("{module}: {e}"))?;
    }
    for function in lines("/functions")? {
        bind_to_vfio(&function).map_err(|e| e.to_string())?;
    }
    let console = File::options().write(true).open("/dev/ttyS1");
    let console = console.map_err(|e| format!("/dev/ttyS1: {e}"))?;
    raw(&console)?;
    let status = Command::new("/program")
        .args(lines("/arguments")?)
        .stdin(Stdio::null())
        .stdout(console)
        .status()
        .map_err(|e| format!("/program: {e}"))?;
    // As a shell reports a signal: 128 + its number.
    let killed = status
        .signal()
        .map_or(STATUS_NOT_RUN, |signal| 128 + signal);
    Ok(status.code().unwrap_or(killed))
}

/// Lets bytes pass as they are: a line feed stays alone.
fn raw(console: &File) -> Result<(), String> {
    let failed = |e: rustix::io::Errno| format!("/dev/ttyS1: {e}");
    let mut modes = rustix::termios::tcgetattr(console).map_err(failed)?;
    modes.make_raw();
    let when = rustix::termios::OptionalActions::Now;
    rustix::termios::tcsetattr(console, when, &modes).map_err(failed)
}

fn mount_at(kind: &CStr, folder: &CStr) -> Result<(), String> {
    let path = folder.to_string_lossy();
    let _ = fs::create_dir(Path::new(&*path));
    match mount(kind, folder, kind, MountFlags::empty(), None) {
        // The kernel may have mounted it.
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

fn lines(path: &str) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The port of QEMU's `isa-debugcon`.
const OUTCOME_PORT: u16 = 0xe9;

fn say_outcome(status: i32) {
    // SAFETY: this opens one port to this process, on which nothing but the debug console listens.
    if unsafe { libc::ioperm(OUTCOME_PORT.into(), 1, 1) } != 0 {
        eprintln!("linux-init: no access to the port for the outcome");
        return;
    }
    for byte in format!("exit {status}\n").bytes() {
        // SAFETY: the port was opened above, and a write to the debug console touches no memory.
        unsafe {
            core::arch::asm!("out dx, al", in("dx") OUTCOME_PORT, in("al") byte, options(nomem, nostack, preserves_flags));
        }
    }
}
