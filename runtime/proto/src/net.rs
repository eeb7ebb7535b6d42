//! Network interfaces: the endpoint of an interface, and sessions on its queues.
//!
//! Control goes over channels ([`NetEndpoint`](NetEndpointClient), [`NetSession`](NetSessionClient)); frames go over four
//! rings in shared memory ([`RxBuffer`], [`Received`], [`Transmit`], [`Sent`]); the bytes of frames lie in VMOs that the client
//! owns and registers. Frames are Ethernet II frames from the destination address on, without preamble and
//! frame check sequence. Protocols above Ethernet are not here.
//!
//! # A session
//!
//! A session belongs to one queue pair of the device, and a queue pair serves one session at a time: a frame arrives in
//! exactly one buffer. A client that wants all frames opens a session for each of the first *n* queues; the device steers
//! flows over the queues up to the highest that is open.
//!
//! [`NetEndpointClient::open_session`] gives the session's channel, a VMO with the rings (free buffers at offset 0, the
//! others where [`SessionInfo`] says), and two events. The client rings `to_driver` after publishing free buffers or frames, the
//! driver rings `to_client` after publishing received frames or sent ones, each if the other's ring says that it sleeps. Closing
//! the channel ends the session; the device gives up its buffers before they are unpinned.
//!
//! A client has at most [`SessionInfo::rx_depth`] buffers with the driver, counted from giving one to taking its
//! [`Received`], and at most [`SessionInfo::tx_depth`] fragments, counted from the submission to the taking of the frame's
//! [`Sent`], so that no ring ever overflows. A client that breaks this, or whose ring is corrupt, loses its session and nothing else
//! happens. A buffer or a frame that is wrong by itself is given back with the reason.
//!
//! # Checksums and segmentation
//!
//! With [`tx_flags::CHECKSUM`] the device computes the internet checksum from [`Transmit::checksum_start`] to the end of the frame and puts
//! it [`Transmit::checksum_offset`] bytes after the start; the field holds the sum of the pseudo-header. With a
//! [`Segmentation`] it also cuts the frame into segments of [`Transmit::segment_size`] bytes of payload each. Then the IP header begins right
//! after an Ethernet header of 14 bytes, the IPv4 header's
//! checksum field is zero, its total length is that of the whole frame, and the TCP checksum field holds the pseudo-header's sum as
//! [`NetInfo::segmentation_sum`] says.

use alloc::string::String;
use alloc::vec::Vec;

use ipc::{Channel, Event, Vmo};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most buffers registered with a session; slots are numbered below this.
pub const BUFFERS_MAX: u16 = 256;

/// Most receive buffers, and most fragments to be sent, that a session has with the driver.
pub const DEPTH_MAX: u16 = 1024;

/// Most multicast addresses that can be asked for; a client with more asks for [`ReceiveMode::AllMulticast`].
pub const MULTICAST_MAX: usize = 64;

/// Bytes of an Ethernet header: destination, source, type.
pub const ETHERNET_HEADER_BYTES: u32 = 14;

/// Longest [`Received::prefix`] in bytes: room that a client leaves before each receive buffer if it wants the bytes of a
/// frame's fragment in one piece.
pub const PREFIX_MAX: usize = 12;

/// A hardware address.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize,
)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Everybody.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// Whether it is a group's (IEEE 802, the first bit on the wire).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether an interface can have it: neither zero nor a group's.
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        !self.is_multicast() && a | b | c | d | e | f != 0
    }
}

impl core::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A buffer for received frames, in the ring of free buffers.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RxBuffer {
    /// Chosen by the client, returned in [`Received::id`].
    pub id: u32,
    /// First byte in the registered buffer, a multiple of 4. A buffer that does not straddle a page fits every device.
    pub offset: u32,
    /// Bytes, at least [`NetInfo::rx_buffer_min`].
    pub length: u32,
    /// Registered buffer.
    pub slot: u16,
    /// Zero.
    pub reserved: u16,
}

