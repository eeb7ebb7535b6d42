//! What a process that died leaves behind: who it was, why it ended, where its fault was, what it had been granted, what
//! had happened to it and what it said last.
//!
//! The same record goes from whoever watched the process to init, which keeps the last of them, and into files, as JSON.
//! Gathering it is not done here: that is the business of whoever holds the process.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod area;
mod reason;
pub mod trace;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

pub use reason::EndReason;
use trace::TraceNote;

/// Version of the record in files; one with another number may have other fields.
pub const FORMAT: u32 = 1;

/// Most bytes of a text in a report that somebody else than its author chose.
pub const TEXT_BYTES_MAX: usize = 256;
/// Most lines of the log, events and grants, of each.
pub const LINES_MAX: usize = 24;

/// What kind of process it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It served a device.
    Driver,
    /// Init watched it.
    Service,
    /// The VFS watched it.
    FileSystem,
}

/// Who died.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of process.
    pub kind: Kind,
    /// Name of the driver, service or file system.
    pub name: String,
    /// Process ID.
    pub pid: u64,
    /// Incarnation, from 1; 0 where nobody counts.
    pub epoch: u32,
    /// Where the program is, for instance `bin/virtio-blk`.
    pub program: String,
    /// Version in a driver's manifest.
    pub version: Option<String>,
    /// CRC-32 (ISO-HDLC) of the program's file, by which its symbols are found; only for faults.
    pub crc32: Option<u32>,
    /// For a driver: path of the device's node.
    pub node: Option<String>,
    /// Endpoints that the node is known by, for instance `disk:/virtio0`.
    pub known_as: Vec<String>,
}

/// An address of a backtrace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    /// The address: of the fault, or to which a call returns.
    pub address: u64,
    /// Function and offset, where the program's symbols tell.
    pub function: Option<String>,
}

/// Where a thread's fault was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The thread.
    pub thread: u64,
    /// Vector of the exception (x86_64: 14 is a page fault).
    pub vector: u32,
    /// Its error code.
    pub code: u32,
    /// For a page fault: the address.
    pub address: u64,
    /// Names and values.
    pub registers: Vec<(String, u64)>,
    /// Innermost first.
    pub backtrace: Vec<Frame>,
}

impl fmt::Display for Fault {
    /// Registers, four a line, then the backtrace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.registers.chunks(4) {
            f.write_str(" ")?;
            for (name, value) in line {
                write!(f, " {name:>6} {value:016x}")?;
            }
            writeln!(f)?;
        }
        for frame in &self.backtrace {
            match &frame.function {
                Some(function) => writeln!(f, "  {:#x} {function}", frame.address)?,
                None => writeln!(f, "  {:#x}", frame.address)?,
            }
        }
        Ok(())
    }
}

/// Something that happened to the process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When, nanoseconds since boot.
    pub time_ns: u64,
    /// What.
    pub text: String,
}

/// What a process left behind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Counts the reports since boot; 0 until somebody keeps it.
    pub number: u64,
    /// Who.
    pub subject: Subject,
    /// When it ended, nanoseconds since boot.
    pub time_ns: u64,
    /// Why.
    pub reason: EndReason,
    /// In words, one line.
    pub text: String,
    /// The fault that ended it.
    pub fault: Option<Fault>,
    /// What it had been granted of the machine.
    pub grants: Vec<String>,
    /// What had happened to it, oldest first.
    pub events: Vec<Event>,
    /// The last lines that it wrote to the log, oldest first.
    pub log: Vec<String>,
    /// Its trace, if one was wanted and there is one.
    #[serde(default)]
    pub trace: Option<TraceNote>,
}

impl Report {
    /// A report that says who, when and why; the rest is empty.
    pub fn new(subject: Subject, time_ns: u64, reason: EndReason, text: &str) -> Report {
        Report {
            format: FORMAT,
            number: 0,
            subject,
            time_ns,
            reason,
            text: cut(text),
            fault: None,
            grants: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
            trace: None,
        }
    }

