//! The serial class: what a driver of serial ports implements ([`SerialDevice`]), and the pump between it
//! and a client's byte stream ([`Pump`]). How the stream is carried is a backend's business ([`Stream`]);
//! what the bytes mean, a terminal's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod pump;

pub use pump::{Pump, Stream, StreamEnd};

use ddk::{Driver, DriverError, EventQueue, PlatformError};

/// Whether the device tells when it can send more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendInterrupt {
    /// It interrupts when there is room.
    On,
    /// It does not.
    Off,
}

/// Whether the device tells when it received something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiving {
    /// It interrupts when something has come.
    On,
    /// Nobody takes what comes: it stays in the device, which holds its sender back as far as it can.
    Paused,
}

/// A serial port, interrupt driven. Nothing here waits.
pub trait SerialDevice: Driver {
    /// Bits per second that are set.
    fn rate(&self) -> u32;

    /// Sets the bits per second; 8 data bits, no parity, one stop bit.
    ///
    /// # Errors
    /// When the device cannot.
    fn set_rate(&mut self, rate: u32) -> Result<(), DriverError>;

    /// Bytes of the transmitter's FIFO.
    fn fifo(&self) -> u16;

    /// Takes what was received; tells how much.
    ///
    /// # Errors
    /// When the device is gone.
    fn receive(&mut self, into: &mut [u8]) -> Result<usize, DriverError>;

    /// Hands as many bytes to the transmitter as it takes now; tells how many.
    ///
    /// # Errors
    /// When the device is gone.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, DriverError>;

    /// Asks for an interrupt when there is room for more, or not.
    fn set_send_interrupt(&mut self, on: SendInterrupt);

    /// Whether everything has left the transmitter.
    ///
    /// # Errors
    /// When the device is gone.
    fn is_idle(&mut self) -> Result<bool, DriverError>;

    /// Pauses receiving, or goes on with it; afterwards what is there is taken with
    /// [`receive`](SerialDevice::receive). Nothing to do for a device that takes only what it has room for.
    fn set_receiving(&mut self, receiving: Receiving) {
        let _ = receiving;
    }

    /// Delivers the interrupt to `events` with this key.
    ///
    /// # Errors
    /// When the system refuses.
    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// The interrupt came: makes the device release its line, putting what was received into `into`, and
    /// allows the next one. Tells how much was received; when `into` is full there may be more.
    ///
    /// # Errors
    /// When the device is gone, or does not release its line.
    fn interrupt(&mut self, into: &mut [u8]) -> Result<usize, DriverError>;
}
