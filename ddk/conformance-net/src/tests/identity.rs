//! What the driver says of the interface.

use proto::net::ETHERNET_HEADER_BYTES;

use crate::client::{Bench, ensure};
use crate::home::{Problem, Shape};

/// The driver's word against that of whoever made the interface, and against itself.
pub(super) fn identity(bench: &mut Bench<'_>) -> Result<(), Problem> {
    // A link takes its time to come up.
    bench.client(1)?;
    let (info, promise) = (bench.info()?, bench.nic.promise());
    ensure!(info.mac.is_unicast(), "address {}, a group's", info.mac);
    if let Some(mac) = promise.mac {
        ensure!(
            info.mac == mac,
            "address {}, the device has {mac}",
            info.mac
        );
    }
    ensure!(
        info.mtu == promise.mtu,
        "MTU {}, the device has {}",
        info.mtu,
        promise.mtu
    );
    ensure!(info.link.is_up(), "no carrier");
    if let Some(offloads) = promise.offloads {
        ensure!(
            info.offloads == offloads,
            "offloads {:?}, the device has {offloads:?}",
            info.offloads
        );
    }
    ensure!(
        info.offloads.contains(info.receive_offloads),
        "{:?} are on of {:?}",
        info.receive_offloads,
        info.offloads
    );
    ensure!(
        info.frame_max >= info.mtu + ETHERNET_HEADER_BYTES,
        "frames of {} bytes at most, packets of {}",
        info.frame_max,
        info.mtu
    );
    let cuts = info
        .offloads
        .intersects(crate::Offloads::TX_TCP4 | crate::Offloads::TX_TCP6);
    ensure!(
        cuts == (info.segmented_max > 0) && (!cuts || info.segmented_max > info.frame_max),
        "{:?}, and frames to be cut of {} bytes",
        info.offloads,
        info.segmented_max
    );
    ensure!(
        info.fragments_max >= 1 && info.device_depth >= 1,
        "{} fragments, {} buffers",
        info.fragments_max,
        info.device_depth
    );
    let queues = if bench.shape == Shape::Queues { 2 } else { 1 };
    ensure!(info.queues >= queues, "{} queues", info.queues);
    ensure!(!info.driver.is_empty(), "a driver without a name");
    let counters = bench.nic.counters()?;
    ensure!(
        (counters.rx_frames, counters.tx_frames, counters.resets) == (0, 0, 0),
        "before anything happened: {counters:?}"
    );
    Ok(())
}
