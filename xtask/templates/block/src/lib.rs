//! Driver for {{match}}: a disk.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod queue;
mod registers;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, PlatformError, StopReason, alive, info, warn,
};
use ddk_class_block::{BlockDevice, DiskInfo};

pub use queue::Queue;
use registers::Registers;

ddk::driver! {
    driver: {{type}},
    name: "{{name}}",
    class: BLOCK,
    version: [0, 1, 0],
    matches: [{{rule}}],
    needs: [bar(0), message_interrupt(), dma(64)],
}

/// Bytes of a block as a power of two.
const BLOCK_SHIFT: u8 = 9;

/// The driver of one disk.
pub struct {{type}} {
    cx: DeviceContext,
    registers: Registers,
    blocks: u64,
    /// Until the class layer takes it.
    queue: Option<Queue>,
}

impl {{type}} {
    fn new_queue(&self) -> Result<Queue, DriverError> {
        Ok(Queue::new(self.registers.clone(), self.cx.interrupt(0)?))
    }
}

impl Driver for {{type}} {
    async fn start(cx: DeviceContext) -> Result<{{type}}, DriverError> {
        cx.pci().enable()?;
        let window = cx.pci().bar(0, 0, Registers::LEN)?;
        let registers = Registers::new(window).map_err(|_| DriverError::Unsupported {
            what: "registers of the whole length",
        })?;
        // In whatever state the last driver left it.
        registers.command().write(registers::COMMAND_RESET);
        let blocks = alive("blocks", registers.blocks().read())?;
        let mut driver = {{type}} {
            cx,
            registers,
            blocks,
            queue: None,
        };
        driver.queue = Some(driver.new_queue()?);
        info!(driver.cx, "{blocks} blocks");
        Ok(driver)
    }

    async fn stop(self, _: StopReason) {
        self.registers.command().write(registers::COMMAND_RESET);
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}

impl BlockDevice for {{type}} {
    type Queue = Queue;

    fn disks(&self) -> Vec<DiskInfo> {
        vec![DiskInfo {
            unit: 0,
            suffix: String::new(),
            block_shift: BLOCK_SHIFT,
            physical_block_size: 1 << BLOCK_SHIFT,
            block_count: self.blocks,
            read_only: false,
            max_transfer: queue::TRANSFER_MAX,
            max_discard: 0,
            max_write_zeroes: 0,
            volatile_cache: false,
            durable_writes: false,
            serial: String::new(),
        }]
    }

    fn take_queues(&mut self) -> Vec<Queue> {
        self.queue.take().into_iter().collect()
    }

    async fn reset(&mut self, old: Vec<Queue>) -> Result<Vec<Queue>, DriverError> {
        self.registers.command().write(registers::COMMAND_RESET);
        alive("status", self.registers.status().read())?;
        drop(old);
        Ok(vec![self.new_queue()?])
    }

    fn bind_changes(&mut self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        Ok(())
    }
}
