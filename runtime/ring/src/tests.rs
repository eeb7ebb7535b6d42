//! The ring against a model, with a hostile peer, and between threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Consumer, HeapMemory, Layout, LayoutError, Memory, Producer, PushError, RingError};
use proptest::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    id: u64,
    op: u32,
    flags: u32,
    lba: u64,
    address: u64,
}

impl Request {
    fn numbered(id: u64) -> Request {
        Request {
            id,
            op: id as u32,
            flags: !id as u32,
            lba: id.wrapping_mul(3),
            address: !id,
        }
    }
}

type Ends<T> = (Producer<T, HeapMemory>, Consumer<T, HeapMemory>);

fn pair<T: crate::Entry>(capacity: u32) -> (Ends<T>, HeapMemory) {
    let memory = HeapMemory::new(Layout::of::<T>(capacity).unwrap().size_bytes());
    let producer = Producer::new(memory.clone(), 0, capacity).unwrap();
    let consumer = Consumer::new(memory.clone(), 0, capacity).unwrap();
    ((producer, consumer), memory)
}

/// An index of the ring, as a peer can write it.
fn word(memory: &HeapMemory, offset: usize) -> &AtomicU32 {
    assert!(offset + 4 <= memory.len());
    // SAFETY: within the memory and aligned; all access to it is atomic.
    unsafe { memory.base().add(offset).cast::<AtomicU32>().as_ref() }
}
const TAIL: usize = 0;
const HEAD: usize = 64;
const ARMED: usize = 68;

#[test]
fn layouts_are_checked() {
    assert_eq!(Layout::of::<u64>(3).unwrap_err(), LayoutError::Capacity(3));
    assert_eq!(Layout::of::<u64>(0).unwrap_err(), LayoutError::Capacity(0));
    assert_eq!(
        Layout::of::<u64>(1 << 21).unwrap_err(),
        LayoutError::Capacity(1 << 21)
    );
    assert_eq!(
        Layout::of::<[u8; 12]>(4).unwrap_err(),
        LayoutError::EntrySize(12)
    );
    assert_eq!(Layout::of::<u64>(8).unwrap().size_bytes(), 192);
    let memory = HeapMemory::new(191);
    let error = Producer::<u64, _>::new(memory.clone(), 0, 8).err();
    assert_eq!(
        error,
        Some(LayoutError::TooSmall {
            needed: 192,
            there: 191
        })
    );
    let error = Consumer::<u64, _>::new(memory, 32, 1).err();
    assert_eq!(error, Some(LayoutError::Offset(32)));
    let error = Consumer::<u64, _>::new(HeapMemory::new(64), usize::MAX - 63, 1).err();
    assert!(matches!(error, Some(LayoutError::TooSmall { .. })));
}

#[test]
fn indices_run_over_the_end_of_their_type() {
    let start = u32::MAX - 20;
    let memory = HeapMemory::new(Layout::of::<u64>(8).unwrap().size_bytes());
    word(&memory, TAIL).store(start, Ordering::SeqCst);
    word(&memory, HEAD).store(start, Ordering::SeqCst);
    let mut producer = Producer::<u64, _>::new_at(memory.clone(), 0, 8, start).unwrap();
    let mut consumer = Consumer::<u64, _>::new_at(memory.clone(), 0, 8, start).unwrap();
    for round in 0..20u64 {
        for n in 0..5 {
            producer.push(&(round * 5 + n)).unwrap();
        }
        assert_eq!(producer.room(), Ok(3));
        assert!(!producer.publish());
        assert_eq!(consumer.available(), Ok(5));
        for n in 0..5 {
            assert_eq!(consumer.pop(), Ok(Some(round * 5 + n)));
        }
        assert_eq!(consumer.pop(), Ok(None));
    }
    assert_eq!(
        word(&memory, TAIL).load(Ordering::SeqCst),
        start.wrapping_add(100)
    );
}

