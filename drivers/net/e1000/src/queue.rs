//! The receive and the transmit ring (SDM 3.2, 3.3).
//!
//! Each ring is one page. A receive descriptor has one buffer of 2048 bytes. A frame to be sent is an optional context descriptor,
//! which says where checksums and headers are, and a data descriptor for each of its segments; the last one is reported.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use ddk::{DeviceContext, DmaRegion, DriverError, EventQueue, Irq, Mmio, PAGE, PlatformError};
use ddk_class_net::{
    Frame, NetQueue, PushError, QueueLimits, Received, SEGMENTS_MAX, Segment, Segmentation, Status,
    Wish, rx_flags,
};
use spec_e1000::{BUFFER_BYTES, DESCRIPTOR_BYTES, cause, rx, tx};

use crate::registers::Registers;

/// Descriptors of a ring: a page of them.
pub(crate) const ENTRIES: u16 = (PAGE / DESCRIPTOR_BYTES) as u16;
/// Bytes of an Ethernet header, after which the IP header begins.
const ETHERNET: u8 = 14;
/// Where an IPv4 header has its checksum.
const IPV4_CHECKSUM: u8 = 10;
/// Where a TCP header has its checksum.
const TCP_CHECKSUM: u16 = 16;
/// How often a device without messages is looked at, in nanoseconds: after a look that found something, and otherwise.
const BUSY_POLL_NS: u64 = 200_000;
const POLL_NS: u64 = 1_000_000;

/// How the driver hears of frames.
pub(crate) enum Notification {
    /// By a message of the 82574.
    Message(Irq),
    /// By looking again and again: the 82540EM has a line only, which is not given to drivers of PCI functions. Whether something was
    /// found since the look before the last.
    Polling(Found),
}

/// What looks at the device found.
#[derive(Default)]
pub(crate) struct Found {
    now: bool,
    before: bool,
}

/// A frame that the device has.
struct Sending {
    token: u32,
    /// Its last descriptor.
    last: u8,
    /// All of its descriptors.
    count: u16,
}

/// The queue pair.
pub struct Queue {
    registers: Registers,
    notification: Notification,
    receive: DmaRegion,
    /// Tokens of the buffers in the receive ring.
    tokens: Vec<u32>,
    /// Next descriptor to fill, next one to look at, and descriptors in between.
    rx_tail: u8,
    rx_head: u8,
    rx_count: u16,
    rx_kicked: u8,
    transmit: DmaRegion,
    tx_tail: u8,
    tx_free: u16,
    tx_kicked: u8,
    sending: VecDeque<Sending>,
}

fn at(index: u8, field: usize) -> usize {
    usize::from(index) * DESCRIPTOR_BYTES + field
}

impl Notification {
    #[inline]
    fn found(&mut self) {
        if let Notification::Polling(found) = self {
            found.now = true;
        }
    }
}

impl Queue {
    /// Makes the rings and tells the device, which is switched off, where they are.
    pub(crate) fn new(
        cx: &DeviceContext,
        mmio: &Mmio,
        notification: Notification,
    ) -> Result<Queue, DriverError> {
        let registers = crate::registers(mmio)?;
        let (receive, transmit) = (cx.dma_region(PAGE)?, cx.dma_region(PAGE)?);
        let halves = |ring: &DmaRegion| {
            let address = ring.device_address(0);
            (address as u32, (address >> 32) as u32)
        };
        let (low, high) = halves(&receive);
        registers.rdbal().write(low);
        registers.rdbah().write(high);
        registers.rdlen().write(PAGE as u32);
        registers.rdh().write(0);
        registers.rdt().write(0);
        let (low, high) = halves(&transmit);
        registers.tdbal().write(low);
        registers.tdbah().write(high);
        registers.tdlen().write(PAGE as u32);
        registers.tdh().write(0);
        registers.tdt().write(0);
        Ok(Queue {
            registers,
            notification,
            receive,
            tokens: vec![0; ENTRIES.into()],
            rx_tail: 0,
            rx_head: 0,
            rx_count: 0,
            rx_kicked: 0,
            transmit,
            tx_tail: 0,
            tx_free: ENTRIES - 1,
            tx_kicked: 0,
            sending: VecDeque::with_capacity(ENTRIES.into()),
        })
    }

