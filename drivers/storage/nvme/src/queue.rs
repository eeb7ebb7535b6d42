//! An I/O queue pair: requests as commands of the NVM command set (NVMe 1.4, 4 and 6).
//!
//! The command identifier is the class layer's token, so there is nothing to look up and an abort can name a
//! request. Each token has a slot for its PRP list or its range. As there are never more commands outstanding
//! than entries in either queue less one, neither can overflow, and the head that the controller reports is
//! checked, not needed.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use ddk::{DeviceContext, DmaRegion, DriverError, EventQueue, Irq, PAGE, PlatformError};
use ddk_class_block::{BlockQueue, Completed, Operation, PushError, Request, Status};
use spec_nvme::command::{self, Range, nvm};
use spec_nvme::entry::{COMPLETION_BYTES, SUBMISSION_BYTES, Submission, Tail};
use spec_nvme::status::Status as Field;

use crate::controller::{Controller, Doorbells};

/// Most entries of a queue: as many submissions as fill a page. Queues are contiguous (CAP.CQR), and memory is so within
/// a page; a queue that took what follows by luck would have another depth, and other pins, at each start.
const ENTRIES_MAX: u16 = (PAGE / SUBMISSION_BYTES) as u16;
/// Least bytes of a slot; a range and short PRP lists fit.
const SLOT_BYTES_MIN: usize = 64;

/// Namespaces up to 63 whose write-zeroes may deallocate, as bits; changes with the namespaces.
pub(crate) type UnmapSet = Arc<AtomicU64>;

/// The bit of a namespace in an [`UnmapSet`]; 0 for one that has none.
pub(crate) fn unmap_bit(namespace: u32) -> u64 {
    1u64.checked_shl(namespace).unwrap_or(0)
}

/// An I/O queue pair.
pub struct Queue {
    id: u16,
    entries: u16,
    submissions: DmaRegion,
    completions: DmaRegion,
    /// A slot for each token.
    slots: DmaRegion,
    slot_bytes: usize,
    /// Longest transfer in bytes.
    max_bytes: u32,
    doorbells: Doorbells,
    irq: Irq,
    tail: u16,
    /// The tail that the controller knows.
    shown: u16,
    head: u16,
    /// The head that the controller knows.
    returned: u16,
    /// Phase of entries that are new.
    phase: u16,
    /// Tokens that the controller has.
    outstanding: Vec<bool>,
    unmap: UnmapSet,
}

impl Queue {
    /// Memory for queue pair `id`, for transfers of up to `pages` pages. The controller does not know it yet.
    pub(crate) fn new(
        cx: &DeviceContext,
        controller: &Controller,
        id: u16,
        irq: Irq,
        pages: u32,
        unmap: UnmapSet,
    ) -> Result<Queue, DriverError> {
        let offered = controller.max_entries().min(ENTRIES_MAX.into()) as u16;
        // A power of two, so that tokens are as well used as memory; at least the 2 that CAP promises.
        let entries = 1u16 << offered.max(2).ilog2();
        let submissions = cx.dma_region(usize::from(entries) * SUBMISSION_BYTES)?;
        let completions = cx.dma_region(usize::from(entries) * COMPLETION_BYTES)?;
        let slot_bytes = (pages as usize * 8)
            .next_power_of_two()
            .clamp(SLOT_BYTES_MIN, PAGE);
        let depth = usize::from(entries - 1);
        Ok(Queue {
            id,
            entries,
            submissions,
            completions,
            slots: cx.dma_region(depth * slot_bytes)?,
            slot_bytes,
            max_bytes: pages.saturating_mul(PAGE as u32),
            doorbells: controller.doorbells(id),
            irq,
            tail: 0,
            shown: 0,
            head: 0,
            returned: 0,
            phase: 1,
            outstanding: (0..depth).map(|_| false).collect(),
            unmap,
        })
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn entries(&self) -> u16 {
        self.entries
    }

    /// Device addresses of submission and completion queue.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        (
            self.submissions.device_address(0),
            self.completions.device_address(0),
        )
    }

    #[inline]
    fn next(&self, index: u16) -> u16 {
        // A power of two.
        (index + 1) & (self.entries - 1)
    }

    /// The phase tag says whether the entry at the head is new.
    #[inline]
    fn look(&self) -> Option<Tail> {
        let at = usize::from(self.head) * COMPLETION_BYTES + Tail::OFFSET;
        let tail = Tail(self.completions.read::<u64>(at));
        (tail.phase() == self.phase).then_some(tail)
    }

    /// PRP entries of data (4.3): the first page, then the second or a list of all that follow.
    fn prps(&self, request: &Request<'_>, slot: usize) -> Result<(u64, u64), PushError> {
        let bad = PushError::Rejected(Status::BAD_BUFFER);
        let buffer = request.data.ok_or(bad)?;
        if let Some(one) = buffer.within_page(request.offset, request.length) {
            return Ok((one.address, 0));
        }
        if request.length > self.max_bytes {
            return Err(PushError::Rejected(Status::TOO_LONG));
        }
        let page = PAGE as u64;
        let (mut first, mut second, mut count) = (None, 0, 0usize);
        for segment in request.segments(0).ok_or(bad)? {
            let mut at = segment.address;
            let end = at.checked_add(segment.len.into()).ok_or(bad)?;
            while at < end {
                if first.is_none() {
                    first = Some(at);
                } else {
                    if count >= self.slot_bytes / 8 {
                        return Err(PushError::Rejected(Status::TOO_LONG));
                    }
                    if count == 0 {
                        second = at;
                    }
                    self.slots.write::<u64>(slot + 8 * count, at);
                    count += 1;
                }
                // Only the first piece can begin within a page.
                at = (at | (page - 1)).checked_add(1).ok_or(bad)?;
            }
        }
        if count > 1 {
            second = self.slots.device_address(slot);
        }
        Ok((first.ok_or(bad)?, second))
    }
}

