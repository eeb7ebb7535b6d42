//! Structures as they lie on the disk, little-endian. Offsets are asserted.

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U16, U32},
};

/// The first sector (FATGEN "Boot Sector and BPB"). What follows byte 36
/// depends on the width of the FAT.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawBootSector {
    pub jump: [u8; 3],
    pub oem_name: [u8; 8],
    pub sector_bytes: U16,
    pub cluster_sectors: u8,
    pub reserved_sectors: U16,
    pub fats: u8,
    pub root_entries: U16,
    pub sectors_16: U16,
    pub media: u8,
    pub fat_sectors_16: U16,
    pub geometry: [u8; 4],
    pub hidden_sectors: U32,
    pub sectors_32: U32,
    pub rest: [u8; 474],
    pub signature: U16,
}
const _: () = {
    assert!(size_of::<RawBootSector>() == 512);
    assert!(offset_of!(RawBootSector, sectors_32) == 32);
    assert!(offset_of!(RawBootSector, signature) == 510);
};

/// Byte 36 on, FAT12 and FAT16.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawTail16 {
    pub drive: [u8; 2],
    pub extended_signature: u8,
    pub serial: U32,
    pub label: [u8; 11],
    pub kind: [u8; 8],
}
const _: () = assert!(size_of::<RawTail16>() == 26);

/// Byte 36 on, FAT32.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawTail32 {
    pub fat_sectors: U32,
    pub flags: U16,
    pub version: U16,
    pub root_cluster: U32,
    pub info_sector: U16,
    pub backup_sector: U16,
    pub reserved: [u8; 12],
    pub drive: [u8; 2],
    pub extended_signature: u8,
    pub serial: U32,
    pub label: [u8; 11],
    pub kind: [u8; 8],
}
const _: () = assert!(size_of::<RawTail32>() == 54);

/// FAT32's sector of hints (FATGEN "FAT32 FSInfo").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawInfoSector {
    pub lead_signature: U32,
    pub reserved: [u8; 480],
    pub signature: U32,
    pub free_clusters: U32,
    pub next_free: U32,
    pub rest: [u8; 12],
    pub trail_signature: U32,
}
const _: () = assert!(size_of::<RawInfoSector>() == 512);

/// A directory entry (FATGEN "FAT Directory Structure").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawEntry {
    pub name: [u8; 11],
    pub attributes: u8,
    pub case: u8,
    pub created_10ms: u8,
    pub created_time: U16,
    pub created_date: U16,
    pub accessed_date: U16,
    pub cluster_high: U16,
    pub modified_time: U16,
    pub modified_date: U16,
    pub cluster_low: U16,
    pub size: U32,
}
const _: () = assert!(size_of::<RawEntry>() == ENTRY_BYTES);

/// A directory entry that carries a piece of a long name (FATGEN "Long
/// Directory Entries").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawLongEntry {
    pub order: u8,
    pub name_1: [U16; 5],
    pub attributes: u8,
    pub kind: u8,
    pub checksum: u8,
    pub name_2: [U16; 6],
    pub cluster: U16,
    pub name_3: [U16; 2],
}
const _: () = assert!(size_of::<RawLongEntry>() == ENTRY_BYTES);

/// Size of a directory entry.
pub const ENTRY_BYTES: usize = 32;
