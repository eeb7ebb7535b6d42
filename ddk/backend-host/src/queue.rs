//! Event queues: posted events, sources with a descriptor, and sources that have to be looked at.

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddk::{Deadline, Event, EventQueue, PlatformError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::services::{now_ns, refused};

/// Something that fires: an interrupt.
pub trait Source: Send + Sync {
    /// Takes how often it fired since the last call, 0 for not at all. Never waits.
    fn take(&self) -> u64;

    /// A descriptor that is readable while there is something to take. A source without one is looked at
    /// again and again while a thread waits for it, at growing intervals up to a millisecond.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// Intervals at which sources without a descriptor are looked at, in nanoseconds. A device of an emulator
/// answers within tens of microseconds, or takes long.
const PAUSE_MIN_NS: u64 = 20_000;
const PAUSE_MAX_NS: u64 = 1_000_000;

struct Attached {
    key: u64,
    source: Arc<dyn Source>,
}

struct Shared {
    posted: Mutex<VecDeque<Event>>,
    sources: Mutex<Vec<Attached>>,
    /// Readable when something was posted or the sources are others.
    wake: OwnedFd,
}

/// An event queue of the host. Clones are the same queue.
#[derive(Clone)]
pub struct HostQueue(Arc<Shared>);

impl HostQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> Result<HostQueue, PlatformError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(refused)?;
        Ok(HostQueue(Arc::new(Shared {
            posted: Mutex::default(),
            sources: Mutex::default(),
            wake,
        })))
    }

    /// The queue behind the DDK's interface.
    ///
    /// # Errors
    /// [`PlatformError::Invalid`] when it is another backend's.
    pub fn of(queue: &dyn EventQueue) -> Result<&HostQueue, PlatformError> {
        queue.as_any().downcast_ref().ok_or(PlatformError::Invalid)
    }

    /// Delivers a source's events here, with this key.
    pub fn attach(&self, source: Arc<dyn Source>, key: u64) {
        lock(&self.0.sources).push(Attached { key, source });
        self.wake();
    }

    /// Ends that for a source.
    pub fn detach(&self, source: &Arc<dyn Source>) {
        lock(&self.0.sources).retain(|attached| !Arc::ptr_eq(&attached.source, source));
    }

    /// The same for a source that is about to go.
    pub(crate) fn forget(&self, source: *const ()) {
        let is_it = |attached: &Attached| std::ptr::addr_eq(Arc::as_ptr(&attached.source), source);
        lock(&self.0.sources).retain(|attached| !is_it(attached));
    }

    /// Lets a waiting thread look again.
    fn wake(&self) {
        // Fails only when the counter is full, and then the thread will wake anyway.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    fn take(&self, events: &mut [Event]) -> usize {
        let mut taken = 0;
        let mut posted = lock(&self.0.posted);
        while let Some(slot) = events.get_mut(taken)
            && let Some(event) = posted.pop_front()
        {
            *slot = event;
            taken += 1;
        }
        drop(posted);
        for Attached { key, source } in lock(&self.0.sources).iter() {
            let Some(slot) = events.get_mut(taken) else {
                break;
            };
            let count = source.take();
            if count > 0 {
                *slot = Event { key: *key, count };
                taken += 1;
            }
        }
        taken
    }

    /// Waits for a descriptor, for at most `limit_ns`; `None`: without an end. Sources without a descriptor
    /// bound it by `pause_ns`.
    fn sleep(&self, limit_ns: Option<u64>, pause_ns: u64) -> Result<(), PlatformError> {
        let sources: Vec<Arc<dyn Source>> = lock(&self.0.sources)
            .iter()
            .map(|attached| attached.source.clone())
            .collect();
        let mut fds = vec![PollFd::new(&self.0.wake, PollFlags::IN)];
        let mut limit_ns = limit_ns;
        for source in &sources {
            match source.descriptor() {
                Some(fd) => fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
                None => limit_ns = Some(limit_ns.map_or(pause_ns, |limit| limit.min(pause_ns))),
            }
        }
        let limit = limit_ns.map(|ns| Timespec {
            tv_sec: (ns / 1_000_000_000).try_into().unwrap_or(i64::MAX),
            tv_nsec: (ns % 1_000_000_000) as _,
        });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(refused(error)),
        }
        let mut count = [0; 8];
        // Empty when nothing woke it.
        let _ = rustix::io::read(self.0.wake.as_fd(), &mut count);
        Ok(())
    }
}

