//! A link as smoltcp sees it: a staged frame to receive, room to send, counters, captures.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::{NonZeroU16, NonZeroUsize};

use net_client::RxChecksum;
use proto::inet::InterfaceCounters;
use smoltcp::phy::{self, Checksum, DeviceCapabilities, PacketMeta};
use smoltcp::time::Instant;

use crate::coalesce::{Coalescer, Taken};
use crate::link::{About, Link, Medium, Properties};
use crate::recovery::Recovery;
use crate::segment::{self, Transport};

/// Longest frame without data of others: a message of DHCP with all its options.
const LONGEST_MESSAGE: usize = 1024;
/// Room for all headers in front of such data.
const HEADERS: usize = 256;

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
    /// Where its packet is.
    pub transport: Option<Transport>,
    /// A frame that came behind the staged one, if something is known of its checksum.
    behind: Vec<u8>,
    waiting: Option<RxChecksum>,
    /// The link said just now that there is nothing.
    drained: bool,
    coalescer: Coalescer,
    pub recovery: Recovery,
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
            transport: None,
            behind: Vec::new(),
            waiting: None,
            drained: false,
            coalescer: Coalescer::default(),
            recovery: Recovery::default(),
            output: Output {
                buffer: Vec::new(),
                counters: InterfaceCounters::default(),
                recorders: Vec::new(),
            },
        }
    }

    /// Stages what is received next: a frame, or a run of TCP segments as one. `false` if there is nothing.
    pub fn stage(&mut self) -> bool {
        while !self.staged {
            let checksum = match self.waiting.take() {
                Some(checksum) => {
                    core::mem::swap(&mut self.received, &mut self.behind);
                    checksum
                }
                None if core::mem::take(&mut self.drained) => return false,
                None => {
                    self.received.clear();
                    match fetch(self.link.as_mut(), &mut self.output, &mut self.received) {
                        Some(checksum) => checksum,
                        None => return false,
                    }
                }
            };
            let medium = self.properties.medium;
            self.transport = segment::transport(medium, &self.received);
            let transport = self.transport.as_ref();
            // smoltcp looks at no checksum of TCP.
            self.staged = checksum != RxChecksum::Unchecked
                || segment::checksum_is_right(medium, &self.received, transport);
            if !self.staged {
                self.output.counters.rx_dropped += 1;
            } else if let (Medium::Ethernet(_), Some(transport)) = (medium, transport)
                // The loopback's packets are long, and moved without a copy.
                && self.coalescer.begin(&mut self.received, transport)
            {
                self.stage_run();
            }
        }
        true
    }

    /// Appends what follows the staged segment to it.
    fn stage_run(&mut self) {
        while !self.coalescer.is_complete() {
            let (link, output) = (self.link.as_mut(), &mut self.output);
            let (run, behind) = (&mut self.received, &mut self.behind);
            let taken = self
                .coalescer
                .take(run, behind, |frame| fetch(link, output, frame));
            match taken {
                Some(Taken::Appended) => {}
                Some(Taken::Apart(checksum)) => {
                    self.waiting = Some(checksum);
                    break;
                }
                None => {
                    self.drained = true;
                    break;
                }
            }
        }
        self.coalescer.finish(&mut self.received);
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
        InterfaceCounters {
            recoveries: self.link.recoveries(),
            ..self.output.counters
        }
    }

    pub fn add_recorder(&mut self, recorder: Rc<RefCell<dyn Recorder>>) {
        self.output.recorders.push(recorder);
    }
}

/// Adds the link's next frame to the end of `frame`, and to the accounts.
fn fetch(link: &mut dyn Link, output: &mut Output, frame: &mut Vec<u8>) -> Option<RxChecksum> {
    let start = frame.len();
    let checksum = link.receive(frame)?;
    let received = frame.get(start..).unwrap_or_default();
    output.counters.rx_frames += 1;
    output.counters.rx_bytes += received.len() as u64;
    output.record(received);
    Some(checksum)
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

    fn receive(&mut self, now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if !core::mem::take(&mut self.staged) {
            return None;
        }
        let sending = TxToken {
            link: self.link.as_mut(),
            properties: &self.properties,
            recovery: &mut self.recovery,
            now,
            output: &mut self.output,
            segment_size: None,
        };
        Some((RxToken(&self.received), sending))
    }

    fn transmit(&mut self, now: Instant) -> Option<TxToken<'_>> {
        self.link.can_send().then_some(TxToken {
            link: self.link.as_mut(),
            properties: &self.properties,
            recovery: &mut self.recovery,
            now,
            output: &mut self.output,
            segment_size: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let Properties {
            medium,
            mtu,
            offloads,
        } = self.properties;
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = match medium {
            Medium::Ethernet(_) => (phy::Medium::Ethernet, mtu + 14),
            Medium::Ip => (phy::Medium::Ip, mtu),
        };
        // Looked at when a segment is staged, and filled in when it is sent.
        capabilities.checksum.tcp = Checksum::None;
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
    properties: &'a Properties,
    recovery: &'a mut Recovery,
    now: Instant,
    output: &'a mut Output,
    segment_size: Option<NonZeroU16>,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let output = self.output;
        let mut room = core::mem::take(&mut output.buffer);
        if room.len() < len {
            room.resize(len, 0);
        }
        let buffer = room.get_mut(..len).unwrap_or_default();
        // What is longer has data behind its headers, which are written whole.
        let blank = if len > LONGEST_MESSAGE { HEADERS } else { len };
        buffer.get_mut(..blank).unwrap_or_default().fill(0);
        let result = f(buffer);
        let medium = self.properties.medium;
        let transport = segment::transport(medium, buffer);
        if let Some(transport) = &transport {
            if !self.properties.offloads.tx_checksum {
                segment::fill_in_checksum(buffer, transport);
            }
            // The loopback loses nothing.
            if matches!(medium, Medium::Ethernet(_)) {
                self.recovery.sent(transport, buffer, self.now);
            }
        }
        let about = About {
            transport: transport.as_ref(),
            segment_size: self.segment_size,
        };
        // An answer to a received frame comes without asking for room first.
        if self.link.can_send() && self.link.send(buffer, about) {
            output.counters.tx_frames += 1;
            output.counters.tx_bytes += len as u64;
            output.record(buffer);
        } else {
            output.counters.tx_dropped += 1;
        }
        output.buffer = room;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_size = meta.segmentation_offload_size;
    }
}
