//! Needs: what a driver must be granted to start.

use crate::ManifestError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const KIND_BAR: u32 = 1;
const KIND_MEMORY_BARS: u32 = 2;
const KIND_MSIX: u32 = 3;
const KIND_DMA: u32 = 4;
const KIND_IO_PORTS: u32 = 5;
const KIND_INTERRUPT_LINE: u32 = 6;
const KIND_MESSAGE_INTERRUPT: u32 = 7;

/// One need, as it lies in the manifest. See [`Need::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Need {
    kind: u32,
    a: u32,
    b: u32,
    reserved: u32,
}

/// A need, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeedKind {
    /// This memory BAR.
    Bar {
        /// Register, 0 to 5.
        index: u8,
    },
    /// Every memory BAR that the function has (virtio says in capabilities which ones it uses).
    MemoryBars,
    /// MSI-X vectors: as many as the device offers within these bounds.
    Msix {
        /// With fewer the driver cannot work.
        min: u16,
        /// It makes use of no more.
        max: u16,
    },
    /// One message-signalled interrupt: by MSI-X where the device has it, else by MSI.
    MessageInterrupt,
    /// A DMA domain.
    Dma {
        /// Bits of a device address that the device can drive.
        address_bits: u8,
    },
    /// The node's range of I/O ports with this number.
    IoPorts {
        /// Position among the node's ranges.
        index: u8,
    },
    /// The node's interrupt line with this number.
    InterruptLine {
        /// Position among the node's lines.
        index: u8,
    },
    /// Of a kind that this version does not know.
    Unknown(u32),
}

/// The memory BAR `index`, 0 to 5.
pub const fn bar(index: u8) -> Need {
    assert!(index < 6, "BARs are numbered 0 to 5");
    Need {
        kind: KIND_BAR,
        a: index as u32,
        ..Need::NONE
    }
}

/// Every memory BAR of the function.
pub const fn memory_bars() -> Need {
    Need {
        kind: KIND_MEMORY_BARS,
        ..Need::NONE
    }
}

/// Between `min` and `max` MSI-X vectors; a driver that can do without says 0.
pub const fn msix(min: u16, max: u16) -> Need {
    assert!(max >= 1 && min <= max && max <= 2048, "1 to 2048 vectors");
    Need {
        kind: KIND_MSIX,
        a: min as u32,
        b: max as u32,
        ..Need::NONE
    }
}

/// One message-signalled interrupt, by MSI-X or by MSI.
pub const fn message_interrupt() -> Need {
    Need {
        kind: KIND_MESSAGE_INTERRUPT,
        ..Need::NONE
    }
}

/// A DMA domain for a device that drives `address_bits` bits of address.
pub const fn dma(address_bits: u8) -> Need {
    assert!(
        address_bits >= 24 && address_bits <= 64,
        "24 to 64 address bits"
    );
    Need {
        kind: KIND_DMA,
        a: address_bits as u32,
        ..Need::NONE
    }
}

/// The node's I/O port range with this number.
pub const fn io_ports(index: u8) -> Need {
    Need {
        kind: KIND_IO_PORTS,
        a: index as u32,
        ..Need::NONE
    }
}

/// The node's interrupt line with this number.
pub const fn interrupt_line(index: u8) -> Need {
    Need {
        kind: KIND_INTERRUPT_LINE,
        a: index as u32,
        ..Need::NONE
    }
}

impl Need {
    /// The empty entry.
    pub const NONE: Need = Need {
        kind: 0,
        a: 0,
        b: 0,
        reserved: 0,
    };

    /// What is needed.
    pub const fn kind(&self) -> NeedKind {
        match self.kind {
            KIND_BAR => NeedKind::Bar {
                index: self.a as u8,
            },
            KIND_MEMORY_BARS => NeedKind::MemoryBars,
            KIND_MSIX => NeedKind::Msix {
                min: self.a as u16,
                max: self.b as u16,
            },
            KIND_MESSAGE_INTERRUPT => NeedKind::MessageInterrupt,
            KIND_DMA => NeedKind::Dma {
                address_bits: self.a as u8,
            },
            KIND_IO_PORTS => NeedKind::IoPorts {
                index: self.a as u8,
            },
            KIND_INTERRUPT_LINE => NeedKind::InterruptLine {
                index: self.a as u8,
            },
            other => NeedKind::Unknown(other),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        match self.kind() {
            NeedKind::Unknown(kind) => Err(ManifestError::UnknownKind(kind)),
            _ => Ok(()),
        }
    }
}

impl core::fmt::Display for Need {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.kind() {
            NeedKind::Bar { index } => write!(f, "BAR {index}"),
            NeedKind::MemoryBars => f.write_str("memory BARs"),
            NeedKind::Msix { min, max } => write!(f, "{min} to {max} MSI-X vectors"),
            NeedKind::MessageInterrupt => f.write_str("a message-signalled interrupt"),
            NeedKind::Dma { address_bits } => write!(f, "DMA with {address_bits} address bits"),
            NeedKind::IoPorts { index } => write!(f, "I/O port range {index}"),
            NeedKind::InterruptLine { index } => write!(f, "interrupt line {index}"),
            NeedKind::Unknown(kind) => write!(f, "unknown need {kind}"),
        }
    }
}
