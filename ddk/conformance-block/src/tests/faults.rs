//! Devices that err, fall silent, lie or vanish.

use alloc::vec::Vec;

use proto::block::Status;

use crate::client::{Bench, Client, Next, ensure};
use crate::home::{Fault, Problem, Woken};

/// Requests in flight when something happens.
const IN_FLIGHT: u64 = 6;

/// Stamps the blocks that the tests read.
fn prepared(bench: &mut Bench<'_>) -> Result<Client, Problem> {
    let block = bench.block() as usize;
    let mut client = bench.client(16, 16 * block)?;
    client.write_stamps(bench, 0, IN_FLIGHT as u32, 1000)?;
    Ok(client)
}

/// Starts reads of different blocks into different places.
fn start_reads(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    let block = u64::from(bench.block());
    client.fill(bench, 0, client.buffer_len, 0xee)?;
    for n in 0..IN_FLIGHT {
        client.submit(bench, client.read(n, 1, n * block))?;
    }
    client.kick(bench)
}

/// Takes every answer: success only with the right data. Gives the statuses; `None` when the device is gone.
fn end_reads(bench: &mut Bench<'_>, client: &mut Client) -> Result<Option<Vec<Status>>, Problem> {
    let mut statuses = Vec::new();
    while client.outstanding() > 0 {
        match client.next(bench)? {
            Next::Gone => return Ok(None),
            Next::Done(done) => {
                if done.status == Status::OK {
                    let (lba, offset) = (done.request.lba, done.request.offset);
                    client.check_stamps(bench, offset, lba, 1, 1000)?;
                }
                statuses.push(done.status);
            }
        }
    }
    client.expect_silence(bench)?;
    Ok(Some(statuses))
}

/// The driver is of use again.
fn works_again(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    /// What a device did wrong may come to light only with a later request.
    const TRIES: u32 = 3;
    let mut last = Status::OK;
    for _ in 0..TRIES {
        last = client.one(bench, client.read(0, 1, 0))?;
        if last == Status::OK {
            break;
        }
    }
    ensure!(
        last == Status::OK,
        "{TRIES} requests failed, {}",
        last.text()
    );
    client.read_stamps(bench, 0, IN_FLIGHT as u32, 1000)?;
    client.write_stamps(bench, 20, 4, 1001)?;
    client.done(bench, client.flush())?;
    client.read_stamps(bench, 20, 4, 1001)?;
    bench.expect_medium(20, 4, 1001)?;
    // Every slot of the queue is back.
    let depth = bench.info().max_depth;
    let many = bench.client(depth, 4096.max(bench.block() as usize));
    let mut many = many?;
    for _ in 0..2 {
        while many.try_submit(bench, many.read(0, 1, 0))?.is_some() {}
        many.kick(bench)?;
        for done in many.drain(bench)? {
            ensure!(done.status == Status::OK, "status {}", done.status.0);
        }
    }
    bench.disk.unregister(many.session, many.slot)
}

/// The client's buffer can be had back.
fn release(bench: &mut Bench<'_>, client: &Client) -> Result<(), Problem> {
    bench.disk.unregister(client.session, client.slot)
}

/// Only requests that touch the damaged block fail.
pub(super) fn media_error(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let promise = bench.disk.promise();
    let Some(bad) = promise.damaged else {
        return Err(Problem::not_offered("no block is damaged"));
    };
    let block = u64::from(bench.block());
    let mut client = bench.client(16, 16 * 4 * block as usize)?;
    let near = bad.saturating_sub(8)..bad + 8;
    for round in 0..3 {
        // All at once: those beside the damage are not drawn into it.
        for (slot, lba) in near.clone().enumerate() {
            let offset = slot as u64 * 4 * block;
            let blocks = 1 + (slot as u32 + round) % 3;
            client.submit(bench, client.read(lba, blocks, offset))?;
        }
        client.kick(bench)?;
        for done in client.drain(bench)? {
            let lba = done.request.lba;
            let blocks = u64::from(done.request.length) / block;
            let touches = (lba..lba + blocks).contains(&bad);
            let expected = if touches {
                Status::IO_ERROR
            } else {
                Status::OK
            };
            ensure!(
                done.status == expected,
                "{blocks} blocks from {lba} on, {bad} is damaged: status {} ({})",
                done.status.0,
                done.status.text()
            );
            if !touches && promise.stamped {
                client.check_stamps(bench, done.request.offset, lba, blocks as u32, 0)?;
            }
        }
    }
    client.put_stamps(bench, 0, bad, 1, 1010)?;
    client.expect(bench, client.write(bad, 1, 0), Status::IO_ERROR)?;
    client.done(bench, client.read(bad + 1, 1, 0))?;
    release(bench, &client)
}

/// A reset while nothing is in flight is noticed by nobody.
pub(super) fn reset_idle(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    for _ in 0..3 {
        bench.disk.reset()?;
        works_again(bench, &mut client)?;
    }
    release(bench, &client)
}

