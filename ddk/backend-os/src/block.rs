//! Block drivers: endpoints and sessions over channels. The data path is the class layer's.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{Deadline, DeviceContext, Event, EventQueue, StopReason};
use ddk_class_block::{
    BlockDevice, Command, DiskInfo, Extent, Session, SessionId, Supervisor, Verdict,
};
use ipc::Server;
use proto::block::{
    Access, BlockEndpointClient, BlockEndpointRequest, BlockEndpointServer, BlockError, BlockInfo,
    BlockSessionRequest, BlockSessionServer, BufferAccess, Completion, DEPTH_MAX, SessionInfo,
    Submission,
};
use proto::devmgr::Class;
use ring::Layout;
use rt::{AsHandle, Channel, Error, SharedMapping, Signals, Vmo, Watch};

use crate::control::{Control, Order};
use crate::entry::{Host, start};
use crate::platform::OsPlatform;
use crate::queue::OsQueue;
use crate::session::{RegisterError, Slots, doorbell_of_client, doorbell_of_driver, rings};

const KEY_NOTICE: u64 = 1;
const KEY_CHANGES: u64 = 2;
const KEY_CONTROL: u64 = 3;
const KEY_ENDPOINT: u64 = 1 << 32;
const KEY_SESSION: u64 = 2 << 32;

/// Most sessions of a driver.
const SESSIONS_MAX: usize = 128;
/// Most endpoints: the disk and its partitions.
const ENDPOINTS_MAX: usize = 512;
struct OpenSession {
    server: BlockSessionServer,
    queue: usize,
    slots: Arc<Slots>,
}

struct Endpoint {
    server: BlockEndpointServer,
    extent: Extent,
    /// Follows the disk's size: the endpoint of the whole disk.
    whole: bool,
}

struct Service<D: BlockDevice> {
    cx: DeviceContext,
    platform: Arc<OsPlatform>,
    host: Host,
    driver: &'static str,
    events: OsQueue,
    supervisor: Supervisor<D, SharedMapping>,
    control: Control,
    endpoints: BTreeMap<u64, Endpoint>,
    /// Generation of the disks that are published.
    followed: Option<u32>,
    sessions: BTreeMap<SessionId, OpenSession>,
    next_endpoint: u64,
    next_session: SessionId,
}

/// The life of a block driver's process.
pub fn run_block<D: BlockDevice + 'static>(manifest: &'static Manifest) -> i32 {
    let host = Host::from_startup();
    #[cfg(feature = "trace")]
    if let Some(trace) = crate::trace::wanted() {
        use ddk_trace_block::Traced;
        let wrap = |platform| ddk_instrument::instrument(platform, trace.clone());
        let start = |cx| Traced::<D>::start_with(trace.clone(), cx);
        let started = crate::entry::start_with(&host, manifest, wrap, start);
        return serve(started, host, manifest);
    }
    serve(start::<D>(&host, manifest), host, manifest)
}

fn serve<D: BlockDevice + 'static>(
    (platform, cx, driver): (Arc<OsPlatform>, DeviceContext, D),
    host: Host,
    manifest: &'static Manifest,
) -> i32 {
    match Service::new(platform, cx, host, driver, manifest.name()) {
        Ok(mut service) => service.run(),
        Err((host, error)) => host.give_up(&error),
    }
}

