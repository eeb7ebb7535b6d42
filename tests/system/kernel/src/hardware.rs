//! Resources, interrupts and DMA.

use rt::abi::{Error, Packet, ResourceKind, Rights};
use rt::{AckMode, AsHandle, Deadline, DmaDomain, Interrupt, PinAccess, Port, Vmo};

use crate::{Failure, Kit, Test, check, must};

pub const TESTS: &[(&str, Test)] = &[
    (
        "resources: children are subsets, and die with their parent",
        resources,
    ),
    ("interrupts: one packet until acknowledged", interrupts),
    ("interrupts: vectors are given back", vectors),
    (
        "dma: what is pinned stays, what was abandoned is in quarantine",
        dma,
    ),
    ("dma: rights and ranges", dma_rights),
];

fn resources(kit: &Kit) -> Result<(), Failure> {
    let ports = must("derive", kit.root.derive(ResourceKind::IoPort, 0x300, 16))?;
    check!(
        ports.derive(ResourceKind::IoPort, 0x308, 9).map(drop) == Err(Error::AccessDenied),
        "more than the parent"
    );
    check!(
        ports.derive(ResourceKind::Irq, 0x300, 1).map(drop) == Err(Error::AccessDenied),
        "another kind"
    );
    check!(
        ports.derive(ResourceKind::Root, 0, 1).map(drop) == Err(Error::AccessDenied),
        "a root"
    );
    let child = must("derive", ports.derive(ResourceKind::IoPort, 0x308, 8))?;
    must("revoke", ports.revoke())?;
    check!(
        must("info", child.resource_info())?.revoked == 1,
        "the child lives on"
    );
    check!(
        child.derive(ResourceKind::IoPort, 0x308, 1).map(drop) == Err(Error::Cancelled),
        "a revoked resource still gives"
    );
    let ram = must(
        "derive",
        kit.root.derive(ResourceKind::Mmio, 0x20_0000, 4096),
    )?;
    let mapped = Vmo::physical(&ram, 0x20_0000, 4096, rt::CacheMode::Uncached);
    check!(
        mapped.map(drop) == Err(Error::AccessDenied),
        "RAM as device memory"
    );
    Ok(())
}

fn next(port: &Port) -> rt::Result<Packet> {
    let mut packets = [Packet::default(); 1];
    port.wait(&mut packets, Deadline::NOW)?;
    Ok(packets[0])
}

fn interrupts(_: &Kit) -> Result<(), Failure> {
    let port = must("port", Port::create())?;
    let irq = must("interrupt", Interrupt::virtual_interrupt())?;
    must("bind", irq.bind(&port, 3, AckMode::Explicit))?;
    for _ in 0..5 {
        must("trigger", irq.trigger())?;
    }
    let packet = must("packet", next(&port))?;
    check!(
        packet.kind == Packet::INTERRUPT && packet.key == 3 && packet.value == 5,
        "got {packet:?}"
    );
    must("trigger", irq.trigger())?;
    check!(next(&port).is_err(), "a packet before the acknowledgement");
    must("acknowledge", irq.ack())?;
    let packet = must("packet", next(&port))?;
    check!(packet.value == 1, "got {packet:?}");
    check!(
        irq.bind(&port, 4, AckMode::Explicit).is_err(),
        "bound twice"
    );
    must("unbind", irq.unbind())?;
    must("bind again", irq.bind(&port, 4, AckMode::OnDequeue))?;
    for _ in 0..3 {
        must("trigger", irq.trigger())?;
        check!(must("packet", next(&port))?.key == 4, "another key");
    }
    Ok(())
}

fn vectors(kit: &Kit) -> Result<(), Failure> {
    let msi = must("derive", kit.root.derive(ResourceKind::Msi, 0, 1024))?;
    for _ in 0..3 {
        let mut held = alloc::vec::Vec::new();
        loop {
            match Interrupt::message(&msi, 0) {
                Ok(irq) => held.push(irq),
                Err(Error::LimitReached) => break,
                Err(error) => return Err(alloc::format!("{error}")),
            }
        }
        check!(held.len() > 64, "only {} vectors", held.len());
        let info = must("info", held[0].interrupt_info())?;
        check!(
            info.address >> 20 == 0xfee,
            "message address {:#x}",
            info.address
        );
    }
    Ok(())
}

