//! The other end of the wire, which the host holds: asked for over an interface of its own, whose frames may be long. A question and its
//! answer are a frame each, with [`TYPE`] after the addresses, then the operation, a number, and what belongs to it. The host's
//! half is in `xtask/src/conformance/wire.rs`.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use net_client::{FramePort, MacAddress, Nic, Offload, SessionError};
use rt::Deadline;

/// Type of the frames (IEEE 802, local experimental).
const TYPE: [u8; 2] = [0x88, 0xb6];
/// The host.
const HOST: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x02]);
/// Bytes before what belongs to an operation: addresses, type, operation, number.
const HEADER_BYTES: usize = 6 + 6 + 2 + 1 + 4;
/// Frames each way that the port has buffers for.
const BUFFERS: u16 = 64;
/// How long the host may take for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// How long nothing comes on a wire with nothing under way.
const QUIET: Duration = Duration::from_millis(10);

/// Puts a frame on the wire.
const SEND: u8 = 1;
/// Gives frames that are on the wire, each with its length in two bytes before it.
const TAKE: u8 = 2;
/// Plugs the wire in (1) or out (0).
const LINK: u8 = 3;

/// See the module.
pub struct Wire {
    port: FramePort,
    own: MacAddress,
    number: u32,
    /// Frames that nobody has looked at yet.
    taken: VecDeque<Vec<u8>>,
}

fn failed(error: SessionError) -> String {
    format!("the way to the host: {error}")
}

impl Wire {
    pub fn new(nic: &Nic) -> Result<Wire, String> {
        Ok(Wire {
            port: FramePort::new(nic, 0, BUFFERS).map_err(failed)?,
            own: nic.info().mac,
            number: 0,
            taken: VecDeque::new(),
        })
    }

    /// Asks the host for an operation; what belongs to its answer.
    fn ask(&mut self, operation: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.number = self.number.wrapping_add(1);
        let mut question = Vec::with_capacity(HEADER_BYTES + bytes.len());
        question.extend(HOST.0);
        question.extend(self.own.0);
        question.extend(TYPE);
        question.push(operation);
        question.extend(self.number.to_be_bytes());
        question.extend(bytes);
        let deadline = Deadline::after(LIMIT);
        let late = |error| match error {
            SessionError::TimedOut => "the host does not answer".to_string(),
            error => failed(error),
        };
        while !self
            .port
            .send(&question, Offload::default())
            .map_err(failed)?
        {
            self.port.wait(deadline).map_err(late)?;
        }
        self.port.flush().map_err(failed)?;
        let expected = question.get(12..HEADER_BYTES).unwrap_or_default();
        let mut answer = Vec::new();
        loop {
            while self.port.receive(&mut answer).map_err(failed)?.is_some() {
                // Others than the host may talk here, too.
                if answer.get(12..HEADER_BYTES) == Some(expected) {
                    return Ok(answer.split_off(HEADER_BYTES));
                }
            }
            self.port.wait(deadline).map_err(late)?;
        }
    }

    /// Puts a frame on the wire.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.ask(SEND, frame).map(drop)
    }

    /// The next frame that is on the wire now.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.taken.is_empty() {
            let bytes = self.ask(TAKE, &[])?;
            let mut rest = bytes.as_slice();
            while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                // Short answers are padded.
                let Some((frame, after)) = after.split_at_checked(length).filter(|_| length > 0)
                else {
                    break;
                };
                self.taken.push_back(frame.to_vec());
                rest = after;
            }
        }
        Ok(self.taken.pop_front())
    }

    /// Drops what is on the wire, until nothing comes for a while.
    pub fn drain(&mut self) -> Result<(), String> {
        let mut quiet = Deadline::after(QUIET);
        while !quiet.has_passed() {
            if self.next()?.is_some() {
                quiet = Deadline::after(QUIET);
            }
        }
        Ok(())
    }

    /// Plugs the wire in or out.
    pub fn plug(&mut self, up: bool) -> Result<(), String> {
        self.ask(LINK, &[u8::from(up)]).map(drop)
    }
}
