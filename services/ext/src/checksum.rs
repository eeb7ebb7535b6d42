//! The two checksums of ext4: CRC32C (`metadata_csum`) and CRC16
//! (`uninit_bg`), without the final inversion.

use crc::{Algorithm, Crc, Table};

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&Algorithm {
    width: 32,
    poly: 0x1EDC_6F41,
    init: 0,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
});

static CRC16: Crc<u16> = Crc::<u16>::new(&Algorithm {
    width: 16,
    poly: 0x8005,
    init: 0xFFFF,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
});

/// CRC32C of `bytes`, continued from `seed`.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The crate takes the initial value unreflected.
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// CRC16 over the pieces one after the other.
pub fn crc16(pieces: &[&[u8]]) -> u16 {
    let mut digest = CRC16.digest();
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_the_published_one_and_can_be_continued() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes; inverted at the end there.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8A91_36AA);
        let bytes: Vec<u8> = (0..200).collect();
        assert_eq!(
            crc32c(crc32c(!0, &bytes[..77]), &bytes[77..]),
            crc32c(!0, &bytes)
        );
    }

    #[test]
    fn crc16_is_the_modbus_one() {
        assert_eq!(crc16(&[b"12345", b"6789"]), 0x4B37);
    }
}