/// A buffer with a received frame or a part of one, or one that is given back. The parts of a frame follow each other; what
/// is said of checksums and segmentation is said in the first.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Received {
    /// That of the buffer.
    pub id: u32,
    /// Bytes in the buffer, from its first byte on.
    pub length: u32,
    /// [`rx_flags`].
    pub flags: u16,
    /// With `CHECKSUM_PARTIAL`: first byte of the frame that the checksum covers.
    pub checksum_start: u16,
    /// With `CHECKSUM_PARTIAL`: where the checksum is, from `checksum_start`.
    pub checksum_offset: u16,
    /// With a segmentation: bytes of payload of each segment that the frame was made of.
    pub segment_size: u16,
    /// A [`Segmentation`] as a number: the device put several segments together.
    pub segmentation: u8,
    /// Bytes of `prefix` that count.
    pub prefix_length: u8,
    /// A [`Status`] as a number; not `OK`: the buffer holds nothing.
    pub status: u16,
    /// Bytes of the frame that come before those in the buffer: some devices put the start of a continuation into memory of
    /// the driver.
    pub prefix: [u8; PREFIX_MAX],
}

/// Flags of a [`Received`].
pub mod rx_flags {
    /// Another buffer with more of the frame follows.
    pub const MORE: u16 = 1;
    /// The device found the checksums of the transport header (and of an IPv4 header) right.
    pub const CHECKSUM_VALID: u16 = 2;
    /// The frame never was on a wire: its checksum field holds the pseudo-header's sum only, and its bytes are right.
    pub const CHECKSUM_PARTIAL: u16 = 4;
}

/// A fragment of a frame in the ring of frames to send. The fragments of a frame follow each other; `id` and what is said of checksums
/// and segmentation count in the first.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Transmit {
    /// Chosen by the client, returned in [`Sent::id`].
    pub id: u32,
    /// First byte in the registered buffer.
    pub offset: u32,
    /// Bytes, not 0.
    pub length: u32,
    /// Registered buffer.
    pub slot: u16,
    /// [`tx_flags`].
    pub flags: u16,
    /// First byte of the frame that the checksum covers.
    pub checksum_start: u16,
    /// Where the checksum is, from `checksum_start`.
    pub checksum_offset: u16,
    /// With a segmentation: bytes of payload of each segment.
    pub segment_size: u16,
    /// With a segmentation: bytes of the frame's headers, Ethernet to TCP.
    pub header_length: u16,
    /// A [`Segmentation`] as a number.
    pub segmentation: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Flags of a [`Transmit`].
pub mod tx_flags {
    /// Another fragment of the frame follows.
    pub const MORE: u16 = 1;
    /// The device computes the checksum.
    pub const CHECKSUM: u16 = 2;
    /// Nobody waits for the answer: it may come together with that of a later frame, or with a received one, and takes no interrupt of its
    /// own. It comes within two seconds.
    pub const LAZY: u16 = 4;
    /// Every flag that is defined.
    pub const ALL: u16 = MORE | CHECKSUM | LAZY;
}

/// The answer to a frame: its fragments' buffers may be used again.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sent {
    /// That of the frame's first fragment.
    pub id: u32,
    /// A [`Status`] as a number.
    pub status: u16,
    /// Fragments that the frame had.
    pub fragments: u16,
}

const _: () = assert!(size_of::<RxBuffer>() == 16 && size_of::<Received>() == 32);
const _: () = assert!(size_of::<Transmit>() == 32 && size_of::<Sent>() == 8);

/// What a device does with a long frame, or did with short ones: an open number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Segmentation(pub u8);

impl Segmentation {
    /// Nothing.
    pub const NONE: Segmentation = Segmentation(0);
    /// TCP over IPv4.
    pub const TCP4: Segmentation = Segmentation(1);
    /// TCP over IPv6.
    pub const TCP6: Segmentation = Segmentation(2);
}

/// How a buffer or frame ended: an open number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Status(pub u16);

impl Status {
    /// Done: received, or taken by the device for sending.
    pub const OK: Status = Status(0);
    /// Unknown flag, nothing to do, or an argument outside of its range.
    pub const INVALID: Status = Status(1);
    /// No such buffer, or the range is not inside it, or it lacks the right.
    pub const BAD_BUFFER: Status = Status(2);
    /// Longer than [`NetInfo::frame_max`], or too many fragments.
    pub const TOO_LONG: Status = Status(3);
    /// The device does not offer what was asked for.
    pub const UNSUPPORTED: Status = Status(4);
    /// The device was reset, or its driver replaced: whether the frame was sent is unknown. Of a receive buffer: what came was damaged.
    pub const LOST: Status = Status(5);
    /// The device is gone.
    pub const GONE: Status = Status(6);

