//! Registers of the device (QEMU, docs/specs/edu.rst).

// ANCHOR: registers
ddk::registers! {
    /// BAR 0.
    pub(crate) struct Registers: 0xa0 {
        /// Major and minor version, 0xed in the lowest byte.
        0x00 identification: u32, ReadPure, "MMIO area";
        /// What was written last, inverted.
        0x04 liveness: u32, ReadWrite, "MMIO area";
        /// A number; after a while its factorial.
        0x08 factorial: u32, ReadWrite, "MMIO area";
        /// Whether it computes, and whether it shall interrupt.
        0x20 status: u32, ReadWrite, "MMIO area";
        /// Bits of the interrupts that are pending.
        0x24 interrupt_status: u32, ReadPure, "MMIO area";
        /// Raises an interrupt: the value is added to the pending bits.
        0x60 interrupt_raise: u32, WriteOnly, "MMIO area";
        /// Takes bits off the pending ones.
        0x64 interrupt_acknowledge: u32, WriteOnly, "MMIO area";
        /// Where a transfer reads.
        0x80 dma_source: u64, ReadWrite, "DMA area";
        /// Where it writes.
        0x88 dma_destination: u64, ReadWrite, "DMA area";
        /// Bytes.
        0x90 dma_count: u64, ReadWrite, "DMA area";
        /// Starts it.
        0x98 dma_command: u64, ReadWrite, "DMA area";
    }
}

/// Lowest byte of the identification.
pub(crate) const IDENTIFICATION: u32 = 0xed;
/// Status: a factorial is being computed.
pub(crate) const STATUS_COMPUTING: u32 = 0x01;
/// Status: interrupt when it is there.
pub(crate) const STATUS_INTERRUPT: u32 = 0x80;
/// Pending: the factorial is there. Also what [`crate::Raiser`] raises.
pub(crate) const INTERRUPT_FACTORIAL: u32 = 0x001;
/// Pending: the transfer is done.
pub(crate) const INTERRUPT_DMA: u32 = 0x100;
/// Command: begin.
pub(crate) const DMA_START: u64 = 0x01;
/// Command: from memory into the device's buffer.
pub(crate) const DMA_TO_DEVICE: u64 = 0x00;
/// Command: from the device's buffer into memory.
pub(crate) const DMA_FROM_DEVICE: u64 = 0x02;
/// Command: interrupt at the end.
pub(crate) const INTERRUPT_ON_DMA: u64 = 0x04;
/// The buffer's address for transfers.
pub(crate) const BUFFER: u64 = 0x4_0000;
/// Its bytes.
pub(crate) const BUFFER_BYTES: usize = 4096;
// ANCHOR_END: registers
