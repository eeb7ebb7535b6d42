//! Drivers as processes of a Linux guest, on devices that an emulated IOMMU contains.
//!
//! The program is one of the host, linked statically; the guest has nothing else but its
//! first process, `tests/linux-init`. Functions are at known places, in the order of the
//! devices, and vfio-pci has them when the program starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::{Flavour, Kernel};
use crate::build;
use crate::guest::{self, Machine, Outcome, Streams};
use crate::setup;
use crate::tool;

/// What a program over VFIO needs of the kernel.
const MODULES: &[&str] = &["vfio", "vfio_iommu_type1", "vfio_pci"];

/// First slot of the devices.
const FIRST_SLOT: usize = 0x10;

/// A program, and the machine that it runs in.
#[derive(Clone, Debug)]
pub struct Task {
    /// A static program of Linux, see [`build_static`].
    pub program: PathBuf,
    /// What it is called with, behind the addresses of the devices.
    pub arguments: Vec<String>,
    /// Arguments of QEMU before the devices, for instance what the disks are.
    pub machine: Vec<String>,
    /// Devices as QEMU's `-device` takes them, without an address. virtio devices have to
    /// respect the IOMMU: `disable-legacy=on,iommu_platform=on`.
    pub devices: Vec<String>,
    /// Devices that hang on those, for instance namespaces of a controller.
    pub below: Vec<String>,
    /// Processors of the guest.
    pub cpus: u32,
    /// When the guest is given up.
    pub time_limit: Duration,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended: with the program's status, if nothing else happened.
    pub outcome: Outcome,
    /// The program's standard output.
    pub output: String,
    /// The console: the kernel's messages and the program's standard error.
    pub log: String,
}

/// Why this host cannot do it; `None` when it can.
pub fn obstacle() -> Option<String> {
    if let Err(error) = setup::ensure(&[setup::MACHINE, setup::COMPILER]) {
        return Some(format!("{error:#}"));
    }
    let devices = tool::read(tool::command("qemu-system-x86_64").args(["-device", "help"]));
    match devices {
        Ok(text) if String::from_utf8_lossy(&text).contains("\"intel-iommu\"") => {}
        Ok(_) => return Some("this QEMU has no intel-iommu".to_owned()),
        Err(error) => return Some(format!("{error:#}")),
    }
    let kernel = Kernel::prepare(Flavour::Cloud);
    kernel
        .err()
        .map(|error| format!("no Linux to boot: {error:#}"))
}

/// Builds programs of the workspace so that they need nothing of the guest: binaries and
/// examples of these packages, by name.
///
/// # Errors
///
/// When they do not compile.
pub fn build_static(packages: &[&str]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut command = setup::cargo();
    command
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["build", "--quiet", "--bins", "--examples"])
        .args(["--target", "x86_64-unknown-linux-gnu"]);
    for package in packages {
        command.args(["--package", package]);
    }
    build::cargo::compile(command, "static", build::Profile::Release)
}

/// Runs a program in a Linux guest with an IOMMU.
///
/// # Errors
///
/// When the guest cannot be made or started. What becomes of the program is in the report.
pub fn run(task: &Task, folder: &Path) -> anyhow::Result<Report> {
    let kernel = Kernel::prepare(Flavour::Cloud)?;
    let init = build_static(&["linux-init"])?;
    let init = init.get("linux-init").context("linux-init was not built")?;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let functions: Vec<String> = (0..task.devices.len())
        .map(|index| format!("0000:00:{:02x}.0", FIRST_SLOT + index))
        .collect();
    let lines = |words: &mut dyn Iterator<Item = &String>| {
        words
            .flat_map(|word| [word.as_bytes(), b"\n"].concat())
            .collect::<Vec<u8>>()
    };
    let files = [
        ("init", read(init)?),
        ("program", read(&task.program)?),
        ("functions", lines(&mut functions.iter())),
        (
            "arguments",
            lines(&mut functions.iter().chain(&task.arguments)),
        ),
    ];
    let initrd = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(initrd.path(), kernel.initrd(MODULES, &files)?)?;

    let mut machine = Machine::new(&kernel.image, Some(initrd.path().to_owned()));
    machine.cpus = task.cpus;
    machine.command_line = "console=ttyS0 quiet panic=-1 intel_iommu=on".to_owned();
    machine.extra = ["-device", "intel-iommu,intremap=on"]
        .map(str::to_owned)
        .to_vec();
    machine.extra.extend(task.machine.iter().cloned());
    for (index, device) in task.devices.iter().enumerate() {
        let slot = FIRST_SLOT + index;
        let device = format!("{device},addr={slot:#x}");
        machine.extra.extend(["-device".to_owned(), device]);
    }
    for device in &task.below {
        machine.extra.extend(["-device".to_owned(), device.clone()]);
    }
    let (mut output, mut log) = (Vec::new(), Vec::new());
    let outcome = guest::run(
        &machine,
        Some(task.time_limit),
        &mut Streams {
            console: &mut output,
            log: &mut log,
            input: None,
        },
    )?;
    Ok(Report {
        outcome,
        output: String::from_utf8_lossy(&output).into_owned(),
        log: String::from_utf8_lossy(&log).into_owned(),
    })
}
