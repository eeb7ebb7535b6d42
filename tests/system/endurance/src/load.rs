//! The load: random reads, writes and flushes at full depth, each read compared with what must be there.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use block_client::{Buffer, BufferAccess, Disk, Operation, Request, Session};
use rt::{Deadline, MapAccess, Mapping, Vmo, time};

use crate::random::Random;
use crate::stamp::{self, BLOCK};

/// Requests in flight.
pub const DEPTH: usize = 32;
/// Longest request in blocks.
const LONGEST: usize = 8;
/// Bytes of the buffer that a request in flight has.
const SLOT: usize = LONGEST * BLOCK;
/// The longest pause that is still called one; the driver is restarted in far less.
const PATIENCE_S: u64 = 120;
/// Generation of a block of which nothing is known until it is written again.
pub const UNKNOWN: u64 = u64::MAX;

/// What is done about a request that failed, or a read that found what must not be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// The run ends with it.
    Stop,
    /// It is counted, and the run goes on.
    Count,
}

/// A request in flight.
#[derive(Clone, Copy)]
struct Flight {
    request: Request,
    first: usize,
    count: usize,
    generation: u64,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Reads, writes, flushes that completed.
    pub reads: u64,
    /// See `reads`.
    pub writes: u64,
    /// See `reads`.
    pub flushes: u64,
    /// Times that the session went on with another incarnation.
    pub recoveries: u64,
    /// Requests that failed. Counted only with [`OnError::Count`].
    pub failed: u64,
    /// Blocks that were read and not what they must be. Counted only with [`OnError::Count`].
    pub wrong: u64,
    /// For each of them, nanoseconds from the last completion before to the first one after.
    pub gaps_ns: Vec<u64>,
}

/// Fills a block of that number.
fn fill(block: &mut [u8], number: u64, generation: u64) {
    for (index, bytes) in block.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&stamp::word(number, generation, index).to_le_bytes());
    }
}

/// A load on a region at the start of a disk.
pub struct Load {
    session: Session,
    buffer: Buffer,
    memory: Mapping,
    blocks_per: u64,
    /// Generation that each block has, or gets from a write in flight.
    generations: Vec<u64>,
    busy: Vec<bool>,
    flights: [Option<Flight>; DEPTH],
    last_generation: u64,
    random: Random,
    scratch: Vec<u8>,
    last_answer_ns: u64,
    epoch: u32,
    gap_open: bool,
    on_error: OnError,
    /// What was done so far.
    pub totals: Totals,
}

impl Load {
    /// On the first `blocks` blocks of 4 KiB, all of which are zero.
    pub fn new(disk: &Disk, blocks: usize, seed: u64) -> Result<Load, String> {
        let text = |what: &'static str| move |e: block_client::SessionError| format!("{what}: {e}");
        let block_size = u64::from(disk.info().block_size);
        if disk.len_bytes() < (blocks * BLOCK) as u64 || block_size > BLOCK as u64 {
            return Err("the disk is too small".to_string());
        }
        if (disk.info().max_transfer as usize) < SLOT {
            return Err("the disk takes only shorter requests".to_string());
        }
        let mut session = disk.open_session(DEPTH as u16).map_err(text("session"))?;
        if session.depth() < DEPTH {
            return Err(format!(
                "the session has room for {} requests only",
                session.depth()
            ));
        }
        let vmo = Vmo::create(DEPTH * SLOT).map_err(|e| format!("buffer: {e}"))?;
        let memory = Mapping::map(&vmo, 0, DEPTH * SLOT, MapAccess::ReadWrite)
            .map_err(|e| format!("buffer: {e}"))?;
        let buffer = session
            .register(&vmo, 0, (DEPTH * SLOT) as u64, BufferAccess::Both)
            .map_err(text("buffer"))?;
        Ok(Load {
            epoch: session.info().epoch,
            session,
            buffer,
            memory,
            blocks_per: BLOCK as u64 / block_size,
            generations: vec![0; blocks],
            busy: vec![false; blocks],
            flights: [None; DEPTH],
            last_generation: 0,
            random: Random::new(seed),
            scratch: vec![0; SLOT],
            last_answer_ns: time::now_ns(),
            gap_open: false,
            on_error: OnError::Stop,
            totals: Totals::default(),
        })
    }

    /// Counts errors instead of stopping. `patience` is the session's, `written` what an earlier load on the
    /// same disk had got to: its blocks are unknown.
    pub fn counting_errors(mut self, patience: Duration, written: Option<u64>) -> Load {
        self.on_error = OnError::Count;
        self.session.set_patience(patience);
        if let Some(generation) = written {
            self.last_generation = generation;
            self.generations.fill(UNKNOWN);
        }
        self
    }

