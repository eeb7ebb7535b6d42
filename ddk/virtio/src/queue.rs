//! The driver's side of a split virtqueue (virtio 1.2, 2.7).
//!
//! A request is a chain of descriptors in a slot. With indirect descriptors each slot has a table of its own
//! and takes one descriptor of the ring; without, each slot owns a fixed run of the ring's
//! descriptors. Either way nothing is searched for and nothing is allocated per request.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use ddk::{DeviceContext, DmaRegion, DriverError, Mmio, PAGE};
use spec_virtio::queue::{self as spec, avail, descriptor, used};

/// Largest queue used: descriptor table, available ring and used ring then take one page each, so that no
/// memory need be contiguous beyond a page.
const SIZE_MAX: u16 = 256;
/// Most descriptors of an indirect table: one page.
const INDIRECT_DESCRIPTORS: u16 = (PAGE / size_of::<spec::Descriptor>()) as u16;
/// Most pages of indirect tables.
const INDIRECT_PAGES: u16 = 128;
/// Most descriptors that a slot owns without indirect tables.
const DIRECT_DESCRIPTORS: u16 = 16;

const DESCRIPTORS: usize = 0;
const AVAIL: usize = PAGE;
const USED: usize = 2 * PAGE;

/// How a queue is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueOptions {
    /// Entries: a power of two, at most what the device offers.
    pub size: u16,
    /// Features that were negotiated.
    pub features: u64,
    /// Most descriptors that a chain wants, rounded up to a power of two: shorter chains leave room for more of them. What can be had is
    /// [`Virtqueue::chain_max`].
    pub chain: u16,
}

/// The device broke the rules of the queue. The queue is of no use until the device was reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueError {
    /// The used index moved further than there are requests, or backwards.
    Index {
        /// Where the driver is.
        own: u16,
        /// What the device wrote.
        seen: u16,
        /// Requests that the device has.
        in_flight: u16,
    },
    /// A used entry names a descriptor that begins no chain.
    Id {
        /// What the device wrote.
        seen: u32,
        /// Descriptors of the queue.
        limit: u32,
    },
    /// A used entry names a chain that the device does not have: a second completion.
    NotInFlight {
        /// What the device wrote.
        id: u32,
    },
    /// The device says it wrote more than the chain has room for.
    Length {
        /// What the device says.
        seen: u32,
        /// Bytes that it could write.
        limit: u32,
    },
}

impl core::fmt::Display for QueueError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            QueueError::Index {
                own,
                seen,
                in_flight,
            } => write!(
                f,
                "used index went from {own} to {seen} with {in_flight} requests in flight"
            ),
            QueueError::Id { seen, limit } => {
                write!(f, "used entry names descriptor {seen} of {limit}")
            }
            QueueError::NotInFlight { id } => {
                write!(f, "used entry names chain {id}, which is not in flight")
            }
            QueueError::Length { seen, limit } => {
                write!(f, "device says it wrote {seen} bytes into {limit}")
            }
        }
    }
}

impl core::error::Error for QueueError {}

impl From<QueueError> for DriverError {
    fn from(error: QueueError) -> DriverError {
        let (what, expected, seen) = match error {
            QueueError::Index { own, seen, .. } => ("used index", own.into(), seen.into()),
            QueueError::Id { seen, limit } => ("used descriptor", limit.into(), seen.into()),
            QueueError::NotInFlight { id } => ("used chain in flight", 1, id.into()),
            QueueError::Length { seen, limit } => ("used length", limit.into(), seen.into()),
        };
        DriverError::Protocol {
            what,
            expected,
            seen,
        }
    }
}

/// A chain has no room for another descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainTooLong;

/// A completed chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaped {
    /// Its slot.
    pub slot: u16,
    /// The driver's token.
    pub token: u32,
    /// Bytes that the device says it wrote; at most what it could.
    pub written: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    token: u32,
    writable: u32,
    in_flight: bool,
}

