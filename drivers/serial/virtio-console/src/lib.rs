//! Driver for virtio consoles (virtio 1.2, 5.3) on the PCI bus: one serial port, without a rate.
//!
//! A port's bytes are the class's own, so they are copied between its stream and the queues' buffers; payload
//! passes through this process as with any serial port. The device gets no buffer for what nobody reads: it
//! keeps it, and who sends it waits. More ports than the first one (`MULTIPORT`) are not asked for.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod queue;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, StopReason, info, warn,
};
use ddk_class_serial::{SendInterrupt, SerialDevice};
use ddk_virtio::Transport;
use spec_virtio::console;
use spec_virtio::feature::RING_EVENT_IDX;
use spec_virtio::status::DEVICE_NEEDS_RESET;

use queue::{Receiver, SLOT_PAGES, Transmitter};

ddk::driver! {
    driver: VirtioConsole,
    name: "virtio-console",
    class: SERIAL,
    version: [0, 1, 0],
    // A transitional device is driven by its modern interface.
    matches: [
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_MODERN + console::DEVICE_TYPE),
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_CONSOLE_TRANSITIONAL),
    ],
    needs: [memory_bars(), msix(1, 2), dma(64)],
}

/// Rate that is told: there is none, and this is what the others have.
const RATE: u32 = 115_200;

/// The driver of one device.
pub struct VirtioConsole {
    cx: DeviceContext,
    transport: Transport,
    receiver: Receiver,
    transmitter: Transmitter,
    interrupts: Vec<Irq>,
    rate: u32,
}

impl Driver for VirtioConsole {
    async fn start(cx: DeviceContext) -> Result<VirtioConsole, DriverError> {
        cx.pci().enable()?;
        let transport = Transport::new(&cx)?;
        let features = transport.negotiate(RING_EVENT_IDX, 0).await?;
        let vectors = cx.interrupt_count().min(2);
        let last = vectors.checked_sub(1).ok_or(DriverError::Unsupported {
            what: "MSI-X vectors",
        })?;
        // A device that needs a reset says so with a configuration change.
        transport.set_config_vector(0)?;
        let receive = transport.queue(console::queue::RECEIVE, features, 0, SLOT_PAGES)?;
        let transmit = transport.queue(console::queue::TRANSMIT, features, last, SLOT_PAGES)?;
        let mut interrupts = Vec::new();
        for vector in 0..vectors {
            interrupts.push(cx.interrupt(vector)?);
        }
        let mut receiver = Receiver::new(&cx, receive)?;
        let transmitter = Transmitter::new(&cx, transmit)?;
        transport.driver_ok()?;
        // 2.1.2: no notification before DRIVER_OK.
        receiver.kick();
        info!(
            cx,
            "console with {} bytes of buffers to receive, {} to send, features {features:#x}",
            receiver.len(),
            transmitter.len()
        );
        Ok(VirtioConsole {
            cx,
            transport,
            receiver,
            transmitter,
            interrupts,
            rate: RATE,
        })
    }

    async fn stop(self, _: StopReason) {
        if let Err(error) = self.transport.reset().await {
            warn!(self.cx, "while stopping: {error}");
        }
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}

impl SerialDevice for VirtioConsole {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn set_rate(&mut self, rate: u32) -> Result<(), DriverError> {
        self.rate = rate;
        Ok(())
    }

    fn fifo(&self) -> u16 {
        u16::try_from(self.transmitter.len()).unwrap_or(u16::MAX)
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        self.receiver.receive(into)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        self.transmitter.send(bytes)
    }

    fn set_send_interrupt(&mut self, on: SendInterrupt) {
        // A transmitter that took less than it was given has armed its interrupt.
        if on == SendInterrupt::Off {
            self.transmitter.disarm();
        }
    }

    fn is_idle(&mut self) -> Result<bool, DriverError> {
        self.transmitter.is_idle()
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        for interrupt in &mut self.interrupts {
            interrupt.bind(events, key)?;
        }
        Ok(())
    }

    fn interrupt(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        self.interrupts.iter().for_each(Irq::acknowledge);
        if self.transport.status()? & DEVICE_NEEDS_RESET != 0 {
            let what = "device status without DEVICE_NEEDS_RESET";
            return Err(DriverError::Protocol {
                what,
                expected: 0,
                seen: DEVICE_NEEDS_RESET.into(),
            });
        }
        self.receive(into)
    }
}
