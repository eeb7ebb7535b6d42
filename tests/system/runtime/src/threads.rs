//! Threads, locks, clocks.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use rt::thread::JoinHandle;
use rt::{Channel, Condvar, Deadline, Error, HandleList, Instant, Mutex, thread, time};

use crate::{Check, at, ensure, ensure_eq};

pub fn join() -> Check {
    let mut threads: Vec<JoinHandle<u64>> = Vec::new();
    for i in 0..8u64 {
        let thread = thread::builder("sum")
            .stack_bytes(64 * 1024)
            .spawn(move || (0..=i * 1000).sum())
            .map_err(at("spawn"))?;
        threads.push(thread);
    }
    for (i, thread) in threads.iter_mut().enumerate() {
        let n = i as u64 * 1000;
        ensure_eq!(
            thread.join(Deadline::after_secs(60)).map_err(at("join"))?,
            n * (n + 1) / 2
        );
    }
    // One that nobody joins ends by itself, and a name and priority do no harm.
    let flag = Arc::new(Mutex::new(false));
    let set = flag.clone();
    drop(
        thread::builder("detached")
            .priority(3)
            .affinity(1)
            .spawn(move || *set.lock() = true),
    );
    let deadline = Deadline::after_secs(60);
    while !*flag.lock() {
        ensure!(!deadline.has_passed(), "the detached thread does not run");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub fn locks() -> Check {
    let state = Arc::new((Mutex::new(0u32), Condvar::new()));
    let mut threads = Vec::new();
    for _ in 0..4 {
        let state = state.clone();
        let body = move || {
            for n in 0..100 {
                let mut count = state.0.lock();
                let seen = core::hint::black_box(*count);
                // Somebody else finds the lock taken.
                if n % 4 == 0 {
                    thread::yield_now();
                }
                *count = seen + 1;
                drop(count);
                state.1.notify_one();
            }
        };
        threads.push(thread::builder("counts").spawn(body).map_err(at("spawn"))?);
    }
    let deadline = Deadline::after_secs(60);
    let (count, result) = state
        .1
        .wait_while(state.0.lock(), deadline, |count| *count < 400);
    ensure_eq!((*count, result), (400, Ok(())));
    drop(count);
    for thread in &mut threads {
        thread.join(deadline).map_err(at("join"))?;
    }
    Ok(())
}

pub fn clocks() -> Check {
    let start = Instant::now();
    thread::sleep(Duration::from_millis(15));
    ensure!(start.elapsed() >= Duration::from_millis(15));
    let mut last = 0;
    for _ in 0..1000 {
        let now = time::now_ns();
        ensure!(now >= last, "the clock went back");
        last = now;
    }
    // After 2020, before 2100.
    let seconds = time::wall_clock_ns() / 1_000_000_000;
    ensure!(
        (1_577_836_800..4_102_444_800).contains(&seconds),
        "wall clock {seconds}"
    );

    let (near, _far) = Channel::create().map_err(at("channel"))?;
    let mut buffer = [0; 8];
    let mut list = HandleList::new();
    let start = Instant::now();
    let result = near.read(&mut buffer, &mut list, Deadline::after_ms(15));
    ensure_eq!(result, Err(Error::TimedOut));
    ensure!(start.elapsed() >= Duration::from_millis(15));
    ensure_eq!(
        near.read(&mut buffer, &mut list, Deadline::NOW),
        Err(Error::ShouldWait)
    );
    Ok(())
}
