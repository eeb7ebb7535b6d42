//! The controller's side of submission and completion queues (4.1), which checks the driver's.

use std::collections::BTreeSet;

use ddk_backend_sim::DeviceMemory;
use spec_nvme::entry::{COMPLETION_BYTES, Completion, SUBMISSION_BYTES, Submission};
use zerocopy::{FromBytes, IntoBytes};

/// A submission queue.
pub(crate) struct SubmissionQueue {
    pub(crate) base: u64,
    pub(crate) entries: u16,
    pub(crate) completion_queue: u16,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// Identifiers of commands that were taken and not answered.
    pub(crate) outstanding: BTreeSet<u16>,
}

impl SubmissionQueue {
    pub(crate) fn new(base: u64, entries: u16, completion_queue: u16) -> SubmissionQueue {
        SubmissionQueue {
            base,
            entries,
            completion_queue,
            head: 0,
            tail: 0,
            outstanding: BTreeSet::new(),
        }
    }

    /// The driver's doorbell.
    pub(crate) fn ring(&mut self, tail: u32) -> Result<(), String> {
        let entries = u32::from(self.entries);
        if tail >= entries {
            return Err(format!("tail {tail} of {entries} entries"));
        }
        let distance = |from: u16, to: u32| (to + entries - u32::from(from)) % entries;
        let news = distance(self.tail, tail);
        let waiting = distance(self.head, self.tail.into());
        if news == 0 {
            return Err(format!("tail {tail} was told before"));
        }
        // 4.1.1: full is one less than there are entries.
        if waiting + news >= entries {
            return Err(format!("{news} commands more than there is room"));
        }
        self.tail = tail as u16;
        Ok(())
    }

    /// The next command.
    pub(crate) fn fetch(&mut self, memory: &DeviceMemory) -> Result<Option<Submission>, String> {
        if self.head == self.tail {
            return Ok(None);
        }
        let mut bytes = [0; SUBMISSION_BYTES];
        let at = self.base + u64::from(self.head) * SUBMISSION_BYTES as u64;
        self.head = (self.head + 1) % self.entries;
        memory
            .read(at, &mut bytes)
            .map_err(|e| format!("entry at {:#x}, which is not mapped", e.address))?;
        let command = Submission::read_from_bytes(&bytes).expect("64 bytes");
        if !self.outstanding.insert(command.id) {
            return Err(format!("command identifier {} is in flight", command.id));
        }
        Ok(Some(command))
    }
}

/// A completion queue.
pub(crate) struct CompletionQueue {
    pub(crate) base: u64,
    entries: u16,
    /// Of its interrupt.
    pub(crate) vector: Option<u16>,
    head: u16,
    tail: u16,
    pub(crate) phase: u16,
}

impl CompletionQueue {
    pub(crate) fn new(base: u64, entries: u16, vector: Option<u16>) -> CompletionQueue {
        CompletionQueue {
            base,
            entries,
            vector,
            head: 0,
            tail: 0,
            phase: 1,
        }
    }

    /// The driver's doorbell.
    pub(crate) fn ring(&mut self, head: u32) -> Result<(), String> {
        let entries = u32::from(self.entries);
        if head >= entries {
            return Err(format!("head {head} of {entries} entries"));
        }
        let distance = |to: u32| (to + entries - u32::from(self.head)) % entries;
        let (news, there) = (distance(head), distance(self.tail.into()));
        if news == 0 {
            return Err(format!("head {head} was told before"));
        }
        if news > there {
            return Err(format!("{news} entries given back, {there} were there"));
        }
        self.head = head as u16;
        Ok(())
    }

    /// Writes an entry, with whatever phase tag it has.
    pub(crate) fn post(&mut self, memory: &DeviceMemory, entry: Completion) -> Result<(), String> {
        let next = (self.tail + 1) % self.entries;
        if next == self.head {
            return Err("overflow: entries are not given back".into());
        }
        let at = self.base + u64::from(self.tail) * COMPLETION_BYTES as u64;
        self.tail = next;
        if next == 0 {
            self.phase ^= 1;
        }
        memory
            .write(at, entry.as_bytes())
            .map_err(|e| format!("entry at {:#x}, which is not mapped", e.address))
    }
}
