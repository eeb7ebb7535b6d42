//! The port's two queues (virtio 1.2, 5.3.6): buffers to be filled, and buffers to be sent.

use ddk::{DeviceContext, DmaRegion, DriverError, PAGE};
use ddk_virtio::{Chain, ChainTooLong, Reaped, Virtqueue};

/// Pages of a slot's buffer, a descriptor each.
pub(crate) const SLOT_PAGES: u16 = 4;
const SLOT_BYTES: usize = SLOT_PAGES as usize * PAGE;

/// Memory for every slot of a queue.
fn buffers(cx: &DeviceContext, queue: &Virtqueue) -> Result<DmaRegion, DriverError> {
    cx.dma_region(usize::from(queue.slots()) * SLOT_BYTES)
}

fn start_of(slot: u16) -> usize {
    usize::from(slot) * SLOT_BYTES
}

/// Adds the first `len` bytes of the slot's buffer.
fn add<'q>(
    chain: &mut Chain<'q>,
    buffers: &DmaRegion,
    len: usize,
    add: fn(&mut Chain<'q>, u64, u32) -> Result<(), ChainTooLong>,
) -> Result<(), DriverError> {
    let start = start_of(chain.slot());
    for at in (0..len).step_by(PAGE) {
        let piece = (len - at).min(PAGE);
        add(chain, buffers.device_address(start + at), piece as u32).map_err(|ChainTooLong| {
            DriverError::Unsupported {
                what: "queues with so few descriptors",
            }
        })?;
    }
    Ok(())
}

/// What the device fills.
pub(crate) struct Receiver {
    queue: Virtqueue,
    buffers: DmaRegion,
    /// A filled buffer, and how much of it was taken.
    filled: Option<(Reaped, usize)>,
}

impl Receiver {
    /// Every buffer is handed to the device, which is told with [`Receiver::kick`].
    pub(crate) fn new(cx: &DeviceContext, queue: Virtqueue) -> Result<Receiver, DriverError> {
        let buffers = buffers(cx, &queue)?;
        let mut receiver = Receiver {
            queue,
            buffers,
            filled: None,
        };
        receiver.offer()?;
        // What came meanwhile raises an interrupt all the same once the device is told of the buffers.
        let _ = receiver.queue.arm();
        Ok(receiver)
    }

    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }

    pub(crate) fn kick(&mut self) {
        self.queue.kick();
    }

    /// Hands every free buffer to the device.
    fn offer(&mut self) -> Result<(), DriverError> {
        while let Some(mut chain) = self.queue.chain() {
            add(&mut chain, &self.buffers, SLOT_BYTES, Chain::writable)?;
            chain.submit(0);
        }
        Ok(())
    }

    /// Takes what was received. When there is no more, the next byte interrupts.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        let mut count = 0;
        while let Some(room) = into.get_mut(count..).filter(|room| !room.is_empty()) {
            let (reaped, taken) = match self.filled {
                Some(filled) => filled,
                None => match self.queue.reap()? {
                    Some(reaped) => (reaped, 0),
                    None if self.queue.arm() => continue,
                    None => break,
                },
            };
            if reaped.written == 0 {
                let what = "bytes in a buffer that was filled";
                return Err(DriverError::Protocol {
                    what,
                    expected: 1,
                    seen: 0,
                });
            }
            // The queue has checked it against what the buffer holds.
            let left = (reaped.written as usize).saturating_sub(taken);
            let piece = left.min(room.len());
            if let Some(to) = room.get_mut(..piece) {
                self.buffers.read_bytes(start_of(reaped.slot) + taken, to);
            }
            count += piece;
            self.filled = (piece < left).then_some((reaped, taken + piece));
            if self.filled.is_none() {
                self.offer()?;
                self.queue.kick();
            }
        }
        Ok(count)
    }
}

/// What the device sends.
pub(crate) struct Transmitter {
    queue: Virtqueue,
    buffers: DmaRegion,
}

impl Transmitter {
    pub(crate) fn new(cx: &DeviceContext, queue: Virtqueue) -> Result<Transmitter, DriverError> {
        let buffers = buffers(cx, &queue)?;
        Ok(Transmitter { queue, buffers })
    }

    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Takes as many bytes as there is room for. When that is not all, the next free buffer interrupts.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.reap()?;
            let Some(mut chain) = self.queue.chain() else {
                self.queue.kick();
                if self.queue.arm() {
                    continue;
                }
                return Ok(bytes.len() - rest.len());
            };
            let (now, later) = rest.split_at(rest.len().min(SLOT_BYTES));
            self.buffers.write_bytes(start_of(chain.slot()), now);
            add(&mut chain, &self.buffers, now.len(), Chain::readable)?;
            chain.submit(0);
            rest = later;
        }
        self.queue.kick();
        Ok(bytes.len())
    }

    pub(crate) fn disarm(&mut self) {
        self.queue.disarm();
    }

    pub(crate) fn is_idle(&mut self) -> Result<bool, DriverError> {
        self.reap()?;
        Ok(self.queue.in_flight() == 0)
    }

    fn reap(&mut self) -> Result<(), DriverError> {
        while self.queue.reap()?.is_some() {}
        Ok(())
    }
}