/// A split virtqueue.
pub struct Virtqueue {
    ring: DmaRegion,
    /// Where the chains are written: indirect tables, or the ring's own descriptors.
    tables: DmaRegion,
    indirect: bool,
    /// Descriptors of a slot, as a power of two.
    chain_shift: u8,
    /// Every chain begins with a buffer that was set beforehand.
    prefixed: bool,
    notify: Mmio,
    index: u16,
    size: u16,
    event_idx: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Free-running index of the next available entry.
    avail: u16,
    /// Value of `avail` that the device was last shown.
    shown: u16,
    /// Free-running index of the next used entry to look at.
    used: u16,
    /// Used index of the device when last read.
    used_seen: u16,
}

impl Virtqueue {
    /// Makes the queue's memory. `notify` is the queue's notification register. The transport tells the
    /// device where it is.
    pub(crate) fn new(
        cx: &DeviceContext,
        index: u16,
        options: QueueOptions,
        notify: Mmio,
    ) -> Result<Virtqueue, DriverError> {
        let offered = options.size.min(SIZE_MAX);
        if offered == 0 {
            let what = "descriptors in the queue";
            return Err(DriverError::Protocol {
                what,
                expected: 1,
                seen: 0,
            });
        }
        // The largest power of two that is not more (2.7: queue sizes of split queues are powers of two).
        let size = 1 << offered.ilog2();
        let ring = cx.dma_region(3 * PAGE)?;
        let indirect = options.features & spec_virtio::feature::RING_INDIRECT_DESC != 0;
        let event_idx = options.features & spec_virtio::feature::RING_EVENT_IDX != 0;
        let wanted = options.chain.clamp(1, INDIRECT_DESCRIPTORS);
        let wanted = wanted.next_power_of_two();
        let (tables, slots, chain) = if indirect {
            let in_a_page = INDIRECT_DESCRIPTORS / wanted;
            let slots = size.min(INDIRECT_PAGES * in_a_page);
            let bytes = usize::from(wanted) * size_of::<spec::Descriptor>();
            let tables = cx.dma_region(usize::from(slots) * bytes)?;
            for slot in 0..slots {
                // Constant but for the length: each slot's descriptor leads to its table (2.7.5.3.1).
                let address = tables.device_address(usize::from(slot) * bytes);
                ring.write::<u64>(descriptor_offset(slot), address);
            }
            (tables, slots, wanted)
        } else {
            let chain = wanted.min(DIRECT_DESCRIPTORS).min(size);
            (ring.clone(), size / chain, chain)
        };
        Ok(Virtqueue {
            ring,
            tables,
            indirect,
            chain_shift: chain.ilog2() as u8,
            prefixed: false,
            notify,
            index,
            size,
            event_idx,
            slots: vec![Slot::default(); slots.into()],
            free: (0..slots).rev().collect(),
            avail: 0,
            shown: 0,
            used: 0,
            used_seen: 0,
        })
    }

    /// Number of the queue.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Entries of the rings.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Most requests in flight; slots are numbered below this.
    pub fn slots(&self) -> u16 {
        self.slots.len() as u16
    }

    /// Most descriptors of a chain.
    pub fn chain_max(&self) -> u16 {
        1 << self.chain_shift
    }

    /// Lets every chain begin with a buffer that the device reads, of address and length by slot: a request's
    /// header, whose descriptor need not be written each time. To be called before the first chain.
    pub fn set_prefix(&mut self, buffer: impl Fn(u16) -> (u64, u32)) {
        for slot in 0..self.slots() {
            let (page, first) = self.table(slot);
            let (address, len) = buffer(slot);
            let next = u64::from(first - self.next_base(first)) + 1;
            let rest = u64::from(len) | (u64::from(descriptor::NEXT) << 32) | (next << 48);
            self.tables.write_pair(page, first, [address, rest]);
        }
        self.prefixed = true;
    }

    /// Page of a slot's descriptors in `tables`, and the first one there.
    #[inline]
    fn table(&self, slot: u16) -> (usize, u8) {
        // A power of two of at most 256 descriptors: a slot's never straddle a page. Without indirect tables all are in
        // the first page.
        let descriptor = usize::from(slot) << self.chain_shift;
        let in_a_page = usize::from(INDIRECT_DESCRIPTORS);
        let page = descriptor / in_a_page * PAGE;
        (DESCRIPTORS + page, (descriptor % in_a_page) as u8)
    }

