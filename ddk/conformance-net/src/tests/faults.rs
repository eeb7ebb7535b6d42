//! Resets, wires that are pulled out, and devices that fall silent, lie or vanish.

use alloc::vec::Vec;

use proto::net::{MacAddress, ReceiveMode, Status};

use crate::client::{ANSWER_LIMIT_MS, Bench, Client, Next, ensure};
use crate::frame::number_of;
use crate::home::{Fault, Problem, Wired, Woken};

/// Frames under way when something happens.
const IN_FLIGHT: usize = 6;
/// Receive buffers.
const BUFFERS: u16 = 16;

/// Frames on their way out.
fn start_frames(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    let mac = bench.info()?.mac;
    for _ in 0..IN_FLIGHT {
        let len = bench.rng.usize(60..=1514);
        let frame = bench.outward(mac, len);
        client.send(bench, &frame, len)?;
    }
    Ok(())
}

/// Each frame that was under way is answered for once, with one of these; `None`: the device is gone.
fn end_frames(
    bench: &mut Bench<'_>,
    client: &mut Client,
    expected: &[Status],
) -> Result<Option<Vec<Status>>, Problem> {
    let Some(done) = client.finish(bench)? else {
        return Ok(None);
    };
    let statuses: Vec<_> = done.into_iter().map(|(_, status)| status).collect();
    ensure!(
        statuses.iter().all(|status| expected.contains(status)),
        "frames ended with {statuses:?}, expected {expected:?}"
    );
    Ok(Some(statuses))
}

/// What is on the wire now is whole, and each frame of it new.
fn check_wire(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut last = 0;
    for frame in bench.drain_wire()? {
        let number = number_of(&frame).map_err(Problem::Failed)?;
        ensure!(number > last, "frame {number} on the wire after {last}");
        last = number;
    }
    Ok(())
}

/// What the client gets is whole, and each frame of it new.
fn check_received(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    let mut last = 0;
    for frame in client.frames(bench)? {
        let number = number_of(&frame).map_err(Problem::Failed)?;
        ensure!(number > last, "frame {number} received after {last}");
        last = number;
    }
    Ok(())
}

/// The interface is of use again, with every receive buffer.
fn works_again(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    let info = bench.info()?;
    bench.await_link(Wired::Plugged)?;
    check_wire(bench)?;
    check_received(bench, client)?;
    bench.goes(client)?;
    ensure!(
        client.provided() == usize::from(BUFFERS),
        "{} receive buffers of {BUFFERS} are left",
        client.provided()
    );
    // As many frames as there are buffers find room at once.
    let count = usize::from(info.device_depth.min(BUFFERS));
    let frames: Vec<_> = (0..count).map(|_| bench.inward(info.mac, 500)).collect();
    bench.wire_send(&frames)?;
    for frame in &frames {
        client.expect_frame(bench, frame)?;
    }
    Ok(())
}

/// A reset while nothing happens is noticed by nobody.
pub(super) fn reset_idle(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(BUFFERS)?;
    for _ in 0..3 {
        bench.nic.reset()?;
        client.expect_nothing(bench)?;
        works_again(bench, &mut client)?;
    }
    let resets = bench.nic.counters()?.resets;
    ensure!(resets == 3, "{resets} resets counted of 3");
    Ok(())
}

/// A reset in the middle of traffic both ways: each frame is answered for once, none is torn, later ones go.
pub(super) fn reset_in_flight(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(BUFFERS)?;
    let group = MacAddress([1, 0, 0x5e, 1, 2, 3]);
    bench
        .nic
        .set_receive_mode(ReceiveMode::Filtered, &[group])?;
    for _ in 0..4 {
        start_frames(bench, &mut client)?;
        for _ in 0..8 {
            let len = bench.rng.usize(60..=1514);
            let frame = bench.inward(group, len);
            bench.nic.wire_send(&frame)?;
        }
        bench.nic.reset()?;
        let statuses = end_frames(bench, &mut client, &[Status::OK, Status::LOST])?;
        ensure!(statuses.is_some(), "the device was given up");
        works_again(bench, &mut client)?;
    }
    let frame = bench.inward(group, 222);
    bench.wire_send(core::slice::from_ref(&frame))?;
    client.expect_frame(bench, &frame)?;
    Ok(())
}

/// The wire is pulled out and plugged in again: it is told, frames end somehow, and later ones go.
pub(super) fn link(bench: &mut Bench<'_>) -> Result<(), Problem> {
    if !bench.nic.promise().tells_link {
        return Err(Problem::not_offered("no interrupt tells of the link"));
    }
    let mut client = bench.client(BUFFERS)?;
    bench.await_link(Wired::Plugged)?;
    for round in 0..3 {
        let before = bench.info()?.generation;
        bench.nic.set_link(Wired::Unplugged)?;
        bench.await_link(Wired::Unplugged)?;
        let after = bench.info()?.generation;
        ensure!(after != before, "a link that is down is no news");
        start_frames(bench, &mut client)?;
        // Once for longer than a device with a link may take.
        let pause_ms = if round == 0 { 7_000 } else { 10 };
        let woken = bench.nic.wait_received(client.session, pause_ms)?;
        ensure!(woken == Woken::Limit, "without a wire: {woken:?}");
        let resets = bench.nic.counters()?.resets;
        ensure!(resets == 0, "{resets} resets for want of a wire");
        bench.nic.set_link(Wired::Plugged)?;
        bench.await_link(Wired::Plugged)?;
        end_frames(bench, &mut client, &[Status::OK])?;
        works_again(bench, &mut client)?;
    }
    Ok(())
}

