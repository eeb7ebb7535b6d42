//! A queue pair: receive buffers and frames as chains of descriptors (virtio 1.2, 5.1.6).
//!
//! The header of each frame lies in memory of the driver, in a descriptor of its own (2.7.4.1: devices make no assumption of
//! how a buffer is cut), so that payload is never mapped. Where a frame spreads over several buffers only the first has a header;
//! what the device puts in its place in the others is the start of their payload, and is handed on as a prefix.

use ddk::{DeviceContext, DmaRegion, DriverError, EventQueue, Irq, PlatformError};
use ddk_class_net::{
    Checksum, Frame, NetQueue, PushError, QueueLimits, Received, SEGMENTS_MAX, Segment,
    SegmentRequest, Segmentation, Status, Wish,
};
use ddk_virtio::{ChainTooLong, Virtqueue};
use spec_virtio::net::{HEADER_BYTES, Header, feature, header_flags, segmentation};

use crate::config::Config;

/// Where headers are in their memory: they straddle no page.
const HEADER_STRIDE: usize = 16;

const _: () = assert!(HEADER_BYTES <= HEADER_STRIDE);

/// A queue pair.
pub struct Queue {
    receive: Virtqueue,
    transmit: Virtqueue,
    /// [`HEADER_STRIDE`] for each slot.
    receive_headers: DmaRegion,
    transmit_headers: DmaRegion,
    irq: Irq,
    merges: bool,
    /// Buffers of the frame that is being received that are still to come.
    parts_left: u16,
}

/// Descriptors of a receive chain: header, and a buffer of the shortest length however it lies on pages, or two pages.
pub(crate) fn receive_chain(config: &Config) -> u16 {
    if config.has(feature::MRG_RXBUF) {
        return 4;
    }
    (config.frame_max() / ddk::PAGE as u32) as u16 + 3
}

/// Descriptors of a frame's chain: header and segments.
pub(crate) fn transmit_chain(config: &Config) -> u16 {
    if config.segments() {
        return SEGMENTS_MAX as u16 + 1;
    }
    16
}

impl Queue {
    pub(crate) fn new(
        cx: &DeviceContext,
        receive: Virtqueue,
        mut transmit: Virtqueue,
        irq: Irq,
        config: &Config,
    ) -> Result<Queue, DriverError> {
        let headers = |queue: &Virtqueue| cx.dma_region(usize::from(queue.slots()) * HEADER_STRIDE);
        let receive_headers = headers(&receive)?;
        let transmit_headers = headers(&transmit)?;
        // Every frame begins with its header (5.1.6.2).
        let at = |slot: u16| transmit_headers.device_address(usize::from(slot) * HEADER_STRIDE);
        transmit.set_prefix(|slot| (at(slot), HEADER_BYTES as u32));
        Ok(Queue {
            receive,
            transmit,
            receive_headers,
            transmit_headers,
            irq,
            merges: config.has(feature::MRG_RXBUF),
            parts_left: 0,
        })
    }

    pub(crate) fn sizes(&self) -> (u16, u16) {
        (self.receive.size(), self.transmit.size())
    }
}

fn too_long(_: ChainTooLong) -> PushError {
    PushError::Rejected(Status::TOO_LONG)
}

/// A device that says nonsense of a frame.
fn odd(what: &'static str, expected: u64, seen: u64) -> DriverError {
    DriverError::Protocol {
        what,
        expected,
        seen,
    }
}

impl NetQueue for Queue {
    fn limits(&self) -> QueueLimits {
        QueueLimits {
            rx_depth: self.receive.slots(),
            tx_depth: self.transmit.slots(),
            rx_segments: self.receive.chain_max() - 1,
            tx_segments: (self.transmit.chain_max() - 1).min(SEGMENTS_MAX as u16),
        }
    }

    #[inline]
    fn provide(&mut self, token: u32, segments: &[Segment]) -> Result<(), PushError> {
        let Some(mut chain) = self.receive.chain() else {
            return Err(PushError::Full);
        };
        let at = usize::from(chain.slot()) * HEADER_STRIDE;
        let header = self.receive_headers.device_address(at);
        chain
            .writable(header, HEADER_BYTES as u32)
            .map_err(too_long)?;
        for segment in segments {
            chain
                .writable(segment.address, segment.len)
                .map_err(too_long)?;
        }
        chain.submit(token);
        Ok(())
    }

