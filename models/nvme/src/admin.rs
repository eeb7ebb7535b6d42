//! Admin commands (5).

use spec_nvme::IDENTIFY_BYTES;
use spec_nvme::command::{self, admin, feature};
use spec_nvme::entry::Submission;
use spec_nvme::event::{Event, log_page};
use spec_nvme::register::QUEUE_ENTRIES_MIN;
use spec_nvme::status::Status;

use crate::NvmeState;
use crate::prp::{self, PAGE};
use crate::queue::{CompletionQueue, SubmissionQueue};

type Answer = Result<u32, Status>;

impl NvmeState {
    /// Serves a command; `None` when the answer comes later.
    pub(crate) fn admin(&mut self, command: &Submission) -> Option<(Status, u32)> {
        let answer = match command.opcode {
            admin::CREATE_COMPLETION_QUEUE => self.create_completion(command),
            admin::CREATE_SUBMISSION_QUEUE => self.create_submission(command),
            admin::DELETE_COMPLETION_QUEUE => self.delete_completion(command.dwords[0] as u16),
            admin::DELETE_SUBMISSION_QUEUE => self.delete_submission(command.dwords[0] as u16),
            admin::IDENTIFY => self
                .identify(command.dwords[0] & 0xff, command.namespace)
                .and_then(|page| self.give(command, &page)),
            admin::SET_FEATURES => self.set_features(command),
            admin::GET_LOG_PAGE => self.log_page(command),
            admin::ABORT => self.abort(command),
            admin::EVENT_REQUEST => {
                // AERL is 0: one.
                if self.listeners.is_empty() {
                    self.listeners.push_back(command.id);
                    return None;
                }
                self.violation("a second event request".into());
                Err(Status::EVENT_LIMIT)
            }
            other => {
                self.violation(format!("admin opcode {other:#x}"));
                Err(Status::INVALID_OPCODE)
            }
        };
        Some(match answer {
            Ok(result) => (Status::SUCCESS, result),
            Err(status) => (status, 0),
        })
    }

    fn give(&self, command: &Submission, bytes: &[u8]) -> Answer {
        match prp::write(&self.memory, (command.prp1, command.prp2), bytes) {
            Ok(()) => Ok(0),
            Err(problem) => {
                self.violation(format!("opcode {:#x}: {problem}", command.opcode));
                Err(Status::DATA_TRANSFER_ERROR)
            }
        }
    }

    /// A status that tells the driver that it did what it must not.
    fn refuse(&self, status: Status, text: String) -> Answer {
        self.violation(text);
        Err(status)
    }

    /// Identifier and entries of a queue to be created, checked.
    fn new_queue(&self, command: &Submission) -> Result<(u16, u16), Status> {
        let (id, entries) = (
            command.dwords[0] as u16,
            (command.dwords[0] >> 16) as u16 as u32 + 1,
        );
        let refuse = |status, text: String| self.refuse(status, text).map(|_| (0, 0));
        match self.granted {
            Some(granted) if id != 0 && id <= granted => {}
            _ => {
                let text = format!("queue {id}, granted are {:?}", self.granted);
                return refuse(Status::INVALID_QUEUE, text);
            }
        }
        if entries < QUEUE_ENTRIES_MIN.into() || entries > self.options.entries.into() {
            return refuse(Status::INVALID_QUEUE_SIZE, format!("queue of {entries}"));
        }
        if !command.prp1.is_multiple_of(PAGE) || command.prp2 != 0 {
            let text = format!("queue at {:#x}, {:#x}", command.prp1, command.prp2);
            return refuse(Status::PRP_OFFSET_INVALID, text);
        }
        if command.dwords[1] & command::QUEUE_CONTIGUOUS == 0 {
            return refuse(Status::INVALID_FIELD, "queue is not contiguous".into());
        }
        Ok((id, entries as u16))
    }

    fn create_completion(&mut self, command: &Submission) -> Answer {
        let (id, entries) = self.new_queue(command)?;
        if self.completions.contains_key(&id) {
            return self.refuse(Status::INVALID_QUEUE, format!("queue {id} exists"));
        }
        let (flags, vector) = (command.dwords[1] as u16, (command.dwords[1] >> 16) as u16);
        if flags & !3 != 0 {
            return self.refuse(Status::INVALID_FIELD, format!("queue flags {flags:#x}"));
        }
        let interrupts = flags & 2 != 0;
        if interrupts && vector >= self.vectors {
            return self.refuse(Status::INVALID_VECTOR, format!("vector {vector}"));
        }
        let queue = CompletionQueue::new(command.prp1, entries, interrupts.then_some(vector));
        self.completions.insert(id, queue);
        Ok(0)
    }

