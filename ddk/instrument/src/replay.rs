//! A home without a device, that answers as a recording says.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use ddk::{
    Bus, Deadline, DmaMemory, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, Platform,
    PlatformError, PortBus, PortIo, SavedState, Width, Work,
};

use crate::probe::{Access, Place};
use crate::record::{Entry, Outcome, Record, Recording};
use crate::thread;

/// Where a driver first did something else than the recording says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deviation {
    /// Number of the record.
    pub record: u64,
    /// The thread; see [`Entry`].
    pub thread: u16,
    /// What the driver was to do; `None`: nothing more.
    pub expected: Option<Record>,
    /// What it did; `None`: nothing more.
    pub seen: Option<String>,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expected {
            Some(record) => write!(f, "expected {record}, ")?,
            None => f.write_str("expected the end, ")?,
        }
        match &self.seen {
            Some(seen) => write!(f, "saw {seen}, ")?,
            None => f.write_str("saw the end, ")?,
        }
        write!(f, "at record {}", self.record)?;
        match self.thread {
            0 => Ok(()),
            thread => write!(f, " of thread {thread}"),
        }
    }
}

impl std::error::Error for Deviation {}

/// A platform that answers from a recording. Each of a driver's threads follows its own records. From the
/// first deviation on the device is gone: registers read all ones, waits fail, every deadline is over. So a driver
/// comes to its end, and [`Replay::finish`] tells what happened.
pub struct Replay {
    /// Itself, for what it hands out.
    me: Weak<Replay>,
    script: Mutex<Script>,
    /// Numbers of the queues, by their address.
    queues: Mutex<BTreeMap<usize, u32>>,
    next_queue: AtomicU32,
    next_region: AtomicU32,
    next_thread: AtomicU16,
}

/// What a class layer did with a driver that was recorded; see [`Replay::step`].
pub enum Step {
    /// It asked the driver for something.
    Call {
        /// On this thread.
        thread: u16,
        /// In its own form.
        call: Vec<u8>,
    },
    /// It made a queue with this number.
    Queue(u32, Box<dyn EventQueue>),
}

#[derive(Default)]
struct Script {
    /// Records to come, with their numbers, by thread.
    threads: BTreeMap<u16, VecDeque<(u64, Record)>>,
    /// Threads that the driver started itself.
    own: BTreeSet<u16>,
    last: u64,
    open: bool,
    deviation: Option<Deviation>,
}

/// Records that nothing has to follow: what is logged is the driver's own, memory is given back when its last
/// owner goes.
fn is_remark(record: &Record) -> bool {
    matches!(record, Record::Log { .. } | Record::Free(_))
}

impl Replay {
    /// A home that answers as `recording` says. A recording that lacks its beginning deviates at once.
    pub fn new(recording: Recording) -> Arc<Replay> {
        let mut script = Script {
            last: recording.skipped + recording.entries.len() as u64,
            open: recording.open,
            ..Script::default()
        };
        for (Entry { thread, record }, number) in
            recording.entries.into_iter().zip(recording.skipped..)
        {
            if !is_remark(&record) {
                let records = script.threads.entry(thread).or_default();
                records.push_back((number, record));
            }
        }
        Arc::new_cyclic(|me| Replay {
            me: me.clone(),
            script: Mutex::new(script),
            queues: Mutex::default(),
            next_queue: AtomicU32::new(0),
            next_region: AtomicU32::new(0),
            next_thread: AtomicU16::new(1),
        })
    }

    /// Whether the driver did what the recording says, all of it and nothing else.
    ///
    /// # Errors
    /// Where it first did not.
    pub fn finish(&self) -> Result<(), Deviation> {
        let script = self.script.lock().unwrap();
        if let Some(deviation) = &script.deviation {
            return Err(deviation.clone());
        }
        let left = script.threads.iter().filter_map(|(thread, records)| {
            let (record, expected) = records.front()?;
            Some(Deviation {
                record: *record,
                thread: *thread,
                expected: Some(expected.clone()),
                seen: None,
            })
        });
        match left.min_by_key(|deviation| deviation.record) {
            Some(deviation) => Err(deviation),
            None => Ok(()),
        }
    }

