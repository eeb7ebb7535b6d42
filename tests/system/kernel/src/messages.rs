//! Handles, channels and memory objects.

use rt::abi::{Error, MESSAGE_BYTES_MAX, Rights, VmoOp};
use rt::{AsHandle, Channel, Deadline, Event, HandleList, MapAccess, Mapping, Vmo};

use crate::{Failure, Kit, Test, check, must};

pub const TESTS: &[(&str, Test)] = &[
    ("handles: closed and reduced handles are refused", handles),
    ("channels: messages keep order and move handles", order),
    ("channels: a message that does not fit stays", too_small),
    ("channels: a closed end is noticed, with its epoch", closed),
    (
        "channels: a channel cannot be sent into itself",
        into_itself,
    ),
    ("channels: a full queue is refused, and drains", full),
    ("memory: sparse, sliced, resized, given back", memory),
    ("memory: rights decide what can be mapped", map_rights),
];

fn handles(_: &Kit) -> Result<(), Failure> {
    let event = must("event", Event::create())?;
    let raw = event.as_handle().raw();
    let reduced: Event = must("duplicate", event.duplicate_with(Rights::WAIT))?;
    check!(
        reduced.set() == Err(Error::AccessDenied),
        "a handle without SIGNAL signalled"
    );
    check!(
        reduced.duplicate().map(drop) == Err(Error::AccessDenied),
        "a handle without DUPLICATE was duplicated"
    );
    drop(event);
    let stale = rt::Handle::from_raw(raw);
    check!(
        stale.info().map(drop) == Err(Error::BadHandle),
        "a closed handle works"
    );
    Ok(())
}

fn pair() -> Result<(Channel, Channel), Failure> {
    must("channel", Channel::create())
}

fn order(_: &Kit) -> Result<(), Failure> {
    let (a, b) = pair()?;
    let event = must("event", Event::create())?;
    let koid = must("koid", event.koid())?;
    for n in 0..100u32 {
        let mut list = HandleList::new();
        if n == 50 {
            must("push", list.push(must("duplicate", event.duplicate())?))?;
        }
        let long = alloc::vec![n as u8; 1 + n as usize * 40];
        must("write", a.write(&long, &mut list))?;
    }
    let (mut bytes, mut list) = (alloc::vec![0; 8192], HandleList::new());
    for n in 0..100u32 {
        let got = must("read", b.read(&mut bytes, &mut list, Deadline::NOW))?;
        check!(
            got.len == 1 + n as usize * 40,
            "message {n} has {} bytes",
            got.len
        );
        check!(
            bytes[..got.len].iter().all(|x| *x == n as u8),
            "message {n} is damaged"
        );
        check!(
            list.len() == usize::from(n == 50),
            "message {n} has {} handles",
            list.len()
        );
        if let Some(handle) = list.pop_front() {
            check!(
                must("koid", handle.koid())? == koid,
                "another object arrived"
            );
        }
    }
    check!(
        b.read(&mut bytes, &mut list, Deadline::NOW).is_err(),
        "a message too many"
    );
    Ok(())
}

fn too_small(_: &Kit) -> Result<(), Failure> {
    let (a, b) = pair()?;
    must("write", a.write(&[9; 1000], &mut HandleList::new()))?;
    let (mut bytes, mut list) = (alloc::vec![0; 2000], HandleList::new());
    let small = b.read(&mut bytes[..999], &mut list, Deadline::NOW);
    check!(
        small == Err(Error::BufferTooSmall),
        "a buffer of 999 bytes gave {small:?}"
    );
    let got = must("read", b.read(&mut bytes, &mut list, Deadline::NOW))?;
    check!(got.len == 1000, "{} bytes", got.len);
    let huge = alloc::vec![0; MESSAGE_BYTES_MAX + 1];
    check!(
        a.write(&huge, &mut list) == Err(Error::OutOfRange),
        "a message beyond the limit went through"
    );
    Ok(())
}

