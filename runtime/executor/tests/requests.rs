//! Requests as they come: none is missed, and an empty channel is not asked again and again.
#![allow(missing_docs, reason = "a test")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use executor::{Deadline, Error, Executor};
use proptest::prelude::*;
use sys::{Channel, HandleList};

/// A server whose requests are bytes; counts how often the channel had none.
struct Bytes {
    channel: Channel,
    in_vain: Rc<Cell<u32>>,
}

impl ipc::Server for Bytes {
    type Request = u8;
    fn channel(&self) -> &Channel {
        &self.channel
    }
    fn try_next(&self) -> Result<Option<u8>, Error> {
        let mut byte = [0];
        match self
            .channel
            .read(&mut byte, &mut HandleList::new(), Deadline::NOW)
        {
            Ok(_) => Ok(Some(byte[0])),
            Err(Error::TimedOut | Error::ShouldWait) => {
                self.in_vain.set(self.in_vain.get() + 1);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn server() -> (Channel, Bytes, Rc<Cell<u32>>) {
    let (client, channel) = Channel::create().unwrap();
    let in_vain = Rc::new(Cell::new(0));
    let server = Bytes {
        channel,
        in_vain: in_vain.clone(),
    };
    (client, server, in_vain)
}

fn send(client: &Channel, byte: u8) {
    client.write(&[byte], &mut HandleList::new()).unwrap();
}

#[test]
fn one_request_at_a_time_asks_the_channel_once_each() {
    let executor = Executor::new().unwrap();
    let (client, server, in_vain) = server();
    let requests = executor.requests(server).unwrap();
    let soon = Deadline::after(Duration::from_secs(20));
    for byte in 0..100 {
        send(&client, byte);
        let next = executor.block_on(requests.next_until(soon)).unwrap();
        assert_eq!(next, Some(byte));
    }
    // The first look, before any packet of the watch, may find more than it knows of.
    assert!(in_vain.get() <= 1, "{} reads in vain", in_vain.get());
    let now = Deadline::after(Duration::from_millis(1));
    let none = executor.block_on(requests.next_until(now));
    assert_eq!(none, Err(Error::TimedOut));
    drop(client);
    assert_eq!(executor.block_on(requests.next_until(soon)), Ok(None));
}

proptest! {
    #[test]
    fn no_request_is_missed(
        before in 0u8..5,
        bursts in prop::collection::vec((0u8..5, 0u8..5), 0..20),
    ) {
        let executor = Executor::new().unwrap();
        let (client, server, _) = server();
        (0..before).for_each(|byte| send(&client, byte));
        let requests = executor.requests(server).unwrap();
        let soon = Deadline::after(Duration::from_secs(20));
        let (mut sent, mut seen) = (before, 0);
        for (more, read) in bursts {
            for _ in 0..more {
                send(&client, sent);
                sent += 1;
            }
            for _ in 0..read.min(sent - seen) {
                let next = executor.block_on(requests.next_until(soon));
                prop_assert_eq!(next, Ok(Some(seen)));
                seen += 1;
            }
        }
        drop(client);
        while seen < sent {
            let next = executor.block_on(requests.next_until(soon));
            prop_assert_eq!(next, Ok(Some(seen)));
            seen += 1;
        }
        prop_assert_eq!(executor.block_on(requests.next_until(soon)), Ok(None));
    }
}
