//! What passes between a driver and its home, as data: text for people, bytes for files.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ddk::PlatformError;
use serde::{Deserialize, Serialize};

use crate::probe::Place;

/// A refusal of the home; [`PlatformError`] as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// Not granted.
    NotGranted,
    /// A limit is reached.
    NoMemory,
    /// Not offered.
    Unsupported,
    /// An argument is wrong.
    Invalid,
    /// Too late.
    TimedOut,
    /// The other side is gone.
    Closed,
    /// The backend's code.
    Code(i32),
}

impl From<PlatformError> for Refusal {
    fn from(error: PlatformError) -> Refusal {
        match error {
            PlatformError::NotGranted => Refusal::NotGranted,
            PlatformError::NoMemory => Refusal::NoMemory,
            PlatformError::Unsupported => Refusal::Unsupported,
            PlatformError::Invalid => Refusal::Invalid,
            PlatformError::TimedOut => Refusal::TimedOut,
            PlatformError::Closed => Refusal::Closed,
            PlatformError::Code(code) => Refusal::Code(code),
        }
    }
}

impl From<Refusal> for PlatformError {
    fn from(refusal: Refusal) -> PlatformError {
        match refusal {
            Refusal::NotGranted => PlatformError::NotGranted,
            Refusal::NoMemory => PlatformError::NoMemory,
            Refusal::Unsupported => PlatformError::Unsupported,
            Refusal::Invalid => PlatformError::Invalid,
            Refusal::TimedOut => PlatformError::TimedOut,
            Refusal::Closed => PlatformError::Closed,
            Refusal::Code(code) => PlatformError::Code(code),
        }
    }
}

/// What the home answered.
pub type Outcome<T> = Result<T, Refusal>;

/// One thing that passed. Numbers of queues and regions count from 0 in the order of their making.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// A register was read.
    Read {
        /// Where.
        place: Place,
        /// Byte offset there.
        offset: u32,
        /// Bytes.
        bytes: u8,
        /// The answer.
        value: u64,
    },
    /// A register was written.
    Write {
        /// Where.
        place: Place,
        /// Byte offset there.
        offset: u32,
        /// Bytes.
        bytes: u8,
        /// What was written.
        value: u64,
    },
    /// The access to configuration space before this was refused.
    Refused(Refusal),
    /// Shared memory was read.
    DmaRead {
        /// The region.
        region: u32,
        /// Byte offset there.
        offset: u32,
        /// What was there.
        bytes: Vec<u8>,
    },
    /// Shared memory was written.
    DmaWrite {
        /// The region.
        region: u32,
        /// Byte offset there.
        offset: u32,
        /// What was written.
        bytes: Vec<u8>,
    },
    /// The clock was read, in nanoseconds.
    Clock(u64),
    /// A queue was made.
    Queue(Outcome<u32>),
    /// A wait ended.
    Wait {
        /// On this queue.
        queue: u32,
        /// It was to end then, in nanoseconds.
        deadline_ns: u64,
        /// Keys and counts of the events.
        outcome: Outcome<Vec<(u64, u64)>>,
    },
    /// An event was posted.
    Post {
        /// The queue.
        queue: u32,
        /// Its key.
        key: u64,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// A BAR was asked for: offsets and lengths of its windows.
    Bar {
        /// Which.
        index: u8,
        /// Its windows.
        outcome: Outcome<Vec<(u64, u64)>>,
    },
    /// Memory decoding, bus mastering and interrupts were switched on.
    Enable(Outcome<()>),
    /// They were switched off.
    Disable(Outcome<()>),
    /// An interrupt was asked for.
    Interrupt {
        /// Which.
        index: u16,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// An interrupt was bound.
    Bind {
        /// Which.
        index: u16,
        /// To this queue; none that was made here.
        queue: Option<u32>,
        /// With this key.
        key: u64,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// An interrupt was unbound.
    Unbind(u16),
    /// An interrupt was acknowledged.
    Acknowledge(u16),
    /// A range of ports was asked for: its length.
    Ports {
        /// Which.
        index: u8,
        /// Ports.
        outcome: Outcome<u16>,
    },
    /// Shared memory was asked for: device addresses of its pages.
    Region {
        /// Its number.
        region: u32,
        /// Bytes asked for.
        len: u64,
        /// Device addresses.
        outcome: Outcome<Vec<u64>>,
    },
    /// Shared memory was given back.
    Free(u32),
    /// How many CPUs there are.
    Cpus(u32),
    /// The driver's incarnation.
    Epoch(u32),
    /// How many interrupts there are.
    Interrupts(u16),
    /// A thread was started.
    Spawn {
        /// Its number.
        thread: u16,
        /// Its name.
        name: String,
        /// Its CPU.
        cpu: Option<u32>,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// A line of the log: severity from 0 (error) to 3 (debug).
    Log {
        /// How much it matters.
        level: u8,
        /// The line.
        text: String,
    },
    /// The state of the version before was asked for.
    Restored(Option<Restored>),
    /// The class layer asks the driver for something, in a form of its own.
    Call(Vec<u8>),
    /// The driver's answer to what its thread was asked last.
    Answer(String),
}

/// A driver's saved state: schema, and numbers and contents of fields.
pub type Restored = (u32, Vec<(u32, Vec<u8>)>);

struct Answer<'a, T>(&'a Outcome<T>);

impl<T: fmt::Debug> fmt::Display for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => write!(f, "{value:x?}"),
            Err(refusal) => write!(f, "refused: {}", PlatformError::from(*refusal)),
        }
    }
}