/// A device that does not finish with frames: they end as lost, not before their time, and the device works again after its
/// reset.
pub(super) fn silent(bench: &mut Bench<'_>) -> Result<(), Problem> {
    /// A device may take as long as this.
    const PATIENCE_MS: u32 = 4_000;
    let mut client = bench.client(BUFFERS)?;
    for _ in 0..2 {
        bench.nic.fault(Fault::Silent)?;
        start_frames(bench, &mut client)?;
        let woken = bench.nic.wait_sent(client.session, PATIENCE_MS)?;
        ensure!(
            woken == Woken::Limit,
            "within {PATIENCE_MS} ms of silence: {woken:?}"
        );
        let lost = end_frames(bench, &mut client, &[Status::LOST])?;
        ensure!(lost.is_some(), "the device was given up");
        bench.nic.fault(Fault::None)?;
        works_again(bench, &mut client)?;
    }
    let counters = bench.nic.counters()?;
    ensure!(
        counters.tx_lost == 2 * IN_FLIGHT as u64 && counters.resets >= 2,
        "{} frames counted as lost of {}, {} resets",
        counters.tx_lost,
        2 * IN_FLIGHT,
        counters.resets
    );
    Ok(())
}

/// A device that breaks the rules: every frame is answered for once, none arrives with wrong bytes, and the device works
/// again when it does.
pub(super) fn lies(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let names = bench.nic.lies();
    if names.is_empty() {
        return Err(Problem::not_offered("no way to make the device lie"));
    }
    let mut client = bench.client(BUFFERS)?;
    for (number, name) in names.iter().enumerate() {
        let about = |problem: Problem| problem.about(name);
        bench.nic.fault(Fault::Lie(number))?;
        let mac = bench.info()?.mac;
        start_frames(bench, &mut client)?;
        for _ in 0..4 {
            let frame = bench.inward(mac, 700);
            bench.nic.wire_send(&frame)?;
        }
        let statuses =
            end_frames(bench, &mut client, &[Status::OK, Status::LOST]).map_err(about)?;
        ensure!(statuses.is_some(), "{name}: the device was given up");
        receive_whole(bench, &mut client).map_err(about)?;
        bench.nic.fault(Fault::None)?;
        // What a device did wrong may come to light later.
        receive_whole(bench, &mut client).map_err(about)?;
        works_again(bench, &mut client).map_err(about)?;
    }
    Ok(())
}

/// Takes what comes: whole frames, and buffers that are given back, which are given again.
fn receive_whole(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    const LONG_MS: u32 = 200;
    loop {
        match client.next(bench, LONG_MS)? {
            Next::Limit => return Ok(()),
            Next::Frame(bytes, _) => {
                number_of(&bytes).map_err(Problem::Failed)?;
            }
            Next::Back(token, Status::LOST) => {
                client.provide(bench, token)?;
                client.kick(bench)?;
            }
            other => return Err(other.problem()),
        }
    }
}

/// The driver gives the device up, in time, whatever is asked of it.
fn expect_gone(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    for _ in 0..2 {
        start_frames(bench, client)?;
        let Some(done) = client.finish(bench)? else {
            return Ok(());
        };
        let well = done.iter().any(|(_, status)| *status == Status::OK);
        ensure!(!well, "a device that is gone sent a frame");
    }
    Ok(())
}

/// A device that cannot be stopped is given up.
pub(super) fn dead(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(BUFFERS)?;
    bench.nic.fault(Fault::Dead)?;
    expect_gone(bench, &mut client)
}

/// A device that is unplugged while nothing happens.
pub(super) fn gone_idle(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(BUFFERS)?;
    bench.goes(&mut client)?;
    bench.nic.fault(Fault::Gone)?;
    expect_gone(bench, &mut client)
}

/// A device that is unplugged while it works.
pub(super) fn gone_in_flight(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(BUFFERS)?;
    bench.goes(&mut client)?;
    let mac = bench.info()?.mac;
    start_frames(bench, &mut client)?;
    let frame = bench.inward(mac, 1000);
    bench.nic.wire_send(&frame)?;
    bench.nic.fault(Fault::Gone)?;
    if client.finish(bench)?.is_none() {
        return Ok(());
    }
    match client.next(bench, ANSWER_LIMIT_MS)? {
        Next::Gone => Ok(()),
        _ => expect_gone(bench, &mut client),
    }
}
