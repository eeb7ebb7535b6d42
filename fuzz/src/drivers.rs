//! Whole drivers over a [hostile device](crate::hostile).

use std::sync::Arc;

use ddk::{DeviceContext, Driver, Event, EventQueue, StopReason, block_on};
use ddk_class_block::BlockDevice;
use ddk_class_net::NetDevice;
use ddk_class_serial::{Pump, Stream, StreamEnd};
use model_virtio::VirtioPci;
use model_virtio_blk::BlockModel;
use model_virtio_net::NetModel;

use crate::block::Served;
use crate::hostile::{HostilePlatform, Shape};
use crate::input::Input;
use crate::net;

/// Rounds of a driver in service.
const ROUNDS_MAX: usize = 64;

/// Starts a driver on a device of that shape; `None` if it refuses the device.
fn start<D: Driver>(input: Input, shape: Shape) -> Option<(HostilePlatform, DeviceContext, D)> {
    let platform = HostilePlatform::new(input, shape);
    let cx = DeviceContext::new(Arc::new(platform.clone())).ok()?;
    let driver = block_on(&cx, D::start(cx.clone())).ok()?.ok()?;
    Some((platform, cx, driver))
}

pub fn virtio_blk(bytes: &[u8]) {
    type Model = VirtioPci<BlockModel>;
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let config = if choice & 1 == 0 {
        Model::config_space()
    } else {
        input.take(256)
    };
    let shape = Shape {
        config,
        bars: vec![(4, Model::BAR_BYTES), (1, 0x1000)],
        interrupts: u16::from(choice >> 1 & 3),
        cpus: 2,
        // Common configuration: features, queues, size, notification (virtio 1.2, 4.1.4.3); and a capacity.
        registers: vec![
            (4, 0x04, 0xffff_ffff),
            (4, 0x12, 2),
            (4, 0x18, 64),
            (4, 0x2000, 4096),
        ],
        ..Shape::default()
    };
    serve::<virtio_blk::VirtioBlk>(input, shape);
}

pub fn virtio_net(bytes: &[u8]) {
    type Model = VirtioPci<NetModel>;
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let shape = Shape {
        config: Model::config_space(),
        bars: vec![(4, Model::BAR_BYTES), (1, 0x1000)],
        interrupts: u16::from(choice & 3),
        cpus: 2,
        // Common configuration as above; address, link, one queue pair, MTU (virtio 1.2, 5.1.4).
        registers: vec![
            (4, 0x04, 0xffff_ffff),
            (4, 0x12, 3),
            (4, 0x18, 64),
            (4, 0x2000, 0x52),
            (4, 0x2006, 1),
            (4, 0x2008, 1),
            (4, 0x200a, 1500),
        ],
        ..Shape::default()
    };
    serve_frames::<virtio_net::VirtioNet>(input, shape);
}

/// Both controllers; the input chooses.
pub fn e1000(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let (device, honest): (_, fn(u8, usize, u64) -> u64) = if choice & 4 == 0 {
        (spec_e1000::DEVICE_82574L, |_, at, contents| {
            use spec_e1000::eeprom::{ADDRESS_SHIFT_82574, DONE_82574};
            intel(at, contents as u32, ADDRESS_SHIFT_82574, DONE_82574).into()
        })
    } else {
        (spec_e1000::DEVICE_82540EM, |_, at, contents| {
            use spec_e1000::eeprom::{ADDRESS_SHIFT_8254X, DONE_8254X};
            intel(at, contents as u32, ADDRESS_SHIFT_8254X, DONE_8254X).into()
        })
    };
    let mut config = vec![0; 256];
    let ids = [spec_e1000::PCI_VENDOR, device].map(u16::to_le_bytes);
    config.splice(..4, ids.concat());
    let link = spec_e1000::status::LU | spec_e1000::status::FD;
    let shape = Shape {
        config,
        bars: vec![(0, 0x2_0000)],
        interrupts: u16::from(choice & 3),
        cpus: 2,
        registers: vec![(0, 0x08, link.into())],
        honest: Some(honest),
        ..Shape::default()
    };
    serve_frames::<e1000::E1000>(input, shape);
}

/// A reset is over at once, and a word of the EEPROM is there at once (SDM 13.4.1, 13.4.4).
fn intel(register: usize, contents: u32, address_shift: u32, done: u32) -> u32 {
    use spec_e1000::eeprom::{CHECKED_WORDS, CHECKSUM, DATA_SHIFT};
    const ADDRESS: [u16; 3] = [0x5452, 0x1200, 0x5634];
    match register {
        0x00 => contents & !spec_e1000::ctrl::RST,
        0x14 => {
            let address = contents >> address_shift & 0xff;
            let word = if address == u32::from(CHECKED_WORDS) - 1 {
                CHECKSUM.wrapping_sub(ADDRESS.into_iter().fold(0, u16::wrapping_add))
            } else {
                ADDRESS.get(address as usize).copied().unwrap_or(0)
            };
            u32::from(word) << DATA_SHIFT | done
        }
        _ => contents,
    }
}

