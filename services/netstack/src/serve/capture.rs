//! Frames as they pass, for `tcpdump`.

use alloc::rc::Rc;
use core::cell::RefCell;

use executor::Deadline;
use ipc::{Channel, sys::Signals};
use net::pipe::{End, Handles, Pipe};
use proto::inet::{Memory, NetworkError};

use super::Net;
use crate::device::Recorder;

/// Memory between a capture and its program.
const SHAPE: Memory = Memory {
    capacity: 1 << 20,
    descriptors: 1024,
};

/// Writes pcap records (libpcap's file format, little-endian, microseconds) into a pipe.
struct Capture {
    pipe: Pipe,
    snap_length: u32,
    lost: u64,
    ended: bool,
}

impl Recorder for Capture {
    fn record(&mut self, frame: &[u8]) -> bool {
        if self.ended {
            return false;
        }
        let kept = frame.len().min(self.snap_length as usize);
        let micros = sys::time::wall_clock_ns() / 1000;
        let fields = [
            (micros / 1_000_000) as u32,
            (micros % 1_000_000) as u32,
            kept as u32,
            frame.len() as u32,
        ];
        let mut header = [0; 16];
        for (place, field) in header.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let writer = &mut self.pipe.writer;
        let written = match writer.room() {
            Ok(room) if room >= header.len() + kept => {
                writer.write(&header).is_ok()
                    && writer.write(frame.get(..kept).unwrap_or(frame)).is_ok()
                    && writer.flush().is_ok()
            }
            Ok(_) => {
                self.lost += 1;
                true
            }
            Err(_) => false,
        };
        self.ended |= !written;
        written
    }
}

/// Starts a capture of an interface's frames.
pub(super) fn start(
    net: &Rc<Net>,
    interface: &str,
    snap_length: u32,
) -> Result<(Channel, Handles), NetworkError> {
    let limit = |_| NetworkError::LimitReached;
    let (pipe, handles) = Pipe::create(SHAPE).map_err(|_| NetworkError::LimitReached)?;
    let (client, server) = Channel::create().map_err(limit)?;
    let capture = Rc::new(RefCell::new(Capture {
        pipe,
        snap_length,
        lost: 0,
        ended: false,
    }));
    net.stack()
        .interface_mut(interface)?
        .add_recorder(capture.clone());
    let executor = net.executor.clone();
    let task = async move {
        let _ = executor
            .wait_signals(&server, Signals::PEER_CLOSED, Deadline::FOREVER)
            .await;
        let mut capture = capture.borrow_mut();
        capture.ended = true;
        capture.pipe.writer.finish(End::Finished);
        if capture.lost > 0 {
            rt::info!(
                "a capture missed {} frames for which there was no room",
                capture.lost
            );
        }
    };
    net.executor.spawn(task).detach();
    Ok((client, handles))
}
