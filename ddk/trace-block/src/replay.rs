//! The same calls again, on a host.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ddk::{Deadline, DeviceContext, Event, EventQueue, PlatformError, block_on};
use ddk_class_block::{BlockDevice, BlockQueue};
use ddk_instrument::{Deviation, Record, Recording, Replay, Step};

use crate::call::{Call, OfQueue};

/// What was followed to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Followed {
    /// Records.
    pub records: usize,
    /// Calls of the class layer among them.
    pub calls: usize,
    /// It ends in the middle: the driver died, or there was no more room.
    pub open: bool,
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Followed { records, calls, .. } = self;
        write!(f, "followed to the end: {records} records, {calls} calls")
    }
}

/// Why a recording was not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotFollowed {
    /// Its beginning is missing, so many records.
    NoBeginning(u64),
    /// It has a call that makes no sense to this version of the class: record it again.
    BadCall,
    /// The driver did something else.
    Deviated(Deviation),
}

impl fmt::Display for NotFollowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFollowed::NoBeginning(skipped) => {
                write!(f, "the first {skipped} records are missing")
            }
            NotFollowed::BadCall => f.write_str("a call of another version: record it again"),
            NotFollowed::Deviated(deviation) => write!(f, "deviated: {deviation}"),
        }
    }
}

impl std::error::Error for NotFollowed {}

fn decode(call: &[u8]) -> Option<Call> {
    postcard::from_bytes(call).ok()
}

/// Name of the driver that was recorded; `None` where no start is in the recording.
pub fn driver_of(recording: &Recording) -> Option<String> {
    recording.entries.iter().find_map(|entry| {
        let Record::Call(call) = &entry.record else {
            return None;
        };
        match decode(call)? {
            Call::Start(name, _) => Some(name),
            _ => None,
        }
    })
}

/// Asks a driver what was asked when `recording` was made, with the recording in place of the device.
///
/// # Errors
/// Where the driver first did something else, in what it does to the device or in what it answers.
pub fn replay<D: BlockDevice>(recording: Recording) -> Result<Followed, NotFollowed> {
    if recording.skipped > 0 {
        return Err(NotFollowed::NoBeginning(recording.skipped));
    }
    let (records, open) = (recording.entries.len(), recording.open);
    let replay = Replay::new(recording);
    let Ok(cx) = DeviceContext::new(replay.clone()) else {
        return Err(NotFollowed::Deviated(replay.finish().unwrap_err()));
    };
    let mut player = Player::<D> {
        replay: replay.clone(),
        cx,
        device: None,
        queues: BTreeMap::new(),
        next_queue: 0,
        events: BTreeMap::new(),
    };
    let mut calls = 0;
    while let Some(step) = replay.step() {
        match step {
            Step::Queue(number, queue) => {
                player.events.insert(number, queue);
            }
            Step::Call { thread, call } => {
                let call = decode(&call).ok_or(NotFollowed::BadCall)?;
                calls += 1;
                let play = AssertUnwindSafe(|| player.play(thread, call));
                let answer = replay.within(thread, || catch_unwind(play));
                replay.answered(thread, answer.unwrap_or_else(|_| "a panic".into()));
            }
        }
    }
    // What the driver does when it is dropped was not recorded.
    let finished = replay.finish();
    drop(player);
    match finished {
        Ok(()) => Ok(Followed {
            records,
            calls,
            open,
        }),
        Err(deviation) => Err(NotFollowed::Deviated(deviation)),
    }
}

/// Stands for a queue that was not the platform's.
struct Foreign {
    _address: u8,
}

impl EventQueue for Foreign {
    fn wait(&self, _: &mut [Event], _: Deadline) -> Result<usize, PlatformError> {
        Err(PlatformError::Closed)
    }

