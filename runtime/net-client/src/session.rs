//! A session: rings, doorbells, buffers, and what is with the driver.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use endpoint_client::{Buffers, Registered};
use ipc::CallError;
use proto::net::{
    BufferAccess, MacAddress, NetEndpointClient, NetInfo, NetSessionClient, Offloads, ReceiveMode,
    Received, RxBuffer, Sent, SessionInfo, Status, Transmit,
};
use ring::{Consumer, Layout, Producer};
use sys::{
    AsHandle, Channel, Deadline, Event, MapAccess, Mapping, Packet, Port, SharedMapping, Signals,
    Vmo, Watch,
};

use crate::frame::{RxFrame, Space, TxDone, TxFrame};
use crate::inflight::InFlight;
use crate::recovery::Recovery;
use crate::{Nic, SessionError};

const KEY_EVENT: u64 = 1;
const KEY_CLOSED: u64 = 2;

/// A registered buffer of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Buffer(u16);

impl Buffer {
    #[cfg(test)]
    pub(crate) const fn of(slot: u16) -> Buffer {
        Buffer(slot)
    }

    /// Number of the buffer in its session.
    pub const fn slot(self) -> u16 {
        self.0
    }
}

/// The session's side of one incarnation of the driver.
pub(crate) struct Connection {
    control: NetSessionClient,
    info: SessionInfo,
    free: Producer<RxBuffer, SharedMapping>,
    received: Consumer<Received, SharedMapping>,
    transmit: Producer<Transmit, SharedMapping>,
    sent: Consumer<Sent, SharedMapping>,
    to_driver: Event,
    to_client: Event,
}

/// A receive buffer that the driver has.
#[derive(Clone, Copy)]
struct Provided {
    space: Space,
    token: u64,
}

/// A frame that the driver has.
#[derive(Clone, Copy)]
struct Sending {
    token: u64,
    fragments: u16,
}

/// One queue of an interface. Not for several threads: each opens its own.
pub struct Session {
    pub(crate) connection: Connection,
    pub(crate) buffers: Buffers,
    providing: InFlight<Provided>,
    sending: InFlight<Sending>,
    /// Fragments that the driver has.
    fragments: usize,
    /// Frames that a driver had which is gone.
    lost: VecDeque<u64>,
    /// The frame that is being put together, with what was provided for it.
    partial: RxFrame,
    partial_spaces: Vec<Provided>,
    /// Made at the first wait: one who uses an executor needs none.
    port: Option<Port>,
    /// The driver of this connection is gone.
    closed: bool,
    pub(crate) recovery: Recovery,
}

impl Connection {
    pub(crate) fn open(
        endpoint: &NetEndpointClient,
        queue: u16,
        rx_depth: u16,
        tx_depth: u16,
    ) -> Result<Connection, SessionError> {
        let (info, session, rings, to_driver, to_client) =
            endpoint.open_session(queue, rx_depth, tx_depth)?;
        let (rx, tx) = (u32::from(info.rx_depth), u32::from(info.tx_depth));
        let ends = [
            (info.received_offset, Layout::of::<Received>(rx)?),
            (info.transmit_offset, Layout::of::<Transmit>(tx)?),
            (info.sent_offset, Layout::of::<Sent>(tx)?),
        ];
        let end = |(at, layout): &(u32, Layout)| (*at as usize).checked_add(layout.size_bytes());
        let len = ends.iter().map(end).max().flatten();
        let len = len.ok_or(SessionError::Corrupt)?;
        let memory = SharedMapping::new(Mapping::map(&rings, 0, len, MapAccess::ReadWrite)?);
        let at = |offset: u32| offset as usize;
        Ok(Connection {
            control: NetSessionClient::new(session),
            free: Producer::new(memory.clone(), 0, rx)?,
            received: Consumer::new(memory.clone(), at(info.received_offset), rx)?,
            transmit: Producer::new(memory.clone(), at(info.transmit_offset), tx)?,
            sent: Consumer::new(memory, at(info.sent_offset), tx)?,
            to_driver,
            to_client,
            info,
        })
    }

    pub(crate) fn info(&self) -> &SessionInfo {
        &self.info
    }

    pub(crate) fn register(&self, buffer: &Registered) -> Result<(), SessionError> {
        let vmo = buffer.handle()?;
        let Registered { slot, access, .. } = *buffer;
        Ok(self
            .control
            .register_buffer(slot, access, buffer.offset, buffer.length, vmo)?)
    }

    fn provide(&mut self, id: u32, space: &Space) -> Result<(), SessionError> {
        let entry = RxBuffer {
            id,
            offset: space.offset,
            length: space.length,
            slot: space.buffer.slot(),
            reserved: 0,
        };
        Ok(self.free.push(&entry)?)
    }
}

