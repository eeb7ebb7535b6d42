//! Driver for {{match}}: a serial port.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, StopReason, alive, warn,
};
use ddk_class_serial::{SendInterrupt, SerialDevice};

ddk::driver! {
    driver: {{type}},
    name: "{{name}}",
    class: SERIAL,
    version: [0, 1, 0],
    matches: [{{rule}}],
    needs: [bar(0), message_interrupt()],
}

ddk::registers! {
    /// The device's registers in BAR 0; put the device's own here.
    pub(crate) struct Registers: 0x0c {
        /// A byte received, or one to send.
        0x00 data: u32, ReadEffectWrite, "1";
        /// What it can do now.
        0x04 status: u32, ReadPure, "1";
        /// Which of it interrupts.
        0x08 interrupt_enable: u32, WriteOnly, "1";
    }
}

/// Status: a byte was received.
const RECEIVED: u32 = 1;
/// Status: there is room for a byte to send.
const ROOM: u32 = 2;
/// Bits per second; nothing sets them yet.
const RATE: u32 = 115_200;

/// The driver of one port.
pub struct {{type}} {
    cx: DeviceContext,
    registers: Registers,
    irq: Irq,
}

impl {{type}} {
    fn status(&self) -> Result<u32, DriverError> {
        alive("status", self.registers.status().read())
    }
}

impl Driver for {{type}} {
    async fn start(cx: DeviceContext) -> Result<{{type}}, DriverError> {
        cx.pci().enable()?;
        let window = cx.pci().bar(0, 0, Registers::LEN)?;
        let registers = Registers::new(window).map_err(|_| DriverError::Unsupported {
            what: "registers of the whole length",
        })?;
        registers.interrupt_enable().write(0);
        let irq = cx.interrupt(0)?;
        let driver = {{type}} { cx, registers, irq };
        driver.status()?;
        Ok(driver)
    }

    async fn stop(self, _: StopReason) {
        self.registers.interrupt_enable().write(0);
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}

impl SerialDevice for {{type}} {
    fn rate(&self) -> u32 {
        RATE
    }

    fn set_rate(&mut self, rate: u32) -> Result<(), DriverError> {
        if rate == RATE {
            return Ok(());
        }
        Err(DriverError::Unsupported {
            what: "another rate",
        })
    }

    fn fifo(&self) -> u16 {
        1
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        let mut count = 0;
        for place in into {
            if self.status()? & RECEIVED == 0 {
                break;
            }
            *place = self.registers.data().read_with_effect() as u8;
            count += 1;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        let mut count = 0;
        for byte in bytes {
            if self.status()? & ROOM == 0 {
                break;
            }
            self.registers.data().write(u32::from(*byte));
            count += 1;
        }
        Ok(count)
    }

    fn set_send_interrupt(&mut self, on: SendInterrupt) {
        let bits = match on {
            SendInterrupt::On => RECEIVED | ROOM,
            SendInterrupt::Off => RECEIVED,
        };
        self.registers.interrupt_enable().write(bits);
    }

    fn is_idle(&mut self) -> Result<bool, DriverError> {
        Ok(self.status()? & ROOM != 0)
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)?;
        self.registers.interrupt_enable().write(RECEIVED);
        Ok(())
    }

    fn interrupt(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        let count = self.receive(into)?;
        self.irq.acknowledge();
        Ok(count)
    }
}