    /// A short text for people.
    pub const fn text(self) -> &'static str {
        match self.0 {
            0 => "ok",
            1 => "invalid argument",
            2 => "bad buffer",
            3 => "frame too long",
            4 => "not supported by the device",
            5 => "lost with a reset of the device",
            6 => "the device is gone",
            _ => "unknown status",
        }
    }
}

/// State of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Link {
    /// No carrier: frames to be sent go nowhere.
    Down,
    /// Carrier.
    Up {
        /// Megabits per second, 0 when the device does not say.
        speed_mbps: u32,
        /// Whether both sides send at a time.
        duplex: Duplex,
    },
}

impl Link {
    /// Whether there is a carrier.
    pub const fn is_up(self) -> bool {
        matches!(self, Link::Up { .. })
    }
}

/// Who sends at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Duplex {
    /// One side.
    Half,
    /// Both.
    Full,
}

/// Which frames the device passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum ReceiveMode {
    /// Those to its address, to everybody, and to the multicast addresses that were asked for. A device with a coarse
    /// filter may pass on more.
    Filtered,
    /// The same, and every multicast frame.
    AllMulticast,
    /// Everything.
    Promiscuous,
}

/// What the TCP checksum field of a frame to be segmented holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum SegmentationSum {
    /// The sum of the pseudo-header with the length of the whole segment before it is cut.
    WithLength,
    /// The sum of the pseudo-header with a length of 0.
    WithoutLength,
}

bitflags::bitflags! {
    /// What a device takes off its client's hands.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Offloads: u32 {
        /// [`tx_flags::CHECKSUM`].
        const TX_CHECKSUM = 1;
        /// [`Segmentation::TCP4`] of frames to be sent.
        const TX_TCP4 = 1 << 1;
        /// [`Segmentation::TCP6`] of frames to be sent.
        const TX_TCP6 = 1 << 2;
        /// It checks the checksums of received frames, see [`rx_flags`].
        const RX_CHECKSUM = 1 << 3;
        /// It puts received TCP segments over IPv4 together, up to 64 KiB.
        const RX_TCP4 = 1 << 4;
        /// The same over IPv6.
        const RX_TCP6 = 1 << 5;
    }
}

/// What an interface is and offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetInfo {
    /// Its address.
    pub mac: MacAddress,
    /// Longest IP packet in bytes.
    pub mtu: u32,
    /// Longest frame to be sent in bytes; one to be segmented may be longer, up to [`NetInfo::segmented_max`].
    pub frame_max: u32,
    /// Longest frame to be segmented in bytes, headers included; 0 without segmentation.
    pub segmented_max: u32,
    /// Most fragments of a frame to be sent.
    pub fragments_max: u16,
    /// Shortest receive buffer in bytes. Where the device cannot spread a frame over several buffers, the longest frame fits.
    pub rx_buffer_min: u32,
    /// State of the link.
    pub link: Link,
    /// Queue pairs of the device.
    pub queues: u16,
    /// Buffers and fragments that make sense to have with the device; more wait in the ring.
    pub device_depth: u16,
    /// What the device can.
    pub offloads: Offloads,
    /// What is switched on of what was received: a client asks with [`NetEndpointClient::set_receive_offloads`].
    pub receive_offloads: Offloads,
    /// What the checksum field of frames to be segmented holds.
    pub segmentation_sum: SegmentationSum,
    /// Name of the driver.
    pub driver: String,
    /// Counts changes (link, address, modes); a new one makes [`NetEndpointClient::info`] worth asking again.
    pub generation: u32,
}

/// What went through since the driver started, over all queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NetCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received with an error, dropped.
    pub rx_errors: u64,
    /// Frames that the device dropped for want of a buffer, as far as it says.
    pub rx_missed: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that were refused.
    pub tx_errors: u64,
    /// Frames that were with the device when it was reset.
    pub tx_lost: u64,
    /// Resets of the device.
    pub resets: u64,
    /// Interrupts that woke a queue.
    pub interrupts: u64,
}

