//! What a home offers to the suite.

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use ddk_conformance_core::{Fault, Problem, Woken};
pub use proto::block::BufferAccess as Access;
use proto::net::{MacAddress, NetCounters, NetInfo, Offloads, ReceiveMode, Segmentation, Status};

/// What kind of interface a test wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Shape {
    /// With everything that the device can do.
    Plain,
    /// Without whatever it can do without.
    Bare,
    /// With at least two queue pairs.
    Queues,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 3] = [Shape::Plain, Shape::Bare, Shape::Queues];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Plain => "plain",
            Shape::Bare => "bare",
            Shape::Queues => "queues",
        }
    }

    /// The shape with this name.
    pub fn from_name(name: &str) -> Option<Shape> {
        Shape::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a home knows of an interface because it made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Its address, if the device has one of its own.
    pub mac: Option<MacAddress>,
    /// Longest IP packet.
    pub mtu: u32,
    /// What the device can, if the home knows.
    pub offloads: Option<Offloads>,
    /// It filters frames by their destination; others pass on everything.
    pub filters: bool,
    /// Its address can be changed.
    pub changes_mac: bool,
    /// It tells when the link changes.
    pub tells_link: bool,
    /// It drops frames for which it has no buffer and counts them. Otherwise the wire may hold them back.
    pub counts_missed: bool,
    /// It finds out whether the checksums of received TCP over IPv4 are right, once [`Offloads::RX_CHECKSUM`] is on.
    pub checks_sums: bool,
    /// What it makes of frames to be cut.
    pub cutting: Cutting,
}

/// What a device makes of frames to be cut into segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cutting {
    /// What was asked for.
    Right,
    /// The same, with an empty segment at the end where the payload is a multiple of the segments': a fault of the device's.
    EmptyLast,
    /// Fragments of IP instead: a fault of the device's.
    Fragments,
}

/// Number of a session of a [`Nic`].
pub type SessionNumber = usize;

/// Bytes of a registered buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Slot of the buffer.
    pub slot: u16,
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// A checksum that the device is to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// First byte that it covers.
    pub start: u16,
    /// Where it is, from `start`.
    pub offset: u16,
}

/// How the device is to cut a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Which protocols.
    pub kind: Segmentation,
    /// Bytes of payload of each segment.
    pub size: u16,
    /// Bytes of the headers, Ethernet to TCP.
    pub header_length: u16,
}

/// What the driver says of a received frame's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxChecksum {
    /// Nothing.
    #[default]
    Unchecked,
    /// They are right.
    Valid,
    /// They were never filled in.
    Partial(Sum),
}

/// A part of a received frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The token of its buffer.
    pub token: u32,
    /// Bytes in the buffer.
    pub length: u32,
    /// Bytes that come before those.
    pub prefix: Vec<u8>,
}

/// A received frame, or a buffer that is given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Its parts in order, at least one.
    pub pieces: Vec<Piece>,
    /// Anything but [`Status::OK`]: there is no frame.
    pub status: Status,
    /// Its checksums.
    pub checksum: RxChecksum,
    /// If the device put segments together: protocols, and bytes of payload of each.
    pub joined: Option<(Segmentation, u16)>,
}

/// An interface, taken into service for one test, with its wire.
///
/// Everything that waits runs driver and device meanwhile, where the home has to do that itself.
pub trait Nic {
    /// What the driver says of the interface now.
    fn info(&mut self) -> Result<NetInfo, Problem>;

    /// What the home knows of it.
    fn promise(&self) -> Promise;

    /// What the driver counted.
    ///
    /// # Errors
    /// When it does not answer.
    fn counters(&mut self) -> Result<NetCounters, Problem>;

    /// Opens the session of a queue pair for at least so many receive buffers and fragments.
    ///
    /// # Errors
    /// When the driver or the home refuses.
    fn open_session(&mut self, queue: u16, rx: u16, tx: u16) -> Result<SessionNumber, Problem>;

    /// Most receive buffers and fragments that a session has with the driver.
    fn depths(&self, session: SessionNumber) -> (u16, u16);

    /// Ends a session; returns when its queue can have another one.
    ///
    /// # Errors
    /// When it does not end, or leaves buffers pinned.
    fn close_session(&mut self, session: SessionNumber) -> Result<(), Problem>;

    /// Registers a zeroed buffer of at least `len` bytes; gives its slot.
    ///
    /// # Errors
    /// When the driver or the home refuses.
    fn register(
        &mut self,
        session: SessionNumber,
        len: usize,
        access: Access,
    ) -> Result<u16, Problem>;

    /// Ends the use of a buffer: its pages are not pinned any more.
    ///
    /// # Errors
    /// When it is still pinned afterwards, or the driver refuses.
    fn unregister(&mut self, session: SessionNumber, slot: u16) -> Result<(), Problem>;

