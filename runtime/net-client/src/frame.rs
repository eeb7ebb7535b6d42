//! Frames as the client sees them.

use alloc::vec::Vec;

use proto::net::{PREFIX_MAX, Received, Segmentation, Status, Transmit, rx_flags, tx_flags};

use crate::session::Buffer;

/// Bytes of a registered buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Space {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte in it; of a receive buffer a multiple of 4.
    pub offset: u32,
    /// Bytes, not 0.
    pub length: u32,
}

/// What the device says of a received frame's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum RxChecksum {
    /// Nothing: it is to be checked.
    #[default]
    Unchecked,
    /// They are right.
    Valid,
    /// The frame never was on a wire: its bytes are right, and the checksum field holds the pseudo-header's sum. Who passes it on
    /// fills it in.
    Partial(Checksum),
}

/// A checksum that is to be computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Checksum {
    /// First byte of the frame that it covers; it goes to the end.
    pub start: u16,
    /// Where it is, from `start`.
    pub offset: u16,
}

/// How a frame is cut, or was put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Segment {
    /// Which protocols.
    pub kind: Segmentation,
    /// Bytes of payload of each segment.
    pub size: u16,
    /// Bytes of the headers, Ethernet to TCP; 0 where it is not known (received frames).
    pub header_length: u16,
}

/// A received frame or what a driver gave back, in the order of its bytes. To be used again and again.
#[derive(Clone, Debug, Default)]
pub struct RxFrame {
    /// The buffers with its bytes, at least one.
    pub parts: Vec<RxPart>,
    /// Its checksums.
    pub checksum: RxChecksum,
    /// If the device put segments together.
    pub segment: Option<Segment>,
    /// Anything but `OK`: there is no frame, the driver gave the buffer back.
    pub status: Status,
}

/// A buffer with a part of a received frame. Its bytes are those of the prefix and then those in the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxPart {
    /// That of [`Session::provide`](crate::Session::provide).
    pub token: u64,
    /// Where the bytes are.
    pub space: Space,
    prefix: [u8; PREFIX_MAX],
    prefix_length: u8,
}

impl RxPart {
    /// Bytes that come before those in the buffer; mostly none.
    pub fn prefix(&self) -> &[u8] {
        self.prefix
            .get(..usize::from(self.prefix_length))
            .unwrap_or_default()
    }
}

impl RxFrame {
    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        let part = |p: &RxPart| p.prefix().len() + p.space.length as usize;
        self.parts.iter().map(part).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what a driver says of the buffer `space`. `Ok(true)`: the frame is complete; `Err`: what it says
    /// cannot be.
    pub(crate) fn add(&mut self, token: u64, space: Space, entry: &Received) -> Result<bool, ()> {
        let prefixed = usize::from(entry.prefix_length) <= PREFIX_MAX;
        if entry.length > space.length || !prefixed {
            return Err(());
        }
        if self.parts.is_empty() {
            let checksum = Checksum {
                start: entry.checksum_start,
                offset: entry.checksum_offset,
            };
            self.checksum = match entry.flags {
                f if f & rx_flags::CHECKSUM_PARTIAL != 0 => RxChecksum::Partial(checksum),
                f if f & rx_flags::CHECKSUM_VALID != 0 => RxChecksum::Valid,
                _ => RxChecksum::Unchecked,
            };
            self.segment = (entry.segmentation != 0).then_some(Segment {
                kind: Segmentation(entry.segmentation),
                size: entry.segment_size,
                header_length: 0,
            });
            self.status = Status::OK;
        }
        if entry.status != Status::OK.0 {
            // Also of a later part: the rest of the frame was lost with a reset.
            self.status = Status(entry.status);
        }
        self.parts.push(RxPart {
            token,
            space: Space {
                length: entry.length,
                ..space
            },
            prefix: entry.prefix,
            prefix_length: entry.prefix_length,
        });
        Ok(entry.flags & rx_flags::MORE == 0)
    }

    pub(crate) fn clear(&mut self) {
        self.parts.clear();
    }
}

/// A frame to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxFrame<'a> {
    /// Its bytes, in order.
    pub parts: &'a [Space],
    /// The checksum that the device is to compute.
    pub checksum: Option<Checksum>,
    /// How the device is to cut it; needs `checksum`.
    pub segment: Option<Segment>,
    /// Whether somebody waits for its buffers.
    pub answer: Answer,
}

