//! Bytes both ways in shared memory, between a program and the network stack.
//!
//! Each direction is a buffer of bytes with two of the one [`ring`]s beside it: the writer says in the first how many
//! bytes it put, the reader says in the second how many it took. So each side is a ring's consumer for everything that
//! it may wait for, and the ring's own wake-up protocol does the rest. Positions are private; what the peer announces is
//! checked against what it can have, and a peer that lies gets [`PipeError::Corrupt`] and hurts nobody but itself.
//!
//! It carries a byte stream. Who wants messages puts a header before each.

use core::fmt;

use proto::inet::Memory;
use ring::{Consumer, Layout, LayoutError, Producer, PushError, RingError};
use sys::abi::PAGE_SIZE;
use sys::{AsHandle, Error, Event, MapAccess, Mapping, Rights, SharedMapping, Vmo};

/// Most bytes of a direction.
pub const CAPACITY_MAX: u32 = 1 << 20;
/// Most entries of a ring.
pub const DESCRIPTORS_MAX: u16 = 1024;

/// Descriptor: bytes in the lower half, [`FINISHED`] or [`RESET`] above.
const LENGTH_MASK: u64 = 0xffff_ffff;
const FINISHED: u64 = 1 << 32;
const RESET: u64 = 1 << 33;
/// Beside the bytes that a reader gives back: it takes no more.
const CLOSED: u64 = 1 << 34;

/// The pipe cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PipeError {
    /// The peer announced what cannot be, or the shape is not one.
    Corrupt,
    /// The reader takes nothing any more.
    Closed,
    /// Memory or doorbell failed.
    System(Error),
}

impl From<Error> for PipeError {
    fn from(error: Error) -> PipeError {
        PipeError::System(error)
    }
}

impl From<RingError> for PipeError {
    fn from(_: RingError) -> PipeError {
        PipeError::Corrupt
    }
}

impl From<LayoutError> for PipeError {
    fn from(_: LayoutError) -> PipeError {
        PipeError::Corrupt
    }
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeError::Corrupt => f.write_str("the other side broke the pipe's protocol"),
            PipeError::Closed => f.write_str("the other side takes nothing any more"),
            PipeError::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PipeError {}

/// How a direction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Everything was sent.
    Finished,
    /// Broken off; what was under way is lost.
    Reset,
}

/// What the other side needs.
#[derive(Debug)]
pub struct Handles {
    /// Shape of the memory.
    pub shape: Memory,
    /// The memory.
    pub memory: Vmo,
    /// Rung for the program.
    pub to_program: Event,
    /// Rung for the stack.
    pub to_stack: Event,
}

/// Which side one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Program,
    Stack,
}

/// One side of a pipe.
pub struct Pipe {
    /// What comes.
    pub reader: Reader,
    /// What goes.
    pub writer: Writer,
    /// Rung by the other side when it did what one [armed](Pipe::arm) for.
    pub doorbell: Event,
}

/// Where the parts of direction `n` are.
struct Place {
    bytes: usize,
    filled: usize,
    freed: usize,
}

fn place(shape: Memory, n: usize) -> Result<(Place, usize), PipeError> {
    let capacity = shape.capacity as usize;
    let valid = shape.capacity.is_power_of_two()
        && (PAGE_SIZE..=CAPACITY_MAX as usize).contains(&capacity)
        && shape.descriptors.is_power_of_two()
        && (2..=DESCRIPTORS_MAX).contains(&shape.descriptors);
    if !valid {
        return Err(PipeError::Corrupt);
    }
    let ring = Layout::of::<u64>(shape.descriptors.into())?.size_bytes();
    let rings = 2 * capacity + 2 * n * ring;
    let place = Place {
        bytes: n * capacity,
        filled: rings,
        freed: rings + ring,
    };
    Ok((place, 2 * capacity + 4 * ring))
}

impl Pipe {
    /// A new pipe: the stack's side, and what the program's side needs.
    pub fn create(shape: Memory) -> Result<(Pipe, Handles), PipeError> {
        let (_, len) = place(shape, 0)?;
        let memory = Vmo::create(len)?;
        let to_program = Event::create()?;
        let to_stack = Event::create()?;
        let shared = Rights::READ
            | Rights::WRITE
            | Rights::MAP
            | Rights::TRANSFER
            | Rights::DUPLICATE
            | Rights::INSPECT;
        let theirs = Handles {
            shape,
            memory: memory.duplicate_with(shared)?,
            to_program: to_program.duplicate()?,
            to_stack: to_stack.duplicate()?,
        };
        let ours = Handles {
            shape,
            memory,
            to_program,
            to_stack,
        };
        Ok((Pipe::open_side(ours, Side::Stack)?, theirs))
    }

    /// The program's side.
    pub fn open(handles: Handles) -> Result<Pipe, PipeError> {
        Pipe::open_side(handles, Side::Program)
    }

