//! The buffers that a client registered with a session.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ddk::PinnedBuffer;

/// Answers when a buffer is no longer used: `true`, or `false` if there was none.
pub type Removed = Box<dyn FnOnce(bool) + Send>;

struct Slot {
    buffer: PinnedBuffer,
    /// Requests in flight that use it.
    in_use: u32,
    /// Who waits for it to be free; no request may use it any more.
    removing: Option<Removed>,
}

/// Buffers by slot. Each stays pinned until the device has finished with it.
#[derive(Default)]
pub struct Buffers {
    slots: Vec<Option<Slot>>,
}

impl Buffers {
    /// The buffer in a slot, unless it is being removed.
    #[inline]
    pub fn get(&self, slot: u16) -> Option<&PinnedBuffer> {
        match self.slots.get(usize::from(slot)) {
            Some(Some(slot)) if slot.removing.is_none() => Some(&slot.buffer),
            _ => None,
        }
    }

    /// Puts a buffer into a slot.
    pub fn add(&mut self, slot: u16, buffer: PinnedBuffer) {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = Some(Slot {
                buffer,
                in_use: 0,
                removing: None,
            });
        }
    }

    /// Forgets a buffer as soon as no request uses it; `done` hears when its pages are unpinned.
    pub fn remove(&mut self, slot: u16, done: Removed) {
        match self.slots.get_mut(usize::from(slot)) {
            Some(Some(entry)) if entry.in_use > 0 && entry.removing.is_none() => {
                entry.removing = Some(done);
            }
            Some(entry @ Some(_)) if entry.as_ref().is_some_and(|e| e.in_use == 0) => {
                // Unpinned before the client hears of it.
                *entry = None;
                done(true);
            }
            _ => done(false),
        }
    }

    /// A request uses it.
    #[inline]
    pub fn hold(&mut self, slot: u16) {
        if let Some(Some(slot)) = self.slots.get_mut(usize::from(slot)) {
            slot.in_use += 1;
        }
    }

    /// A request that used it has ended.
    #[inline]
    pub fn release(&mut self, slot: u16) {
        let Some(entry) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        if let Some(used) = entry {
            used.in_use -= 1;
            if used.in_use == 0 && used.removing.is_some() {
                let done = used.removing.take();
                *entry = None;
                if let Some(done) = done {
                    done(true);
                }
            }
        }
    }

    /// Whether somebody waits for a buffer to be free.
    pub fn is_removing(&self) -> bool {
        let removing = |slot: &Slot| slot.removing.is_some();
        self.slots.iter().flatten().any(removing)
    }
}
