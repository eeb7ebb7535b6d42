//! The virtqueue against a device side that checks it, honest and hostile.

use std::vec::Vec;

use ddk::{DeviceContext, Mmio};
use ddk_backend_sim::{DeviceMemory, SimPlatform};
use model_virtio::DeviceQueue;
use proptest::prelude::*;
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};

use crate::queue::{QueueError, QueueOptions, Reaped, Virtqueue};

struct Notify(std::sync::atomic::AtomicU32);
impl ddk::Bus for Notify {
    fn read(&self, _: usize, _: ddk::Width) -> u64 {
        0
    }
    fn write(&self, _: usize, _: ddk::Width, _: u64) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Pair {
    driver: Virtqueue,
    device: DeviceQueue,
    notify: std::sync::Arc<Notify>,
}

fn pair(size: u16, features: u64) -> Pair {
    let memory = DeviceMemory::default();
    let platform = SimPlatform::builder().memory(memory.clone()).build();
    let cx = DeviceContext::new(platform).unwrap();
    let notify = std::sync::Arc::new(Notify(0.into()));
    let region = Mmio::from_bus(notify.clone(), 2);
    let driver = Virtqueue::new(
        &cx,
        0,
        QueueOptions {
            size,
            features,
            chain: 256,
        },
        region,
    )
    .unwrap();
    let device = DeviceQueue::new(memory, driver.size(), driver.addresses(), features).unwrap();
    Pair {
        driver,
        device,
        notify,
    }
}

fn submit(queue: &mut Virtqueue, token: u32, readable: u16, writable: u16) -> bool {
    let Some(mut chain) = queue.chain() else {
        return false;
    };
    for n in 0..readable {
        chain
            .readable(0x1000 + u64::from(n), 1 + u32::from(n))
            .unwrap();
    }
    for n in 0..writable {
        chain
            .writable(0x9000 + u64::from(n), 1 + u32::from(n))
            .unwrap();
    }
    chain.submit(token);
    true
}

const FEATURES: [u64; 4] = [
    0,
    RING_EVENT_IDX,
    RING_INDIRECT_DESC,
    RING_INDIRECT_DESC | RING_EVENT_IDX,
];

#[test]
fn chains_arrive_as_they_were_built() {
    for features in FEATURES {
        let mut p = pair(64, features);
        assert!(submit(&mut p.driver, 7, 2, 3));
        assert_eq!(p.device.pop().unwrap(), None, "not shown before the kick");
        p.driver.kick();
        let chain = p.device.pop().unwrap().unwrap();
        assert_eq!(chain.readable, [(0x1000, 1), (0x1001, 2)]);
        assert_eq!(chain.writable, [(0x9000, 1), (0x9001, 2), (0x9002, 3)]);
        p.device.complete(chain.head, 6).unwrap();
        let reaped = p.driver.reap().unwrap().unwrap();
        assert_eq!((reaped.token, reaped.written), (7, 6));
        assert_eq!(p.driver.reap(), Ok(None));
    }
}

#[test]
fn a_chain_that_is_dropped_takes_nothing() {
    let mut p = pair(32, 0);
    let slots = p.driver.slots();
    for _ in 0..100 {
        p.driver.chain().unwrap().readable(1, 1).unwrap();
    }
    assert_eq!(p.driver.in_flight(), 0);
    for n in 0..slots {
        assert!(submit(&mut p.driver, n.into(), 1, 1));
    }
    assert!(!submit(&mut p.driver, 9, 1, 1));
}

#[test]
fn a_full_chain_is_refused() {
    for features in FEATURES {
        let mut p = pair(256, features);
        let max = p.driver.chain_max();
        let mut chain = p.driver.chain().unwrap();
        for _ in 0..max {
            chain.readable(1, 1).unwrap();
        }
        assert!(chain.readable(1, 1).is_err());
        chain.submit(1);
        p.driver.kick();
        assert_eq!(
            p.device.pop().unwrap().unwrap().readable.len(),
            usize::from(max)
        );
    }
}

#[test]
fn notifications_are_suppressed_while_the_device_is_at_it() {
    let mut p = pair(64, RING_EVENT_IDX | RING_INDIRECT_DESC);
    let count = |p: &Pair| p.notify.0.load(std::sync::atomic::Ordering::Relaxed);
    submit(&mut p.driver, 1, 1, 1);
    p.driver.kick();
    assert_eq!(count(&p), 1);
    // The device has not looked since: it will find the second one by itself.
    submit(&mut p.driver, 2, 1, 1);
    p.driver.kick();
    assert_eq!(count(&p), 1);
    while p.device.pop().unwrap().is_some() {}
    submit(&mut p.driver, 3, 1, 1);
    p.driver.kick();
    assert_eq!(count(&p), 2);
    p.driver.kick();
    assert_eq!(count(&p), 2, "nothing new, nothing to tell");
}

#[test]
fn interrupts_come_when_armed_and_only_then() {
    let mut p = pair(64, RING_EVENT_IDX | RING_INDIRECT_DESC);
    for n in 0..3 {
        submit(&mut p.driver, n, 1, 1);
    }
    p.driver.kick();
    assert!(!p.driver.arm());
    let heads: Vec<_> = (0..3)
        .map(|_| p.device.pop().unwrap().unwrap().head)
        .collect();
    assert!(
        p.device.complete(heads[0], 0).unwrap(),
        "the first one interrupts"
    );
    assert!(
        !p.device.complete(heads[1], 0).unwrap(),
        "until it is armed again"
    );
    assert!(p.driver.arm(), "and arming tells of what came meanwhile");
    while p.driver.reap().unwrap().is_some() {}
    assert!(!p.driver.arm());
    assert!(p.device.complete(heads[2], 0).unwrap());
}

#[test]
fn hostile_used_entries_are_errors() {
    let run = |hostile: fn(&mut DeviceQueue, u16)| {
        let mut p = pair(16, RING_INDIRECT_DESC);
        submit(&mut p.driver, 1, 1, 2);
        submit(&mut p.driver, 2, 1, 2);
        p.driver.kick();
        let head = p.device.pop().unwrap().unwrap().head;
        hostile(&mut p.device, head);
        loop {
            match p.driver.reap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("nothing noticed"),
                Err(error) => return error,
            }
        }
    };
    let id = run(|device, _| assert!(device.complete_raw(1000, 0).is_ok()));
    assert_eq!(
        id,
        QueueError::Id {
            seen: 1000,
            limit: 16
        }
    );
    let length = run(|device, head| assert!(device.complete(head, 4).is_ok()));
    assert_eq!(length, QueueError::Length { seen: 4, limit: 3 });
    let twice = run(|device, head| {
        device.complete(head, 0).unwrap();
        device.complete_raw(head.into(), 0).unwrap();
    });
    assert!(matches!(twice, QueueError::NotInFlight { .. }));
    let ahead = run(|device, _| device.set_used_index(3).unwrap());
    assert_eq!(
        ahead,
        QueueError::Index {
            own: 0,
            seen: 3,
            in_flight: 2
        }
    );
    let back = run(|device, _| device.set_used_index(0xffff).unwrap());
    assert_eq!(
        back,
        QueueError::Index {
            own: 0,
            seen: 0xffff,
            in_flight: 2
        }
    );
}

