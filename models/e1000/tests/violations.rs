//! The model notes what its driver may not do, and nothing else: each test is a small driver that breaks one rule.

use std::sync::Arc;

use ddk::{Mmio, Platform};
use ddk_backend_sim::{Sim, SimPlatform};
use model_e1000::{E1000Model, Kind};
use spec_e1000::{ctrl, eeprom, rctl, tctl, tx};

const MAC: [u8; 6] = [0x52, 0x54, 0, 7, 8, 9];
const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const EERD: usize = 0x0014;
const IVAR: usize = 0x00e4;
const RCTL: usize = 0x0100;
const TCTL: usize = 0x0400;
const RX: usize = 0x2800;
const TX: usize = 0x3800;
const HEAD: usize = 0x10;
const TAIL: usize = 0x18;
/// A page of descriptors.
const ENTRIES: u32 = 256;

struct Bench {
    sim: Sim,
    model: Arc<E1000Model>,
    platform: Arc<SimPlatform>,
    registers: Mmio,
}

impl Bench {
    /// A controller that was enabled, with its link up.
    fn new(kind: Kind) -> Bench {
        let sim = Sim::new(1);
        let model = E1000Model::new(&sim, kind, MAC, 2);
        let platform = model.platform(1);
        platform.enable_device().unwrap();
        let registers = platform.bar(0).unwrap().remove(0).1;
        let bench = Bench {
            sim,
            model,
            platform,
            registers,
        };
        bench.write(CTRL, ctrl::SLU);
        bench.sim.settle();
        assert!(bench.model.has_link());
        bench
    }

    fn read(&self, offset: usize) -> u32 {
        self.registers.read(offset)
    }

    fn write(&self, offset: usize, value: u32) {
        self.registers.write(offset, value);
    }

    /// Makes a ring of one page; its memory.
    fn ring(&self, at: usize) -> ddk::DmaRegion {
        let region = self.platform.dma_region(ddk::PAGE).unwrap();
        let address = region.device_address(0);
        self.write(at, address as u32);
        self.write(at + 4, (address >> 32) as u32);
        self.write(at + 8, ddk::PAGE as u32);
        self.write(at + HEAD, 0);
        self.write(at + TAIL, 0);
        region
    }

    /// A transmit unit that is switched on.
    fn transmitting(&self) -> ddk::DmaRegion {
        let ring = self.ring(TX);
        self.write(TCTL, tctl::EN | tctl::PSP);
        ring
    }

    /// What was noted, after the model came to rest.
    fn noted(&self) -> Vec<String> {
        self.sim.settle();
        self.sim.take_violations()
    }

    /// One thing was noted, with these words in it.
    fn expect(&self, words: &str) {
        let noted = self.noted();
        assert!(
            noted.len() == 1 && noted[0].contains(words),
            "{noted:?}, expected {words:?}"
        );
    }
}

#[test]
fn what_is_in_order_is_not_noted() {
    for kind in [Kind::I82540em, Kind::I82574l] {
        let bench = Bench::new(kind);
        let ring = bench.transmitting();
        let (payload, memory) = bench.sim.memory().payload(1, ddk::DeviceAccess::Reads);
        memory.write(0, &[0x5a; 64]);
        let segment = payload.segments(0, 64, 0).unwrap().next().unwrap();
        let command = tx::COMMAND_EOP | tx::COMMAND_IFCS | tx::COMMAND_RS;
        ring.write_pair(0, 0u8, tx::data(segment.address, 64, command, 0));
        bench.write(TX + TAIL, 1);
        assert_eq!(bench.noted(), [""; 0]);
        assert_eq!(bench.model.take_sent(), [[0x5a; 64]]);
        assert_eq!(bench.read(TX + HEAD), 1);
        assert_eq!(ring.read::<u8>(tx::STATUS), tx::STATUS_DD);
    }
}

#[test]
fn a_unit_is_switched_on_before_its_ring_exists() {
    let bench = Bench::new(Kind::I82540em);
    bench.write(RCTL, rctl::EN);
    bench.expect("RCTL");
    bench.write(TCTL, tctl::EN);
    bench.expect("TCTL");
}

#[test]
fn a_tail_that_cannot_be() {
    let bench = Bench::new(Kind::I82574l);
    let _ring = bench.transmitting();
    bench.write(TX + TAIL, ENTRIES);
    bench.expect("ring register");
    let _rx = bench.ring(RX);
    bench.write(RCTL, rctl::EN);
    bench.write(RX + TAIL, 10);
    assert_eq!(bench.noted(), [""; 0]);
    bench.write(RX + TAIL, 5);
    bench.expect("over the head");
}

