//! The machine that the guest sees: QEMU's q35 and its command line.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::disk::{self, Disk};
use crate::tool;

/// Flags that make a run repeat bit by bit: the guest's time is the number of
/// instructions that it executed.
const DETERMINISTIC: &[&str] = &[
    "-icount",
    "shift=0,sleep=off",
    "-rtc",
    "base=2024-01-01,clock=vm",
    "-seed",
    "1",
];

/// A machine, and what it boots.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of processors.
    pub cpus: u32,
    /// Memory as QEMU's `-m` takes it, for example `512M`.
    pub memory: String,
    /// An ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The boot archive, handed over as the initial RAM disk.
    pub archive: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
    /// Disks in the order of their PCI slots.
    pub disks: Vec<Disk>,
    /// Further QEMU arguments, after all others.
    pub extra: Vec<String>,
}

impl Machine {
    /// The default machine: one processor, 512 MiB, no disks.
    pub fn new(kernel: impl Into<PathBuf>, archive: Option<PathBuf>) -> Self {
        Self {
            cpus: 1,
            memory: "512M".to_owned(),
            kernel: kernel.into(),
            archive,
            command_line: String::new(),
            disks: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Makes the run repeat bit by bit.
    pub fn deterministic(&mut self) {
        self.extra
            .extend(DETERMINISTIC.iter().map(ToString::to_string));
    }

    /// QEMU's command line, with the log on COM1, the console on COM2 and the
    /// outcome on port 0xe9. QEMU has to inherit the sockets under their numbers.
    pub fn command(&self, log: &UnixStream, console: &UnixStream, outcome: &UnixStream) -> Command {
        let mut command = tool::command("qemu-system-x86_64");
        command
            .args(["-M", "q35", "-cpu", "max,-erms", "-m", &self.memory])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel);
        if let Some(archive) = &self.archive {
            command.arg("-initrd").arg(archive);
        }
        if !self.command_line.is_empty() {
            command.args(["-append", &self.command_line]);
        }
        for (name, socket) in [("log", log), ("console", console), ("outcome", outcome)] {
            let fd = socket.as_raw_fd();
            command.args(["-chardev", &format!("socket,id={name},fd={fd}")]);
        }
        command.args(["-serial", "chardev:log", "-serial", "chardev:console"]);
        command.args(["-device", "isa-debugcon,iobase=0xe9,chardev=outcome"]);
        command.args(disk::controllers(&self.disks, self.cpus));
        for (index, disk) in self.disks.iter().enumerate() {
            command.args(disk.arguments(index, self.cpus));
        }
        command.args(&self.extra);
        command.stdout(Stdio::null());
        command
    }
}
