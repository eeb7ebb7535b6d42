//! A PCI function of a machine: the bus's side of it, as the process `pci` has it in the running system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ddk::{Bus, PlatformError, PortBus, Width};
use ddk_backend_host::bus_refused;
use pci_bus::config::{ConfigSpace, command, register};
use pci_bus::{fence, filter, message};
use proto::bus::{BusError, FenceStep, Message, PciAddress, PciFunctionInfo, VectorState};

use crate::access::{Access, width};
use crate::machine::Running;

/// A function, and what holds of it now.
pub(crate) struct Function {
    machine: Arc<Running>,
    pub(crate) info: PciFunctionInfo,
    /// The bridges above it, nearest first.
    pub(crate) bridges: Vec<PciAddress>,
    /// The `id` of its `-device` argument.
    pub(crate) id: Option<String>,
    /// It was pulled out. QEMU answers reads where nothing is with zeroes; a PC's host bridge with ones.
    gone: AtomicBool,
    /// Whether its BARs are decoded.
    decodes: AtomicBool,
    pub(crate) bound: AtomicBool,
    pub(crate) epoch: AtomicU32,
}

impl Function {
    pub(crate) fn new(
        machine: Arc<Running>,
        info: PciFunctionInfo,
        bridges: Vec<PciAddress>,
        id: Option<String>,
    ) -> Function {
        Function {
            machine,
            info,
            bridges,
            id,
            gone: AtomicBool::new(false),
            decodes: AtomicBool::new(false),
            bound: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
        }
    }

    pub(crate) fn machine(&self) -> &Running {
        &self.machine
    }

    fn access(&self) -> Access<'_> {
        Access(&self.machine.wire)
    }

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether its registers answer.
    fn answers(&self) -> bool {
        self.decodes.load(Ordering::Relaxed) && !self.gone.load(Ordering::Relaxed)
    }

    pub(crate) fn config_read(&self, offset: u16, bytes: Width) -> Result<u32, PlatformError> {
        let access = self.access();
        let bytes =
            filter::check_access(offset, bytes as u8, access.size()).map_err(bus_refused)?;
        if self.gone.load(Ordering::Relaxed) {
            return Ok(bytes.all_ones());
        }
        Ok(access.read(self.info.address, offset, bytes))
    }

    pub(crate) fn config_write(
        &self,
        offset: u16,
        bytes: Width,
        value: u32,
    ) -> Result<(), PlatformError> {
        let (access, address) = (self.access(), self.info.address);
        let vendor_length = |at: u16| u16::from(access.read8(address, at.saturating_add(2)));
        let checked = filter::check_write(
            &self.info,
            offset,
            bytes as u8,
            access.size(),
            vendor_length,
        );
        let checked = checked.map_err(bus_refused)?;
        debug_assert!(width(checked) == bytes);
        access.write(address, offset, checked, value);
        Ok(())
    }

    /// Writes the messages of the vectors and leaves each masked, and the function too.
    pub(crate) fn program(&self, messages: &[Message]) -> Result<(), PlatformError> {
        if messages.is_empty() {
            return Ok(());
        }
        let access = self.access();
        message::program(&access, &access, &self.info, messages).map_err(bus_refused)?;
        for vector in 0..messages.len() as u16 {
            self.set_vector(vector, VectorState::Masked)?;
        }
        Ok(())
    }

    /// Masks or unmasks a vector that was programmed.
    pub(crate) fn set_vector(&self, vector: u16, state: VectorState) -> Result<(), PlatformError> {
        if self.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let access = self.access();
        message::set_vector(&access, &access, &self.info, vector, state).map_err(bus_refused)
    }

    /// Decoding and bus mastering on, also in the bridges above, then messages.
    pub(crate) fn enable(&self, interrupts: Interrupts) -> Result<(), PlatformError> {
        let access = self.access();
        let on = command::IO | command::MEMORY | command::BUS_MASTER;
        for bridge in &self.bridges {
            let held = access.read16(*bridge, register::COMMAND);
            access.write16(*bridge, register::COMMAND, held | on);
        }
        let address = self.info.address;
        let held = access.read16(address, register::COMMAND) & !command::INTX_DISABLE;
        let value = match interrupts {
            Interrupts::Line => held | on,
            Interrupts::Messages | Interrupts::None => held | on | command::INTX_DISABLE,
        };
        access.write16(address, register::COMMAND, value);
        self.decodes.store(true, Ordering::Relaxed);
        match interrupts {
            Interrupts::Messages => {
                // By MSI the one vector is the function: a message that comes before it is bound stays in its word.
                message::set_function(&access, &self.info, VectorState::Unmasked)
                    .map_err(bus_refused)
            }
            Interrupts::Line | Interrupts::None => Ok(()),
        }
    }

    /// Messages and bus mastering off.
    pub(crate) fn disable(&self, interrupts: Interrupts) -> Result<(), PlatformError> {
        let access = self.access();
        if self.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        if interrupts == Interrupts::Messages {
            message::set_function(&access, &self.info, VectorState::Masked).map_err(bus_refused)?;
        }
        fence::bus_master_off(&access, self.info.address).map_err(bus_refused)
    }

    /// The whole fence, as after the death of a driver: interrupts, bus mastering, reset.
    pub(crate) fn fence(&self) -> Result<(), PlatformError> {
        if self.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.decodes.store(false, Ordering::Relaxed);
        let access = self.access();
        let bridge = self.bridges.first().copied();
        for step in [
            FenceStep::MaskInterrupts,
            FenceStep::BusMasterOff,
            FenceStep::Reset,
        ] {
            match fence::step(&access, &access, &access, &self.info, bridge, step) {
                // Without a way to be reset it is cut off from memory, and that has to do.
                Ok(()) | Err(BusError::NotSupported) => {}
                Err(error) => return Err(bus_refused(error)),
            }
        }
        Ok(())
    }
}

