//! The process `acpi`: holds the firmware's tables and the power switch, and serves
//! `proto::bus::Firmware`.
//!
//! Handles: `serve:firmware` (channel), `table:SIGNATURE:N` (VMO of each table), `ports` and `mmio` (resources).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use acpi_service::aml;
use acpi_service::power::{self, Action};
use acpi_service::resources::{self, HostBridges};
use acpi_service::tables::{self, Fadt, HEADER_BYTES, Register};
use proto::bus::{BusError, EcamRegion, FirmwareRequest, FirmwareServer};
use rt::ipc::Server;
use rt::{
    AsHandle, CacheMode, Channel, Deadline, Error, IoPorts, MmioRegion, Packet, Port, Resource,
    Signals, Vmo, Watch, startup,
};
use supervision::Supervised;

rt::entry!(main);

/// Largest table that is read; firmware's DSDTs stay far below.
const TABLE_BYTES_MAX: u64 = 4 << 20;
const PAGE: u64 = 4096;
/// Keys of the port.
const KEY_CLIENTS: u64 = 1;
const KEY_SUPERVISOR: u64 = 2;

struct Firmware {
    tables: Vec<(String, Vec<u8>)>,
    ports: Option<&'static Resource>,
    mmio: Option<&'static Resource>,
}

fn main() {
    let Some(channel) = startup::take::<Channel>("serve:firmware") else {
        rt::error!("no channel to serve");
        return;
    };
    let firmware = Firmware {
        tables: read_tables(),
        ports: startup::handle("ports"),
        mmio: startup::handle("mmio"),
    };
    if let Err(error) = serve(&firmware, &FirmwareServer::new(channel)) {
        rt::error!("{error}");
        rt::exit(1);
    }
}