    /// Copies bytes into a buffer, as its owner.
    ///
    /// # Errors
    /// When they do not fit.
    fn put(
        &mut self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Problem>;

    /// Copies bytes out of a buffer.
    ///
    /// # Errors
    /// When they are not inside.
    fn get(
        &self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), Problem>;

    /// Gives the driver a receive buffer. `false`: it has as many as the session's depth.
    ///
    /// # Errors
    /// [`Problem::NotOffered`] when this home's client cannot say such a thing.
    fn provide(&mut self, session: SessionNumber, part: &Part, token: u32)
    -> Result<bool, Problem>;

    /// Queues a frame. `false`: the session has no room for its fragments.
    ///
    /// # Errors
    /// As [`Nic::provide`].
    fn transmit(
        &mut self,
        session: SessionNumber,
        parts: &[Part],
        sum: Option<Sum>,
        cut: Option<Cut>,
        token: u32,
    ) -> Result<bool, Problem>;

    /// Shows the driver what was provided and queued.
    ///
    /// # Errors
    /// When the session is broken.
    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem>;

    /// The next received frame that is there.
    ///
    /// # Errors
    /// When the driver broke the protocol.
    fn received(&mut self, session: SessionNumber) -> Result<Option<Arrived>, Problem>;

    /// The next frame that the driver has finished with.
    ///
    /// # Errors
    /// When the driver broke the protocol.
    fn sent(&mut self, session: SessionNumber) -> Result<Option<(u32, Status)>, Problem>;

    /// Sleeps until there is something received, for at most `limit_ms` of the device's time.
    ///
    /// # Errors
    /// When the home breaks.
    fn wait_received(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem>;

    /// Sleeps until there is something sent, for at most `limit_ms` of the device's time.
    ///
    /// # Errors
    /// When the home breaks.
    fn wait_sent(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem>;

    /// Lets so much of the device's time pass, whatever comes meanwhile.
    ///
    /// # Errors
    /// When the home breaks.
    fn pause(&mut self, ms: u32) -> Result<Woken, Problem>;

    /// Lets driver and device take what they were given, where the wire would not wait for them.
    ///
    /// # Errors
    /// When the home breaks.
    fn settle(&mut self) -> Result<(), Problem> {
        Ok(())
    }

    /// Which frames to receive.
    ///
    /// # Errors
    /// When the driver refuses.
    fn set_receive_mode(&mut self, mode: ReceiveMode, groups: &[MacAddress])
    -> Result<(), Problem>;

    /// Another address. `false`: the driver says that it cannot.
    ///
    /// # Errors
    /// When the driver fails.
    fn set_mac(&mut self, mac: MacAddress) -> Result<bool, Problem>;

    /// Which receive offloads are to be on.
    ///
    /// # Errors
    /// When the driver refuses.
    fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), Problem>;

    /// Resets the device, whatever it is doing. Takes effect with the waiting that follows.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], or when the driver refuses.
    fn reset(&mut self) -> Result<(), Problem> {
        Err(Problem::not_offered("a client cannot reset the device"))
    }

    /// Plugs the wire in or out.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        let _ = link;
        Err(Problem::not_offered("no way to pull the wire out"))
    }

    /// Makes the device go wrong, or right again.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        fault.unless_offered()
    }

    /// The ways in which the device can be made to break the rules, by name.
    fn lies(&self) -> &'static [&'static str] {
        &[]
    }

    /// Puts a frame on the wire, towards the interface.
    ///
    /// # Errors
    /// When the home breaks.
    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem>;

    /// The same for a TCP segment that whoever sends put together from shorter ones and left the checksum of to others, as the host of a
    /// virtual machine does.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn wire_send_joined(&mut self, frame: &[u8], cut: &Cut, sum: &Sum) -> Result<(), Problem> {
        let _ = (frame, cut, sum);
        Err(Problem::not_offered("a wire carries no frames of 64 KiB"))
    }

    /// The next frame that the interface sent, in the order of the wire; waits for at most `limit_ms` of the device's time.
    ///
    /// # Errors
    /// When the home breaks.
    fn wire_next(&mut self, limit_ms: u32) -> Result<Option<Vec<u8>>, Problem>;

    /// Ends the use of the interface: the driver stops, and everything that it broke is told.
    ///
    /// # Errors
    /// What it broke.
    fn close(self: Box<Self>) -> Result<(), Problem>;
}

/// Whether there is a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wired {
    /// With somebody at the other end.
    Plugged,
    /// Not.
    Unplugged,
}

/// Where drivers run.
pub trait Home {
    /// An interface of this shape. What the home leaves open (limits of the device, features) it takes from `seed`.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], or when the driver does not start.
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Nic + '_>, Problem>;
}