    fn create_submission(&mut self, command: &Submission) -> Answer {
        let (id, entries) = self.new_queue(command)?;
        if self.submissions.contains_key(&id) {
            return self.refuse(Status::INVALID_QUEUE, format!("queue {id} exists"));
        }
        let (flags, target) = (command.dwords[1] as u16, (command.dwords[1] >> 16) as u16);
        // Bits 2:1 are the priority, which counts only with weighted arbitration.
        if flags & !1 != 0 {
            return self.refuse(Status::INVALID_FIELD, format!("queue flags {flags:#x}"));
        }
        if target == 0 || !self.completions.contains_key(&target) {
            let text = format!("completion queue {target} does not exist");
            return self.refuse(Status::COMPLETION_QUEUE_INVALID, text);
        }
        let queue = SubmissionQueue::new(command.prp1, entries, target);
        self.submissions.insert(id, queue);
        Ok(0)
    }

    fn delete_submission(&mut self, id: u16) -> Answer {
        if id == 0 || self.submissions.remove(&id).is_none() {
            return self.refuse(Status::INVALID_QUEUE, format!("no queue {id} to delete"));
        }
        self.held.retain(|held| held.queue != id);
        Ok(0)
    }

    fn delete_completion(&mut self, id: u16) -> Answer {
        let used = self.submissions.values().any(|q| q.completion_queue == id);
        if used {
            let text = format!("completion queue {id} deleted before its submission queue");
            return self.refuse(Status::INVALID_QUEUE, text);
        }
        if id == 0 || self.completions.remove(&id).is_none() {
            return self.refuse(Status::INVALID_QUEUE, format!("no queue {id} to delete"));
        }
        Ok(0)
    }

    fn set_features(&mut self, command: &Submission) -> Answer {
        let value = command.dwords[1];
        match command.dwords[0] & 0xff {
            feature::QUEUES => {
                if self.submissions.len() > 1 || self.completions.len() > 1 {
                    let text = "number of queues changed after queues were created";
                    return self.refuse(Status::INVALID_FIELD, text.into());
                }
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return self.refuse(Status::INVALID_FIELD, "65536 queues".into());
                }
                let pairs = command::queue_pairs(value) as u16;
                let granted = pairs.min(self.options.pairs);
                self.granted = Some(granted);
                // What the controller has, which may be more than what was asked for.
                Ok(command::queue_count(self.options.pairs))
            }
            feature::EVENTS => {
                self.configured = value;
                Ok(0)
            }
            other => self.refuse(Status::INVALID_FIELD, format!("feature {other:#x}")),
        }
    }

    fn log_page(&mut self, command: &Submission) -> Answer {
        let page = command.dwords[0] as u8;
        let len = ((command.dwords[0] >> 16) as usize + 1) * 4;
        if len > IDENTIFY_BYTES {
            return self.refuse(Status::INVALID_FIELD, format!("{len} bytes of a log page"));
        }
        let mut bytes = vec![0; IDENTIFY_BYTES];
        let kind = match page {
            log_page::ERROR => 0,
            log_page::HEALTH => 1,
            log_page::CHANGED_NAMESPACES => {
                let changed = std::mem::take(&mut self.changed);
                for (index, id) in changed.iter().take(1024).enumerate() {
                    bytes[4 * index..][..4].copy_from_slice(&id.to_le_bytes());
                }
                2
            }
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        self.masked.remove(&kind);
        self.give(command, &bytes[..len])
    }

    fn abort(&mut self, command: &Submission) -> Answer {
        let (queue, id) = (command.dwords[0] as u16, (command.dwords[0] >> 16) as u16);
        if !self.submissions.contains_key(&queue) {
            return self.refuse(Status::INVALID_FIELD, format!("abort in queue {queue}"));
        }
        let found = self
            .held
            .iter()
            .position(|held| held.queue == queue && held.command.id == id);
        match found {
            Some(index) if self.options.aborts => {
                self.held.remove(index);
                self.complete(queue, id, Status::ABORT_REQUESTED, 0);
                Ok(0)
            }
            _ => Ok(command::NOT_ABORTED),
        }
    }

    /// Answers event requests with what happened (5.2).
    pub(crate) fn tell_events(&mut self) {
        let masked = &self.masked;
        let next = self
            .events
            .iter()
            .position(|e| !masked.contains(&Event(*e).kind()));
        let Some(event) = next else { return };
        let Some(id) = self.listeners.pop_front() else {
            return;
        };
        if let Some(event) = self.events.remove(event) {
            // The same again, until its log page is read, would be the same news.
            self.events.retain(|other| *other != event);
            self.masked.insert(Event(event).kind());
            self.complete(0, id, Status::SUCCESS, event);
        }
    }
}
