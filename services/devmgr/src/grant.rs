//! Starting a driver: everything that its manifest asks for is created, named and handed over.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::grants::{self, Grants};
use devmgr::life::{Event, Program};
use devmgr::node::Device;
use proto::bus::Message;
use proto::crash_report::{EndReason, trace};
use proto::devmgr::{DriverControlClient, DriverHostServer};
use rt::abi::{PRIORITY_DRIVER, Quota, ResourceKind};
use rt::process::{Child, Command, SpawnError, Stdio};
use rt::{
    AsHandle, CacheMode, Channel, DmaDomain, Error, Interrupt, Resource, Rights, Signals, Trigger,
    Vmo, Watch, startup,
};

use crate::manager::{Held, Manager, NodeKey};
use crate::watch::{Heartbeat, watch_domain, watch_interrupts};

/// Limits of a driver. Payload is its clients'; its own are control structures and sessions.
const DRIVER_QUOTA: Quota = Quota {
    pages: 16_384,
    handles: 16_384,
    threads: 64,
    processes: 0,
    max_priority: PRIORITY_DRIVER as u32,
};

fn text(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

impl Manager {
    /// Starts a program for a node. What fails on the way is undone by the ordinary teardown.
    pub fn launch(&mut self, index: usize, program: Program) -> Event {
        if let Some(node) = self.nodes.get_mut(index) {
            node.epoch = node.epoch.saturating_add(1);
            node.ending = None;
            node.pause_problem = None;
            node.given_up = None;
            node.teardown.clear();
        }
        match self.try_launch(index, program) {
            Ok(()) => Event::Launched,
            Err(why) => {
                if let Some(node) = self.nodes.get_mut(index) {
                    rt::error!("{}: cannot start its driver: {why}", node.path);
                    node.ending = Some((EndReason::CannotStart, why));
                }
                Event::LaunchFailed
            }
        }
    }

    fn try_launch(&mut self, index: usize, program: Program) -> Result<(), String> {
        let driver = self.driver(program).ok_or("no such driver")?;
        let (name, place) = (driver.manifest.name().to_string(), driver.program.clone());
        let node = self.nodes.get(index).ok_or("no such node")?;
        let grants = grants::plan(&driver.manifest, &node.device)?;
        let image = self.image(program)?;
        let node = self.nodes.get_mut(index).ok_or("no such node")?;
        let (host_client, host) = DriverHostServer::pair().map_err(text("channel"))?;
        let (control, control_server) = Channel::create().map_err(text("channel"))?;
        let (path, epoch, bus) = (node.path.clone(), node.epoch, node.bus);
        let address = match &node.device {
            Device::Pci(info) => Some(info.address),
            _ => None,
        };
        let policy = node.policy(&self.drivers);
        let wants_trace = policy.trace;
        // Held from here on, so that a failure below finds what is to be taken back.
        let held = node.held.insert(Held {
            child: None,
            host,
            control: DriverControlClient::new(control),
            heartbeat: Heartbeat::default(),
            interrupts: Vec::new(),
            resources: Vec::new(),
            domain: None,
            trace: None,
        });
        let mut environment = alloc::vec![
            ("BULKHEAD_NODE".to_string(), path),
            ("BULKHEAD_EPOCH".to_string(), epoch.to_string()),
        ];
        if let Some(wire) = policy.wire {
            environment.push(("BULKHEAD_WIRE".to_string(), wire.to_string()));
        }
        let mut command = Command::new(&image, &name)
            .env(environment)
            .cwd("/")
            .priority(PRIORITY_DRIVER)
            .quota(DRIVER_QUOTA)
            .stdin(Stdio::Null)
            .stdout(Stdio::Log)
            .stderr(Stdio::Log)
            .handle("devmgr", host_client.into_channel())
            .handle("control", control_server);
        if let Some(log) = startup::handle::<Resource>("log") {
            command = command.handle("log", log.duplicate().map_err(text("log"))?);
        }
        if wants_trace {
            let area = Vmo::create(trace::AREA_BYTES).map_err(text("trace"))?;
            // No right to hand it on: nobody writes it after the driver's end.
            let granted = area.duplicate_with(Rights::WRITE | Rights::TRANSFER);
            command = command.handle("trace", granted.map_err(text("trace"))?);
            held.trace = Some(area);
        }
        let device_id = address.map(|a| a.device_id());
        let (mut command, messages) = grant(command, &grants, held, &self.authority, device_id)?;
        if let (Some(address), Some(bus)) = (address, bus.and_then(|b| self.buses.get(b))) {
            let (client, server) = Channel::create().map_err(text("channel"))?;
            // Answered later; a driver whose channel the bus driver closes fails on its own.
            bus.client
                .attach(u64::from(epoch), address, &messages, server)
                .map_err(|e| format!("attach: {e}"))?;
            command = command.handle("device", client);
        }
        // Requests may come before the start returns: watched first.
        let key = Self::node_key(index, epoch, NodeKey::Request);
        held.host
            .channel()
            .wait_async(&self.port, key, Signals::READABLE, Watch::Persistent)
            .map_err(text("port"))?;
        let key = Self::node_key(index, epoch, NodeKey::Storm);
        watch_interrupts(&held.interrupts, &self.port, key).map_err(text("port"))?;
        let key = Self::node_key(index, epoch, NodeKey::Refused);
        watch_domain(held.domain.as_ref(), &self.port, key).map_err(text("port"))?;
        let failed = |e: SpawnError| format!("{place}: {e}");
        let prepared = command.prepare().map_err(failed)?;
        let process = prepared.process().duplicate().map_err(text("process"))?;
        let key = Self::node_key(index, epoch, NodeKey::Ended);
        let watched = process.wait_async(&self.port, key, Signals::TERMINATED, Watch::Once);
        held.child = Some(Child::from_process(process));
        watched.map_err(text("port"))?;
        // Before it runs: should this process die now, its successor knows of the driver.
        self.keep_node(index);
        prepared.start().map(drop).map_err(failed)
    }
}

/// Creates what was planned. devmgr keeps a handle of each interrupt and of the domain: a driver that dies
/// must not free a vector or a page that its device still uses.
fn grant<'a>(
    mut command: Command<'a>,
    grants: &Grants,
    held: &mut Held,
    authority: &crate::manager::Authority,
    device_id: Option<u64>,
) -> Result<(Command<'a>, Vec<Message>), String> {
    for window in &grants.windows {
        let what = format!("BAR {} at {:#x}", window.bar, window.physical);
        let resource = authority
            .mmio
            .derive(ResourceKind::Mmio, window.physical, window.len)
            .map_err(text(&what))?;
        let len = usize::try_from(window.len).map_err(|e| e.to_string())?;
        let vmo = Vmo::physical(&resource, window.physical, len, CacheMode::Uncached)
            .map_err(text(&what))?;
        held.resources.push(resource);
        command = command.handle(&window.handle_name(), vmo);
    }
    for (number, first, count) in &grants.ports {
        let resource = authority
            .ports
            .derive(ResourceKind::IoPort, u64::from(*first), u64::from(*count))
            .map_err(text("I/O ports"))?;
        // Without the rights to revoke or to see what else there is.
        let rights = Rights::DUPLICATE | Rights::INSPECT | Rights::TRANSFER;
        let granted = resource.duplicate_with(rights).map_err(text("I/O ports"))?;
        command = command.handle(&format!("ioport{number}"), granted);
        held.resources.push(resource);
    }
    let mut messages = Vec::new();
    for _ in 0..grants.vectors {
        let interrupt = Interrupt::message(&authority.msi, 0).map_err(text("MSI-X vector"))?;
        let info = interrupt.interrupt_info().map_err(text("MSI-X vector"))?;
        messages.push(Message {
            address: info.address,
            data: info.data,
        });
        held.interrupts.push(interrupt);
    }
    for line in &grants.lines {
        let interrupt = Interrupt::line(&authority.irq, u32::from(*line), Trigger::Isa)
            .map_err(text("interrupt line"))?;
        held.interrupts.push(interrupt);
    }
    for (number, interrupt) in held.interrupts.iter().enumerate() {
        let granted = interrupt.duplicate().map_err(text("interrupt"))?;
        command = command.handle(&format!("irq{number}"), granted);
    }
    if let (true, Some(device_id)) = (grants.dma, device_id) {
        let domain = DmaDomain::create(&authority.dma, device_id).map_err(text("DMA domain"))?;
        // Releasing the quarantine is devmgr's: only it knows that the device is fenced.
        let rights = Rights::ALL.without(Rights::DESTROY);
        let granted = domain.duplicate_with(rights).map_err(text("DMA domain"))?;
        command = command.handle("dma", granted);
        held.domain = Some(domain);
    }
    Ok((command, messages))
}