    fn push(&mut self, descriptor: [u64; 2]) {
        self.transmit.write_pair(0, self.tx_tail, descriptor);
        // The ring has 256 entries.
        self.tx_tail = self.tx_tail.wrapping_add(1);
        self.tx_free -= 1;
    }

    fn has_received(&self) -> bool {
        let status = self.receive.read::<u8>(at(self.rx_head, rx::STATUS));
        self.rx_count > 0 && status & rx::STATUS_DD != 0
    }

    fn has_sent(&self) -> bool {
        let first = self.sending.front();
        first.is_some_and(|frame| {
            let status = self.transmit.read::<u8>(at(frame.last, tx::STATUS));
            status & tx::STATUS_DD != 0
        })
    }
}

/// What the context descriptor of a frame says and which checksums are inserted; nothing for a frame that is sent as it is.
fn offload(frame: &Frame<'_>) -> Result<Option<(tx::Context, u8)>, PushError> {
    let Some(checksum) = frame.checksum else {
        return Ok(None);
    };
    let beyond = PushError::Rejected(Status::UNSUPPORTED);
    // Places have 8 bits.
    let field = checksum.start.saturating_add(checksum.offset);
    let start = u8::try_from(checksum.start).map_err(|_| beyond)?;
    let mut context = tx::Context {
        ip_start: ETHERNET,
        ip_offset: ETHERNET + IPV4_CHECKSUM,
        ip_end: checksum.start.saturating_sub(1),
        start,
        offset: u8::try_from(field).map_err(|_| beyond)?,
        ..tx::Context::default()
    };
    if checksum.offset == TCP_CHECKSUM {
        context.command |= tx::CONTEXT_TCP;
    }
    let mut options = tx::OPTION_TXSM;
    if let Some(request) = frame.segmentation {
        context.command |= tx::CONTEXT_TCP | tx::COMMAND_TSE;
        if request.kind == Segmentation::TCP4 {
            context.command |= tx::CONTEXT_IPV4;
            options |= tx::OPTION_IXSM;
        }
        context.header = u8::try_from(request.header_length).map_err(|_| beyond)?;
        context.segment = request.size;
        context.payload = frame.length - u32::from(request.header_length);
    }
    Ok(Some((context, options)))
}

impl NetQueue for Queue {
    fn limits(&self) -> QueueLimits {
        QueueLimits {
            // A ring that is full would look empty.
            rx_depth: ENTRIES - 1,
            tx_depth: ENTRIES - 1,
            rx_segments: 1,
            tx_segments: SEGMENTS_MAX as u16,
        }
    }

    #[inline]
    fn provide(&mut self, token: u32, segments: &[Segment]) -> Result<(), PushError> {
        let [segment] = segments else {
            return Err(PushError::Rejected(Status::TOO_LONG));
        };
        if segment.len < BUFFER_BYTES {
            return Err(PushError::Rejected(Status::INVALID));
        }
        if self.rx_count >= ENTRIES - 1 {
            return Err(PushError::Full);
        }
        self.receive
            .write_pair(0, self.rx_tail, [segment.address, 0]);
        if let Some(entry) = self.tokens.get_mut(usize::from(self.rx_tail)) {
            *entry = token;
        }
        self.rx_tail = self.rx_tail.wrapping_add(1);
        self.rx_count += 1;
        Ok(())
    }

    #[inline]
    fn received(&mut self) -> Result<Option<Received>, DriverError> {
        if !self.has_received() {
            return Ok(None);
        }
        // The rest of the descriptor, and the frame, are read after the bit that shows them.
        fence(Ordering::Acquire);
        let index = self.rx_head;
        let status = self.receive.read::<u8>(at(index, rx::STATUS));
        let errors = self.receive.read::<u8>(at(index, rx::ERRORS));
        let length = self.receive.read::<u16>(at(index, rx::LENGTH));
        self.rx_head = index.wrapping_add(1);
        self.rx_count -= 1;
        self.notification.found();
        let mut flags = 0;
        if status & rx::STATUS_EOP == 0 {
            flags |= rx_flags::MORE;
        }
        let looked = status & (rx::STATUS_IXSM | rx::STATUS_TCPCS) == rx::STATUS_TCPCS;
        if looked && errors & (rx::ERROR_TCPE | rx::ERROR_IPE) == 0 {
            flags |= rx_flags::CHECKSUM_VALID;
        }
        let token = self.tokens.get(usize::from(index));
        Ok(Some(Received {
            token: token.copied().unwrap_or(u32::MAX),
            // Without SBP the device drops damaged frames itself; what it marks all the same is not passed on.
            length: if errors & rx::ERROR_FRAME == 0 {
                length.into()
            } else {
                0
            },
            flags,
            ..Received::default()
        }))
    }

