//! The kernel log: a ring of bytes with whole lines. Positions are byte counts since boot, so that a reader
//! notices what it lost.

/// A ring of `N` bytes; `N` is a power of two.
#[derive(Debug)]
pub struct LogRing<const N: usize> {
    bytes: [u8; N],
    end: u64,
}

impl<const N: usize> Default for LogRing<N> {
    fn default() -> Self {
        LogRing::new()
    }
}

impl<const N: usize> LogRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        assert!(N.is_power_of_two());
        LogRing {
            bytes: [0; N],
            end: 0,
        }
    }

    /// Position behind the newest byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends; the oldest bytes go.
    pub fn push(&mut self, text: &[u8]) {
        for &b in text {
            self.bytes[(self.end as usize) & (N - 1)] = b;
            self.end += 1;
        }
    }

    /// Copies from position `from` on and returns (bytes copied, position behind them). A position that is lost
    /// already moves up to the first whole line that is left; the copy ends with a whole line where one fits.
    pub fn read(&self, from: u64, out: &mut [u8]) -> (usize, u64) {
        let oldest = self.end.saturating_sub(N as u64);
        let mut at = from.min(self.end);
        if at < oldest {
            at = oldest;
            while at < self.end && self.at(at) != b'\n' {
                at += 1;
            }
            at = (at + 1).min(self.end);
        }
        let mut n = ((self.end - at) as usize).min(out.len());
        for (i, slot) in out[..n].iter_mut().enumerate() {
            *slot = self.at(at + i as u64);
        }
        if at + (n as u64) < self.end
            && let Some(last) = out[..n].iter().rposition(|&b| b == b'\n')
        {
            n = last + 1;
        }
        (n, at + n as u64)
    }

    fn at(&self, position: u64) -> u8 {
        self.bytes[(position as usize) & (N - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_whole_lines_and_skips_what_is_lost() {
        let mut ring = LogRing::<16>::new();
        ring.push(b"one\ntwo\n");
        let mut out = [0; 6];
        assert_eq!(ring.read(0, &mut out), (4, 4));
        assert_eq!(&out[..4], b"one\n");
        ring.push(b"three\nfour\n");
        let mut out = [0; 32];
        let (n, next) = ring.read(0, &mut out);
        assert_eq!((&out[..n], next), (&b"two\nthree\nfour\n"[..], 19));
        ring.push(b"5\n");
        let (n, next) = ring.read(4, &mut out);
        assert_eq!((&out[..n], next), (&b"three\nfour\n5\n"[..], 21));
        assert_eq!(ring.read(next, &mut out), (0, 21));
        assert_eq!(ring.read(1000, &mut out), (0, 21));
    }
}
