//! Reads the start information of the PVH boot protocol (Xen,
//! `xen/include/public/arch-x86/hvm/start_info.h`). Pure: memory is a function.

use boot::info::{MapFull, MemoryKind, MemoryMap};

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the 0x80 bit of the "E" set.
const MAGIC: u32 = 0x336e_c578;
/// The structure's length with the fields of version 1.
const START_INFO_LEN: usize = 56;
const MODULE_LEN: usize = 32;
const MEMORY_ENTRY_LEN: usize = 24;
/// A command line that is longer is cut.
pub const COMMAND_LINE_MAX: usize = 2048;

/// What the loader passed.
#[derive(Debug)]
pub struct StartInfo {
    /// Address and length of the first module, or zeros.
    pub module: (u64, u64),
    /// Address of the command line, or 0.
    pub command_line: u64,
    /// Address of the ACPI root pointer, or 0.
    pub rsdp: u64,
}

/// Why the start information cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// A structure lies outside the memory that can be read.
    Unreadable { address: u64 },
    /// The magic number is another one.
    Magic { seen: u32 },
    /// The loader speaks version 0, which has no memory map.
    NoMemoryMap,
    /// The memory map does not fit.
    MapFull(MapFull),
}

impl From<MapFull> for Error {
    fn from(full: MapFull) -> Error {
        Error::MapFull(full)
    }
}

/// Reads the structure at `address` and adds its memory map to `memory`.
/// `read(address, length)` returns that physical memory, if it is readable.
pub fn parse<'m, const N: usize>(
    address: u64,
    read: impl Fn(u64, usize) -> Option<&'m [u8]>,
    memory: &mut MemoryMap<N>,
) -> Result<StartInfo, Error> {
    let bytes = |address, len| read(address, len).ok_or(Error::Unreadable { address });
    let info = bytes(address, START_INFO_LEN)?;
    if word32(info, 0) != MAGIC {
        return Err(Error::Magic {
            seen: word32(info, 0),
        });
    }
    let version = word32(info, 4);
    let entries = word32(info, 48) as usize;
    if version < 1 || entries == 0 {
        return Err(Error::NoMemoryMap);
    }
    let table_len = entries
        .checked_mul(MEMORY_ENTRY_LEN)
        .ok_or(Error::NoMemoryMap)?;
    for entry in bytes(word64(info, 40), table_len)?.chunks_exact(MEMORY_ENTRY_LEN) {
        // The types are those of the PC BIOS' E820 call (ACPI 6.5, table 15.2).
        let kind = match word32(entry, 16) {
            1 => MemoryKind::Usable,
            3 => MemoryKind::AcpiTables,
            4 => MemoryKind::AcpiNvs,
            5 => MemoryKind::Defective,
            _ => MemoryKind::Reserved,
        };
        memory.add(word64(entry, 0), word64(entry, 8), kind)?;
    }
    let module = match word32(info, 12) {
        0 => (0, 0),
        _ => {
            let module = bytes(word64(info, 16), MODULE_LEN)?;
            (word64(module, 0), word64(module, 8))
        }
    };
    Ok(StartInfo {
        module,
        command_line: word64(info, 24),
        rsdp: word64(info, 32),
    })
}

fn word32(bytes: &[u8], offset: usize) -> u32 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn word64(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start information at 0, module list at 64, memory map at 96.
    fn image(map: &[(u64, u64, u32)]) -> Vec<u8> {
        let mut image = Vec::new();
        for word in [MAGIC, 1, 0, 1] {
            image.extend(word.to_le_bytes());
        }
        for word in [
            64,
            0x7000,
            0xf_5000,
            96,
            map.len() as u64,
            0,
            0x100_0000,
            0x2345,
            0,
            0,
        ] {
            image.extend(word.to_le_bytes());
        }
        // The fields above end at 56; the module list wants to start at 64.
        image.truncate(96);
        image.splice(56..96, [0; 8]);
        for word in [0x100_0000u64, 0x2345, 0, 0] {
            image.extend(word.to_le_bytes());
        }
        for &(start, len, kind) in map {
            image.extend(start.to_le_bytes());
            image.extend(len.to_le_bytes());
            image.extend(u64::from(kind).to_le_bytes());
        }
        image
    }

    fn run(image: &[u8]) -> Result<(StartInfo, MemoryMap<8>), Error> {
        let mut memory = MemoryMap::new();
        let read = |at: u64, len: usize| image.get(at as usize..)?.get(..len);
        parse(0, read, &mut memory).map(|info| (info, memory))
    }

    #[test]
    fn a_complete_structure() {
        let (info, memory) = run(&image(&[
            (0, 0x9_fc00, 1),
            (0xf_0000, 0x1_0000, 2),
            (0x10_0000, 0x70_0000, 1),
        ]))
        .unwrap();
        assert_eq!(info.module, (0x100_0000, 0x2345));
        assert_eq!((info.command_line, info.rsdp), (0x7000, 0xf_5000));
        let kinds: Vec<_> = memory
            .regions()
            .iter()
            .map(|region| (region.start, region.kind))
            .collect();
        use MemoryKind::*;
        assert_eq!(
            kinds,
            [(0, Usable), (0xf_0000, Reserved), (0x10_0000, Usable)]
        );
    }

    #[test]
    fn wrong_magic_old_version_and_wild_pointers_are_errors() {
        let good = image(&[(0, 0x1000, 1)]);
        let mut bad = good.clone();
        bad[0] ^= 1;
        assert_eq!(run(&bad).unwrap_err(), Error::Magic { seen: MAGIC ^ 1 });
        let mut bad = good.clone();
        bad[4] = 0;
        assert_eq!(run(&bad).unwrap_err(), Error::NoMemoryMap);
        let mut bad = good.clone();
        bad[47] = 0xff;
        assert!(matches!(run(&bad).unwrap_err(), Error::Unreadable { .. }));
        assert!(matches!(
            run(&good[..40]).unwrap_err(),
            Error::Unreadable { address: 0 }
        ));
        let many: Vec<_> = (0..9).map(|n| (n * 0x2000, 0x1000, 1)).collect();
        assert_eq!(
            run(&image(&many)).unwrap_err(),
            Error::MapFull(MapFull { capacity: 8 })
        );
    }
}
