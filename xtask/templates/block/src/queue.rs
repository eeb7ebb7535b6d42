//! The queue: one request at a time, a segment of its data after the other.

use ddk::{DriverError, EventQueue, Irq, PlatformError, Segment, alive};
use ddk_class_block::{BlockQueue, Completed, Operation, PushError, Request, Status};

use crate::registers::{
    COMMAND_READ, COMMAND_WRITE, Registers, STATUS_BUSY, STATUS_FAILED,
};

/// Longest request in bytes: a page, which lies in two at most.
pub(crate) const TRANSFER_MAX: u32 = 4096;
/// Segments of the longest request.
const SEGMENTS: usize = 2;

/// A request under way.
struct Current {
    token: u32,
    command: u32,
    position: u64,
    segments: [Option<Segment>; SEGMENTS],
    /// The next of them.
    next: usize,
    /// The device was told of one.
    started: bool,
}

/// See the module.
pub struct Queue {
    registers: Registers,
    irq: Irq,
    current: Option<Current>,
}

impl Queue {
    pub(crate) fn new(registers: Registers, irq: Irq) -> Queue {
        Queue {
            registers,
            irq,
            current: None,
        }
    }
}

impl BlockQueue for Queue {
    fn depth(&self) -> u16 {
        1
    }

    fn push(&mut self, request: &Request<'_>) -> Result<(), PushError> {
        if self.current.is_some() {
            return Err(PushError::Full);
        }
        let command = match request.operation {
            Operation::Read => COMMAND_READ,
            Operation::Write => COMMAND_WRITE,
            // Nothing is cached: a flush has no segments and is done.
            Operation::Flush => 0,
            _ => return Err(PushError::Rejected(Status::UNSUPPORTED)),
        };
        let mut segments = [None; SEGMENTS];
        if command != 0 {
            let mut data = request
                .segments(0)
                .ok_or(PushError::Rejected(Status::BAD_BUFFER))?;
            for place in &mut segments {
                *place = data.next();
            }
            if data.next().is_some() {
                return Err(PushError::Rejected(Status::TOO_LONG));
            }
        }
        self.current = Some(Current {
            token: request.token,
            command,
            position: request.lba << crate::BLOCK_SHIFT,
            segments,
            next: 0,
            started: false,
        });
        Ok(())
    }

    fn kick(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.started {
            return;
        }
        if let Some(Some(segment)) = current.segments.get(current.next) {
            self.registers.position().write(current.position);
            self.registers.address().write(segment.address);
            self.registers.length().write(segment.len);
            // The command comes last: it starts the transfer.
            self.registers.command().write(current.command);
            current.position += u64::from(segment.len);
            current.next += 1;
            current.started = true;
        }
    }

    fn reap(&mut self) -> Result<Option<Completed>, DriverError> {
        let Some(current) = &mut self.current else {
            return Ok(None);
        };
        let mut status = Status::OK;
        if current.started {
            let seen = alive("status", self.registers.status().read())?;
            if seen & STATUS_BUSY != 0 {
                return Ok(None);
            }
            current.started = false;
            if seen & STATUS_FAILED != 0 {
                status = Status::IO_ERROR;
            }
        }
        let more = matches!(current.segments.get(current.next), Some(Some(_)));
        if more && status == Status::OK {
            self.kick();
            return Ok(None);
        }
        let token = current.token;
        self.current = None;
        Ok(Some(Completed { token, status }))
    }

    fn arm(&mut self) -> bool {
        // The device always interrupts when it has finished; it may have done so before.
        match &self.current {
            Some(current) => !current.started || self.registers.status().read() & STATUS_BUSY == 0,
            None => false,
        }
    }

    fn disarm(&mut self) {}

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)
    }
}
