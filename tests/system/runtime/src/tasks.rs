//! The executor on the kernel's ports.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use executor::{Deadline, Error, Executor, Signals, Task, join};
use rt::{AckMode, AsHandle, Event, HandleList, Instant, Interrupt, Timer};

use crate::protocol::{self, CalculatorAsyncClient};
use crate::{Check, at, ensure, ensure_eq};

fn soon() -> Deadline {
    Deadline::after_secs(60)
}

pub fn timers() -> Check {
    let executor = Executor::new().map_err(at("executor"))?;
    let order = Rc::new(RefCell::new(Vec::new()));
    let start = Instant::now();
    let tasks: Vec<Task<()>> = [30u64, 10, 20]
        .into_iter()
        .map(|ms| {
            let (inner, order) = (executor.clone(), order.clone());
            executor.spawn(async move {
                inner
                    .sleep_until(Deadline::at(start + Duration::from_millis(ms)))
                    .await;
                order.borrow_mut().push(ms);
            })
        })
        .collect();
    let never = executor.spawn(core::future::pending::<()>());
    let result = executor.with_deadline(Deadline::after_ms(5), never);
    ensure_eq!(executor.block_on(result), Err(Error::TimedOut));
    executor.block_on(async {
        for task in tasks {
            task.await;
        }
    });
    ensure!(start.elapsed() >= Duration::from_millis(30));
    ensure_eq!(*order.borrow(), [10, 20, 30]);
    ensure_eq!(executor.tasks(), 0);
    Ok(())
}

pub fn signals() -> Check {
    let executor = Executor::new().map_err(at("executor"))?;
    let inner = executor.clone();
    executor.block_on(async {
        let event = Event::create().map_err(at("event"))?;
        let source = inner
            .watch(&event, Signals::SIGNALED)
            .map_err(at("watch"))?;
        ensure_eq!(
            source.next(Deadline::after_ms(10)).await,
            Err(Error::TimedOut)
        );
        for _ in 0..3 {
            // Set already: still a new edge each time.
            event.ring().map_err(at("ring"))?;
            ensure_eq!(source.next(soon()).await, Ok(Signals::SIGNALED));
            ensure_eq!(source.try_next(), None);
        }

        let irq = Interrupt::virtual_interrupt().map_err(at("irq"))?;
        let trigger = irq.duplicate().map_err(at("duplicate"))?;
        let source = inner
            .interrupt(irq, AckMode::Explicit)
            .map_err(at("bind"))?;
        trigger.trigger().map_err(at("trigger"))?;
        ensure_eq!(source.wait(soon()).await, Ok(1));
        trigger.trigger().map_err(at("trigger"))?;
        ensure_eq!(
            source.wait(Deadline::after_ms(10)).await,
            Err(Error::TimedOut)
        );
        source.ack().map_err(at("ack"))?;
        ensure_eq!(source.wait(soon()).await, Ok(1));
        drop(source);
        let irq = trigger.duplicate().map_err(at("duplicate"))?;
        let source = inner
            .interrupt(irq, AckMode::OnDequeue)
            .map_err(at("bind again"))?;
        for _ in 0..3 {
            trigger.trigger().map_err(at("trigger"))?;
            ensure_eq!(source.wait(soon()).await, Ok(1));
        }

        let timer = Timer::create().map_err(at("timer"))?;
        let ticks = inner
            .watch(&timer, Signals::SIGNALED)
            .map_err(at("watch"))?;
        let period = Duration::from_millis(5);
        timer
            .set_periodic(Deadline::after(period), period)
            .map_err(at("set"))?;
        for _ in 0..4 {
            ticks.next(soon()).await.map_err(at("tick"))?;
        }

        // More messages than a queue takes.
        let (near, far) = rt::Channel::create().map_err(at("channel"))?;
        let near = inner.channel(near).map_err(at("channel"))?;
        let far = inner.channel(far).map_err(at("channel"))?;
        let send = async {
            for n in 0..1500u32 {
                near.send(&n.to_le_bytes(), &mut HandleList::new(), soon())
                    .await?;
            }
            drop(near);
            Ok::<(), Error>(())
        };
        let receive = async {
            for n in 0..1500u32 {
                ensure_eq!(
                    far.recv(soon()).await.map_err(at("recv"))?.bytes,
                    n.to_le_bytes()
                );
            }
            ensure_eq!(far.recv(soon()).await.err(), Some(Error::PeerClosed));
            Ok(())
        };
        let (sent, received) = join(send, receive).await;
        sent.map_err(at("send"))?;
        received
    })
}

pub fn calls() -> Check {
    let (channel, child) = protocol::start()?;
    let executor = Executor::new().map_err(at("executor"))?;
    let caller = executor.caller(channel).map_err(at("caller"))?;
    let client = Rc::new(CalculatorAsyncClient::new(caller));
    // One that is never answered does not hold up the others.
    let waiting = client.clone();
    let waiter = executor.spawn(async move { waiting.wait().await.is_ok() });
    let tasks: Vec<Task<bool>> = (1..50u64)
        .map(|n| {
            let client = client.clone();
            executor.spawn(async move { client.divide(n * n, n).await == Ok(n) })
        })
        .collect();
    let all = executor.block_on(async {
        let mut all = true;
        for task in tasks {
            all &= task.await;
        }
        all
    });
    ensure!(all);
    ensure!(!waiter.is_finished());
    let last = client.clone();
    executor
        .block_on(async move { last.die().await })
        .map_err(|e| alloc::format!("{e:?}"))?;
    ensure_eq!(executor.block_on(waiter), false);
    drop(client);
    child.wait(soon()).map_err(at("wait"))?;
    Ok(())
}
