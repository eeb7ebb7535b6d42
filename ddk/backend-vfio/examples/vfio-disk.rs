//! Drives disks of PCI functions from a Linux process: prints what they hold, writes, and tries what a
//! device must not be able to do.
//!
//! `vfio-disk ADDRESS...`, for instance `vfio-disk 0000:00:10.0`. The first mebibyte of each disk is printed
//! as a hash; **40 KiB from 64 KiB on are overwritten**. `vfio-pci` has to have the functions.

use std::error::Error;
use std::process::ExitCode;

use ddk::manifest::Identity;
use ddk::{Described, DeviceAccess, PinnedBuffer};
use ddk_backend_vfio::VfioDevice;
use ddk_class_block::{Access, BlockDevice, DirectDisks, Operation, Status};
use devmgr::node::Device;
use nvme::Nvme;
use sha2::{Digest, Sha256};
use virtio_blk::VirtioBlk;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// An answer may take that long; then the device is taken for silent.
const ANSWER_LIMIT_MS: u32 = 20_000;
/// What is read and hashed, in pieces.
const HASHED_BYTES: u64 = 1 << 20;
const PIECE_BYTES: u32 = 32 << 10;
/// What is overwritten.
const WRITTEN_FROM: u64 = 64 << 10;
const WRITTEN_BYTES: u32 = 40 << 10;
/// Where data starts in its buffer: not at a page's start.
const BUFFER_OFFSET: u64 = 512;

fn main() -> ExitCode {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    if addresses.is_empty() {
        eprintln!("usage: vfio-disk ADDRESS...");
        return ExitCode::from(2);
    }
    for address in addresses {
        if let Err(error) = drive(&address) {
            eprintln!("vfio-disk: {address}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn drive(address: &str) -> Fallible<()> {
    let device = VfioDevice::open(address)?;
    let function = Device::Pci(device.info().clone());
    let identity = function.identity().ok_or("it has no identity")?;
    if matches::<Nvme>(&identity) {
        exercise::<Nvme>(address, &device)
    } else if matches::<VirtioBlk>(&identity) {
        exercise::<VirtioBlk>(address, &device)
    } else {
        Err("no driver here matches".into())
    }
}

fn matches<D: Described>(identity: &Identity<'_>) -> bool {
    let manifest = D::MANIFEST;
    manifest.matches().iter().any(|rule| rule.matches(identity))
}

fn exercise<D: BlockDevice>(address: &str, device: &VfioDevice) -> Fallible<()> {
    let manifest = D::MANIFEST;
    let name = manifest.name();
    let pages = device.free_pages();
    for epoch in 1..=2 {
        let platform = device.platform_for(&manifest)?;
        expect("epoch", platform.epoch(), epoch)?;
        let mut disks: DirectDisks<D> = DirectDisks::start(platform)?;
        for number in 0..disks.disks().len() {
            let name = format!("{address} {name} {number}");
            contents(&name, device, &mut disks, number)?;
        }
        contained(device, &mut disks)?;
        println!("{address} {name} contained, driver {epoch} done");
        if epoch == 1 {
            // As if it had crashed; the next one finds the device fenced.
            drop(disks);
        } else {
            disks.stop()?;
        }
        expect("free pages", device.free_pages(), pages)?;
    }
    Ok(())
}

/// Reads, writes and reads back.
fn contents<D: BlockDevice>(
    name: &str,
    device: &VfioDevice,
    disks: &mut DirectDisks<D>,
    number: usize,
) -> Fallible<()> {
    let info = disks.disks().into_iter().nth(number);
    let info = info.ok_or("no such disk")?;
    let block = 1u64 << info.block_shift;
    println!("{name} blocks={} block={block}", info.block_count);
    let bytes = PIECE_BYTES.max(WRITTEN_BYTES) as usize + BUFFER_OFFSET as usize;
    let (buffer, memory) = device.payload(bytes, DeviceAccess::Both)?;
    let at = BUFFER_OFFSET as usize;
    let len = WRITTEN_BYTES as usize;

    let mut hash = Sha256::new();
    for from in (0..HASHED_BYTES).step_by(PIECE_BYTES as usize) {
        let read = data(Operation::Read, from / block, PIECE_BYTES, &buffer);
        request(disks, number, read)?;
        hash.update(memory.read(at, PIECE_BYTES as usize));
    }
    println!("{name} sha256={:x}", hash.finalize());

    let news: Vec<u8> = (0..WRITTEN_BYTES)
        .map(|n| (n / 251) as u8 ^ n as u8 ^ number as u8)
        .collect();
    memory.write(at, &news);
    let lba = WRITTEN_FROM / block;
    request(
        disks,
        number,
        data(Operation::Write, lba, WRITTEN_BYTES, &buffer),
    )?;
    let flush = Access {
        operation: Operation::Flush,
        lba: 0,
        length: 0,
        data: None,
        flags: 0,
    };
    request(disks, number, flush)?;
    memory.write(at, &vec![0; len]);
    let back = data(Operation::Read, lba, WRITTEN_BYTES, &buffer);
    request(disks, number, back)?;
    if memory.read(at, len) != news {
        return Err(format!("{name}: what was written does not read back").into());
    }

    // A reset with a request under way; the next one is answered.
    let unanswered = data(Operation::Read, 0, PIECE_BYTES, &buffer);
    let pushed = disks.push(0, number, unanswered);
    pushed.map_err(|e| format!("{e:?}"))?;
    disks.reset()?;
    request(disks, number, back)?;
    if memory.read(at, len) != news {
        return Err(format!("{name}: after a reset something else is read").into());
    }
    Ok(())
}

/// The device is told to write to memory that it may only read: the IOMMU must not let it.
fn contained<D: BlockDevice>(device: &VfioDevice, disks: &mut DirectDisks<D>) -> Fallible<()> {
    let (buffer, memory) = device.payload(PIECE_BYTES as usize, DeviceAccess::Reads)?;
    let mark = vec![0xa5; PIECE_BYTES as usize];
    memory.write(0, &mark);
    let access = Access {
        operation: Operation::Read,
        lba: 0,
        length: PIECE_BYTES,
        data: Some((&buffer, 0)),
        flags: 0,
    };
    let limit = disks.deadline_in_ms(1000);
    // Whatever the device says of it, or nothing, or that it is broken.
    let answer = disks.run(0, access, limit);
    if memory.read(0, mark.len()) != mark {
        return Err("the device wrote to memory that it may only read".into());
    }
    println!("a write where the device may not: {answer:?}");
    disks.reset()?;
    Ok(())
}

fn data(operation: Operation, lba: u64, length: u32, buffer: &PinnedBuffer) -> Access<'_> {
    Access {
        operation,
        lba,
        length,
        data: Some((buffer, BUFFER_OFFSET)),
        flags: 0,
    }
}

fn request<D: BlockDevice>(
    disks: &mut DirectDisks<D>,
    number: usize,
    access: Access<'_>,
) -> Fallible<()> {
    let limit = disks.deadline_in_ms(ANSWER_LIMIT_MS);
    match disks.run(number, access, limit)? {
        Some(Status::OK) => Ok(()),
        Some(status) => Err(format!("{:?}: {}", access.operation, status.text()).into()),
        None => Err(format!("{:?}: no answer", access.operation).into()),
    }
}

fn expect<T: PartialEq + std::fmt::Display>(what: &str, seen: T, expected: T) -> Fallible<()> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: {seen}, expected {expected}").into())
}
