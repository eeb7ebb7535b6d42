//! A ring between two processes.

use ring::{Consumer, Layout, Producer, PushError};
use rt::{AsHandle, Deadline, Event, Mapping, Rights, SharedMapping, Signals, thread};

use crate::child::{command, program};
use crate::{Check, at, ensure, ensure_eq};

/// An entry: a number and three derived from it.
type Entry = [u64; 4];
const CAPACITY: u32 = 32;
const COUNT: u64 = 20_000;

fn entry(n: u64) -> Entry {
    [n, !n, n.wrapping_mul(3), n ^ 0x55]
}

/// Takes all entries; gives the exit code.
pub fn consume(memory: SharedMapping, doorbell: &Event) -> Option<i32> {
    let mut consumer = Consumer::<Entry, _>::new(memory, 0, CAPACITY).ok()?;
    let mut expected = 0;
    while expected < COUNT {
        while let Some(found) = consumer.pop().ok()? {
            if found != entry(expected) {
                return Some(3);
            }
            expected += 1;
        }
        if expected < COUNT && !consumer.arm().ok()? {
            doorbell
                .wait_one(Signals::SIGNALED, Deadline::after_secs(60))
                .ok()?;
            doorbell.clear().ok()?;
        }
    }
    Some(0)
}

pub fn ring() -> Check {
    let layout = Layout::of::<Entry>(CAPACITY).map_err(at("layout"))?;
    let (vmo, mapping) = Mapping::create(layout.size_bytes()).map_err(at("create"))?;
    let doorbell = Event::create().map_err(at("event"))?;
    let rights = Rights::READ | Rights::WRITE | Rights::MAP | Rights::INSPECT | Rights::TRANSFER;
    let program = program()?;
    let child = command(&program, "consume")
        .handle(
            "memory",
            vmo.duplicate_with(rights).map_err(at("duplicate"))?,
        )
        .handle("doorbell", doorbell.duplicate().map_err(at("duplicate"))?)
        .spawn()
        .map_err(at("spawn"))?;
    let memory = SharedMapping::new(mapping);
    let mut producer = Producer::<Entry, _>::new(memory, 0, CAPACITY).map_err(at("producer"))?;
    let deadline = Deadline::after_secs(120);
    let mut sent = 0;
    let mut rings = 0u64;
    while sent < COUNT {
        match producer.push(&entry(sent)) {
            Ok(()) => {
                sent += 1;
                if sent % 5 != 0 && sent != COUNT {
                    continue;
                }
            }
            Err(PushError::Full) => {
                ensure!(!deadline.has_passed(), "the consumer does not consume");
                thread::yield_now();
            }
            Err(error) => return Err(alloc::format!("{error}")),
        }
        if producer.publish() {
            rings += 1;
            doorbell.ring().map_err(at("ring"))?;
        }
    }
    ensure_eq!(child.wait(deadline).map_err(at("wait"))?.status(), 0);
    ensure!(rings <= COUNT / 5, "{rings} doorbells");
    Ok(())
}