    /// The newest generation.
    pub fn written(&self) -> u64 {
        self.last_generation
    }

    /// Writes every block again of which nothing is known.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub fn repair(&mut self) -> Result<(), String> {
        for first in 0..self.generations.len() {
            if self.generations.get(first) == Some(&UNKNOWN) {
                self.write(0, first..first + 1)?;
                self.kick()?;
                while self.flights.iter().any(Option::is_some) {
                    self.reap()?;
                }
            }
        }
        Ok(())
    }

    /// Keeps the queue full while `go_on` says so, then waits for what is in flight and flushes.
    ///
    /// # Errors
    /// A request that failed, or a read that found what must not be there.
    pub fn run(&mut self, mut go_on: impl FnMut() -> bool) -> Result<(), String> {
        self.run_watched(|_| go_on())
    }

    /// The same with a look at the load in each turn, which takes at least one completion.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub fn run_watched(&mut self, mut go_on: impl FnMut(&Load) -> bool) -> Result<(), String> {
        while go_on(self) {
            for slot in 0..DEPTH {
                if self.flights.get(slot).is_some_and(Option::is_none) {
                    self.start_one(slot)?;
                }
            }
            self.kick()?;
            self.reap()?;
        }
        while self.flights.iter().any(Option::is_some) {
            self.reap()?;
        }
        self.submit(
            0,
            Flight {
                request: Request::flush(),
                first: 0,
                count: 0,
                generation: 0,
            },
        )?;
        self.kick()?;
        while self.flights.iter().any(Option::is_some) {
            self.reap()?;
        }
        Ok(())
    }

    /// Reads the whole region.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub fn verify(&mut self) -> Result<(), String> {
        let mut first = 0;
        while first < self.generations.len() {
            let count = LONGEST.min(self.generations.len() - first);
            let request = self.transfer(Operation::Read, 0, first, count);
            self.submit(
                0,
                Flight {
                    request,
                    first,
                    count,
                    generation: 0,
                },
            )?;
            self.kick()?;
            while self.flights.iter().any(Option::is_some) {
                self.reap()?;
            }
            first += count;
        }
        Ok(())
    }

    /// The generation of each block.
    pub fn generations(&self) -> &[u64] {
        &self.generations
    }

    fn transfer(&self, operation: Operation, slot: usize, first: usize, count: usize) -> Request {
        let (offset, length) = ((slot * SLOT) as u64, (count * BLOCK) as u32);
        let lba = first as u64 * self.blocks_per;
        match operation {
            Operation::Write => Request::write(self.buffer, offset, length, lba),
            _ => Request::read(self.buffer, offset, length, lba),
        }
    }

    /// Starts a random request, if one is found that overlaps none in flight.
    fn start_one(&mut self, slot: usize) -> Result<(), String> {
        let kind = self.random.below(100);
        if kind < 4 {
            let request = Request::flush();
            return self.submit(
                slot,
                Flight {
                    request,
                    first: 0,
                    count: 0,
                    generation: 0,
                },
            );
        }
        let count = 1 + self.random.below(LONGEST as u64) as usize;
        let places = (self.generations.len() - count + 1) as u64;
        let first = self.random.below(places) as usize;
        let range = first..first + count;
        if self
            .busy
            .get(range.clone())
            .is_none_or(|busy| busy.contains(&true))
        {
            return Ok(());
        }
        if kind < 50 {
            return self.write(slot, range);
        }
        // What was there before must not pass for what was read.
        let cleared = self.memory.fill(slot * SLOT, count * BLOCK, 0xa5);
        cleared.map_err(|e| format!("buffer: {e}"))?;
        let request = self.transfer(Operation::Read, slot, first, count);
        self.submit(
            slot,
            Flight {
                request,
                first,
                count,
                generation: 0,
            },
        )
    }

    /// Writes blocks in a new generation.
    fn write(&mut self, slot: usize, range: Range<usize>) -> Result<(), String> {
        let (first, count) = (range.start, range.len());
        self.last_generation += 1;
        let generation = self.last_generation;
        for (index, number) in range.enumerate() {
            let block = self.scratch.get_mut(index * BLOCK..(index + 1) * BLOCK);
            fill(block.unwrap_or_default(), number as u64, generation);
        }
        let bytes = self.scratch.get(..count * BLOCK).unwrap_or_default();
        let written = self.memory.write(slot * SLOT, bytes);
        written.map_err(|e| format!("buffer: {e}"))?;
        let request = self.transfer(Operation::Write, slot, first, count);
        self.submit(
            slot,
            Flight {
                request,
                first,
                count,
                generation,
            },
        )
    }

    fn submit(&mut self, slot: usize, flight: Flight) -> Result<(), String> {
        let submitted = self.session.submit(&flight.request, slot as u64);
        submitted.map_err(|e| format!("submit: {e}"))?;
        if let Some(busy) = self.busy.get_mut(flight.first..flight.first + flight.count) {
            busy.fill(true);
        }
        if let Some(place) = self.flights.get_mut(slot) {
            *place = Some(flight);
        }
        Ok(())
    }

    fn kick(&mut self) -> Result<(), String> {
        self.session.kick().map_err(|e| format!("kick: {e}"))
    }

    /// Takes at least one completion.
    fn reap(&mut self) -> Result<(), String> {
        loop {
            let mut taken = false;
            while let Some(done) = self.session.poll().map_err(|e| format!("poll: {e}"))? {
                taken = true;
                self.answered();
                match done.result() {
                    Ok(()) => self.finish(done.token)?,
                    Err(_) if self.on_error == OnError::Count => self.failed(done.token),
                    Err(status) => {
                        return Err(format!(
                            "{:?} at {}: {}",
                            done.request.operation,
                            done.request.lba,
                            status.text()
                        ));
                    }
                }
            }
            if taken {
                return Ok(());
            }
            let waited = self.session.wait(Deadline::after_secs(PATIENCE_S));
            waited.map_err(|e| format!("wait: {e}"))?;
            let epoch = self.session.info().epoch;
            if epoch != self.epoch {
                self.epoch = epoch;
                self.totals.recoveries += 1;
                self.gap_open = true;
            }
        }
    }

    /// A completion came: measures the gap if it is the first of its incarnation.
    fn answered(&mut self) {
        let now = time::now_ns();
        if core::mem::take(&mut self.gap_open) {
            self.totals
                .gaps_ns
                .push(now.saturating_sub(self.last_answer_ns));
        }
        self.last_answer_ns = now;
    }

    /// A request failed: nobody knows what a write of it did.
    fn failed(&mut self, token: u64) {
        self.totals.failed += 1;
        let flight = self.flights.get_mut(token as usize).and_then(Option::take);
        let Some(flight) = flight else { return };
        let range = flight.first..flight.first + flight.count;
        if let Some(busy) = self.busy.get_mut(range.clone()) {
            busy.fill(false);
        }
        if flight.request.operation == Operation::Write
            && let Some(generations) = self.generations.get_mut(range)
        {
            generations.fill(UNKNOWN);
        }
    }

    fn finish(&mut self, token: u64) -> Result<(), String> {
        let slot = token as usize;
        let flight = self.flights.get_mut(slot).and_then(Option::take);
        let flight = flight.ok_or_else(|| format!("request {token} was answered twice"))?;
        if let Some(busy) = self.busy.get_mut(flight.first..flight.first + flight.count) {
            busy.fill(false);
        }
        match flight.request.operation {
            Operation::Write => {
                self.totals.writes += 1;
                let range = flight.first..flight.first + flight.count;
                if let Some(generations) = self.generations.get_mut(range) {
                    generations.fill(flight.generation);
                }
                Ok(())
            }
            Operation::Read => {
                self.totals.reads += 1;
                self.compare(slot, &flight)
            }
            _ => {
                self.totals.flushes += 1;
                Ok(())
            }
        }
    }

    fn compare(&mut self, slot: usize, flight: &Flight) -> Result<(), String> {
        let bytes = self
            .scratch
            .get_mut(..flight.count * BLOCK)
            .unwrap_or_default();
        let copied = self.memory.read(slot * SLOT, bytes);
        copied.map_err(|e| format!("buffer: {e}"))?;
        for (index, block) in bytes.chunks_exact(BLOCK).enumerate() {
            let number = flight.first + index;
            let expected = self.generations.get(number).copied();
            let found = stamp::generation(block, number as u64);
            if found != expected && expected != Some(UNKNOWN) {
                if self.on_error == OnError::Count {
                    self.totals.wrong += 1;
                    if let Some(generation) = self.generations.get_mut(number) {
                        *generation = UNKNOWN;
                    }
                    continue;
                }
                return Err(format!(
                    "block {number}: generation {expected:?} must be there, read {}",
                    found.map_or("a torn or stray block".to_string(), |g| format!("{g}"))
                ));
            }
        }
        Ok(())
    }
}