    #[inline]
    fn received(&mut self) -> Result<Option<Received>, DriverError> {
        let Some(done) = self.receive.reap()? else {
            return Ok(None);
        };
        let at = usize::from(done.slot) * HEADER_STRIDE;
        let mut received = Received {
            token: done.token,
            ..Received::default()
        };
        if self.parts_left > 0 {
            // No header: what is in its place are the first bytes of this part.
            self.receive_headers.read_bytes(at, &mut received.prefix);
            let prefix = done.written.min(HEADER_BYTES as u32);
            received.prefix_length = prefix as u8;
            received.length = done.written - prefix;
            self.parts_left -= 1;
        } else {
            let header: Header = self.receive_headers.read_struct(at);
            received.length = done.written.checked_sub(HEADER_BYTES as u32).ok_or(odd(
                "bytes of a received frame with its header",
                HEADER_BYTES as u64,
                done.written.into(),
            ))?;
            self.describe(&header, &mut received)?;
        }
        if self.parts_left > 0 {
            received.flags |= ddk_class_net::rx_flags::MORE;
        }
        Ok(Some(received))
    }

    #[inline]
    fn transmit(&mut self, frame: &Frame<'_>) -> Result<(), PushError> {
        let Some(mut chain) = self.transmit.chain() else {
            return Err(PushError::Full);
        };
        let at = usize::from(chain.slot()) * HEADER_STRIDE;
        self.transmit_headers.write_struct(at, header_of(frame));
        for segment in frame.segments {
            chain
                .readable(segment.address, segment.len)
                .map_err(too_long)?;
        }
        chain.submit(frame.token);
        Ok(())
    }

    #[inline]
    fn sent(&mut self) -> Result<Option<u32>, DriverError> {
        Ok(self.transmit.reap()?.map(|done| done.token))
    }

    #[inline]
    fn kick(&mut self) {
        self.receive.kick();
        self.transmit.kick();
    }

    #[inline]
    fn arm(&mut self, wish: Wish) -> bool {
        // Both, whatever the first finds.
        let received = self.receive.arm();
        match wish {
            Wish::Received => received,
            Wish::Any => self.transmit.arm() | received,
        }
    }

    #[inline]
    fn disarm(&mut self) {
        self.receive.disarm();
        self.transmit.disarm();
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)
    }
}

impl Queue {
    /// What the header of a received frame says (5.1.6.4).
    #[inline]
    fn describe(&mut self, header: &Header, received: &mut Received) -> Result<(), DriverError> {
        if header.flags & header_flags::NEEDS_CSUM != 0 {
            received.flags |= ddk_class_net::rx_flags::CHECKSUM_PARTIAL;
            received.checksum = Checksum {
                start: u16::from_le(header.csum_start),
                offset: u16::from_le(header.csum_offset),
            };
        } else if header.flags & header_flags::DATA_VALID != 0 {
            received.flags |= ddk_class_net::rx_flags::CHECKSUM_VALID;
        }
        received.segmentation = match header.gso_type & !segmentation::ECN {
            segmentation::NONE => Segmentation::NONE,
            segmentation::TCPV4 => Segmentation::TCP4,
            segmentation::TCPV6 => Segmentation::TCP6,
            other => return Err(odd("kind of a received frame", 0, other.into())),
        };
        received.segment_size = u16::from_le(header.gso_size);
        if self.merges {
            let parts = u16::from_le(header.num_buffers);
            let limit = self.receive.slots();
            self.parts_left = match parts.checked_sub(1) {
                Some(left) if parts <= limit => left,
                _ => {
                    let what = "buffers of a received frame";
                    return Err(odd(what, limit.into(), parts.into()));
                }
            };
        }
        Ok(())
    }
}

/// The header that says what the device is to do with a frame (5.1.6.2).
#[inline]
fn header_of(frame: &Frame<'_>) -> Header {
    let mut header = Header::default();
    if let Some(Checksum { start, offset }) = frame.checksum {
        header.flags = header_flags::NEEDS_CSUM;
        header.csum_start = start.to_le();
        header.csum_offset = offset.to_le();
    }
    if let Some(SegmentRequest {
        kind,
        size,
        header_length,
    }) = frame.segmentation
    {
        header.gso_type = if kind == Segmentation::TCP6 {
            segmentation::TCPV6
        } else {
            segmentation::TCPV4
        };
        header.gso_size = size.to_le();
        header.hdr_len = header_length.to_le();
    }
    header
}
