//! What the device takes off its client's hands, against checksums that are computed here.

use alloc::format;
use alloc::vec::Vec;

use proto::net::{MacAddress, Offloads, Status};

use crate::client::{Bench, describe, ensure};
use crate::frame::{Field, Ip, PEER, Packet, Transport, check_segment, check_sums};
use crate::home::{Cutting, Problem, RxChecksum};

const V4: Ip = Ip::V4 { options: 0 };
const TCP: Transport = Transport::Tcp { options: 0 };
/// Bytes of a receive buffer for frames that were put together, and how many there are.
const JOINED_BUFFER: u32 = 2048;
const JOINED_BUFFERS: u16 = 128;

fn payload(bench: &mut Bench<'_>, len: usize) -> Vec<u8> {
    (0..len).map(|_| bench.rng.u8(..)).collect()
}

fn packet(
    bench: &mut Bench<'_>,
    (to, from): (MacAddress, MacAddress),
    (ip, transport): (Ip, Transport),
    len: usize,
) -> Packet {
    Packet {
        to,
        from,
        ip,
        transport,
        payload: payload(bench, len),
    }
}

/// Everything that a checksum may be in.
const KINDS: [(Ip, Transport); 6] = [
    (V4, TCP),
    (V4, Transport::Udp),
    (Ip::V4 { options: 12 }, Transport::Tcp { options: 12 }),
    (Ip::V6, TCP),
    (Ip::V6, Transport::Udp),
    (Ip::V6, Transport::Tcp { options: 20 }),
];

/// Checksums of frames to be sent: computed where the device says so, else refused.
pub(super) fn tx_checksum(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(4)?;
    let offered = info.offloads.contains(Offloads::TX_CHECKSUM);
    for (ip, transport) in KINDS {
        for len in [0, 1, 2, 63, 64, 777, 1000, 1400] {
            let packet = packet(bench, (PEER, info.mac), (ip, transport), len);
            let frame = packet.frame(Field::Pseudo);
            let pieces = [frame.len(), 54, 100];
            let piece = bench.rng.choice(pieces).unwrap_or(100);
            let sum = Some(packet.sum());
            if !offered {
                let parts = client.put(bench, &frame, frame.len())?;
                client.expect_refused(bench, (&parts, sum, None), Status::UNSUPPORTED)?;
                continue;
            }
            let piece = piece.max(frame.len().div_ceil(info.fragments_max.into()));
            client.send_with(bench, &frame, piece, sum, None)?;
            let seen = bench.on_wire()?;
            client.expect_sent(bench)?;
            let right = packet.frame(Field::Right);
            ensure!(
                crate::frame::is_padded(&seen, &right),
                "{ip:?} {transport:?} with {len} bytes: {}; expected {}",
                describe(&seen),
                describe(&right)
            );
            check_sums(&seen, &packet)
                .map_err(|what| Problem::Failed(format!("{ip:?} {transport:?}: {what}")))?;
        }
    }
    // A frame that is sent as it is, with others before that were not.
    let packet = packet(bench, (PEER, info.mac), (V4, TCP), 300);
    let wrong = packet.frame(Field::Wrong);
    client.send(bench, &wrong, wrong.len())?;
    bench.expect_on_wire(&wrong)?;
    bench.goes(&mut client)
}

/// What the device says of received checksums is true.
pub(super) fn rx_checksum(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (info, promise) = (bench.info()?, bench.nic.promise());
    let mut client = bench.client(16)?;
    bench.nic.set_receive_offloads(Offloads::RX_CHECKSUM)?;
    for round in 0..3 {
        for (ip, transport) in KINDS {
            for field in [Field::Right, Field::Wrong] {
                let len = bench.rng.usize(10..1400);
                let packet = packet(bench, (info.mac, PEER), (ip, transport), len);
                let frame = packet.frame(field);
                bench.wire_send(core::slice::from_ref(&frame))?;
                let arrived = client.expect_frame(bench, &frame)?;
                let about = format!("{ip:?} {transport:?} with a checksum that is {field:?}");
                match (arrived.checksum, field) {
                    (RxChecksum::Valid, Field::Right) | (RxChecksum::Unchecked, Field::Wrong) => {}
                    (RxChecksum::Unchecked, Field::Right) => {
                        let on = bench.info()?.receive_offloads;
                        let looks = promise.checks_sums && on.contains(Offloads::RX_CHECKSUM);
                        let must = looks && ip == V4 && transport == TCP;
                        ensure!(!must, "{about}: the driver does not tell");
                    }
                    (seen, _) => return Err(Problem::Failed(format!("{about}: {seen:?}"))),
                }
                ensure!(arrived.joined.is_none(), "{about}: {:?}", arrived.joined);
            }
        }
        // An IPv4 header that is wrong, and a frame that has no checksum at all.
        let packet = packet(bench, (info.mac, PEER), (V4, TCP), 100);
        let mut frame = packet.frame(Field::Right);
        if let Some(time_to_live) = frame.get_mut(22) {
            *time_to_live ^= 1;
        }
        let none = bench.inward(info.mac, 200);
        for frame in [frame, none] {
            bench.wire_send(core::slice::from_ref(&frame))?;
            let seen = client.expect_frame(bench, &frame)?.checksum;
            ensure!(
                seen == RxChecksum::Unchecked,
                "{seen:?}: {}",
                describe(&frame)
            );
        }
        if round == 1 {
            // Nobody looks any more, or it does no harm.
            bench.nic.set_receive_offloads(Offloads::empty())?;
        }
    }
    bench.goes(&mut client)
}

