//! Payload: pages of a client that the device reaches and the driver does not.

use alloc::boxed::Box;

use crate::dma::PAGE;

/// Keeps pages pinned. Dropping it says that the device no longer uses them.
pub trait BufferGuard: Send + Sync {}

impl BufferGuard for () {}
impl<T: BufferGuard + ?Sized> BufferGuard for alloc::sync::Arc<T> {}

/// A pinned buffer: device addresses page by page, and what keeps them valid.
pub struct PinnedBuffer {
    pages: Box<[u64]>,
    len: u64,
    device_reads: bool,
    device_writes: bool,
    _guard: Box<dyn BufferGuard>,
}

/// A run of device addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First device address.
    pub address: u64,
    /// Bytes, not 0.
    pub len: u32,
}

/// What a device may do with a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceAccess {
    /// Read it.
    Reads,
    /// Write it.
    Writes,
    /// Both.
    Both,
}

impl PinnedBuffer {
    /// A buffer over whole pages with these device addresses.
    pub fn new(pages: Box<[u64]>, access: DeviceAccess, guard: Box<dyn BufferGuard>) -> Self {
        PinnedBuffer {
            len: pages.len() as u64 * PAGE as u64,
            pages,
            device_reads: access != DeviceAccess::Writes,
            device_writes: access != DeviceAccess::Reads,
            _guard: guard,
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the device may read it.
    pub fn device_reads(&self) -> bool {
        self.device_reads
    }

    /// Whether the device may write it.
    pub fn device_writes(&self) -> bool {
        self.device_writes
    }

    /// The `len` bytes from `offset` on if they lie within one page, which is the common case of small
    /// requests.
    #[inline]
    pub fn within_page(&self, offset: u64, len: u32) -> Option<Segment> {
        let skip = offset % PAGE as u64;
        let page = self.pages.get((offset / PAGE as u64) as usize)?;
        let fits = len != 0 && skip + u64::from(len) <= PAGE as u64;
        fits.then_some(Segment {
            address: page + skip,
            len,
        })
    }

    /// The `len` bytes from `offset` on as segments of at most `segment_max` bytes (0: no limit), pages that
    /// follow each other merged. `None` when the range is not inside the buffer.
    #[inline]
    pub fn segments(&self, offset: u64, len: u32, segment_max: u32) -> Option<Segments<'_>> {
        if offset > self.len || u64::from(len) > self.len - offset {
            return None;
        }
        let segment_max = if segment_max == 0 {
            u32::MAX
        } else {
            segment_max
        };
        let first = (offset / PAGE as u64) as usize;
        let pages = self.pages.get(first..)?;
        Some(Segments {
            pages,
            skip: (offset % PAGE as u64) as u32,
            left: len,
            segment_max,
        })
    }
}

impl core::fmt::Debug for PinnedBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PinnedBuffer {{ len: {:#x} }}", self.len)
    }
}

/// Iterator over the segments of a range of a buffer.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    pages: &'a [u64],
    /// Bytes of the first page that are already behind us.
    skip: u32,
    left: u32,
    segment_max: u32,
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        if self.left == 0 {
            return None;
        }
        let (&page, mut rest) = self.pages.split_first()?;
        let address = page + u64::from(self.skip);
        let limit = self.left.min(self.segment_max);
        let mut len = limit.min(PAGE as u32 - self.skip);
        let mut last = page;
        // The run goes on while the pages do and there is room.
        while len < limit {
            match rest.split_first() {
                Some((&next, after)) if last.wrapping_add(PAGE as u64) == next => {
                    len = limit.min(len + PAGE as u32);
                    last = next;
                    rest = after;
                }
                _ => break,
            }
        }
        let end = (address + u64::from(len)) % PAGE as u64;
        if end != 0 {
            // Ended inside the last page that was taken: it is looked at again.
            let taken = self.pages.len() - rest.len();
            self.pages = self.pages.get(taken - 1..)?;
        } else {
            self.pages = rest;
        }
        self.skip = end as u32;
        self.left -= len;
        Some(Segment { address, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn buffer(pages: &[u64]) -> PinnedBuffer {
        let pages = pages.iter().map(|p| p * PAGE as u64).collect();
        PinnedBuffer::new(pages, DeviceAccess::Both, Box::new(()))
    }

    #[test]
    fn neighbours_merge() {
        let b = buffer(&[10, 11, 12, 20]);
        let s: Vec<_> = b.segments(0x800, 0x3000, 0).unwrap().collect();
        assert_eq!(
            s,
            [
                Segment {
                    address: 0xa800,
                    len: 0x2800
                },
                Segment {
                    address: 0x14000,
                    len: 0x800
                }
            ]
        );
        assert!(b.segments(0x1000, 0x3001, 0).is_none());
        assert!(b.segments(u64::MAX, 1, 0).is_none());
        assert_eq!(b.segments(0x4000, 0, 0).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn every_byte_comes_once_and_in_order(
            pages in prop::collection::vec(1u64..6, 1..12),
            offset in 0u64..0xc000,
            len in 0u32..0xc000,
            segment_max in prop_oneof![Just(0u32), 512u32..20000],
        ) {
            let b = buffer(&pages);
            let expected = (offset + u64::from(len) <= b.len()).then(|| {
                (offset..offset + u64::from(len))
                    .map(|at| pages[(at / 4096) as usize] * 4096 + at % 4096)
                    .collect::<Vec<_>>()
            });
            let seen = b.segments(offset, len, segment_max).map(|segments| {
                segments
                    .flat_map(|s| {
                        assert!(s.len > 0 && (segment_max == 0 || s.len <= segment_max));
                        s.address..s.address + u64::from(s.len)
                    })
                    .collect::<Vec<_>>()
            });
            if let Some(one) = b.within_page(offset, len) {
                prop_assert_eq!(b.segments(offset, len, 0).unwrap().collect::<Vec<_>>(), [one]);
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