    /// The next thing that the class layer did with the driver, in the order of the recording, whichever thread it was on.
    /// What was between them and concerned the class layer alone is passed over. `None` at the end, and after a deviation.
    pub fn step(&self) -> Option<Step> {
        let mut script = self.script.lock().unwrap();
        loop {
            if script.deviation.is_some() {
                return None;
            }
            let Script { threads, own, .. } = &mut *script;
            let heads = threads
                .iter_mut()
                .filter(|(thread, _)| !own.contains(thread));
            let heads = heads.filter_map(|(thread, records)| {
                let number = records.front()?.0;
                Some((number, *thread, records))
            });
            let (number, thread, records) = heads.min_by_key(|(number, ..)| *number)?;
            match records.pop_front()?.1 {
                Record::Call(call) => return Some(Step::Call { thread, call }),
                Record::Queue(outcome) => {
                    let queue = self.next_queue.fetch_add(1, Ordering::Relaxed);
                    if outcome.is_ok() {
                        return Some(Step::Queue(queue, self.add_queue(queue)?));
                    }
                }
                Record::Spawn { .. } => {
                    self.next_thread.fetch_add(1, Ordering::Relaxed);
                }
                Record::Region { .. } => {
                    self.next_region.fetch_add(1, Ordering::Relaxed);
                }
                record @ Record::Answer(_) => {
                    script.deviation = Some(Deviation {
                        record: number,
                        thread,
                        expected: Some(record),
                        seen: Some("no call before it".into()),
                    });
                }
                _ => {}
            }
        }
    }

    /// Does what a step asks for, as the thread that did it.
    pub fn within<R>(&self, thread: u16, work: impl FnOnce() -> R) -> R {
        thread::within(thread, work)
    }

    /// What the driver answered to a step of this thread.
    pub fn answered(&self, thread: u16, answer: String) {
        self.within(thread, || self.exactly(Record::Answer(answer)));
    }

    /// The queue to which the driver binds an interrupt before its next answer on this thread.
    pub fn queue_to_bind(&self, thread: u16) -> Option<u32> {
        let script = self.script.lock().unwrap();
        let records = script
            .threads
            .get(&thread)?
            .iter()
            .map(|(_, record)| record);
        let mut records = records.take_while(|record| !matches!(record, Record::Answer(_)));
        records.find_map(|record| match record {
            Record::Bind { queue, .. } => *queue,
            _ => None,
        })
    }

    /// Records that nobody has followed yet.
    pub fn left(&self) -> usize {
        let script = self.script.lock().unwrap();
        script.threads.values().map(VecDeque::len).sum()
    }

    /// A queue of this number.
    fn add_queue(&self, number: u32) -> Option<Box<dyn EventQueue>> {
        let replay = self.me.upgrade()?;
        let queue = Box::new(ReplayedQueue { number, replay });
        let address = std::ptr::from_ref(queue.as_any()).cast::<()>().addr();
        self.queues.lock().unwrap().insert(address, number);
        Some(queue)
    }

    /// The answer of the next record if it is about what the driver does now.
    fn next<T>(
        &self,
        answer: impl FnOnce(&Record) -> Option<T>,
        seen: impl FnOnce() -> String,
    ) -> Option<T> {
        let thread = thread::number();
        let mut script = self.script.lock().unwrap();
        if script.deviation.is_some() {
            return None;
        }
        let open = script.open;
        let records = script.threads.entry(thread).or_default();
        let next = records.front();
        if next.is_none() && open {
            return None;
        }
        if let Some(answer) = next.and_then(|(_, record)| answer(record)) {
            records.pop_front();
            return Some(answer);
        }
        let next = next.cloned();
        script.deviation = Some(Deviation {
            record: next.as_ref().map_or(script.last, |(number, _)| *number),
            thread,
            expected: next.map(|(_, record)| record),
            seen: Some(seen()),
        });
        None
    }

    /// A step that has to be the next, exactly.
    fn exactly(&self, step: Record) -> Option<()> {
        self.next(
            |record| (*record == step).then_some(()),
            || step.to_string(),
        )
    }

    fn read(&self, access: Access) -> Option<u64> {
        let bytes = access.width.bytes() as u8;
        let answer = |record: &Record| match record {
            Record::Read {
                place,
                offset,
                bytes: b,
                value,
            } if (*place, *offset, *b) == (access.place, access.offset, bytes) => Some(*value),
            _ => None,
        };
        self.next(answer, || format!("read{access}"))
    }

    fn write(&self, access: Access, value: u64) -> Option<()> {
        self.exactly(Record::Write {
            place: access.place,
            offset: access.offset,
            bytes: access.width.bytes() as u8,
            value,
        })
    }

