//! The QEMU process, which never outlives xtask.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use anyhow::Context;
use rustix::io::FdFlags;

use super::machine::GuestEnds;
use crate::tool;

/// A running QEMU. Dropping it ends QEMU.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts QEMU, which inherits `ends` under their present numbers.
    ///
    /// The kernel ends QEMU when the calling thread ends, so the thread that
    /// starts it has to stay until its end.
    pub(super) fn start(mut command: Command, ends: GuestEnds) -> anyhow::Result<Self> {
        let text = tool::shown(&command);
        let sockets: Vec<UnixStream> = [ends.log, ends.console, ends.outcome]
            .into_iter()
            .chain(ends.control)
            .collect();
        let prepare = move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // In the child only, so that no other child inherits them: the end
            // of QEMU has to be the end of the sockets.
            for socket in &sockets {
                rustix::io::fcntl_setfd(socket, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec `prepare` makes two kinds of system
        // calls and nothing else: no allocation, no lock.
        unsafe { command.pre_exec(prepare) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {text}"))?;
        Ok(Self { child })
    }

    /// Ends QEMU at once.
    pub(super) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits for QEMU's own end.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, and been waited for, long before.
        let _ = self.kill();
    }
}