    fn post(&self, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Player<D: BlockDevice> {
    replay: Arc<Replay>,
    cx: DeviceContext,
    device: Option<D>,
    queues: BTreeMap<u32, D::Queue>,
    next_queue: u32,
    /// The class layer's queues of events, by their number.
    events: BTreeMap<u32, Box<dyn EventQueue>>,
}

fn text(answer: impl fmt::Debug) -> String {
    format!("{answer:?}")
}

impl<D: BlockDevice> Player<D> {
    fn number(&mut self, queues: Vec<D::Queue>) {
        for queue in queues {
            self.queues.insert(self.next_queue, queue);
            self.next_queue += 1;
        }
    }

    /// Makes a call; gives its answer as it is recorded.
    fn play(&mut self, thread: u16, call: Call) -> String {
        let play = match call {
            Call::Start(..) => self.start(),
            Call::Queue(queue, call) => self.ask_queue(thread, queue, call),
            call => self.ask_device(thread, call),
        };
        play.unwrap_or_else(|| "what is called does not exist".into())
    }

    fn start(&mut self) -> Option<String> {
        let started = block_on(&self.cx, D::start(self.cx.clone()));
        match started {
            Ok(Ok(device)) => {
                self.device = Some(device);
                Some(text(Ok::<(), ddk::DriverError>(())))
            }
            Ok(Err(error)) => Some(text(Err::<(), _>(&error))),
            Err(error) => Some(text(error)),
        }
    }

    fn ask_device(&mut self, thread: u16, call: Call) -> Option<String> {
        let cx = self.cx.clone();
        if let Call::Stop(why) = call {
            let stopped = block_on(&cx, self.device.take()?.stop(why.into()));
            return Some(stopped.map_or_else(text, text));
        }
        let device = self.device.as_mut()?;
        let answer = match call {
            Call::Disks => text(device.disks()),
            Call::TakeQueues => {
                let queues = device.take_queues();
                let count = queues.len();
                self.number(queues);
                text(count)
            }
            Call::Reset(old) => {
                let old = old.iter().filter_map(|number| self.queues.remove(number));
                let queues = block_on(&cx, device.reset(old.collect()));
                match queues {
                    Ok(Ok(queues)) => {
                        let count = queues.len();
                        self.number(queues);
                        text(Ok::<_, ddk::DriverError>(count))
                    }
                    Ok(Err(error)) => text(Err::<usize, _>(&error)),
                    Err(error) => text(error),
                }
            }
            Call::BindChanges(key) => {
                let foreign = Foreign { _address: 0 };
                let events = events_for(&self.events, &self.replay, thread, &foreign);
                text(device.bind_changes(events, key))
            }
            Call::Changed => block_on(&cx, device.changed()).map_or_else(text, text),
            Call::Abort(queue, token) => {
                let aborted = block_on(&cx, device.abort(queue as usize, token));
                aborted.map_or_else(text, text)
            }
            Call::Suspend => block_on(&cx, device.suspend()).map_or_else(text, text),
            Call::Resume => block_on(&cx, device.resume()).map_or_else(text, text),
            Call::Save => text(device.save()),
            Call::Start(..) | Call::Stop(_) | Call::Queue(..) => return None,
        };
        Some(answer)
    }

    fn ask_queue(&mut self, thread: u16, number: u32, call: OfQueue) -> Option<String> {
        if let OfQueue::Drop = call {
            drop(self.queues.remove(&number)?);
            return Some(text(()));
        }
        let queue = self.queues.get_mut(&number)?;
        let answer = match call {
            OfQueue::Depth => text(queue.depth()),
            OfQueue::Push(pushed) => {
                let buffer = pushed.buffer();
                text(queue.push(&pushed.request(buffer.as_ref())?))
            }
            OfQueue::Kick => {
                queue.kick();
                text(())
            }
            OfQueue::Reap => text(queue.reap()),
            OfQueue::Arm => text(queue.arm()),
            OfQueue::Disarm => {
                queue.disarm();
                text(())
            }
            OfQueue::Bind(key) => {
                let foreign = Foreign { _address: 0 };
                let events = events_for(&self.events, &self.replay, thread, &foreign);
                text(queue.bind(events, key))
            }
            OfQueue::Drop => return None,
        };
        Some(answer)
    }
}

/// The queue to which the driver bound its interrupt.
fn events_for<'a>(
    events: &'a BTreeMap<u32, Box<dyn EventQueue>>,
    replay: &Replay,
    thread: u16,
    foreign: &'a Foreign,
) -> &'a dyn EventQueue {
    let known = replay.queue_to_bind(thread).and_then(|n| events.get(&n));
    known.map_or(foreign as &dyn EventQueue, |queue| &**queue)
}