impl<D: BlockDevice + 'static> Service<D> {
    fn new(
        platform: Arc<OsPlatform>,
        cx: DeviceContext,
        host: Host,
        device: D,
        driver: &'static str,
    ) -> Result<Self, (Host, ddk::DriverError)> {
        let parts = (|| {
            let what = |e| ddk::DriverError::platform("service of the disk", e);
            let events = OsQueue::new().map_err(what)?;
            let poster = events.clone();
            let post = move || {
                let _ = poster.post(KEY_NOTICE);
            };
            let (mut supervisor, workers) = Supervisor::new(cx.clone(), device, Box::new(post))?;
            supervisor
                .bind_changes(&events, KEY_CHANGES)
                .map_err(what)?;
            crate::session::spawn_workers(&cx, workers, |worker| worker.run())?;
            Ok((events, supervisor))
        })();
        let (events, supervisor) = match parts {
            Ok(parts) => parts,
            Err(error) => return Err((host, error)),
        };
        Ok(Service {
            cx,
            platform,
            host,
            driver,
            events,
            supervisor,
            control: Control::from_startup(),
            endpoints: BTreeMap::new(),
            followed: None,
            sessions: BTreeMap::new(),
            next_endpoint: 0,
            next_session: 0,
        })
    }

    fn run(&mut self) -> i32 {
        if let Some(channel) = self.control.channel() {
            let watched = self.watch(channel, KEY_CONTROL);
            if let Err(error) = watched {
                rt::warn!("control channel: {error}");
            }
        }
        self.follow_disks();
        self.host.running();
        loop {
            let mut events = [Event::default(); 8];
            let deadline: Deadline = self.supervisor.next_tick();
            let taken = match self.events.wait(&mut events, deadline) {
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
                        Verdict::GiveUp(error) => self.host.give_up(&error),
                        Verdict::Alive(beat) => self.host.alive(beat),
                        Verdict::Suspended(result) => self.host.suspended(result),
                    }
                }
                // A reset may have changed them.
                self.follow_disks();
            }
            KEY_CHANGES => {
                if let Err(error) = self.supervisor.changed() {
                    self.host.give_up(&error);
                }
                self.follow_disks();
            }
            KEY_CONTROL => self.serve_control(),
            key if key & KEY_SESSION != 0 => self.serve_session(key as SessionId),
            key if key & KEY_ENDPOINT != 0 => self.serve_endpoint(key & (KEY_ENDPOINT - 1)),
            _ => {}
        }
    }

    fn watch(&self, channel: &Channel, key: u64) -> Result<(), Error> {
        let signals = Signals::READABLE | Signals::PEER_CLOSED;
        channel.wait_async(self.events.port(), key, signals, Watch::Persistent)
    }

    /// Publishes the disks that are new. The endpoint of a whole disk has the disk's size, also after it
    /// changed; that of a disk that is gone has nothing any more.
    fn follow_disks(&mut self) {
        if self.followed == Some(self.supervisor.generation()) {
            return;
        }
        self.followed = Some(self.supervisor.generation());
        for endpoint in self.endpoints.values_mut().filter(|e| e.whole) {
            let disk = self.supervisor.disk(endpoint.extent.unit);
            endpoint.extent.count = disk.map_or(0, |disk| disk.block_count);
        }
        let known = |disk: &DiskInfo| {
            self.endpoints
                .values()
                .any(|e| e.whole && e.extent.unit == disk.unit)
        };
        let disks = self.supervisor.disks().iter().filter(|d| !known(d));
        for disk in disks.cloned().collect::<Vec<_>>() {
            self.publish(&disk);
        }
    }

    fn publish(&mut self, disk: &DiskInfo) {
        let endpoint = match self.add_endpoint(Extent::whole(disk), true) {
            Ok(client) => client,
            Err(error) => {
                rt::error!("endpoint of disk {}: {error:?}", disk.unit);
                return;
            }
        };
        let properties = vec![
            ("serial".to_string(), disk.serial.clone()),
            (
                "block-size".to_string(),
                format!("{}", 1u32 << disk.block_shift),
            ),
            ("blocks".to_string(), format!("{}", disk.block_count)),
        ];
        let endpoint = endpoint.into_channel();
        self.host
            .publish(Class::Block, &disk.suffix, properties, endpoint);
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
                    // The clients' ledgers know what was in flight.
                    self.supervisor.stop(why);
                    rt::exit(0);
                }
                Order::Suspend => self.supervisor.suspend(),
                Order::Resume => {
                    let resumed = self.supervisor.resume();
                    self.host.resumed(resumed);
                    self.follow_disks();
                }
            }
        }
    }

    // Endpoints.

    fn add_endpoint(
        &mut self,
        extent: Extent,
        whole: bool,
    ) -> Result<BlockEndpointClient, BlockError> {
        if self.endpoints.len() >= ENDPOINTS_MAX {
            return Err(BlockError::LimitReached);
        }
        let number = self.next_endpoint;
        self.next_endpoint = (number + 1) & (KEY_ENDPOINT - 1);
        let (client, server) = BlockEndpointServer::pair().map_err(|_| BlockError::LimitReached)?;
        let watched = self.watch(server.channel(), KEY_ENDPOINT | number);
        watched.map_err(|_| BlockError::LimitReached)?;
        self.endpoints.insert(
            number,
            Endpoint {
                server,
                extent,
                whole,
            },
        );
        Ok(client)
    }

    fn serve_endpoint(&mut self, number: u64) {
        loop {
            let Some(endpoint) = self.endpoints.get(&number) else {
                return;
            };
            let extent = endpoint.extent;
            match endpoint.server.try_next() {
                Ok(Some(BlockEndpointRequest::Info { reply })) => {
                    let info = self.info(&extent).ok_or(BlockError::Gone);
                    let _ = reply.send(info);
                }
                Ok(Some(BlockEndpointRequest::OpenSession { depth, cpu, reply })) => {
                    let _ = reply.send(self.open_session(&extent, depth, cpu));
                }
                Ok(Some(BlockEndpointRequest::Derive {
                    first_lba,
                    count,
                    access,
                    reply,
                })) => {
                    let writable = access == Access::ReadWrite;
                    let part = extent.part(first_lba, count, writable);
                    let result = match part {
                        _ if writable && !extent.writable => Err(BlockError::ReadOnly),
                        Some(part) => self.add_endpoint(part, false),
                        None => Err(BlockError::OutOfRange),
                    };
                    let _ = reply.send(result.map(BlockEndpointClient::into_channel));
                }
                Ok(None) => return,
                Err(_) => {
                    self.endpoints.remove(&number);
                    return;
                }
            }
        }
    }

    /// What an endpoint tells of itself; `None` when its disk is gone.
    fn info(&self, extent: &Extent) -> Option<BlockInfo> {
        let disk = self.supervisor.disk(extent.unit)?;
        Some(BlockInfo {
            block_size: 1 << disk.block_shift,
            physical_block_size: disk.physical_block_size,
            block_count: extent.count,
            first_lba: extent.first_lba,
            access: if extent.writable {
                Access::ReadWrite
            } else {
                Access::ReadOnly
            },
            max_transfer: disk.max_transfer,
            max_discard: disk.max_discard,
            max_write_zeroes: disk.max_write_zeroes,
            volatile_cache: disk.volatile_cache,
            queues: self.supervisor.queues() as u16,
            max_depth: DEPTH_MAX,
            serial: disk.serial.clone(),
            driver: self.driver.to_string(),
            generation: self.supervisor.generation(),
        })
    }

    // Sessions.

    fn open_session(
        &mut self,
        extent: &Extent,
        depth: u16,
        cpu: u32,
    ) -> Result<(SessionInfo, Channel, Vmo, rt::Event, rt::Event), BlockError> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(BlockError::LimitReached);
        }
        let depth = depth.clamp(1, DEPTH_MAX).next_power_of_two();
        let entries = u32::from(depth);
        let size = |layout: Result<Layout, _>| layout.map(|l| l.size_bytes());
        let submissions = size(Layout::of::<Submission>(entries));
        let completions = size(Layout::of::<Completion>(entries));
        let (Ok(submissions), Ok(completions)) = (submissions, completions) else {
            return Err(BlockError::Invalid);
        };
        let refused = |_: Error| BlockError::LimitReached;
        let (memory, client_rings) = rings(submissions + completions).map_err(refused)?;
        let (submitted, client_submitted) = doorbell_of_client().map_err(refused)?;
        let (completed, client_completed) = doorbell_of_driver().map_err(refused)?;
        let id = self.next_session;
        self.next_session = id.wrapping_add(1);
        let session = Session::new(
            id,
            *extent,
            depth,
            memory,
            submissions,
            Box::new(submitted),
            Box::new(completed),
        );
        let session = session.map_err(|_| BlockError::Invalid)?;
        let (client, server) = BlockSessionServer::pair().map_err(refused)?;
        self.watch(server.channel(), KEY_SESSION | u64::from(id))
            .map_err(refused)?;
        let cpu = (cpu != u32::MAX).then_some(cpu as usize);
        let queue = self.supervisor.choose_queue(cpu);
        let sent = self
            .supervisor
            .send(queue, Command::Open(Box::new(session)));
        sent.map_err(|_| BlockError::Gone)?;
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
            depth,
            completion_offset: submissions as u32,
            queue: queue as u16,
            session: id,
            epoch: self.cx.epoch(),
        };
        Ok((
            info,
            client.into_channel(),
            client_rings,
            client_submitted,
            client_completed,
        ))
    }

    fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.supervisor.leave_queue(session.queue);
            let _ = self.supervisor.send(session.queue, Command::Close(id));
        }
    }

    fn serve_session(&mut self, id: SessionId) {
        loop {
            let Some(session) = self.sessions.get(&id) else {
                return;
            };
            match session.server.try_next() {
                Ok(Some(BlockSessionRequest::RegisterBuffer {
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
                Ok(Some(BlockSessionRequest::UnregisterBuffer { slot, reply })) => {
                    let slots = session.slots.clone();
                    let done = move |removed| {
                        // Free before the client hears of it.
                        if removed {
                            slots.free(slot);
                        }
                        let result = if removed {
                            Ok(())
                        } else {
                            Err(BlockError::BadSlot)
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
    ) -> Result<(), BlockError> {
        let buffer = session
            .slots
            .register(&self.platform, slot, access, range, vmo);
        let buffer = buffer.map_err(|error| match error {
            RegisterError::Invalid => BlockError::Invalid,
            RegisterError::BadSlot => BlockError::BadSlot,
            RegisterError::BadBuffer => BlockError::BadBuffer,
            RegisterError::LimitReached => BlockError::LimitReached,
            RegisterError::Gone => BlockError::Gone,
        })?;
        let sent = self
            .supervisor
            .send(session.queue, Command::AddBuffer(id, slot, buffer));
        sent.map_err(|_| BlockError::Gone)
    }
}
