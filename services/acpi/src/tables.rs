//! Static tables: header, MCFG, FADT (ACPI 6.5, chapter 5; PCI Firmware Specification 3.3, 4.1.2).

use alloc::vec::Vec;

use proto::bus::EcamRegion;

/// Bytes of the header of every table.
pub const HEADER_BYTES: usize = 36;

/// Why a table is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// Shorter than its header, its length field or the fields that are needed.
    Short {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        seen: usize,
    },
    /// The bytes do not add up to zero.
    Checksum(u8),
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            TableError::Short { expected, seen } => {
                write!(f, "table has {seen} bytes, expected {expected}")
            }
            TableError::Checksum(sum) => write!(f, "table adds up to {sum:#04x}, not to zero"),
        }
    }
}

/// Little-endian integer of `N` bytes at `offset`.
fn bytes<const N: usize>(table: &[u8], offset: usize) -> Option<[u8; N]> {
    table.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// Checks length and checksum; gives the table without bytes behind it.
///
/// # Errors
/// [`TableError`].
pub fn checked(table: &[u8]) -> Result<&[u8], TableError> {
    let short = |expected| TableError::Short {
        expected,
        seen: table.len(),
    };
    let len = bytes(table, 4)
        .map(u32::from_le_bytes)
        .ok_or(short(HEADER_BYTES))? as usize;
    let table = table
        .get(..len)
        .filter(|t| t.len() >= HEADER_BYTES)
        .ok_or(short(len.max(HEADER_BYTES)))?;
    match table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) {
        0 => Ok(table),
        sum => Err(TableError::Checksum(sum)),
    }
}

/// Entries of an MCFG table that describe at least one bus.
///
/// # Errors
/// [`TableError`].
pub fn mcfg(table: &[u8]) -> Result<Vec<EcamRegion>, TableError> {
    const FIRST: usize = 44;
    let table = checked(table)?;
    let entries = table.get(FIRST..).unwrap_or(&[]).chunks_exact(16);
    Ok(entries
        .filter_map(|entry| {
            Some(EcamRegion {
                base: u64::from_le_bytes(bytes(entry, 0)?),
                segment: u16::from_le_bytes(bytes(entry, 8)?),
                first_bus: *entry.get(10)?,
                last_bus: *entry.get(11)?,
            })
        })
        .filter(|e| e.base != 0 && e.base.is_multiple_of(1 << 20) && e.first_bus <= e.last_bus)
        .collect())
}

/// Where a register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// Device memory.
    Memory(u64),
}

/// A generic address structure (ACPI 6.5, 5.2.3.2) of memory or ports.
fn generic_address(table: &[u8], offset: usize) -> Option<Register> {
    let space = *table.get(offset)?;
    let address = u64::from_le_bytes(bytes(table, offset.checked_add(4)?)?);
    match space {
        _ if address == 0 => None,
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

/// What is used of the FADT (ACPI 6.5, 5.2.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fadt {
    /// Port that switches ACPI on, and the value for that; `None` when ACPI is always on.
    pub enable: Option<(u16, u8)>,
    /// PM1a control register.
    pub pm1a_control: Option<Register>,
    /// PM1b control register.
    pub pm1b_control: Option<Register>,
    /// Reset register and the value that resets.
    pub reset: Option<(Register, u8)>,
    /// Sleep control register of hardware-reduced ACPI.
    pub sleep_control: Option<Register>,
}

/// Reads the FADT. Fields that an older table does not have are absent.
///
/// # Errors
/// [`TableError`].
pub fn fadt(table: &[u8]) -> Result<Fadt, TableError> {
    const RESET_SUPPORTED: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    const FLAGS_END: usize = 116;
    let table = checked(table)?;
    let flags = bytes(table, 112)
        .map(u32::from_le_bytes)
        .ok_or(TableError::Short {
            expected: FLAGS_END,
            seen: table.len(),
        })?;
    let port32 = |offset| {
        let value = u32::from_le_bytes(bytes(table, offset)?);
        u16::try_from(value).ok().filter(|p| *p != 0)
    };
    let byte = |offset: usize| table.get(offset).copied().unwrap_or(0);
    let reduced = flags & HARDWARE_REDUCED != 0;
    let pm1 = |extended, plain| {
        generic_address(table, extended).or_else(|| port32(plain).map(Register::Port))
    };
    Ok(Fadt {
        enable: port32(48)
            .filter(|_| !reduced && byte(52) != 0)
            .map(|p| (p, byte(52))),
        pm1a_control: pm1(172, 64).filter(|_| !reduced),
        pm1b_control: pm1(184, 68).filter(|_| !reduced),
        reset: generic_address(table, 116)
            .filter(|_| flags & RESET_SUPPORTED != 0)
            .map(|r| (r, byte(128))),
        sleep_control: generic_address(table, 244).filter(|_| reduced),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Puts length and checksum into a table.
    pub(crate) fn seal(mut table: Vec<u8>) -> Vec<u8> {
        let len = (table.len() as u32).to_le_bytes();
        table[4..8].copy_from_slice(&len);
        table[9] = 0;
        let sum = table.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        table[9] = 0u8.wrapping_sub(sum);
        table
    }

    #[test]
    fn mcfg_of_q35() {
        let mut table = vec![0u8; 60];
        table[..4].copy_from_slice(b"MCFG");
        table[44..52].copy_from_slice(&0xb000_0000u64.to_le_bytes());
        table[55] = 0xff;
        let regions = mcfg(&seal(table.clone())).unwrap();
        assert_eq!(
            regions,
            [EcamRegion {
                base: 0xb000_0000,
                segment: 0,
                first_bus: 0,
                last_bus: 255
            }]
        );
        let mut bad = seal(table);
        bad[50] ^= 1;
        assert_eq!(mcfg(&bad), Err(TableError::Checksum(1)));
        assert!(matches!(mcfg(&bad[..20]), Err(TableError::Short { .. })));
    }

    #[test]
    fn fadt_of_q35() {
        let mut table = vec![0u8; 244];
        table[..4].copy_from_slice(b"FACP");
        table[48..52].copy_from_slice(&0xb2u32.to_le_bytes());
        table[52] = 2;
        table[64..68].copy_from_slice(&0x604u32.to_le_bytes());
        table[112..116].copy_from_slice(&(1u32 << 10).to_le_bytes());
        table[116..120].copy_from_slice(&[1, 8, 0, 0]);
        table[120..128].copy_from_slice(&0xcf9u64.to_le_bytes());
        table[128] = 0xf;
        let found = fadt(&seal(table)).unwrap();
        assert_eq!(found.enable, Some((0xb2, 2)));
        assert_eq!(found.pm1a_control, Some(Register::Port(0x604)));
        assert_eq!(found.pm1b_control, None);
        assert_eq!(found.reset, Some((Register::Port(0xcf9), 0xf)));
        assert_eq!(found.sleep_control, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(table in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = mcfg(&table);
            let _ = fadt(&table);
            if table.len() >= HEADER_BYTES {
                let table = seal(table);
                let _ = mcfg(&table);
                let _ = fadt(&table);
            }
        }
    }
}