    #[inline]
    fn transmit(&mut self, frame: &Frame<'_>) -> Result<(), PushError> {
        let offload = offload(frame)?;
        let pieces = frame.segments.iter().map(|s| s.len.div_ceil(tx::DATA_MAX));
        let count = pieces.sum::<u32>() + u32::from(offload.is_some());
        if count > u32::from(self.tx_free) {
            return if count < u32::from(ENTRIES) {
                Err(PushError::Full)
            } else {
                Err(PushError::Rejected(Status::TOO_LONG))
            };
        }
        let mut command = tx::COMMAND_IFCS;
        let mut options = 0;
        if let Some((context, inserted)) = offload {
            self.push(context.descriptor());
            options = inserted;
            command |= context.command & tx::COMMAND_TSE;
        }
        let mut last = self.tx_tail;
        let final_segment = frame.segments.len().saturating_sub(1);
        for (n, segment) in frame.segments.iter().enumerate() {
            let mut done = 0;
            while done < segment.len {
                let len = (segment.len - done).min(tx::DATA_MAX);
                let address = segment.address + u64::from(done);
                done += len;
                let mut command = command;
                if n == final_segment && done == segment.len {
                    command |= tx::COMMAND_EOP | tx::COMMAND_RS;
                }
                last = self.tx_tail;
                self.push(tx::data(address, len, command, options));
            }
        }
        self.sending.push_back(Sending {
            token: frame.token,
            last,
            count: count as u16,
        });
        Ok(())
    }

    #[inline]
    fn sent(&mut self) -> Result<Option<u32>, DriverError> {
        if !self.has_sent() {
            return Ok(None);
        }
        let frame = self.sending.pop_front();
        Ok(frame.map(|frame| {
            self.tx_free += frame.count;
            frame.token
        }))
    }

    #[inline]
    fn kick(&mut self) {
        // Descriptors are written before the tails that show them.
        fence(Ordering::Release);
        if self.rx_kicked != self.rx_tail {
            self.rx_kicked = self.rx_tail;
            self.registers.rdt().write(self.rx_tail.into());
        }
        if self.tx_kicked != self.tx_tail {
            self.tx_kicked = self.tx_tail;
            self.registers.tdt().write(self.tx_tail.into());
        }
    }

    #[inline]
    fn arm(&mut self, wish: Wish) -> bool {
        if let Notification::Message(_) = self.notification {
            // What is there is seen below; only what comes after that is worth a message.
            let causes = match wish {
                Wish::Received => cause::RXQ0,
                Wish::Any => cause::RXQ0 | cause::TXQ0,
            };
            self.registers.icr().write(causes);
            self.registers.ims().write(causes);
        }
        fence(Ordering::SeqCst);
        self.has_received() || wish == Wish::Any && self.has_sent()
    }

    #[inline]
    fn disarm(&mut self) {
        // A message masks its causes until they are armed again.
    }

    fn poll_ns(&self) -> Option<u64> {
        match &self.notification {
            Notification::Message(_) => None,
            Notification::Polling(found) if found.now || found.before => Some(BUSY_POLL_NS),
            Notification::Polling(_) => Some(POLL_NS),
        }
    }

    fn interrupted(&mut self) -> bool {
        match &mut self.notification {
            // Other causes have a vector of their own.
            Notification::Message(_) => false,
            Notification::Polling(found) => {
                found.before = core::mem::take(&mut found.now);
                let causes = self.registers.icr().read_with_effect();
                // All ones: it is gone, which is for the control path to find out.
                causes & cause::LSC != 0
            }
        }
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        match &mut self.notification {
            Notification::Message(irq) => irq.bind(events, key),
            Notification::Polling(_) => Ok(()),
        }
    }
}
