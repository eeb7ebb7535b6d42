//! Sessions, their buffers and their queues.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proto::net::{MacAddress, PREFIX_MAX, Status};

use crate::client::{ANSWER_LIMIT_MS, Bench, Client, Next, ensure};
use crate::frame::{self, number_of};
use crate::home::{Problem, Woken};

/// Frames both ways at random, in every mixture; nothing is lost that there is room for.
pub(super) fn random_traffic(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(32)?;
    let room = usize::from(info.device_depth.min(32));
    for _ in 0..40 {
        let (mut out, mut back) = (Vec::new(), Vec::new());
        for _ in 0..bench.rng.usize(0..=30) {
            let len = bench.rng.usize(60..=1514);
            let frame = bench.outward(info.mac, len);
            let least = len.div_ceil(info.fragments_max.into());
            let piece = bench.rng.usize(least..=len);
            let parts = client.put(bench, &frame, piece)?;
            if client.try_transmit(bench, &parts, None, None)?.is_none() {
                break;
            }
            out.push(frame);
        }
        client.kick(bench)?;
        for _ in 0..bench.rng.usize(0..=room) {
            let len = bench.rng.usize(60..=1514);
            back.push(bench.inward(info.mac, len));
        }
        bench.wire_send(&back)?;
        for frame in &back {
            client.expect_frame(bench, frame)?;
        }
        for frame in &out {
            bench.expect_on_wire(frame)?;
        }
        client.expect_sent(bench)?;
    }
    bench.goes(&mut client)
}

/// Frames after a long silence: the interrupt is asked for again.
pub(super) fn idle_between(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(8)?;
    for pause_ms in [1, 7, 30] {
        for _ in 0..4 {
            let woken = bench.nic.wait_received(client.session, pause_ms)?;
            ensure!(woken == Woken::Limit, "while nothing happens: {woken:?}");
            let frame = bench.inward(info.mac, 200);
            bench.wire_send(core::slice::from_ref(&frame))?;
            client.expect_frame(bench, &frame)?;
            let woken = bench.nic.wait_sent(client.session, pause_ms)?;
            ensure!(woken == Woken::Limit, "while nothing happens: {woken:?}");
            let frame = bench.outward(info.mac, 200);
            client.send(bench, &frame, 200)?;
            client.expect_sent(bench)?;
            bench.expect_on_wire(&frame)?;
        }
    }
    Ok(())
}

/// A client that gives its buffers one by one, each time after the one before was used.
pub(super) fn few_buffers(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let bytes = bench.rx_bytes()?;
    for buffers in [1, 2, 3] {
        let mut client = bench.client_with(0, buffers, bytes)?;
        for _ in 0..70 {
            let len = bench.rng.usize(60..=1514);
            let frame = bench.inward(info.mac, len);
            bench.wire_send(core::slice::from_ref(&frame))?;
            client.expect_frame(bench, &frame)?;
        }
        client.close(bench)?;
    }
    // None at all: what comes is dropped or waits, and sending goes.
    let mut client = bench.client_with(0, 0, bytes)?;
    let frame = bench.outward(info.mac, 300);
    client.send(bench, &frame, 300)?;
    client.expect_sent(bench)?;
    bench.expect_on_wire(&frame)?;
    client.close(bench)
}

/// Frames that spread over several small buffers, where the device does that.
pub(super) fn small_buffers(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let least = info.rx_buffer_min.next_multiple_of(4);
    if least >= info.frame_max {
        return Err(Problem::not_offered("a frame has one buffer"));
    }
    let mut client = bench.client_with(0, 64, least)?;
    let most = usize::from(info.device_depth.min(64)) * least as usize;
    for len in (60..=1514).step_by(37).chain([least as usize, 1514]) {
        if len + 64 > most {
            continue;
        }
        let frame = bench.inward(info.mac, len);
        bench.wire_send(core::slice::from_ref(&frame))?;
        let arrived = client.expect_frame(bench, &frame)?;
        // A device's header may take room of the first, and leave bytes of the others in memory of the driver.
        let pieces = arrived.pieces.len();
        ensure!(
            (len.div_ceil(least as usize + PREFIX_MAX)..=len.div_ceil(least as usize) + 1)
                .contains(&pieces),
            "{len} bytes in {pieces} buffers of {least}"
        );
    }
    Ok(())
}

