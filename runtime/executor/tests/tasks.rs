//! Tasks, timers, sources and calls, over the host's stand-in for the kernel.
#![allow(missing_docs, reason = "a test")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use executor::{Deadline, Either, Error, Executor, Notify, Queue, Signals, Task, join, select};
use proptest::prelude::*;
use sys::{AckMode, AsHandle, Channel, Event, HandleList, Interrupt, Timer};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

#[test]
fn tasks_run_and_give_values() {
    let executor = Executor::new().unwrap();
    let inner = executor.clone();
    let sum = executor.block_on(async {
        let a = inner.spawn(async { 1 });
        let yielding = inner.clone();
        let b = inner.spawn(async move {
            yielding.yield_now().await;
            2
        });
        a.await + b.await
    });
    assert_eq!(sum, 3);
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn dropping_a_task_cancels_it() {
    struct Guard(Rc<Cell<u32>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let executor = Executor::new().unwrap();
    let dropped = Rc::new(Cell::new(0));
    let guard = Guard(dropped.clone());
    let task = executor.spawn(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    let pause = executor.sleep(Duration::from_millis(1));
    executor.block_on(pause);
    assert_eq!(dropped.get(), 0);
    drop(task);
    assert_eq!(dropped.get(), 1);
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn a_task_may_drop_itself_and_others() {
    let executor = Executor::new().unwrap();
    let own: Rc<RefCell<Option<Task<()>>>> = Rc::default();
    let (slot, inner) = (own.clone(), executor.clone());
    let task = executor.spawn(async move {
        inner.yield_now().await;
        drop(slot.borrow_mut().take());
        inner.yield_now().await;
        unreachable!("it was cancelled");
    });
    *own.borrow_mut() = Some(task);
    executor.block_on(executor.sleep(Duration::from_millis(5)));
    assert!(own.borrow().is_none());
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn detached_tasks_go_on() {
    let executor = Executor::new().unwrap();
    let queue = Rc::new(Queue::new());
    let (sender, inner) = (queue.clone(), executor.clone());
    executor
        .spawn(async move {
            inner.sleep(Duration::from_millis(2)).await;
            sender.push(7);
        })
        .detach();
    assert_eq!(executor.block_on(queue.pop()), 7);
}

#[test]
fn deadlines_end_waits() {
    let executor = Executor::new().unwrap();
    let event = Event::create().unwrap();
    let inner = executor.clone();
    executor.block_on(async {
        let source = inner.watch(&event, Signals::SIGNALED).unwrap();
        let result = source.next(Deadline::after_ms(3)).await;
        assert_eq!(result, Err(Error::TimedOut));
        event.ring().unwrap();
        assert_eq!(source.next(soon()).await, Ok(Signals::SIGNALED));
        // The edge is used up; a new ring of a set signal is a new edge.
        assert_eq!(source.try_next(), None);
        event.ring().unwrap();
        assert_eq!(source.next(soon()).await, Ok(Signals::SIGNALED));
        let never = std::future::pending::<()>();
        assert_eq!(
            inner.with_deadline(Deadline::after_ms(3), never).await,
            Err(Error::TimedOut)
        );
        assert_eq!(inner.with_deadline(soon(), async { 5 }).await, Ok(5));
    });
}

#[test]
fn timers_of_the_kernel_and_interrupts_arrive() {
    let executor = Executor::new().unwrap();
    let inner = executor.clone();
    executor.block_on(async {
        let timer = Timer::create().unwrap();
        timer
            .set_periodic(Deadline::after_ms(1), Duration::from_millis(1))
            .unwrap();
        let ticks = inner.watch(&timer, Signals::SIGNALED).unwrap();
        for _ in 0..3 {
            ticks.next(soon()).await.unwrap();
        }
        let irq = Interrupt::virtual_interrupt().unwrap();
        let second = irq.duplicate().unwrap();
        let source = inner.interrupt(irq, AckMode::Explicit).unwrap();
        second.trigger().unwrap();
        assert_eq!(source.wait(soon()).await, Ok(1));
        // Not acknowledged: nothing more comes, and what came is counted.
        second.trigger().unwrap();
        second.trigger().unwrap();
        assert_eq!(
            source.wait(Deadline::after_ms(3)).await,
            Err(Error::TimedOut)
        );
        source.ack().unwrap();
        assert_eq!(source.wait(soon()).await, Ok(2));
    });
}

#[test]
fn a_source_that_is_gone_gets_nothing() {
    let executor = Executor::new().unwrap();
    let inner = executor.clone();
    let event = Event::create().unwrap();
    executor.block_on(async {
        let first = inner.watch(&event, Signals::SIGNALED).unwrap();
        event.ring().unwrap();
        drop(first);
        // It takes the same slot, and must not see the first one's packet.
        let other = Event::create().unwrap();
        let second = inner.watch(&other, Signals::SIGNALED).unwrap();
        assert_eq!(
            second.next(Deadline::after_ms(3)).await,
            Err(Error::TimedOut)
        );
    });
}

#[test]
fn messages_arrive_with_back_pressure() {
    let executor = Executor::new().unwrap();
    let inner = executor.clone();
    let (a, b) = Channel::create().unwrap();
    const COUNT: u32 = 2000;
    executor.block_on(async {
        let a = inner.channel(a).unwrap();
        let b = inner.channel(b).unwrap();
        let send = async {
            for i in 0..COUNT {
                a.send(&i.to_le_bytes(), &mut HandleList::new(), soon())
                    .await
                    .unwrap();
            }
            drop(a);
        };
        let receive = async {
            for i in 0..COUNT {
                assert_eq!(b.recv(soon()).await.unwrap().bytes, i.to_le_bytes());
            }
            assert_eq!(b.recv(soon()).await.err(), Some(Error::PeerClosed));
        };
        join(send, receive).await;
    });
}

#[test]
fn wakers_work_from_other_threads() {
    let executor = Executor::new().unwrap();
    for round in 0..200 {
        let shared = std::sync::Arc::new(std::sync::Mutex::new((None::<std::task::Waker>, false)));
        let other = shared.clone();
        let thread = std::thread::spawn(move || {
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            let mut state = other.lock().unwrap();
            state.1 = true;
            if let Some(waker) = state.0.take() {
                waker.wake();
            }
        });
        let wait = std::future::poll_fn(|context| {
            let mut state = shared.lock().unwrap();
            if state.1 {
                return std::task::Poll::Ready(());
            }
            state.0 = Some(context.waker().clone());
            std::task::Poll::Pending
        });
        let limited = executor.with_deadline(soon(), wait);
        executor.block_on(limited).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn select_takes_the_first() {
    let executor = Executor::new().unwrap();
    let late = executor.sleep(Duration::from_secs(100));
    let early = executor.sleep(Duration::from_millis(1));
    assert_eq!(executor.block_on(select(late, early)), Either::Second(()));
}

#[test]
fn notify_wakes_all_that_wait() {
    let executor = Executor::new().unwrap();
    let notify = Rc::new(Notify::new());
    let count = Rc::new(Cell::new(0));
    let tasks: Vec<Task<()>> = (0..5)
        .map(|_| {
            let (notify, count) = (notify.clone(), count.clone());
            executor.spawn(async move {
                notify.wait().await;
                count.set(count.get() + 1);
            })
        })
        .collect();
    executor.block_on(executor.sleep(Duration::from_millis(1)));
    assert_eq!(count.get(), 0);
    notify.notify();
    executor.block_on(async {
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(count.get(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sleepers wake in the order of their deadlines, whatever order they started in, and those that
    /// are cancelled never do.
    #[test]
    fn timers_fire_in_order(delays in proptest::collection::vec((0u64..4000, any::<bool>()), 1..40)) {
        let executor = Executor::new().unwrap();
        let start = sys::Instant::now() + Duration::from_millis(1);
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut kept = Vec::new();
        let mut cancelled = Vec::new();
        for (i, (delay_us, cancel)) in delays.iter().enumerate() {
            // Those to be cancelled lie so far ahead that a slow machine cannot fire them first.
            let ahead = if *cancel { Duration::from_secs(60) } else { Duration::ZERO };
            let deadline = Deadline::at(start + Duration::from_micros(*delay_us) + ahead);
            let (inner, order) = (executor.clone(), order.clone());
            let task = executor.spawn(async move {
                inner.sleep_until(deadline).await;
                assert!(deadline.has_passed());
                order.borrow_mut().push((deadline, i));
            });
            if *cancel { cancelled.push(task) } else { kept.push(task) }
        }
        executor.block_on(executor.yield_now());
        let expected = kept.len();
        drop(cancelled);
        executor.block_on(async {
            for task in kept {
                task.await;
            }
        });
        let order = order.borrow();
        prop_assert_eq!(order.len(), expected);
        prop_assert!(order.windows(2).all(|w| w[0].0 <= w[1].0));
        prop_assert_eq!(executor.tasks(), 0);
    }
}
