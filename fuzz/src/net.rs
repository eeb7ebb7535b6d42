//! Network drivers under the class layer, with a client whose entries are the fuzzer's too.

use std::sync::Arc;

use ddk::{Deadline, DeviceAccess, DeviceContext, StopReason, block_on};
use ddk_backend_sim::{DeviceMemory, Payload, Sim, SimPlatform};
use ddk_class_net::{
    Command, MacAddress, NetDevice, Offloads, ReceiveMode, RingOffsets, Session, Supervisor,
    Verdict, Worker,
};
use model_e1000::{E1000Model, Kind};
use model_virtio::VirtioPci;
use model_virtio_net::{NetModel, NetModelOptions, deliver};
use proto::net::{Received, RxBuffer, Sent, Transmit};
use ring::{Consumer, HeapMemory, Producer};
use spec_virtio::net::Header;

use crate::block::Bell;
use crate::input::Input;

const DEPTH: u16 = 16;
/// Pages of the client's buffer.
const PAGES: usize = 8;

/// An interface in service, and a client.
pub struct Served<D: NetDevice> {
    supervisor: Supervisor<D, HeapMemory>,
    workers: Vec<Worker<D::Queue, HeapMemory>>,
    free: Producer<RxBuffer, HeapMemory>,
    received: Consumer<Received, HeapMemory>,
    transmit: Producer<Transmit, HeapMemory>,
    sent: Consumer<Sent, HeapMemory>,
    payload: Payload,
    /// The device cannot be stopped: its process would end now.
    given_up: bool,
}

impl<D: NetDevice + 'static> Served<D> {
    /// `None` if there is nothing to serve.
    pub fn new(cx: DeviceContext, driver: D, memory: &DeviceMemory) -> Option<Self> {
        let (mut supervisor, workers) = Supervisor::new(cx, driver, Box::new(|| {})).ok()?;
        let at = RingOffsets::of(DEPTH, DEPTH).ok()?;
        let rings = HeapMemory::new(at.len);
        let bells = (Box::new(Bell), Box::new(Bell));
        let session = Session::new(1, (DEPTH, DEPTH), rings.clone(), bells.0, bells.1).ok()?;
        supervisor.open(0, Box::new(session)).ok()?;
        let (buffer, payload) = memory.payload(PAGES, DeviceAccess::Both);
        supervisor.send(0, Command::AddBuffer(1, 0, buffer)).ok()?;
        let depth = DEPTH.into();
        Some(Served {
            supervisor,
            workers,
            free: Producer::new(rings.clone(), 0, depth).ok()?,
            received: Consumer::new(rings.clone(), at.received, depth).ok()?,
            transmit: Producer::new(rings.clone(), at.transmit, depth).ok()?,
            sent: Consumer::new(rings, at.sent, depth).ok()?,
            payload,
            given_up: false,
        })
    }

    /// An entry: half of the time one that can be right. Or another mode, address or offload.
    pub fn ask(&mut self, input: &mut Input) {
        let choice = input.byte();
        match choice & 3 {
            0 => self.provide(choice, input),
            1 | 2 => self.send(choice, input),
            _ => self.set(choice, input),
        }
    }

    fn provide(&mut self, choice: u8, input: &mut Input) {
        let mut entry = RxBuffer {
            id: input.number(1) as u32,
            offset: 2048 * (u32::from(choice >> 4) & 7),
            length: 2048,
            slot: 0,
            reserved: 0,
        };
        if choice & 0x80 != 0 {
            entry.offset = input.number(4) as u32;
            entry.length = input.number(4) as u32;
            entry.slot = input.number(2) as u16;
        }
        if self.free.push(&entry).is_ok() {
            let _ = self.free.publish();
        }
    }

    fn send(&mut self, choice: u8, input: &mut Input) {
        let mut entry = Transmit {
            id: input.number(1) as u32,
            offset: 4096 * 4,
            length: 60 + input.number(1) as u32 * 4,
            flags: u16::from(choice >> 4 & 3),
            checksum_start: 34,
            checksum_offset: 16,
            ..Transmit::default()
        };
        if choice & 0x40 != 0 {
            entry.segmentation = 1 + (choice >> 3 & 1);
            entry.segment_size = 536;
            entry.header_length = 54;
        }
        if choice & 0x80 != 0 {
            entry.offset = input.number(4) as u32;
            entry.length = input.number(2) as u32;
            entry.slot = input.number(1) as u16;
            entry.flags = input.number(1) as u16;
            entry.checksum_start = input.number(2) as u16;
            entry.checksum_offset = input.number(2) as u16;
            entry.segment_size = input.number(2) as u16;
            entry.header_length = input.number(2) as u16;
        }
        if self.transmit.push(&entry).is_ok() {
            let _ = self.transmit.publish();
        }
    }

    fn set(&mut self, choice: u8, input: &mut Input) {
        // Refusals are the device's right.
        let _ = match choice >> 2 & 3 {
            0 => {
                let groups = [MacAddress([1, 0, 0x5e, 0, 0, input.byte()])];
                self.supervisor
                    .set_receive_mode(ReceiveMode::Filtered, &groups)
            }
            1 => self
                .supervisor
                .set_receive_mode(ReceiveMode::Promiscuous, &[]),
            2 => self
                .supervisor
                .set_mac(MacAddress([2, 0, 0, 0, 0, input.byte()])),
            _ => {
                let offloads = Offloads::from_bits_truncate(input.byte().into());
                self.supervisor.set_receive_offloads(offloads)
            }
        };
        if choice & 0x80 != 0 {
            self.supervisor.reset_device();
        }
    }

    /// A round of everybody.
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            if worker.turn(Deadline::NOW).is_err() {
                self.given_up = true;
            }
        }
        self.supervisor.tick();
        let verdicts = self.supervisor.attend();
        self.given_up |= verdicts.iter().any(|v| matches!(v, Verdict::GiveUp(_)));
        while let Ok(Some(entry)) = self.received.pop() {
            assert!(entry.length as usize <= PAGES * ddk::PAGE);
        }
        while let Ok(Some(_)) = self.sent.pop() {}
    }

    /// Whether the driver's process would have ended.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Stops the device and ends.
    pub fn end(mut self) {
        let _ = &self.payload;
        if !self.given_up {
            self.supervisor.stop(StopReason::Requested);
        }
    }
}

