//! What an interface's frames go through.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU16;

use net_client::RxChecksum;

use crate::segment::Transport;

/// What a link carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Ethernet frames; the stack's address on it.
    Ethernet([u8; 6]),
    /// IP packets, as the loopback does.
    Ip,
}

/// What a link's device takes off the stack's hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// It computes transport checksums of frames to be sent.
    pub tx_checksum: bool,
    /// Longest TCP/IPv4 frame that it cuts into segments.
    pub tx_tcp4: Option<usize>,
    /// Longest TCP/IPv6 frame that it cuts into segments.
    pub tx_tcp6: Option<usize>,
    /// It looks at transport checksums of received frames.
    pub rx_checksum: bool,
}

/// Properties of a link that do not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Properties {
    /// What it carries.
    pub medium: Medium,
    /// Longest IP packet in bytes.
    pub mtu: usize,
    /// What the device does.
    pub offloads: Offloads,
}

/// What is known of a frame to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Where its packet is, if it is a whole one.
    pub transport: Option<&'a Transport>,
    /// The device cuts its TCP data into segments of this size.
    pub segment_size: Option<NonZeroU16>,
}

/// A way for frames.
pub trait Link {
    /// What it is.
    fn properties(&self) -> Properties;
    /// Whether frames go anywhere now.
    fn is_up(&self) -> bool;
    /// Adds the next received frame to the end of `frame`; tells what is known of its transport checksum. `None` if there is none.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum>;
    /// Whether a frame can be sent now.
    fn can_send(&mut self) -> bool;
    /// Sends a frame. `false`: it was dropped.
    fn send(&mut self, frame: &mut [u8], about: About<'_>) -> bool;
    /// Everything that was sent goes out now. `true`: there is room again for more, which was waited for.
    fn flush(&mut self) -> bool {
        false
    }
    /// Times that the driver was replaced, so far.
    fn recoveries(&self) -> u64 {
        0
    }
    /// Name of the driver; empty without one.
    fn driver(&self) -> String {
        String::new()
    }
}

/// Longest packet of the loopback: a fraction of a connection's window, so that segments and acknowledgements overlap.
const LOOPBACK_MTU: usize = 16 * 1024;
/// Packets that the loopback holds.
const LOOPBACK_PACKETS: usize = 256;

/// Packets that come back.
#[derive(Default)]
pub struct Loopback {
    queue: VecDeque<Vec<u8>>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Link for Loopback {
    fn properties(&self) -> Properties {
        Properties {
            medium: Medium::Ip,
            mtu: LOOPBACK_MTU,
            offloads: Offloads {
                tx_checksum: true,
                rx_checksum: true,
                ..Offloads::default()
            },
        }
    }

    fn is_up(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum> {
        let mut packet = self.queue.pop_front()?;
        if frame.is_empty() {
            core::mem::swap(frame, &mut packet);
        } else {
            frame.extend_from_slice(&packet);
        }
        if self.spare.len() < 16 {
            self.spare.push(packet);
        }
        // Memory does not damage packets.
        Some(RxChecksum::Valid)
    }

    fn can_send(&mut self) -> bool {
        self.queue.len() < LOOPBACK_PACKETS
    }

    fn send(&mut self, frame: &mut [u8], _about: About<'_>) -> bool {
        if !self.can_send() {
            return false;
        }
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(frame);
        self.queue.push_back(packet);
        true
    }
}

/// What a [`wire`] does to frames, in thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Frames that get lost.
    pub lost: u32,
    /// Frames that come twice.
    pub repeated: u32,
    /// Frames that later ones overtake.
    pub reordered: u32,
    /// Frames with a flipped bit.
    pub damaged: u32,
}

/// Frames on the wire in one direction.
struct Direction {
    queue: VecDeque<Vec<u8>>,
    /// A frame that is overtaken by the next one.
    held: Option<Vec<u8>>,
    random: fastrand::Rng,
    faults: Faults,
}

impl Direction {
    fn happens(&mut self, per_mille: u32) -> bool {
        self.random.u32(0..1000) < per_mille
    }

    fn put(&mut self, mut frame: Vec<u8>) {
        let faults = self.faults;
        if self.happens(faults.lost) {
            return;
        }
        if self.happens(faults.damaged) && !frame.is_empty() {
            let at = self.random.usize(..frame.len());
            let bit = self.random.u32(0..8);
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        if self.happens(faults.repeated) {
            self.queue.push_back(frame.clone());
        }
        if self.held.is_none() && self.happens(faults.reordered) {
            self.held = Some(frame);
            return;
        }
        self.queue.push_back(frame);
        self.queue.extend(self.held.take());
    }
}

/// One end of a wire in memory.
pub struct WireEnd {
    mac: [u8; 6],
    mtu: usize,
    sends: Rc<RefCell<Direction>>,
    receives: Rc<RefCell<Direction>>,
}

/// A wire in memory with the same faults both ways, repeatable from its seed.
pub fn wire(mtu: usize, faults: Faults, seed: u64) -> (WireEnd, WireEnd) {
    let direction = |seed| {
        Rc::new(RefCell::new(Direction {
            queue: VecDeque::new(),
            held: None,
            random: fastrand::Rng::with_seed(seed),
            faults,
        }))
    };
    let (there, back) = (direction(seed), direction(seed ^ u64::MAX));
    let end = |last: u8, sends: &Rc<_>, receives: &Rc<_>| WireEnd {
        mac: [2, 0, 0, 0, 0, last],
        mtu,
        sends: Rc::clone(sends),
        receives: Rc::clone(receives),
    };
    (end(1, &there, &back), end(2, &back, &there))
}

impl Link for WireEnd {
    fn properties(&self) -> Properties {
        Properties {
            medium: Medium::Ethernet(self.mac),
            mtu: self.mtu,
            offloads: Offloads::default(),
        }
    }

    fn is_up(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum> {
        let mut direction = self.receives.borrow_mut();
        let next = direction.queue.pop_front();
        // Nothing comes to overtake it any more.
        frame.extend(next.or_else(|| direction.held.take())?);
        Some(RxChecksum::Unchecked)
    }

    fn can_send(&mut self) -> bool {
        self.sends.borrow().queue.len() < 1024
    }

    fn send(&mut self, frame: &mut [u8], _about: About<'_>) -> bool {
        self.sends.borrow_mut().put(frame.to_vec());
        true
    }
}
