//! Ports, events, timers, threads and calls between them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use rt::abi::{Error, Packet, Signals};
use rt::{AsHandle, Channel, Deadline, Event, HandleList, Mutex, Port, Timer, Watch, time};

use crate::{Failure, Kit, Test, check, must};

pub const TESTS: &[(&str, Test)] = &[
    ("ports: edges are joined into one packet", edges),
    ("ports: a cancelled watch is silent", cancelled),
    ("ports: user packets come in order", user_packets),
    ("timers: once and periodic, never early", timers),
    ("calls: replies reach the caller that asked", calls),
    ("calls: a deadline ends a call", call_deadline),
    ("futexes: a lock counts right on every CPU", locks),
];

fn wait(port: &Port, ms: u64) -> rt::Result<Packet> {
    let mut packets = [Packet::default(); 1];
    port.wait(&mut packets, Deadline::after_ms(ms))?;
    Ok(packets[0])
}

fn edges(_: &Kit) -> Result<(), Failure> {
    let port = must("port", Port::create())?;
    let event = must("event", Event::create())?;
    must(
        "watch",
        event.wait_async(&port, 5, Signals::SIGNALED, Watch::Persistent),
    )?;
    check!(wait(&port, 0).is_err(), "a packet without a signal");
    for _ in 0..3 {
        must("ring", event.ring())?;
    }
    let packet = must("packet", wait(&port, 100))?;
    check!(
        packet.key == 5 && packet.kind == Packet::SIGNAL && packet.value == 3,
        "got {packet:?}"
    );
    check!(wait(&port, 0).is_err(), "a second packet for joined edges");
    // Still set: no edge. Cleared and set: one.
    must("set", event.set())?;
    check!(wait(&port, 0).is_err(), "a packet without an edge");
    must("clear", event.clear())?;
    must("set", event.set())?;
    must("packet", wait(&port, 100))?;
    Ok(())
}

fn cancelled(_: &Kit) -> Result<(), Failure> {
    let port = must("port", Port::create())?;
    let event = must("event", Event::create())?;
    must(
        "watch",
        event.wait_async(&port, 1, Signals::SIGNALED, Watch::Persistent),
    )?;
    must("ring", event.ring())?;
    must("cancel", port.cancel(&event, 1))?;
    check!(wait(&port, 0).is_err(), "the packet stayed");
    must("ring", event.ring())?;
    check!(wait(&port, 0).is_err(), "the watch stayed");
    check!(
        port.cancel(&event, 1) == Err(Error::NotFound),
        "cancelled twice"
    );
    must(
        "once",
        event.wait_async(&port, 2, Signals::SIGNALED, Watch::Once),
    )?;
    must("packet of a signal that is set", wait(&port, 100))?;
    must("ring", event.ring())?;
    check!(wait(&port, 0).is_err(), "once came twice");
    Ok(())
}

fn user_packets(_: &Kit) -> Result<(), Failure> {
    let port = must("port", Port::create())?;
    for n in 0..100 {
        must("queue", port.queue(n, n * n))?;
    }
    let mut packets = [Packet::default(); 7];
    let mut next = 0;
    while next < 100 {
        let n = must("wait", port.wait(&mut packets, Deadline::NOW))?;
        for packet in &packets[..n] {
            check!(
                packet.key == next && packet.value == next * next,
                "expected {next}, got {packet:?}"
            );
            next += 1;
        }
    }
    let mut queued = 0;
    while port.queue(1, 1).is_ok() {
        queued += 1;
        check!(queued < 1_000_000, "a queue without an end");
    }
    Ok(())
}

fn timers(_: &Kit) -> Result<(), Failure> {
    let port = must("port", Port::create())?;
    let timer = must("timer", Timer::create())?;
    must(
        "watch",
        timer.wait_async(&port, 9, Signals::SIGNALED, Watch::Persistent),
    )?;
    let start = time::now_ns();
    must("set", timer.set(Deadline::after_ms(5)))?;
    must("packet", wait(&port, 5000))?;
    check!(
        time::now_ns() - start >= 5_000_000,
        "early by {} ns",
        start + 5_000_000 - time::now_ns()
    );
    must(
        "periodic",
        timer.set_periodic(Deadline::after_ms(1), Duration::from_millis(1)),
    )?;
    let mut ticks = 0;
    while ticks < 5 {
        ticks += must("packet", wait(&port, 5000))?.value;
    }
    must("cancel", timer.cancel())?;
    while wait(&port, 0).is_ok() {}
    check!(wait(&port, 20).is_err(), "a timer that was cancelled fired");
    Ok(())
}

