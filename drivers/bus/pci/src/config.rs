//! Access to configuration space, and the registers of its header (PCI Local Bus 3.0, chapter 6; PCI
//! Express Base, 7.5).

use proto::bus::PciAddress;

/// Bytes of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
}

impl Width {
    /// The width of that many bytes.
    pub const fn from_bytes(bytes: u8) -> Option<Width> {
        match bytes {
            1 => Some(Width::Byte),
            2 => Some(Width::Word),
            4 => Some(Width::Dword),
            _ => None,
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
        }
    }

    /// The value of a register that does not answer.
    pub const fn all_ones(self) -> u32 {
        match self {
            Width::Byte => 0xff,
            Width::Word => 0xffff,
            Width::Dword => 0xffff_ffff,
        }
    }
}

/// Configuration space of the functions of a segment. Offsets are aligned to the width. A function or
/// an offset that does not exist reads as all ones and ignores writes.
pub trait ConfigSpace {
    /// Reads a register.
    fn read(&self, address: PciAddress, offset: u16, width: Width) -> u32;
    /// Writes a register.
    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32);
    /// Bytes per function: 256, or 4096 with extended space.
    fn size(&self) -> u16;
    /// First and last bus that are decoded.
    fn buses(&self) -> (u8, u8);

    /// Reads a byte.
    fn read8(&self, address: PciAddress, offset: u16) -> u8 {
        self.read(address, offset, Width::Byte) as u8
    }
    /// Reads two bytes.
    fn read16(&self, address: PciAddress, offset: u16) -> u16 {
        self.read(address, offset, Width::Word) as u16
    }
    /// Reads four bytes.
    fn read32(&self, address: PciAddress, offset: u16) -> u32 {
        self.read(address, offset, Width::Dword)
    }
    /// Writes a byte.
    fn write8(&self, address: PciAddress, offset: u16, value: u8) {
        self.write(address, offset, Width::Byte, value.into());
    }
    /// Writes two bytes.
    fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        self.write(address, offset, Width::Word, value.into());
    }
    /// Writes four bytes.
    fn write32(&self, address: PciAddress, offset: u16, value: u32) {
        self.write(address, offset, Width::Dword, value);
    }
}

/// Device memory of functions, for what lies in BARs: MSI-X tables and the virtio device status.
pub trait DeviceMemory {
    /// Reads at a physical address; `None` if it cannot be reached.
    fn read(&self, physical: u64, width: Width) -> Option<u32>;
    /// Writes at a physical address; `None` if it cannot be reached.
    fn write(&self, physical: u64, width: Width, value: u32) -> Option<()>;
}

/// Waiting.
pub trait Clock {
    /// Nanoseconds since some start.
    fn now_ns(&self) -> u64;
    /// Lets that many milliseconds pass.
    fn sleep_ms(&self, ms: u32);
}

/// Offsets of header registers.
pub mod register {
    /// Vendor ID, 16 bits.
    pub const VENDOR: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE: u16 = 0x02;
    /// Command, 16 bits; bits in [`super::command`].
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits; bits in [`super::status`].
    pub const STATUS: u16 = 0x06;
    /// Revision, then interface, subclass and class: 32 bits.
    pub const CLASS_REVISION: u16 = 0x08;
    /// Cache line size, 8 bits.
    pub const CACHE_LINE: u16 = 0x0c;
    /// Latency timer, 8 bits.
    pub const LATENCY_TIMER: u16 = 0x0d;
    /// Header type, 8 bits; bit 7 is "multi-function".
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Type 1: primary, secondary, subordinate bus and secondary latency timer, 8 bits each.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Type 1: secondary bus.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Type 1: subordinate bus.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Type 1: I/O base, 8 bits; limit at 0x1d.
    pub const IO_BASE: u16 = 0x1c;
    /// Type 1: I/O limit.
    pub const IO_LIMIT: u16 = 0x1d;
    /// Type 1: memory base, 16 bits; limit at 0x22.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Type 1: memory limit.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// Type 1: prefetchable base, 16 bits.
    pub const PREFETCH_BASE: u16 = 0x24;
    /// Type 1: prefetchable limit.
    pub const PREFETCH_LIMIT: u16 = 0x26;
    /// Type 1: upper half of the prefetchable base.
    pub const PREFETCH_BASE_HIGH: u16 = 0x28;
    /// Type 1: upper half of the prefetchable limit.
    pub const PREFETCH_LIMIT_HIGH: u16 = 0x2c;
    /// Type 1: upper halves of the I/O base and limit, 16 bits each.
    pub const IO_BASE_HIGH: u16 = 0x30;
    /// Type 0: subsystem vendor, 16 bits.
    pub const SUBSYSTEM_VENDOR: u16 = 0x2c;
    /// Type 0: subsystem, 16 bits.
    pub const SUBSYSTEM: u16 = 0x2e;
    /// Start of the capability list, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, 8 bits.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// Type 1: bridge control, 16 bits; bit 6 resets the secondary bus.
    pub const BRIDGE_CONTROL: u16 = 0x3e;
    /// Where extended capabilities start.
    pub const EXTENDED: u16 = 0x100;
}

/// Bits of the command register.
pub mod command {
    /// Answers to I/O ports.
    pub const IO: u16 = 1 << 0;
    /// Answers to memory.
    pub const MEMORY: u16 = 1 << 1;
    /// May start transactions.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// INTx is off.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register.
pub mod status {
    /// There is a capability list.
    pub const CAPABILITY_LIST: u16 = 1 << 4;
}

/// Bits of the bridge control register.
pub mod bridge_control {
    /// Holds the secondary bus in reset.
    pub const SECONDARY_RESET: u16 = 1 << 6;
}

/// Capability IDs (PCI Code and ID Assignment specification).
pub mod id {
    /// Power management.
    pub const POWER: u16 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u16 = 0x05;
    /// Vendor-specific.
    pub const VENDOR: u16 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u16 = 0x10;
    /// MSI-X.
    pub const MSIX: u16 = 0x11;
    /// Advanced features.
    pub const ADVANCED_FEATURES: u16 = 0x13;
}