fn dma(kit: &Kit) -> Result<(), Failure> {
    let device = must("derive", kit.root.derive(ResourceKind::DmaDevice, 0x28, 1))?;
    let domain = must("domain", DmaDomain::create(&device, 0x28))?;
    let vmo = must("vmo", Vmo::create(8 * 4096))?;
    let mut addresses = [0; 4];
    let pin = must(
        "pin",
        domain.pin(
            &vmo,
            4096,
            4 * 4096,
            PinAccess::DeviceReadsAndWrites,
            &mut addresses,
        ),
    )?;
    check!(
        addresses.iter().all(|a| *a != 0 && a % 4096 == 0),
        "addresses {addresses:x?}"
    );
    check!(
        vmo.decommit(0, 8 * 4096) == Err(Error::BadState),
        "pinned pages were given back"
    );
    must("decommit what is not pinned", vmo.decommit(5 * 4096, 4096))?;
    drop(vmo);
    check!(
        must("info", domain.dma_info())?.pinned_pages == 4,
        "the pin does not hold its pages"
    );
    // The driver is gone without a word.
    drop(pin);
    let info = must("info", domain.dma_info())?;
    check!(info.pins == 0 && info.quarantined_pages == 4, "{info:?}");
    check!(
        must("recover", domain.recover())? == 4,
        "another count was recovered"
    );
    check!(
        must("info", domain.dma_info())?.quarantined_pages == 0,
        "the quarantine stays"
    );

    let vmo = must("vmo", Vmo::create_contiguous(16 * 4096, &device))?;
    let mut addresses = [0; 16];
    let pin = must(
        "pin",
        domain.pin(
            &vmo,
            0,
            16 * 4096,
            PinAccess::DeviceReadsAndWrites,
            &mut addresses,
        ),
    )?;
    check!(
        addresses.windows(2).all(|w| w[1] == w[0] + 4096),
        "not contiguous: {addresses:x?}"
    );
    must("unpin", pin.unpin())?;
    check!(
        must("info", domain.dma_info())?.quarantined_pages == 0,
        "an orderly end went into quarantine"
    );
    Ok(())
}

fn dma_rights(kit: &Kit) -> Result<(), Failure> {
    let device = must("derive", kit.root.derive(ResourceKind::DmaDevice, 8, 1))?;
    check!(
        DmaDomain::create(&device, 9).map(drop) == Err(Error::AccessDenied),
        "another device's domain"
    );
    let domain = must("domain", DmaDomain::create(&device, 8))?;
    let vmo = must("vmo", Vmo::create(4096))?;
    let mut address = [0; 1];
    let no_pin: Vmo = must(
        "duplicate",
        vmo.duplicate_with(Rights::READ | Rights::WRITE | Rights::MAP),
    )?;
    let pin = domain.pin(
        &no_pin,
        0,
        4096,
        PinAccess::DeviceReadsAndWrites,
        &mut address,
    );
    check!(
        pin.map(drop) == Err(Error::AccessDenied),
        "pinned without the right to"
    );
    let read_only: Vmo = must("duplicate", vmo.duplicate_with(Rights::READ | Rights::PIN))?;
    let pin = domain.pin(
        &read_only,
        0,
        4096,
        PinAccess::DeviceReadsAndWrites,
        &mut address,
    );
    check!(
        pin.map(drop) == Err(Error::AccessDenied),
        "a device may write what its owner may not"
    );
    let pin = domain.pin(
        &vmo,
        4096,
        4096,
        PinAccess::DeviceReadsAndWrites,
        &mut address,
    );
    check!(pin.map(drop).is_err(), "pinned beyond the end");
    let weak: DmaDomain = must("duplicate", domain.duplicate_with(Rights::WRITE))?;
    check!(
        weak.recover() == Err(Error::AccessDenied),
        "a driver ended its own quarantine"
    );
    Ok(())
}
