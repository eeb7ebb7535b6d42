//! The admin queue and its commands (NVMe 1.4, 5).
//!
//! One command at a time, beside the one event request that is always outstanding. Answers are looked for
//! with growing pauses instead of awaited by interrupt: the admin vector stays bound to whoever listens for
//! events, and an answer arrives also when interrupts do not.

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use ddk::{DeviceContext, DmaRegion, DriverError, PAGE};
use spec_nvme::command::{self, admin, cns, feature};
use spec_nvme::entry::{COMPLETION_BYTES, SUBMISSION_BYTES, Submission, Tail};
use spec_nvme::event::Event;
use spec_nvme::register::admin_queue_attributes;
use spec_nvme::status::Status;
use spec_nvme::{ADMIN_QUEUE, IDENTIFY_BYTES};

use crate::controller::{Controller, Doorbells};

/// Entries of either queue; both fit into a page.
const ENTRIES: u16 = 32;
/// How long the controller may take for a command, in milliseconds.
const LIMIT_MS: u32 = 10_000;
/// Identifier of the event request; other commands have smaller ones.
const EVENT_ID: u16 = 0x8000;
/// Events that are kept until somebody asks; there is one request at a time, so there are never more.
const EVENTS_MAX: usize = 4;

const _: () = assert!(ENTRIES as usize * SUBMISSION_BYTES <= PAGE);
const _: () = assert!(IDENTIFY_BYTES == PAGE);

/// Why a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommandError {
    /// The controller answered that it will not.
    Status(&'static str, Status),
    /// It did not answer, or wrongly.
    Driver(DriverError),
}

impl From<DriverError> for CommandError {
    fn from(error: DriverError) -> CommandError {
        CommandError::Driver(error)
    }
}

impl From<CommandError> for DriverError {
    fn from(error: CommandError) -> DriverError {
        match error {
            CommandError::Status(what, status) => DriverError::Protocol {
                what,
                expected: Status::SUCCESS.0.into(),
                seen: status.0.into(),
            },
            CommandError::Driver(error) => error,
        }
    }
}

/// The admin queue pair.
pub(crate) struct Admin {
    cx: DeviceContext,
    submissions: DmaRegion,
    completions: DmaRegion,
    /// What commands answer with.
    page: DmaRegion,
    doorbells: Doorbells,
    tail: u16,
    head: u16,
    /// Phase of entries that are new.
    phase: u16,
    next_id: u16,
    events: Vec<Event>,
    /// Whether the controller has an event request.
    listening: bool,
}

/// An answer.
struct Answer {
    id: u16,
    result: u32,
    status: Status,
}

impl Admin {
    /// Memory for the queues.
    pub(crate) fn new(cx: &DeviceContext, controller: &Controller) -> Result<Admin, DriverError> {
        Ok(Admin {
            cx: cx.clone(),
            submissions: cx.dma_region(usize::from(ENTRIES) * SUBMISSION_BYTES)?,
            completions: cx.dma_region(usize::from(ENTRIES) * COMPLETION_BYTES)?,
            page: cx.dma_region(PAGE)?,
            doorbells: controller.doorbells(ADMIN_QUEUE),
            tail: 0,
            head: 0,
            phase: 1,
            next_id: 0,
            events: Vec::new(),
            listening: false,
        })
    }

    /// Has the controller enabled with these queues.
    pub(crate) async fn enable(&self, controller: &mut Controller) -> Result<(), DriverError> {
        let attributes = admin_queue_attributes(ENTRIES);
        let submissions = self.submissions.device_address(0);
        let completions = self.completions.device_address(0);
        controller
            .enable(attributes, submissions, completions)
            .await
    }

    /// What the last command answered with.
    pub(crate) fn page(&self) -> &DmaRegion {
        &self.page
    }

    fn submit(&mut self, command: Submission) {
        let at = usize::from(self.tail) * SUBMISSION_BYTES;
        self.submissions.write_struct(at, command);
        self.tail = (self.tail + 1) % ENTRIES;
        self.doorbells.submit(self.tail);
    }

