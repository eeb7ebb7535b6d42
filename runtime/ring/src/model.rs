//! The ring under the model checker: `RUSTFLAGS="--cfg loom" cargo test -p ring --lib`.

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::{Consumer, Layout, ModelMemory, Producer};

fn pair(
    capacity: u32,
) -> (
    Producer<[u64; 2], ModelMemory>,
    Consumer<[u64; 2], ModelMemory>,
) {
    let memory = ModelMemory::new(Layout::of::<[u64; 2]>(capacity).unwrap().size_bytes());
    let producer = Producer::new(memory.clone(), 0, capacity).unwrap();
    (producer, Consumer::new(memory, 0, capacity).unwrap())
}

/// Entries arrive whole and in order, with slots used again.
#[test]
fn entries_arrive_whole() {
    loom::model(|| {
        let (mut producer, mut consumer) = pair(1);
        let writer = thread::spawn(move || {
            for n in 1..=2u64 {
                while producer.push(&[n, !n]).is_err() {
                    thread::yield_now();
                }
                let _ = producer.publish();
            }
        });
        for n in 1..=2u64 {
            let entry = loop {
                match consumer.pop().unwrap() {
                    Some(entry) => break entry,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(entry, [n, !n]);
        }
        writer.join().unwrap();
    });
}

/// No wake-up is lost: a consumer that sleeps is rung. Loom reports a deadlock if one were lost.
#[test]
fn no_doorbell_is_missed() {
    loom::model(|| {
        let (mut producer, mut consumer) = pair(2);
        let doorbell = Arc::new((Mutex::new(false), Condvar::new()));
        let rung = doorbell.clone();
        let writer = thread::spawn(move || {
            for n in 1..=2u64 {
                producer.push(&[n, !n]).unwrap();
                if producer.publish() {
                    *rung.0.lock().unwrap() = true;
                    rung.1.notify_one();
                }
            }
        });
        let mut seen = 0;
        while seen < 2 {
            while let Some(entry) = consumer.pop().unwrap() {
                seen += 1;
                assert_eq!(entry, [seen, !seen]);
            }
            if seen < 2 && !consumer.arm().unwrap() {
                let mut rings = doorbell.0.lock().unwrap();
                while !*rings {
                    rings = doorbell.1.wait(rings).unwrap();
                }
                *rings = false;
            }
        }
        writer.join().unwrap();
    });
}

/// The doorbell is rung at most once for each arming.
#[test]
fn one_doorbell_per_arming() {
    loom::model(|| {
        let (mut producer, mut consumer) = pair(4);
        let done = Arc::new(AtomicBool::new(false));
        let finished = done.clone();
        let writer = thread::spawn(move || {
            let mut rings = 0;
            for n in 1..=2u64 {
                producer.push(&[n, n]).unwrap();
                rings += u32::from(producer.publish());
            }
            finished.store(true, Ordering::Release);
            rings
        });
        let armings = u32::from(!consumer.arm().unwrap());
        let rings = writer.join().unwrap();
        assert!(done.load(Ordering::Acquire));
        assert!(rings <= 1, "{rings} for one arming");
        // It slept: then it was rung.
        assert!(rings >= armings);
    });
}

/// Why nothing may be taken between arming and sleeping: that takes the wish back, and whoever shows an entry just then
/// rings for nobody.
#[test]
#[should_panic(expected = "asleep with news")]
fn who_takes_after_arming_may_not_be_rung() {
    loom::model(|| {
        let (mut producer, mut consumer) = pair(2);
        let writer = thread::spawn(move || {
            producer.push(&[1, 1]).unwrap();
            producer.publish()
        });
        let sleeps = !consumer.arm().unwrap();
        let takes = consumer.pop().unwrap().is_some();
        let rung = writer.join().unwrap();
        assert!(!(sleeps && takes) || rung, "asleep with news");
    });
}
