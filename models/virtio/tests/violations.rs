//! The model notices what a driver does wrong, and nothing when it does right.

use std::sync::Arc;

use ddk::{DeviceContext, Mmio, Platform, block_on};
use ddk_backend_sim::{Sim, SimPlatform};
use ddk_virtio::{Transport, Virtqueue};
use model_virtio::{DeviceLogic, Request, Served, VirtioPci};
use spec_virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};

/// A device that answers with as many zeroes as there is room for.
struct Zeroes;

impl DeviceLogic for Zeroes {
    fn features(&self) -> u64 {
        1 << 3
    }
    fn config(&self) -> Vec<u8> {
        vec![7; 8]
    }
    fn queues(&self) -> (u16, u16) {
        (2, 8)
    }
    fn serve(&mut self, request: &Request<'_>) -> Result<Served, String> {
        request.chain.read(request.memory)?;
        let room = request.chain.writable_len();
        request
            .chain
            .write(request.memory, 0, &vec![0; room as usize])?;
        Ok(Served::Done(room))
    }
}

struct Machine {
    sim: Sim,
    platform: Arc<SimPlatform>,
    cx: DeviceContext,
    registers: Mmio,
}

fn machine() -> Machine {
    let sim = Sim::new(1);
    let platform = VirtioPci::new(&sim, Zeroes, 2).platform(1);
    platform.enable_device().unwrap();
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let (_, registers) = platform.bar(4).unwrap().remove(0);
    Machine {
        sim,
        platform,
        cx,
        registers,
    }
}

impl Machine {
    /// What is noted of `act`.
    fn noted(&self, act: impl FnOnce(&Mmio)) -> String {
        assert_eq!(self.sim.take_violations(), [""; 0], "until now");
        act(&self.registers);
        self.sim.settle();
        self.sim.take_violations().join("; ")
    }

    /// As far as features go.
    fn negotiated(&self) -> Transport {
        let transport = Transport::new(&self.cx).unwrap();
        let features = block_on(&self.cx, transport.negotiate(1 << 3, 0)).unwrap();
        assert_eq!(features.unwrap() & 0xff, 1 << 3);
        transport
    }

    fn running(&self) -> (Transport, Virtqueue) {
        let transport = self.negotiated();
        let queue = transport.queue(0, 0, 1, 256).unwrap();
        transport.driver_ok().unwrap();
        (transport, queue)
    }
}

const STATUS: usize = 0x14;
const NOTIFY: usize = 0x3000;

#[test]
fn an_honest_driver_is_left_alone() {
    let m = machine();
    let (transport, mut queue) = m.running();
    let buffer = m.cx.dma_region(4096).unwrap();
    let mut chain = queue.chain().unwrap();
    chain.readable(buffer.device_address(0), 16).unwrap();
    chain.writable(buffer.device_address(64), 16).unwrap();
    chain.submit(5);
    queue.kick();
    m.sim.settle();
    assert_eq!(queue.reap().unwrap().unwrap().token, 5);
    block_on(&m.cx, transport.reset()).unwrap().unwrap();
    m.sim.check();
}

#[test]
fn a_device_that_is_not_enabled_does_not_answer() {
    let m = machine();
    m.platform.disable_device().unwrap();
    let noted = m.noted(|r| assert_eq!(r.read::<u8>(STATUS), 0xff));
    assert!(noted.contains("not enabled"), "{noted}");
}

#[test]
fn bus_mastering_off_keeps_the_device_from_memory() {
    let m = machine();
    let (_, mut queue) = m.running();
    let mut chain = queue.chain().unwrap();
    chain.readable(0x1000, 16).unwrap();
    chain.submit(1);
    queue.kick();
    m.platform.disable_device().unwrap();
    m.sim.settle();
    let noted = m.sim.take_violations().join("; ");
    assert!(noted.contains("queue memory at"), "{noted}");
}

#[test]
fn registers_have_their_width_and_some_are_read_only() {
    let m = machine();
    for (offset, text) in [(0x12, "read-only"), (0x1e, "read-only")] {
        let noted = m.noted(|r| r.write::<u16>(offset, 1));
        assert!(noted.contains(text), "{offset:#x}: {noted}");
    }
    let noted = m.noted(|r| r.write::<u8>(0x15, 1));
    assert!(noted.contains("read-only register at 0x15"), "{noted}");
    let noted = m.noted(|r| r.write::<u32>(STATUS, 1));
    assert!(noted.contains("write of 4 bytes"), "{noted}");
    let noted = m.noted(|r| _ = r.read::<u8>(0x18));
    assert!(noted.contains("read of 1 bytes at 0x18"), "{noted}");
    let noted = m.noted(|r| r.write::<u8>(0x2000, 1));
    assert!(noted.contains("read-only configuration"), "{noted}");
}

