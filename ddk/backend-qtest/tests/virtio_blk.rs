//! The driver for virtio disks against QEMU's devices.

mod disk;

use ddk::{DeviceAccess, DriverError};
use ddk_backend_qtest::{Disk, QtestMachine};
use ddk_class_block::{DirectDisks, Operation, Status};
use virtio_blk::VirtioBlk;

use disk::{ANSWER_LIMIT_MS, Image, access, machine, one, pattern};

const BLOCK: usize = 512;

fn start(machine: &QtestMachine, device: &str) -> DirectDisks<VirtioBlk> {
    disk::start(machine, device)
}

#[test]
fn reads_what_the_file_holds_and_writes_what_the_file_then_holds() {
    let image = Image::new(&pattern(1, 1 << 20));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0,serial=qtest-1");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    let info = disk.disks().remove(0);
    assert_eq!((info.block_shift, info.block_count), (9, 2048));
    assert_eq!(info.serial, "qtest-1");

    // Longer than a page and not at the start of one: the device addresses are scattered.
    let (buffer, memory) = machine.payload(5 * 4096, DeviceAccess::Both).unwrap();
    let (offset, len) = (1536, 16 * 1024);
    let status = one(
        &mut disk,
        access(Operation::Read, 3, len, Some((&buffer, offset))),
    );
    assert_eq!(status, Status::OK);
    assert_eq!(
        memory.read(offset as usize, len as usize),
        image.bytes(3 * BLOCK, len as usize)
    );
    assert!(memory.read(0, offset as usize).iter().all(|b| *b == 0));

    let news = pattern(0x5a, len as usize);
    memory.write(offset as usize, &news);
    let status = one(
        &mut disk,
        access(Operation::Write, 100, len, Some((&buffer, offset))),
    );
    assert_eq!(status, Status::OK);
    assert_eq!(
        one(&mut disk, access(Operation::Flush, 0, 0, None)),
        Status::OK
    );
    assert_eq!(image.bytes(100 * BLOCK, len as usize), news);
    assert_eq!(
        image.bytes(99 * BLOCK, BLOCK),
        pattern(1, 1 << 20)[99 * BLOCK..100 * BLOCK]
    );
    disk.stop().unwrap();
}

#[test]
fn several_devices_of_one_machine_have_a_platform_each() {
    let images = [
        Image::new(&pattern(1, 1 << 16)),
        Image::new(&pattern(2, 1 << 17)),
    ];
    let builder = QtestMachine::builder()
        .cpus(2)
        .disk(Disk::new("d0", images[0].path()))
        .disk(Disk::new("d1", images[1].path()).read_only())
        .device("virtio-blk-pci,drive=d0,id=blk0,num-queues=2")
        .device("virtio-blk-pci,drive=d1,id=blk1,num-queues=2");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disks = [start(&machine, "blk0"), start(&machine, "blk1")];
    assert!(machine.platform("blk0").is_err(), "it is in use");
    assert!(machine.platform("blk2").is_err(), "it is not there");
    assert_eq!(disks[0].queue_count(), 2);
    let (buffer, memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
    for (disk, image) in disks.iter_mut().zip(&images) {
        for queue in 0..2 {
            disk.push(
                queue,
                0,
                access(Operation::Read, 8, 4096, Some((&buffer, 0))),
            )
            .unwrap();
            let limit = disk.deadline_in_ms(ANSWER_LIMIT_MS);
            let (_, status) = disk.wait(queue, limit).unwrap().expect("an answer");
            assert_eq!(status, Status::OK);
            assert_eq!(memory.read(0, 4096), image.bytes(8 * BLOCK, 4096));
        }
    }
    assert!(disks[1].disks()[0].read_only);
    let [first, second] = disks;
    first.stop().unwrap();
    second.stop().unwrap();
    // The next driver of the device is its second.
    let platform = machine.platform("blk0").unwrap();
    assert_eq!(platform.epoch(), 2);
}

#[test]
fn an_error_of_the_medium_costs_its_request() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()).bad_sector(40))
        .device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    let (buffer, _memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
    let mut read = |lba| {
        one(
            &mut disk,
            access(Operation::Read, lba, 512, Some((&buffer, 0))),
        )
    };
    assert_eq!(read(39), Status::OK);
    assert_eq!(read(40), Status::IO_ERROR);
    assert_eq!(read(41), Status::OK);
    disk.stop().unwrap();
}

#[test]
fn a_disk_that_is_held_answers_when_it_is_let_go() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    let (buffer, memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
    machine.hold("d0").unwrap();
    disk.push(0, 0, access(Operation::Read, 0, 4096, Some((&buffer, 0))))
        .unwrap();
    assert_eq!(
        disk.wait(0, disk.deadline_in_ms(200)).unwrap(),
        None,
        "it is silent"
    );
    machine.release("d0").unwrap();
    let done = disk.wait(0, disk.deadline_in_ms(ANSWER_LIMIT_MS)).unwrap();
    assert_eq!(done.map(|(_, status)| status), Some(Status::OK));
    assert_eq!(memory.read(0, 4096), image.bytes(0, 4096));

    // And a reset takes it back from a device that stays silent.
    machine.hold("d0").unwrap();
    disk.push(0, 0, access(Operation::Read, 0, 4096, Some((&buffer, 0))))
        .unwrap();
    assert_eq!(disk.wait(0, disk.deadline_in_ms(50)).unwrap(), None);
    disk.reset().unwrap();
    machine.release("d0").unwrap();
    let status = one(
        &mut disk,
        access(Operation::Read, 0, 4096, Some((&buffer, 0))),
    );
    assert_eq!(status, Status::OK);
    disk.stop().unwrap();
}

#[test]
fn a_device_that_is_pulled_out_is_gone() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .pluggable_device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    let (buffer, _memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
    let status = one(
        &mut disk,
        access(Operation::Read, 0, 512, Some((&buffer, 0))),
    );
    assert_eq!(status, Status::OK);
    machine.unplug("blk0").unwrap();
    let gone = disk.reset().unwrap_err();
    assert!(matches!(gone, DriverError::DeviceGone { .. }), "{gone}");
}

#[test]
fn when_qemu_ends_every_device_is_gone() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    machine.kill();
    let gone = disk.reset().unwrap_err();
    assert!(matches!(gone, DriverError::DeviceGone { .. }), "{gone}");
}

#[test]
fn a_resize_is_announced_by_the_interrupt_for_changes() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut disk = start(&machine, "blk0");
    machine.resize("d0", 64).unwrap();
    let limit = disk.deadline_in_ms(ANSWER_LIMIT_MS);
    assert!(
        disk.wait_for_change(limit).unwrap(),
        "the device says nothing"
    );
    assert_eq!(disk.disks()[0].block_count, 64);
    disk.stop().unwrap();
}

#[test]
fn memory_comes_back_when_a_driver_is_gone() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()))
        .device("virtio-blk-pci,drive=d0,id=blk0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let before = machine.free_pages();
    for round in 1..=3 {
        let mut disk = start(&machine, "blk0");
        let (buffer, memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
        let status = one(
            &mut disk,
            access(Operation::Read, 8, 4096, Some((&buffer, 0))),
        );
        assert_eq!(status, Status::OK);
        assert_eq!(memory.read(0, 4096), image.bytes(4096, 4096));
        if round == 2 {
            // As if it had crashed: the fence resets the device.
            drop(disk);
        } else {
            disk.stop().unwrap();
        }
        drop((buffer, memory));
        assert_eq!(machine.free_pages(), before, "round {round}");
    }
}
