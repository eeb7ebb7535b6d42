//! Frames of every length and shape, both ways.

use alloc::vec::Vec;

use proto::net::Status;

use crate::client::{Bench, ensure};
use crate::frame::{ETHERNET_BYTES, number_of};
use crate::home::{Part, Problem};

/// Frames that are under way at a time.
const BATCH: usize = 24;
/// Most fragments of a frame that the class takes of any device.
const FRAGMENTS_MAX: usize = 32;
/// Receive buffers of most tests.
const BUFFERS: u16 = 32;

/// Frames of every length that goes, from the header alone on, get on the wire whole and in order; others are refused.
pub(super) fn lengths_out(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(4)?;
    let longest = info.frame_max as usize;
    let lengths: Vec<usize> = (ETHERNET_BYTES..=longest).collect();
    for batch in lengths.chunks(BATCH) {
        let mut sent = Vec::new();
        for len in batch {
            let frame = bench.outward(info.mac, *len);
            client.send(bench, &frame, *len)?;
            sent.push(frame);
        }
        for frame in &sent {
            bench.expect_on_wire(frame)?;
        }
        client.expect_sent(bench)?;
    }
    for (len, status) in [
        (1, Status::INVALID),
        (ETHERNET_BYTES - 1, Status::INVALID),
        (longest + 1, Status::TOO_LONG),
        (longest + 4096, Status::TOO_LONG),
    ] {
        let parts = client.put(bench, &alloc::vec![0x5a; len], len)?;
        client.expect_refused(bench, (&parts, None, None), status)?;
    }
    bench.goes(&mut client)?;
    let counters = bench.nic.counters()?;
    ensure!(
        counters.tx_frames == lengths.len() as u64 + 6 && counters.tx_errors == 4,
        "{counters:?} after {} frames and 4 that were refused",
        lengths.len() + 6
    );
    Ok(())
}

/// The same inwards. What is longer than the MTU allows is dropped or passed on whole.
pub(super) fn lengths_in(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(BUFFERS)?;
    let longest = info.mtu as usize + ETHERNET_BYTES;
    let lengths: Vec<usize> = (ETHERNET_BYTES..=longest).collect();
    for batch in lengths.chunks(BATCH.min(info.device_depth.into())) {
        let frames: Vec<_> = batch
            .iter()
            .map(|len| bench.inward(info.mac, *len))
            .collect();
        bench.wire_send(&frames)?;
        for frame in &frames {
            client.expect_frame(bench, frame)?;
        }
    }
    let counters = bench.nic.counters()?;
    ensure!(
        counters.rx_frames == lengths.len() as u64,
        "{} frames counted of {}",
        counters.rx_frames,
        lengths.len()
    );
    for len in [longest + 4, longest + 5, 2048, 2049, 4000, 9000] {
        let frame = bench.inward(info.mac, len);
        bench.wire_send(core::slice::from_ref(&frame))?;
        for seen in client.frames(bench)? {
            ensure!(seen == frame, "{} bytes of a frame of {len}", seen.len());
        }
    }
    bench.goes(&mut client)
}

/// Frames of any number of fragments, wherever they lie.
pub(super) fn fragments(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(4)?;
    let most = usize::from(info.fragments_max);
    for len in [60usize, 61, 333, 1514] {
        for count in (1..=most).filter(|count| *count <= len) {
            let frame = bench.outward(info.mac, len);
            client.send(bench, &frame, len.div_ceil(count))?;
            bench.expect_on_wire(&frame)?;
            client.expect_sent(bench)?;
        }
    }
    // Lengths and places at random, out of order, over ends of pages.
    for _ in 0..60 {
        let len = bench.rng.usize(60..=1514);
        let frame = bench.outward(info.mac, len);
        let (mut parts, mut at) = (Vec::new(), 0);
        let mut places: Vec<u32> = (0..most as u32).collect();
        bench.rng.shuffle(&mut places);
        for (n, place) in places.iter().enumerate() {
            let left = len - at;
            let last = n + 1 == most || left < 2;
            let bytes = if last { left } else { bench.rng.usize(1..left) };
            let offset = place * 8192 + 4096 - bench.rng.u32(1..1400);
            let piece = frame.get(at..at + bytes).unwrap_or_default();
            let slot = client.tx_slot;
            bench
                .nic
                .put(client.session, slot, offset as usize, piece)?;
            parts.push(Part {
                slot,
                offset,
                length: bytes as u32,
            });
            at += bytes;
            if last {
                break;
            }
        }
        let token = client.try_transmit(bench, &parts, None, None)?;
        ensure!(token.is_some(), "no room for {} fragments", parts.len());
        client.kick(bench)?;
        bench.expect_on_wire(&frame)?;
        client.expect_sent(bench)?;
    }
    // More than any interface takes.
    let frame = bench.outward(info.mac, 20 * (FRAGMENTS_MAX + 1));
    let parts = client.put(bench, &frame, 20)?;
    client.expect_refused(bench, (&parts, None, None), Status::TOO_LONG)?;
    bench.goes(&mut client)
}

/// As many frames as the session takes at a time, several times over.
pub(super) fn burst_out(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(4)?;
    let (_, depth) = bench.nic.depths(client.session);
    for _ in 0..4 {
        let mut sent = Vec::new();
        loop {
            let len = bench.rng.usize(60..=1514);
            let frame = bench.outward(info.mac, len);
            let parts = client.put(bench, &frame, len)?;
            if client.try_transmit(bench, &parts, None, None)?.is_none() {
                break;
            }
            sent.push(frame);
        }
        ensure!(
            sent.len() == usize::from(depth),
            "{} frames under way in a session of depth {depth}",
            sent.len()
        );
        client.kick(bench)?;
        for frame in &sent {
            bench.expect_on_wire(frame)?;
        }
        client.expect_sent(bench)?;
    }
    bench.goes(&mut client)
}

/// More frames than there are buffers: those that arrive are whole and in order, none twice, and those that do not are
/// counted. The service goes on.
pub(super) fn burst_in(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (info, promise) = (bench.info()?, bench.nic.promise());
    let mut client = bench.client(BUFFERS)?;
    let (mut sent, mut seen) = (0, 0);
    let mut last = 0;
    for round in 1..6 {
        let count = round * usize::from(BUFFERS) / 2;
        let frames: Vec<_> = (0..count)
            .map(|_| {
                let len = bench.rng.usize(60..=1514);
                bench.inward(info.mac, len)
            })
            .collect();
        bench.wire_send(&frames)?;
        sent += count;
        let arrived = client.frames(bench)?;
        ensure!(
            arrived.len() >= count.min(usize::from(BUFFERS.min(info.device_depth))),
            "{} frames of {count} with {BUFFERS} buffers and {} in the device",
            arrived.len(),
            info.device_depth
        );
        for frame in arrived {
            let number = number_of(&frame).map_err(Problem::Failed)?;
            ensure!(number > last, "frame {number} after {last}");
            last = number;
            seen += 1;
        }
    }
    let counters = bench.nic.counters()?;
    ensure!(
        counters.rx_frames == seen as u64 + client.marks(),
        "{} frames counted, {seen} and {} marks received",
        counters.rx_frames,
        client.marks()
    );
    if promise.counts_missed {
        ensure!(
            counters.rx_missed == (sent - seen) as u64,
            "{} frames counted as missed, {} are",
            counters.rx_missed,
            sent - seen
        );
    }
    bench.goes(&mut client)
}