fn closed(_: &Kit) -> Result<(), Failure> {
    let (a, b) = pair()?;
    must("write", b.write(&[1], &mut HandleList::new()))?;
    must("epoch", b.set_epoch(42))?;
    drop(b);
    let (mut bytes, mut list) = ([0; 16], HandleList::new());
    must(
        "what was sent before",
        a.read(&mut bytes, &mut list, Deadline::NOW),
    )?;
    check!(
        a.read(&mut bytes, &mut list, Deadline::NOW).map(|_| ()) == Err(Error::PeerClosed),
        "the end was not noticed"
    );
    match a.call(&[1], &mut list, &mut bytes, Deadline::after_ms(100)) {
        Err(failure) => check!(
            failure.error == Error::PeerClosed && failure.epoch == 42,
            "{:?} with epoch {}",
            failure.error,
            failure.epoch
        ),
        Ok(_) => return Err("a call to nobody was answered".into()),
    }
    Ok(())
}

fn into_itself(_: &Kit) -> Result<(), Failure> {
    let (a, b) = pair()?;
    let mut list = HandleList::new();
    must("push", list.push(b))?;
    check!(
        a.write(&[], &mut list) == Err(Error::InvalidArgument),
        "it went into itself"
    );
    Ok(())
}

fn full(_: &Kit) -> Result<(), Failure> {
    let (a, b) = pair()?;
    let mut list = HandleList::new();
    let mut sent = 0;
    while a.write(&[1, 2, 3], &mut list).is_ok() {
        sent += 1;
        check!(sent < 100_000, "a queue without an end");
    }
    let mut bytes = [0; 8];
    for _ in 0..sent {
        must("read", b.read(&mut bytes, &mut list, Deadline::NOW))?;
    }
    must("write again", a.write(&[1], &mut list))
}

fn memory(_: &Kit) -> Result<(), Failure> {
    let vmo = must("vmo", Vmo::create(1 << 30))?;
    must("write", vmo.write((1 << 30) - 8, &[5; 8]))?;
    check!(
        must("info", vmo.vmo_info())?.committed_pages == 1,
        "a sparse object has more than a page"
    );
    check!(
        vmo.write((1 << 30) - 7, &[5; 8]) == Err(Error::OutOfRange),
        "a write beyond the end"
    );
    let slice = must("slice", vmo.slice((1 << 30) - 4096, 4096))?;
    let mut bytes = [0; 8];
    must("read", slice.read(4088, &mut bytes))?;
    check!(bytes == [5; 8], "the slice shows {bytes:?}");
    check!(
        vmo.slice(1, 4096).is_err() && vmo.slice(1 << 30, 4096).is_err(),
        "a slice outside"
    );

    let mapping = must("map", Mapping::map(&slice, 0, 4096, MapAccess::ReadWrite))?;
    must("write", mapping.write(0, &[1; 16]))?;
    check!(
        vmo.resize(1 << 20) == Err(Error::BadState),
        "shrunk under a mapping"
    );
    must("decommit", vmo.decommit((1 << 30) - 4096, 4096))?;
    must("read", mapping.read(4088, &mut bytes))?;
    check!(
        bytes == [0; 8],
        "a page that was given back still shows {bytes:?}"
    );
    drop(mapping);
    drop(slice);
    must("resize", vmo.resize(1 << 20))?;
    check!(
        vmo.read(1 << 20, &mut bytes) == Err(Error::OutOfRange),
        "a read beyond the new end"
    );
    let _ = VmoOp::Read;
    Ok(())
}

fn map_rights(_: &Kit) -> Result<(), Failure> {
    let vmo = must("vmo", Vmo::create(4096))?;
    let without_map: Vmo = must(
        "duplicate",
        vmo.duplicate_with(Rights::READ | Rights::WRITE | Rights::PIN),
    )?;
    let mapped = Mapping::map(&without_map, 0, 4096, MapAccess::Read);
    check!(
        mapped.map(drop) == Err(Error::AccessDenied),
        "mapped without the right to"
    );
    let read_only: Vmo = must("duplicate", vmo.duplicate_with(Rights::READ | Rights::MAP))?;
    let mapped = Mapping::map(&read_only, 0, 4096, MapAccess::ReadWrite);
    check!(
        mapped.map(drop) == Err(Error::AccessDenied),
        "mapped writable without the right to"
    );
    check!(
        read_only.write(0, &[1]) == Err(Error::AccessDenied),
        "written without the right to"
    );
    must("map", Mapping::map(&read_only, 0, 4096, MapAccess::Read))?;
    Ok(())
}
