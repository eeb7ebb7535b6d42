//! The bus to devmgr, and a device channel to each attached driver.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pci_bus::config::{ConfigSpace, command, register};
use pci_bus::enumerate::{Function, Topology};
use pci_bus::{fence, filter, message};
use proto::bus::{
    Aperture, BusError, FenceStep, Message, PciAddress, PciBusEventsClient, PciBusRequest,
    PciBusServer, PciDeviceRequest, PciDeviceServer, PciFunctionInfo, VectorState,
};
use rt::ipc::{CallError, Server};
use rt::{AsHandle, Channel, Error, Packet, Port, Signals, Watch};

use crate::access::Access;
use crate::slots::{Slots, Start};

const KEY_BUS: u64 = 1;
pub(crate) const KEY_SLOTS: u64 = 2;
const KEY_DEVICES: u64 = 0x100;
/// Requests served before the port is asked again.
const BATCH: usize = 32;
/// Functions in one answer: they must fit into a message.
const PAGE: usize = 24;

#[derive(Clone)]
struct Attached {
    address: PciAddress,
    server: PciDeviceServer,
    /// Its programmed vectors.
    vectors: Vec<Message>,
}

/// The server's state.
pub struct Bus {
    pub(crate) access: Access,
    pub(crate) topology: Topology,
    pub(crate) apertures: Vec<Aperture>,
    pub(crate) slots: Slots,
    server: PciBusServer,
    port: Port,
    events: Option<PciBusEventsClient>,
    attached: BTreeMap<u64, Attached>,
    next_key: u64,
}

impl Bus {
    /// Serves this bus on `channel`.
    ///
    /// # Errors
    /// A text with what failed.
    pub fn new(
        access: Access,
        topology: Topology,
        apertures: Vec<Aperture>,
        channel: Channel,
        events: Option<Channel>,
        start: Start,
    ) -> Result<Bus, String> {
        let text = |e: Error| format!("port: {e}");
        let port = Port::create().map_err(text)?;
        let signals = Signals::READABLE | Signals::PEER_CLOSED;
        channel
            .wait_async(&port, KEY_BUS, signals, Watch::Persistent)
            .map_err(text)?;
        let slots = Slots::new(&access, &topology, &port, start);
        Ok(Bus {
            access,
            topology,
            apertures,
            slots,
            server: PciBusServer::new(channel),
            port,
            events: events.map(PciBusEventsClient::new),
            attached: BTreeMap::new(),
            next_key: KEY_DEVICES,
        })
    }

    /// For the successor of one that died: tells of functions that went meanwhile, and of what slots have to tell.
    pub fn catch_up(&mut self, gone: &[PciAddress]) {
        for address in gone {
            self.tell(|events| events.removed(*address));
        }
        self.look_at_slots();
    }

    /// Serves until devmgr is gone.
    ///
    /// # Errors
    /// A text with what failed.
    pub fn run(mut self) -> Result<(), String> {
        let mut packets = [Packet::default(); 8];
        loop {
            let count = match self.port.wait(&mut packets, self.slots.next_look()) {
                Ok(count) => count,
                Err(Error::TimedOut) => 0,
                Err(error) => return Err(format!("port: {error}")),
            };
            if count == 0 {
                self.look_at_slots();
            }
            for packet in packets.iter().take(count) {
                let key = packet.key;
                let more = if key == KEY_SLOTS {
                    self.look_at_slots();
                    false
                } else if key == KEY_BUS {
                    match self.serve_bus() {
                        Ok(more) => more,
                        Err(Error::PeerClosed) => return Ok(()),
                        Err(error) => return Err(format!("bus channel: {error}")),
                    }
                } else {
                    self.serve_device(key)
                };
                if more {
                    self.port.queue(key, 0).map_err(|e| format!("port: {e}"))?;
                }
            }
        }
    }

