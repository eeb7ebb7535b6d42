//! Recording what passes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
#[cfg(not(target_os = "none"))]
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use ddk::{Event, PlatformError};
use spin::Mutex;

use crate::probe::{Access, Probe, Waiting};
#[cfg(not(target_os = "none"))]
use crate::record::Recording;
use crate::record::{Entry, Record};

/// Where records go that outlive the driver's process.
pub trait Sink: Send {
    /// Takes a record: as [`Recording::from_bytes`](crate::Recording::from_bytes) wants it after
    /// [`Recording::OPEN_HEAD`](crate::Recording::OPEN_HEAD), and for people.
    fn record(&mut self, entry: &[u8], text: fmt::Arguments<'_>);
}

/// Records everything that passes between a driver and its home, or the last of it.
pub struct Trace {
    /// What tells the calling thread from others.
    identity: fn() -> usize,
    state: Mutex<State>,
}

struct State {
    /// Numbers of the threads that the driver's home started, by their identity.
    threads: BTreeMap<usize, u16>,
    store: Store,
}

enum Store {
    #[cfg(not(target_os = "none"))]
    Memory {
        /// Most records kept; `None`: all.
        limit: Option<usize>,
        skipped: u64,
        entries: VecDeque<Entry>,
    },
    Sink(Box<dyn Sink>),
}

impl Trace {
    fn with(identity: fn() -> usize, store: Store) -> Arc<Trace> {
        let threads = BTreeMap::new();
        let state = Mutex::new(State { threads, store });
        Arc::new(Trace { identity, state })
    }

    #[cfg(not(target_os = "none"))]
    fn in_memory(limit: Option<usize>) -> Arc<Trace> {
        let store = Store::Memory {
            limit,
            skipped: 0,
            entries: VecDeque::new(),
        };
        Trace::with(crate::thread::identity, store)
    }

    /// Keeps every record.
    #[cfg(not(target_os = "none"))]
    pub fn new() -> Arc<Trace> {
        Trace::in_memory(None)
    }

    /// Keeps the last `limit` records.
    #[cfg(not(target_os = "none"))]
    pub fn last(limit: usize) -> Arc<Trace> {
        Trace::in_memory(Some(limit))
    }

    /// Sends every record to `sink`. `identity` gives each of the process's living threads a number of its own.
    pub fn to(sink: impl Sink + 'static, identity: fn() -> usize) -> Arc<Trace> {
        Trace::with(identity, Store::Sink(Box::new(sink)))
    }

    /// What was recorded so far; nothing where records go elsewhere.
    #[cfg(not(target_os = "none"))]
    pub fn recording(&self) -> Recording {
        match &self.state.lock().store {
            Store::Memory {
                skipped, entries, ..
            } => Recording {
                skipped: *skipped,
                open: false,
                entries: entries.iter().cloned().collect(),
            },
            Store::Sink(_) => Recording::default(),
        }
    }

    /// The class layer is about to ask the driver for something: what, in a form of its own, and for people.
    pub fn call(&self, call: Vec<u8>, text: fmt::Arguments<'_>) {
        self.put(Record::Call(call), Some(text));
    }

    /// What the driver answered.
    pub fn answer(&self, answer: String) {
        self.push(Record::Answer(answer));
    }

    fn push(&self, record: Record) {
        self.put(record, None);
    }

    fn put(&self, record: Record, text: Option<fmt::Arguments<'_>>) {
        let identity = (self.identity)();
        let mut state = self.state.lock();
        let State { threads, store } = &mut *state;
        let thread = threads.get(&identity).copied().unwrap_or(0);
        let entry = Entry { thread, record };
        match store {
            #[cfg(not(target_os = "none"))]
            Store::Memory {
                limit,
                skipped,
                entries,
            } => {
                entries.push_back(entry);
                while limit.is_some_and(|limit| entries.len() > limit) {
                    entries.pop_front();
                    *skipped += 1;
                }
            }
            Store::Sink(sink) => {
                let bytes = postcard::to_allocvec(&entry).unwrap_or_default();
                match text {
                    Some(text) => sink.record(&bytes, format_args!("{thread}: call {text}")),
                    None => sink.record(&bytes, format_args!("{thread}: {}", entry.record)),
                }
            }
        }
    }
}

impl Probe for Trace {
    fn began(&self, thread: u16) {
        let identity = (self.identity)();
        self.state.lock().threads.insert(identity, thread);
    }

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
