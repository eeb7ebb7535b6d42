//! The cache against a queue that fails, reorders and is too small.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;

use crate::{
    BlockError, Cache, FsError, Memory, Volume,
    host::{HostCache, HostMemory, HostQueue, run},
};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at / 7) ^ (at >> 12)) as u8).collect()
}

fn cache_with(len: usize, pages: usize, shape: impl FnOnce(HostQueue) -> HostQueue) -> HostCache {
    let memory = HostMemory::new(pages * 4096);
    Cache::new(shape(HostQueue::new(pattern(len), memory.clone())), memory)
}

fn read(cache: &HostCache, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
    let mut bytes = vec![0; len];
    run(cache, cache.read_at(offset, &mut bytes)).map(|()| bytes)
}

#[test]
fn long_reads_are_few_requests_and_repeats_are_none() {
    let cache = cache_with(4 << 20, 4096, |queue| queue);
    assert_eq!(
        read(&cache, 100, 3 << 20).unwrap(),
        pattern(4 << 20)[100..100 + (3 << 20)]
    );
    assert_eq!(cache.statistics().requests, 4);
    read(&cache, 0, 3 << 20).unwrap();
    assert_eq!(cache.statistics().requests, 4);
}

#[test]
fn scattered_pages_cost_a_page_each() {
    let cache = cache_with(4 << 20, 64, |queue| queue);
    for page in (0..1024).step_by(17) {
        read(&cache, page * 4096 + 5, 64).unwrap();
    }
    let statistics = cache.statistics();
    assert_eq!(statistics.requests, statistics.pages_requested);
}

#[test]
fn a_range_outside_the_volume_is_refused() {
    let cache = cache_with(10 * 512, 16, |queue| queue);
    assert_eq!(
        read(&cache, 9 * 512, 512).unwrap(),
        pattern(5120)[9 * 512..]
    );
    for (offset, len) in [(9 * 512, 513), (u64::MAX, 2), (1 << 40, 0)] {
        assert_eq!(
            read(&cache, offset, len),
            Err(FsError::OutsideVolume {
                offset,
                len_bytes: len as u64,
                volume_bytes: 5120
            })
        );
    }
}

#[test]
fn one_bad_page_fails_alone_and_every_time() {
    let cache = cache_with(1 << 20, 512, |queue| queue.bad_page(100));
    let error = FsError::Device {
        offset: 100 * 4096,
        error: BlockError::Device,
    };
    assert_eq!(read(&cache, 0, 1 << 20), Err(error));
    assert_eq!(
        read(&cache, 0, 100 * 4096).unwrap(),
        pattern(1 << 20)[..100 * 4096]
    );
    assert_eq!(
        read(&cache, 101 * 4096, 4096).unwrap(),
        pattern(1 << 20)[101 * 4096..102 * 4096]
    );
    assert_eq!(read(&cache, 100 * 4096, 1), Err(error));
    assert_eq!(read(&cache, 100 * 4096, 1), Err(error));
}

#[test]
fn a_reader_that_goes_away_leaves_its_run_to_the_next() {
    let cache = cache_with(1 << 20, 64, |queue| queue);
    let mut bytes = [0; 4096];
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut abandoned = pin!(cache.read_at(8192, &mut bytes));
        assert!(abandoned.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(
        read(&cache, 8192, 4096).unwrap(),
        pattern(1 << 20)[8192..12288]
    );
    assert_eq!(cache.statistics().requests, 1);
}

#[test]
fn more_readers_than_memory_all_finish() {
    for newest_first in [false, true] {
        let cache = cache_with(4 << 20, 8, |queue| {
            let queue = queue.capacity(3);
            if newest_first {
                queue.newest_first()
            } else {
                queue
            }
        });
        let expected = pattern(4 << 20);
        let mut buffers = vec![vec![0u8; 40_000]; 20];
        let mut readers: Vec<_> = buffers
            .iter_mut()
            .enumerate()
            .map(|(at, buffer)| Some(Box::pin(cache.read_at(at as u64 * 200_000, buffer))))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            for slot in &mut readers {
                if let Some(reader) = slot
                    && let Poll::Ready(result) = reader.as_mut().poll(&mut cx)
                {
                    result.unwrap();
                    *slot = None;
                }
            }
            cache.poll_pump(&mut cx);
        }
        assert!(readers.iter().all(Option::is_none));
        drop(readers);
        for (at, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer[..], expected[at * 200_000..][..40_000]);
        }
    }
}

proptest! {
    #[test]
    fn every_read_gives_the_bytes_of_the_volume(
        sectors in 1usize..600,
        pages in 1usize..80,
        capacity in 1usize..8,
        transfer_pages in 1u32..40,
        reads in proptest::collection::vec((any::<u64>(), 0usize..50_000, any::<bool>()), 1..40),
    ) {
        let len = sectors * 512;
        let cache = cache_with(len, pages, |queue| {
            queue.capacity(capacity).max_transfer(transfer_pages * 4096)
        });
        let expected = pattern(len);
        for (offset, amount, ahead) in reads {
            let offset = offset % len as u64;
            if ahead {
                cache.prefetch(offset, amount as u64);
                continue;
            }
            let amount = amount.min(len - offset as usize);
            prop_assert_eq!(
                &read(&cache, offset, amount).unwrap()[..],
                &expected[offset as usize..][..amount]
            );
        }
        prop_assert!(cache.memory().len_bytes() >= pages * 4096);
    }
}