    fn open_side(handles: Handles, side: Side) -> Result<Pipe, PipeError> {
        let shape = handles.shape;
        let (to_stack, len) = place(shape, 0)?;
        let (to_program, _) = place(shape, 1)?;
        let mapping = Mapping::map(&handles.memory, 0, len, MapAccess::ReadWrite)?;
        let mapping = SharedMapping::new(mapping);
        let (read, write, doorbell, peer) = match side {
            Side::Program => (to_program, to_stack, handles.to_program, handles.to_stack),
            Side::Stack => (to_stack, to_program, handles.to_stack, handles.to_program),
        };
        let entries = shape.descriptors.into();
        Ok(Pipe {
            reader: Reader {
                filled: Consumer::new(mapping.clone(), read.filled, entries)?,
                freed: Producer::new(mapping.clone(), read.freed, entries)?,
                bytes: Bytes::new(mapping.clone(), read.bytes, shape.capacity),
                available: 0,
                unreported: 0,
                end: None,
                peer: peer.duplicate()?,
            },
            writer: Writer {
                filled: Producer::new(mapping.clone(), write.filled, entries)?,
                freed: Consumer::new(mapping.clone(), write.freed, entries)?,
                bytes: Bytes::new(mapping, write.bytes, shape.capacity),
                in_flight: 0,
                pending: 0,
                end: None,
                end_sent: false,
                closed: false,
                peer,
            },
            doorbell,
        })
    }

    /// Asks for the doorbell for anything that can happen. `true`: something has happened already, look again.
    pub fn arm(&mut self) -> Result<bool, PipeError> {
        // Both, so that neither misses its doorbell.
        let reader = self.reader.arm()?;
        let writer = self.writer.arm()?;
        Ok(reader || writer)
    }
}

/// The buffer of a direction and a private position in it.
struct Bytes {
    mapping: SharedMapping,
    base: usize,
    capacity: u32,
    position: u32,
}

impl Bytes {
    fn new(mapping: SharedMapping, base: usize, capacity: u32) -> Bytes {
        Bytes {
            mapping,
            base,
            capacity,
            position: 0,
        }
    }

    /// The next `len` bytes as up to two pieces (offset in the mapping, offset in the range, length), passed over.
    fn pass(&mut self, len: u32) -> [(usize, usize, usize); 2] {
        let until_end = self.capacity - self.position;
        let first = len.min(until_end);
        let second = len - first;
        let start = self.base + self.position as usize;
        self.position = (self.position + len) & (self.capacity - 1);
        [
            (start, 0, first as usize),
            (self.base, first as usize, second as usize),
        ]
    }
}

/// The reading end of a direction.
pub struct Reader {
    filled: Consumer<u64, SharedMapping>,
    freed: Producer<u64, SharedMapping>,
    bytes: Bytes,
    /// Announced and not read.
    available: u32,
    /// Read, and the writer does not know yet.
    unreported: u32,
    end: Option<End>,
    peer: Event,
}

impl Reader {
    /// Takes in what the writer announced.
    fn look(&mut self) -> Result<(), PipeError> {
        while let Some(descriptor) = self.filled.pop()? {
            let len = (descriptor & LENGTH_MASK) as u32;
            let held = self.available + self.unreported;
            if self.end.is_some() || len > self.bytes.capacity - held {
                return Err(PipeError::Corrupt);
            }
            self.available += len;
            if descriptor & RESET != 0 {
                self.end = Some(End::Reset);
            } else if descriptor & FINISHED != 0 {
                self.end = Some(End::Finished);
            }
        }
        Ok(())
    }

    /// Bytes that can be read now.
    pub fn available(&mut self) -> Result<usize, PipeError> {
        self.look()?;
        Ok(self.available as usize)
    }

    /// How the direction ended, once everything before the end was read; a reset counts at once.
    pub fn end(&self) -> Option<End> {
        match self.end {
            Some(End::Reset) => Some(End::Reset),
            end if self.available == 0 => end,
            _ => None,
        }
    }

    /// Copies up to `buffer.len()` bytes out; tells how many. The writer gets the room with [`Reader::release`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PipeError> {
        self.look()?;
        let len = self
            .available
            .min(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        for (from, at, len) in self.bytes.pass(len) {
            if let Some(part) = buffer.get_mut(at..at + len) {
                self.bytes.mapping.read(from, part)?;
            }
        }
        self.took(len)
    }

    /// As [`Reader::read`], straight into another mapping.
    pub fn read_to(
        &mut self,
        target: &Mapping,
        offset: usize,
        len: usize,
    ) -> Result<usize, PipeError> {
        self.look()?;
        let len = self.available.min(u32::try_from(len).unwrap_or(u32::MAX));
        for (from, at, len) in self.bytes.pass(len) {
            if len > 0 {
                target.copy_from(offset + at, &self.bytes.mapping, from, len)?;
            }
        }
        self.took(len)
    }

    fn took(&mut self, len: u32) -> Result<usize, PipeError> {
        self.available -= len;
        self.unreported += len;
        Ok(len as usize)
    }