    /// Whether the access to configuration space that was just answered is said to have been refused.
    fn refusal(&self) -> Option<PlatformError> {
        let mut script = self.script.lock().unwrap();
        let records = script.threads.get_mut(&thread::number())?;
        match records.front()?.1 {
            Record::Refused(refusal) => {
                records.pop_front();
                Some(refusal.into())
            }
            _ => None,
        }
    }
}

/// What a step that went astray is answered with.
const ASTRAY: PlatformError = PlatformError::Closed;

fn result<T>(answer: Option<Outcome<T>>) -> Result<T, PlatformError> {
    answer.ok_or(ASTRAY)?.map_err(Into::into)
}

/// The answer of a record of one shape.
macro_rules! answered {
    ($replay:expr, $pattern:pat $(if $guard:expr)? => $answer:expr, $($seen:tt)*) => {
        $replay.next(
            |record| match record {
                $pattern $(if $guard)? => Some($answer.clone()),
                _ => None,
            },
            || format!($($seen)*),
        )
    };
}

impl Platform for Replay {
    fn now_ns(&self) -> u64 {
        answered!(self, Record::Clock(ns) => ns, "clock").unwrap_or(u64::MAX)
    }

    fn log(&self, _: LogLevel, _: fmt::Arguments<'_>) {}

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        let number = self.next_queue.fetch_add(1, Ordering::Relaxed);
        result(answered!(self, Record::Queue(outcome) => outcome, "event queue"))?;
        self.add_queue(number).ok_or(ASTRAY)
    }

    fn cpu_count(&self) -> usize {
        answered!(self, Record::Cpus(count) => count, "number of CPUs").unwrap_or(1) as usize
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        let thread = self.next_thread.fetch_add(1, Ordering::Relaxed);
        let cpu = cpu.map(|cpu| cpu as u32);
        result(answered!(
            self,
            Record::Spawn { thread: t, name: n, cpu: c, outcome }
                if (*t, n.as_str(), *c) == (thread, name, cpu) => outcome,
            "thread {thread} {name} on CPU {cpu:?}"
        ))?;
        self.script.lock().unwrap().own.insert(thread);
        let work = thread::numbered(thread, work);
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(work).map_err(|_| PlatformError::NoMemory)?;
        Ok(())
    }

    fn epoch(&self) -> u32 {
        answered!(self, Record::Epoch(epoch) => epoch, "epoch").unwrap_or(1)
    }

    fn restored(&self) -> Option<SavedState> {
        let (schema, fields) =
            answered!(self, Record::Restored(state) => state, "the state before").flatten()?;
        Some(SavedState { schema, fields })
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let windows = result(answered!(
            self,
            Record::Bar { index: i, outcome } if *i == index => outcome,
            "bar{index}"
        ))?;
        let replay = self.me.upgrade().ok_or(ASTRAY)?;
        let window = |(window, (at, len)): (usize, (u64, u64))| {
            let place = Place::Bar {
                index,
                window: window as u8,
            };
            let registers = ReplayedRegisters {
                place,
                replay: replay.clone(),
            };
            (at, Mmio::from_bus(Arc::new(registers), len as usize))
        };
        Ok(windows.into_iter().enumerate().map(window).collect())
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let value = self.read(access(Place::Config, offset.into(), width));
        let value = value.ok_or(ASTRAY)?;
        self.refusal().map_or(Ok(value as u32), Err)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        let access = access(Place::Config, offset.into(), width);
        self.write(access, value.into()).ok_or(ASTRAY)?;
        self.refusal().map_or(Ok(()), Err)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        result(answered!(self, Record::Enable(outcome) => outcome, "enable"))
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        result(answered!(self, Record::Disable(outcome) => outcome, "disable"))
    }