#[test]
fn the_status_follows_its_order() {
    let cases: [(&[u8], &str); 5] = [
        (&[ACKNOWLEDGE | DRIVER, DRIVER], "cleared without a reset"),
        (&[FEATURES_OK], "FEATURES_OK before ACKNOWLEDGE"),
        (&[ACKNOWLEDGE | DRIVER | DRIVER_OK], "DRIVER_OK before"),
        (&[0x10], "do not exist"),
        (
            &[ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK],
            "not offered",
        ),
    ];
    for (values, text) in cases {
        let m = machine();
        let noted = m.noted(|r| values.iter().for_each(|v| r.write(STATUS, *v)));
        assert!(noted.contains(text), "{values:x?}: {noted}");
    }
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let m = machine();
    m.registers.write(STATUS, ACKNOWLEDGE | DRIVER);
    let noted = m.noted(|r| {
        r.write::<u32>(0x0c, 1 << 9);
        r.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(r.read::<u8>(STATUS) & FEATURES_OK, 0);
    });
    assert!(noted.contains("features 0x200 accepted"), "{noted}");
}

#[test]
fn nothing_is_written_until_a_reset_is_through() {
    let m = machine();
    m.running();
    let noted = m.noted(|r| {
        r.write::<u8>(STATUS, 0);
        r.write::<u8>(STATUS, ACKNOWLEDGE);
    });
    assert!(noted.contains("before the reset completed"), "{noted}");
}

#[test]
fn a_doorbell_wants_a_queue_behind_it() {
    let m = machine();
    m.negotiated();
    let noted = m.noted(|r| r.write::<u16>(NOTIFY, 0));
    assert!(noted.contains("notification before DRIVER_OK"), "{noted}");
    let m = machine();
    m.running();
    for (at, value, text) in [
        (4, 1, "not enabled"),
        (8, 2, "notification of queue 2"),
        (0, 1, "notification of queue 1 at"),
    ] {
        let noted = m.noted(|r| r.write::<u16>(NOTIFY + at, value));
        assert!(noted.contains(text), "{at}: {noted}");
    }
}

#[test]
fn queues_are_set_up_once_and_in_their_phase() {
    let m = machine();
    let transport = m.negotiated();
    let noted = m.noted(|r| r.write::<u16>(0x18, 3));
    assert!(noted.contains("queue of 3 entries"), "{noted}");
    let noted = m.noted(|r| r.write::<u16>(0x18, 16));
    assert!(noted.contains("at most 8"), "{noted}");
    let _queue = transport.queue(0, 0, 1, 256).unwrap();
    let noted = m.noted(|r| r.write::<u16>(0x1c, 1));
    assert!(noted.contains("enabled twice"), "{noted}");
    let noted = m.noted(|r| r.write::<u32>(0x20, 0x1000));
    assert!(noted.contains("changed while it is enabled"), "{noted}");
    transport.driver_ok().unwrap();
    let noted = m.noted(|r| {
        r.write::<u16>(0x16, 1);
        r.write::<u16>(0x1c, 1);
    });
    assert!(noted.contains("outside of its phase"), "{noted}");
}

#[test]
fn memory_that_went_while_the_device_had_it_is_noticed() {
    let m = machine();
    let (_, mut queue) = m.running();
    let buffer = m.cx.dma_region(4096).unwrap();
    let mut chain = queue.chain().unwrap();
    chain.writable(buffer.device_address(0), 16).unwrap();
    chain.submit(1);
    queue.kick();
    drop(buffer);
    m.sim.settle();
    let noted = m.sim.take_violations().join("; ");
    assert!(noted.contains("not mapped for it"), "{noted}");
}

#[test]
fn a_queue_that_goes_before_its_reset_is_noticed() {
    let m = machine();
    let (_, mut queue) = m.running();
    let mut chain = queue.chain().unwrap();
    chain.readable(0x1000, 16).unwrap();
    chain.submit(1);
    queue.kick();
    drop(queue);
    m.sim.settle();
    assert!(!m.sim.take_violations().is_empty());
}
