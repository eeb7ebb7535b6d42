//! The control queue (virtio 1.2, 5.1.6.5): one command at a time, awaited by looking.

use ddk::{DeviceContext, DmaRegion, DriverError};
use ddk_virtio::Virtqueue;
use spec_virtio::net::control;

/// Time for the device to do a command.
const COMMAND_LIMIT_MS: u32 = 2000;
/// Where class and command are in the queue's memory.
const COMMAND: usize = 0;
/// Where the device puts its answer.
const ANSWER: usize = 8;
/// Where the command's data is.
const DATA: usize = 16;
/// What the answer is until the device writes it.
const PENDING: u8 = 0xff;
/// Descriptors of a command: command, data, answer.
pub(crate) const CHAIN: u16 = 3;

/// Most bytes of a command's data.
pub(crate) const DATA_MAX: usize = ddk::PAGE - DATA;

/// The control queue.
pub(crate) struct Control {
    cx: DeviceContext,
    virtqueue: Virtqueue,
    memory: DmaRegion,
}

impl Control {
    pub(crate) fn new(
        cx: &DeviceContext,
        mut virtqueue: Virtqueue,
    ) -> Result<Control, DriverError> {
        // It has no vector: nothing is to be told.
        virtqueue.disarm();
        Ok(Control {
            cx: cx.clone(),
            virtqueue,
            memory: cx.dma_region(ddk::PAGE)?,
        })
    }

    /// Runs a command; `false` when the device refuses it.
    ///
    /// # Errors
    /// When the device does not answer, or nonsense.
    pub(crate) async fn run(&mut self, command: [u8; 2], data: &[u8]) -> Result<bool, DriverError> {
        let full = DriverError::Unsupported {
            what: "room for a command",
        };
        if data.len() > DATA_MAX {
            return Err(full);
        }
        self.memory.write_bytes(COMMAND, &command);
        self.memory.write::<u8>(ANSWER, PENDING);
        self.memory.write_bytes(DATA, data);
        let at = |offset| self.memory.device_address(offset);
        let (head, body, answer) = (at(COMMAND), at(DATA), at(ANSWER));
        let mut chain = self.virtqueue.chain().ok_or(full)?;
        let built = chain
            .readable(head, command.len() as u32)
            .and_then(|()| chain.readable(body, data.len() as u32))
            .and_then(|()| chain.writable(answer, 1));
        built.map_err(|_| full)?;
        chain.submit(0);
        self.virtqueue.kick();
        let virtqueue = &mut self.virtqueue;
        let done = || Ok(virtqueue.reap()?.is_some());
        let what = "command of the control queue";
        self.cx.poll_until(what, COMMAND_LIMIT_MS, done).await?;
        match self.memory.read::<u8>(ANSWER) {
            control::OK => Ok(true),
            control::ERR => Ok(false),
            seen => Err(DriverError::Protocol {
                what: "answer of the control queue",
                expected: control::OK.into(),
                seen: seen.into(),
            }),
        }
    }
}
