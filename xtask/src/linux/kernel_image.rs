//! Unpacks a Linux boot image (bzImage) to the ELF file inside.
//!
//! QEMU starts the ELF file at its PVH entry at once, without the real-mode setup and
//! the decompression, which would count as part of Linux's boot.
//!
//! Format: Linux, Documentation/arch/x86/boot.rst. LZ4, which is what Debian's cloud kernel uses, and
//! XZ, as its generic one.

use std::io::Write;

use anyhow::{Context, bail};

use crate::setup::{self, needed};
use crate::tool;

/// Offset of the number of setup sectors, and of "HdrS", `payload_offset` and
/// `payload_length` in the setup header.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// First bytes of the "legacy" LZ4 format, and the size of its blocks once unpacked.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_BLOCK: usize = 8 << 20;

const XZ: &[u8] = b"\xfd7zXZ\0";

fn u32_at(bytes: &[u8], at: usize) -> anyhow::Result<usize> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    let field = field.context("the boot image is cut off")?;
    Ok(usize::try_from(u32::from_le_bytes(*field))?)
}

/// The ELF file inside a boot image.
///
/// # Errors
///
/// When `image` is not a boot image with such a payload.
pub fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        bail!("not a Linux boot image");
    }
    // Zero means four, for images from before the field.
    let setup = match image.get(SETUP_SECTORS) {
        Some(0) | None => 4,
        Some(n) => usize::from(*n),
    };
    let start = (setup + 1) * SECTOR + u32_at(image, PAYLOAD_OFFSET)?;
    let payload = image
        .get(start..start + u32_at(image, PAYLOAD_LENGTH)?)
        .context("the boot image is cut off")?;
    let elf = match payload {
        lz4 if lz4.starts_with(&LZ4_LEGACY) => unpack_lz4_legacy(lz4)?,
        xz if xz.starts_with(XZ) => unpack_xz(xz)?,
        _ => bail!("the kernel is compressed with neither LZ4 nor XZ"),
    };
    if !elf.starts_with(b"\x7fELF") {
        bail!("no ELF file in the boot image");
    }
    Ok(elf)
}

/// Unpacks blocks until the end, which Linux's build marks with the size of the whole.
fn unpack_lz4_legacy(payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    let mut at = LZ4_LEGACY.len();
    while at + 4 < payload.len() {
        let len = u32_at(payload, at)?;
        let packed = payload
            .get(at + 4..at + 4 + len)
            .context("an LZ4 block is cut off")?;
        let n = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| anyhow::anyhow!("LZ4: {error}"))?;
        whole.extend_from_slice(&block[..n]);
        at += 4 + len;
    }
    let size = u32_at(payload, at)?;
    if size != whole.len() {
        bail!("{} bytes unpacked, {size} promised", whole.len());
    }
    Ok(whole)
}

/// Unpacks by the program `xz` what stands before the size of the whole.
fn unpack_xz(payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    setup::ensure(&[&[needed("xz", "xz-utils")]])?;
    let end = payload.len().saturating_sub(4);
    let mut packed = tempfile::NamedTempFile::new()?;
    packed.write_all(payload.get(..end).unwrap_or_default())?;
    let whole = tool::read(tool::command("xz").args(["-d", "-c"]).arg(packed.path()))?;
    let size = u32_at(payload, end)?;
    if size != whole.len() {
        bail!("{} bytes unpacked, {size} promised", whole.len());
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot image with one setup sector and `content` in two LZ4 blocks.
    fn image(content: &[u8]) -> Vec<u8> {
        let mut payload = LZ4_LEGACY.to_vec();
        for part in [&content[..LZ4_BLOCK], &content[LZ4_BLOCK..]] {
            let packed = lz4_flex::block::compress(part);
            payload.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
            payload.extend_from_slice(&packed);
        }
        payload.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        let len = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&len.to_le_bytes());
        image.extend_from_slice(&payload);
        image
    }

    fn content() -> Vec<u8> {
        let mut content = b"\x7fELF".to_vec();
        content.extend((0..LZ4_BLOCK as u32).map(|i| (i / 7) as u8));
        content
    }

    #[test]
    fn unpacks_all_blocks() {
        assert_eq!(unpack(&image(&content())).unwrap(), content());
    }

    #[test]
    fn damage_is_an_error() {
        let whole = image(&content());
        assert!(unpack(&whole[..whole.len() - 5]).is_err());
        assert!(unpack(&whole[..0x210]).is_err());
        assert!(unpack(b"\x7fELF").is_err());
        let mut wrong_size = whole.clone();
        let last = wrong_size.len() - 4;
        wrong_size[last] ^= 1;
        assert!(unpack(&wrong_size).is_err());
        let mut other = content();
        other[0] = 0;
        assert!(unpack(&image(&other)).is_err());
    }
}
