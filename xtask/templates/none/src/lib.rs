//! Driver for {{match}}.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;

use ddk::{DeviceContext, Driver, DriverError, StopReason, alive, info, warn};

ddk::driver! {
    driver: {{type}},
    name: "{{name}}",
    class: OTHER,
    version: [0, 1, 0],
    matches: [{{rule}}],
    // What it must be granted: see `ddk::matches`. Add interrupts and DMA when you come to them.
    needs: [bar(0)],
}

ddk::registers! {
    /// The device's registers in BAR 0: offset, name, width, access, section of the specification.
    pub(crate) struct Registers: 0x04 {
        /// The first register; put the device's own here.
        0x00 first: u32, ReadPure, "1";
    }
}

/// The driver of one device.
pub struct {{type}} {
    cx: DeviceContext,
    registers: Registers,
}

impl {{type}} {
    /// Value of the first register.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn first(&self) -> Result<u32, DriverError> {
        alive("first register", self.registers.first().read())
    }
}

impl Driver for {{type}} {
    async fn start(cx: DeviceContext) -> Result<{{type}}, DriverError> {
        cx.pci().enable()?;
        let window = cx.pci().bar(0, 0, Registers::LEN)?;
        let registers = Registers::new(window).map_err(|_| DriverError::Unsupported {
            what: "registers of the whole length",
        })?;
        let driver = {{type}} { cx, registers };
        let first = driver.first()?;
        info!(driver.cx, "first register: {first:#010x}");
        Ok(driver)
    }

    async fn stop(self, _: StopReason) {
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}
