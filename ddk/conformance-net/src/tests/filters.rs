//! Which frames are passed on.

use alloc::vec::Vec;

use proto::net::{MacAddress, ReceiveMode};

use crate::client::{Bench, Client, ensure};
use crate::home::Problem;

const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 0x77]);
const GROUP6: MacAddress = MacAddress([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
/// Its place in the filter of a device with a hash table is another one than that of the groups above.
const OTHER_GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0x7f, 0x55, 0x12]);
const STRANGER: MacAddress = MacAddress([0x52, 0x54, 0, 9, 9, 9]);
const NEW: MacAddress = MacAddress([0x02, 0x42, 0x13, 0x57, 0x9b, 0xdf]);

/// Sends a frame to each address; those that are to be passed on come, and those that are not do not.
fn expect(
    bench: &mut Bench<'_>,
    client: &mut Client,
    wanted: &[MacAddress],
    unwanted: &[MacAddress],
) -> Result<(), Problem> {
    for (group, passes) in [(unwanted, false), (wanted, true)] {
        for to in group {
            let frame = bench.inward(*to, 100);
            bench.wire_send(core::slice::from_ref(&frame))?;
            if passes {
                let about = |problem: Problem| problem.about(&alloc::format!("to {to}"));
                client.expect_frame(bench, &frame).map_err(about)?;
            }
        }
    }
    client.expect_nothing(bench)
}

/// Neither strangers nor groups until they are asked for, and everything that was asked for; also after a reset.
pub(super) fn receive_modes(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mac = bench.info()?.mac;
    let filters = bench.nic.promise().filters;
    let mut client = bench.client(16)?;
    let everybody = MacAddress::BROADCAST;
    for round in 0..2 {
        let cases = [
            (ReceiveMode::Filtered, &[][..], &[mac, everybody][..]),
            (
                ReceiveMode::Filtered,
                &[GROUP, GROUP6],
                &[mac, everybody, GROUP, GROUP6],
            ),
            (
                ReceiveMode::AllMulticast,
                &[],
                &[mac, everybody, GROUP, GROUP6, OTHER_GROUP],
            ),
            (
                ReceiveMode::Promiscuous,
                &[],
                &[mac, everybody, GROUP, GROUP6, OTHER_GROUP, STRANGER],
            ),
            (ReceiveMode::Filtered, &[OTHER_GROUP], &[mac, OTHER_GROUP]),
        ];
        for (mode, groups, wanted) in cases {
            bench.nic.set_receive_mode(mode, groups)?;
            if round > 0 {
                restart(bench, &mut client)?;
            }
            let all = [mac, everybody, GROUP, GROUP6, OTHER_GROUP, STRANGER];
            let is_unwanted = |to: &MacAddress| !wanted.contains(to) && *to != everybody;
            let unwanted: Vec<_> = all.into_iter().filter(is_unwanted).collect();
            let unwanted = if filters { &*unwanted } else { &[] };
            expect(bench, &mut client, wanted, unwanted)
                .map_err(|problem| problem.about(&alloc::format!("{mode:?} {groups:?}")))?;
        }
        if round == 0
            && let Err(Problem::NotOffered(_)) = bench.nic.reset()
        {
            break;
        }
    }
    bench.goes(&mut client)
}

/// Resets the device and waits until it is back.
fn restart(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    bench.nic.reset()?;
    client.expect_nothing(bench)?;
    bench.await_link(crate::home::Wired::Plugged)
}

/// Another address, which a reset does not change.
pub(super) fn address(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (old, promise) = (bench.info()?.mac, bench.nic.promise());
    let mut client = bench.client(16)?;
    let changed = bench.nic.set_mac(NEW)?;
    ensure!(
        changed == promise.changes_mac,
        "the address was changed: {changed}"
    );
    let mac = bench.info()?.mac;
    if !changed {
        ensure!(mac == old, "address {mac}, it was {old}");
        return bench.goes(&mut client);
    }
    ensure!(mac == NEW, "address {mac}, it was set to {NEW}");
    for _ in 0..2 {
        expect(bench, &mut client, &[NEW], &[old, STRANGER])?;
        bench.goes(&mut client)?;
        match bench.nic.reset() {
            Err(Problem::NotOffered(_)) => break,
            reset => reset?,
        }
        client.expect_nothing(bench)?;
        bench.await_link(crate::home::Wired::Plugged)?;
    }
    Ok(())
}
