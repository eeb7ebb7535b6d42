//! Whole drivers over a [hostile device](crate::hostile).

use std::sync::Arc;

use ddk::{DeviceContext, Driver, Event, EventQueue, StopReason, block_on};
use ddk_class_block::BlockDevice;
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
    let Some((platform, cx, driver)) = start::<virtio_net::VirtioNet>(input, shape) else {
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