    /// Serves a batch; tells whether there may be more.
    fn serve_bus(&mut self) -> Result<bool, Error> {
        let server = self.server.clone();
        for _ in 0..BATCH {
            let Some(request) = server.try_next()? else {
                return Ok(false);
            };
            // An answer that cannot be sent is devmgr's end, which the next read tells.
            let _ = match request {
                PciBusRequest::Functions { from, reply } => {
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    let all = self.topology.functions.iter().skip(from).take(PAGE);
                    let page: Vec<PciFunctionInfo> = all.map(|f| f.info.clone()).collect();
                    reply.ok(&page)
                }
                PciBusRequest::Attach {
                    ticket,
                    address,
                    vectors,
                    device,
                } => {
                    let problem = self.attach(address, &vectors, device).err();
                    self.tell(|events| events.attached(ticket, problem));
                    Ok(())
                }
                PciBusRequest::Fence {
                    ticket,
                    address,
                    step,
                } => {
                    let problem = self.fence(address, step).err();
                    self.tell(|events| events.fenced(ticket, problem));
                    Ok(())
                }
                PciBusRequest::Config { ticket, address } => {
                    let bytes = self.config(address).unwrap_or_default();
                    self.tell(|events| events.config(ticket, &bytes));
                    Ok(())
                }
                PciBusRequest::Release { address } => {
                    self.released(address);
                    Ok(())
                }
            };
        }
        Ok(true)
    }

    /// Tells devmgr, if it listens; one that is gone is told of by its other channel.
    pub(crate) fn tell(
        &self,
        what: impl FnOnce(&PciBusEventsClient) -> Result<(), CallError<BusError>>,
    ) {
        if let Some(events) = &self.events
            && let Err(error) = what(events)
        {
            rt::warn!("devmgr does not hear: {error}");
        }
    }

    fn function(&self, address: PciAddress) -> Result<&Function, BusError> {
        self.topology.find(address).ok_or(BusError::NotFound)
    }

    fn attach(
        &mut self,
        address: PciAddress,
        vectors: &[Message],
        device: Channel,
    ) -> Result<(), BusError> {
        let function = self.function(address)?;
        if function.info.header != 0 || self.attached.values().any(|a| a.address == address) {
            return Err(BusError::BadState);
        }
        if !vectors.is_empty() {
            message::program(&self.access, &self.access, &function.info, vectors)?;
        }
        let key = self.next_key;
        self.next_key = key.saturating_add(1);
        let signals = Signals::READABLE | Signals::PEER_CLOSED;
        device
            .wait_async(&self.port, key, signals, Watch::Persistent)
            .map_err(|e| BusError::Kernel(e as i32))?;
        let server = PciDeviceServer::new(device);
        let attached = Attached {
            address,
            server,
            vectors: vectors.to_vec(),
        };
        self.attached.insert(key, attached);
        Ok(())
    }

    fn fence(&mut self, address: PciAddress, step: FenceStep) -> Result<(), BusError> {
        if step == FenceStep::MaskInterrupts {
            // Closing the channel comes first: its driver has no further say.
            self.attached.retain(|_, a| a.address != address);
        }
        let Some(function) = self.topology.find(address) else {
            // One that was taken out can do nothing any more.
            return match self.access.read16(address, register::VENDOR) {
                0xffff => Ok(()),
                _ => Err(BusError::NotFound),
            };
        };
        let (info, bridge) = (&function.info, function.bridge);
        fence::step(&self.access, &self.access, &self.access, info, bridge, step)
    }

    fn config(&self, address: PciAddress) -> Result<Vec<u8>, BusError> {
        self.function(address)?;
        let mut bytes = Vec::with_capacity(usize::from(self.access.size()));
        for offset in (0..self.access.size()).step_by(4) {
            bytes.extend(self.access.read32(address, offset).to_le_bytes());
        }
        Ok(bytes)
    }

