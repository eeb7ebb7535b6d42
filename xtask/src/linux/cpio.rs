//! Writes an initial RAM disk in cpio's "newc" format, which Linux unpacks.
//!
//! Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// Regular file, readable and executable by all.
const EXECUTABLE: u32 = 0o100_755;

impl Archive {
    /// Adds a regular file. `name` has no leading slash.
    pub fn add(&mut self, name: &str, data: &[u8]) {
        self.entry(name, EXECUTABLE, data);
    }

    /// Ends the archive and gives its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let data_len = u32::try_from(data.len()).expect("a program is far below 4 GiB");
        let name_len = u32::try_from(name.len() + 1).expect("a name is short");
        // inode, mode, uid, gid, links, time, size, device x 4, name size, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            data_len,
            0,
            0,
            0,
            0,
            name_len,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_data_start_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.add("init", b"12345");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        // 110 bytes of header, "init\0", padding to 116.
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(bytes.len() % 4, 0);
    }
}
