//! Checking what a client asked for. The entries are the worker's own copies.

use ddk::PinnedBuffer;
use ddk_class_core::Buffers;
use proto::net::{
    ETHERNET_HEADER_BYTES, Offloads, RxBuffer, Segmentation, Status, Transmit, tx_flags,
};

use crate::device::{Checksum, NicInfo, QueueLimits, Segment, SegmentRequest};
use crate::{FRAGMENTS_MAX, SEGMENTS_MAX};

/// Shortest headers (RFC 791, 8200, 9293), and where TCP's has its checksum.
const IPV4_HEADER_BYTES: u32 = 20;
const IPV6_HEADER_BYTES: u32 = 40;
const TCP_HEADER_BYTES: u32 = 20;
const TCP_CHECKSUM: u16 = 16;

/// Device addresses of a buffer or frame, collected without allocating.
pub(crate) struct Segments {
    list: [Segment; SEGMENTS_MAX],
    count: usize,
}

impl Segments {
    pub(crate) const fn new() -> Segments {
        let none = Segment { address: 0, len: 0 };
        Segments {
            list: [none; SEGMENTS_MAX],
            count: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    #[inline]
    pub(crate) fn get(&self) -> &[Segment] {
        self.list.get(..self.count).unwrap_or_default()
    }

    /// Adds a range that lies inside of the buffer; `limit` segments at most in all.
    #[inline]
    fn add(
        &mut self,
        buffer: &PinnedBuffer,
        offset: u32,
        length: u32,
        limit: u16,
    ) -> Result<(), Status> {
        if let Some(one) = buffer.within_page(offset.into(), length) {
            return self.push(one, limit);
        }
        let segments = buffer.segments(offset.into(), length, 0);
        for segment in segments.ok_or(Status::BAD_BUFFER)? {
            self.push(segment, limit)?;
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, segment: Segment, limit: u16) -> Result<(), Status> {
        if self.count >= usize::from(limit) {
            return Err(Status::TOO_LONG);
        }
        *self.list.get_mut(self.count).ok_or(Status::TOO_LONG)? = segment;
        self.count += 1;
        Ok(())
    }
}

/// The range of a registered buffer that the device may use so.
#[inline]
fn range(
    buffers: &Buffers,
    slot: u16,
    (offset, length): (u32, u32),
    allowed: impl Fn(&PinnedBuffer) -> bool,
) -> Result<&PinnedBuffer, Status> {
    let buffer = buffers.get(slot).ok_or(Status::BAD_BUFFER)?;
    let end = u64::from(offset) + u64::from(length);
    if !allowed(buffer) || end > buffer.len() {
        return Err(Status::BAD_BUFFER);
    }
    Ok(buffer)
}

/// Checks a receive buffer and finds its device addresses.
#[inline]
pub(crate) fn rx_buffer(
    buffers: &Buffers,
    info: &NicInfo,
    limits: &QueueLimits,
    entry: &RxBuffer,
    segments: &mut Segments,
) -> Result<(), Status> {
    segments.clear();
    let &RxBuffer {
        offset,
        length,
        slot,
        reserved,
        ..
    } = entry;
    if reserved != 0 || length == 0 || length < info.rx_buffer_min || offset & 3 != 0 {
        return Err(Status::INVALID);
    }
    let buffer = range(buffers, slot, (offset, length), PinnedBuffer::device_writes)?;
    segments.add(buffer, offset, length, limits.rx_segments)
}

/// What is asked of the device for a frame that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckedFrame {
    pub(crate) length: u32,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) segmentation: Option<SegmentRequest>,
}

/// Checks the fragments of a frame and finds their device addresses. `count` is how many there were; those beyond
/// [`FRAGMENTS_MAX`] are not in `fragments`.
#[inline]
pub(crate) fn frame(
    buffers: &Buffers,
    info: &NicInfo,
    limits: &QueueLimits,
    (fragments, count): (&[Transmit], usize),
    segments: &mut Segments,
) -> Result<CheckedFrame, Status> {
    segments.clear();
    let first = fragments.first().ok_or(Status::INVALID)?;
    if count > fragments.len() || count > FRAGMENTS_MAX {
        return Err(Status::TOO_LONG);
    }
    let mut length = 0u32;
    for fragment in fragments {
        if fragment.length == 0 || fragment.flags & !tx_flags::ALL != 0 {
            return Err(Status::INVALID);
        }
        let at = (fragment.offset, fragment.length);
        let buffer = range(buffers, fragment.slot, at, PinnedBuffer::device_reads)?;
        length = length
            .checked_add(fragment.length)
            .ok_or(Status::TOO_LONG)?;
        segments.add(buffer, fragment.offset, fragment.length, limits.tx_segments)?;
    }
    if length < ETHERNET_HEADER_BYTES || first.reserved != [0; 7] {
        return Err(Status::INVALID);
    }
    let checksum = checksum(info, first, length)?;
    let segmentation = segmentation(info, first, length, checksum)?;
    let max = match segmentation {
        Some(_) => info.segmented_max,
        None => info.frame_max,
    };
    if length > max {
        return Err(Status::TOO_LONG);
    }
    Ok(CheckedFrame {
        length,
        checksum,
        segmentation,
    })
}

fn checksum(info: &NicInfo, first: &Transmit, length: u32) -> Result<Option<Checksum>, Status> {
    if first.flags & tx_flags::CHECKSUM == 0 {
        return Ok(None);
    }
    if !info.offloads.contains(Offloads::TX_CHECKSUM) {
        return Err(Status::UNSUPPORTED);
    }
    let checksum = Checksum {
        start: first.checksum_start,
        offset: first.checksum_offset,
    };
    // The field has two bytes, after the Ethernet header and inside of the frame.
    let field = u32::from(checksum.start) + u32::from(checksum.offset);
    if u32::from(checksum.start) < ETHERNET_HEADER_BYTES || field + 2 > length {
        return Err(Status::INVALID);
    }
    Ok(Some(checksum))
}

fn segmentation(
    info: &NicInfo,
    first: &Transmit,
    length: u32,
    checksum: Option<Checksum>,
) -> Result<Option<SegmentRequest>, Status> {
    let kind = Segmentation(first.segmentation);
    let (needed, ip_header) = match kind {
        Segmentation::NONE => return Ok(None),
        Segmentation::TCP4 => (Offloads::TX_TCP4, IPV4_HEADER_BYTES),
        Segmentation::TCP6 => (Offloads::TX_TCP6, IPV6_HEADER_BYTES),
        _ => return Err(Status::INVALID),
    };
    if !info.offloads.contains(needed) {
        return Err(Status::UNSUPPORTED);
    }
    let (size, header_length) = (first.segment_size, first.header_length);
    // The checksum is the TCP header's, so that header starts there and lies inside of the headers.
    let checksum = checksum.ok_or(Status::INVALID)?;
    let (start, header) = (u32::from(checksum.start), u32::from(header_length));
    let is_tcp = checksum.offset == TCP_CHECKSUM && start >= ETHERNET_HEADER_BYTES + ip_header;
    let inside = start + TCP_HEADER_BYTES <= header && header < length;
    if size == 0 || !is_tcp || !inside {
        return Err(Status::INVALID);
    }
    // A segment is a frame, which the link has to take.
    if header + u32::from(size) > info.frame_max {
        return Err(Status::TOO_LONG);
    }
    Ok(Some(SegmentRequest {
        kind,
        size,
        header_length,
    }))
}