impl Session {
    pub(crate) fn open(
        nic: &Nic,
        queue: u16,
        rx_depth: u16,
        tx_depth: u16,
    ) -> Result<Session, SessionError> {
        let connection = Connection::open(nic.endpoint(), queue, rx_depth, tx_depth)?;
        let info = connection.info;
        Ok(Session {
            connection,
            buffers: Buffers::default(),
            providing: InFlight::new(info.rx_depth),
            sending: InFlight::new(info.tx_depth),
            fragments: 0,
            lost: VecDeque::new(),
            partial: RxFrame::default(),
            partial_spaces: Vec::new(),
            port: None,
            closed: false,
            recovery: Recovery::of(nic, queue)?,
        })
    }

    /// What the driver said of the session.
    pub fn info(&self) -> &SessionInfo {
        &self.connection.info
    }

    /// What the interface was like when it was asked last: at the start, and with each recovery.
    pub fn interface(&self) -> &NetInfo {
        self.recovery.interface()
    }

    /// The endpoint of the driver that serves now, for [`NetEndpointClient::changed`] and the like.
    pub fn endpoint(&self) -> &NetEndpointClient {
        self.recovery.endpoint()
    }

    /// Receive buffers that the driver has.
    pub fn provided(&self) -> usize {
        self.providing.len()
    }

    /// Fragments that can be submitted now.
    pub fn room(&self) -> usize {
        let depth = usize::from(self.connection.info.tx_depth);
        depth.saturating_sub(self.fragments)
    }

    /// Registers a part of a VMO (whole pages) as a buffer. The driver gets a handle that can be pinned and
    /// not mapped; `vmo` needs the rights DUPLICATE, TRANSFER, PIN, and READ or WRITE as the device needs.
    ///
    /// # Errors
    /// When all slots are in use, or the driver or the system refuses.
    pub fn register(
        &mut self,
        vmo: &Vmo,
        offset: u64,
        length: u64,
        access: BufferAccess,
    ) -> Result<Buffer, SessionError> {
        let added = self.buffers.add(vmo, offset, length, access)?;
        let buffer = added.ok_or(SessionError::Full)?;
        let slot = buffer.slot;
        if let Err(error) = self.connection.register(buffer) {
            self.buffers.remove(slot);
            return Err(error);
        }
        Ok(Buffer(slot))
    }

    /// Ends the use of a buffer. Answered when the driver has given back what it had of it.
    ///
    /// # Errors
    /// When it is not registered.
    pub fn unregister(&mut self, buffer: Buffer) -> Result<(), SessionError> {
        match self.connection.control.unregister_buffer(buffer.0) {
            Ok(()) => {}
            // Its pins went with the driver.
            Err(CallError::ServerDied { .. }) if self.recovery.is_possible() => {}
            Err(error) => return Err(error.into()),
        }
        self.buffers.remove(buffer.0);
        Ok(())
    }

    /// Gives the driver a buffer for received frames; it sees it with [`Session::kick`]. `token` comes back with the frame.
    ///
    /// # Errors
    /// [`SessionError::Full`]: receive frames first.
    #[inline]
    pub fn provide(&mut self, space: Space, token: u64) -> Result<(), SessionError> {
        let id = self.providing.add(Provided { space, token });
        let id = id.ok_or(SessionError::Full)?;
        // There are as many ids as entries, so the ring has room unless the driver broke it.
        let pushed = self.connection.provide(id, &space);
        if pushed.is_err() {
            self.providing.remove(id);
        }
        pushed
    }

    /// The next frame that is there. Its buffers belong to the client again.
    ///
    /// # Errors
    /// [`SessionError::Corrupt`] when the driver breaks the protocol.
    #[inline]
    pub fn receive(&mut self, frame: &mut RxFrame) -> Result<bool, SessionError> {
        while let Some(entry) = self.connection.received.pop()? {
            let provided = self.providing.remove(entry.id);
            let provided = provided.ok_or(SessionError::Corrupt)?;
            let Provided { space, token } = provided;
            let added = self.partial.add(token, space, &entry);
            if added.map_err(|()| SessionError::Corrupt)? {
                core::mem::swap(frame, &mut self.partial);
                self.partial.clear();
                self.partial_spaces.clear();
                return Ok(true);
            }
            self.partial_spaces.push(provided);
        }
        Ok(false)
    }

    /// Queues a frame. The driver sees it with [`Session::kick`]; `token` comes back from [`Session::sent`].
    ///
    /// # Errors
    /// [`SessionError::Full`]: take what was sent first. A frame without parts is [`SessionError::System`] with
    /// `InvalidArgument`.
    #[inline]
    pub fn transmit(&mut self, frame: &TxFrame<'_>, token: u64) -> Result<(), SessionError> {
        let count = frame.parts.len();
        if count == 0 || count > usize::from(u16::MAX) {
            return Err(SessionError::System(sys::Error::InvalidArgument));
        }
        if count > self.room() {
            return Err(SessionError::Full);
        }
        let sending = Sending {
            token,
            fragments: count as u16,
        };
        let id = self.sending.add(sending).ok_or(SessionError::Full)?;
        for entry in frame.entries(id) {
            self.connection.transmit.push(&entry)?;
        }
        self.fragments += count;
        Ok(())
    }

