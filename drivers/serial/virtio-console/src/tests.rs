//! The driver under the serial class, against a model of the device that checks what it does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec::Vec;

use ddk::{DeviceContext, Driver, Event, EventQueue, StopReason, block_on};
use ddk_backend_sim::{Sim, SimPlatform};
use ddk_class_serial::{Pump, SerialDevice, Stream, StreamEnd};
use model_virtio::VirtioPci;
use model_virtio_console::{ConsoleModel, Misbehaviour, type_in};
use proptest::prelude::*;
use spec_virtio::feature::RING_EVENT_IDX;

use crate::VirtioConsole;

#[derive(Default)]
struct Client {
    to_send: VecDeque<Vec<u8>>,
    got: Vec<u8>,
    room: usize,
}

impl Stream for Client {
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, StreamEnd> {
        match self.to_send.pop_front() {
            Some(bytes) => {
                *into = bytes;
                Ok(true)
            }
            None => Ok(false),
        }
    }
    fn give(&mut self, bytes: &[u8]) -> Result<bool, StreamEnd> {
        if bytes.len() > self.room {
            return Ok(false);
        }
        self.room -= bytes.len();
        self.got.extend(bytes);
        Ok(true)
    }
}

struct Machine {
    sim: Sim,
    model: Arc<VirtioPci<ConsoleModel>>,
    platform: Arc<SimPlatform>,
    cx: DeviceContext,
    events: std::boxed::Box<dyn EventQueue>,
    console: VirtioConsole,
    pump: Pump,
    client: Client,
}

impl Machine {
    fn new(features: u64, queue_size: u16, vectors: u16) -> Machine {
        let sim = Sim::default();
        let model = VirtioPci::new(&sim, ConsoleModel::new(features, queue_size), vectors);
        let platform = model.platform(1);
        let cx = DeviceContext::new(platform.clone()).unwrap();
        let mut console = block_on(&cx, VirtioConsole::start(cx.clone()))
            .unwrap()
            .unwrap();
        let events = cx.event_queue().unwrap();
        console.bind(&*events, 1).unwrap();
        let mut machine = Machine {
            sim,
            model,
            platform,
            cx,
            events,
            console,
            pump: Pump::new(),
            client: Client {
                room: usize::MAX,
                ..Client::default()
            },
        };
        // Until the device has seen its buffers.
        machine.run();
        machine
    }

    /// One turn of the loop that serves a port. Waits as that does: a lost interrupt shows.
    fn turn(&mut self) -> Result<bool, ddk::DriverError> {
        let mut events = [Event::default(); 4];
        let count = self
            .events
            .wait(&mut events, self.cx.deadline_in_ms(1000))
            .unwrap_or(0);
        if count > 0 {
            self.pump
                .interrupt(&mut self.console, Some(&mut self.client))?;
        }
        self.send()?;
        Ok(count > 0)
    }

    fn send(&mut self) -> Result<(), ddk::DriverError> {
        let _ = self.pump.send(&mut self.console, &mut self.client)?;
        self.pump.receive(&mut self.console, &mut self.client)
    }

    fn run(&mut self) {
        self.send().unwrap();
        while self.turn().unwrap() {}
    }

    fn sent(&self) -> Vec<u8> {
        self.model.with(|console, _| console.sent.clone())
    }
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways() {
    for (features, size, vectors) in [
        (0, 128, 2),
        (RING_EVENT_IDX, 128, 2),
        (RING_EVENT_IDX, 4, 1),
    ] {
        let mut m = Machine::new(features, size, vectors);
        let long = text(600_000);
        m.client.to_send.extend(long.chunks(60_000).map(Vec::from));
        type_in(&m.model, b"hello");
        m.run();
        assert_eq!(m.client.got, b"hello");
        assert!(m.sent() == long);
        assert!(m.console.is_idle().unwrap());
        type_in(&m.model, &long);
        m.run();
        assert!(m.client.got[5..] == long);
        m.sim.check();
    }
}

#[test]
fn what_nobody_reads_stays_at_the_other_end() {
    let mut m = Machine::new(RING_EVENT_IDX, 128, 2);
    m.client.room = 0;
    let long = text(2_000_000);
    type_in(&m.model, &long);
    m.run();
    assert!(m.client.got.is_empty());
    let waiting = m.model.with(|console, _| console.waiting.len());
    assert!(waiting > 1_000_000, "{waiting} of two million bytes wait");
    m.client.room = usize::MAX;
    m.run();
    assert!(m.client.got == long);
}

#[test]
fn a_port_that_nobody_has_open_takes_nothing_for_later() {
    let mut m = Machine::new(RING_EVENT_IDX, 128, 2);
    type_in(&m.model, b"stale");
    m.pump.interrupt::<_, Client>(&mut m.console, None).unwrap();
    type_in(&m.model, b"fresh");
    m.run();
    assert_eq!(m.client.got, b"fresh");
}

#[test]
fn a_device_against_the_rules_is_an_error() {
    for misbehaviour in [
        Misbehaviour::Empty,
        Misbehaviour::Overlong,
        Misbehaviour::Misnamed,
    ] {
        let mut m = Machine::new(RING_EVENT_IDX, 128, 2);
        m.model
            .with(|console, _| console.misbehaviour = misbehaviour);
        type_in(&m.model, b"x");
        assert!(m.turn().is_err(), "{misbehaviour:?}");
    }
    // One that keeps what it was sent makes its senders wait, and nothing else.
    let mut m = Machine::new(RING_EVENT_IDX, 128, 2);
    m.model
        .with(|console, _| console.misbehaviour = Misbehaviour::Silent);
    m.client.to_send.push_back(text(1_000_000));
    m.run();
    assert!(!m.pump.is_empty() && !m.console.is_idle().unwrap());
}

#[test]
fn a_device_that_goes_is_noticed_and_a_stop_resets_it() {
    let mut m = Machine::new(RING_EVENT_IDX, 128, 2);
    m.model.unplug();
    type_in(&m.model, b"x");
    assert!(m.turn().is_err());
    let m = Machine::new(RING_EVENT_IDX, 128, 2);
    block_on(&m.cx, m.console.stop(StopReason::Requested)).unwrap();
    assert_eq!((m.model.status(), m.model.enabled_queues()), (0, 0));
    m.platform.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_traffic_arrives_whole_and_in_order(
        steps in prop::collection::vec((any::<bool>(), 1usize..70_000, 0usize..100_000), 1..24),
        size in prop_oneof![Just(4u16), Just(16), Just(128)],
        features in prop_oneof![Just(0), Just(RING_EVENT_IDX)],
        vectors in 1u16..3,
    ) {
        let mut m = Machine::new(features, size, vectors);
        let (mut sent, mut typed) = (Vec::new(), Vec::new());
        for (to_device, len, room) in steps {
            let bytes = text(len);
            m.client.room = room;
            if to_device {
                sent.extend(&bytes);
                m.client.to_send.extend(bytes.chunks(60_000).map(Vec::from));
            } else {
                typed.extend(&bytes);
                type_in(&m.model, &bytes);
            }
            m.turn().unwrap();
        }
        m.client.room = usize::MAX;
        m.run();
        prop_assert!(m.sent() == sent, "sent");
        prop_assert!(m.client.got == typed, "received");
        m.sim.check();
    }
}