/// The client's bytes against a driver whose device is honest: nothing that a client does may make the driver
/// break the device's rules.
pub fn virtio_net_client(bytes: &[u8]) {
    let sim = Sim::new(1);
    let model = VirtioPci::new(&sim, NetModel::new(NetModelOptions::default()), 2);
    hostile_client::<virtio_net::VirtioNet>(bytes, &sim, model.platform(1), |frame| {
        deliver(&model, frame, Header::default());
    });
}

/// The same with Intel's controllers; the input chooses.
pub fn e1000_client(bytes: &[u8]) {
    let kind = match bytes.first() {
        Some(choice) if choice & 1 != 0 => Kind::I82540em,
        _ => Kind::I82574l,
    };
    let bytes = bytes.get(1..).unwrap_or_default();
    let sim = Sim::new(1);
    let model = E1000Model::new(&sim, kind, [2, 0, 0, 0, 0, 1], 2);
    hostile_client::<e1000::E1000>(bytes, &sim, model.platform(1), |frame| {
        model.deliver(frame);
    });
}

fn hostile_client<D: NetDevice + 'static>(
    bytes: &[u8],
    sim: &Sim,
    platform: Arc<SimPlatform>,
    deliver: impl Fn(&[u8]),
) {
    let mut input = Input::new(bytes);
    let cx = DeviceContext::new(platform).expect("a queue");
    let driver = block_on(&cx, D::start(cx.clone()));
    let driver = driver.expect("events").expect("the model is in order");
    let Some(mut served) = Served::new(cx, driver, sim.memory()) else {
        panic!("the model has a queue");
    };
    let mut frame = vec![0xff; 6];
    frame.resize(1514, 2);
    while !input.is_over() {
        for _ in 0..=input.byte() & 7 {
            served.ask(&mut input);
        }
        served.turn();
        sim.settle();
        let len = 14 + usize::from(input.byte()) * 5;
        deliver(frame.get(..len).unwrap_or(&frame));
        sim.check();
    }
    served.turn();
    assert!(!served.is_given_up(), "an honest device was given up");
    served.end();
    sim.check();
}