/// An interface's driver, with frames.
fn serve_frames<D: NetDevice + 'static>(input: Input, shape: Shape) {
    let Some((platform, cx, driver)) = start::<D>(input, shape) else {
        return;
    };
    let Some(mut served) = net::Served::new(cx, driver, platform.memory()) else {
        return;
    };
    for _ in 0..ROUNDS_MAX {
        if served.is_given_up() || platform.is_over() {
            break;
        }
        let mut asked = platform.input(|input| Input::new(&input.take(32)));
        served.ask(&mut asked);
        platform.act();
        served.turn();
    }
    served.end();
}

pub fn nvme(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let shape = Shape {
        config: vec![0; 256],
        bars: vec![(0, 0x4000)],
        interrupts: u16::from(choice & 3),
        cpus: 2,
        // CAP: queues of 64, contiguous, 8 s, NVM commands; version 1.4 (NVMe 1.4, 3.1).
        registers: vec![
            (0, 0x00, 0x0000_0020_1001_003f),
            (0, 0x04, 0x20),
            (0, 0x08, 0x0001_0400),
            (0, 0x1c, u64::from(choice >> 7)),
        ],
        ..Shape::default()
    };
    serve::<nvme::Nvme>(input, shape);
}

pub fn edu(bytes: &[u8]) {
    let shape = Shape {
        config: vec![0; 256],
        bars: vec![(0, 0x10_0000)],
        interrupts: 1,
        registers: vec![
            (0, 0, 0x0100_00ed),
            (0, 4, !0x1357_9bdf_u64),
            (0, 8, 3_628_800),
        ],
        ..Shape::default()
    };
    let Some((platform, cx, mut edu)) = start::<edu::Edu>(Input::new(bytes), shape) else {
        return;
    };
    for _ in 0..ROUNDS_MAX {
        if platform.is_over() {
            break;
        }
        let (n, bytes) = platform.input(|input| (input.byte(), input.take(16)));
        let _ = block_on(&cx, edu.factorial(n.into()));
        let _ = block_on(&cx, edu.round_trip(&bytes));
    }
    let _ = block_on(&cx, edu.stop(StopReason::Requested));
}

/// A disk's driver, with requests.
fn serve<D: BlockDevice + 'static>(input: Input, shape: Shape) {
    let Some((platform, cx, driver)) = start::<D>(input, shape) else {
        return;
    };
    let Some(mut served) = Served::new(cx, driver, platform.memory()) else {
        return;
    };
    for _ in 0..ROUNDS_MAX {
        if served.is_given_up() || platform.is_over() {
            break;
        }
        let mut request = platform.input(|input| Input::new(&input.take(32)));
        served.submit(&mut request);
        platform.act();
        served.turn();
    }
    served.end();
}

/// A client that sends for ever and takes only so much.
struct Chatter(u32);

impl Stream for Chatter {
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, StreamEnd> {
        into.clear();
        self.0 = self.0.checked_sub(1).ok_or(StreamEnd)?;
        into.extend_from_slice(b"all work and no play makes a dull driver");
        Ok(true)
    }
    fn give(&mut self, bytes: &[u8]) -> Result<bool, StreamEnd> {
        Ok(bytes.len().is_multiple_of(2))
    }
}

pub fn uart16550(bytes: &[u8]) {
    use ddk_class_serial::SerialDevice;
    let shape = Shape {
        ports: 8,
        interrupts: 1,
        ..Shape::default()
    };
    let Some((platform, cx, mut uart)) = start::<uart16550::Uart>(Input::new(bytes), shape) else {
        return;
    };
    let Ok(events) = cx.event_queue() else { return };
    if uart.bind(&*events as &dyn EventQueue, 1).is_err() {
        return;
    }
    let (mut pump, mut stream) = (Pump::new(), Chatter(256));
    for _ in 0..ROUNDS_MAX {
        if platform.is_over() {
            break;
        }
        let mut taken = [Event::default(); 2];
        let Ok(count) = events.wait(&mut taken, cx.deadline_in_ms(10)) else {
            break;
        };
        if count > 0 && pump.interrupt(&mut uart, Some(&mut stream)).is_err() {
            break;
        }
        if pump.send(&mut uart, &mut stream).is_err() || uart.is_idle().is_err() {
            break;
        }
        let _ = uart.set_rate(platform.input(|input| input.number(3) as u32));
    }
    let _ = block_on(&cx, uart.stop(StopReason::Requested));
}
