//! Between a port and a client's stream.

use alloc::vec;
use alloc::vec::Vec;

use ddk::DriverError;

use crate::{SendInterrupt, SerialDevice};

/// Most bytes sent before the receiver is looked at.
const SEND_STEP: usize = 1024;
/// Bytes received at a time: more than any FIFO holds.
const RECEIVE_BYTES: usize = 512;

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
    lost: u64,
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
            lost: 0,
        }
    }

    /// Bytes that were received while there was no room for them, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
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
        let count = device.interrupt(&mut self.incoming)?;
        self.deliver(count, stream);
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
            let count = device.receive(&mut self.incoming)?;
            self.deliver(count, Some(stream));
        }
    }

    fn deliver<S: Stream>(&mut self, count: usize, stream: Option<&mut S>) {
        let bytes = self.incoming.get(..count).unwrap_or(&[]);
        if bytes.is_empty() {
            return;
        }
        let given = stream.map(|stream| stream.give(bytes));
        // Nobody listens to a closed port; what an open one has no room for is lost.
        if given == Some(Ok(false)) {
            self.lost += bytes.len() as u64;
        }
    }
}
