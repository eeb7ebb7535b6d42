//! The program that the rows `spawn` and `call-reply-64` start: with a handle named
//! `calls` it serves calls on it, without it it ends at once.

#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{Channel, Deadline, HandleList};

rt::entry!(main);

fn main() -> i32 {
    match rt::startup::take::<Channel>("calls") {
        Some(calls) => serve(&calls),
        None => 0,
    }
}

/// Answers each call with its message, the first byte one higher. Ends when the client
/// is gone.
fn serve(calls: &Channel) -> i32 {
    let mut message = [0; 64];
    let mut handles = HandleList::new();
    loop {
        let Ok(received) = calls.read(&mut message, &mut handles, Deadline::FOREVER) else {
            return 0;
        };
        message[0] = message[0].wrapping_add(1);
        let reply = message.get(..received.len).unwrap_or_default();
        if calls.reply(received.txid, reply, &mut handles).is_err() {
            return 1;
        }
    }
}