    /// The next frame that the device has finished with.
    ///
    /// # Errors
    /// [`SessionError::Corrupt`] when the driver breaks the protocol.
    #[inline]
    pub fn sent(&mut self) -> Result<Option<TxDone>, SessionError> {
        if let Some(token) = self.lost.pop_front() {
            let status = Status::LOST;
            return Ok(Some(TxDone { token, status }));
        }
        let Some(entry) = self.connection.sent.pop()? else {
            return Ok(None);
        };
        let frame = self.sending.remove(entry.id).ok_or(SessionError::Corrupt)?;
        self.fragments = self.fragments.saturating_sub(frame.fragments.into());
        Ok(Some(TxDone {
            token: frame.token,
            status: Status(entry.status),
        }))
    }

    /// Shows the driver what was provided and queued, and wakes it if it sleeps.
    ///
    /// # Errors
    /// When its doorbell is gone.
    #[inline]
    pub fn kick(&mut self) -> Result<(), SessionError> {
        let provided = self.connection.free.publish();
        if self.connection.transmit.publish() | provided {
            self.connection.to_driver.ring()?;
        }
        Ok(())
    }

    /// Asks for the event to be rung with the next frame received or sent. `true`: there is one already, look again.
    ///
    /// # Errors
    /// As [`Session::receive`].
    #[inline]
    pub fn arm(&mut self) -> Result<bool, SessionError> {
        let received = self.arm_received()?;
        Ok(self.connection.sent.arm()? | received)
    }

    /// As [`Session::arm`], for received frames and those that were lost.
    ///
    /// # Errors
    /// As [`Session::receive`].
    #[inline]
    pub fn arm_received(&mut self) -> Result<bool, SessionError> {
        Ok(self.connection.received.arm()? | !self.lost.is_empty())
    }

    /// The event that is rung after [`Session::arm`]: `SIGNALED`, a new edge each time.
    pub fn event(&self) -> &Event {
        &self.connection.to_client
    }

    /// The session's channel: `PEER_CLOSED` when the driver is gone.
    pub fn channel(&self) -> &Channel {
        self.connection.control.channel()
    }

    /// Sleeps until there is a frame received or sent. May return early. When the driver died and the interface is
    /// a named one, it goes on with the next incarnation.
    ///
    /// # Errors
    /// [`SessionError::TimedOut`], or [`SessionError::Closed`] when the driver is gone for good.
    pub fn wait(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        if self.arm()? {
            return Ok(());
        }
        self.sleep(deadline)
    }

    /// Sleeps until the event rings.
    pub(crate) fn sleep(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        if self.closed {
            return self.recover(deadline);
        }
        let port = match self.port.take() {
            Some(port) => port,
            None => self.watch()?,
        };
        let mut packets = [Packet::default(); 2];
        let count = port.wait(&mut packets, deadline);
        self.port = Some(port);
        self.closed = packets
            .iter()
            .take(count?)
            .any(|packet| packet.key == KEY_CLOSED);
        if self.closed {
            return self.recover(deadline);
        }
        Ok(())
    }

    fn watch(&self) -> Result<Port, SessionError> {
        let port = Port::create()?;
        let event = &self.connection.to_client;
        event.wait_async(&port, KEY_EVENT, Signals::SIGNALED, Watch::Persistent)?;
        self.channel()
            .wait_async(&port, KEY_CLOSED, Signals::PEER_CLOSED, Watch::Persistent)?;
        Ok(port)
    }

    /// Which frames to receive; kept for the driver's successor.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), SessionError> {
        self.recovery.set_receive_mode(mode, multicast)
    }

    /// Another address; kept for the driver's successor.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn set_mac(&mut self, mac: MacAddress) -> Result<(), SessionError> {
        self.recovery.set_mac(mac)
    }

    /// Which receive offloads are to be on, as far as the device has them; kept for the driver's successor.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<Offloads, SessionError> {
        self.recovery.set_receive_offloads(offloads)
    }

    /// Goes on with the next incarnation of a driver that died. Watches of [`Session::event`] and
    /// [`Session::channel`] are to be made anew afterwards.
    ///
    /// # Errors
    /// [`SessionError::Closed`] when there will be none, or the driver ended the session and lives;
    /// [`SessionError::OtherInterface`]; [`SessionError::TimedOut`].
    pub fn recover(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        self.closed = true;
        let was = *self.connection.info();
        self.connection = self.recovery.connect(&was, &self.buffers, deadline)?;
        self.port = None;
        self.closed = false;
        self.fragments = 0;
        self.lost
            .extend(self.sending.drain().iter().map(|f| f.token));
        // What was received and not taken is lost with the old rings: its buffers go to the new driver.
        let mut provided = self.providing.drain();
        provided.append(&mut self.partial_spaces);
        self.partial.clear();
        for buffer in provided {
            self.provide(buffer.space, buffer.token)?;
        }
        self.kick()
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Session {{ {:?}, provided: {}, sending: {} }}",
            self.connection.info,
            self.providing.len(),
            self.sending.len()
        )
    }
}
