//! Mappings and rights, over the host's stand-in for the kernel.
#![allow(missing_docs, reason = "a test")]

use std::sync::atomic::Ordering;

use ring::{Consumer, Layout, Producer};
use sys::{
    AsHandle, Error, MapAccess, Mapping, MmioRegion, PrivateMemory, Rights, SharedMapping, Vmo,
};

#[test]
fn mappings_of_one_vmo_show_the_same_bytes() {
    let (vmo, a) = Mapping::create(10_000).unwrap();
    let b = Mapping::map(&vmo, 4096, 5000, MapAccess::Read).unwrap();
    a.write(4096 + 4990, b"0123456789").unwrap();
    let mut bytes = [0; 10];
    b.read(4990, &mut bytes).unwrap();
    assert_eq!(&bytes, b"0123456789");
    vmo.read(4096 + 4990, &mut bytes).unwrap();
    assert_eq!(&bytes, b"0123456789");
    a.fill(0, 10, 7).unwrap();
    a.atomic_u32(4)
        .unwrap()
        .store(0x0102_0304, Ordering::Relaxed);
    vmo.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7, 7, 7, 7, 4, 3, 2, 1, 7, 7]);

    assert_eq!(a.read(9_991, &mut bytes), Err(Error::OutOfRange));
    assert_eq!(a.read(usize::MAX, &mut bytes), Err(Error::OutOfRange));
    assert_eq!(b.write(0, &bytes), Err(Error::AccessDenied));
    assert_eq!(b.atomic_u32(0).err(), Some(Error::AccessDenied));
    assert_eq!(a.atomic_u32(2).err(), Some(Error::InvalidArgument));
    assert_eq!(a.atomic_u64(9_996).err(), Some(Error::OutOfRange));
    assert_eq!(a.copy_from(8, &a, 0, 9), Err(Error::InvalidArgument));
    a.copy_from(9, &a, 0, 9).unwrap();
    let mut vector = vec![1];
    a.read_to_vec(9, 5, &mut vector).unwrap();
    assert_eq!(vector, [1, 7, 7, 7, 7, 4]);
}

#[test]
fn long_copies_are_whole() {
    let vmo = Vmo::create(1 << 20).unwrap();
    let bytes: Vec<u8> = (0..700_001u32)
        .map(|i| (i.wrapping_mul(77) >> 5) as u8)
        .collect();
    vmo.write(5000, &bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    vmo.read(5000, &mut back).unwrap();
    assert!(back == bytes);
    assert_eq!(vmo.read(400_000, &mut back), Err(Error::OutOfRange));
    assert_eq!(vmo.commit(4096, 1 << 20), Err(Error::OutOfRange));
    vmo.commit(0, 1 << 20).unwrap();
    vmo.read(0, &mut []).unwrap();
}

#[test]
fn rights_only_shrink() {
    let vmo = Vmo::create(4096).unwrap();
    let payload = vmo
        .duplicate_with(Rights::READ | Rights::WRITE | Rights::PIN)
        .unwrap();
    assert_eq!(
        Mapping::map(&payload, 0, 4096, MapAccess::Read).err(),
        Some(Error::AccessDenied)
    );
    assert_eq!(payload.duplicate().err(), Some(Error::AccessDenied));
    let read = vmo
        .duplicate_with(Rights::READ | Rights::MAP | Rights::DUPLICATE)
        .unwrap();
    assert!(Mapping::map(&read, 0, 4096, MapAccess::Read).is_ok());
    let write = Mapping::map(&read, 0, 4096, MapAccess::ReadWrite);
    assert_eq!(write.err(), Some(Error::AccessDenied));
    assert_eq!(read.write(0, b"x"), Err(Error::AccessDenied));
    assert_eq!(
        read.duplicate_with(Rights::ALL).err(),
        Some(Error::AccessDenied)
    );
}

#[test]
fn private_memory_is_zeroed_and_writable() {
    let mut memory = PrivateMemory::new(5000).unwrap();
    assert_eq!(memory.as_slice().len(), 8192);
    assert!(memory.as_slice().iter().all(|b| *b == 0));
    memory.as_mut_slice()[8191] = 9;
    assert_eq!(memory.as_slice()[8191], 9);
    assert_eq!(PrivateMemory::new(0).err(), Some(Error::InvalidArgument));
}

#[test]
fn registers_are_checked_for_place_and_width() {
    let vmo = Vmo::create(4096).unwrap();
    let region = MmioRegion::map(&vmo, 0, 64).unwrap();
    region.write(60, 0xaabb_ccddu32).unwrap();
    assert_eq!(region.read::<u16>(62), Ok(0xaabb));
    assert_eq!(region.read::<u8>(60), Ok(0xdd));
    assert_eq!(region.read::<u64>(56), Ok(0xaabb_ccdd_0000_0000));
    assert_eq!(region.read::<u32>(62), Err(Error::OutOfRange));
    assert_eq!(region.read::<u32>(64), Err(Error::OutOfRange));
    assert_eq!(region.read::<u32>(usize::MAX - 3), Err(Error::OutOfRange));
    let read_only = MmioRegion::map_read_only(&vmo, 0, 64).unwrap();
    assert_eq!(read_only.write(0, 1u8), Err(Error::AccessDenied));
}

#[test]
fn rings_live_in_mappings() {
    let layout = Layout::of::<[u64; 4]>(16).unwrap();
    let (vmo, near) = Mapping::create(2 * layout.size_bytes()).unwrap();
    let far = Mapping::map(&vmo, 0, near.len(), MapAccess::ReadWrite).unwrap();
    let (near, far) = (SharedMapping::new(near), SharedMapping::new(far));
    let at = layout.size_bytes();
    let mut producer = Producer::<[u64; 4], _>::new(near.clone(), at, 16).unwrap();
    let mut consumer = Consumer::<[u64; 4], _>::new(far, at, 16).unwrap();
    drop((vmo, near));
    producer.push(&[1, 2, 3, 4]).unwrap();
    assert_eq!(consumer.pop(), Ok(None));
    assert!(!producer.publish());
    assert_eq!(consumer.pop(), Ok(Some([1, 2, 3, 4])));
    // Read-only memory holds no ring.
    let vmo = Vmo::create(4096).unwrap();
    let read_only = SharedMapping::new(Mapping::map(&vmo, 0, 4096, MapAccess::Read).unwrap());
    assert!(Producer::<u64, _>::new(read_only, 0, 1).is_err());
}
