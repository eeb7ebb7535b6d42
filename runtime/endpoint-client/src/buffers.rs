//! Buffers that a client registered, kept for the driver's successor.

use alloc::vec::Vec;

use proto::block::{BUFFERS_MAX, BufferAccess};
use sys::{AsHandle, Rights, Vmo};

const _: () = assert!(BUFFERS_MAX == proto::net::BUFFERS_MAX);

/// A buffer as it was registered.
#[derive(Debug)]
pub struct Registered {
    /// Number of the buffer in its session.
    pub slot: u16,
    /// What the device may do with it.
    pub access: BufferAccess,
    /// First byte in the VMO.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    vmo: Vmo,
}

impl Registered {
    /// A handle for a driver: it can pin the VMO with this access and not map it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn handle(&self) -> sys::Result<Vmo> {
        self.vmo.duplicate()
    }
}

/// The buffers of a session.
#[derive(Debug, Default)]
pub struct Buffers {
    /// A bit for each slot in use.
    used: [u64; BUFFERS_MAX as usize / 64],
    registered: Vec<Registered>,
}

impl Buffers {
    /// Notes a buffer in a free slot, before it is registered with the driver. `vmo` needs the rights DUPLICATE, TRANSFER,
    /// PIN, and READ or WRITE as the device needs. `None`: all slots are in use.
    ///
    /// # Errors
    /// When the system refuses the handle.
    pub fn add(
        &mut self,
        vmo: &Vmo,
        offset: u64,
        length: u64,
        access: BufferAccess,
    ) -> sys::Result<Option<&Registered>> {
        let Some(word) = self.used.iter().position(|word| *word != u64::MAX) else {
            return Ok(None);
        };
        let bit = self.used.get(word).map_or(0, |w| w.trailing_ones());
        let needed = match access {
            BufferAccess::DeviceReads => Rights::READ,
            BufferAccess::DeviceWrites => Rights::WRITE,
            BufferAccess::Both => Rights::READ | Rights::WRITE,
        };
        let pass = Rights::PIN | Rights::TRANSFER | Rights::DUPLICATE;
        self.registered.push(Registered {
            slot: (word * 64) as u16 + bit as u16,
            access,
            offset,
            length,
            vmo: vmo.duplicate_with(pass | needed)?,
        });
        if let Some(word) = self.used.get_mut(word) {
            *word |= 1 << bit;
        }
        Ok(self.registered.last())
    }

    /// Forgets a buffer: its slot is free.
    pub fn remove(&mut self, slot: u16) {
        self.registered.retain(|buffer| buffer.slot != slot);
        if let Some(word) = self.used.get_mut(usize::from(slot) / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// The buffers, in the order in which they were registered.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.registered.iter()
    }
}
