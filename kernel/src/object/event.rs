//! An event: signals that programs set and clear, nothing more.

use alloc::sync::Arc;

use bulkhead_abi::{Error, ObjectKind, Result, Signals};

use crate::object::Base;

/// An event.
pub struct Event {
    pub base: Base,
}

impl Event {
    /// An event without signals.
    pub fn new() -> Arc<Event> {
        Arc::new(Event {
            base: Base::new(ObjectKind::Event),
        })
    }

    /// Clears, then sets signals.
    #[inline]
    pub fn signal(&self, clear: Signals, set: Signals) -> Result<()> {
        let own = Signals::USER.or(Signals::SIGNALED);
        if (clear.0 | set.0) & !own.0 != 0 {
            return Err(Error::InvalidArgument);
        }
        self.base.update(clear, set);
        Ok(())
    }
}
