//! The fuzzer's bytes, taken one after the other.

/// What is left of the input. At its end everything is zero.
#[derive(Clone, Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    at: usize,
}

impl Input {
    /// All of `bytes`.
    pub fn new(bytes: &[u8]) -> Input {
        Input {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }

    /// Whether all was taken.
    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// The next `len` bytes as a little-endian number.
    pub fn number(&mut self, len: usize) -> u64 {
        (0..len.min(8)).fold(0, |value, n| value | u64::from(self.byte()) << (8 * n))
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}
