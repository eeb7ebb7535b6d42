//! When to read ahead of a client, and how far: pure arithmetic per open file.
//!
//! A read that continues where the last one ended is sequential. The window
//! doubles up to 1 MiB and is topped up when half of it is used; a read anywhere
//! else closes it.

use core::ops::Range;

const WINDOW_MIN_BYTES: u64 = 64 * 1024;
const WINDOW_MAX_BYTES: u64 = 1024 * 1024;

/// The state of one open file.
#[derive(Debug, Clone, Default)]
pub struct ReadAhead {
    /// Where a sequential reader will read next.
    expected: u64,
    /// Current window in bytes, 0 when reads are scattered.
    window: u64,
    /// End of what was asked for so far.
    ahead: u64,
}

impl ReadAhead {
    /// Notes a read of `len` bytes at `offset` of a file of `size` bytes; the
    /// range returned should be fetched now, behind the read itself.
    pub fn on_read(&mut self, offset: u64, len: u64, size: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(len).min(size);
        let sequential = offset == self.expected;
        self.expected = end;
        if !sequential {
            self.window = 0;
            self.ahead = end;
            return None;
        }
        self.ahead = self.ahead.max(end);
        if self.ahead - end >= self.window.div_ceil(2).max(1) {
            return None;
        }
        self.window = (self.window * 2).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES);
        let start = self.ahead;
        let stop = start.saturating_add(self.window).min(size);
        self.ahead = stop;
        (start < stop).then_some(start..stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_gets_a_doubling_window_without_gaps() {
        let size = 64 << 20;
        let mut ahead = ReadAhead::default();
        let mut fetched_to = 4096;
        let mut longest = 0;
        for page in 0..2048u64 {
            if let Some(range) = ahead.on_read(page * 4096, 4096, size) {
                assert_eq!(range.start, fetched_to);
                assert!(range.end - range.start >= longest);
                longest = range.end - range.start;
                fetched_to = range.end;
            }
            assert!(fetched_to > page * 4096);
        }
        assert_eq!(longest, WINDOW_MAX_BYTES);
    }

    #[test]
    fn scattered_reads_fetch_nothing_more() {
        let mut ahead = ReadAhead::default();
        for offset in [8192u64, 4096, 1 << 20, 0, 12288] {
            assert_eq!(ahead.on_read(offset, 4096, 1 << 30), None);
        }
    }

    #[test]
    fn it_stops_at_the_end_of_the_file() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.on_read(0, 4096, 10_000), Some(4096..10_000));
        assert_eq!(ahead.on_read(4096, 4096, 10_000), None);
        assert_eq!(ahead.on_read(8192, 4096, 10_000), None);
        assert_eq!(ahead.on_read(u64::MAX - 3, 4096, 10_000), None);
    }
}
