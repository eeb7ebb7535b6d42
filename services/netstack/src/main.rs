//! The process `netstack`. Start-up handles: `serve:tcp`, `serve:udp`, `serve:dns`, `serve:ip`, and `net` (the interfaces of
//! the device manager).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use executor::{Deadline, Executor};
use ipc::Channel;
use netstack::nic;
use netstack::serve::{Net, Schemes, now};
use netstack::stack::Stack;
use proto::devmgr::{ChangeEventsRequest, ChangeEventsServer, EndpointsAsyncClient};
use supervision::Supervised;
use sys::AsHandle;

rt::entry!(main);

/// smoltcp moves interfaces of several times 64 KiB over the stack when they are made.
const STACK_BYTES: usize = 2 << 20;

fn main() {
    let thread = rt::thread::builder("netstack")
        .stack_bytes(STACK_BYTES)
        .spawn(|| {
            if let Err(error) = run() {
                rt::error!("{error}");
                rt::exit(1);
            }
        });
    match thread {
        Ok(mut thread) => {
            let _ = thread.join(Deadline::FOREVER);
        }
        Err(error) => rt::error!("no thread for the stack: {error}"),
    }
}

/// What makes this start different from others. There is no better source yet: the clocks, and this process's number.
fn seed() -> u64 {
    let own = sys::Process::own_info().map_or(0, |info| info.koid);
    let mut mix = fastrand::Rng::with_seed(sys::time::wall_clock_ns() ^ own.rotate_left(40));
    mix.u64(..) ^ sys::time::now_ns()
}

fn run() -> Result<(), String> {
    let executor = Executor::new().map_err(|error| error.to_string())?;
    let net = Net::new(executor.clone(), Stack::new(seed(), now()));
    let take = |name| rt::startup::take::<Channel>(name);
    net.serve(Schemes {
        tcp: take("serve:tcp"),
        udp: take("serve:udp"),
        dns: take("serve:dns"),
        ip: take("serve:ip"),
    });
    if let Some(supervised) = Supervised::from_startup() {
        executor.spawn(supervised.serve(executor.clone())).detach();
    }
    if let Some(endpoints) = take("net") {
        executor.spawn(follow(net.clone(), endpoints)).detach();
    }
    executor.block_on(net.drive());
    Ok(())
}

/// Takes in every network interface that there is and that comes.
async fn follow(net: Rc<Net>, endpoints: Channel) {
    let made = endpoints
        .duplicate()
        .and_then(|channel| net.executor.caller(channel));
    let client = match made {
        Ok(caller) => EndpointsAsyncClient::new(caller),
        Err(error) => return rt::error!("network interfaces: {error}"),
    };
    let events = match client.watch().await {
        Ok(events) => events,
        Err(error) => return rt::error!("network interfaces: {error}"),
    };
    let Ok(events) = net.executor.requests(ChangeEventsServer::new(events)) else {
        return;
    };
    // An interface stays in the stack when its driver goes, and waits for the next one by itself.
    let mut known: Vec<String> = Vec::new();
    while let Ok(Some(ChangeEventsRequest::Change { .. })) = events.next().await {
        let list = match client.list().await {
            Ok(list) => list,
            Err(error) => {
                rt::warn!("network interfaces: {error}");
                continue;
            }
        };
        for info in list {
            if known.contains(&info.name) {
                continue;
            }
            let (_, endpoint, own_name) = match client.open(&info.name).await {
                Ok(opened) => opened,
                Err(error) => {
                    rt::warn!("net:/{}: {error}", info.name);
                    continue;
                }
            };
            known.push(info.name.clone());
            let Ok(endpoints) = endpoints.duplicate() else {
                return;
            };
            let attached = nic::attach(net.clone(), endpoints, info.name, endpoint, own_name);
            net.executor.spawn(attached).detach();
        }
    }
}