/// Bytes in hexadecimal, in their order.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Read {
                place,
                offset,
                bytes,
                value,
            } => write!(
                f,
                "read{} {place}+{offset:#x} -> {value:#x}",
                u32::from(*bytes) * 8
            ),
            Record::Write {
                place,
                offset,
                bytes,
                value,
            } => write!(
                f,
                "write{} {place}+{offset:#x} = {value:#x}",
                u32::from(*bytes) * 8
            ),
            Record::Refused(refusal) => write!(f, "refused: {}", PlatformError::from(*refusal)),
            Record::DmaRead {
                region,
                offset,
                bytes,
            } => write!(f, "load region{region}+{offset:#x} ->{}", Hex(bytes)),
            Record::DmaWrite {
                region,
                offset,
                bytes,
            } => write!(f, "store region{region}+{offset:#x} ={}", Hex(bytes)),
            Record::Clock(ns) => write!(f, "clock -> {ns} ns"),
            Record::Queue(outcome) => write!(f, "event queue -> {}", Answer(outcome)),
            Record::Wait {
                queue,
                deadline_ns,
                outcome,
            } => {
                write!(f, "wait queue{queue} until ")?;
                match deadline_ns {
                    &u64::MAX => f.write_str("ever")?,
                    ns => write!(f, "{ns} ns")?,
                }
                match outcome {
                    Ok(events) if events.is_empty() => f.write_str(" -> nothing"),
                    Ok(events) => events
                        .iter()
                        .try_for_each(|(key, count)| write!(f, " -> key {key:#x} x{count}")),
                    refused => write!(f, " -> {}", Answer(refused)),
                }
            }
            Record::Post {
                queue,
                key,
                outcome,
            } => write!(f, "post queue{queue} key {key:#x} -> {}", Answer(outcome)),
            Record::Bar { index, outcome } => write!(f, "bar{index} -> {}", Answer(outcome)),
            Record::Enable(outcome) => write!(f, "enable -> {}", Answer(outcome)),
            Record::Disable(outcome) => write!(f, "disable -> {}", Answer(outcome)),
            Record::Interrupt { index, outcome } => {
                write!(f, "interrupt {index} -> {}", Answer(outcome))
            }
            Record::Bind {
                index,
                queue,
                key,
                outcome,
            } => write!(
                f,
                "bind interrupt {index} to queue {queue:?} key {key:#x} -> {}",
                Answer(outcome)
            ),
            Record::Unbind(index) => write!(f, "unbind interrupt {index}"),
            Record::Acknowledge(index) => write!(f, "acknowledge interrupt {index}"),
            Record::Ports { index, outcome } => write!(f, "ports{index} -> {}", Answer(outcome)),
            Record::Region {
                region,
                len,
                outcome,
            } => write!(f, "region{region} of {len:#x} bytes -> {}", Answer(outcome)),
            Record::Free(region) => write!(f, "free region{region}"),
            Record::Cpus(count) => write!(f, "CPUs -> {count}"),
            Record::Epoch(epoch) => write!(f, "epoch -> {epoch}"),
            Record::Interrupts(count) => write!(f, "interrupts -> {count}"),
            Record::Spawn {
                thread,
                name,
                cpu,
                outcome,
            } => write!(
                f,
                "thread {thread} {name} on CPU {cpu:?} -> {}",
                Answer(outcome)
            ),
            Record::Log { level, text } => write!(f, "log {level}: {text}"),
            Record::Restored(Some((schema, fields))) => {
                write!(f, "restored -> schema {schema}: {fields:x?}")
            }
            Record::Restored(None) => f.write_str("restored -> nothing"),
            Record::Call(call) => write!(f, "call{}", Hex(call)),
            Record::Answer(answer) => write!(f, "answer {answer}"),
        }
    }
}

