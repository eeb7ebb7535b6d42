//! Watching over the file systems: one that dies or hangs is started again by the rules and mounts its volume
//! under the same number; one that dies too often is given up, and its files are gone with a clean error.

use alloc::{format, rc::Rc};
use core::time::Duration;

use executor::{Deadline, Either, Signals, select};
use ipc::{CallError, Error};
use supervision::restart::{History, Verdict};

use super::{
    server::Vfs,
    volumes::{Origin, Service, Serving, is_gone},
};

/// Between two looks whether a service still answers. It may owe its answer for as long as its disk's driver
/// may take to come back.
const PAUSE: Duration = Duration::from_secs(10);
/// Time for the exit record of a process whose channel is closed.
const END_LIMIT: Duration = Duration::from_secs(1);

fn now_ms() -> u64 {
    rt::time::now_ns() / 1_000_000
}

/// Watches over a volume's services until it is unmounted or given up.
pub(crate) async fn supervise(vfs: Rc<Vfs>, service: Rc<Service>) {
    let mut history = History::new();
    let source = service.source.as_str();
    loop {
        let why = match service.present() {
            Some(serving) => end_of(&vfs, &service, &serving).await,
            None => "its file system is gone".into(),
        };
        service.lost();
        if service.is_over() {
            return;
        }
        rt::error!("{source}: {why}");
        loop {
            let now = now_ms();
            let Verdict::RestartAt(at) = history.died(&vfs.rules, now) else {
                rt::error!("{source} is given up: its file system died too often");
                return service.end();
            };
            let pause = Deadline::after_ms(at.saturating_sub(now));
            vfs.executor.sleep_until(pause).await;
            match vfs.starter.restart(&service).await {
                _ if service.is_over() => return,
                Ok(serving) => {
                    service.found(serving);
                    vfs.keep(service.number);
                    rt::info!("{source} is mounted again");
                    break;
                }
                Err(error) => rt::error!("{source}: {error}"),
            }
        }
    }
}

/// Waits for the end of a service; says how it was.
async fn end_of(vfs: &Vfs, service: &Service, serving: &Serving) -> alloc::string::String {
    let channel = serving.client.transport().channel();
    let signals = match service.origin {
        Origin::Channel(_) => Signals::PEER_CLOSED | Signals::PEER_RENEWED,
        Origin::Program { .. } => Signals::PEER_CLOSED,
    };
    let closed = match vfs.executor.watch(channel, signals) {
        Ok(source) => source,
        Err(error) => return format!("cannot be watched: {error}"),
    };
    loop {
        let signal = closed.next(Deadline::after(PAUSE));
        match select(signal, service.changed.wait()).await {
            Either::First(Ok(_)) => break,
            // Nothing came: is it still with us?
            Either::First(Err(_)) => match serving.client.info().await {
                // One that was replaced before it was watched.
                Err(error) if is_gone(&error) => break,
                Err(CallError::Transport(Error::TimedOut)) => {
                    if let Some(Err(error)) = serving.child.as_ref().map(rt::process::Child::kill) {
                        return format!("does not answer, and cannot be ended: {error}");
                    }
                    return "did not answer and was ended".into();
                }
                _ => {}
            },
            Either::Second(()) if service.is_over() => break,
            Either::Second(()) => {}
        }
    }
    let Some(child) = &serving.child else {
        return "its file system is gone".into();
    };
    // The channel is closed a little before the process has ended.
    let limit = Deadline::after(END_LIMIT);
    let ended = vfs
        .executor
        .wait_signals(child.process(), Signals::TERMINATED, limit);
    match (ended.await, &service.origin) {
        (Ok(_), Origin::Program { program, .. }) => vfs.starter.launcher.autopsy(program, child),
        _ => "its file system is gone".into(),
    }
}