proptest! {
    /// Whatever the order, every request completes once, with its own token and length.
    #[test]
    fn every_request_comes_back_once(
        features in 0usize..4,
        log_size in 4u32..9,
        steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..400),
    ) {
        let mut p = pair(1 << log_size, FEATURES[features]);
        let mut token = 0;
        // (token, writable bytes), (head, token, written)
        let (mut submitted, mut taken, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for (step, pick) in steps {
            match step {
                0 => {
                    let writable = (token % 5 + 1) as u16;
                    if submit(&mut p.driver, token, (token % 3 + 1) as u16, writable) {
                        submitted.push(token);
                        token += 1;
                    }
                }
                1 => p.driver.kick(),
                2 => {
                    while let Some(chain) = p.device.pop().unwrap() {
                        let token = submitted.remove(0);
                        prop_assert_eq!(chain.writable.len() as u32, token % 5 + 1);
                        taken.push((chain.head, token, chain.writable_len()));
                    }
                    if !taken.is_empty() {
                        let (head, token, room) = taken.remove(pick.index(taken.len()));
                        let written = token % (room + 1);
                        p.device.complete(head, written).unwrap();
                        done.push((token, written));
                    }
                }
                _ => {
                    while let Some(Reaped { token, written, .. }) = p.driver.reap().unwrap() {
                        prop_assert_eq!(done.remove(0), (token, written));
                    }
                    prop_assert!(done.is_empty());
                    prop_assert!(!p.driver.arm());
                }
            }
        }
    }

    /// A device that writes anything anywhere in the used ring gets errors, never a panic.
    #[test]
    fn a_hostile_device_cannot_panic_the_driver(
        writes in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u16>()), 1..60),
        small in any::<bool>(),
    ) {
        let mut p = pair(16, RING_INDIRECT_DESC | RING_EVENT_IDX);
        for (id, len, index) in writes {
            submit(&mut p.driver, id, 1, 1);
            p.driver.kick();
            let id = if small { id % 20 } else { id };
            p.device.complete_raw(id, len % 4).unwrap();
            if index % 7 == 0 {
                p.device.set_used_index(index).unwrap();
            }
            for _ in 0..4 {
                if !matches!(p.driver.reap(), Ok(Some(_))) {
                    break;
                }
            }
            let _ = p.driver.arm();
            prop_assert!(p.driver.in_flight() <= p.driver.slots());
        }
    }
}