/// A server that adds 1 to each byte.
fn serve(channel: &Channel, rounds: usize) {
    let (mut bytes, mut list) = ([0; 256], HandleList::new());
    for _ in 0..rounds {
        let Ok(got) = channel.read(&mut bytes, &mut list, Deadline::after_secs(20)) else {
            return;
        };
        bytes[..got.len]
            .iter_mut()
            .for_each(|b| *b = b.wrapping_add(1));
        if channel
            .reply(got.txid, &bytes[..got.len], &mut list)
            .is_err()
        {
            return;
        }
    }
}

fn calls(_: &Kit) -> Result<(), Failure> {
    const CALLERS: usize = 4;
    const CALLS: usize = 500;
    let (client, server) = must("channel", Channel::create())?;
    let client = Arc::new(client);
    let mut thread = must(
        "thread",
        rt::thread::builder("test").spawn(move || serve(&server, CALLERS * CALLS)),
    )?;
    let mut callers = alloc::vec::Vec::new();
    for n in 0..CALLERS {
        let client = client.clone();
        let caller = rt::thread::builder("test").spawn(move || {
            let mut wrong = 0;
            for i in 0..CALLS {
                let (sent, mut reply) = ([(n * 50 + i) as u8; 40], [0; 64]);
                let got = client.call(
                    &sent,
                    &mut HandleList::new(),
                    &mut reply,
                    Deadline::after_secs(20),
                );
                let right =
                    got == Ok(40) && reply[..40].iter().all(|b| *b == sent[0].wrapping_add(1));
                wrong += usize::from(!right);
            }
            wrong
        });
        callers.push(must("thread", caller)?);
    }
    for mut caller in callers {
        let wrong = must("join", caller.join(Deadline::after_secs(60)))?;
        check!(wrong == 0, "{wrong} wrong replies");
    }
    must("join", thread.join(Deadline::after_secs(60)))?;
    Ok(())
}

fn call_deadline(_: &Kit) -> Result<(), Failure> {
    let (client, server) = must("channel", Channel::create())?;
    let mut reply = [0; 8];
    let got = client.call(
        &[1],
        &mut HandleList::new(),
        &mut reply,
        Deadline::after_ms(10),
    );
    check!(
        got.map_err(|f| f.error) == Err(Error::TimedOut),
        "got {got:?}"
    );
    // A reply that comes too late is refused: nobody waits for it.
    let (mut bytes, mut list) = ([0; 8], HandleList::new());
    let late = must("read", server.read(&mut bytes, &mut list, Deadline::NOW))?;
    let refused = server.reply(late.txid, &[2], &mut list);
    check!(
        refused == Err(Error::BadState),
        "a late reply gave {refused:?}"
    );
    Ok(())
}

fn locks(_: &Kit) -> Result<(), Failure> {
    const THREADS: usize = 6;
    const ROUNDS: u32 = 2000;
    let total = Arc::new((Mutex::new(0u32), AtomicU32::new(0)));
    let mut threads = alloc::vec::Vec::new();
    for _ in 0..THREADS {
        let total = total.clone();
        let thread = rt::thread::builder("test").spawn(move || {
            for _ in 0..ROUNDS {
                *total.0.lock() += 1;
                total.1.fetch_add(1, Ordering::Relaxed);
            }
        });
        threads.push(must("thread", thread)?);
    }
    for mut thread in threads {
        must("join", thread.join(Deadline::after_secs(60)))?;
    }
    let (locked, atomic) = (*total.0.lock(), total.1.load(Ordering::Relaxed));
    check!(
        locked == atomic && atomic == THREADS as u32 * ROUNDS,
        "{locked} under the lock, {atomic} atomically"
    );
    Ok(())
}
