//! The driver's process: serves `proto::interrupt_test`.
//!
//! Two threads, so that an interrupt goes the way that it goes in other drivers, from whatever ran to a
//! handler that waits: the handler has a driver's priority, the thread that takes requests and raises
//! interrupts has an application's.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use ddk::manifest::Manifest;
use ddk::{DeviceContext, Driver, block_on};
use ddk_backend_os::{Control, Order, OsPlatform};
use edu::{Edu, Handler, Raiser};
use ipc::Server;
use proto::devmgr::{Class, DriverHostClient};
use proto::interrupt_test::{InterruptTestError, InterruptTestRequest, InterruptTestServer};
use rt::abi::PRIORITY_DEFAULT;
use rt::{AsHandle, Channel, Deadline, Packet, Port, Signals, Watch, startup};

ddk_backend_os::driver_program!(Edu, run);

const KEY_ENDPOINT: u64 = 1;
const KEY_CONTROL: u64 = 2;
/// Turns of waiting between two looks at the clock.
const TURNS: u32 = 1 << 20;
/// No handler takes so long, even on a busy host.
const LIMIT_S: u64 = 10;

struct Requests {
    cx: DeviceContext,
    device: Edu,
    raiser: Raiser,
    handled: Arc<AtomicU32>,
    port: Port,
    endpoint: InterruptTestServer,
    control: Control,
    host: DriverHostClient,
}

fn run(_manifest: &Manifest) -> i32 {
    let Some(host) = startup::take::<Channel>("devmgr").map(DriverHostClient::new) else {
        rt::error!("no handle 'devmgr'");
        return 2;
    };
    let error = match serve(&host) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    rt::error!("{error}");
    // devmgr sees the end in any case.
    let _ = host.failed(error);
    1
}

fn serve(host: &DriverHostClient) -> Result<core::convert::Infallible, String> {
    let platform = OsPlatform::from_startup().map_err(|error| format!("grants: {error}"))?;
    let cx = DeviceContext::new(Arc::new(platform)).map_err(|error| error.to_string())?;
    let device = block_on(&cx, Edu::start(cx.clone()))
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let handler: Handler = device.handler().map_err(|error| error.to_string())?;
    let handled = Arc::new(AtomicU32::new(0));

    let text = |error: rt::Error| error.to_string();
    let port = Port::create().map_err(text)?;
    let watch = |channel: &Channel, key| {
        let signals = Signals::READABLE | Signals::PEER_CLOSED;
        channel
            .wait_async(&port, key, signals, Watch::Persistent)
            .map_err(text)
    };
    let (client, endpoint) = InterruptTestServer::pair().map_err(text)?;
    watch(endpoint.channel(), KEY_ENDPOINT)?;
    let control = Control::from_startup();
    if let Some(channel) = control.channel() {
        watch(channel, KEY_CONTROL)?;
    }
    let requests = Requests {
        raiser: device.raiser(),
        cx,
        device,
        handled: handled.clone(),
        port,
        endpoint,
        control,
        host: DriverHostClient::new(host.channel().duplicate().map_err(text)?),
    };
    let _requests = rt::thread::builder("requests")
        .priority(PRIORITY_DEFAULT)
        .spawn(move || requests.serve())
        .map_err(text)?;
    host.publish(Class::Other, "", Vec::new(), client.into_channel())
        .and_then(|_| host.running())
        .map_err(|error| error.to_string())?;
    loop {
        handler.serve().map_err(|error| error.to_string())?;
        handled.fetch_add(1, Ordering::SeqCst);
    }
}

impl Requests {
    fn serve(mut self) {
        let mut packets = [Packet::default(); 2];
        loop {
            let taken = match self.port.wait(&mut packets, Deadline::FOREVER) {
                Ok(taken) => taken,
                Err(error) => panic!("port: {error}"),
            };
            for packet in packets.iter().take(taken) {
                match packet.key {
                    KEY_ENDPOINT => self.serve_endpoint(),
                    _ => self = self.serve_control(),
                }
            }
        }
    }

    fn serve_endpoint(&self) {
        while let Ok(Some(InterruptTestRequest::Raise { count, reply })) = self.endpoint.try_next()
        {
            // A client that is gone does not wait for its answer.
            let _ = reply.send(self.raise(count));
        }
    }

    fn raise(&self, count: u32) -> Result<(), InterruptTestError> {
        for number in 0..count {
            let before = self.handled.load(Ordering::SeqCst);
            self.raiser.raise();
            let limit = Deadline::after_secs(LIMIT_S);
            let mut turns = 0_u32;
            while self.handled.load(Ordering::SeqCst) == before {
                turns = turns.wrapping_add(1);
                if turns.is_multiple_of(TURNS) && limit.has_passed() {
                    return Err(InterruptTestError::Lost { handled: number });
                }
                core::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn serve_control(mut self) -> Self {
        while let Some(order) = self.control.try_next() {
            match order {
                Order::Ping(beat) => {
                    let _ = self.host.alive(beat);
                }
                Order::Stop(why) => {
                    let _ = block_on(&self.cx, self.device.stop(why));
                    rt::exit(0);
                }
                // Between two interrupts there is nothing to pause.
                Order::Suspend => {
                    let _ = self.host.suspended(None::<&str>);
                }
                Order::Resume => {
                    let _ = self.host.resumed(None::<&str>);
                }
            }
        }
        self
    }
}
