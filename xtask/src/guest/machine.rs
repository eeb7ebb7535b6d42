//! The machine that the guest sees: QEMU's q35 and its command line.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

use super::disk::{self, Disk};
use crate::tool;

const QEMU: &str = "qemu-system-x86_64";

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

/// QEMU's version, major and minor; none when it does not say.
pub fn version() -> Option<(u32, u32)> {
    let said = tool::read(tool::command(QEMU).arg("--version")).ok()?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let number = said.split("version ").nth(1)?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// How the emulator runs several processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processors {
    /// Each on a thread of the host.
    #[default]
    AtOnce,
    /// In turns of 100 ms on one thread. For runs under a plugin in which drivers die over and over: it makes the
    /// moment of [`met_known_fault`](super::met_known_fault) long.
    InTurn,
}

/// A virtio device asks an IOMMU only if it is told to.
fn put_behind_iommu(argument: &mut String) {
    let model = argument.split(',').next().unwrap_or("");
    if model.starts_with("virtio-") && model.ends_with("-pci") {
        for option in ["disable-legacy=on", "iommu_platform=on"] {
            if !argument.contains(option) {
                argument.push(',');
                argument.push_str(option);
            }
        }
    }
}

impl Processors {
    /// How QEMU is told.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::AtOnce => &[],
            Self::InTurn => &["-accel", "tcg,thread=single"],
        }
    }
}

/// How processors are run where devices die thousands of times. The fault of [`met_known_fault`](super::met_known_fault) can
/// also send a processor's write to its interrupt controller elsewhere: then an interrupt between processors is lost,
/// or its end, and the machine stands still without a crash.
pub fn reliable() -> Processors {
    match version() {
        Some(version) if version < (8, 1) => Processors::InTurn,
        _ => Processors::AtOnce,
    }
}

/// What carries the control port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// A virtio console.
    #[default]
    Virtio,
    /// COM2, in the console's place: slow, and on every machine.
    Uart,
}

/// A line to the guest's control service.
#[derive(Clone, Debug)]
pub struct ControlPort {
    /// What carries it.
    pub transport: Transport,
    /// Is given the host's end when the machine starts.
    pub opened: Sender<UnixStream>,
}

impl Transport {
    /// The word of the kernel's command line that tells the system of it.
    pub fn word(self) -> &'static str {
        match self {
            Transport::Virtio => "control=hvc0",
            Transport::Uart => "control=uart0",
        }
    }
}

/// A machine, and what it boots.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of processors.
    pub cpus: u32,
    /// How they are run.
    pub processors: Processors,
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
    /// An IOMMU (Intel VT-d) between devices and memory.
    pub iommu: bool,
    /// Further QEMU arguments, after all others.
    pub extra: Vec<String>,
    /// The control port; without one there is none.
    pub control: Option<ControlPort>,
}

/// The guest's ends of its lines to the host.
#[derive(Debug)]
pub struct GuestEnds {
    /// COM1.
    pub log: UnixStream,
    /// COM2.
    pub console: UnixStream,
    /// Port 0xe9.
    pub outcome: UnixStream,
    /// The control port.
    pub control: Option<UnixStream>,
}

impl Machine {
    /// The default machine: one processor, 512 MiB, no disks.
    pub fn new(kernel: impl Into<PathBuf>, archive: Option<PathBuf>) -> Self {
        Self {
            cpus: 1,
            processors: Processors::default(),
            memory: "512M".to_owned(),
            kernel: kernel.into(),
            archive,
            command_line: String::new(),
            disks: Vec::new(),
            iommu: false,
            extra: Vec::new(),
            control: None,
        }
    }

    /// Makes the run repeat bit by bit.
    pub fn deterministic(&mut self) {
        self.extra
            .extend(DETERMINISTIC.iter().map(ToString::to_string));
    }

    /// QEMU's command line, with the log on COM1, the console on COM2 and the
    /// outcome on port 0xe9. QEMU has to inherit the sockets under their numbers.
    pub fn command(&self, ends: &GuestEnds) -> Command {
        let mut command = tool::command(QEMU);
        command
            .args(["-M", "q35", "-cpu", "max,-erms", "-m", &self.memory])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel);
        command.args(self.processors.arguments());
        if let Some(archive) = &self.archive {
            command.arg("-initrd").arg(archive);
        }
        if !self.command_line.is_empty() {
            command.args(["-append", &self.command_line]);
        }
        let lines = [
            ("log", Some(&ends.log)),
            ("console", Some(&ends.console)),
            ("outcome", Some(&ends.outcome)),
            ("control", ends.control.as_ref()),
        ];
        for (name, socket) in lines {
            if let Some(socket) = socket {
                let fd = socket.as_raw_fd();
                command.args(["-chardev", &format!("socket,id={name},fd={fd}")]);
            }
        }
        let second = match &self.control {
            Some(control) if control.transport == Transport::Uart => "chardev:control",
            _ => "chardev:console",
        };
        command.args(["-serial", "chardev:log", "-serial", second]);
        command.args(["-device", "isa-debugcon,iobase=0xe9,chardev=outcome"]);
        if self.iommu {
            // Before the devices that are to be behind it.
            command.args(["-device", "intel-iommu"]);
        }
        let mut devices = disk::controllers(&self.disks, self.cpus);
        for (index, disk) in self.disks.iter().enumerate() {
            devices.extend(disk.arguments(index, self.cpus));
        }
        if self
            .control
            .as_ref()
            .is_some_and(|control| control.transport == Transport::Virtio)
        {
            // One port needs no queues to control several.
            devices.extend(
                [
                    "-device",
                    "virtio-serial-pci,id=control,max_ports=1",
                    "-device",
                    "virtconsole,bus=control.0,chardev=control",
                ]
                .map(str::to_owned),
            );
        }
        devices.extend(self.extra.iter().cloned());
        if self.iommu {
            devices.iter_mut().for_each(put_behind_iommu);
        }
        command.args(devices);
        command.stdout(Stdio::null());
        command
    }
}
