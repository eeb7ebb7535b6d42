//! The driver for NVMe against QEMU's device.

mod disk;

use ddk::DeviceAccess;
use ddk_backend_qtest::{Disk, QtestMachine};
use ddk_class_block::{DirectDisks, Operation, Status};
use nvme::Nvme;

use disk::{ANSWER_LIMIT_MS, Image, access, machine, one, pattern, start};

#[test]
fn namespaces_are_disks_and_hold_what_their_files_hold() {
    let images = [
        Image::new(&pattern(1, 1 << 20)),
        Image::new(&pattern(2, 1 << 20)),
    ];
    let builder = QtestMachine::builder()
        .cpus(2)
        .disk(Disk::new("d0", images[0].path()))
        .disk(Disk::new("d1", images[1].path()))
        .device("nvme,id=nvme0,serial=qtest-2")
        .device("nvme-ns,drive=d0,bus=nvme0")
        .device("nvme-ns,drive=d1,bus=nvme0,logical_block_size=4096,physical_block_size=4096");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut nvme: DirectDisks<Nvme> = start(&machine, "nvme0");
    let disks = nvme.disks();
    assert_eq!(nvme.queue_count(), 2);
    let sizes: Vec<_> = disks
        .iter()
        .map(|d| (d.block_shift, d.block_count))
        .collect();
    assert_eq!(sizes, [(9, 2048), (12, 256)]);
    // Five pages and a bit, not from a page's start: a list of PRPs over scattered pages.
    let (buffer, memory) = machine.payload(8 * 4096, DeviceAccess::Both).unwrap();
    let (offset, len) = (512u64, 5 * 4096u32);
    for (number, image) in images.iter().enumerate() {
        let lba = 16;
        let at = lba as usize * (1 << disks[number].block_shift);
        let limit = nvme.deadline_in_ms(ANSWER_LIMIT_MS);
        let read = access(Operation::Read, lba, len, Some((&buffer, offset)));
        assert_eq!(nvme.run(number, read, limit), Ok(Some(Status::OK)));
        assert_eq!(
            memory.read(offset as usize, len as usize),
            image.bytes(at, len as usize)
        );
        let news = pattern(0x70 + number as u8, len as usize);
        memory.write(offset as usize, &news);
        let write = access(Operation::Write, lba, len, Some((&buffer, offset)));
        assert_eq!(nvme.run(number, write, limit), Ok(Some(Status::OK)));
        let flush = access(Operation::Flush, 0, 0, None);
        assert_eq!(nvme.run(number, flush, limit), Ok(Some(Status::OK)));
        assert_eq!(image.bytes(at, len as usize), news);
        // All namespaces are there again after a reset.
        nvme.reset().unwrap();
    }
    nvme.stop().unwrap();
}

#[test]
fn an_error_of_the_medium_and_a_silent_disk() {
    let image = Image::new(&pattern(1, 1 << 16));
    let builder = QtestMachine::builder()
        .disk(Disk::new("d0", image.path()).bad_sector(40))
        .device("nvme,id=nvme0,serial=qtest-3,drive=d0");
    let Some(machine) = machine(builder) else {
        return;
    };
    let mut nvme: DirectDisks<Nvme> = start(&machine, "nvme0");
    let (buffer, _memory) = machine.payload(4096, DeviceAccess::Both).unwrap();
    let read = |lba| access(Operation::Read, lba, 512, Some((&buffer, 0)));
    assert_eq!(one(&mut nvme, read(39)), Status::OK);
    assert_eq!(one(&mut nvme, read(40)), Status::IO_ERROR);
    machine.hold("d0").unwrap();
    nvme.push(0, 0, read(0)).unwrap();
    assert_eq!(nvme.wait(0, nvme.deadline_in_ms(100)).unwrap(), None);
    nvme.reset().unwrap();
    machine.release("d0").unwrap();
    assert_eq!(one(&mut nvme, read(41)), Status::OK);
    nvme.stop().unwrap();
}
