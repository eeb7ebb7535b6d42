//! Sizes, limits and fixed addresses.

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// Lowest address that a process can map.
pub const USER_MIN: usize = 0x1_0000;
/// First address above what a process can map (x86_64; keeps the last canonical pages unmapped).
pub const USER_MAX: usize = 0x7fff_ffff_0000;
/// Where the read-only [`SystemInfo`](crate::SystemInfo) page is mapped in every process; the kernel places
/// mappings above it, so that both share a page table.
pub const SYSTEM_INFO_ADDR: usize = 0x1000_0000;
/// Where programs are linked.
pub const IMAGE_BASE: usize = 0x40_0000;

/// Most CPUs that the kernel uses.
pub const MAX_CPUS: usize = 8;
/// Most bytes in a channel message.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most handles in a channel message.
pub const MESSAGE_HANDLES_MAX: usize = 64;
/// Most messages that wait in one direction of a channel; a write beyond gives `ShouldWait`.
pub const CHANNEL_MESSAGES_MAX: usize = 512;
/// Most bytes of a name (process, thread, VMO).
pub const NAME_MAX: usize = 32;
/// Deadline that never comes.
pub const FOREVER: u64 = u64::MAX;

/// Priorities are 0 (lowest) to 31 (highest), round robin inside one.
pub const PRIORITY_MAX: u8 = 31;
/// Priority of ordinary programs.
pub const PRIORITY_DEFAULT: u8 = 16;
/// Priority of drivers and of services on the data path.
pub const PRIORITY_DRIVER: u8 = 20;
/// Priority of the supervisor and the device manager.
pub const PRIORITY_MANAGER: u8 = 24;
