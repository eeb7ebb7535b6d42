//! The QEMU process, which never outlives the one that started it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::StartError;

/// The program, and the environment variable that names another one.
const PROGRAM: &str = "qemu-system-x86_64";
const VARIABLE: &str = "BULKHEAD_QEMU";

/// The QEMU that machines run in: `$BULKHEAD_QEMU`, or `qemu-system-x86_64` in `$PATH`; `None` when there is
/// neither, and tests have to say that they did not run.
pub fn qemu() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file())
}

/// A running QEMU. Dropping it ends QEMU.
pub(crate) struct Process {
    handle: OwnedFd,
    keeper: Option<JoinHandle<()>>,
    errors: File,
}

impl Process {
    /// Starts QEMU, which inherits `descriptors` under their present numbers.
    ///
    /// The system ends QEMU when the thread that started it ends, and a machine may outlive the thread that
    /// asked for it: so QEMU has a thread that stays.
    pub(crate) fn start(
        mut command: Command,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Process, StartError> {
        let errors = memfd_create("qemu-errors", MemfdFlags::CLOEXEC).map(File::from);
        let errors =
            errors.map_err(|e| StartError::System("memory for QEMU's messages", e.into()))?;
        let for_child = errors.try_clone();
        command.stderr(for_child.map_err(|e| StartError::System("a descriptor", e))?);
        let prepare = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // In the child only, so that no other child inherits them: the end of QEMU has to be the end of
            // the sockets.
            for descriptor in &descriptors {
                rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec `prepare` makes two kinds of system calls and nothing else: no
        // allocation, no lock.
        unsafe { command.pre_exec(prepare) };
        let (sender, receiver) = mpsc::channel();
        let keeper = std::thread::Builder::new().name("qemu".to_owned());
        let keeper = keeper.spawn(move || {
            let spawned = command.spawn();
            // Closes our copies of what only QEMU should hold.
            drop(command);
            match spawned {
                Ok(mut child) => {
                    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                    let handle = pid.ok_or(rustix::io::Errno::SRCH);
                    let handle = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
                    if handle.is_err() {
                        let _ = child.kill();
                    }
                    let _ = sender.send(handle.map_err(std::io::Error::from));
                    let _ = child.wait();
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        });
        let keeper = keeper.map_err(|e| StartError::System("a thread", e))?;
        match receiver.recv() {
            Ok(Ok(handle)) => Ok(Process {
                handle,
                keeper: Some(keeper),
                errors,
            }),
            Ok(Err(error)) => Err(StartError::System("starting QEMU", error)),
            Err(_) => Err(StartError::Ended(String::new())),
        }
    }

    /// What QEMU wrote to standard error.
    pub(crate) fn messages(&self) -> String {
        let mut text = String::new();
        let mut file = &self.errors;
        let read = file.seek(SeekFrom::Start(0));
        match read.and_then(|_| file.read_to_string(&mut text)) {
            Ok(_) => text.trim().to_owned(),
            Err(error) => format!("(QEMU's messages cannot be read: {error})"),
        }
    }

    /// Ends QEMU at once.
    pub(crate) fn kill(&self) {
        // It may have ended long before.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
