//! The driver against a model of the port.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use ddk::{DeviceContext, Driver, PortBus, block_on};
use ddk_backend_sim::{SimInterrupt, SimPlatform};
use ddk_class_serial::{Pump, SerialDevice, Stream, StreamEnd};

use crate::Uart;

#[derive(Default)]
struct State {
    received: VecDeque<u8>,
    fifo: VecDeque<u8>,
    sent: Vec<u8>,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: [u8; 2],
    fifo_on: bool,
    thr_pending: bool,
    gone: bool,
}

/// A 16550 whose line takes a FIFO's worth at each `run`.
struct Model {
    state: Mutex<State>,
    interrupt: Arc<SimInterrupt>,
}

impl Model {
    fn run(&self) {
        let mut s = self.state.lock().unwrap();
        let taken: Vec<u8> = s.fifo.drain(..).collect();
        if !taken.is_empty() {
            s.thr_pending = true;
        }
        s.sent.extend(taken);
        drop(s);
        self.update();
    }

    fn update(&self) {
        let s = self.state.lock().unwrap();
        let asserted = s.ier & 1 != 0 && !s.received.is_empty() || s.ier & 2 != 0 && s.thr_pending;
        if asserted && s.mcr & 8 != 0 {
            self.interrupt.fire();
        }
    }

    fn type_in(&self, bytes: &[u8]) {
        self.state.lock().unwrap().received.extend(bytes);
        self.update();
    }
}

impl PortBus for Model {
    fn read8(&self, offset: u16) -> u8 {
        let mut s = self.state.lock().unwrap();
        if s.gone {
            return 0xff;
        }
        match offset {
            0 => s.received.pop_front().unwrap_or(0),
            1 => s.ier,
            2 => {
                let fifo = if s.fifo_on { 0xc0 } else { 0 };
                if s.ier & 1 != 0 && !s.received.is_empty() {
                    fifo | 4
                } else if s.ier & 2 != 0 && s.thr_pending {
                    s.thr_pending = false;
                    fifo | 2
                } else {
                    fifo | 1
                }
            }
            3 => s.lcr,
            4 => s.mcr,
            5 => {
                let empty = if s.fifo.is_empty() { 0x60 } else { 0 };
                empty | u8::from(!s.received.is_empty())
            }
            7 => s.scratch,
            _ => 0,
        }
    }
    fn write8(&self, offset: u16, value: u8) {
        let mut s = self.state.lock().unwrap();
        let dlab = s.lcr & 0x80 != 0;
        match offset {
            0 if dlab => s.divisor[0] = value,
            1 if dlab => s.divisor[1] = value,
            0 => {
                assert!(s.fifo.len() < 16, "transmitter overrun");
                s.fifo.push_back(value);
            }
            1 => {
                if value & 2 != 0 && s.ier & 2 == 0 && s.fifo.is_empty() {
                    s.thr_pending = true;
                }
                s.ier = value;
            }
            2 => s.fifo_on = value & 1 != 0,
            3 => s.lcr = value,
            4 => s.mcr = value,
            7 => s.scratch = value,
            _ => {}
        }
        drop(s);
        if offset == 1 {
            self.update();
        }
    }
    fn read16(&self, _: u16) -> u16 {
        panic!("the port has bytes");
    }
    fn write16(&self, _: u16, _: u16) {
        panic!("the port has bytes");
    }
    fn read32(&self, _: u16) -> u32 {
        panic!("the port has bytes");
    }
    fn write32(&self, _: u16, _: u32) {
        panic!("the port has bytes");
    }
}

#[derive(Default)]
struct Client {
    to_send: VecDeque<Vec<u8>>,
    got: Vec<u8>,
    room: usize,
    closed: bool,
}

impl Stream for Client {
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, StreamEnd> {
        match self.to_send.pop_front() {
            Some(bytes) => {
                *into = bytes;
                Ok(true)
            }
            None if self.closed => Err(StreamEnd),
            None => Ok(false),
        }
    }
    fn give(&mut self, bytes: &[u8]) -> Result<bool, StreamEnd> {
        if self.got.len() + bytes.len() > self.room {
            return Ok(false);
        }
        self.got.extend(bytes);
        Ok(true)
    }
}