#[test]
fn full_and_empty() {
    let ((mut producer, mut consumer), _) = pair::<Request>(4);
    assert_eq!(consumer.pop(), Ok(None));
    for i in 0..4 {
        producer.push(&Request::numbered(i)).unwrap();
    }
    assert_eq!(producer.push(&Request::numbered(4)), Err(PushError::Full));
    assert_eq!(producer.room(), Ok(0));
    // Not visible before it is published.
    assert_eq!(consumer.pop(), Ok(None));
    assert!(!producer.publish());
    for i in 0..4 {
        assert_eq!(consumer.pop(), Ok(Some(Request::numbered(i))));
    }
    assert_eq!(consumer.pop(), Ok(None));
    assert_eq!(producer.room(), Ok(4));
}

#[test]
fn a_doorbell_for_each_arming_and_no_more() {
    let ((mut producer, mut consumer), memory) = pair::<u64>(8);
    let mut push = |n| {
        producer.push(&n).unwrap();
        producer.publish()
    };
    assert!(!push(1), "nobody has armed");
    assert_eq!(consumer.arm(), Ok(true), "there is an entry");
    assert!(!push(2), "arming found something and was taken back");
    assert_eq!((consumer.pop(), consumer.pop()), (Ok(Some(1)), Ok(Some(2))));
    assert_eq!(consumer.arm(), Ok(false));
    assert!(push(3), "the consumer sleeps");
    assert!(!push(4), "it has been rung for");
    assert_eq!(consumer.pop(), Ok(Some(3)));
    assert_eq!(
        word(&memory, ARMED).load(Ordering::SeqCst),
        0,
        "draining needs no doorbell"
    );
    assert_eq!(consumer.pop(), Ok(Some(4)));
    assert_eq!(consumer.arm(), Ok(false));
    assert!(push(5), "a new arming, a new doorbell");
    // Nothing new: nothing to ring for.
    assert!(!producer.publish());
}