/// What a new session looks like. Depths are powers of two, at most [`DEPTH_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Entries of the rings of free buffers and received ones.
    pub rx_depth: u16,
    /// Entries of the rings of fragments and of sent frames.
    pub tx_depth: u16,
    /// Where the ring of [`Received`] starts in the VMO, in bytes.
    pub received_offset: u32,
    /// Where the ring of [`Transmit`] starts.
    pub transmit_offset: u32,
    /// Where the ring of [`Sent`] starts.
    pub sent_offset: u32,
    /// Queue pair.
    pub queue: u16,
    /// Number of the session since the driver started.
    pub session: u32,
    /// Incarnation of the driver.
    pub epoch: u32,
}

/// Why a control request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NetError {
    /// An argument is outside of its range.
    Invalid,
    /// The queue pair has a session already.
    Busy,
    /// The device cannot do it.
    Unsupported,
    /// The slot is taken, or, for unregistering, free.
    BadSlot,
    /// The VMO could not be pinned with the access that was asked for.
    BadBuffer,
    /// Too many sessions, buffers or too little memory.
    LimitReached,
    /// The device is gone or being reset.
    Gone,
}

impl core::fmt::Display for NetError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            NetError::Invalid => "invalid argument",
            NetError::Busy => "the queue is in use by another session",
            NetError::Unsupported => "not supported by the device",
            NetError::BadSlot => "buffer slot is in use or free",
            NetError::BadBuffer => "the buffer cannot be pinned with this access",
            NetError::LimitReached => "too many sessions or buffers",
            NetError::Gone => "the device is gone",
        })
    }
}

/// What the device may do with a registered buffer.
pub use crate::block::BufferAccess;

ipc::protocol! {
    /// A network interface: scheme `net`. The channel carries calls only, so clients may share it.
    pub protocol NetEndpoint("net", version = 1, error = NetError) {
        /// What the interface is and offers.
        1 = info() -> (info: NetInfo);
        /// Opens the session of a queue pair, with room for at least these numbers of receive buffers and fragments (rounded up
        /// to powers of two, limited by [`DEPTH_MAX`]). The handles are the session's channel ([`NetSession`]), the VMO with the
        /// rings, and the doorbells of driver and client.
        2 = open_session(queue: u16, rx_depth: u16, tx_depth: u16) -> (info: SessionInfo; session: Channel, rings: Vmo, to_driver: Event, to_client: Event);
        /// Which frames to pass on; `multicast` counts with [`ReceiveMode::Filtered`] and replaces what was there.
        3 = set_receive_mode(mode: ReceiveMode, multicast: Vec<MacAddress>) -> ();
        /// Another address.
        4 = set_mac(mac: MacAddress) -> ();
        /// Which of the receive offloads are to be on; others than those are ignored.
        5 = set_receive_offloads(offloads: Offloads) -> (offloads: Offloads);
        /// What went through.
        6 = counters() -> (counters: NetCounters);
        /// Answers when [`NetInfo::generation`] is another one than `known`: at once if it is.
        7 = changed(known: u32) -> (info: NetInfo);
    }
}

ipc::protocol! {
    /// A session. Its channel belongs to one client; closing it ends the session.
    pub protocol NetSession("net-session", version = 1, error = NetError) {
        /// Registers `length` bytes of `vmo` from `offset` on (both multiples of the page size) as buffer
        /// `slot`. The pages are pinned until the slot is unregistered or the session ends. The driver
        /// needs no MAP right and should not get one.
        1 = register_buffer(slot: u16, access: BufferAccess, offset: u64, length: u64; vmo: Vmo) -> ();
        /// Ends the use of a slot. Answered when the device has no buffer of it any more and its pages are unpinned.
        2 = unregister_buffer(slot: u16) -> ();
    }
}

#[cfg(test)]
mod tests {
    use super::MacAddress;
    use alloc::string::ToString;

    #[test]
    fn addresses() {
        assert!(MacAddress::BROADCAST.is_multicast());
        let mac = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x0a]);
        assert!(mac.is_unicast() && !MacAddress::default().is_unicast());
        assert!(!MacAddress([1, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert_eq!(mac.to_string(), "52:54:00:12:34:0a");
    }
}