    /// Cuts what is too long or too much: a report goes in one message.
    pub fn bound(&mut self) {
        fn last<T>(list: &mut Vec<T>) {
            list.drain(..list.len().saturating_sub(LINES_MAX));
        }
        let subject = &mut self.subject;
        for text in [&mut self.text, &mut subject.name, &mut subject.program] {
            *text = cut(text);
        }
        subject.node = subject.node.as_deref().map(cut);
        subject.version = subject.version.as_deref().map(cut);
        subject.known_as.truncate(LINES_MAX);
        self.grants.truncate(LINES_MAX);
        last(&mut self.events);
        last(&mut self.log);
        let texts = self.events.iter_mut().map(|event| &mut event.text);
        let lists = self.log.iter_mut().chain(&mut self.grants);
        for text in texts.chain(lists).chain(&mut self.subject.known_as) {
            *text = cut(text);
        }
        if let Some(trace) = &mut self.trace {
            last(&mut trace.last);
            for text in &mut trace.last {
                *text = cut(text);
            }
        }
        if let Some(fault) = &mut self.fault {
            fault.registers.truncate(64);
            fault.backtrace.truncate(64);
            for frame in &mut fault.backtrace {
                frame.function = frame.function.as_deref().map(cut);
            }
        }
    }

    /// Whether a person who writes this means this process: by its name, its node or the node's end, or an endpoint.
    pub fn is_about(&self, name: &str) -> bool {
        let ends = |text: &str| {
            text == name
                || text
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('/'))
        };
        let subject = &self.subject;
        subject.name == name
            || subject.node.as_deref().is_some_and(ends)
            || subject.known_as.iter().any(|known| ends(known))
    }

    /// Whether both are about incarnations of the same thing.
    pub fn same_subject(&self, other: &Report) -> bool {
        let key = |report: &Report| {
            let subject = &report.subject;
            (subject.kind, subject.name.clone(), subject.node.clone())
        };
        key(self) == key(other)
    }

    /// `NAME (process PID): TEXT`.
    pub fn title(&self) -> String {
        let Subject { name, pid, .. } = &self.subject;
        alloc::format!("{name} (process {pid}): {}", self.text)
    }
}

/// Nanoseconds as the log shows a time.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0 / 1000;
        write!(f, "[{:5}.{:06}]", us / 1_000_000, us % 1_000_000)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        writeln!(f, "{}", self.title())?;
        write!(f, "reason   {} at {}", self.reason, Time(self.time_ns))?;
        if subject.epoch != 0 {
            write!(f, ", incarnation {}", subject.epoch)?;
        }
        writeln!(f)?;
        write!(f, "program  {}", subject.program)?;
        if let Some(version) = &subject.version {
            write!(f, " {version}")?;
        }
        if let Some(crc) = subject.crc32 {
            write!(f, ", CRC-32 {crc:08x}")?;
        }
        writeln!(f)?;
        if let Some(node) = &subject.node {
            write!(f, "device   {node}")?;
            for name in &subject.known_as {
                write!(f, " {name}")?;
            }
            writeln!(f)?;
        }
        if let Some(fault) = &self.fault {
            write!(f, "fault    in thread {}\n{fault}", fault.thread)?;
        }
        let part = |f: &mut fmt::Formatter<'_>, name: &str, lines: &mut dyn Iterator<Item = _>| {
            lines
                .enumerate()
                .try_for_each(|(number, line): (_, String)| {
                    let name = if number == 0 { name } else { "" };
                    writeln!(f, "{name:<8} {line}")
                })
        };
        part(f, "grants", &mut self.grants.iter().cloned())?;
        let events = self.events.iter();
        let mut events = events.map(|e| alloc::format!("{} {}", Time(e.time_ns), e.text));
        part(f, "events", &mut events)?;
        part(f, "log", &mut self.log.iter().cloned())?;
        let Some(trace) = &self.trace else {
            return Ok(());
        };
        let TraceNote {
            records, recorded, ..
        } = trace;
        let kept = match records.checked_sub(*recorded) {
            Some(0) | None => alloc::format!("all {records} records are kept, the last:"),
            Some(_) => {
                alloc::format!("the first {recorded} of {records} records are kept, the last:")
            }
        };
        let lines = trace.last.iter().cloned();
        part(f, "trace", &mut core::iter::once(kept).chain(lines))
    }
}