/// A buffer is taken away while the device has it: its receive buffers come back, its frames end, and the session
/// goes on with what is left.
pub(super) fn withdrawal(bench: &mut Bench<'_>) -> Result<(), Problem> {
    const TAKEN: u32 = 4;
    let info = bench.info()?;
    let bytes = bench.rx_bytes()?;
    for _ in 0..3 {
        // Half of the session's buffers are in memory that stays.
        let kept = info.device_depth.min(16) / 2;
        let mut client = bench.client_with(0, kept, bytes)?;
        let extra = bench.nic.register(
            client.session,
            (bytes * TAKEN) as usize,
            crate::Access::DeviceWrites,
        )?;
        for n in 0..TAKEN {
            let part = crate::Part {
                slot: extra,
                offset: n * bytes,
                length: bytes,
            };
            // Beyond the depth of the session there is nothing to be taken away.
            if bench.nic.provide(client.session, &part, 100 + n)? {
                client.adopt(100 + n);
            }
        }
        let given = client.provided() - usize::from(kept);
        client.kick(bench)?;
        for _ in 0..6 {
            let frame = bench.outward(info.mac, 1000);
            client.send(bench, &frame, 1000)?;
        }
        bench.nic.settle()?;
        bench.nic.unregister(client.session, extra)?;
        let mut back = 0;
        while back < given {
            match client.next(bench, ANSWER_LIMIT_MS)? {
                Next::Back(token, Status::BAD_BUFFER) if token >= 100 => back += 1,
                other => return Err(other.problem()),
            }
        }
        let done = client.finish(bench)?.unwrap_or_default();
        let fine = |status| [Status::OK, Status::LOST].contains(&status);
        ensure!(
            done.len() == 6 && done.iter().all(|(_, status)| fine(*status)),
            "frames around the withdrawal of a buffer: {done:?}"
        );
        bench.await_link(crate::Wired::Plugged)?;
        bench.drain_wire()?;
        bench.goes(&mut client)?;
        client.close(bench)?;
    }
    Ok(())
}

/// A session ends in the middle of traffic; the next one of its queue gets frames whole, none that the old one got, and
/// nothing is written to the old one's memory.
pub(super) fn succession(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let mut client = bench.client(16)?;
        bench.await_link(crate::Wired::Plugged)?;
        for _ in 0..8 {
            let frame = bench.outward(info.mac, 700);
            client.send(bench, &frame, 700)?;
        }
        let count = usize::from(info.device_depth.min(16));
        let frames: Vec<_> = (0..count).map(|_| bench.inward(info.mac, 900)).collect();
        bench.wire_send(&frames)?;
        // Some are taken, the rest is on its way when the session ends.
        for _ in 0..bench.rng.usize(0..count) {
            let (bytes, _) = client.frame(bench)?;
            let number = number_of(&bytes).map_err(Problem::Failed)?;
            ensure!(!seen.contains(&number), "frame {number} came again");
            seen.push(number);
        }
        client.close(bench)?;
    }
    let mut client = bench.client(16)?;
    bench.await_link(crate::Wired::Plugged)?;
    // A wire that waits may still bring what nobody took.
    for bytes in client.frames(bench)? {
        let number = number_of(&bytes).map_err(Problem::Failed)?;
        ensure!(!seen.contains(&number), "frame {number} came again");
    }
    bench.drain_wire()?;
    bench.goes(&mut client)
}

/// Several queues: every frame of a flow comes to one of them, and each of them sends.
pub(super) fn queues(bench: &mut Bench<'_>) -> Result<(), Problem> {
    const FLOWS: u8 = 24;
    let info = bench.info()?;
    let bytes = bench.rx_bytes()?;
    let mut clients: Vec<Client> = Vec::new();
    for queue in 0..info.queues {
        let client = bench.client_with(queue, 16, bytes)?;
        clients.push(client);
    }
    let mut homes: BTreeMap<u8, usize> = BTreeMap::new();
    let mut number = 1 << 20;
    for _ in 0..4 {
        for flow in 0..FLOWS {
            let from = MacAddress([2, 0, 0, 0, 1, flow]);
            number += 1;
            let frame = frame::numbered(info.mac, from, 300, number);
            bench.wire_send(core::slice::from_ref(&frame))?;
            let mut found = None;
            for _ in 0..200 {
                for (queue, client) in clients.iter_mut().enumerate() {
                    if let Some(Next::Frame(bytes, _)) = client.poll(bench)? {
                        ensure!(bytes == frame, "queue {queue} got another frame");
                        ensure!(found.is_none(), "a frame came to two queues");
                        found = Some(queue);
                    }
                }
                if found.is_some() {
                    break;
                }
                let first = clients.first().map_or(0, |client| client.session);
                bench.nic.wait_received(first, 1)?;
            }
            let queue = found.ok_or_else(|| Problem::failed("a frame came to no queue"))?;
            let home = *homes.entry(flow).or_insert(queue);
            ensure!(
                home == queue,
                "flow {flow} went to queues {home} and {queue}"
            );
        }
    }
    let used = clients
        .iter()
        .enumerate()
        .filter(|(n, _)| homes.values().any(|queue| queue == n));
    ensure!(used.count() > 1, "{FLOWS} flows went to one queue");
    for (queue, client) in clients.iter_mut().enumerate() {
        let frame = bench.outward(info.mac, 400 + queue);
        client.send(bench, &frame, 150)?;
        bench.expect_on_wire(&frame)?;
        client.expect_sent(bench)?;
    }
    // With one session left, everything goes there.
    while clients.len() > 1 {
        if let Some(client) = clients.pop() {
            client.close(bench)?;
        }
    }
    let mut client = clients.pop().ok_or_else(|| Problem::failed("no queue"))?;
    bench.await_link(crate::Wired::Plugged)?;
    for flow in 0..FLOWS {
        let from = MacAddress([2, 0, 0, 0, 1, flow]);
        number += 1;
        let frame = frame::numbered(info.mac, from, 300, number);
        bench.wire_send(core::slice::from_ref(&frame))?;
        client.expect_frame(bench, &frame)?;
    }
    bench.goes(&mut client)
}
