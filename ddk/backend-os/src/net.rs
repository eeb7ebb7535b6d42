//! Network drivers: endpoints and sessions over channels. The data path is the class layer's.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{DeviceContext, DriverError, Event, EventQueue, StopReason};
use ddk_class_net::{Command, NetDevice, RingOffsets, Session, SessionId, Supervisor, Verdict};
use ddk_wire_net::Wired;
use ipc::Server;
use proto::devmgr::Class;
use proto::net::{
    BufferAccess, DEPTH_MAX, MULTICAST_MAX, NetEndpointChangedReply, NetEndpointOpenSessionReply,
    NetEndpointRequest, NetEndpointServer, NetError, NetInfo, NetSessionRequest, NetSessionServer,
    SessionInfo,
};
use rt::{AsHandle, Channel, Error, SharedMapping, Signals, Vmo, Watch};

use crate::control::{Control, Order};
use crate::entry::{Host, start};
use crate::platform::OsPlatform;
use crate::queue::OsQueue;
use crate::session::{RegisterError, Slots, doorbell_of_client, doorbell_of_driver, rings};
use crate::wire::{self, ClientBuffers, WireLog};

const KEY_NOTICE: u64 = 1;
const KEY_CHANGES: u64 = 2;
const KEY_CONTROL: u64 = 3;
const KEY_ENDPOINT: u64 = 4;
const KEY_SESSION: u64 = 1 << 32;

/// Most clients that wait for a change, and for a queue each.
const WAITING_MAX: usize = 64;

struct OpenSession {
    server: NetSessionServer,
    queue: usize,
    slots: Arc<Slots>,
}

/// Somebody who wants a queue whose session is ending.
struct Opening {
    queue: u16,
    depths: (u16, u16),
    reply: NetEndpointOpenSessionReply,
}

struct Service<D: NetDevice> {
    cx: DeviceContext,
    platform: Arc<OsPlatform>,
    host: Host,
    driver: &'static str,
    events: OsQueue,
    supervisor: Supervisor<D, SharedMapping>,
    endpoint: NetEndpointServer,
    control: Control,
    sessions: BTreeMap<SessionId, OpenSession>,
    next_session: SessionId,
    openings: Vec<Opening>,
    waiting: Vec<(u32, NetEndpointChangedReply)>,
    wire: Option<Wiring>,
}

/// What a bad wire needs of the service.
struct Wiring {
    buffers: Arc<ClientBuffers>,
    log: WireLog,
}

/// The life of a network driver's process.
pub fn run_net<D: NetDevice + 'static>(manifest: &'static Manifest) -> i32 {
    let host = Host::from_startup();
    let (platform, cx, device) = start::<D>(&host, manifest);
    let Some(wire) = wire::wanted() else {
        return serve((platform, cx, device), host, manifest, None);
    };
    let buffers = Arc::new(ClientBuffers::default());
    let device = Wired::new(device, cx.clone(), wire, buffers.clone());
    let log = WireLog::new(device.counts());
    let wiring = Wiring { buffers, log };
    serve((platform, cx, device), host, manifest, Some(wiring))
}

fn serve<D: NetDevice + 'static>(
    (platform, cx, device): (Arc<OsPlatform>, DeviceContext, D),
    host: Host,
    manifest: &'static Manifest,
    wire: Option<Wiring>,
) -> i32 {
    let parts = (|| {
        let refused = |e| DriverError::platform("service of the interface", e);
        let system = |e| refused(crate::queue::refused(e));
        let events = OsQueue::new().map_err(refused)?;
        let poster = events.clone();
        let post = move || {
            let _ = poster.post(KEY_NOTICE);
        };
        let (mut supervisor, workers) = Supervisor::new(cx.clone(), device, Box::new(post))?;
        supervisor
            .bind_changes(&events, KEY_CHANGES)
            .map_err(refused)?;
        crate::session::spawn_workers(&cx, workers, |worker| worker.run())?;
        let (client, endpoint) = NetEndpointServer::pair().map_err(system)?;
        watch(&events, endpoint.channel(), KEY_ENDPOINT).map_err(system)?;
        let control = Control::from_startup();
        if let Some(channel) = control.channel() {
            watch(&events, channel, KEY_CONTROL).map_err(system)?;
        }
        Ok((events, supervisor, client, endpoint, control))
    })();
    let (events, supervisor, client, endpoint, control) = match parts {
        Ok(parts) => parts,
        Err(error) => host.give_up(&error),
    };
    let info = supervisor.info();
    let properties = vec![
        ("mac".to_string(), info.mac.to_string()),
        ("mtu".to_string(), format!("{}", info.mtu)),
        ("queues".to_string(), format!("{}", supervisor.queues())),
    ];
    host.publish(Class::Net, "", properties, client.into_channel());
    host.running();
    let mut service = Service {
        cx,
        platform,
        host,
        driver: manifest.name(),
        events,
        supervisor,
        endpoint,
        control,
        sessions: BTreeMap::new(),
        next_session: 0,
        openings: Vec::new(),
        waiting: Vec::new(),
        wire,
    };
    service.run()
}

