//! Between a port and a client's stream.

use alloc::vec;
use alloc::vec::Vec;

use ddk::DriverError;

use crate::{Receiving, SendInterrupt, SerialDevice};

/// Most bytes sent before the receiver is looked at.
const SEND_STEP: usize = 16 * 1024;
/// Bytes received at a time: more than any FIFO holds.
const RECEIVE_BYTES: usize = 16 * 1024;

/// Reads of a port that nobody listens to, before something else is done.
const DISCARDS_MAX: usize = 64;

/// The stream is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamEnd;

/// A client's byte stream, both ways. Nothing here waits.
pub trait Stream {
    /// Replaces the contents of `into` by bytes to send; `false` when there are none now.
    ///
    /// # Errors
    /// When the client closed it and everything was taken.
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, StreamEnd>;

    /// Hands received bytes over; `false` when there is no room for them.
    ///
    /// # Errors
    /// When the client closed it.
    fn give(&mut self, bytes: &[u8]) -> Result<bool, StreamEnd>;
}

/// Moves bytes between a device and a stream.
pub struct Pump {
    /// Being sent, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that the stream had no room for: receiving is paused.
    held: usize,
}

impl Default for Pump {
    fn default() -> Self {
        Pump::new()
    }
}

impl Pump {
    /// A pump with nothing in it.
    pub fn new() -> Pump {
        Pump {
            outgoing: Vec::new(),
            sent: 0,
            incoming: vec![0; RECEIVE_BYTES],
            held: 0,
        }
    }

    /// Whether everything that was taken from the stream was handed to the transmitter.
    pub fn is_empty(&self) -> bool {
        self.sent >= self.outgoing.len()
    }

    /// Serves the device's interrupt.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn interrupt<D: SerialDevice, S: Stream>(
        &mut self,
        device: &mut D,
        stream: Option<&mut S>,
    ) -> Result<(), DriverError> {
        let room = match self.held {
            0 => self.incoming.as_mut_slice(),
            _ => &mut [],
        };
        let count = device.interrupt(room)?;
        match stream {
            Some(stream) => {
                if self.held == 0 && self.deliver(count, device, stream).is_err() {
                    // The stream's end is noticed where it is sent from.
                    return Ok(());
                }
                self.receive(device, stream)
            }
            // Nobody listens to a closed port.
            None => self.discard(device),
        }
    }

    /// Hands over what was received, until there is no more or the stream has no room for it; then receiving
    /// pauses. To be called when the stream has room again.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn receive<D: SerialDevice, S: Stream>(
        &mut self,
        device: &mut D,
        stream: &mut S,
    ) -> Result<(), DriverError> {
        if self.held > 0 {
            let bytes = self.incoming.get(..self.held).unwrap_or(&[]);
            if stream.give(bytes) == Ok(false) {
                return Ok(());
            }
            self.held = 0;
            device.set_receiving(Receiving::On);
        }
        // A stream's room is bounded, and so is this.
        while self.held == 0 {
            let count = device.receive(&mut self.incoming)?;
            if count == 0 {
                return Ok(());
            }
            if self.deliver(count, device, stream).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The stream is closed: what was received for it goes.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn discard<D: SerialDevice>(&mut self, device: &mut D) -> Result<(), DriverError> {
        if self.held > 0 {
            self.held = 0;
            device.set_receiving(Receiving::On);
        }
        for _ in 0..DISCARDS_MAX {
            if device.receive(&mut self.incoming)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sends what the stream has, until the transmitter is full (then it will interrupt) or there is no more.
    /// `Err(StreamEnd)` inside: the stream is at its end and everything was handed to the transmitter.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn send<D: SerialDevice, S: Stream>(
        &mut self,
        device: &mut D,
        stream: &mut S,
    ) -> Result<Result<(), StreamEnd>, DriverError> {
        loop {
            if self.is_empty() {
                self.sent = 0;
                self.outgoing.clear();
                let taken = stream.take(&mut self.outgoing);
                if !matches!(taken, Ok(true)) {
                    device.set_send_interrupt(SendInterrupt::Off);
                    return Ok(taken.map(|_| ()));
                }
            }
            let rest = self.outgoing.get(self.sent..).unwrap_or(&[]);
            let step = rest.get(..SEND_STEP).unwrap_or(rest);
            let (len, sent) = (step.len(), device.send(step)?);
            self.sent += sent.min(len);
            if sent < len {
                device.set_send_interrupt(SendInterrupt::On);
                return Ok(Ok(()));
            }
            self.receive(device, stream)?;
        }
    }

    fn deliver<D: SerialDevice, S: Stream>(
        &mut self,
        count: usize,
        device: &mut D,
        stream: &mut S,
    ) -> Result<(), StreamEnd> {
        let bytes = self.incoming.get(..count).unwrap_or(&[]);
        if !bytes.is_empty() && !stream.give(bytes)? {
            self.held = count;
            device.set_receiving(Receiving::Paused);
        }
        Ok(())
    }
}