    /// The next answer, to a command or to an event request.
    fn take(&mut self) -> Result<Option<Answer>, DriverError> {
        let at = usize::from(self.head) * COMPLETION_BYTES;
        let tail = Tail(self.completions.read::<u64>(at + Tail::OFFSET));
        if tail.phase() != self.phase {
            return Ok(None);
        }
        // The phase tag is read before the rest of the entry and before what the command answered with (4.6).
        fence(Ordering::Acquire);
        let result = self.completions.read::<u32>(at);
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase ^= 1;
        }
        self.doorbells.consumed(self.head);
        if tail.submission_queue() != ADMIN_QUEUE || tail.submission_head() >= ENTRIES {
            return Err(DriverError::Protocol {
                what: "queue and head in an admin completion",
                expected: ENTRIES.into(),
                seen: tail.0 & 0xffff_ffff,
            });
        }
        Ok(Some(Answer {
            id: tail.id(),
            result,
            status: tail.status(),
        }))
    }

    /// Takes an answer to the event request; gives any other back.
    fn sort(&mut self, answer: Answer) -> Option<Answer> {
        if answer.id != EVENT_ID || !self.listening {
            return Some(answer);
        }
        self.listening = false;
        if answer.status.code() == Status::SUCCESS && self.events.len() < EVENTS_MAX {
            self.events.push(Event(answer.result));
        }
        None
    }

    /// Runs a command to its end; gives dword 0 of the completion.
    pub(crate) async fn command(
        &mut self,
        controller: &Controller,
        what: &'static str,
        mut command: Submission,
    ) -> Result<u32, CommandError> {
        let id = self.next_id;
        self.next_id = (id + 1) % EVENT_ID;
        command.id = id;
        self.submit(command);
        let mut answer = None;
        let cx = self.cx.clone();
        cx.poll_until(what, LIMIT_MS, || {
            while let Some(taken) = self.take()? {
                let Some(taken) = self.sort(taken) else {
                    continue;
                };
                if taken.id != id || answer.is_some() {
                    return Err(unexpected(id, taken.id));
                }
                answer = Some(taken);
            }
            if answer.is_none() {
                controller.check()?;
            }
            Ok(answer.is_some())
        })
        .await?;
        match answer {
            Some(answer) if answer.status.code() == Status::SUCCESS => Ok(answer.result),
            Some(answer) => Err(CommandError::Status(what, answer.status)),
            None => Err(CommandError::Driver(DriverError::TimedOut {
                operation: what,
                waited_ms: LIMIT_MS,
            })),
        }
    }

    /// Identify (5.15): the answer is in [`Admin::page`].
    pub(crate) async fn identify(
        &mut self,
        controller: &Controller,
        what: &'static str,
        cns: u32,
        namespace: u32,
    ) -> Result<(), CommandError> {
        let command = Submission {
            opcode: admin::IDENTIFY,
            namespace,
            prp1: self.page.device_address(0),
            dwords: [cns, 0, 0, 0, 0, 0],
            ..Submission::default()
        };
        self.command(controller, what, command).await.map(drop)
    }

    /// The identifiers of active namespaces, in ascending order, `limit` at most.
    pub(crate) async fn namespaces(
        &mut self,
        controller: &Controller,
        limit: usize,
    ) -> Result<Vec<u32>, CommandError> {
        let what = "Identify, active namespaces";
        self.identify(controller, what, cns::ACTIVE_NAMESPACES, 0)
            .await?;
        let ids = (0..PAGE / 4).map(|n| self.page.read::<u32>(4 * n));
        let mut found: Vec<u32> = Vec::new();
        for id in ids.take_while(|id| *id != 0).take(limit) {
            let last = found.last().copied().unwrap_or(0);
            // 5.15.2.3 (1.4): ascending. Twice the same would be two disks of one name.
            if id <= last {
                let what = "identifier of the next active namespace, at least";
                return Err(CommandError::Driver(DriverError::Protocol {
                    what,
                    expected: u64::from(last) + 1,
                    seen: id.into(),
                }));
            }
            found.push(id);
        }
        Ok(found)
    }

    /// Set Features (5.21); gives dword 0 of the completion.
    pub(crate) async fn set_feature(
        &mut self,
        controller: &Controller,
        what: &'static str,
        feature: u32,
        value: u32,
    ) -> Result<u32, CommandError> {
        let command = Submission {
            opcode: admin::SET_FEATURES,
            dwords: [feature, value, 0, 0, 0, 0],
            ..Submission::default()
        };
        self.command(controller, what, command).await
    }

    /// How many I/O queue pairs the controller gives when asked for `pairs` (5.21.1.7).
    pub(crate) async fn request_queues(
        &mut self,
        controller: &Controller,
        pairs: u16,
    ) -> Result<u32, CommandError> {
        let what = "Set Features, number of queues";
        let value = command::queue_count(pairs);
        let result = self.set_feature(controller, what, feature::QUEUES, value);
        result.await.map(command::queue_pairs)
    }

    /// Reads a log page (5.14) of up to a page, which allows the next event that refers to it.
    pub(crate) async fn read_log(
        &mut self,
        controller: &Controller,
        log_page: u8,
        bytes: u32,
    ) -> Result<(), CommandError> {
        let command = Submission {
            opcode: admin::GET_LOG_PAGE,
            namespace: spec_nvme::NSID_ALL,
            prp1: self.page.device_address(0),
            dwords: [command::log_page_dword10(log_page, bytes), 0, 0, 0, 0, 0],
            ..Submission::default()
        };
        self.command(controller, "Get Log Page", command)
            .await
            .map(drop)
    }

    /// Asks to be told of the next event (5.2), unless that was asked already.
    pub(crate) fn listen(&mut self) {
        if !self.listening {
            self.listening = true;
            self.submit(Submission {
                opcode: admin::EVENT_REQUEST,
                id: EVENT_ID,
                ..Submission::default()
            });
        }
    }

    /// Events that came.
    pub(crate) fn take_events(&mut self) -> Result<Vec<Event>, DriverError> {
        while let Some(answer) = self.take()? {
            if let Some(answer) = self.sort(answer) {
                return Err(unexpected(EVENT_ID, answer.id));
            }
        }
        Ok(core::mem::take(&mut self.events))
    }
}

fn unexpected(expected: u16, seen: u16) -> DriverError {
    DriverError::Protocol {
        what: "command identifier in an admin completion",
        expected: expected.into(),
        seen: seen.into(),
    }
}
