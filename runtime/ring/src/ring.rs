//! The two ends of a ring and the wake-up protocol between them.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

#[cfg(not(loom))]
use core::sync::atomic::{Ordering, fence};
#[cfg(loom)]
use loom::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::layout::{Layout, LayoutError};
use crate::memory::{Memory, Parts};

/// What a ring carries: plain data, every bit pattern valid, no padding, a multiple of 8 bytes.
pub trait Entry: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Entry for T {}

/// The ring cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// The peer's index is further from the own one than the capacity allows.
    Corrupt {
        /// The own index.
        own: u32,
        /// What the peer's index was.
        peer: u32,
        /// Entries of the ring.
        capacity: u32,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RingError::Corrupt {
            own,
            peer,
            capacity,
        } = self;
        write!(
            f,
            "ring corrupt: own index {own}, peer's index {peer}, capacity {capacity}"
        )
    }
}

impl core::error::Error for RingError {}

/// Why an entry was not pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No free slot.
    Full,
    /// The ring cannot be used.
    Ring(RingError),
}

impl From<RingError> for PushError {
    fn from(error: RingError) -> PushError {
        PushError::Ring(error)
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::Full => f.write_str("ring full"),
            PushError::Ring(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PushError {}

const fn words_of<T>() -> usize {
    size_of::<T>() / 8
}

/// The writing end.
pub struct Producer<T, M> {
    parts: Parts<M>,
    capacity: u32,
    /// Index of the next entry to write; entries from `published` to here are not visible yet.
    tail: u32,
    published: u32,
    /// The consumer's index when last looked at; it only grows, so the room is at least what this says.
    head: u32,
    /// The arming that a doorbell was last due for.
    rung: u32,
    corrupt: Option<RingError>,
    entry: PhantomData<fn(T)>,
}

impl<T: Entry, M: Memory> Producer<T, M> {
    /// The writing end of the fresh (zeroed) ring of `capacity` entries at `offset`.
    pub fn new(memory: M, offset: usize, capacity: u32) -> Result<Self, LayoutError> {
        Self::new_at(memory, offset, capacity, 0)
    }

    /// The writing end of an empty ring whose indices both stand at `index`.
    pub fn new_at(
        memory: M,
        offset: usize,
        capacity: u32,
        index: u32,
    ) -> Result<Self, LayoutError> {
        Layout::of::<T>(capacity)?.check_within(offset, memory.len())?;
        // SAFETY: just checked that the ring lies within the memory, at a multiple of 64.
        let parts = unsafe { Parts::new(memory, offset) };
        Ok(Producer {
            parts,
            capacity,
            tail: index,
            published: index,
            head: index,
            rung: 0,
            corrupt: None,
            entry: PhantomData,
        })
    }

    /// Entries of the ring.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Free slots.
    pub fn room(&mut self) -> Result<u32, RingError> {
        self.look_at_head()?;
        Ok(self.capacity - self.tail.wrapping_sub(self.head))
    }

    /// Reads the consumer's index, and keeps it if it is possible.
    fn look_at_head(&mut self) -> Result<(), RingError> {
        if let Some(error) = self.corrupt {
            return Err(error);
        }
        // Acquire: the consumer's reads of the slots that it gives back come before our writes.
        let head = self.parts.head().load(Ordering::Acquire);
        // The consumer may move within what was published and has not been seen taken.
        if head.wrapping_sub(self.head) > self.published.wrapping_sub(self.head) {
            let error = RingError::Corrupt {
                own: self.published,
                peer: head,
                capacity: self.capacity,
            };
            self.corrupt = Some(error);
            // Looks full from now on, so that `push` needs no check of its own.
            self.head = self.tail.wrapping_sub(self.capacity);
            return Err(error);
        }
        self.head = head;
        Ok(())
    }

    /// Writes one entry. It becomes visible with [`Producer::publish`].
    #[inline]
    pub fn push(&mut self, entry: &T) -> Result<(), PushError> {
        if self.tail.wrapping_sub(self.head) >= self.capacity {
            self.look_at_head()?;
            if self.tail.wrapping_sub(self.head) >= self.capacity {
                return Err(PushError::Full);
            }
        }
        let slot = (self.tail & (self.capacity - 1)) as usize;
        let source = (entry as *const T).cast::<u64>();
        for i in 0..words_of::<T>() {
            // SAFETY: an entry has `words_of` whole words without padding; it need not be aligned.
            let word = unsafe { source.add(i).read_unaligned() };
            // SAFETY: the slot is below the capacity, so its words are within the ring's entries.
            let place = unsafe { self.parts.word(slot * words_of::<T>() + i) };
            place.store(word, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Writes as many entries as there is room for; tells how many.
    pub fn push_batch(&mut self, entries: &[T]) -> Result<usize, RingError> {
        for (n, entry) in entries.iter().enumerate() {
            match self.push(entry) {
                Ok(()) => {}
                Err(PushError::Full) => return Ok(n),
                Err(PushError::Ring(error)) => return Err(error),
            }
        }
        Ok(entries.len())
    }

    /// Makes everything that was pushed visible. `true`: the consumer sleeps, ring its doorbell now.
    #[inline]
    #[must_use = "the consumer sleeps until its doorbell is rung"]
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        // Release: the entries are written before the index that shows them.
        self.parts.tail().store(self.tail, Ordering::Release);
        // Orders our index before our look at the arm word; pairs with the fence in `arm`. Without it
        // both sides could miss each other: we see it unarmed, it sees the ring empty.
        fence(Ordering::SeqCst);
        let armed = self.parts.armed().load(Ordering::Relaxed);
        if armed != 0 && armed != self.rung {
            self.rung = armed;
            return true;
        }
        false
    }
}

/// The reading end.
pub struct Consumer<T, M> {
    parts: Parts<M>,
    capacity: u32,
    /// Index of the next entry to read.
    head: u32,
    /// The producer's index when last looked at.
    tail: u32,
    /// Number of the last arming, never 0.
    generation: u32,
    armed: bool,
    corrupt: Option<RingError>,
    entry: PhantomData<fn() -> T>,
}

impl<T: Entry, M: Memory> Consumer<T, M> {
    /// The reading end of the fresh (zeroed) ring of `capacity` entries at `offset`.
    pub fn new(memory: M, offset: usize, capacity: u32) -> Result<Self, LayoutError> {
        Self::new_at(memory, offset, capacity, 0)
    }

    /// The reading end of an empty ring whose indices both stand at `index`.
    pub fn new_at(
        memory: M,
        offset: usize,
        capacity: u32,
        index: u32,
    ) -> Result<Self, LayoutError> {
        Layout::of::<T>(capacity)?.check_within(offset, memory.len())?;
        // SAFETY: just checked that the ring lies within the memory, at a multiple of 64.
        let parts = unsafe { Parts::new(memory, offset) };
        Ok(Consumer {
            parts,
            capacity,
            head: index,
            tail: index,
            generation: 0,
            armed: false,
            corrupt: None,
            entry: PhantomData,
        })
    }

    /// Entries of the ring.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Reads the producer's index, and keeps it if it is possible.
    fn look_at_tail(&mut self) -> Result<(), RingError> {
        if let Some(error) = self.corrupt {
            return Err(error);
        }
        // Acquire: the entries are read after the index that shows them.
        let tail = self.parts.tail().load(Ordering::Acquire);
        // From one look to the next the producer moves forward, and never past a full ring.
        let available = tail.wrapping_sub(self.head);
        if available > self.capacity || available < self.tail.wrapping_sub(self.head) {
            let error = RingError::Corrupt {
                own: self.head,
                peer: tail,
                capacity: self.capacity,
            };
            self.corrupt = Some(error);
            // Looks empty from now on, so that `pop` needs no check of its own.
            self.tail = self.head;
            return Err(error);
        }
        self.tail = tail;
        Ok(())
    }

    /// Entries that can be read now.
    pub fn available(&mut self) -> Result<u32, RingError> {
        self.look_at_tail()?;
        Ok(self.tail.wrapping_sub(self.head))
    }

    /// Takes the next entry.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<T>, RingError> {
        if self.head == self.tail {
            self.look_at_tail()?;
            if self.head == self.tail {
                return Ok(None);
            }
        }
        if self.armed {
            self.disarm();
        }
        let slot = (self.head & (self.capacity - 1)) as usize;
        let mut entry = MaybeUninit::<T>::uninit();
        let target = entry.as_mut_ptr().cast::<u64>();
        for i in 0..words_of::<T>() {
            // SAFETY: the slot is below the capacity, so its words are within the ring's entries.
            let place = unsafe { self.parts.word(slot * words_of::<T>() + i) };
            let word = place.load(Ordering::Relaxed);
            // SAFETY: an entry has room for `words_of` words; it need not be aligned.
            unsafe { target.add(i).write_unaligned(word) };
        }
        self.head = self.head.wrapping_add(1);
        // Release: the entry is read before its slot is given back.
        self.parts.head().store(self.head, Ordering::Release);
        // SAFETY: every byte was written, the size being a whole number of words, and every bit
        // pattern is valid (`FromBytes`).
        Ok(Some(unsafe { entry.assume_init() }))
    }

    /// Asks for the doorbell and looks again. `true`: there is more, drain again before sleeping.
    /// `false`: sleep; the doorbell rings with the next entry. Who takes entries before that has to arm again, since
    /// [`Consumer::pop`] takes the wish back.
    #[inline]
    #[must_use = "entries that came in the meantime ring no doorbell"]
    pub fn arm(&mut self) -> Result<bool, RingError> {
        // A new number each time, also when still armed: the doorbell for the last one may have been
        // rung for an entry that was taken before (the producer was between its index and its look at
        // the arm word), and it rings once for a number.
        self.generation = self.generation.wrapping_add(1).max(1);
        self.parts.armed().store(self.generation, Ordering::Relaxed);
        self.armed = true;
        // Orders the arm word before our look at the index; pairs with the fence in `publish`.
        fence(Ordering::SeqCst);
        self.look_at_tail()?;
        if self.head != self.tail {
            self.disarm();
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes the wish for a doorbell back, while entries are being drained anyway.
    fn disarm(&mut self) {
        self.armed = false;
        self.parts.armed().store(0, Ordering::Relaxed);
    }
}