fn watch(events: &OsQueue, channel: &Channel, key: u64) -> Result<(), Error> {
    let signals = Signals::READABLE | Signals::PEER_CLOSED;
    channel.wait_async(events.port(), key, signals, Watch::Persistent)
}

/// What a client hears of a device's refusal; a device that is gone or breaks the rules is found out by the data path.
fn refusal(error: &DriverError) -> NetError {
    match error {
        DriverError::Unsupported { .. } => NetError::Unsupported,
        _ => NetError::Gone,
    }
}

impl<D: NetDevice + 'static> Service<D> {
    fn run(&mut self) -> i32 {
        loop {
            let mut events = [Event::default(); 8];
            let taken = match self.events.wait(&mut events, self.supervisor.next_tick()) {
                Ok(taken) => taken,
                Err(error) => {
                    rt::error!("events: {error}");
                    return 1;
                }
            };
            for event in events.iter().take(taken) {
                self.handle(event.key);
            }
            self.supervisor.tick();
            self.tell_changes();
            if let Some(wire) = &mut self.wire {
                wire.log.look();
            }
        }
    }

    fn handle(&mut self, key: u64) {
        match key {
            KEY_NOTICE => {
                for verdict in self.supervisor.attend() {
                    match verdict {
                        Verdict::CloseSession(id) => {
                            rt::warn!("session {id}: the client broke the protocol");
                            self.close(id);
                        }
                        Verdict::SessionEnded(id) => {
                            self.sessions.remove(&id);
                            self.open_waiting();
                        }
                        Verdict::Changed => {}
                        Verdict::GiveUp(error) => self.host.give_up(&error),
                        Verdict::Alive(beat) => self.host.alive(beat),
                    }
                }
            }
            KEY_CHANGES => {
                if let Err(error) = self.supervisor.changed() {
                    self.host.give_up(&error);
                }
            }
            KEY_CONTROL => self.serve_control(),
            KEY_ENDPOINT => self.serve_endpoint(),
            key if key & KEY_SESSION != 0 => self.serve_session(key as SessionId),
            _ => {}
        }
    }

    /// Answers those who wait for a change.
    fn tell_changes(&mut self) {
        let generation = self.supervisor.generation();
        let mut at = 0;
        while let Some((known, _)) = self.waiting.get(at) {
            if *known == generation {
                at += 1;
                continue;
            }
            let (_, reply) = self.waiting.swap_remove(at);
            let _ = reply.ok(self.info());
        }
    }

    fn serve_control(&mut self) {
        while let Some(order) = self.control.try_next() {
            match order {
                Order::Ping(beat) => self.supervisor.beat(beat),
                Order::Stop(why) => {
                    if why == StopReason::Replaced
                        && let Some(state) = self.supervisor.save()
                    {
                        self.host.saved(state);
                    }
                    self.supervisor.stop(why);
                    rt::exit(0);
                }
                Order::Suspend => self
                    .host
                    .suspended(Err(DriverError::Unsupported { what: "suspension" })),
                Order::Resume => self.host.resumed(Ok(())),
            }
        }
    }

    // The endpoint.

    fn serve_endpoint(&mut self) {
        while let Ok(Some(request)) = self.endpoint.try_next() {
            // Who asked may be gone.
            let _ = match request {
                NetEndpointRequest::Info { reply } => reply.ok(self.info()),
                NetEndpointRequest::OpenSession {
                    queue,
                    rx_depth,
                    tx_depth,
                    reply,
                } => {
                    self.openings.push(Opening {
                        queue,
                        depths: (rx_depth, tx_depth),
                        reply,
                    });
                    self.open_waiting();
                    Ok(())
                }
                NetEndpointRequest::SetReceiveMode {
                    mode,
                    multicast,
                    reply,
                } => {
                    let groups = multicast.iter().all(|mac| mac.is_multicast());
                    let done = if groups && multicast.len() <= MULTICAST_MAX {
                        let set = self.supervisor.set_receive_mode(mode, &multicast);
                        set.map_err(|error| refusal(&error))
                    } else {
                        Err(NetError::Invalid)
                    };
                    reply.send(done)
                }
                NetEndpointRequest::SetMac { mac, reply } => {
                    let done = if mac.is_unicast() {
                        let set = self.supervisor.set_mac(mac);
                        set.map_err(|error| refusal(&error))
                    } else {
                        Err(NetError::Invalid)
                    };
                    reply.send(done)
                }
                NetEndpointRequest::SetReceiveOffloads { offloads, reply } => {
                    let set = self.supervisor.set_receive_offloads(offloads);
                    let set = set.map(|()| self.supervisor.info().receive_offloads);
                    reply.send(set.map_err(|error| refusal(&error)))
                }
                NetEndpointRequest::Counters { reply } => reply.ok(self.supervisor.counters()),
                NetEndpointRequest::Changed { known, reply } => {
                    if self.waiting.len() < WAITING_MAX {
                        self.waiting.push((known, reply));
                        Ok(())
                    } else {
                        reply.error(NetError::LimitReached)
                    }
                }
            };
        }
    }

    fn info(&self) -> NetInfo {
        self.supervisor.net_info(self.driver)
    }

    // Sessions.

    /// Opens what can be opened now. A queue whose session is ending is waited for: that takes a reset of the device.
    fn open_waiting(&mut self) {
        let mut at = 0;
        while let Some(opening) = self.openings.get(at) {
            let queue = usize::from(opening.queue);
            let served = self.supervisor.session_of(queue);
            let ending = served.is_some_and(|id| !self.sessions.contains_key(&id));
            if ending && self.openings.len() <= WAITING_MAX {
                at += 1;
                continue;
            }
            let opening = self.openings.swap_remove(at);
            let opened = match served {
                Some(_) => Err(NetError::Busy),
                None => self.open_session(queue, opening.depths),
            };
            let _ = opening.reply.send(opened);
        }
    }

    fn open_session(
        &mut self,
        queue: usize,
        (rx_depth, tx_depth): (u16, u16),
    ) -> Result<(SessionInfo, Channel, Vmo, rt::Event, rt::Event), NetError> {
        if queue >= self.supervisor.queues() {
            return Err(NetError::Invalid);
        }
        let entries = |depth: u16| depth.clamp(1, DEPTH_MAX).next_power_of_two();
        let (rx_depth, tx_depth) = (entries(rx_depth), entries(tx_depth));
        let at = RingOffsets::of(rx_depth, tx_depth).map_err(|_| NetError::Invalid)?;
        let refused = |_: Error| NetError::LimitReached;
        let (memory, client_rings) = rings(at.len).map_err(refused)?;
        let (to_driver, client_to_driver) = doorbell_of_client().map_err(refused)?;
        let (to_client, client_to_client) = doorbell_of_driver().map_err(refused)?;
        let id = self.next_session;
        self.next_session = id.wrapping_add(1);
        let session = Session::new(
            id,
            (rx_depth, tx_depth),
            memory,
            Box::new(to_driver),
            Box::new(to_client),
        );
        let session = session.map_err(|_| NetError::Invalid)?;
        let (client, server) = NetSessionServer::pair().map_err(refused)?;
        let key = KEY_SESSION | u64::from(id);
        watch(&self.events, server.channel(), key).map_err(refused)?;
        let opened = self.supervisor.open(queue, Box::new(session));
        opened.map_err(|error| refusal(&error))?;
        let slots = Arc::new(Slots::new());
        self.sessions.insert(
            id,
            OpenSession {
                server,
                queue,
                slots,
            },
        );
        let info = SessionInfo {
            rx_depth,
            tx_depth,
            received_offset: at.received as u32,
            transmit_offset: at.transmit as u32,
            sent_offset: at.sent as u32,
            queue: queue as u16,
            session: id,
            epoch: self.cx.epoch(),
        };
        Ok((
            info,
            client.into_channel(),
            client_rings,
            client_to_driver,
            client_to_client,
        ))
    }

    fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            let _ = self.supervisor.send(session.queue, Command::Close(id));
        }
    }

    fn serve_session(&mut self, id: SessionId) {
        loop {
            let Some(session) = self.sessions.get(&id) else {
                return;
            };
            match session.server.try_next() {
                Ok(Some(NetSessionRequest::RegisterBuffer {
                    slot,
                    access,
                    offset,
                    length,
                    vmo,
                    reply,
                })) => {
                    let done = self.register(id, session, slot, access, (offset, length), &vmo);
                    let _ = reply.send(done);
                }
                Ok(Some(NetSessionRequest::UnregisterBuffer { slot, reply })) => {
                    let slots = session.slots.clone();
                    let done = move |removed| {
                        // Free before the client hears of it.
                        if removed {
                            slots.free(slot);
                        }
                        let result = if removed {
                            Ok(())
                        } else {
                            Err(NetError::BadSlot)
                        };
                        let _ = reply.send(result);
                    };
                    let command = Command::RemoveBuffer(id, slot, Box::new(done));
                    let _ = self.supervisor.send(session.queue, command);
                }
                Ok(None) => return,
                Err(_) => {
                    self.close(id);
                    return;
                }
            }
        }
    }

    fn register(
        &self,
        id: SessionId,
        session: &OpenSession,
        slot: u16,
        access: BufferAccess,
        range: (u64, u64),
        vmo: &Vmo,
    ) -> Result<(), NetError> {
        let buffer = session
            .slots
            .register(&self.platform, slot, access, range, vmo);
        let buffer = buffer.map(|buffer| match &self.wire {
            Some(wire) => wire.buffers.add(buffer, vmo, range.0),
            None => buffer,
        });
        let buffer = buffer.map_err(|error| match error {
            RegisterError::Invalid => NetError::Invalid,
            RegisterError::BadSlot => NetError::BadSlot,
            RegisterError::BadBuffer => NetError::BadBuffer,
            RegisterError::LimitReached => NetError::LimitReached,
            RegisterError::Gone => NetError::Gone,
        })?;
        let sent = self
            .supervisor
            .send(session.queue, Command::AddBuffer(id, slot, buffer));
        sent.map_err(|_| NetError::Gone)
    }
}