    fn interrupt_count(&self) -> u16 {
        answered!(self, Record::Interrupts(count) => count, "number of interrupts").unwrap_or(0)
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        result(answered!(
            self,
            Record::Interrupt { index: i, outcome } if *i == index => outcome,
            "interrupt {index}"
        ))?;
        let replay = self.me.upgrade().ok_or(ASTRAY)?;
        Ok(Arc::new(ReplayedInterrupt { index, replay }))
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        let len = result(answered!(
            self,
            Record::Ports { index: i, outcome } if *i == index => outcome,
            "ports{index}"
        ))?;
        let registers = ReplayedRegisters {
            place: Place::Ports(index),
            replay: self.me.upgrade().ok_or(ASTRAY)?,
        };
        Ok(PortIo::new(Arc::new(registers), len))
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        let region = self.next_region.fetch_add(1, Ordering::Relaxed);
        let pages = result(answered!(
            self,
            Record::Region { len: l, outcome, .. } if *l == len as u64 => outcome,
            "region{region} of {len:#x} bytes"
        ))?;
        let replay = self.me.upgrade().ok_or(ASTRAY)?;
        let memory = ReplayedMemory { region, replay };
        Ok(DmaRegion::from_memory(Arc::new(memory), pages.into()))
    }
}

fn access(place: Place, offset: u32, width: Width) -> Access {
    Access {
        place,
        offset,
        width,
    }
}

struct ReplayedRegisters {
    place: Place,
    replay: Arc<Replay>,
}

impl Bus for ReplayedRegisters {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let answer = self.replay.read(access(self.place, offset as u32, width));
        answer.unwrap_or(width.all_ones())
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let _ = self
            .replay
            .write(access(self.place, offset as u32, width), value);
    }
}

macro_rules! replayed_ports {
    ($($read:ident $write:ident $word:ident $width:ident),*) => {
        impl PortBus for ReplayedRegisters {
            $(
                fn $read(&self, offset: u16) -> $word {
                    Bus::read(self, offset.into(), Width::$width) as $word
                }
                fn $write(&self, offset: u16, value: $word) {
                    Bus::write(self, offset.into(), Width::$width, value.into());
                }
            )*
        }
    };
}
replayed_ports!(read8 write8 u8 U8, read16 write16 u16 U16, read32 write32 u32 U32);

struct ReplayedMemory {
    region: u32,
    replay: Arc<Replay>,
}

impl DmaMemory for ReplayedMemory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        let (at, len) = (offset as u32, into.len());
        let bytes: Option<Vec<u8>> = answered!(
            self.replay,
            Record::DmaRead { region, offset, bytes }
                if (*region, *offset, bytes.len()) == (self.region, at, len) => bytes,
            "load of {len} bytes region{}+{at:#x}", self.region
        );
        match bytes {
            Some(bytes) => into.copy_from_slice(&bytes),
            None => into.fill(0xff),
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let _ = self.replay.exactly(Record::DmaWrite {
            region: self.region,
            offset: offset as u32,
            bytes: bytes.to_vec(),
        });
    }
}

struct ReplayedInterrupt {
    index: u16,
    replay: Arc<Replay>,
}

impl Interrupt for ReplayedInterrupt {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let address = std::ptr::from_ref(queue.as_any()).cast::<()>().addr();
        let queue = self.replay.queues.lock().unwrap().get(&address).copied();
        let index = self.index;
        result(answered!(
            self.replay,
            Record::Bind { index: i, queue: q, key: k, outcome }
                if (*i, *q, *k) == (index, queue, key) => outcome,
            "bind interrupt {index} to queue {queue:?} key {key:#x}"
        ))
    }

    fn unbind(&self) {
        // As with memory: the last owner's going, which a recording need not repeat in its place.
        let mut script = self.replay.script.lock().unwrap();
        if let Some(records) = script.threads.get_mut(&thread::number())
            && let Some((_, Record::Unbind(index))) = records.front()
            && *index == self.index
        {
            records.pop_front();
        }
    }

    fn acknowledge(&self) {
        let _ = self.replay.exactly(Record::Acknowledge(self.index));
    }
}

struct ReplayedQueue {
    number: u32,
    replay: Arc<Replay>,
}

impl EventQueue for ReplayedQueue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let (queue, until) = (self.number, deadline.as_ns());
        let came = result(answered!(
            self.replay,
            Record::Wait { queue: q, deadline_ns, outcome }
                if (*q, *deadline_ns) == (queue, until) => outcome,
            "wait queue{queue} until {until} ns"
        ))?;
        for (slot, (key, count)) in events.iter_mut().zip(&came) {
            *slot = Event {
                key: *key,
                count: *count,
            };
        }
        Ok(came.len().min(events.len()))
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        let queue = self.number;
        result(answered!(
            self.replay,
            Record::Post { queue: q, key: k, outcome } if (*q, *k) == (queue, key) => outcome,
            "post queue{queue} key {key:#x}"
        ))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
