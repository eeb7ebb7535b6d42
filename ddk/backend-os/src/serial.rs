//! Serial drivers: the endpoint and the client's stream over channels.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{Deadline, DeviceContext, DriverError, Event, EventQueue};
use ddk_class_serial::{Pump, SerialDevice, Stream, StreamEnd};
use ipc::Server;
use proto::devmgr::Class;
use proto::serial::{
    SerialEndpointDrainReply, SerialEndpointRequest, SerialEndpointServer, SerialError, SerialInfo,
};
use rt::{AsHandle, Channel, Error, HandleList, Signals, Watch};

use crate::control::{Control, Order};
use crate::entry::{Host, start, stop, wait};
use crate::queue::OsQueue;

const KEY_INTERRUPT: u64 = 1;
const KEY_ENDPOINT: u64 = 2;
const KEY_CONTROL: u64 = 3;
/// Each stream has a key of its own, so that an event of a closed one is not taken for its successor's.
const KEY_STREAM: u64 = 1 << 32;

/// How often the transmitter is looked at while somebody waits for it to be idle.
const DRAIN_POLL_MS: u32 = 1;

/// A stream over a channel: each message is bytes.
struct ChannelStream {
    channel: Channel,
    key: u64,
}

impl Stream for ChannelStream {
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, StreamEnd> {
        let mut handles = HandleList::new();
        match self.channel.read_vec(into, &mut handles, rt::Deadline::NOW) {
            Ok(received) => {
                into.truncate(received.len);
                Ok(true)
            }
            Err(Error::TimedOut | Error::ShouldWait) => {
                into.clear();
                Ok(false)
            }
            Err(_) => Err(StreamEnd),
        }
    }

    fn give(&mut self, bytes: &[u8]) -> Result<bool, StreamEnd> {
        match self.channel.write(bytes, &mut HandleList::new()) {
            Ok(()) => Ok(true),
            Err(Error::PeerClosed) => Err(StreamEnd),
            Err(_) => Ok(false),
        }
    }
}

struct Service<D> {
    host: Host,
    cx: DeviceContext,
    device: Option<D>,
    events: OsQueue,
    endpoint: SerialEndpointServer,
    control: Control,
    stream: Option<ChannelStream>,
    streams: u64,
    pump: Pump,
    draining: Vec<SerialEndpointDrainReply>,
}

/// The life of a serial driver's process.
pub fn run_serial<D: SerialDevice>(manifest: &'static Manifest) -> i32 {
    let host = Host::from_startup();
    let (_, cx, mut device) = start::<D>(&host, manifest);
    let refused = |error| DriverError::platform("service of the port", error);
    let system = |error| refused(crate::queue::refused(error));
    let parts = (|| {
        let events = OsQueue::new().map_err(refused)?;
        device.bind(&events, KEY_INTERRUPT).map_err(refused)?;
        let (client, endpoint) = SerialEndpointServer::pair().map_err(system)?;
        watch(&events, endpoint.channel(), KEY_ENDPOINT).map_err(system)?;
        let control = Control::from_startup();
        if let Some(channel) = control.channel() {
            watch(&events, channel, KEY_CONTROL).map_err(system)?;
        }
        Ok((events, client, endpoint, control))
    })();
    let (events, client, endpoint, control) = match parts {
        Ok(parts) => parts,
        Err(error) => host.give_up(&error),
    };
    let properties = vec![("fifo".to_string(), device.fifo().to_string())];
    host.publish(Class::Serial, "", properties, client.into_channel());
    host.running();
    let mut service = Service {
        host,
        cx,
        device: Some(device),
        events,
        endpoint,
        control,
        stream: None,
        streams: 0,
        pump: Pump::new(),
        draining: Vec::new(),
    };
    loop {
        if let Err(error) = service.turn() {
            service.host.give_up(&error);
        }
    }
}

fn watch(events: &OsQueue, channel: &Channel, key: u64) -> Result<(), Error> {
    let signals = Signals::READABLE | Signals::PEER_CLOSED;
    channel.wait_async(events.port(), key, signals, Watch::Persistent)
}

impl<D: SerialDevice> Service<D> {
    fn turn(&mut self) -> Result<(), DriverError> {
        let mut events = [Event::default(); 8];
        let deadline = if self.draining.is_empty() {
            Deadline::NEVER
        } else {
            self.cx.deadline_in_ms(DRAIN_POLL_MS)
        };
        let taken = self.events.wait(&mut events, deadline);
        let taken = taken.map_err(|error| DriverError::platform("events", error))?;
        for event in events.iter().take(taken) {
            match event.key {
                KEY_INTERRUPT => {
                    if let Some(device) = &mut self.device {
                        self.pump.interrupt(device, self.stream.as_mut())?;
                    }
                    self.send()?;
                }
                KEY_ENDPOINT => self.serve_endpoint(),
                KEY_CONTROL => self.serve_control(),
                key if self.stream.as_ref().is_some_and(|s| s.key == key) => self.send()?,
                _ => {}
            }
        }
        if !self.draining.is_empty() {
            self.send()?;
            let idle = match &mut self.device {
                Some(device) => self.pump.is_empty() && device.is_idle()?,
                None => true,
            };
            if idle {
                for reply in self.draining.drain(..) {
                    let _ = reply.ok();
                }
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), DriverError> {
        let (Some(device), Some(stream)) = (&mut self.device, &mut self.stream) else {
            return Ok(());
        };
        if self.pump.send(device, stream)?.is_err() {
            self.stream = None;
            return self.pump.discard(device);
        }
        self.pump.receive(device, stream)
    }

    fn serve_endpoint(&mut self) {
        while let Ok(Some(request)) = self.endpoint.try_next() {
            match request {
                SerialEndpointRequest::Info { reply } => {
                    let device = self.device.as_ref();
                    let info = device.map(|d| SerialInfo {
                        rate: d.rate(),
                        fifo: d.fifo(),
                    });
                    let _ = reply.send(info.ok_or(SerialError::Gone));
                }
                SerialEndpointRequest::Open { rate, reply } => {
                    let _ = reply.send(self.open(rate));
                }
                SerialEndpointRequest::Drain { reply } => self.draining.push(reply),
            }
        }
    }

    fn open(&mut self, rate: u32) -> Result<Channel, SerialError> {
        if self.stream.is_some() {
            return Err(SerialError::Busy);
        }
        let device = self.device.as_mut().ok_or(SerialError::Gone)?;
        if rate != device.rate() {
            device.set_rate(rate).map_err(|_| SerialError::Invalid)?;
        }
        let (client, server) = Channel::create().map_err(|_| SerialError::Gone)?;
        self.streams += 1;
        let key = KEY_STREAM | self.streams;
        watch(&self.events, &server, key).map_err(|_| SerialError::Gone)?;
        self.stream = Some(ChannelStream {
            channel: server,
            key,
        });
        Ok(client)
    }

    fn serve_control(&mut self) {
        while let Some(order) = self.control.try_next() {
            let Some(device) = &mut self.device else {
                rt::exit(0);
            };
            match order {
                Order::Ping(beat) => self.host.alive(beat),
                Order::Stop(why) => {
                    if let Some(device) = self.device.take() {
                        stop(&self.host, &self.cx, device, why);
                    }
                }
                Order::Suspend => self.host.suspended(wait(&self.cx, device.suspend())),
                Order::Resume => self.host.resumed(wait(&self.cx, device.resume())),
            }
        }
    }
}
