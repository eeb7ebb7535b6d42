//! Manifests out of driver programs.

use ddk_manifest::{Manifest, ManifestError, SECTION};
use elf::ElfBytes;
use elf::endian::LittleEndian;

/// Why a program has no manifest that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramError {
    /// It is no ELF file that can be read.
    NotElf,
    /// The section is there and its contents are wrong.
    Manifest(ManifestError),
}

impl core::fmt::Display for ProgramError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ProgramError::NotElf => f.write_str("not a readable ELF file"),
            ProgramError::Manifest(error) => write!(f, "{error}"),
        }
    }
}

/// The manifest of a program; `None` if it is no driver.
///
/// # Errors
/// See [`ProgramError`]. Any bytes are safe to pass.
pub fn manifest(program: &[u8]) -> Result<Option<Manifest>, ProgramError> {
    let file =
        ElfBytes::<LittleEndian>::minimal_parse(program).map_err(|_| ProgramError::NotElf)?;
    let header = file
        .section_header_by_name(SECTION)
        .map_err(|_| ProgramError::NotElf)?;
    let Some(header) = header else {
        return Ok(None);
    };
    let (data, compression) = file
        .section_data(&header)
        .map_err(|_| ProgramError::NotElf)?;
    if compression.is_some() {
        return Err(ProgramError::NotElf);
    }
    Manifest::from_bytes(data)
        .map(Some)
        .map_err(ProgramError::Manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddk_manifest::{Class, platform};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    /// A little ELF file with that section, laid out by hand: header, data, names, section headers.
    fn elf_with(section: &str, data: &[u8]) -> Vec<u8> {
        let mut names = vec![0u8];
        let section_name = names.len() as u32;
        names.extend(section.bytes().chain([0]));
        let table_name = names.len() as u32;
        names.extend(b".shstrtab\0");
        let data_at = 64u64;
        let names_at = data_at + data.len() as u64;
        let headers_at = (names_at + names.len() as u64).next_multiple_of(8);
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(2u16.to_le_bytes());
        file.extend(62u16.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend([0u64, 0, headers_at].iter().flat_map(|v| v.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend(
            [64u16, 56, 0, 64, 3, 2]
                .iter()
                .flat_map(|v| v.to_le_bytes()),
        );
        file.extend(data);
        file.extend(&names);
        file.resize(headers_at as usize, 0);
        let mut header = |name: u32, kind: u32, at: u64, len: u64| {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend([0, 0, at, len].iter().flat_map(|v: &u64| v.to_le_bytes()));
            file.extend(0u64.to_le_bytes());
            file.extend([1u64, 0].iter().flat_map(|v| v.to_le_bytes()));
        };
        header(0, 0, 0, 0);
        header(section_name, 1, data_at, data.len() as u64);
        header(table_name, 3, names_at, names.len() as u64);
        file
    }

    const UART: Manifest = Manifest::new(
        "uart16550",
        Class::SERIAL,
        [1, 2, 3],
        &[platform("uart16550")],
        &[],
    );

    #[test]
    fn finds_the_section() {
        let found = manifest(&elf_with(SECTION, UART.as_bytes()));
        assert_eq!(found, Ok(Some(UART)));
        assert_eq!(manifest(&elf_with(".text", UART.as_bytes())), Ok(None));
        let cut = &UART.as_bytes()[..20];
        assert!(matches!(
            manifest(&elf_with(SECTION, cut)),
            Err(ProgramError::Manifest(ManifestError::Size { seen: 20, .. }))
        ));
        assert_eq!(manifest(b"#!/bin/sh"), Err(ProgramError::NotElf));
    }

    proptest! {
        #[test]
        fn damaged_programs_do_not_panic(at in 0usize..1400, value: u8, cut in 0usize..1500) {
            let mut file = elf_with(SECTION, UART.as_bytes());
            if let Some(byte) = file.get_mut(at) { *byte = value; }
            let _ = manifest(&file);
            file.truncate(cut);
            let _ = manifest(&file);
        }
    }
}
