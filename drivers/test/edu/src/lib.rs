//! Driver for `edu`, QEMU's device for teaching: it raises an interrupt when a register is written. Its
//! factorial and its DMA are not used.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;

use ddk::{
    Deadline, DeviceContext, Driver, DriverError, Event, EventQueue, Irq, StopReason, alive, info,
    warn,
};

ddk::driver! {
    driver: Edu,
    name: "edu",
    class: OTHER,
    version: [0, 1, 0],
    matches: [pci_device(0x1234, 0x11e8)],
    needs: [bar(0), message_interrupt()],
    // Before drivers of the tests that match the same device.
    priority: 1,
}

ddk::registers! {
    /// Registers of the device (QEMU, docs/specs/edu.rst).
    pub struct Registers: 0x68 {
        /// Major and minor version, 0xed in the lowest byte.
        0x00 identification: u32, ReadPure, "MMIO area";
        /// What was written last, inverted.
        0x04 liveness: u32, ReadWrite, "MMIO area";
        /// Bits of the interrupts that are pending.
        0x24 interrupt_status: u32, ReadPure, "MMIO area";
        /// Raises an interrupt: the value is added to the pending bits.
        0x60 interrupt_raise: u32, WriteOnly, "MMIO area";
        /// Takes bits off the pending ones.
        0x64 interrupt_acknowledge: u32, WriteOnly, "MMIO area";
    }
}

const IDENTIFICATION: u32 = 0xed;
/// The bit that stands for an interrupt here.
const RAISED: u32 = 1;
const KEY: u64 = 1;

/// The driver of one device.
pub struct Edu {
    cx: DeviceContext,
    registers: Registers,
}

/// Raises interrupts.
#[derive(Clone, Debug)]
pub struct Raiser(Registers);

impl Raiser {
    /// Raises one.
    #[inline]
    pub fn raise(&self) {
        self.0.interrupt_raise().write(RAISED);
    }
}

/// Waits for interrupts and quiets the device.
pub struct Handler {
    registers: Registers,
    irq: Irq,
    events: Box<dyn EventQueue>,
}

impl Handler {
    /// Waits for an interrupt and acknowledges it at the device.
    ///
    /// # Errors
    /// When the system refuses to wait.
    #[inline]
    pub fn serve(&self) -> Result<(), DriverError> {
        let mut events = [Event::default(); 1];
        loop {
            let taken = self.events.wait(&mut events, Deadline::NEVER);
            if taken.map_err(|error| DriverError::platform("events", error))? > 0 {
                break;
            }
        }
        self.registers.interrupt_acknowledge().write(RAISED);
        self.irq.acknowledge();
        Ok(())
    }
}

impl Edu {
    /// What raises interrupts.
    pub fn raiser(&self) -> Raiser {
        Raiser(self.registers.clone())
    }

    /// What serves them: one at a time.
    ///
    /// # Errors
    /// When the interrupt was not granted.
    pub fn handler(&self) -> Result<Handler, DriverError> {
        let events = self.cx.event_queue()?;
        let mut irq = self.cx.interrupt(0)?;
        irq.bind(&*events, KEY)
            .map_err(|error| DriverError::platform("interrupt", error))?;
        Ok(Handler {
            registers: self.registers.clone(),
            irq,
            events,
        })
    }
}

impl Driver for Edu {
    async fn start(cx: DeviceContext) -> Result<Edu, DriverError> {
        cx.pci().enable()?;
        let window = cx.pci().bar(0, 0, Registers::LEN)?;
        let registers = Registers::new(window).map_err(|_| DriverError::Unsupported {
            what: "registers of the whole length",
        })?;
        let identification = alive("identification", registers.identification().read())?;
        if identification & 0xff != IDENTIFICATION {
            return Err(DriverError::Protocol {
                what: "lowest byte of the identification",
                expected: IDENTIFICATION.into(),
                seen: identification.into(),
            });
        }
        const PATTERN: u32 = 0x1357_9bdf;
        registers.liveness().write(PATTERN);
        let inverted = registers.liveness().read();
        if inverted != !PATTERN {
            return Err(DriverError::Protocol {
                what: "inverted word of the liveness check",
                expected: (!PATTERN).into(),
                seen: inverted.into(),
            });
        }
        // Left by a driver that crashed.
        let pending = registers.interrupt_status().read();
        registers.interrupt_acknowledge().write(pending);
        info!(
            cx,
            "version {}.{}",
            identification >> 24,
            identification >> 16 & 0xff
        );
        Ok(Edu { cx, registers })
    }

    async fn stop(self, _: StopReason) {
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
        let pending = self.registers.interrupt_status().read();
        self.registers.interrupt_acknowledge().write(pending);
    }
}
