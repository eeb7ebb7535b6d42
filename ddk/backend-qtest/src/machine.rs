//! A machine: QEMU with devices, and no system that would use them.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ddk::manifest::Manifest;
use ddk::{DeviceAccess, PinnedBuffer, Platform, PlatformError};
use ddk_backend_host::{BindError, Payload, Services, everything};
use devmgr::grants::{self, Grants};
use devmgr::node::Device;
use pci_bus::config::{ConfigSpace, id};
use pci_bus::enumerate::{self, Topology};
use pci_bus::{assign, capability};
use proto::bus::{Aperture, BarKind, PciAddress, PciFunctionInfo};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

use crate::access::{Access, ECAM_BASE, ECAM_LEN, open_config_space};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::function::Function;
use crate::memory::GuestMemory;
use crate::platform::QtestPlatform;
use crate::process::{Process, qemu};
use crate::qmp::{Qmp, QmpError};
use crate::wire::{Time, Wire, WireError};

/// Why a machine does not start.
#[derive(Debug)]
pub enum StartError {
    /// No QEMU is installed: nothing was tested.
    NoQemu,
    /// The host refuses something.
    System(&'static str, std::io::Error),
    /// QEMU ended; its messages.
    Ended(String),
    /// QEMU refuses something that a machine needs.
    Refused(String),
    /// A device cannot be brought into place.
    Device(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoQemu => f.write_str(
                "no qemu-system-x86_64 in PATH; install it, or name one in BULKHEAD_QEMU",
            ),
            StartError::System(what, error) => write!(f, "{what}: {error}"),
            StartError::Ended(text) => write!(f, "QEMU ended at its start: {text}"),
            StartError::Refused(text) => write!(f, "QEMU refuses: {text}"),
            StartError::Device(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

/// What a machine is made of; see [`QtestMachine::builder`].
#[derive(Clone, Debug)]
pub struct QtestMachineBuilder {
    memory_mib: u32,
    cpus: usize,
    disks: Vec<Disk>,
    arguments: Vec<String>,
    ports: u8,
}

/// Firmware in place of the BIOS: the CPU clears its interrupt flag and halts, at the address where it
/// begins (`cli; hlt; jmp` back to `hlt`).
const PARKED: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
const FIRMWARE_BYTES: usize = 64 << 10;
const RESET_OFFSET: usize = FIRMWARE_BYTES - 16;

/// Addresses for BARs: above the configuration space and below the I/O APIC; ports above those of the board.
const MEMORY_BASE: u64 = ECAM_BASE + ECAM_LEN;
const MEMORY_END: u64 = 0xfe00_0000;
const PORTS_BASE: u64 = 0xc000;
const PORTS_LEN: u64 = 0x4000;

/// Slot control register behind the capability's start, power indicator off, power off (PCI Express Base,
/// 7.5.3.10).
const SLOT_CONTROL: u16 = 0x18;
const INDICATOR_OFF: u16 = 3 << 8;
const POWER_OFF: u16 = 1 << 10;
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);

impl QtestMachineBuilder {
    /// Memory of the machine, 64 MiB if not said. Control structures and payload of all drivers lie there.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// CPUs that drivers are told of, 1 if not said. They decide how many queues a driver makes.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self
    }

    /// A disk, for a device to name.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// A device as QEMU's `-device` takes it. With `id=NAME` it can be asked for by name.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.arguments
            .extend(["-device".to_owned(), device.to_owned()]);
        self
    }

    /// The same behind a slot of its own, so that it can be [pulled out](QtestMachine::unplug).
    #[must_use]
    pub fn pluggable_device(mut self, device: &str) -> Self {
        self.ports += 1;
        let port = format!("port{}", self.ports);
        let slot = self.ports;
        self.device(&format!(
            "pcie-root-port,id={port},chassis={slot},slot={slot}"
        ))
        .device(&format!("{device},bus={port}"))
    }

    /// Any other arguments.
    #[must_use]
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts QEMU and brings the devices into place, as firmware would.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<QtestMachine, StartError> {
        QtestMachine::start(self)
    }
}

/// What lives as long as QEMU does.
pub(crate) struct Running {
    pub(crate) wire: Wire,
    pub(crate) memory: GuestMemory,
    qmp: Qmp,
    process: Process,
}

/// A machine in QEMU whose devices are driven from this process.
///
/// Platforms keep QEMU alive, so the machine may be dropped before them.
pub struct QtestMachine {
    running: Arc<Running>,
    functions: Vec<Arc<Function>>,
    cpus: usize,
    disks: Vec<Disk>,
}

/// Virtual time is ours to move only where there is nothing but qtest. Where QEMU offers TCG, a halted CPU
/// leaves the devices' time to run with the host's, which is how a device behaves.
fn accelerator(qemu: &Path) -> Result<(&'static str, Time), StartError> {
    let output = Command::new(qemu).args(["-accel", "help"]).output();
    let output = output.map_err(|e| StartError::System("starting QEMU", e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let offers = |name: &str| text.lines().any(|line| line.trim() == name);
    if offers("tcg") {
        Ok(("tcg", Time::Host))
    } else if offers("qtest") {
        Ok(("qtest", Time::Stepped))
    } else {
        Err(StartError::Refused(
            "it offers neither tcg nor qtest".to_owned(),
        ))
    }
}

fn of_wire(error: WireError) -> StartError {
    match error {
        WireError::Closed => StartError::Ended(String::new()),
        WireError::Refused(text) => StartError::Refused(text),
    }
}

/// A path under which QEMU can open a descriptor of this process.
fn path_of(file: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

fn pair() -> Result<(UnixStream, UnixStream), StartError> {
    UnixStream::pair().map_err(|e| StartError::System("a socket", e))
}

impl QtestMachine {
    /// A q35 machine without devices but those of the board.
    pub fn builder() -> QtestMachineBuilder {
        QtestMachineBuilder {
            memory_mib: 64,
            cpus: 1,
            disks: Vec::new(),
            arguments: Vec::new(),
            ports: 0,
        }
    }

    fn start(builder: QtestMachineBuilder) -> Result<QtestMachine, StartError> {
        let qemu = qemu().ok_or(StartError::NoQemu)?;
        let (accelerator, time) = accelerator(&qemu)?;
        let memory = GuestMemory::new(u64::from(builder.memory_mib) << 20)?;
        let firmware = memfd_create("firmware", MemfdFlags::CLOEXEC);
        let mut image = vec![0xf4; FIRMWARE_BYTES];
        image[RESET_OFFSET..RESET_OFFSET + PARKED.len()].copy_from_slice(&PARKED);
        let firmware = firmware
            .and_then(|file| rustix::io::write(&file, &image).map(|_| file))
            .map_err(|e| StartError::System("the firmware", e.into()))?;
        let (wire, wire_theirs) = pair()?;
        let (qmp, qmp_theirs) = pair()?;

        let mib = builder.memory_mib;
        let mut command = Command::new(&qemu);
        command
            .args(["-M", "q35,memory-backend=ram", "-accel", accelerator])
            .args(["-m", &format!("{mib}M"), "-nodefaults", "-display", "none"])
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id=ram,size={mib}M,share=on,mem-path={}",
                path_of(memory.file())
            ))
            .args(["-bios", &path_of(&firmware)])
            // Slots are switched by the slot's own registers, not by ACPI.
            .args([
                "-global",
                "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            ])
            .arg("-chardev")
            .arg(format!("socket,id=qtest,fd={}", wire_theirs.as_raw_fd()))
            .args(["-qtest", "chardev:qtest", "-qtest-log", "none"])
            .arg("-chardev")
            .arg(format!("socket,id=qmp,fd={}", qmp_theirs.as_raw_fd()))
            .args(["-mon", "chardev=qmp,mode=control"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for disk in &builder.disks {
            command.args(disk.arguments());
        }
        command.args(&builder.arguments);
        let theirs: Vec<OwnedFd> = vec![wire_theirs.into(), qmp_theirs.into()];
        let process = Process::start(command, theirs)?;
        let qmp = Qmp::new(qmp).map_err(|_| StartError::Ended(process.messages()))?;
        drop(firmware);
        let wire = Wire::new(wire, time).map_err(|e| StartError::System("a socket", e))?;
        open_config_space(&wire).map_err(of_wire)?;
        let running = Arc::new(Running {
            wire,
            memory,
            qmp,
            process,
        });
        let functions = discover(&running)?;
        Ok(QtestMachine {
            running,
            functions,
            cpus: builder.cpus,
            disks: builder.disks,
        })
    }

    fn function(&self, device: &str) -> Result<&Arc<Function>, BindError> {
        let is_it = |f: &&Arc<Function>| {
            f.id.as_deref() == Some(device) || f.info.address.to_string() == device
        };
        self.functions.iter().find(is_it).ok_or_else(|| {
            let names: Vec<String> = self
                .functions
                .iter()
                .map(|f| f.id.clone().unwrap_or_else(|| f.info.address.to_string()))
                .collect();
            BindError::NotFound(names.join(", "))
        })
    }

    /// What the bus says of a device, named by its `id` or its address (`00:04.0`).
    ///
    /// # Errors
    /// [`BindError::NotFound`].
    pub fn info(&self, device: &str) -> Result<&PciFunctionInfo, BindError> {
        Ok(&self.function(device)?.info)
    }

    /// A platform with everything that the device has: memory BARs, messages, DMA.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn platform(&self, device: &str) -> Result<Arc<dyn Platform>, BindError> {
        let manifest = everything(&self.function(device)?.info);
        self.platform_for(device, &manifest)
    }

    /// A platform with what a driver's manifest asks for, as the device manager would grant it.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn platform_for(
        &self,
        device: &str,
        manifest: &Manifest,
    ) -> Result<Arc<dyn Platform>, BindError> {
        let function = self.function(device)?;
        let device = Device::Pci(function.info.clone());
        let grants = grants::plan(manifest, &device).map_err(BindError::Needs)?;
        self.bind(function, grants, None)
    }

    /// A platform whose one interrupt is the device's INTx line, level-triggered and shared. The manifest
    /// asks for no interrupts.
    ///
    /// # Errors
    /// See [`BindError`]; a device behind a bridge has no line here.
    pub fn platform_by_line(
        &self,
        device: &str,
        manifest: &Manifest,
    ) -> Result<Arc<dyn Platform>, BindError> {
        let function = self.function(device)?;
        let line = QtestPlatform::line_of(function)
            .ok_or_else(|| BindError::Needs("the device has no line".to_owned()))?;
        let device = Device::Pci(function.info.clone());
        let mut grants = grants::plan(manifest, &device).map_err(BindError::Needs)?;
        grants.vectors = 0;
        self.bind(function, grants, Some(line))
    }

    fn bind(
        &self,
        function: &Arc<Function>,
        grants: Grants,
        line: Option<usize>,
    ) -> Result<Arc<dyn Platform>, BindError> {
        if function.bound.swap(true, Ordering::Acquire) {
            return Err(BindError::InUse);
        }
        let services = Services::new().with_cpus(self.cpus);
        let platform = QtestPlatform::new(function.clone(), grants, line, services);
        Ok(Arc::new(platform.map_err(BindError::Device)?))
    }

    /// Memory for a client's payload, at least `bytes` in whole pages: the driver's view, and the client's.
    ///
    /// # Errors
    /// [`PlatformError::NoMemory`].
    pub fn payload(
        &self,
        bytes: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Payload), PlatformError> {
        Ok(self.running.memory.allocate(bytes)?.into_payload(access))
    }

    /// Pages of the machine's memory that nobody has; the same before and after when nothing is leaked.
    pub fn free_pages(&self) -> usize {
        self.running.memory.free_pages()
    }

    /// QEMU's control channel, for what is not offered here.
    pub fn qmp(&self) -> &Qmp {
        &self.running.qmp
    }

    /// Pulls a [pluggable](QtestMachineBuilder::pluggable_device) device out: from now on all its registers
    /// read as ones.
    ///
    /// # Errors
    /// [`QmpError::Refused`] when it is not in a slot of its own, or QEMU keeps it.
    pub fn unplug(&self, device: &str) -> Result<(), QmpError> {
        let refused = |text: &str| QmpError::Refused(format!("unplug {device}: {text}"));
        let function = self.function(device).map_err(|e| refused(&e.to_string()))?;
        let slot = function.bridges.first().copied();
        let slot = slot.ok_or_else(|| refused("it is not in a slot of its own"))?;
        let bridge = self.functions.iter().find(|f| f.info.address == slot);
        let express = bridge.and_then(|b| capability::find(&b.info.capabilities, id::EXPRESS));
        let control = express
            .and_then(|at| at.checked_add(SLOT_CONTROL))
            .ok_or_else(|| refused("the bridge above it has no slots"))?;
        let access = Access(&self.running.wire);
        let held = access.read16(slot, control);
        access.write16(slot, control, held | INDICATOR_OFF | POWER_OFF);
        function.set_gone();
        self.running.qmp.event("DEVICE_DELETED", UNPLUG_LIMIT)?;
        Ok(())
    }

    fn disk(&self, disk: &str) -> Result<&Disk, QmpError> {
        let found = self.disks.iter().find(|d| d.name == disk);
        found.ok_or_else(|| QmpError::Refused(format!("there is no disk {disk}")))
    }

    /// Makes a disk silent: requests that come from now on are not finished until [`QtestMachine::release`],
    /// or until the device is reset.
    ///
    /// # Errors
    /// Those of QEMU.
    pub fn hold(&self, disk: &str) -> Result<(), QmpError> {
        let disk = self.disk(disk)?;
        self.limit(disk, 1)?;
        // The first request passes whatever the limit is: a megabyte at one byte a second keeps the rest
        // waiting for longer than anybody does.
        let command = format!("qemu-io {} \"write -q 0 1M\"", disk.ballast());
        let answer = self
            .running
            .qmp
            .execute("human-monitor-command", json!({ "command-line": command }))?;
        match answer.as_str() {
            Some("") | None => Ok(()),
            Some(text) => Err(QmpError::Refused(format!("{command}: {text}"))),
        }
    }

    /// Ends that.
    ///
    /// # Errors
    /// Those of QEMU.
    pub fn release(&self, disk: &str) -> Result<(), QmpError> {
        self.limit(self.disk(disk)?, 0)?;
        // Stopping waits for all requests, and they are let out for that.
        self.running.qmp.execute("stop", json!({}))?;
        self.running.qmp.execute("cont", json!({}))?;
        Ok(())
    }

    fn limit(&self, disk: &Disk, bytes_per_second: u64) -> Result<(), QmpError> {
        let arguments = json!({
            "path": format!("/objects/{}", disk.group()),
            "property": "limits",
            "value": { "bps-total": bytes_per_second },
        });
        self.running.qmp.execute("qom-set", arguments)?;
        Ok(())
    }

    /// Changes the length of a disk while it is in use; its device announces that.
    ///
    /// # Errors
    /// Those of QEMU.
    pub fn resize(&self, disk: &str, sectors: u64) -> Result<(), QmpError> {
        let arguments = json!({
            "node-name": self.disk(disk)?.name,
            "size": sectors.saturating_mul(SECTOR_BYTES),
        });
        self.running.qmp.execute("block_resize", arguments)?;
        Ok(())
    }

    /// Ends QEMU at once: all registers of all devices read as ones.
    pub fn kill(&self) {
        self.running.process.kill();
    }

    /// What QEMU wrote to standard error.
    pub fn messages(&self) -> String {
        self.running.process.messages()
    }
}

/// Numbers the buses, places the BARs, and finds the names of the devices.
fn discover(running: &Arc<Running>) -> Result<Vec<Arc<Function>>, StartError> {
    let access = Access(&running.wire);
    let mut topology: Topology = enumerate::enumerate(&access, 0, &[]);
    let apertures = [
        Aperture {
            kind: BarKind::Memory32,
            base: MEMORY_BASE,
            len: MEMORY_END - MEMORY_BASE,
        },
        Aperture {
            kind: BarKind::Io,
            base: PORTS_BASE,
            len: PORTS_LEN,
        },
    ];
    assign::assign(&access, &mut topology, &apertures);
    if running.wire.is_closed() {
        return Err(StartError::Ended(running.process.messages()));
    }
    if let Some(problem) = topology.problems.first() {
        return Err(StartError::Device(problem.clone()));
    }
    let buses = running.qmp.execute("query-pci", json!({}));
    let buses = buses.map_err(|e| StartError::Refused(e.to_string()))?;
    let mut names = Vec::new();
    for bus in buses.as_array().into_iter().flatten() {
        collect_names(&bus["devices"], &mut names);
    }
    let functions = topology.functions.iter().map(|f| {
        let address = f.info.address;
        let name = names.iter().find(|(known, _)| *known == address);
        let bridges = topology.bridges_above(address);
        Arc::new(Function::new(
            running.clone(),
            f.info.clone(),
            bridges,
            name.map(|(_, name)| name.clone()),
        ))
    });
    Ok(functions.collect())
}

/// The `id`s in an answer to `query-pci`, which lists what is behind a bridge inside of it.
fn collect_names(devices: &Value, names: &mut Vec<(PciAddress, String)>) {
    for device in devices.as_array().into_iter().flatten() {
        let part = |name: &str| device[name].as_u64().and_then(|n| u8::try_from(n).ok());
        if let (Some(bus), Some(slot), Some(function)) =
            (part("bus"), part("slot"), part("function"))
            && let Some(name) = device["qdev_id"].as_str().filter(|name| !name.is_empty())
        {
            let address = PciAddress {
                segment: 0,
                bus,
                device: slot,
                function,
            };
            names.push((address, name.to_owned()));
        }
        collect_names(&device["pci_bridge"]["devices"], names);
    }
}
