//! A request queue: requests as chains of descriptors (virtio 1.2, 5.2.6).

use alloc::string::String;
use alloc::vec::Vec;

use ddk::{
    Deadline, DeviceContext, DmaRegion, DriverError, EventQueue, Irq, PlatformError, Segment,
};
use ddk_class_block::{BlockQueue, Completed, Operation, PushError, Request, Status};
use ddk_virtio::{Chain, ChainTooLong, Virtqueue};
use spec_virtio::block::{Header, ID_BYTES, Range, SECTOR_BYTES, UNMAP, request, status};

use crate::config::Limits;

/// Memory of a slot: header, range and status, which never straddle a page.
const SLOT_BYTES: usize = 64;
const HEADER: usize = 0;
const RANGE: usize = 16;
const STATUS: usize = 32;
/// Where the identification goes; only the first request of all asks for it.
const IDENTIFICATION: usize = 40;

/// What the status byte holds until the device writes it (5.2.6 defines 0 to 2).
const STATUS_PENDING: u8 = 0xff;

const _: () = assert!(IDENTIFICATION + ID_BYTES as usize <= SLOT_BYTES);

/// A request queue.
pub struct Queue {
    virtqueue: Virtqueue,
    /// [`SLOT_BYTES`] for each slot.
    slots: DmaRegion,
    /// Device address of each slot's status byte.
    status: Vec<u64>,
    irq: Irq,
    /// A block in sectors, as a power of two.
    sectors_shift: u8,
    segments: u32,
    segment_bytes: u32,
    unmap: bool,
}

impl Queue {
    pub(crate) fn new(
        cx: &DeviceContext,
        mut virtqueue: Virtqueue,
        irq: Irq,
        limits: &Limits,
    ) -> Result<Queue, DriverError> {
        let slots = cx.dma_region(usize::from(virtqueue.slots()) * SLOT_BYTES)?;
        let address = |slot: u16, at| slots.device_address(usize::from(slot) * SLOT_BYTES + at);
        // Every request begins with its header (5.2.6).
        virtqueue.set_prefix(|slot| (address(slot, HEADER), size_of::<Header>() as u32));
        let status = (0..virtqueue.slots())
            .map(|slot| address(slot, STATUS))
            .collect();
        let in_chain = u32::from(virtqueue.chain_max()).saturating_sub(2).max(1);
        Ok(Queue {
            slots,
            status,
            irq,
            sectors_shift: limits.block_shift - SECTOR_BYTES.trailing_zeros() as u8,
            segments: limits.segments.min(in_chain),
            segment_bytes: limits.segment_bytes,
            unmap: limits.unmap,
            virtqueue,
        })
    }

    pub(crate) fn size(&self) -> u16 {
        self.virtqueue.size()
    }

    /// Asks for the device's identification: up to 20 bytes of text.
    pub(crate) async fn identify(
        &mut self,
        cx: &DeviceContext,
        deadline: Deadline,
    ) -> Result<String, DriverError> {
        let refused = |_| DriverError::Unsupported {
            what: "room for a request",
        };
        let Some(mut chain) = self.virtqueue.chain() else {
            return Err(DriverError::Unsupported {
                what: "a free slot",
            });
        };
        let at = usize::from(chain.slot()) * SLOT_BYTES;
        let header = Header {
            kind: request::GET_ID,
            reserved: 0,
            sector: 0,
        };
        begin(&self.slots, at, header);
        let text = self.slots.device_address(at + IDENTIFICATION);
        chain.writable(text, ID_BYTES).map_err(refused)?;
        chain
            .writable(self.slots.device_address(at + STATUS), 1)
            .map_err(refused)?;
        chain.submit(0);
        self.virtqueue.kick();
        loop {
            if let Some(done) = self.virtqueue.reap()? {
                let at = usize::from(done.slot) * SLOT_BYTES;
                if self.slots.read::<u8>(at + STATUS) != status::OK {
                    return Ok(String::new());
                }
                let bytes =
                    (0..ID_BYTES as usize).map(|n| self.slots.read(at + IDENTIFICATION + n));
                let text = bytes
                    .take_while(|b: &u8| *b != 0)
                    .filter(u8::is_ascii_graphic);
                return Ok(text.map(char::from).collect());
            }
            if !self.virtqueue.arm() {
                let waited = self.irq.wait(deadline).await;
                waited.map_err(|e| DriverError::platform("answer to the identification", e))?;
                ddk::debug!(cx, "queue {} interrupts", self.virtqueue.index());
            }
        }
    }
}

