//! Bad wires before network drivers, where the device manager wants one: the way to the clients' buffers, and what is logged.
//!
//! A driver has buffers of clients without the right to map them, and that stays so: the wire reads and writes by system calls.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use ddk::{BufferGuard, DeviceAccess, PAGE, PinnedBuffer};
use ddk_wire_net::{Counts, Payload, Wire};
use rt::{AsHandle, Mutex, Vmo, startup};

/// The wire that is wanted of this process, if one is.
pub(crate) fn wanted() -> Option<Wire> {
    let text = startup::env("BULKHEAD_WIRE")?;
    match Wire::parse(text) {
        Ok(wire) => {
            if let Some(wire) = wire {
                rt::warn!("a bad wire is before this interface: {wire}");
            }
            wire
        }
        Err(error) => {
            rt::error!("BULKHEAD_WIRE: {error}");
            None
        }
    }
}

/// A page of a client's buffer.
struct Page {
    vmo: Weak<Vmo>,
    offset: u64,
}

/// Buffers of clients, by the device addresses of their pages.
#[derive(Default)]
pub(crate) struct ClientBuffers(Mutex<BTreeMap<u64, Page>>);

/// What keeps a buffer: its pin, and the handle by which it is reached.
struct Kept {
    _buffer: PinnedBuffer,
    _vmo: Arc<Vmo>,
}

impl BufferGuard for Kept {}

impl ClientBuffers {
    /// Notes a buffer that was pinned; `offset` is that of its first page. The same buffer, which is forgotten when it ends.
    pub(crate) fn add(&self, buffer: PinnedBuffer, vmo: &Vmo, offset: u64) -> PinnedBuffer {
        let Ok(own) = vmo.duplicate() else {
            return buffer;
        };
        let own = Arc::new(own);
        let count = (buffer.len() / PAGE as u64) as usize;
        let addresses = (0..count).map_while(|page| {
            let at = (page * PAGE) as u64;
            Some(buffer.within_page(at, PAGE as u32)?.address)
        });
        let addresses: Box<[u64]> = addresses.collect();
        let mut pages = self.0.lock();
        // Those of buffers that are gone.
        pages.retain(|_, page| page.vmo.strong_count() > 0);
        for (page, address) in addresses.iter().enumerate() {
            let page = Page {
                vmo: Arc::downgrade(&own),
                offset: offset + (page * PAGE) as u64,
            };
            pages.insert(*address, page);
        }
        drop(pages);
        let access = match (buffer.device_reads(), buffer.device_writes()) {
            (true, true) => DeviceAccess::Both,
            (true, false) => DeviceAccess::Reads,
            _ => DeviceAccess::Writes,
        };
        let kept = Kept {
            _buffer: buffer,
            _vmo: own,
        };
        PinnedBuffer::new(addresses, access, Box::new(kept))
    }

    fn find(&self, address: u64) -> Option<(Arc<Vmo>, u64)> {
        let in_page = address % PAGE as u64;
        let pages = self.0.lock();
        let page = pages.get(&(address - in_page))?;
        Some((page.vmo.upgrade()?, page.offset + in_page))
    }
}

impl Payload for ClientBuffers {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let (vmo, offset) = self.find(address)?;
        vmo.read(offset, into).ok()
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        let (vmo, offset) = self.find(address)?;
        vmo.write(offset, bytes).ok()
    }
}

/// Tells in the log what the wire does, each time that it has done twice as much, and at the end.
pub(crate) struct WireLog {
    counts: Arc<Counts>,
    next: u64,
}

impl WireLog {
    pub(crate) fn new(counts: Arc<Counts>) -> WireLog {
        WireLog { counts, next: 64 }
    }

    pub(crate) fn look(&mut self) {
        let frames = self.counts.frames();
        if frames >= self.next {
            self.next = frames.saturating_mul(2);
            rt::info!("bad wire: {}", self.counts);
        }
    }
}

impl Drop for WireLog {
    fn drop(&mut self) {
        rt::info!("bad wire: {}", self.counts);
    }
}
