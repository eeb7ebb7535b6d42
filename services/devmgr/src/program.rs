//! Manifests out of driver programs.
//!
//! Of a program only the ELF header, the section headers, their names and the manifest are read: the boot
//! archive holds dozens of programs, and nearly all of them are no drivers.

use alloc::vec::Vec;

use ddk_manifest::{Manifest, ManifestError, SECTION};

const HEADER_BYTES: usize = 64;
const SECTION_HEADER_BYTES: usize = 64;
/// Most sections and longest table of names of a program that is looked at.
const SECTIONS_MAX: usize = 1024;
const NAMES_MAX: usize = 64 * 1024;
const MANIFEST_MAX: usize = 64 * 1024;

/// Why a program has no manifest that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramError {
    /// It is no 64-bit little-endian ELF file, or its sections lie outside of it.
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

fn integer(bytes: &[u8], offset: usize, len: usize) -> Option<usize> {
    let field = bytes.get(offset..offset.checked_add(len)?)?;
    let value = field.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    usize::try_from(value).ok()
}

/// The manifest of a program; `None` if it is no driver. `read` fills the buffer from an offset of the
/// file, or tells by `None` that the file does not reach that far.
///
/// # Errors
/// See [`ProgramError`]. Any file is safe to pass.
pub fn manifest(
    mut read: impl FnMut(u64, &mut [u8]) -> Option<()>,
) -> Result<Option<Manifest>, ProgramError> {
    match section(&mut read) {
        None => Err(ProgramError::NotElf),
        Some(None) => Ok(None),
        Some(Some(bytes)) => Manifest::from_bytes(&bytes)
            .map(Some)
            .map_err(ProgramError::Manifest),
    }
}

/// Contents of the manifest's section: `None` for a damaged file, `Some(None)` if there is no such section.
#[expect(
    clippy::option_option,
    reason = "damaged, absent and present are three things"
)]
fn section(read: &mut impl FnMut(u64, &mut [u8]) -> Option<()>) -> Option<Option<Vec<u8>>> {
    let mut bytes = |offset: usize, len: usize, most: usize| {
        let mut buffer = alloc::vec![0; Some(len).filter(|l| *l <= most)?];
        read(offset as u64, &mut buffer)?;
        Some(buffer)
    };
    let header = bytes(0, HEADER_BYTES, HEADER_BYTES)?;
    // Magic, 64 bits, little-endian (ELF-64 Object File Format, version 1.5).
    if header.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table_at = integer(&header, 40, 8)?;
    let count = integer(&header, 60, 2)?;
    let names_index = integer(&header, 62, 2)?;
    if count == 0 {
        return Some(None);
    }
    if count > SECTIONS_MAX || integer(&header, 58, 2)? != SECTION_HEADER_BYTES {
        return None;
    }
    let table_len = count.checked_mul(SECTION_HEADER_BYTES)?;
    let table = bytes(table_at, table_len, SECTIONS_MAX * SECTION_HEADER_BYTES)?;
    let entry = |index: usize| {
        let at = index.checked_mul(SECTION_HEADER_BYTES)?;
        table.get(at..at.checked_add(SECTION_HEADER_BYTES)?)
    };
    let names_header = entry(names_index)?;
    let names = bytes(
        integer(names_header, 24, 8)?,
        integer(names_header, 32, 8)?,
        NAMES_MAX,
    )?;
    for index in 0..count {
        let header = entry(index)?;
        let name = names.get(integer(header, 0, 4)?..)?;
        let name = name.split(|b| *b == 0).next()?;
        if name == SECTION.as_bytes() {
            let contents = bytes(
                integer(header, 24, 8)?,
                integer(header, 32, 8)?,
                MANIFEST_MAX,
            )?;
            return Some(Some(contents));
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(file: &[u8]) -> Result<Option<Manifest>, ProgramError> {
        manifest(|offset, buffer| {
            let at = usize::try_from(offset).ok()?;
            buffer.copy_from_slice(file.get(at..at.checked_add(buffer.len())?)?);
            Some(())
        })
    }
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
        let found = read_from(&elf_with(SECTION, UART.as_bytes()));
        assert_eq!(found, Ok(Some(UART)));
        assert_eq!(read_from(&elf_with(".text", UART.as_bytes())), Ok(None));
        let cut = &UART.as_bytes()[..20];
        assert!(matches!(
            read_from(&elf_with(SECTION, cut)),
            Err(ProgramError::Manifest(ManifestError::Size { seen: 20, .. }))
        ));
        assert_eq!(read_from(b"#!/bin/sh"), Err(ProgramError::NotElf));
    }

    proptest! {
        #[test]
        fn damaged_programs_do_not_panic(at in 0usize..1400, value: u8, cut in 0usize..1500) {
            let mut file = elf_with(SECTION, UART.as_bytes());
            if let Some(byte) = file.get_mut(at) { *byte = value; }
            let _ = read_from(&file);
            file.truncate(cut);
            let _ = read_from(&file);
        }
    }
}
