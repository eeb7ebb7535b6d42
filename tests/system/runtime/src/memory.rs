//! Heap, mappings, rights.

use alloc::vec::Vec;

use rt::{AsHandle, Error, MapAccess, Mapping, PrivateMemory, Rights, Vmo};

use crate::{Check, at, ensure, ensure_eq};

/// Blocks of many sizes, kept and dropped in a pattern, each with contents of its own.
pub fn heap() -> Check {
    let mut blocks: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut seed = 12345u64;
    for round in 0..4000usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = (seed >> 33) as usize;
        if random.is_multiple_of(3) && !blocks.is_empty() {
            let (tag, block) = blocks.swap_remove(random / 3 % blocks.len());
            ensure!(
                block.iter().all(|b| *b == tag as u8),
                "block {tag} was overwritten"
            );
        } else {
            let len = 1usize << (random % 15);
            let mut block = alloc::vec![round as u8; len + random % 13];
            if random.is_multiple_of(5) {
                block.resize(len * 2, round as u8);
            }
            blocks.push((round, block));
        }
        if blocks.len() > 300 {
            blocks.truncate(100);
        }
    }
    let large = alloc::vec![1u8; 8 << 20];
    ensure!(large.iter().step_by(4096).all(|b| *b == 1));
    Ok(())
}

pub fn mappings() -> Check {
    let (vmo, whole) = Mapping::create(20_000).map_err(at("create"))?;
    let part = Mapping::map(&vmo, 4096, 8192, MapAccess::Read).map_err(at("map"))?;
    whole.write(4096 + 8000, b"abc").map_err(at("write"))?;
    let mut bytes = [0; 3];
    part.read(8000, &mut bytes).map_err(at("read"))?;
    ensure_eq!(&bytes, b"abc");
    vmo.read(4096 + 8000, &mut bytes).map_err(at("vmo read"))?;
    ensure_eq!(&bytes, b"abc");
    ensure_eq!(part.write(0, b"x"), Err(Error::AccessDenied));

    let slice = vmo.slice(8192, 8192).map_err(at("slice"))?;
    slice.write(0, b"def").map_err(at("write"))?;
    whole.read(8192, &mut bytes).map_err(at("read"))?;
    ensure_eq!(&bytes, b"def");

    // A handle without MAP gives no mapping: so a driver gets its clients' payload.
    let rights = Rights::READ | Rights::WRITE | Rights::PIN;
    let payload = vmo.duplicate_with(rights).map_err(at("duplicate"))?;
    let mapped = Mapping::map(&payload, 0, 4096, MapAccess::Read);
    ensure_eq!(mapped.err(), Some(Error::AccessDenied));
    ensure_eq!(payload.duplicate().err(), Some(Error::AccessDenied));
    ensure_eq!(Vmo::create(0).err().is_some(), true);

    let mut private = PrivateMemory::new(100_000).map_err(at("private"))?;
    ensure!(private.as_slice().iter().all(|b| *b == 0));
    private.as_mut_slice().fill(3);
    ensure!(private.as_slice().iter().all(|b| *b == 3));

    let before = rt::Process::own_info().map_err(at("info"))?.pages;
    drop((private, whole, part, slice, payload, vmo));
    let after = rt::Process::own_info().map_err(at("info"))?.pages;
    ensure!(after + 25 <= before, "{before} pages before, {after} after");
    Ok(())
}