    /// Serves a batch of a driver's requests; tells whether there may be more.
    fn serve_device(&mut self, key: u64) -> bool {
        let Some(attached) = self.attached.get(&key).cloned() else {
            return false;
        };
        let server = attached.server.clone();
        for _ in 0..BATCH {
            match server.try_next() {
                Ok(Some(request)) => {
                    // A driver that is gone does not wait for its answer.
                    let _ = self.serve_request(&attached, request);
                }
                Ok(None) => return false,
                // The driver is gone; devmgr fences its device.
                Err(_) => {
                    self.attached.remove(&key);
                    return false;
                }
            }
        }
        true
    }

    fn serve_request(&self, attached: &Attached, request: PciDeviceRequest) -> Result<(), Error> {
        let address = attached.address;
        match request {
            PciDeviceRequest::Info { reply } => match self.function(address) {
                Ok(function) => reply.ok(&function.info),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::ConfigRead {
                offset,
                width,
                reply,
            } => match filter::check_access(offset, width, self.access.size()) {
                Ok(width) => reply.ok(self.access.read(address, offset, width)),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::ConfigWrite {
                offset,
                width,
                value,
                reply,
            } => match self.config_write(address, offset, width, value) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::Enable { reply } => match self.enable(attached) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::Disable { reply } => match self.disable(attached) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::SetVector {
                vector,
                state,
                reply,
            } => match self.set_vector(attached, vector, state) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(&error),
            },
            PciDeviceRequest::Reset { reply } => match self.reset(attached) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(&error),
            },
        }
    }

    fn config_write(
        &self,
        address: PciAddress,
        offset: u16,
        width: u8,
        value: u32,
    ) -> Result<(), BusError> {
        let info = &self.function(address)?.info;
        let vendor_length = |at: u16| u16::from(self.access.read8(address, at.saturating_add(2)));
        let size = self.access.size();
        let width = filter::check_write(info, offset, width, size, vendor_length)?;
        self.access.write(address, offset, width, value);
        Ok(())
    }

    /// Decoding and bus mastering on, also in the bridges above, then vectors.
    fn enable(&self, attached: &Attached) -> Result<(), BusError> {
        let function = self.function(attached.address)?;
        let on = command::IO | command::MEMORY | command::BUS_MASTER;
        for bridge in self.topology.bridges_above(attached.address) {
            let held = self.access.read16(bridge, register::COMMAND);
            self.access.write16(bridge, register::COMMAND, held | on);
        }
        let address = attached.address;
        let held = self.access.read16(address, register::COMMAND);
        // Interrupts come as messages or not at all: lines are shared and nobody here serves them.
        let value = held | on | command::INTX_DISABLE;
        self.access.write16(address, register::COMMAND, value);
        if attached.vectors.is_empty() {
            return Ok(());
        }
        message::set_function(&self.access, &function.info, VectorState::Unmasked)
    }

    fn disable(&self, attached: &Attached) -> Result<(), BusError> {
        let function = self.function(attached.address)?;
        if !attached.vectors.is_empty() {
            message::set_function(&self.access, &function.info, VectorState::Masked)?;
        }
        fence::bus_master_off(&self.access, attached.address)
    }

    fn set_vector(
        &self,
        attached: &Attached,
        vector: u16,
        state: VectorState,
    ) -> Result<(), BusError> {
        // An entry that was not programmed has no address of ours: it must stay masked.
        if usize::from(vector) >= attached.vectors.len() {
            return Err(BusError::BadAccess);
        }
        let info = &self.function(attached.address)?.info;
        message::set_vector(&self.access, &self.access, info, vector, state)
    }

    fn reset(&self, attached: &Attached) -> Result<(), BusError> {
        let function = self.function(attached.address)?;
        let (info, bridge) = (&function.info, function.bridge);
        fence::reset(&self.access, &self.access, &self.access, info, bridge)?;
        if attached.vectors.is_empty() {
            return Ok(());
        }
        message::program(&self.access, &self.access, info, &attached.vectors)
    }
}