    /// The descriptor of the page that `next` counts from, in a chain that begins with `first`: an indirect table
    /// begins with the chain (2.7.5.3.1), the ring's own with the page.
    #[inline]
    fn next_base(&self, first: u8) -> u8 {
        if self.indirect { first } else { 0 }
    }

    /// Requests that the device has.
    pub fn in_flight(&self) -> u16 {
        self.slots() - self.free.len() as u16
    }

    /// Device addresses of descriptor table, available ring and used ring.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        [DESCRIPTORS, AVAIL, USED].map(|at| self.ring.device_address(at))
    }

    /// A new chain in a free slot; `None` while every slot is in flight.
    #[inline]
    pub fn chain(&mut self) -> Option<Chain<'_>> {
        let slot = *self.free.last()?;
        let (page, first) = self.table(slot);
        let max = self.chain_max();
        let prefixed = u16::from(self.prefixed);
        let held = Held {
            address: 0,
            len: 0,
            flags: 0,
        };
        Some(Chain {
            slot,
            page,
            first,
            max,
            count: prefixed,
            prefixed,
            held,
            writable: 0,
            queue: self,
        })
    }

    /// Shows the device every chain that was submitted, and tells it if it wants to be told.
    #[inline]
    pub fn kick(&mut self) {
        if self.avail == self.shown {
            return;
        }
        let old = self.shown;
        self.shown = self.avail;
        // Descriptors and entries are written before the index that shows them (2.7.13.3).
        fence(Ordering::Release);
        self.ring.write::<u16>(AVAIL + avail::INDEX, self.avail);
        // The index is written before we look whether the device wants to be told (2.7.13.4.1); without this
        // both sides could miss each other.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.ring.read::<u16>(USED + used::avail_event(self.size));
            spec::need_event(event, self.avail, old)
        } else {
            self.ring.read::<u16>(USED + used::FLAGS) & spec::USED_NO_NOTIFY == 0
        };
        if wanted {
            self.notify.write::<u16>(0, self.index);
        }
    }

    /// Takes the next completed chain.
    ///
    /// # Errors
    /// When the device breaks the rules; see [`QueueError`].
    #[inline]
    pub fn reap(&mut self) -> Result<Option<Reaped>, QueueError> {
        if self.used == self.used_seen {
            let seen = self.ring.read::<u16>(USED + used::INDEX);
            if seen == self.used {
                return Ok(None);
            }
            if seen.wrapping_sub(self.used) > self.in_flight() {
                return Err(QueueError::Index {
                    own: self.used,
                    seen,
                    in_flight: self.in_flight(),
                });
            }
            self.used_seen = seen;
            // Entries, and the data they speak of, are read after the index that shows them.
            fence(Ordering::Acquire);
        }
        let at = USED + used::RING + 8 * usize::from(self.used & (self.size - 1));
        let id = self.ring.read::<u32>(at);
        let written = self.ring.read::<u32>(at + 4);
        let number = if self.indirect {
            id
        } else if id & ((1 << self.chain_shift) - 1) == 0 {
            id >> self.chain_shift
        } else {
            u32::MAX
        };
        let limit = self.slots.len() as u32;
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return Err(QueueError::Id { seen: id, limit });
        };
        if !slot.in_flight {
            return Err(QueueError::NotInFlight { id });
        }
        if written > slot.writable {
            return Err(QueueError::Length {
                seen: written,
                limit: slot.writable,
            });
        }
        slot.in_flight = false;
        let token = slot.token;
        self.free.push(number as u16);
        self.used = self.used.wrapping_add(1);
        Ok(Some(Reaped {
            slot: number as u16,
            token,
            written,
        }))
    }

    /// Asks for an interrupt with the next completion. `true`: one came meanwhile, reap again before
    /// sleeping.
    #[inline]
    #[must_use = "completions that came in the meantime raise no interrupt"]
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.ring
                .write::<u16>(AVAIL + avail::used_event(self.size), self.used);
        } else {
            self.ring.write::<u16>(AVAIL + avail::FLAGS, 0);
        }
        // The wish is written before we look at the index (2.7.7.2); pairs with the device's barrier between
        // its index and its look at the wish.
        fence(Ordering::SeqCst);
        self.ring.read::<u16>(USED + used::INDEX) != self.used
    }

    /// Takes the wish for interrupts back while completions are being reaped anyway. With `EVENT_IDX` that
    /// happens by itself.
    #[inline]
    pub fn disarm(&mut self) {
        if !self.event_idx {
            self.ring
                .write::<u16>(AVAIL + avail::FLAGS, spec::AVAIL_NO_INTERRUPT);
        }
    }
}