/// How a function is to interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupts {
    /// By MSI-X or MSI.
    Messages,
    /// By its INTx line.
    Line,
    /// Not at all.
    None,
}

/// A window of a BAR.
pub(crate) struct Window {
    pub(crate) function: Arc<Function>,
    pub(crate) physical: u64,
}

impl Bus for Window {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let at = self.physical.saturating_add(offset as u64);
        let value = match self.function.answers() {
            true => self.function.machine.wire.read(at, width).ok(),
            false => None,
        };
        value.unwrap_or(width.all_ones())
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let at = self.physical.saturating_add(offset as u64);
        if self.function.answers() {
            let _ = self.function.machine.wire.write(at, width, value);
        }
    }
}

/// A BAR of I/O ports.
pub(crate) struct Ports {
    pub(crate) function: Arc<Function>,
    pub(crate) first: u16,
}

impl Ports {
    fn input(&self, offset: u16, width: Width) -> u32 {
        let port = self.first.saturating_add(offset);
        let value = match self.function.answers() {
            true => self.function.machine.wire.port_in(port, width).ok(),
            false => None,
        };
        value.unwrap_or(width.all_ones() as u32)
    }

    fn output(&self, offset: u16, width: Width, value: u32) {
        let port = self.first.saturating_add(offset);
        if self.function.answers() {
            let _ = self.function.machine.wire.port_out(port, width, value);
        }
    }
}

impl PortBus for Ports {
    fn read8(&self, offset: u16) -> u8 {
        self.input(offset, Width::U8) as u8
    }
    fn write8(&self, offset: u16, value: u8) {
        self.output(offset, Width::U8, value.into());
    }
    fn read16(&self, offset: u16) -> u16 {
        self.input(offset, Width::U16) as u16
    }
    fn write16(&self, offset: u16, value: u16) {
        self.output(offset, Width::U16, value.into());
    }
    fn read32(&self, offset: u16) -> u32 {
        self.input(offset, Width::U32)
    }
    fn write32(&self, offset: u16, value: u32) {
        self.output(offset, Width::U32, value);
    }
}