    /// Gives the room of what was read back to the writer.
    pub fn release(&mut self) -> Result<(), PipeError> {
        if self.unreported == 0 {
            return Ok(());
        }
        match self.freed.push(&u64::from(self.unreported)) {
            Ok(()) => self.unreported = 0,
            // The writer has not looked at so many earlier ones that it does not wait for this one.
            Err(PushError::Full) => return Ok(()),
            Err(PushError::Ring(error)) => return Err(error.into()),
        }
        if self.freed.publish() {
            self.peer.ring()?;
        }
        Ok(())
    }

    /// Drops what comes, from now on: the writer's next attempt fails. `false`: there was no room to say so, as the writer has not
    /// looked for long; again after the doorbell.
    pub fn close(&mut self) -> Result<bool, PipeError> {
        match self.freed.push(&CLOSED) {
            Ok(()) => {}
            Err(PushError::Full) => return Ok(false),
            Err(PushError::Ring(error)) => return Err(error.into()),
        }
        if self.freed.publish() {
            self.peer.ring()?;
        }
        Ok(true)
    }

    /// Asks for the doorbell with the next bytes. `true`: there is something already.
    pub fn arm(&mut self) -> Result<bool, PipeError> {
        if !self.filled.arm()? {
            // Nothing is taken now: that would take the wish back, and what comes at this moment would ring for nobody.
            return Ok(false);
        }
        self.look()?;
        Ok(true)
    }
}

/// The writing end of a direction.
pub struct Writer {
    filled: Producer<u64, SharedMapping>,
    freed: Consumer<u64, SharedMapping>,
    bytes: Bytes,
    /// Written, and not known to be read.
    in_flight: u32,
    /// Written and not announced.
    pending: u32,
    end: Option<End>,
    end_sent: bool,
    /// The reader takes no more.
    closed: bool,
    peer: Event,
}

impl Writer {
    /// Bytes that can be written now.
    pub fn room(&mut self) -> Result<usize, PipeError> {
        while let Some(freed) = self.freed.pop()? {
            self.closed |= freed & CLOSED != 0;
            let len = freed & !CLOSED;
            let announced = self.in_flight - self.pending;
            if len > u64::from(announced) {
                return Err(PipeError::Corrupt);
            }
            self.in_flight -= len as u32;
        }
        if self.closed {
            return Err(PipeError::Closed);
        }
        if self.end.is_some() {
            return Ok(0);
        }
        Ok((self.bytes.capacity - self.in_flight) as usize)
    }

    /// Bytes that the reader has not read yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// Copies up to `bytes.len()` bytes in; tells how many. The reader sees them with [`Writer::flush`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        let len = self.room()?.min(bytes.len()) as u32;
        for (to, at, len) in self.bytes.pass(len) {
            if let Some(part) = bytes.get(at..at + len) {
                self.bytes.mapping.write(to, part)?;
            }
        }
        self.put(len)
    }

    /// As [`Writer::write`], straight from another mapping.
    pub fn write_from(
        &mut self,
        source: &Mapping,
        offset: usize,
        len: usize,
    ) -> Result<usize, PipeError> {
        let len = self.room()?.min(len) as u32;
        for (to, at, len) in self.bytes.pass(len) {
            if len > 0 {
                self.bytes.mapping.copy_from(to, source, offset + at, len)?;
            }
        }
        self.put(len)
    }

    fn put(&mut self, len: u32) -> Result<usize, PipeError> {
        self.in_flight += len;
        self.pending += len;
        Ok(len as usize)
    }

    /// Ends the direction after what was written. The reader sees it with [`Writer::flush`].
    pub fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Whether it was ended.
    pub fn is_finished(&self) -> bool {
        self.end.is_some()
    }

    /// Shows the reader what was written. `false`: there was no room to say so; the doorbell rings when there is (after
    /// [`Writer::arm`]).
    pub fn flush(&mut self) -> Result<bool, PipeError> {
        let end = match self.end {
            Some(End::Finished) if !self.end_sent => FINISHED,
            Some(End::Reset) if !self.end_sent => RESET,
            _ => 0,
        };
        if self.pending > 0 || end != 0 {
            match self.filled.push(&(u64::from(self.pending) | end)) {
                Ok(()) => {}
                Err(PushError::Full) => return Ok(false),
                Err(PushError::Ring(error)) => return Err(error.into()),
            }
            self.pending = 0;
            self.end_sent |= end != 0;
        }
        if self.filled.publish() {
            self.peer.ring()?;
        }
        Ok(true)
    }

    /// Asks for the doorbell with the next room. `true`: there is some already.
    pub fn arm(&mut self) -> Result<bool, PipeError> {
        if !self.freed.arm()? {
            // As for the reader: nothing is taken now.
            return Ok(false);
        }
        // Taken in, so that it is news once. That nothing is taken any more is for whoever writes.
        match self.room() {
            Ok(_) | Err(PipeError::Closed) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