impl core::fmt::Debug for Virtqueue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Virtqueue {{ index: {}, size: {}, in flight: {} }}",
            self.index,
            self.size,
            self.in_flight()
        )
    }
}

#[derive(Clone, Copy)]
struct Held {
    address: u64,
    len: u32,
    flags: u16,
}

/// A chain under construction. Dropping it gives the slot back.
pub struct Chain<'q> {
    queue: &'q mut Virtqueue,
    slot: u16,
    /// Where its descriptors are, see [`Virtqueue::table`].
    page: usize,
    first: u8,
    /// Most descriptors.
    max: u16,
    /// Descriptors so far, with the prefix and the one that is held back.
    count: u16,
    /// 1 with a prefix.
    prefixed: u16,
    /// The last descriptor: written when it is known whether another one follows.
    held: Held,
    writable: u32,
}

impl Chain<'_> {
    /// The slot, below [`Virtqueue::slots`]: for the driver's own memory of the request.
    #[inline]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Adds a buffer that the device reads. All of these come before those it writes (2.7.4.2).
    ///
    /// # Errors
    /// When the chain is full.
    #[inline]
    pub fn readable(&mut self, address: u64, len: u32) -> Result<(), ChainTooLong> {
        debug_assert!(self.writable == 0, "readable buffers come first");
        self.add(Held {
            address,
            len,
            flags: 0,
        })
    }

    /// Adds a buffer that the device writes.
    ///
    /// # Errors
    /// When the chain is full.
    #[inline]
    pub fn writable(&mut self, address: u64, len: u32) -> Result<(), ChainTooLong> {
        self.writable = self.writable.saturating_add(len);
        self.add(Held {
            address,
            len,
            flags: descriptor::WRITE,
        })
    }

    #[inline]
    fn add(&mut self, next: Held) -> Result<(), ChainTooLong> {
        if self.count >= self.max {
            return Err(ChainTooLong);
        }
        if self.count > self.prefixed {
            self.write_held(descriptor::NEXT);
        }
        self.held = next;
        self.count += 1;
        Ok(())
    }

    /// Writes the descriptor that was held back, number `count - 1`.
    #[inline]
    fn write_held(&mut self, more: u16) {
        // At most 255: a chain has at most 256 descriptors in its table.
        let index = self.first.wrapping_add((self.count - 1) as u8);
        let next = u64::from(index.wrapping_sub(self.queue.next_base(self.first))) + 1;
        let Held {
            address,
            len,
            flags,
        } = self.held;
        let rest = u64::from(len) | (u64::from(flags | more) << 32) | (next << 48);
        self.queue
            .tables
            .write_pair(self.page, index, [address, rest]);
    }

    /// Hands the chain over. The device sees it with [`Virtqueue::kick`].
    ///
    /// # Panics
    /// When the chain is empty.
    #[inline]
    pub fn submit(mut self, token: u32) {
        assert!(
            self.count > self.prefixed,
            "a chain has a descriptor of its own"
        );
        self.write_held(0);
        let (slot, count, writable) = (self.slot, self.count, self.writable);
        let queue = &mut *self.queue;
        let head = if queue.indirect {
            let rest = (u64::from(count) * 16) | (u64::from(descriptor::INDIRECT) << 32);
            queue.ring.write::<u64>(descriptor_offset(slot) + 8, rest);
            slot
        } else {
            slot << queue.chain_shift
        };
        queue.free.pop();
        queue.slots[usize::from(slot)] = Slot {
            token,
            writable,
            in_flight: true,
        };
        let entry = AVAIL + avail::RING + 2 * usize::from(queue.avail & (queue.size - 1));
        queue.ring.write::<u16>(entry, head);
        queue.avail = queue.avail.wrapping_add(1);
    }
}

#[inline]
fn descriptor_offset(index: u16) -> usize {
    DESCRIPTORS + 16 * usize::from(index)
}
