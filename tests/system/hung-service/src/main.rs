//! Stands in the place of a service: its first incarnation answers a few pings and then none, later ones answer all.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use rt::{Deadline, Error, Packet, Port};
use supervision::Supervised;

rt::entry!(main);

const KEY_PINGS: u64 = 1;
/// Wake-ups for pings that the first incarnation answers.
const ANSWERS: u32 = 3;
/// What the vault keeps tells later incarnations that they are.
const SEEN: &str = "seen";

fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            rt::error!("{error}");
            1
        }
    }
}

fn run() -> Result<(), Error> {
    let own = Supervised::from_startup().ok_or(Error::NotFound)?;
    let first = matches!(own.get::<()>(SEEN), Ok(None));
    if own.put(SEEN, &(), Vec::new()).is_err() {
        return Err(Error::LimitReached);
    }
    let port = Port::create()?;
    own.watch(&port, KEY_PINGS)?;
    let mut packets = [Packet::default(); 1];
    for answered in 0.. {
        if first && answered == ANSWERS {
            break;
        }
        port.wait(&mut packets, Deadline::FOREVER)?;
        own.answer();
    }
    loop {
        rt::time::sleep_until(Deadline::after_secs(3600));
    }
}