/// The header, and a status byte that the device has to overwrite.
#[inline]
fn begin(slots: &DmaRegion, at: usize, header: Header) {
    slots.write_struct(at + HEADER, header);
    slots.write::<u8>(at + STATUS, STATUS_PENDING);
}

/// A piece of data: the device writes what is read.
#[inline]
fn add(chain: &mut Chain<'_>, operation: Operation, data: Segment) -> Result<(), ChainTooLong> {
    match operation {
        Operation::Read => chain.writable(data.address, data.len),
        _ => chain.readable(data.address, data.len),
    }
}

/// Data of several pages.
fn add_segments(
    chain: &mut Chain<'_>,
    request: &Request<'_>,
    mut left: u32,
    segment_bytes: u32,
) -> Result<(), PushError> {
    let segments = request.segments(segment_bytes);
    for segment in segments.ok_or(PushError::Rejected(Status::BAD_BUFFER))? {
        left = left
            .checked_sub(1)
            .ok_or(PushError::Rejected(Status::TOO_LONG))?;
        let added = add(chain, request.operation, segment);
        added.map_err(|ChainTooLong| PushError::Rejected(Status::TOO_LONG))?;
    }
    Ok(())
}

impl BlockQueue for Queue {
    fn depth(&self) -> u16 {
        self.virtqueue.slots()
    }

    #[inline]
    fn push(&mut self, request: &Request<'_>) -> Result<(), PushError> {
        let too_long = |_| PushError::Rejected(Status::TOO_LONG);
        let Some(mut chain) = self.virtqueue.chain() else {
            return Err(PushError::Full);
        };
        let at = usize::from(chain.slot()) * SLOT_BYTES;
        let sector = request.lba << self.sectors_shift;
        let kind = match request.operation {
            Operation::Read => request::IN,
            Operation::Write => request::OUT,
            Operation::Flush => request::FLUSH,
            Operation::Discard => request::DISCARD,
            Operation::WriteZeroes => request::WRITE_ZEROES,
        };
        // 5.2.6: the sector is for reads and writes; elsewhere it is zero.
        let data = matches!(request.operation, Operation::Read | Operation::Write);
        let header = Header {
            kind,
            reserved: 0,
            sector: if data { sector } else { 0 },
        };
        begin(&self.slots, at, header);
        match request.operation {
            Operation::Read | Operation::Write => {
                let buffer = request
                    .data
                    .ok_or(PushError::Rejected(Status::BAD_BUFFER))?;
                match buffer.within_page(request.offset, request.length) {
                    Some(one) if self.segment_bytes == 0 || one.len <= self.segment_bytes => {
                        add(&mut chain, request.operation, one).map_err(too_long)?;
                    }
                    _ => add_segments(&mut chain, request, self.segments, self.segment_bytes)?,
                }
            }
            Operation::Discard | Operation::WriteZeroes => {
                let zeroes = request.operation == Operation::WriteZeroes;
                let unmap = zeroes && request.may_unmap && self.unmap;
                let range = Range {
                    sector,
                    count: request.length / SECTOR_BYTES,
                    flags: if unmap { UNMAP } else { 0 },
                };
                self.slots.write_struct(at + RANGE, range);
                let address = self.slots.device_address(at + RANGE);
                chain
                    .readable(address, size_of::<Range>() as u32)
                    .map_err(too_long)?;
            }
            Operation::Flush => {}
        }
        let status = self.status.get(at / SLOT_BYTES);
        let status = *status.ok_or(PushError::Rejected(Status::IO_ERROR))?;
        chain.writable(status, 1).map_err(too_long)?;
        chain.submit(request.token);
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        self.virtqueue.kick();
    }

    #[inline]
    fn reap(&mut self) -> Result<Option<Completed>, DriverError> {
        let Some(done) = self.virtqueue.reap()? else {
            return Ok(None);
        };
        let status = match self
            .slots
            .read::<u8>(usize::from(done.slot) * SLOT_BYTES + STATUS)
        {
            status::OK => Status::OK,
            status::UNSUPP => Status::UNSUPPORTED,
            // `IOERR`, one that does not exist, or one that was never written.
            _ => Status::IO_ERROR,
        };
        Ok(Some(Completed {
            token: done.token,
            status,
        }))
    }

    #[inline]
    fn arm(&mut self) -> bool {
        self.virtqueue.arm()
    }

    #[inline]
    fn disarm(&mut self) {
        self.virtqueue.disarm();
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)
    }
}