impl EventQueue for HostQueue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let mut pause_ns = PAUSE_MIN_NS;
        loop {
            let taken = self.take(events);
            if taken > 0 || events.is_empty() {
                return Ok(taken);
            }
            let left = if deadline == Deadline::NEVER {
                None
            } else {
                let now = now_ns();
                if deadline.is_over(now) {
                    return Ok(0);
                }
                Some(deadline.as_ns().saturating_sub(now))
            };
            self.sleep(left, pause_ns)?;
            pause_ns = (pause_ns + pause_ns / 2).min(PAUSE_MAX_NS);
        }
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        let mut posted = lock(&self.0.posted);
        match posted.iter_mut().find(|event| event.key == key) {
            Some(event) => event.count = event.count.saturating_add(1),
            None => posted.push_back(Event { key, count: 1 }),
        }
        drop(posted);
        self.wake();
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The lists hold no invariant that a panic could break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counter(AtomicU64);

    impl Source for Counter {
        fn take(&self) -> u64 {
            self.0.swap(0, Ordering::Relaxed)
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    struct Readable(OwnedFd);

    impl Source for Readable {
        fn take(&self) -> u64 {
            let mut count = [0; 8];
            match rustix::io::read(&self.0, &mut count) {
                Ok(8) => u64::from_ne_bytes(count),
                _ => 0,
            }
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
    }

    #[test]
    fn posts_of_a_key_are_counted_in_one_event() {
        let queue = HostQueue::new().unwrap();
        for key in [1, 2, 1] {
            queue.post(key).unwrap();
        }
        let mut events = [Event::default(); 4];
        assert_eq!(queue.wait(&mut events, Deadline::NOW), Ok(2));
        assert_eq!(events[0], Event { key: 1, count: 2 });
        assert_eq!(events[1], Event { key: 2, count: 1 });
        assert_eq!(queue.wait(&mut events, Deadline::NOW), Ok(0));
    }

    #[test]
    fn what_finds_no_room_waits() {
        let queue = HostQueue::new().unwrap();
        let counter = Arc::new(Counter::default());
        queue.attach(counter.clone(), 9);
        queue.post(1).unwrap();
        counter.0.store(3, Ordering::Relaxed);
        let mut one = [Event::default(); 1];
        assert_eq!(queue.wait(&mut one, Deadline::NOW), Ok(1));
        assert_eq!(one[0].key, 1);
        assert_eq!(queue.wait(&mut one, Deadline::NOW), Ok(1));
        assert_eq!(one[0], Event { key: 9, count: 3 });
    }

    #[test]
    fn a_source_with_a_descriptor_wakes_a_thread_that_waits_without_an_end() {
        let queue = HostQueue::new().unwrap();
        let source = Arc::new(Readable(eventfd(0, EventfdFlags::NONBLOCK).unwrap()));
        queue.attach(source.clone(), 5);
        let waiter = {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let mut events = [Event::default(); 1];
                let taken = queue.wait(&mut events, Deadline::NEVER);
                (taken, events[0])
            })
        };
        rustix::io::write(&source.0, &2u64.to_ne_bytes()).unwrap();
        assert_eq!(waiter.join().unwrap(), (Ok(1), Event { key: 5, count: 2 }));
    }

    #[test]
    fn a_post_wakes_a_thread_that_waits_without_an_end() {
        let queue = HostQueue::new().unwrap();
        let other = queue.clone();
        let waiter =
            std::thread::spawn(move || other.wait(&mut [Event::default(); 1], Deadline::NEVER));
        queue.post(1).unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(1));
    }

    #[test]
    fn a_source_that_was_detached_says_nothing() {
        let queue = HostQueue::new().unwrap();
        let counter = Arc::new(Counter::default());
        let source: Arc<dyn Source> = counter.clone();
        queue.attach(source.clone(), 1);
        counter.0.store(1, Ordering::Relaxed);
        queue.detach(&source);
        let mut events = [Event::default(); 1];
        let soon = Deadline::at_ns(now_ns() + 2_000_000);
        assert_eq!(queue.wait(&mut events, soon), Ok(0));
        assert_eq!(counter.take(), 1, "it still has what it had");
    }
}
