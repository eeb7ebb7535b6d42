//! What the driver has to refuse, without harm to anybody.

use alloc::vec;

use proto::net::{Segmentation, Status};

use crate::client::{ANSWER_LIMIT_MS, Bench, Client, Next, ensure};
use crate::home::{Access, Cut, Part, Problem, Sum};

/// Fragments that lie elsewhere than in a buffer that the device may read, or are nothing.
pub(super) fn bad_fragments(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mac = bench.info()?.mac;
    let mut client = bench.client(8)?;
    let small = bench
        .nic
        .register(client.session, 4096, Access::DeviceReads)?;
    let good = Part {
        slot: small,
        offset: 0,
        length: 64,
    };
    let gone = bench
        .nic
        .register(client.session, 4096, Access::DeviceReads)?;
    bench.nic.unregister(client.session, gone)?;
    let rx_slot = client.rx_slot;
    for (part, status) in [
        (
            Part {
                offset: 4096,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                offset: 4033,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                offset: u32::MAX - 63,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                offset: u32::MAX,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                length: 4097,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                length: u32::MAX,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (Part { length: 0, ..good }, Status::INVALID),
        (
            Part {
                slot: rx_slot,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (Part { slot: gone, ..good }, Status::BAD_BUFFER),
        (Part { slot: 255, ..good }, Status::BAD_BUFFER),
        (
            Part {
                slot: u16::MAX,
                ..good
            },
            Status::BAD_BUFFER,
        ),
    ] {
        // Alone, first, and last.
        for parts in [&[part][..], &[part, good], &[good, part]] {
            match client.expect_refused(bench, (parts, None, None), status) {
                Err(Problem::NotOffered(_)) => break,
                refused => refused?,
            }
        }
    }
    bench.expect_silent_wire()?;
    // The last bytes of the buffer are good.
    let frame = bench.outward(mac, 64);
    let slot = small;
    bench.nic.put(client.session, slot, 4032, &frame)?;
    let parts = [Part {
        offset: 4032,
        ..good
    }];
    client.try_transmit(bench, &parts, None, None)?;
    client.kick(bench)?;
    bench.expect_on_wire(&frame)?;
    client.expect_sent(bench)?;
    bench.nic.unregister(client.session, small)?;
    bench.goes(&mut client)
}

/// Checksums and segmentation that make no sense.
pub(super) fn bad_offloads(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    let mut client = bench.client(8)?;
    let len = 2000u16;
    let parts = client.put(bench, &vec![0x5a; len.into()], len.into())?;
    let short = client.put(bench, &[0x5a; 100], 100)?;
    let sum = |start, offset| Some(Sum { start, offset });
    let offered = info.offloads.contains(crate::Offloads::TX_CHECKSUM);
    for wrong in [
        sum(34, 65),
        sum(98, 1),
        sum(99, 0),
        sum(100, 0),
        sum(13, 20),
        sum(0, 40),
        sum(u16::MAX, 0),
        sum(34, u16::MAX),
        sum(u16::MAX, u16::MAX),
    ] {
        let status = if offered {
            Status::INVALID
        } else {
            Status::UNSUPPORTED
        };
        client.expect_refused(bench, (&short, wrong, None), status)?;
    }
    let cut = |kind, size, header_length| {
        Some(Cut {
            kind,
            size,
            header_length,
        })
    };
    let tcp4 = Segmentation::TCP4;
    let good = sum(34, 16);
    let offered = offered && info.offloads.contains(crate::Offloads::TX_TCP4);
    for (sum, cut, status) in [
        (None, cut(tcp4, 500, 54), Status::INVALID),
        (good, cut(tcp4, 0, 54), Status::INVALID),
        (good, cut(tcp4, 500, len), Status::INVALID),
        (good, cut(tcp4, 500, u16::MAX), Status::INVALID),
        (good, cut(tcp4, 500, 53), Status::INVALID),
        (good, cut(tcp4, 500, 0), Status::INVALID),
        (sum(34, 6), cut(tcp4, 500, 54), Status::INVALID),
        (sum(33, 16), cut(tcp4, 500, 54), Status::INVALID),
        (good, cut(Segmentation(3), 500, 54), Status::INVALID),
        (good, cut(Segmentation(255), 500, 54), Status::INVALID),
        (good, cut(tcp4, u16::MAX, 54), Status::TOO_LONG),
        (
            good,
            cut(tcp4, info.frame_max as u16 - 53, 54),
            Status::TOO_LONG,
        ),
    ] {
        if offered {
            client.expect_refused(bench, (&parts, sum, cut), status)?;
            continue;
        }
        // Which of the reasons is told does not matter.
        client.try_transmit(bench, &parts, sum, cut)?;
        client.kick(bench)?;
        let done = client.finish(bench)?.unwrap_or_default();
        let refused = done.iter().all(|(_, status)| *status != Status::OK);
        ensure!(refused && done.len() == 1, "{sum:?} {cut:?}: {done:?}");
    }
    bench.expect_silent_wire()?;
    bench.goes(&mut client)
}

/// A buffer that the driver has to give back with a status.
fn expect_back(
    bench: &mut Bench<'_>,
    client: &mut Client,
    part: Part,
    expected: Status,
) -> Result<(), Problem> {
    const TOKEN: u32 = 7777;
    if !bench.nic.provide(client.session, &part, TOKEN)? {
        return Err(Problem::failed("no room for a receive buffer"));
    }
    client.adopt(TOKEN);
    client.kick(bench)?;
    match client.next(bench, ANSWER_LIMIT_MS)? {
        Next::Back(TOKEN, status) if status == expected => Ok(()),
        other => Err(other.problem().about(&alloc::format!("{part:?}"))),
    }
}

/// Receive buffers that are too short, crooked, or lie elsewhere.
pub(super) fn bad_buffers(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info()?;
    // A device that is full has the others wait.
    let mut client = bench.client(info.device_depth.min(16) / 2)?;
    let slot = bench
        .nic
        .register(client.session, 8192, Access::DeviceWrites)?;
    let length = info.rx_buffer_min.max(64);
    let good = Part {
        slot,
        offset: 0,
        length,
    };
    let tx_slot = client.tx_slot;
    for (part, status) in [
        (Part { length: 0, ..good }, Status::INVALID),
        (
            Part {
                length: info.rx_buffer_min - 1,
                ..good
            },
            Status::INVALID,
        ),
        (Part { offset: 1, ..good }, Status::INVALID),
        (Part { offset: 2, ..good }, Status::INVALID),
        (
            Part {
                offset: 8192,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                offset: 8192 - (length - 4).next_multiple_of(4),
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                offset: u32::MAX - 3,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                length: 8193,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                length: u32::MAX,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (
            Part {
                slot: tx_slot,
                ..good
            },
            Status::BAD_BUFFER,
        ),
        (Part { slot: 255, ..good }, Status::BAD_BUFFER),
    ] {
        match expect_back(bench, &mut client, part, status) {
            Err(Problem::NotOffered(_)) => {}
            back => back?,
        }
    }
    bench.goes(&mut client)?;
    bench.nic.unregister(client.session, slot)
}
