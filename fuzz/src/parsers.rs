//! Parsers of firmware tables and files.

use acpi_service::{aml as definitions, power, resources, tables};
use boot::archive::{Archive, Directory};
use control_link::{Decoder, FromSystem, ToSystem, encode};
use ddk_manifest::{Identity, Manifest, PciIdentity};
use rt::process::image::Image;

/// A table with length and checksum made right, so that the fields behind them are reached too.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut table = bytes.to_vec();
    let len = (table.len() as u32).to_le_bytes();
    if let Some(field) = table.get_mut(4..8) {
        field.copy_from_slice(&len);
    }
    if table.len() > 9 {
        table[9] = 0;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = sum.wrapping_neg();
    }
    table
}

pub fn acpi_tables(bytes: &[u8]) {
    for table in [bytes, &repaired(bytes)] {
        let _ = tables::checked(table);
        let _ = tables::mcfg(table);
        let fadt = tables::fadt(table);
        if let Ok(fadt) = &fadt {
            let _ = power::off(fadt, (5, 7));
        }
        let _ = power::reset(fadt.ok().as_ref());
    }
}

pub fn aml(bytes: &[u8]) {
    let mut values = 0u32;
    definitions::names(bytes, |path, value| {
        assert!(!path.is_empty(), "a definition has a name");
        values += value.integers().len() as u32 + 1;
    });
    let _ = definitions::soft_off(bytes);
    let found = resources::host_bridges([bytes]);
    assert!(found.buses.is_sorted());
    let _ = resources::ranges(bytes);
}

pub fn elf(bytes: &[u8]) {
    for len in [bytes.len() as u64, 1 << 20, u64::MAX] {
        if let Ok(image) = Image::parse(bytes, len) {
            let _ = format!("{image:?}");
        }
    }
}

pub fn manifest(bytes: &[u8]) {
    let found = devmgr::program::manifest(|offset, into| {
        let start = usize::try_from(offset).ok()?;
        let from = bytes.get(start..)?.get(..into.len())?;
        into.copy_from_slice(from);
        Some(())
    });
    for manifest in [found.ok().flatten(), Manifest::from_bytes(bytes).ok()]
        .iter()
        .flatten()
    {
        assert!(!manifest.name().is_empty());
        for need in manifest.needs() {
            let _ = format!("{need}");
        }
        let device = PciIdentity {
            vendor: 0x1af4,
            device: 0x1042,
            subsystem_vendor: 0,
            subsystem: 0,
            class: 1,
            subclass: 0,
            interface: 0,
        };
        let _ = manifest.best_match(&Identity::Pci(device));
        let _ = manifest.best_match(&Identity::Platform("uart16550"));
    }
}

pub fn boot_archive(bytes: &[u8]) {
    let _ = Directory::head_len(bytes);
    if let Ok(archive) = Archive::parse(bytes) {
        for member in archive.members() {
            let _ = member.is_executable();
            assert!(
                archive.find(member.name).is_some(),
                "a listed member is found"
            );
        }
    }
    if let Ok(directory) = Directory::parse(bytes, 1 << 30) {
        let _ = bootfs::BootFs::new(&directory);
    }
}

/// A stream in pieces whose length its first byte says, and each message found in it over again: as the bytes are, and as the
/// body of a frame that is whole, so that messages are reached too.
pub fn control_link(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else {
        return;
    };
    fn follow<M>(stream: &[u8], piece: usize)
    where
        M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let (mut decoder, mut found) = (Decoder::new(), Vec::new());
        for part in stream.chunks(piece) {
            decoder.push(part, |message: Result<M, _>| found.extend(message));
        }
        for message in found {
            let mut again = Vec::new();
            let frame = encode(&message).expect("what came in a frame fits one");
            Decoder::new().push(&frame, |message: Result<M, _>| again.extend(message));
            assert_eq!(again, [message]);
        }
    }
    let piece = usize::from(*piece).max(1);
    for stream in [stream.to_vec(), framed(stream)] {
        follow::<ToSystem>(&stream, piece);
        follow::<FromSystem>(&stream, piece);
    }
}

/// The frame with this body.
fn framed(body: &[u8]) -> Vec<u8> {
    /// Encodes as its bytes and nothing else.
    struct Raw<'a>(&'a [u8]);
    impl serde::Serialize for Raw<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(self.0.len())?;
            self.0
                .iter()
                .try_for_each(|byte| tuple.serialize_element(byte))?;
            tuple.end()
        }
    }
    encode(&Raw(body)).unwrap_or_default()
}
