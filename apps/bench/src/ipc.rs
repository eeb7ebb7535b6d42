//! System call, call and reply between two processes, thread switch.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use rt::sync::{futex_wait, futex_wake};
use rt::{Channel, Deadline, Event, HandleList, Signals};

use crate::measure::{Failure, Section, measure_plain};
use crate::{process, section};

const NULL_CALL: Section = section!(1);
const CALL_REPLY: Section = section!(2);
const THREAD_SWITCH: Section = section!(4);

const CALLS: u32 = 20_000;
const ROUND_TRIPS: u32 = 3_000;
const MESSAGE: usize = 64;
/// No round trip takes so long, even on a busy host.
const LIMIT_S: u64 = 30;

/// The row `null-call`: signal an event with nothing to clear and nothing to set. It
/// looks a handle up and checks its rights, and changes nothing.
///
/// # Errors
///
/// When there is no event to be had.
pub fn null_call(row: &str) -> Result<bool, Failure> {
    let event = Event::create().map_err(|error| Failure::new("event", error))?;
    measure_plain(row, NULL_CALL, CALLS, || {
        for _ in 0..CALLS {
            event
                .signal(Signals::NONE, Signals::NONE)
                .map_err(|error| Failure::new("signal", error))?;
        }
        Ok(())
    })
}

/// The row `call-reply-64`: 64 bytes to a server process and 64 bytes back.
///
/// # Errors
///
/// When the server cannot be started or answers wrongly.
pub fn call_and_reply(row: &str) -> Result<bool, Failure> {
    let (calls, server_end) = Channel::create().map_err(|error| Failure::new("channel", error))?;
    let mut server = process::start_child(Some(server_end))?;
    let mut message = [1; MESSAGE];
    let mut handles = HandleList::new();
    let measured = measure_plain(row, CALL_REPLY, ROUND_TRIPS, || {
        for _ in 0..ROUND_TRIPS {
            let before = message[0];
            let deadline = Deadline::after_secs(LIMIT_S);
            let len = calls
                .call_in_place(&mut message, MESSAGE, &mut handles, deadline)
                .map_err(|failure| Failure::new("call", failure))?;
            if len != MESSAGE || message[0] != before.wrapping_add(1) {
                return Err(Failure::new("wrong reply of length", len));
            }
        }
        Ok(())
    });
    drop(calls);
    process::reap(&mut server)?;
    measured
}

const MAIN: u32 = 0;
const OTHER: u32 = 1;
const ENDED: u32 = 2;

/// Gives the turn to the other thread and waits until it comes back.
fn hand_over(turn: &AtomicU32, to: u32) {
    turn.store(to, Ordering::SeqCst);
    futex_wake(turn, 1);
    while turn.load(Ordering::SeqCst) == to {
        // Whatever ends the wait, the word decides.
        let _ = futex_wait(turn, to, Deadline::FOREVER);
    }
}

/// The row `thread-switch`: to another thread of the process and back, by futex.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn thread_switch(row: &str) -> Result<bool, Failure> {
    let turn = Arc::new(AtomicU32::new(MAIN));
    let shared = turn.clone();
    let mut other = rt::thread::builder("other")
        .spawn(move || {
            while shared.load(Ordering::SeqCst) == MAIN {
                let _ = futex_wait(&shared, MAIN, Deadline::FOREVER);
            }
            while shared.load(Ordering::SeqCst) == OTHER {
                hand_over(&shared, MAIN);
            }
        })
        .map_err(|error| Failure::new("thread", error))?;
    let measured = measure_plain(row, THREAD_SWITCH, ROUND_TRIPS, || {
        for _ in 0..ROUND_TRIPS {
            hand_over(&turn, OTHER);
        }
        Ok(())
    });
    turn.store(ENDED, Ordering::SeqCst);
    futex_wake(&turn, 1);
    other
        .join(Deadline::after_secs(LIMIT_S))
        .map_err(|error| Failure::new("join", error))?;
    measured
}
