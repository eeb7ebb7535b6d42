//! The places for connections: so many at a time, and when all are taken, the one whose client has kept us waiting longest has to go.
//!
//! While there is room, a client has the time that [`crate::request`]'s limits give it. When there is none, it has [`CROWDED_LIMIT_MS`] for
//! each thing that it owes: the rest of a request, its next request, taking what it asked for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Connections that are served at a time.
pub const PLACES: usize = 128;
/// What a client may owe us for so long although others wait, in milliseconds.
pub const CROWDED_LIMIT_MS: u64 = 2_000;

/// A client owes nothing.
const NOT_WAITING: u64 = u64::MAX;

/// Ends a connection from outside of its thread.
pub trait Ends: Send + Sync {
    /// Ends it now, with all that is under way.
    fn end(&self);
}

/// The place of one connection.
pub struct Place {
    /// Since when its client owes us something, in nanoseconds.
    since_ns: AtomicU64,
    connection: alloc::boxed::Box<dyn Ends>,
}

impl Place {
    /// Its client owes us something from now on.
    pub fn waits(&self, now_ns: u64) {
        self.since_ns.store(now_ns, Ordering::Relaxed);
    }

    /// It does not any more.
    pub fn works(&self) {
        self.since_ns.store(NOT_WAITING, Ordering::Relaxed);
    }
}

/// All of them.
#[derive(Default)]
pub struct Places(Vec<Arc<Place>>);

impl Places {
    /// Takes a place. It is free again when nobody else has it any more.
    pub fn take(&mut self, connection: alloc::boxed::Box<dyn Ends>, now_ns: u64) -> Arc<Place> {
        let place = Arc::new(Place {
            since_ns: AtomicU64::new(now_ns),
            connection,
        });
        self.0.push(place.clone());
        place
    }

    /// Whether there is one, after one was made where that can be done.
    pub fn has_room(&mut self, now_ns: u64) -> bool {
        self.0.retain(|place| Arc::strong_count(place) > 1);
        if self.0.len() < PLACES {
            return true;
        }
        let owing = self.0.iter().map(|place| {
            let since_ns = place.since_ns.load(Ordering::Relaxed);
            (since_ns, place)
        });
        let limit_ns = CROWDED_LIMIT_MS * 1_000_000;
        let longest = owing.min_by_key(|(since_ns, _)| *since_ns);
        if let Some((since_ns, place)) = longest
            && since_ns != NOT_WAITING
            && now_ns.saturating_sub(since_ns) >= limit_ns
        {
            // Its thread sees the end, and the place is free then.
            place.works();
            place.connection.end();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use core::sync::atomic::AtomicUsize;

    struct Counts(Arc<AtomicUsize>);

    impl Ends for Counts {
        fn end(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const LIMIT_NS: u64 = CROWDED_LIMIT_MS * 1_000_000;

    #[test]
    fn who_owes_longest_has_to_go() {
        let ended: Vec<Arc<AtomicUsize>> = (0..PLACES).map(|_| Arc::default()).collect();
        let mut places = Places::default();
        let mut taken = Vec::new();
        for (n, counter) in ended.iter().enumerate() {
            assert!(places.has_room(n as u64));
            taken.push(places.take(Box::new(Counts(counter.clone())), n as u64));
        }
        let ended = |n: usize| ended[n].load(Ordering::Relaxed);
        taken[0].works();
        assert!(!places.has_room(LIMIT_NS));
        assert_eq!((ended(0), ended(1)), (0, 0), "not yet");
        assert!(!places.has_room(LIMIT_NS + 1));
        assert!(!places.has_room(LIMIT_NS + 1));
        assert_eq!((ended(0), ended(1), ended(2)), (0, 1, 0));
        // Only when its thread has let go of it.
        taken.remove(1);
        assert!(places.has_room(LIMIT_NS + 1));
    }

    #[test]
    fn nobody_goes_while_there_is_room_or_all_are_served() {
        let ended = Arc::<AtomicUsize>::default();
        let mut places = Places::default();
        let take = |places: &mut Places| places.take(Box::new(Counts(ended.clone())), 0);
        let mut taken: Vec<_> = (1..PLACES).map(|_| take(&mut places)).collect();
        assert!(places.has_room(u64::MAX));
        taken.push(take(&mut places));
        for place in &taken {
            place.works();
        }
        assert!(!places.has_room(u64::MAX));
        assert_eq!(ended.load(Ordering::Relaxed), 0);
    }
}
