//! How long a client waits for an answer before it takes its driver to be silent.
//!
//! Requests carry no times, which would cost each of them a look at the clock. Instead a mark is set in the order of
//! submission: when all requests before it are answered the mark moves to the newest one.

use core::time::Duration;

use sys::{Deadline, time};

use crate::Ledger;

/// Longer than a driver's own limit for a device, with an abort and a reset: the driver's word comes first.
const DEFAULT: Duration = Duration::from_secs(75);

/// The mark and its time.
#[derive(Debug)]
pub(crate) struct Patience {
    allowed: Duration,
    /// The newest request when the mark was set.
    mark: u64,
    set_ns: u64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            allowed: DEFAULT,
            mark: 0,
            set_ns: 0,
        }
    }
}

impl Patience {
    pub(crate) fn allow(&mut self, time: Duration) {
        self.allowed = time;
    }

    /// The requests in flight were given to another driver, or one of them once more to this one.
    pub(crate) fn renew(&mut self) {
        self.mark = 0;
    }

    /// When the driver is silent; `None` if it owes nothing.
    pub(crate) fn limit(&mut self, ledger: &Ledger) -> Option<Deadline> {
        let oldest = ledger.entries().map(|entry| entry.sequence).min()?;
        if oldest > self.mark {
            self.mark = ledger.newest();
            self.set_ns = time::now_ns();
        }
        let allowed_ns = u64::try_from(self.allowed.as_nanos()).unwrap_or(u64::MAX);
        Some(Deadline::from_ns(self.set_ns.saturating_add(allowed_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    #[test]
    fn a_request_that_others_overtake_is_noticed_all_the_same() {
        let mut ledger = Ledger::new(4, 1);
        let mut patience = Patience::default();
        assert!(patience.limit(&ledger).is_none(), "nothing is owed");
        let lost = ledger.add(Request::flush(), 0).unwrap();
        let first = patience.limit(&ledger).unwrap();
        for token in 1..10 {
            let id = ledger.add(Request::flush(), token).unwrap();
            assert_eq!(patience.limit(&ledger).unwrap(), first);
            ledger.remove(id).unwrap();
        }
        // Answered at last: those that came meanwhile have their own time.
        let later = ledger.add(Request::flush(), 10).unwrap();
        ledger.remove(lost).unwrap();
        assert!(patience.limit(&ledger).unwrap() > first);
        ledger.remove(later).unwrap();
        assert!(patience.limit(&ledger).is_none());
    }

    #[test]
    fn a_new_driver_has_all_the_time() {
        let mut ledger = Ledger::new(4, 1);
        let mut patience = Patience::default();
        ledger.add(Request::flush(), 0).unwrap();
        let first = patience.limit(&ledger).unwrap();
        ledger.renew(2);
        patience.renew();
        assert!(patience.limit(&ledger).unwrap() > first);
    }
}