/// A reset in the middle: each request is answered once, and later ones work.
pub(super) fn reset_in_flight(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    for _ in 0..3 {
        start_reads(bench, &mut client)?;
        bench.disk.reset()?;
        let statuses = end_reads(bench, &mut client)?;
        let statuses = statuses.ok_or_else(|| Problem::failed("the device was given up"))?;
        for status in statuses {
            ensure!(
                [Status::OK, Status::IO_ERROR].contains(&status),
                "status {} ({})",
                status.0,
                status.text()
            );
        }
        works_again(bench, &mut client)?;
    }
    release(bench, &client)
}

/// The same while the device holds every request.
pub(super) fn reset_silent(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    for _ in 0..3 {
        bench.disk.fault(Fault::Silent)?;
        start_reads(bench, &mut client)?;
        // Long enough for the requests to reach the device.
        let woken = bench.disk.wait(client.session, 50)?;
        ensure!(woken == Woken::Limit, "a silent device: {woken:?}");
        bench.disk.fault(Fault::None)?;
        bench.disk.reset()?;
        let statuses = end_reads(bench, &mut client)?;
        // A device may still finish what it held.
        let all = |s: &Vec<Status>| s.iter().all(|s| [Status::OK, Status::IO_ERROR].contains(s));
        ensure!(
            statuses.as_ref().is_some_and(all),
            "requests that a reset ended: {statuses:?}"
        );
        works_again(bench, &mut client)?;
    }
    release(bench, &client)
}

/// A suspension is noticed by nobody: what the device has is finished before, what comes meanwhile waits.
pub(super) fn suspension(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    for _ in 0..3 {
        start_reads(bench, &mut client)?;
        bench.disk.suspend()?;
        bench.disk.resume()?;
        let before = end_reads(bench, &mut client)?;
        bench.disk.suspend()?;
        start_reads(bench, &mut client)?;
        let woken = bench.disk.wait(client.session, 50)?;
        ensure!(woken == Woken::Limit, "while it is suspended: {woken:?}");
        bench.disk.resume()?;
        let after = end_reads(bench, &mut client)?;
        let all = |s: &Vec<Status>| s.iter().all(|s| *s == Status::OK);
        ensure!(
            before.as_ref().is_some_and(all) && after.as_ref().is_some_and(all),
            "requests around a suspension: {before:?}, {after:?}"
        );
        works_again(bench, &mut client)?;
    }
    release(bench, &client)
}

/// A device that answers nothing: the requests end with a time-out, not before their time, and the device
/// works again after its reset.
pub(super) fn silent(bench: &mut Bench<'_>) -> Result<(), Problem> {
    /// A device may take as long as this.
    const PATIENCE_MS: u32 = 20_000;
    let mut client = prepared(bench)?;
    bench.disk.fault(Fault::Silent)?;
    start_reads(bench, &mut client)?;
    let woken = bench.disk.wait(client.session, PATIENCE_MS)?;
    ensure!(
        woken == Woken::Limit,
        "within {PATIENCE_MS} ms of silence: {woken:?}"
    );
    let statuses = end_reads(bench, &mut client)?;
    let all = |s: &Vec<Status>| s.iter().all(|s| *s == Status::TIMED_OUT);
    ensure!(
        statuses.as_ref().is_some_and(all),
        "requests to a silent device: {statuses:?}"
    );
    bench.disk.fault(Fault::None)?;
    works_again(bench, &mut client)?;
    release(bench, &client)
}

/// A device that breaks the rules: every request is answered once, none with wrong data, and the device
/// works again when it does.
pub(super) fn lies(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let names = bench.disk.lies();
    if names.is_empty() {
        return Err(Problem::not_offered("no way to make the device lie"));
    }
    let mut client = prepared(bench)?;
    for (number, name) in names.iter().enumerate() {
        let about = |problem: Problem| problem.about(name);
        bench.disk.fault(Fault::Lie(number))?;
        start_reads(bench, &mut client)?;
        let statuses = end_reads(bench, &mut client).map_err(about)?;
        ensure!(statuses.is_some(), "{name}: the device was given up");
        bench.disk.fault(Fault::None)?;
        works_again(bench, &mut client).map_err(about)?;
    }
    release(bench, &client)
}

/// The driver gives the device up, in time, whatever is asked of it.
fn expect_gone(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    // What was under way may have been finished just before.
    if client.outstanding() > 0 && end_reads(bench, client)?.is_none() {
        return Ok(());
    }
    // Whoever asks later is told, each time.
    for _ in 0..2 {
        start_reads(bench, client)?;
        let Some(statuses) = end_reads(bench, client)? else {
            return Ok(());
        };
        ensure!(
            !statuses.contains(&Status::OK),
            "a device that is gone answered: {statuses:?}"
        );
    }
    Ok(())
}

/// A device that cannot be stopped is given up.
pub(super) fn dead(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    bench.disk.fault(Fault::Dead)?;
    expect_gone(bench, &mut client)
}

/// A device that is unplugged while nothing happens.
pub(super) fn gone_idle(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    bench.disk.fault(Fault::Gone)?;
    expect_gone(bench, &mut client)
}

/// A device that is unplugged while it works.
pub(super) fn gone_in_flight(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    bench.disk.fault(Fault::Silent)?;
    start_reads(bench, &mut client)?;
    let woken = bench.disk.wait(client.session, 50)?;
    ensure!(woken == Woken::Limit, "a silent device: {woken:?}");
    bench.disk.fault(Fault::Gone)?;
    expect_gone(bench, &mut client)
}
