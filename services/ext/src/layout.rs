//! Structures as they lie on the disk, little-endian. Offsets are asserted.

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U16, U32},
};

/// The superblock, at byte 1024 of the volume ("The Super Block").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawSuperblock {
    pub inodes_count: U32,
    pub blocks_count_low: U32,
    pub reserved_blocks_low: U32,
    pub free_blocks_low: U32,
    pub free_inodes: U32,
    pub first_data_block: U32,
    pub log_block_size: U32,
    pub log_cluster_size: U32,
    pub blocks_per_group: U32,
    pub clusters_per_group: U32,
    pub inodes_per_group: U32,
    pub times_and_counts: [u8; 12],
    pub magic: U16,
    pub state: U16,
    pub errors: U16,
    pub minor_revision: U16,
    pub check_times: [u8; 8],
    pub creator_os: U32,
    pub revision: U32,
    pub reserved_owner: U32,
    pub first_inode: U32,
    pub inode_size: U16,
    pub block_group: U16,
    pub feature_compat: U32,
    pub feature_incompat: U32,
    pub feature_ro_compat: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub last_mounted: [u8; 64],
    pub algorithm_bitmap: U32,
    pub preallocate: [u8; 2],
    pub reserved_gdt_blocks: U16,
    pub journal: [u8; 28],
    pub hash: [u8; 18],
    pub descriptor_size: U16,
    pub default_mount_options: U32,
    pub first_meta_group: U32,
    pub mkfs_time: U32,
    pub journal_blocks: [u8; 68],
    pub blocks_count_high: U32,
    pub reserved_blocks_high: U32,
    pub free_blocks_high: U32,
    pub reserved_1: [u8; 276],
    pub checksum_seed: U32,
    pub reserved_2: [u8; 392],
    pub checksum: U32,
}
const _: () = {
    assert!(size_of::<RawSuperblock>() == 1024);
    assert!(offset_of!(RawSuperblock, magic) == 0x38);
    assert!(offset_of!(RawSuperblock, first_inode) == 0x54);
    assert!(offset_of!(RawSuperblock, uuid) == 0x68);
    assert!(offset_of!(RawSuperblock, reserved_gdt_blocks) == 0xCE);
    assert!(offset_of!(RawSuperblock, descriptor_size) == 0xFE);
    assert!(offset_of!(RawSuperblock, first_meta_group) == 0x104);
    assert!(offset_of!(RawSuperblock, blocks_count_high) == 0x150);
    assert!(offset_of!(RawSuperblock, checksum_seed) == 0x270);
    assert!(offset_of!(RawSuperblock, checksum) == 0x3FC);
};

/// The part of a group descriptor that every volume has ("Block Group
/// Descriptors"). With the `64bit` feature the high halves follow at 32.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawGroup {
    pub block_bitmap: U32,
    pub inode_bitmap: U32,
    pub inode_table: U32,
    pub counts: [u8; 6],
    pub flags: U16,
    pub reserved: [u8; 10],
    pub checksum: U16,
}
const _: () = assert!(size_of::<RawGroup>() == 32);

/// High halves of the block numbers in a 64-byte group descriptor.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawGroupHigh {
    pub block_bitmap: U32,
    pub inode_bitmap: U32,
    pub inode_table: U32,
    pub rest: [u8; 20],
}
const _: () = assert!(size_of::<RawGroupHigh>() == 32);

/// The first 128 bytes of an inode ("Index Nodes").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawInode {
    pub mode: U16,
    pub user_low: U16,
    pub size_low: U32,
    pub accessed: U32,
    pub changed: U32,
    pub modified: U32,
    pub deleted: U32,
    pub group_low: U16,
    pub links: U16,
    pub blocks_low: U32,
    pub flags: U32,
    pub osd1: U32,
    pub block: [u8; 60],
    pub generation: U32,
    pub file_acl_low: U32,
    pub size_high: U32,
    pub fragment: U32,
    pub blocks_high: U16,
    pub file_acl_high: U16,
    pub user_high: U16,
    pub group_high: U16,
    pub checksum_low: U16,
    pub reserved: U16,
}
const _: () = {
    assert!(size_of::<RawInode>() == 128);
    assert!(offset_of!(RawInode, block) == 40);
    assert!(offset_of!(RawInode, checksum_low) == 0x7C);
};

/// What follows the first 128 bytes of a large inode.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawInodeExtra {
    pub extra_size: U16,
    pub checksum_high: U16,
    pub changed_extra: U32,
    pub modified_extra: U32,
    pub accessed_extra: U32,
    pub created: U32,
    pub created_extra: U32,
}
const _: () = assert!(size_of::<RawInodeExtra>() == 24);

/// Head of a node of an extent tree ("Extent Tree").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawExtentHeader {
    pub magic: U16,
    pub entries: U16,
    pub max: U16,
    pub depth: U16,
    pub generation: U32,
}
const _: () = assert!(size_of::<RawExtentHeader>() == 12);

/// An entry of a leaf of an extent tree.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawExtent {
    pub logical: U32,
    /// Above 32768: unwritten, and 32768 too large.
    pub len: U16,
    pub start_high: U16,
    pub start_low: U32,
}
const _: () = assert!(size_of::<RawExtent>() == 12);

/// An entry of an inner node of an extent tree.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawExtentIndex {
    pub logical: U32,
    pub child_low: U32,
    pub child_high: U16,
    pub unused: U16,
}
const _: () = assert!(size_of::<RawExtentIndex>() == 12);

/// Head of a directory entry; the name follows ("Directory Entries").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawDirectoryEntry {
    pub inode: U32,
    pub entry_len: U16,
    pub name_len: u8,
    pub kind: u8,
}
const _: () = assert!(size_of::<RawDirectoryEntry>() == 8);

/// Head of an extended attribute inside an inode; the name follows.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RawAttribute {
    pub name_len: u8,
    pub name_index: u8,
    pub value_offset: U16,
    pub value_inode: U32,
    pub value_size: U32,
    pub hash: U32,
}
const _: () = assert!(size_of::<RawAttribute>() == 16);