/// A record and the thread that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// 0 is the thread that the driver started on; the others count in the order of their start.
    pub thread: u16,
    /// What passed.
    pub record: Record,
}

/// What passed, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recording {
    /// Records before the first of these, which are lost.
    pub skipped: u64,
    /// It ends in the middle: the driver died, or there was no more room. What a thread does after its last record is not told.
    pub open: bool,
    /// The records.
    pub entries: Vec<Entry>,
}

/// First bytes of a recording; the last of them is the version of the format.
const MAGIC: [u8; 4] = *b"BHT\x02";

/// Why bytes are not a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRecording {
    /// They do not begin as one of this version does.
    Header,
    /// They make no sense in the record with this number.
    Record(u64),
}

impl fmt::Display for BadRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecording::Header => write!(
                f,
                "no recording of format {}: record it again",
                MAGIC[MAGIC.len() - 1]
            ),
            BadRecording::Record(number) => write!(f, "record {number} is damaged"),
        }
    }
}

impl core::error::Error for BadRecording {}

impl Recording {
    /// What the compact form of an open recording from the start begins with; entries follow, one by one.
    pub const OPEN_HEAD: [u8; 6] = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], 0, 1];

    /// The compact form: a header, then each record as postcard writes it (numbers in as few bytes as they need).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut put = |part: postcard::Result<Vec<u8>>| bytes.extend(part.unwrap_or_default());
        put(postcard::to_allocvec(&(self.skipped, self.open)));
        for entry in &self.entries {
            put(postcard::to_allocvec(entry));
        }
        bytes
    }

    /// From the compact form. Of an open recording the last record may be cut off: it is left out.
    ///
    /// # Errors
    /// When it is none, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Recording, BadRecording> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(BadRecording::Header)?;
        let ((skipped, open), mut rest) =
            postcard::take_from_bytes(rest).map_err(|_| BadRecording::Header)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            match postcard::take_from_bytes(rest) {
                Ok((entry, later)) => {
                    entries.push(entry);
                    rest = later;
                }
                // Its end was cut off somewhere.
                Err(postcard::Error::DeserializeUnexpectedEnd) if open => break,
                Err(_) => return Err(BadRecording::Record(entries.len() as u64)),
            }
        }
        Ok(Recording {
            skipped,
            open,
            entries,
        })
    }
}

impl fmt::Display for Recording {
    /// A line for each record, with its number, and its thread unless that is 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (entry, number) in self.entries.iter().zip(self.skipped..) {
            match entry.thread {
                0 => writeln!(f, "{number}: {}", entry.record)?,
                thread => writeln!(f, "{number} (thread {thread}): {}", entry.record)?,
            }
        }
        Ok(())
    }
}