/// Segmentation: every segment right to the last byte, or refused where the device does not offer it.
pub(super) fn segmentation(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (info, promise) = (bench.info()?, bench.nic.promise());
    if promise.cutting == Cutting::Fragments {
        return Err(Problem::not_offered("the device cuts into fragments of IP"));
    }
    let mut client = bench.client(4)?;
    for (ip, needed) in [
        (V4, Offloads::TX_TCP4),
        (Ip::V4 { options: 8 }, Offloads::TX_TCP4),
        (Ip::V6, Offloads::TX_TCP6),
    ] {
        for options in [0, 12] {
            let kind = (ip, Transport::Tcp { options });
            let headers = packet(bench, (PEER, info.mac), kind, 0).header_bytes();
            if !info.offloads.contains(needed) {
                let packet = packet(bench, (PEER, info.mac), kind, 1200);
                let frame = packet.frame(Field::PseudoToCut(info.segmentation_sum));
                let parts = client.put(bench, &frame, frame.len())?;
                let asked = (&*parts, Some(packet.sum()), Some(packet.cut(500)));
                client.expect_refused(bench, asked, Status::UNSUPPORTED)?;
                continue;
            }
            let most = info.segmented_max as usize - headers;
            let mtu = info.mtu as usize + 14 - headers;
            for (len, size) in [
                (1, 1),
                (2, 1),
                (100, 536),
                (536, 536),
                (537, 536),
                (1072, 536),
                (5000, 1400),
                (4 * mtu, mtu),
                (20_000, 1000),
                (most, mtu),
                (most - 1, mtu.min(1447)),
            ] {
                if promise.cutting == Cutting::EmptyLast && len % size == 0 {
                    continue;
                }
                let packet = packet(bench, (PEER, info.mac), kind, len);
                let frame = packet.frame(Field::PseudoToCut(info.segmentation_sum));
                let least = frame.len().div_ceil(info.fragments_max.into());
                let piece = if bench.rng.bool() { least } else { frame.len() };
                let cut = Some(packet.cut(size as u16));
                client.send_with(bench, &frame, piece.max(headers), Some(packet.sum()), cut)?;
                for n in 0..len.div_ceil(size) {
                    let about = format!("segment {n} of {len} bytes by {size}");
                    let seen = bench.on_wire().map_err(|problem| problem.about(&about))?;
                    check_segment(&seen, &packet, size, n).map_err(|what| {
                        Problem::Failed(format!("{kind:?}, {len} bytes by {size}: {what}"))
                    })?;
                }
                client.expect_sent(bench)?;
            }
        }
    }
    bench.goes(&mut client)
}

/// Frames that others put together arrive whole, with their checksums left to the client; only where that was asked for.
pub(super) fn joined(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let wanted = Offloads::RX_CHECKSUM | Offloads::RX_TCP4 | Offloads::RX_TCP6;
    if !info.offloads.contains(wanted) {
        return Err(Problem::not_offered("the device puts no segments together"));
    }
    ensure!(
        !info
            .receive_offloads
            .intersects(Offloads::RX_TCP4 | Offloads::RX_TCP6),
        "{:?} are on unasked",
        info.receive_offloads
    );
    bench.nic.set_receive_offloads(wanted)?;
    let on = bench.info()?.receive_offloads;
    ensure!(on == wanted, "{on:?} are on, {wanted:?} were asked for");
    let mut client = bench.client_with(0, JOINED_BUFFERS, JOINED_BUFFER)?;
    for len in [1000usize, 1600, 5000, 8000] {
        for ip in [V4, Ip::V6] {
            let packet = packet(bench, (info.mac, PEER), (ip, TCP), len);
            let frame = packet.frame(Field::Pseudo);
            let room = u32::from(info.device_depth) * JOINED_BUFFER;
            if room < frame.len() as u32 + 4096 {
                continue;
            }
            let cut = packet.cut(1400);
            bench.nic.wire_send_joined(&frame, &cut, &packet.sum())?;
            let arrived = client.expect_frame(bench, &frame)?;
            ensure!(
                arrived.checksum == RxChecksum::Partial(packet.sum())
                    && arrived.joined == Some((cut.kind, cut.size)),
                "{len} bytes: {:?}, {:?}",
                arrived.checksum,
                arrived.joined
            );
        }
    }
    bench.nic.set_receive_offloads(Offloads::empty())?;
    let on = bench.info()?.receive_offloads;
    ensure!(on.is_empty(), "{on:?} are on, none were asked for");
    bench.goes(&mut client)
}
