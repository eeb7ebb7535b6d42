//! Driver for `edu`, QEMU's device for teaching: it computes factorials, copies between memory and a buffer of
//! its own, and interrupts. The book's tutorial builds it step by step.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod handler;
mod registers;
#[cfg(test)]
mod tests;

pub use handler::{Handler, Raiser};

use ddk::{DeviceContext, DmaRegion, Driver, DriverError, Irq, StopReason, alive, info, warn};

use registers::{
    BUFFER, BUFFER_BYTES, DMA_FROM_DEVICE, DMA_START, DMA_TO_DEVICE, IDENTIFICATION, INTERRUPT_DMA,
    INTERRUPT_FACTORIAL, INTERRUPT_ON_DMA, Registers, STATUS_COMPUTING, STATUS_INTERRUPT,
};

// ANCHOR: manifest
ddk::driver! {
    driver: Edu,
    name: "edu",
    class: OTHER,
    version: [0, 1, 0],
    matches: [pci_device(0x1234, 0x11e8)],
    needs: [bar(0), message_interrupt(), dma(28)],
    // An example steps back behind a driver of one's own.
    priority: -1,
}
// ANCHOR_END: manifest

/// Bits of an address that the device drives, unless QEMU's option `dma_mask` says otherwise.
const ADDRESS_BITS: u32 = 28;
/// How long the device may take. QEMU's takes 100 ms for a transfer.
const LIMIT_MS: u32 = 2000;

// ANCHOR: struct
/// The driver of one device.
pub struct Edu {
    cx: DeviceContext,
    registers: Registers,
    irq: Irq,
    /// What the device copies from and to.
    memory: DmaRegion,
}
// ANCHOR_END: struct

impl Edu {
    // ANCHOR: identify
    /// Checks that this is the device, and that it answers.
    fn identify(registers: &Registers) -> Result<u32, DriverError> {
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
        Ok(identification)
    }
    // ANCHOR_END: identify

    // ANCHOR: interrupt
    /// Waits until the device has raised `wanted`, and makes it release the interrupt.
    async fn wait_for(&mut self, operation: &'static str, wanted: u32) -> Result<(), DriverError> {
        let deadline = self.cx.deadline_in_ms(LIMIT_MS);
        loop {
            let pending = alive("interrupt status", self.registers.interrupt_status().read())?;
            if pending & wanted != 0 {
                self.registers.interrupt_acknowledge().write(pending);
                return Ok(());
            }
            if self.irq.wait(deadline).await.is_err() {
                // Unplugged, or late? A register tells.
                alive("interrupt status", self.registers.interrupt_status().read())?;
                return Err(DriverError::TimedOut {
                    operation,
                    waited_ms: LIMIT_MS,
                });
            }
            self.irq.acknowledge();
        }
    }
    // ANCHOR_END: interrupt

    // ANCHOR: factorial
    /// `n!`, modulo 2^32 as the device computes it.
    ///
    /// # Errors
    /// When the device is busy, late or gone.
    pub async fn factorial(&mut self, n: u32) -> Result<u32, DriverError> {
        let status = alive("status", self.registers.status().read())?;
        if status & STATUS_COMPUTING != 0 {
            return Err(DriverError::Protocol {
                what: "status before a factorial",
                expected: 0,
                seen: status.into(),
            });
        }
        self.registers.status().write(STATUS_INTERRUPT);
        self.registers.factorial().write(n);
        self.wait_for("factorial", INTERRUPT_FACTORIAL).await?;
        let status = alive("status", self.registers.status().read())?;
        if status & STATUS_COMPUTING != 0 {
            return Err(DriverError::Protocol {
                what: "status after the interrupt",
                expected: STATUS_INTERRUPT.into(),
                seen: status.into(),
            });
        }
        Ok(self.registers.factorial().read())
    }
    // ANCHOR_END: factorial

    // ANCHOR: dma
    /// Copies `len` bytes (at most 4096) from our memory into the device's buffer, or back.
    async fn transfer(&mut self, len: usize, direction: u64) -> Result<(), DriverError> {
        let memory = self.memory.device_address(0);
        if memory >> ADDRESS_BITS != 0 {
            return Err(DriverError::Unsupported {
                what: "DMA to memory at such an address (try less memory, or dma_mask)",
            });
        }
        let (source, destination) = if direction == DMA_FROM_DEVICE {
            (BUFFER, memory)
        } else {
            (memory, BUFFER)
        };
        self.registers.dma_source().write(source);
        self.registers.dma_destination().write(destination);
        self.registers.dma_count().write(len as u64);
        // The command comes last: it starts the transfer.
        self.registers
            .dma_command()
            .write(DMA_START | direction | INTERRUPT_ON_DMA);
        self.wait_for("DMA", INTERRUPT_DMA).await
    }

    /// Copies bytes (at most 4096) to the device and back, and compares.
    ///
    /// # Errors
    /// When there are too many, something else comes back, or the device is late or gone.
    pub async fn round_trip(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        if bytes.len() > BUFFER_BYTES {
            return Err(DriverError::Unsupported {
                what: "a transfer of more than 4096 bytes",
            });
        }
        for (n, byte) in bytes.iter().enumerate() {
            self.memory.write(n, *byte);
        }
        self.transfer(bytes.len(), DMA_TO_DEVICE).await?;
        for n in 0..bytes.len() {
            self.memory.write(n, 0u8);
        }
        self.transfer(bytes.len(), DMA_FROM_DEVICE).await?;
        for (n, byte) in bytes.iter().enumerate() {
            let seen = self.memory.read::<u8>(n);
            if seen != *byte {
                return Err(DriverError::Protocol {
                    what: "byte after DMA to the device and back",
                    expected: (*byte).into(),
                    seen: seen.into(),
                });
            }
        }
        Ok(())
    }
    // ANCHOR_END: dma
}

// ANCHOR: start
impl Driver for Edu {
    async fn start(cx: DeviceContext) -> Result<Edu, DriverError> {
        cx.pci().enable()?;
        let window = cx.pci().bar(0, 0, Registers::LEN)?;
        let registers = Registers::new(window).map_err(|_| DriverError::Unsupported {
            what: "registers of the whole length",
        })?;
        let version = Edu::identify(&registers)?;
        // Left by a driver that crashed.
        registers.status().write(0);
        let pending = registers.interrupt_status().read();
        registers.interrupt_acknowledge().write(pending);
        let mut edu = Edu {
            irq: cx.interrupt(0)?,
            memory: cx.dma_region(BUFFER_BYTES)?,
            cx,
            registers,
        };
        let product = edu.factorial(10).await?;
        info!(
            edu.cx,
            "version {}.{}, 10! = {product}",
            version >> 24,
            version >> 16 & 0xff
        );
        match edu.round_trip(b"there and back again").await {
            Ok(()) => info!(edu.cx, "DMA works both ways"),
            // Whoever needs DMA is told then; the rest works.
            Err(error @ DriverError::Unsupported { .. }) => warn!(edu.cx, "{error}"),
            Err(error) => return Err(error),
        }
        Ok(edu)
    }
    // ANCHOR_END: start

    // ANCHOR: stop
    async fn stop(self, _: StopReason) {
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
        self.registers.status().write(0);
        let pending = self.registers.interrupt_status().read();
        self.registers.interrupt_acknowledge().write(pending);
    }
    // ANCHOR_END: stop
}
