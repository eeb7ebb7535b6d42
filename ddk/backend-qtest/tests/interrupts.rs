//! Interrupts of QEMU's devices: a message by MSI, a line, and vectors of MSI-X.

use std::sync::Arc;

use ddk::manifest::{Class, Manifest, bar};
use ddk::{
    Deadline, Described, DeviceContext, Driver, Event, Platform, StopReason, Width, block_on,
};
use ddk_backend_qtest::{QtestMachine, QtestMachineBuilder, StartError};
use edu::Edu;

/// Long enough for a message that comes, and what has to pass for one that does not.
const LIMIT_NS: u64 = 20_000_000_000;
const SILENCE_NS: u64 = 50_000_000;

fn machine(builder: QtestMachineBuilder) -> Option<QtestMachine> {
    match builder.start() {
        Ok(machine) => Some(machine),
        Err(error @ StartError::NoQemu) => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn within(platform: &dyn Platform, ns: u64) -> Deadline {
    Deadline::at_ns(platform.now_ns() + ns)
}

#[test]
fn the_edu_driver_gets_its_message() {
    let Some(machine) = machine(QtestMachine::builder().device("edu,id=edu0")) else {
        return;
    };
    let platform = machine.platform_for("edu0", &Edu::MANIFEST).unwrap();
    let cx = DeviceContext::new(platform).unwrap();
    let edu = block_on(&cx, Edu::start(cx.clone())).unwrap().unwrap();
    let (handler, raiser) = (edu.handler().unwrap(), edu.raiser());
    for _ in 0..3 {
        raiser.raise();
        handler.serve().unwrap();
    }
    drop(handler);
    block_on(&cx, edu.stop(StopReason::Requested)).unwrap();
}

/// Registers of edu (QEMU, docs/specs/edu.rst).
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;

#[test]
fn a_line_stays_asserted_until_the_device_is_served() {
    let builder = QtestMachine::builder()
        .device("edu,id=edu0")
        .device("edu,id=edu1");
    let Some(machine) = machine(builder) else {
        return;
    };
    let manifest = Manifest::new("by-line", Class::OTHER, [0; 3], &[], &[bar(0)]);
    let bind = |device| machine.platform_by_line(device, &manifest).unwrap();
    let platforms: [Arc<dyn Platform>; 2] = [bind("edu0"), bind("edu1")];
    let queue = platforms[0].event_queue().unwrap();
    let mut events = [Event::default(); 4];
    let mut wait = |ns| {
        let taken = queue.wait(&mut events, within(&*platforms[0], ns)).unwrap();
        events[..taken].iter().map(|e| e.key).collect::<Vec<_>>()
    };
    for (key, platform) in platforms.iter().enumerate() {
        platform.enable_device().unwrap();
        assert_eq!(platform.interrupt_count(), 1);
        let interrupt = platform.interrupt(0).unwrap();
        interrupt.bind(&*queue, key as u64).unwrap();
    }
    let registers = platforms[0].bar(0).unwrap().remove(0).1;
    let interrupt = platforms[0].interrupt(0).unwrap();
    registers.write::<u32>(RAISE, 1);
    assert_eq!(wait(LIMIT_NS), [0], "of the first device alone");
    assert_eq!(wait(SILENCE_NS), [0; 0], "once until it is acknowledged");
    interrupt.acknowledge();
    assert_eq!(wait(LIMIT_NS), [0], "the line is still asserted");
    registers.write::<u32>(ACKNOWLEDGE, 1);
    interrupt.acknowledge();
    assert_eq!(wait(SILENCE_NS), [0; 0]);
    interrupt.unbind();
    registers.write::<u32>(RAISE, 1);
    assert_eq!(wait(SILENCE_NS), [0; 0], "nobody is told");
    interrupt.bind(&*queue, 7).unwrap();
    assert_eq!(wait(LIMIT_NS), [7]);
}

/// virtio-rng: the common configuration structure in BAR 4 (virtio 1.2, 4.1.4.3), from 0 on.
const CONFIG_VECTOR: usize = 0x10;
const STATUS: usize = 0x14;
/// MSI-X of QEMU's virtio devices: BAR 1, the table first, the pending bits at 0x800.
const TABLE_BAR: u8 = 1;

/// The device's own word on which vectors are pending, read past the driver's interface.
fn pending(machine: &QtestMachine, device: &str) -> u64 {
    let info = machine.info(device).unwrap();
    let msix = info.msix.unwrap();
    let bar = info.bars.iter().find(|b| b.index == msix.pba_bar).unwrap();
    let at = bar.base + u64::from(msix.pba_offset);
    let command = serde_json::json!({ "command-line": format!("xp /1gx {at:#x}") });
    let answer = machine.qmp().execute("human-monitor-command", command);
    let answer = answer.unwrap();
    let word = answer.as_str().unwrap().trim().rsplit("0x").next().unwrap();
    u64::from_str_radix(word, 16).unwrap()
}

#[test]
fn a_message_of_an_unbound_vector_stays_pending() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 16).unwrap();
    let builder = QtestMachine::builder()
        .disk(ddk_backend_qtest::Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0,disable-legacy=on");
    let Some(machine) = machine(builder) else {
        return;
    };
    let platform = machine.platform("blk0").unwrap();
    platform.enable_device().unwrap();
    let table = platform.bar(TABLE_BAR);
    assert!(table.is_err(), "the table is not the driver's");
    let common = platform.bar(4).unwrap().remove(0).1;
    // Far enough that the device announces changes of its configuration, by vector 1.
    for status in [0, 1, 3] {
        common.write::<u8>(STATUS, status);
    }
    common.write::<u32>(0x8, 1);
    common.write::<u32>(0xc, 1);
    common.write::<u8>(STATUS, 0xb);
    common.write::<u16>(CONFIG_VECTOR, 1);
    assert_eq!(common.read::<u16>(CONFIG_VECTOR), 1);
    common.write::<u8>(STATUS, 0xf);

    let queue = platform.event_queue().unwrap();
    let mut events = [Event::default(); 4];
    let interrupt = platform.interrupt(1).unwrap();
    machine.resize("d0", 64).unwrap();
    assert_eq!(
        queue.wait(&mut events, within(&*platform, SILENCE_NS)),
        Ok(0)
    );
    assert_eq!(pending(&machine, "blk0"), 1 << 1);
    interrupt.bind(&*queue, 5).unwrap();
    assert_eq!(pending(&machine, "blk0"), 0);
    assert_eq!(queue.wait(&mut events, within(&*platform, LIMIT_NS)), Ok(1));
    assert_eq!(events[0], Event { key: 5, count: 1 });
    interrupt.unbind();
    machine.resize("d0", 32).unwrap();
    assert_eq!(
        queue.wait(&mut events, within(&*platform, SILENCE_NS)),
        Ok(0)
    );
    assert_eq!(pending(&machine, "blk0"), 1 << 1);
    interrupt.bind(&*queue, 6).unwrap();
    assert_eq!(queue.wait(&mut events, within(&*platform, LIMIT_NS)), Ok(1));
    assert_eq!(events[0].key, 6);
}

#[test]
fn what_the_bus_owns_is_refused() {
    let Some(machine) = machine(QtestMachine::builder().device("edu,id=edu0")) else {
        return;
    };
    let manifest = Manifest::new("without-dma", Class::OTHER, [0; 3], &[], &[bar(0)]);
    let platform = machine.platform_for("edu0", &manifest).unwrap();
    assert_eq!(platform.config_read(0, Width::U32), Ok(0x11e8_1234));
    assert!(platform.config_read(2, Width::U32).is_err(), "misaligned");
    assert!(platform.config_read(4096, Width::U8).is_err(), "outside");
    // BAR 0, the command register.
    assert!(platform.config_write(0x10, Width::U32, 0).is_err());
    assert!(platform.config_write(0x04, Width::U16, 0).is_err());
    assert!(platform.config_write(0x3c, Width::U8, 9).is_ok());
    assert!(
        platform.dma_region(4096).is_err(),
        "the manifest does not ask for DMA"
    );
    let registers = platform.bar(0).unwrap().remove(0).1;
    assert_eq!(registers.read::<u32>(0), u32::MAX, "nothing is decoded yet");
    platform.enable_device().unwrap();
    assert_eq!(registers.read::<u32>(0) & 0xff, 0xed);
}