fn start() -> (Arc<Model>, DeviceContext, Uart) {
    let interrupt = Arc::new(SimInterrupt::default());
    let model = Arc::new(Model {
        state: Mutex::default(),
        interrupt: interrupt.clone(),
    });
    let platform = SimPlatform::builder()
        .ports(model.clone(), 8)
        .interrupts(std::vec![interrupt])
        .build();
    let cx = DeviceContext::new(platform).unwrap();
    let uart = block_on(&cx, Uart::start(cx.clone())).unwrap().unwrap();
    (model, cx, uart)
}

#[test]
fn starts_with_the_rate_and_the_fifo() {
    let (model, _, mut uart) = start();
    assert_eq!((uart.fifo(), uart.rate()), (16, 115_200));
    assert_eq!(model.state.lock().unwrap().divisor, [1, 0]);
    uart.set_rate(9600).unwrap();
    assert_eq!(model.state.lock().unwrap().divisor, [12, 0]);
    assert_eq!(model.state.lock().unwrap().lcr, 3);
    assert!(uart.set_rate(0).is_err() && uart.set_rate(12_345).is_err());
    assert!(uart.set_rate(u32::MAX).is_err() && uart.set_rate(1).is_err());
    assert_eq!(uart.rate(), 9600);
}

#[test]
fn a_port_that_is_not_there_is_refused() {
    let interrupt = Arc::new(SimInterrupt::default());
    let state = Mutex::new(State {
        gone: true,
        ..State::default()
    });
    let model = Arc::new(Model {
        state,
        interrupt: interrupt.clone(),
    });
    let platform = SimPlatform::builder()
        .ports(model, 8)
        .interrupts(std::vec![interrupt])
        .build();
    let cx = DeviceContext::new(platform).unwrap();
    assert!(block_on(&cx, Uart::start(cx.clone())).unwrap().is_err());
}

#[test]
fn a_long_output_goes_out_whole_and_in_order() {
    let (model, _, mut uart) = start();
    let text: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = Client {
        closed: true,
        ..Client::default()
    };
    client
        .to_send
        .extend([text[..7000].to_vec(), text[7000..].to_vec()]);
    let mut pump = Pump::new();
    let mut rounds = 0;
    while pump.send(&mut uart, &mut client).unwrap().is_ok() {
        model.run();
        pump.interrupt(&mut uart, Some(&mut client)).unwrap();
        rounds += 1;
        assert!(rounds < 1000);
    }
    model.run();
    assert_eq!(model.state.lock().unwrap().sent, text);
    assert_eq!(
        model.state.lock().unwrap().ier & 2,
        0,
        "nothing to send, no interrupts for it"
    );
    assert!(uart.is_idle().unwrap());
}

#[test]
fn input_arrives_and_what_has_no_room_waits_in_the_port() {
    let (model, cx, mut uart) = start();
    let events = cx.event_queue().unwrap();
    uart.bind(&*events, 5).unwrap();
    model.type_in(b"hello");
    let mut got = [ddk::Event::default(); 1];
    assert_eq!(events.wait(&mut got, ddk::Deadline::NOW), Ok(1));
    assert_eq!(got[0].key, 5);
    let mut pump = Pump::new();
    let mut client = Client {
        room: 5,
        ..Client::default()
    };
    pump.interrupt(&mut uart, Some(&mut client)).unwrap();
    assert_eq!(client.got, b"hello");
    model.type_in(b"more");
    pump.interrupt(&mut uart, Some(&mut client)).unwrap();
    assert_eq!(model.state.lock().unwrap().ier & 1, 0, "paused");
    model.type_in(b" of it");
    pump.interrupt(&mut uart, Some(&mut client)).unwrap();
    assert_eq!(client.got, b"hello");
    client.room = 100;
    pump.receive(&mut uart, &mut client).unwrap();
    assert_eq!(client.got, b"hellomore of it");
    assert_eq!(model.state.lock().unwrap().ier & 1, 1, "on again");
    model.type_in(b"x");
    pump.interrupt::<_, Client>(&mut uart, None).unwrap();
    model.type_in(b"y");
    pump.interrupt(&mut uart, Some(&mut client)).unwrap();
    assert_eq!(client.got, b"hellomore of ity", "nobody listened to x");
}

#[test]
fn a_port_that_goes_is_noticed() {
    let (model, _, mut uart) = start();
    model.state.lock().unwrap().gone = true;
    assert!(uart.send(b"x").is_err());
    assert!(uart.interrupt(&mut [0; 8]).is_err());
}
