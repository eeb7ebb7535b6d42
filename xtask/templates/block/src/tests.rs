//! The driver on the simulator, against a model of the disk.

use std::sync::{Arc, Mutex};
use std::vec;
use std::vec::Vec;

use ddk::{Bus, DeviceAccess, DeviceContext, Driver, StopReason, Width, block_on};
use ddk_backend_sim::{DeviceMemory, SimInterrupt, SimPlatform};
use ddk_class_block::{BlockDevice, BlockQueue, Completed, Operation, Request, Status};

use crate::{{type}};

const BLOCKS: usize = 64;

#[derive(Default)]
struct State {
    disk: Vec<u8>,
    position: usize,
    address: u64,
    len: usize,
    failed: bool,
}

/// A model: grow it with the driver, and let it refuse what the specification forbids.
struct Model {
    memory: DeviceMemory,
    state: Mutex<State>,
}

impl Bus for Model {
    fn read(&self, offset: usize, _: Width) -> u64 {
        match offset {
            0x00 => BLOCKS as u64,
            0x20 => u64::from(self.state.lock().unwrap().failed) << 1,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write(&self, offset: usize, _: Width, value: u64) {
        let mut state = self.state.lock().unwrap();
        match (offset, value) {
            (0x08, _) => state.position = value as usize,
            (0x10, _) => state.address = value,
            (0x18, _) => state.len = value as usize,
            (0x1c, 3) => state.failed = false,
            (0x1c, command) => {
                let (from, address) = (state.position, state.address);
                let range = from..from + state.len;
                let Some(place) = state.disk.get_mut(range) else {
                    state.failed = true;
                    return;
                };
                let done = match command {
                    1 => self.memory.write(address, place),
                    2 => self.memory.read(address, place),
                    _ => panic!("command {command}"),
                };
                done.expect("the driver gives the device memory that it owns");
            }
            _ => panic!("write to {offset:#x}"),
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let memory = DeviceMemory::default();
    let disk = vec![0; BLOCKS * 512];
    let state = Mutex::new(State {
        disk,
        ..State::default()
    });
    let model = Arc::new(Model {
        memory: memory.clone(),
        state,
    });
    let platform = SimPlatform::builder()
        .bar(0, model, 0x1000)
        .interrupts(vec![Arc::new(SimInterrupt::default())])
        .memory(memory.clone())
        .build();
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let mut driver = block_on(&cx, {{type}}::start(cx.clone())).unwrap().unwrap();
    let mut queue = driver.take_queues().remove(0);
    let (buffer, payload) = memory.payload(2, DeviceAccess::Both);
    let mut run = |operation, lba, offset| {
        let request = Request {
            token: 7,
            unit: 0,
            operation,
            durable: false,
            may_unmap: false,
            lba,
            blocks: 8,
            length: 4096,
            data: Some(&buffer),
            offset,
        };
        queue.push(&request).unwrap();
        queue.kick();
        loop {
            if let Some(Completed { token: 7, status }) = queue.reap().unwrap() {
                return status;
            }
        }
    };
    // Across the two pages, which do not follow each other for the device.
    let written: Vec<u8> = (0..4096u32).map(|n| (n / 3) as u8).collect();
    payload.write(2048, &written);
    assert_eq!(run(Operation::Write, 8, 2048), Status::OK);
    payload.write(0, &[0; 8192]);
    assert_eq!(run(Operation::Read, 8, 0), Status::OK);
    assert_eq!(payload.read(0, 4096), written);
    assert_eq!(run(Operation::Read, 60, 0), Status::IO_ERROR);

    block_on(&cx, driver.stop(StopReason::Requested)).unwrap();
    platform.check();
}