/// When the driver is to say that a frame was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Answer {
    /// As soon as it was.
    #[default]
    Soon,
    /// When there is something else to say, and within two seconds: saves an interrupt and a wake-up.
    Lazy,
}

impl<'a> TxFrame<'a> {
    /// A frame that is sent as it is.
    pub const fn plain(parts: &'a [Space]) -> TxFrame<'a> {
        TxFrame {
            parts,
            checksum: None,
            segment: None,
            answer: Answer::Soon,
        }
    }

    /// Its entries in the ring.
    pub(crate) fn entries(&self, id: u32) -> impl Iterator<Item = Transmit> {
        let last = self.parts.len().saturating_sub(1);
        let frame = *self;
        self.parts.iter().enumerate().map(move |(n, part)| {
            let mut entry = Transmit {
                id,
                offset: part.offset,
                length: part.length,
                slot: part.buffer.slot(),
                flags: if n < last { tx_flags::MORE } else { 0 },
                ..Transmit::default()
            };
            if n == 0 {
                if frame.answer == Answer::Lazy {
                    entry.flags |= tx_flags::LAZY;
                }
                if let Some(checksum) = frame.checksum {
                    entry.flags |= tx_flags::CHECKSUM;
                    entry.checksum_start = checksum.start;
                    entry.checksum_offset = checksum.offset;
                }
                if let Some(segment) = frame.segment {
                    entry.segmentation = segment.kind.0;
                    entry.segment_size = segment.size;
                    entry.header_length = segment.header_length;
                }
            }
            entry
        })
    }
}

/// A frame whose buffers may be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxDone {
    /// That of [`Session::transmit`](crate::Session::transmit).
    pub token: u64,
    /// [`Status::OK`]: the device took it. [`Status::LOST`]: it was with a device or driver that went.
    pub status: Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(length: u32) -> Space {
        Space {
            buffer: Buffer::of(3),
            offset: 64,
            length,
        }
    }

    #[test]
    fn a_frame_of_several_parts() {
        let mut frame = RxFrame::default();
        let first = Received {
            length: 100,
            flags: rx_flags::MORE | rx_flags::CHECKSUM_VALID,
            ..Received::default()
        };
        assert_eq!(frame.add(1, space(128), &first), Ok(false));
        let rest = Received {
            length: 8,
            prefix_length: 12,
            prefix: [7; PREFIX_MAX],
            ..Received::default()
        };
        assert_eq!(frame.add(2, space(128), &rest), Ok(true));
        assert_eq!((frame.len(), frame.checksum), (120, RxChecksum::Valid));
        assert_eq!(frame.parts[1].prefix(), [7; 12]);
        assert_eq!(frame.parts[1].space.length, 8);
    }

    #[test]
    fn a_frame_whose_rest_was_lost_is_none() {
        let mut frame = RxFrame::default();
        let first = Received {
            length: 100,
            flags: rx_flags::MORE,
            ..Received::default()
        };
        assert_eq!(frame.add(1, space(128), &first), Ok(false));
        let lost = Received {
            status: Status::LOST.0,
            ..Received::default()
        };
        assert_eq!(frame.add(2, space(128), &lost), Ok(true));
        assert_eq!((frame.status, frame.parts.len()), (Status::LOST, 2));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let long = Received {
            length: 129,
            ..Received::default()
        };
        assert!(RxFrame::default().add(1, space(128), &long).is_err());
        let odd = Received {
            prefix_length: 13,
            ..Received::default()
        };
        assert!(RxFrame::default().add(1, space(128), &odd).is_err());
    }

    #[test]
    fn offloads_are_said_in_the_first_fragment() {
        let parts = [space(54), space(3000)];
        let frame = TxFrame {
            parts: &parts,
            checksum: Some(Checksum {
                start: 34,
                offset: 16,
            }),
            segment: Some(Segment {
                kind: Segmentation::TCP4,
                size: 1460,
                header_length: 54,
            }),
            answer: Answer::Lazy,
        };
        let entries: Vec<_> = frame.entries(9).collect();
        assert_eq!(
            entries[0].flags,
            tx_flags::MORE | tx_flags::CHECKSUM | tx_flags::LAZY
        );
        assert_eq!(
            (entries[0].segmentation, entries[0].segment_size),
            (1, 1460)
        );
        assert_eq!(
            (entries[1].flags, entries[1].segmentation, entries[1].slot),
            (0, 0, 3)
        );
    }
}