#[test]
fn a_ring_that_moves_while_it_is_in_use() {
    let bench = Bench::new(Kind::I82540em);
    let _ring = bench.transmitting();
    bench.write(TX, 0x1000);
    bench.expect("while it is in use");
    bench.write(TX + HEAD, 0);
    bench.expect("while it is in use");
}

#[test]
fn memory_that_was_not_given() {
    let bench = Bench::new(Kind::I82540em);
    let ring = bench.transmitting();
    let command = tx::COMMAND_EOP | tx::COMMAND_IFCS;
    ring.write_pair(0, 0u8, tx::data(0xdead_0000, 64, command, 0));
    bench.write(TX + TAIL, 1);
    bench.expect("frame at 0xdead0000");
    assert!(bench.model.take_sent().is_empty());
    // A receive buffer that the device may only read.
    let rx = bench.ring(RX);
    let (payload, _memory) = bench.sim.memory().payload(1, ddk::DeviceAccess::Reads);
    let segment = payload.segments(0, 2048, 0).unwrap().next().unwrap();
    rx.write_pair(0, 0u8, [segment.address, 0]);
    bench.write(RCTL, rctl::EN | rctl::UPE);
    bench.write(RX + TAIL, 1);
    assert!(bench.model.deliver(&[2; 100]));
    bench.expect("receive buffer");
}

#[test]
fn descriptors_that_contradict_each_other() {
    let bench = Bench::new(Kind::I82574l);
    let ring = bench.transmitting();
    let (payload, _memory) = bench.sim.memory().payload(1, ddk::DeviceAccess::Reads);
    let address = payload.segments(0, 64, 0).unwrap().next().unwrap().address;
    let last = tx::COMMAND_EOP | tx::COMMAND_IFCS;
    let context = tx::Context {
        ip_start: 14,
        ip_offset: 24,
        ip_end: 33,
        start: 34,
        offset: 50,
        command: tx::CONTEXT_TCP | tx::CONTEXT_IPV4 | tx::COMMAND_TSE,
        payload: 11,
        header: 54,
        segment: 5,
    };
    let both = tx::OPTION_IXSM | tx::OPTION_TXSM;
    for (n, (descriptors, words)) in [
        (
            vec![tx::data(address, 64, last, tx::OPTION_TXSM)],
            "without a context",
        ),
        (
            vec![tx::data(address, 64, tx::COMMAND_EOP, 0)],
            "check sequence",
        ),
        (vec![tx::data(address, 0, last, 0)], "0 bytes"),
        (
            vec![
                context.descriptor(),
                tx::data(address, 64, last | tx::COMMAND_TSE, both),
            ],
            "PAYLEN",
        ),
        (
            vec![
                tx::data(address, 32, 0, 0),
                tx::data(address, 32, last | tx::COMMAND_TSE, 0),
            ],
            "do not agree",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let first = bench.read(TX + HEAD);
        for (place, descriptor) in (first..).zip(&descriptors) {
            ring.write_pair(0, place as u8, *descriptor);
        }
        bench.write(TX + TAIL, first + descriptors.len() as u32);
        let noted = bench.noted();
        assert!(
            noted.first().is_some_and(|text| text.contains(words)),
            "{n}: {noted:?}"
        );
    }
    assert!(bench.model.take_sent().is_empty());
}

#[test]
fn registers_that_may_not_be_accessed_so() {
    let bench = Bench::new(Kind::I82540em);
    bench.write(STATUS, 0);
    bench.expect("write of 0x0 at 0x8");
    bench.registers.read::<u16>(STATUS);
    bench.expect("2 bytes");
    bench.read(0x1_0000);
    bench.expect("read of 0x10000");
    bench.write(IVAR, 0);
    bench.expect("82540EM does not have");
}

#[test]
fn a_reset_takes_its_time() {
    let bench = Bench::new(Kind::I82540em);
    bench.write(CTRL, ctrl::RST);
    bench.read(CTRL);
    bench.expect("1 µs");
    bench.write(CTRL, ctrl::RST);
    bench.sim.schedule().pass(1_000);
    bench.read(STATUS);
    bench.expect("during a reset");
    assert_eq!(bench.read(CTRL) & ctrl::RST, 0);
    // The EEPROM was loaded while the model came to rest; not so now.
    bench.write(CTRL, ctrl::RST);
    bench.sim.schedule().pass(60_000);
    assert_eq!(bench.read(CTRL) & ctrl::RST, 0);
    bench.write(EERD, eeprom::START);
    bench.expect("EEPROM");
}
