//! What the device does with a frame before it is on the wire, as its header asks (virtio 1.2, 5.1.6.2).

use model_offload::{Cut, ETHERNET, Ip, Pseudo, TCP_CHECKSUM, insert};
use spec_virtio::net::{Header, header_flags, segmentation};

/// The frames that a frame of the driver becomes.
///
/// # Errors
/// Which rule the driver broke.
pub fn frames(header: &Header, frame: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    if frame.len() < ETHERNET {
        return Err(format!("frame of {} bytes", frame.len()));
    }
    let (start, offset) = (
        usize::from(header.csum_start),
        usize::from(header.csum_offset),
    );
    let checksums = header.flags & header_flags::NEEDS_CSUM != 0;
    if header.flags & !header_flags::NEEDS_CSUM != 0 {
        return Err(format!("flags {:#x} of a frame to be sent", header.flags));
    }
    if checksums && start + offset + 2 > frame.len() {
        return Err(format!(
            "checksum at {start} + {offset} of {} bytes",
            frame.len()
        ));
    }
    let ip = match header.gso_type {
        segmentation::NONE if !checksums => return Ok(vec![frame]),
        segmentation::NONE => {
            let mut frame = frame;
            insert(&mut frame, start, offset);
            return Ok(vec![frame]);
        }
        segmentation::TCPV4 if checksums => Ip::V4,
        segmentation::TCPV6 if checksums => Ip::V6,
        kind => {
            return Err(format!(
                "segmentation {kind} with flags {:#x}",
                header.flags
            ));
        }
    };
    if offset != TCP_CHECKSUM {
        return Err(format!("segmentation {header:?}"));
    }
    let cut = Cut {
        start,
        headers: header.hdr_len.into(),
        size: header.gso_size.into(),
        ip,
        pseudo: Pseudo::WithLength,
    };
    model_offload::segments(&frame, &cut)
}
