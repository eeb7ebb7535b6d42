//! The driver on the simulator, against a model of the port.

use std::sync::{Arc, Mutex};
use std::vec;
use std::vec::Vec;

use ddk::{Bus, DeviceContext, Driver, StopReason, Width, block_on};
use ddk_backend_sim::{SimInterrupt, SimPlatform};
use ddk_class_serial::SerialDevice;

use crate::{{type}};

/// A model: grow it with the driver, and let it refuse what the specification forbids.
#[derive(Default)]
struct Model {
    received: Mutex<Vec<u8>>,
    sent: Mutex<Vec<u8>>,
}

/// Bytes that the model's transmitter takes.
const ROOM: usize = 4;

impl Bus for Model {
    fn read(&self, offset: usize, width: Width) -> u64 {
        assert_eq!(width, Width::U32);
        let mut received = self.received.lock().unwrap();
        match offset {
            0x00 => received.remove(0).into(),
            0x04 => {
                let room = self.sent.lock().unwrap().len() < ROOM;
                u64::from(!received.is_empty()) | u64::from(room) << 1
            }
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        assert_eq!(width, Width::U32);
        match offset {
            0x00 => self.sent.lock().unwrap().push(value as u8),
            0x08 => {}
            _ => panic!("write to {offset:#x}"),
        }
    }
}

#[test]
fn it_receives_and_sends_what_there_is_room_for() {
    let model = Arc::new(Model::default());
    let interrupt = Arc::new(SimInterrupt::default());
    let platform = SimPlatform::builder()
        .bar(0, model.clone(), 0x1000)
        .interrupts(vec![interrupt])
        .build();
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let mut port = block_on(&cx, {{type}}::start(cx.clone())).unwrap().unwrap();

    model.received.lock().unwrap().extend(b"hello");
    let mut buffer = [0; 16];
    assert_eq!(port.interrupt(&mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"hello");
    assert_eq!(port.send(b"goodbye"), Ok(ROOM));
    assert_eq!(*model.sent.lock().unwrap(), b"good");

    block_on(&cx, port.stop(StopReason::Requested)).unwrap();
    platform.check();
}
