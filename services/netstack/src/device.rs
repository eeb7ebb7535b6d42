//! A link as smoltcp sees it: a staged frame to receive, room to send, counters, captures.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::{NonZeroU16, NonZeroUsize};

use proto::inet::InterfaceCounters;
use smoltcp::phy::{self, Checksum, DeviceCapabilities, PacketMeta};
use smoltcp::time::Instant;

use crate::link::{Checksums, Link, Medium, Properties};

/// Takes note of frames.
pub trait Recorder {
    /// A frame passed; `false` when nobody wants more.
    fn record(&mut self, frame: &[u8]) -> bool;
}

/// A link with what passes through it.
pub struct Device {
    pub link: Box<dyn Link>,
    pub properties: Properties,
    /// The frame that is received next, if `staged`.
    pub received: Vec<u8>,
    pub staged: bool,
    output: Output,
}

/// What sending needs, apart from the frame that is being received.
struct Output {
    buffer: Vec<u8>,
    counters: InterfaceCounters,
    recorders: Vec<Rc<RefCell<dyn Recorder>>>,
}

impl Device {
    pub fn new(link: Box<dyn Link>) -> Device {
        Device {
            properties: link.properties(),
            link,
            received: Vec::new(),
            staged: false,
            output: Output {
                buffer: Vec::new(),
                counters: InterfaceCounters::default(),
                recorders: Vec::new(),
            },
        }
    }

    /// Stages the next received frame; `false` if there is none.
    pub fn stage(&mut self) -> bool {
        if !self.staged && self.link.receive(&mut self.received) {
            self.staged = true;
            let counters = &mut self.output.counters;
            counters.rx_frames += 1;
            counters.rx_bytes += self.received.len() as u64;
            self.output.record(&self.received);
        }
        self.staged
    }

    /// Does not receive the staged frame.
    pub fn discard(&mut self) {
        self.staged = false;
        self.output.counters.rx_dropped += 1;
    }

    pub fn counters_mut(&mut self) -> &mut InterfaceCounters {
        &mut self.output.counters
    }

    /// All counters, with the link's.
    pub fn counters(&self) -> InterfaceCounters {
        let own = self.output.counters;
        InterfaceCounters {
            rx_dropped: own.rx_dropped + self.link.damaged(),
            recoveries: self.link.recoveries(),
            ..own
        }
    }

    pub fn add_recorder(&mut self, recorder: Rc<RefCell<dyn Recorder>>) {
        self.output.recorders.push(recorder);
    }
}

impl Output {
    fn record(&mut self, frame: &[u8]) {
        if !self.recorders.is_empty() {
            self.recorders.retain(|r| r.borrow_mut().record(frame));
        }
    }
}

impl phy::Device for Device {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if !core::mem::take(&mut self.staged) {
            return None;
        }
        let sending = TxToken {
            link: self.link.as_mut(),
            output: &mut self.output,
            segment_size: None,
        };
        Some((RxToken(&self.received), sending))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        self.link.can_send().then_some(TxToken {
            link: self.link.as_mut(),
            output: &mut self.output,
            segment_size: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let Properties {
            medium,
            mtu,
            offloads,
            checksums,
        } = self.properties;
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = match medium {
            Medium::Ethernet(_) => (phy::Medium::Ethernet, mtu + 14),
            Medium::Ip => (phy::Medium::Ip, mtu),
        };
        capabilities.checksum.tcp = match checksums {
            Checksums::Link => Checksum::None,
            Checksums::Stack => Checksum::Both,
        };
        capabilities.checksum.udp = match (medium, offloads.tx_checksum) {
            (Medium::Ip, _) => Checksum::None,
            // A datagram in fragments can be looked at only when it is whole.
            (Medium::Ethernet(_), true) => Checksum::Rx,
            (Medium::Ethernet(_), false) => Checksum::Both,
        };
        if offloads.tx_checksum {
            capabilities.segmentation.tcpv4 = offloads.tx_tcp4.and_then(NonZeroUsize::new);
            capabilities.segmentation.tcpv6 = offloads.tx_tcp6.and_then(NonZeroUsize::new);
        }
        capabilities
    }
}

/// The staged frame.
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A frame that will be sent.
pub struct TxToken<'a> {
    link: &'a mut dyn Link,
    output: &'a mut Output,
    segment_size: Option<NonZeroU16>,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let output = self.output;
        let mut buffer = core::mem::take(&mut output.buffer);
        buffer.clear();
        buffer.resize(len, 0);
        let result = f(&mut buffer);
        // An answer to a received frame comes without asking for room first.
        if self.link.can_send() && self.link.send(&mut buffer, self.segment_size) {
            output.counters.tx_frames += 1;
            output.counters.tx_bytes += len as u64;
            output.record(&buffer);
        } else {
            output.counters.tx_dropped += 1;
        }
        output.buffer = buffer;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_size = meta.segmentation_offload_size;
    }
}
