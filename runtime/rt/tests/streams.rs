//! Streams and threads, over the host's stand-in for the kernel.
#![allow(missing_docs, reason = "a test")]

use std::time::Duration;

use proptest::prelude::*;
use rt::io::{Read, Write};
use rt::stream::{StreamReader, pipe};
use rt::{Deadline, Error, thread};

#[test]
fn a_pipe_carries_bytes_and_ends() {
    let (mut reader, mut writer) = pipe().unwrap();
    let total = 3 << 20;
    let mut sending = thread::builder("writer")
        .spawn(move || {
            let data: Vec<u8> = (0..total)
                .map(|i: u32| (i.wrapping_mul(31) >> 3) as u8)
                .collect();
            // More than a message, more than the queue.
            writer.write_all(&data).unwrap();
            data
        })
        .unwrap();
    let mut received = Vec::new();
    assert_eq!(reader.read_to_end(&mut received), Ok(total as usize));
    let sent = sending.join(Deadline::after_secs(60)).unwrap();
    assert!(received == sent);
    assert_eq!(reader.read(&mut [0; 4]), Ok(0));
}

#[test]
fn writing_to_nobody_is_an_error() {
    let (reader, mut writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(writer.write_all(b"x"), Err(Error::PeerClosed));
}

#[test]
fn a_full_pipe_waits_no_longer_than_the_deadline() {
    let (mut reader, mut writer) = pipe().unwrap();
    let mut written = 0;
    let result = loop {
        match writer.write_deadline(&[7], Deadline::after_ms(2)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(result, Error::TimedOut);
    let mut sending = thread::builder("more")
        .spawn(move || writer.write_deadline(&[8], Deadline::after_secs(60)))
        .unwrap();
    let mut buffer = [0];
    for _ in 0..written {
        assert_eq!((reader.read(&mut buffer), buffer), (Ok(1), [7]));
    }
    assert_eq!((reader.read(&mut buffer), buffer), (Ok(1), [8]));
    sending.join(Deadline::after_secs(60)).unwrap().unwrap();
}

#[test]
fn empty_messages_are_not_the_end() {
    let (near, far) = rt::Channel::create().unwrap();
    let mut list = rt::HandleList::new();
    near.write(b"", &mut list).unwrap();
    near.write(b"abc", &mut list).unwrap();
    let mut reader = StreamReader::new(far);
    let mut buffer = [0; 8];
    assert_eq!(reader.read(&mut buffer), Ok(3));
    let nothing = reader.read_deadline(&mut buffer, Deadline::after_ms(2));
    assert_eq!(nothing, Err(Error::TimedOut));
}

#[test]
fn join_has_a_deadline() {
    let gate = std::sync::Arc::new(rt::Mutex::new(()));
    let held = gate.lock();
    let waiting = gate.clone();
    let mut thread = thread::builder("waits")
        .spawn(move || drop(waiting.lock()))
        .unwrap();
    assert_eq!(thread.join(Deadline::after_ms(3)), Err(Error::TimedOut));
    drop(held);
    assert_eq!(thread.join(Deadline::after_secs(60)), Ok(()));
    assert_eq!(thread.join(Deadline::after_ms(1)), Err(Error::BadState));
}

#[test]
fn locks_exclude_and_conditions_wake() {
    let state = std::sync::Arc::new((rt::Mutex::new(0u32), rt::Condvar::new()));
    let mut threads: Vec<_> = (0..4)
        .map(|_| {
            let state = state.clone();
            thread::builder("counts")
                .spawn(move || {
                    for _ in 0..2000 {
                        let mut count = state.0.lock();
                        let seen = *count;
                        std::hint::spin_loop();
                        *count = seen + 1;
                        drop(count);
                        state.1.notify_one();
                    }
                })
                .unwrap()
        })
        .collect();
    let deadline = Deadline::after_secs(60);
    let (count, result) = state
        .1
        .wait_while(state.0.lock(), deadline, |count| *count < 8000);
    assert_eq!((*count, result), (8000, Ok(())));
    drop(count);
    for thread in &mut threads {
        thread.join(deadline).unwrap();
    }
    let never = state
        .1
        .wait_while(state.0.lock(), Deadline::after_ms(2), |_| true)
        .1;
    assert_eq!(never, Err(Error::TimedOut));
}

#[test]
fn a_value_is_made_once() {
    static ONCE: rt::Once<u32> = rt::Once::new();
    static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let threads: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(|| {
                *ONCE.get_or_init(|| {
                    std::thread::sleep(Duration::from_millis(3));
                    MADE.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 41
                })
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 41);
    }
    assert_eq!(ONCE.set(5), Err(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// How a stream is cut into messages and reads means nothing.
    #[test]
    fn cuts_do_not_matter(
        writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        reads in proptest::collection::vec(1usize..400, 1..10),
    ) {
        let (mut reader, mut writer) = pipe().unwrap();
        for bytes in &writes {
            writer.write_all(bytes).unwrap();
        }
        drop(writer);
        let mut received = Vec::new();
        for size in reads.iter().cycle() {
            let mut buffer = vec![0; *size];
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                n => received.extend_from_slice(&buffer[..n]),
            }
        }
        prop_assert_eq!(received, writes.concat());
    }
}
