//! Registers of the device; put the device's own here.

ddk::registers! {
    /// BAR 0.
    pub(crate) struct Registers: 0x28 {
        /// Blocks of the disk.
        0x00 blocks: u64, ReadPure, "1";
        /// First byte of the disk that a transfer reaches.
        0x08 position: u64, WriteOnly, "1";
        /// Device address of the data.
        0x10 address: u64, WriteOnly, "1";
        /// Bytes.
        0x18 length: u32, WriteOnly, "1";
        /// Starts a transfer, or resets the device.
        0x1c command: u32, WriteOnly, "1";
        /// Whether it has finished.
        0x20 status: u32, ReadPure, "1";
    }
}

/// Command: from the disk to memory.
pub(crate) const COMMAND_READ: u32 = 1;
/// Command: from memory to the disk.
pub(crate) const COMMAND_WRITE: u32 = 2;
/// Command: forget everything and touch no memory.
pub(crate) const COMMAND_RESET: u32 = 3;
/// Status: works on a command.
pub(crate) const STATUS_BUSY: u32 = 1;
/// Status: the last command failed.
pub(crate) const STATUS_FAILED: u32 = 2;