/// Serves until nobody is left to serve.
fn serve(firmware: &Firmware, server: &FirmwareServer) -> Result<(), Error> {
    let port = Port::create()?;
    let supervised = Supervised::from_startup();
    if let Some(own) = &supervised {
        own.watch(&port, KEY_SUPERVISOR)?;
    }
    let signals = Signals::READABLE | Signals::PEER_CLOSED;
    let channel = server.channel();
    channel.wait_async(&port, KEY_CLIENTS, signals, Watch::Persistent)?;
    let mut packets = [Packet::default(); 4];
    loop {
        loop {
            match server.try_next() {
                Ok(Some(request)) => {
                    // A client that is gone does not wait for its answer.
                    let _ = firmware.serve(request);
                }
                Ok(None) => break,
                Err(Error::PeerClosed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if let Some(own) = &supervised {
            own.answer();
        }
        port.wait(&mut packets, Deadline::FOREVER)?;
    }
}

fn read_tables() -> Vec<(String, Vec<u8>)> {
    let names: Vec<&'static str> = startup::handle_names()
        .filter(|n| n.starts_with("table:"))
        .collect();
    let mut list = Vec::new();
    for name in names {
        let Some(vmo) = startup::take::<Vmo>(name) else {
            continue;
        };
        let signature = name.split(':').nth(1).unwrap_or("").to_string();
        // The root pointer has no table header; what it leads to is here already.
        if signature == "RSD " {
            continue;
        }
        match read_table(&vmo) {
            Ok(bytes) => list.push((signature, bytes)),
            Err(error) => rt::warn!("table {signature}: {error}"),
        }
    }
    list
}

fn read_table(vmo: &Vmo) -> Result<Vec<u8>, String> {
    let text = |e: Error| e.to_string();
    let size = vmo.size().map_err(text)?;
    let mut header = [0; HEADER_BYTES];
    vmo.read(0, &mut header).map_err(text)?;
    let [_, _, _, _, a, b, c, d, ..] = header;
    let len = u64::from(u32::from_le_bytes([a, b, c, d]));
    if len > size || len > TABLE_BYTES_MAX {
        return Err(alloc::format!("says {len} bytes, {size} are there"));
    }
    let mut bytes = alloc::vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
    vmo.read(0, &mut bytes).map_err(text)?;
    // FACS has no checksum; it is kept for the list only.
    Ok(bytes)
}

impl Firmware {
    fn serve(&self, request: FirmwareRequest) -> Result<(), Error> {
        match request {
            FirmwareRequest::EcamRegions { reply } => reply.ok(self.ecam_regions()),
            FirmwareRequest::Apertures { reply } => reply.ok(self.host_bridges().apertures),
            FirmwareRequest::RootBuses { reply } => reply.ok(self.host_bridges().buses),
            FirmwareRequest::PowerOff { reply } => match self.power_off() {
                Ok(()) => reply.error(&BusError::NotSupported),
                Err(error) => reply.error(&error),
            },
            FirmwareRequest::Reboot { reply } => {
                match self.run(&power::reset(self.fadt().as_ref())) {
                    Ok(()) => reply.error(&BusError::NotSupported),
                    Err(error) => reply.error(&error),
                }
            }
            FirmwareRequest::Tables { reply } => {
                let list: Vec<(String, u32)> = self
                    .tables
                    .iter()
                    .map(|(s, b)| (s.clone(), u32::try_from(b.len()).unwrap_or(u32::MAX)))
                    .collect();
                reply.ok(&list)
            }
        }
    }

    fn all<'a>(&'a self, signature: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.tables
            .iter()
            .filter(move |(s, _)| s == signature)
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// Definition blocks without their headers; those with a bad checksum are left out.
    fn definitions(&self) -> impl Iterator<Item = &[u8]> {
        self.all("DSDT")
            .chain(self.all("SSDT"))
            .filter_map(|table| {
                let table = tables::checked(table)
                    .inspect_err(|error| rt::warn!("AML table: {error}"))
                    .ok()?;
                table.get(HEADER_BYTES..)
            })
    }

    fn ecam_regions(&self) -> Vec<EcamRegion> {
        let mut regions = Vec::new();
        for table in self.all("MCFG") {
            match tables::mcfg(table) {
                Ok(found) => regions.extend(found),
                Err(error) => rt::warn!("MCFG: {error}"),
            }
        }
        regions
    }

    fn host_bridges(&self) -> HostBridges {
        resources::host_bridges(self.definitions())
    }

    fn fadt(&self) -> Option<Fadt> {
        self.all("FACP").find_map(|table| {
            tables::fadt(table)
                .inspect_err(|error| rt::warn!("FADT: {error}"))
                .ok()
        })
    }

    fn power_off(&self) -> Result<(), BusError> {
        let fadt = self.fadt().ok_or(BusError::NotSupported)?;
        let types = self
            .definitions()
            .find_map(aml::soft_off)
            .ok_or(BusError::NotSupported)?;
        self.run(&power::off(&fadt, types))
    }

    fn run(&self, actions: &[Action]) -> Result<(), BusError> {
        for action in actions {
            match *action {
                Action::Write8(register, value) => self.write8(register, value)?,
                Action::Change16 {
                    register,
                    keep,
                    set,
                } => {
                    let held = self.read16(register)?;
                    self.write16(register, held & keep | set)?;
                }
                Action::WaitEnabled(register) => {
                    let limit = Deadline::after_secs(3);
                    while self.read16(register)? & 1 == 0 && !limit.has_passed() {
                        rt::time::sleep(Duration::from_millis(1));
                    }
                }
                Action::Pause(ms) => rt::time::sleep(Duration::from_millis(ms.into())),
            }
        }
        rt::time::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn port(&self, port: u16, len: u16) -> Result<IoPorts, BusError> {
        let ports = self.ports.ok_or(BusError::NotSupported)?;
        IoPorts::grant(ports, port, len).map_err(kernel)
    }

    /// The page of a register in memory, and where in it the register is.
    fn page(&self, physical: u64) -> Result<(MmioRegion, usize), BusError> {
        let mmio = self.mmio.ok_or(BusError::NotSupported)?;
        let page = physical & !(PAGE - 1);
        let vmo = Vmo::physical(mmio, page, PAGE as usize, CacheMode::Uncached).map_err(kernel)?;
        let region = MmioRegion::map(&vmo, 0, PAGE as usize).map_err(kernel)?;
        Ok((region, (physical & (PAGE - 1)) as usize))
    }

    fn write8(&self, register: Register, value: u8) -> Result<(), BusError> {
        match register {
            Register::Port(port) => self.port(port, 1)?.write8(0, value).map_err(kernel),
            Register::Memory(at) => {
                let (region, offset) = self.page(at)?;
                region.write(offset, value).map_err(kernel)
            }
        }
    }

    fn read16(&self, register: Register) -> Result<u16, BusError> {
        match register {
            Register::Port(port) => self.port(port, 2)?.read16(0).map_err(kernel),
            Register::Memory(at) => {
                let (region, offset) = self.page(at)?;
                region.read(offset).map_err(kernel)
            }
        }
    }

    fn write16(&self, register: Register, value: u16) -> Result<(), BusError> {
        match register {
            Register::Port(port) => self.port(port, 2)?.write16(0, value).map_err(kernel),
            Register::Memory(at) => {
                let (region, offset) = self.page(at)?;
                region.write(offset, value).map_err(kernel)
            }
        }
    }
}

fn kernel(error: Error) -> BusError {
    BusError::Kernel(error as i32)
}