/// The last things that happened to somebody, for a report.
#[derive(Clone, Debug, Default)]
pub struct Events(VecDeque<Event>);

impl Events {
    /// One more; the oldest goes.
    pub fn push(&mut self, time_ns: u64, text: String) {
        if self.0.len() >= LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Event { time_ns, text });
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Event> {
        self.0.iter().cloned().collect()
    }
}

/// A text of no more than [`TEXT_BYTES_MAX`] bytes, with a space in place of each control character.
fn cut(text: &str) -> String {
    let mut bytes = 0usize;
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take_while(|c| {
            bytes = bytes.saturating_add(c.len_utf8());
            bytes <= TEXT_BYTES_MAX
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn report() -> Report {
        let subject = Subject {
            kind: Kind::Driver,
            name: "virtio-blk".into(),
            pid: 12,
            epoch: 2,
            program: "bin/virtio-blk".into(),
            version: Some("1.0.0".into()),
            crc32: Some(0x1234),
            node: Some("/pci/00:04.0".into()),
            known_as: vec!["disk:/virtio0".into()],
        };
        let mut report = Report::new(subject, 1_500_000_000, EndReason::Faulted, "page fault");
        report.fault = Some(Fault {
            thread: 13,
            vector: 14,
            code: 6,
            address: 16,
            registers: vec![("rip".into(), 0x40_1000)],
            backtrace: vec![Frame {
                address: 0x40_1000,
                function: Some("queue::push+0x10".into()),
            }],
        });
        report.grants = vec!["BAR 0".into()];
        report.log = vec!["one".into(), "two".into()];
        report.trace = Some(TraceNote {
            records: 9,
            recorded: 9,
            bytes: 100,
            last: vec!["8 thread 0: clock -> 7 ns".into()],
        });
        report
    }

    #[test]
    fn a_file_gives_the_same_report() {
        let report = report();
        let file = serde_json::to_string(&report).unwrap();
        assert!(file.contains("\"reason\":\"faulted\""), "{file}");
        assert_eq!(serde_json::from_str::<Report>(&file).unwrap(), report);
    }

    #[test]
    fn people_read_all_of_it() {
        assert_eq!(
            report().to_string(),
            "virtio-blk (process 12): page fault\n\
             reason   faulted at [    1.500000], incarnation 2\n\
             program  bin/virtio-blk 1.0.0, CRC-32 00001234\n\
             device   /pci/00:04.0 disk:/virtio0\n\
             fault    in thread 13\n\
             \x20    rip 0000000000401000\n\
             \x20 0x401000 queue::push+0x10\n\
             grants   BAR 0\n\
             log      one\n\
             \x20        two\n\
             trace    all 9 records are kept, the last:\n\
             \x20        8 thread 0: clock -> 7 ns\n"
        );
    }

    #[test]
    fn names_that_people_use() {
        let report = report();
        for name in [
            "virtio-blk",
            "/pci/00:04.0",
            "00:04.0",
            "virtio0",
            "disk:/virtio0",
        ] {
            assert!(report.is_about(name), "{name}");
        }
        for name in ["virtio", "4.0", "", "nvme"] {
            assert!(!report.is_about(name), "{name}");
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let mut report = report();
        report.log = (0..100).map(|n| n.to_string() + &"ä".repeat(400)).collect();
        report.text = "a\nb".repeat(400);
        report.bound();
        assert_eq!(report.log.len(), LINES_MAX);
        assert!(report.log[0].starts_with("76"));
        assert!(report.log.iter().all(|line| line.len() <= TEXT_BYTES_MAX));
        assert!(report.text.starts_with("a ba b") && report.text.len() <= TEXT_BYTES_MAX);
    }
}