#[test]
fn a_corrupt_index_is_an_error_for_good() {
    for bad in [9u32, 100, 0x8000_0000, u32::MAX] {
        let ((_producer, mut consumer), memory) = pair::<u64>(8);
        word(&memory, TAIL).store(bad, Ordering::SeqCst);
        let error = RingError::Corrupt {
            own: 0,
            peer: bad,
            capacity: 8,
        };
        assert_eq!(consumer.pop(), Err(error));
        word(&memory, TAIL).store(1, Ordering::SeqCst);
        assert_eq!(consumer.pop(), Err(error));
        assert_eq!(consumer.available(), Err(error));
        assert_eq!(consumer.arm(), Err(error));

        let ((mut producer, _consumer), memory) = pair::<u64>(8);
        assert_eq!(producer.push_batch(&[0; 8]), Ok(8));
        let _ = producer.publish();
        word(&memory, HEAD).store(bad, Ordering::SeqCst);
        let error = RingError::Corrupt {
            own: 8,
            peer: bad,
            capacity: 8,
        };
        assert_eq!(producer.push(&1), Err(PushError::Ring(error)));
        word(&memory, HEAD).store(1, Ordering::SeqCst);
        assert_eq!(producer.push(&1), Err(PushError::Ring(error)));
        assert_eq!(producer.room(), Err(error));
    }
    // Backwards is corrupt too.
    let ((mut producer, mut consumer), memory) = pair::<u64>(8);
    assert_eq!(producer.push_batch(&[0; 6]), Ok(6));
    let _ = producer.publish();
    assert_eq!(consumer.available(), Ok(6));
    word(&memory, TAIL).store(5, Ordering::SeqCst);
    assert!(consumer.available().is_err());
    assert!(consumer.pop().is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Publish,
    Pop(u8),
    Arm,
}

/// Miri takes ten thousand times as long, and lets nobody look for the folder of earlier failures.
fn config() -> ProptestConfig {
    if cfg!(miri) {
        ProptestConfig {
            cases: 3,
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    } else {
        ProptestConfig::default()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..12).prop_map(Step::Push),
        Just(Step::Publish),
        (0u8..12).prop_map(Step::Pop),
        Just(Step::Arm),
    ];
    proptest::collection::vec(step, 0..if cfg!(miri) { 30 } else { 200 })
}

proptest! {
    #![proptest_config(config())]

    /// The ring does what a bounded queue with a staging area does.
    #[test]
    fn behaves_as_a_queue(log_capacity in 0u32..6, steps in steps()) {
        let capacity = 1 << log_capacity;
        let ((mut producer, mut consumer), _) = pair::<Request>(capacity);
        let mut staged = VecDeque::new();
        let mut visible = VecDeque::new();
        let mut next = 0;
        // Set while the consumer may sleep: it must be rung for the next entry.
        let mut asleep = false;
        for step in steps {
            match step {
                Step::Push(n) => for _ in 0..n {
                    let full = staged.len() + visible.len() == capacity as usize;
                    match producer.push(&Request::numbered(next)) {
                        Ok(()) => {
                            prop_assert!(!full);
                            staged.push_back(next);
                            next += 1;
                        }
                        Err(error) => {
                            prop_assert!(full);
                            prop_assert_eq!(error, PushError::Full);
                        }
                    }
                },
                Step::Publish => {
                    let rings = producer.publish();
                    prop_assert_eq!(rings, asleep && !staged.is_empty());
                    asleep &= staged.is_empty();
                    visible.append(&mut staged);
                }
                Step::Pop(n) => for _ in 0..n {
                    let expected = visible.pop_front().map(Request::numbered);
                    prop_assert_eq!(consumer.pop().unwrap(), expected);
                },
                Step::Arm => {
                    let more = consumer.arm().unwrap();
                    prop_assert_eq!(more, !visible.is_empty());
                    asleep = !more;
                }
            }
            prop_assert_eq!(consumer.available().unwrap() as usize, visible.len());
        }
    }

    /// A peer that writes anything to the control words gets errors or stale entries, never a panic
    /// or an access out of bounds (Miri sees those).
    #[test]
    fn hostile_control_words_do_no_harm(
        writes in proptest::collection::vec((0usize..3, any::<u32>(), 0u8..4), 1..60),
    ) {
        let ((mut producer, mut consumer), memory) = pair::<Request>(8);
        for (which, value, action) in writes {
            // Near the true value now and then.
            let value = if value & 3 == 0 { value % 20 } else { value };
            word(&memory, [TAIL, HEAD, ARMED][which]).store(value, Ordering::SeqCst);
            match action {
                0 => { let _ = producer.push(&Request::numbered(1)); }
                1 => { let _ = producer.publish(); }
                2 => {
                    // At most a ring full before it must look again.
                    for _ in 0..8 { let _ = consumer.pop(); }
                }
                _ => { let _ = consumer.arm(); }
            }
            if let Ok(n) = consumer.available() { prop_assert!(n <= 8); }
            if let Ok(n) = producer.room() { prop_assert!(n <= 8); }
        }
    }
}

/// Everything arrives, in order, and no doorbell is missed: a missed one would hang the consumer.
#[test]
fn threads_with_doorbells() {
    let count: u64 = if cfg!(miri) { 60 } else { 200_000 };
    for capacity in [1, 4, 64] {
        let ((mut producer, mut consumer), _) = pair::<Request>(capacity);
        let doorbell = Arc::new((std::sync::Mutex::new(0u64), std::sync::Condvar::new()));
        let rung = doorbell.clone();
        let writer = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < count {
                while sent < count && producer.push(&Request::numbered(sent)).is_ok() {
                    sent += 1;
                    if sent % 7 == 0 {
                        break;
                    }
                }
                if producer.publish() {
                    *rung.0.lock().unwrap() += 1;
                    rung.1.notify_one();
                }
                if producer.room() == Ok(0) {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < count {
            while let Some(entry) = consumer.pop().unwrap() {
                assert_eq!(entry, Request::numbered(expected));
                expected += 1;
            }
            if expected < count && !consumer.arm().unwrap() {
                let mut rings = doorbell.0.lock().unwrap();
                while *rings == 0 {
                    let wait = std::time::Duration::from_secs(60);
                    let (guard, timeout) = doorbell.1.wait_timeout(rings, wait).unwrap();
                    assert!(!timeout.timed_out(), "a doorbell was missed");
                    rings = guard;
                }
                *rings = 0;
            }
        }
        writer.join().unwrap();
    }
}
