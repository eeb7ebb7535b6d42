//! Recording what passes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ddk::{Event, PlatformError};

use crate::probe::{Access, Probe, Waiting};
use crate::record::{Entry, Record, Recording};
use crate::thread;

/// Records everything that passes between a driver and its home, or the last of it.
pub struct Trace {
    /// Most records kept; `None`: all.
    limit: Option<usize>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    skipped: u64,
    entries: VecDeque<Entry>,
}

impl Trace {
    /// Keeps every record.
    pub fn new() -> Arc<Trace> {
        Arc::new(Trace {
            limit: None,
            kept: Mutex::default(),
        })
    }

    /// Keeps the last `limit` records: what a crash report wants.
    pub fn last(limit: usize) -> Arc<Trace> {
        Arc::new(Trace {
            limit: Some(limit),
            kept: Mutex::default(),
        })
    }

    /// What was recorded so far.
    pub fn recording(&self) -> Recording {
        let kept = self.kept.lock().unwrap();
        Recording {
            skipped: kept.skipped,
            entries: kept.entries.iter().cloned().collect(),
        }
    }

    fn push(&self, record: Record) {
        let mut kept = self.kept.lock().unwrap();
        let thread = thread::number();
        kept.entries.push_back(Entry { thread, record });
        while self.limit.is_some_and(|limit| kept.entries.len() > limit) {
            kept.entries.pop_front();
            kept.skipped += 1;
        }
    }
}

impl Probe for Trace {
    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        let value = inner();
        self.push(Record::Read {
            place: access.place,
            offset: access.offset,
            bytes: access.width.bytes() as u8,
            value,
        });
        value
    }

    fn write(&self, access: Access, value: u64, inner: &dyn Fn(u64)) {
        // Before the device acts on it: what it does in answer comes after.
        self.push(Record::Write {
            place: access.place,
            offset: access.offset,
            bytes: access.width.bytes() as u8,
            value,
        });
        inner(value);
    }

    fn dma_read(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        self.push(Record::DmaRead {
            region,
            offset: offset as u32,
            bytes: bytes.to_vec(),
        });
    }

    fn dma_write(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        self.push(Record::DmaWrite {
            region,
            offset: offset as u32,
            bytes: bytes.to_vec(),
        });
    }

    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        let done = waiting.wait(events, waiting.deadline);
        let outcome = done.map(|taken| {
            let events = events.iter().take(taken);
            events.map(|event| (event.key, event.count)).collect()
        });
        self.push(Record::Wait {
            queue: waiting.queue,
            deadline_ns: waiting.deadline.as_ns(),
            outcome: outcome.map_err(Into::into),
        });
        done
    }

    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        let ns = inner();
        self.push(Record::Clock(ns));
        ns
    }

    fn note(&self, record: Record) {
        self.push(record);
    }
}