/// Blocks as the zero-based field of reads, writes and write-zeroes (6.9).
#[inline]
fn block_field(blocks: u32) -> Result<u32, PushError> {
    match blocks.checked_sub(1) {
        Some(field) if field < command::BLOCKS_MAX => Ok(field),
        _ => Err(PushError::Rejected(Status::TOO_LONG)),
    }
}

impl BlockQueue for Queue {
    fn depth(&self) -> u16 {
        self.entries - 1
    }

    #[inline]
    fn push(&mut self, request: &Request<'_>) -> Result<(), PushError> {
        let token = request.token as usize;
        match self.outstanding.get(token) {
            Some(false) => {}
            // Tokens are below the depth and used once: this is no request of the class layer.
            _ => return Err(PushError::Rejected(Status::INVALID)),
        }
        let slot = token * self.slot_bytes;
        let [low, high] = [request.lba as u32, (request.lba >> 32) as u32];
        let mut entry = Submission {
            id: request.token as u16,
            namespace: request.unit,
            ..Submission::default()
        };
        match request.operation {
            Operation::Read | Operation::Write => {
                let write = request.operation == Operation::Write;
                entry.opcode = if write { nvm::WRITE } else { nvm::READ };
                (entry.prp1, entry.prp2) = self.prps(request, slot)?;
                let durable = if write && request.durable {
                    command::FORCE_UNIT_ACCESS
                } else {
                    0
                };
                let blocks = block_field(request.blocks)?;
                entry.dwords = [low, high, blocks | durable, 0, 0, 0];
            }
            Operation::Flush => entry.opcode = nvm::FLUSH,
            Operation::Discard => {
                let range = Range {
                    attributes: 0,
                    blocks: request.blocks,
                    lba: request.lba,
                };
                self.slots.write_struct(slot, range);
                entry.opcode = nvm::DATASET_MANAGEMENT;
                entry.prp1 = self.slots.device_address(slot);
                // One range; the field is zero-based.
                entry.dwords = [0, command::ATTRIBUTE_DEALLOCATE, 0, 0, 0, 0];
            }
            Operation::WriteZeroes => {
                let can = self.unmap.load(Ordering::Relaxed) & unmap_bit(request.unit) != 0;
                let deallocate = if request.may_unmap && can {
                    command::DEALLOCATE
                } else {
                    0
                };
                let blocks = block_field(request.blocks)?;
                entry.opcode = nvm::WRITE_ZEROES;
                entry.dwords = [low, high, blocks | deallocate, 0, 0, 0];
            }
        }
        let at = usize::from(self.tail) * SUBMISSION_BYTES;
        self.submissions.write_struct(at, entry);
        self.tail = self.next(self.tail);
        if let Some(outstanding) = self.outstanding.get_mut(token) {
            *outstanding = true;
        }
        Ok(())
    }

    #[inline]
    fn kick(&mut self) {
        if self.tail != self.shown {
            self.shown = self.tail;
            self.doorbells.submit(self.tail);
        }
    }

    #[inline]
    fn reap(&mut self) -> Result<Option<Completed>, DriverError> {
        let Some(entry) = self.look() else {
            // The end of a batch: its entries are given back together.
            if self.head != self.returned {
                self.returned = self.head;
                self.doorbells.consumed(self.head);
            }
            return Ok(None);
        };
        // The phase tag is read before the data that the command wrote (4.6).
        fence(Ordering::Acquire);
        self.head = self.next(self.head);
        if self.head == 0 {
            self.phase ^= 1;
        }
        let token = entry.id();
        match self.outstanding.get_mut(usize::from(token)) {
            Some(outstanding) if *outstanding => *outstanding = false,
            _ => {
                return Err(odd(
                    "command identifier in flight, below",
                    self.entries - 1,
                    token,
                ));
            }
        }
        if entry.submission_queue() != self.id {
            let seen = entry.submission_queue();
            return Err(odd("submission queue of a completion", self.id, seen));
        }
        if entry.submission_head() >= self.entries {
            let seen = entry.submission_head();
            return Err(odd("submission queue head, below", self.entries, seen));
        }
        Ok(Some(Completed {
            token: token.into(),
            status: status(entry.status()),
        }))
    }

    #[inline]
    fn arm(&mut self) -> bool {
        // Each completion comes with a message (7.5.1.2): only one that is there already needs a look.
        self.look().is_some()
    }

    #[inline]
    fn disarm(&mut self) {
        // INTMS is not for MSI-X (3.1.3).
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)
    }
}

#[cold]
fn odd(what: &'static str, expected: u16, seen: u16) -> DriverError {
    DriverError::Protocol {
        what,
        expected: expected.into(),
        seen: seen.into(),
    }
}

/// A status field in the class's terms.
#[inline]
fn status(field: Field) -> Status {
    match field.code() {
        Field::SUCCESS => Status::OK,
        Field::INVALID_OPCODE => Status::UNSUPPORTED,
        Field::INVALID_NAMESPACE => Status::GONE,
        Field::LBA_OUT_OF_RANGE => Status::OUT_OF_RANGE,
        Field::WRITE_PROTECTED | Field::READ_ONLY_RANGE => Status::READ_ONLY,
        _ => Status::IO_ERROR,
    }
}
