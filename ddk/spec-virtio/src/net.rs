//! The network device (5.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device type (5).
pub const DEVICE_TYPE: u16 = 1;

/// Feature bits (5.1.3).
pub mod feature {
    /// The device computes checksums of frames to be sent.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames with partial checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// Receive offloads can be changed by the control queue.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// `mtu` is valid.
    pub const MTU: u64 = 1 << 3;
    /// `mac` is valid.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP over IPv4 put together.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes TCP over IPv6 put together.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes segments with explicit congestion notification put together.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The driver takes UDP put together.
    pub const GUEST_UFO: u64 = 1 << 10;
    /// The device segments TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device segments TCP over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device segments TCP with explicit congestion notification.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The device segments UDP.
    pub const HOST_UFO: u64 = 1 << 14;
    /// A received frame may span several buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `status` is valid.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// It sets the receive mode.
    pub const CTRL_RX: u64 = 1 << 18;
    /// It filters VLANs.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// It sets further receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The device asks the driver to announce itself.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// There are several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// The control queue sets the address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// `speed` and `duplex` are valid.
    pub const SPEED_DUPLEX: u64 = 1 << 63;
}

/// Offsets in the configuration (5.1.4).
pub mod config {
    /// Address, 6 bytes.
    pub const MAC: usize = 0;
    /// [`status`](super::link_status), 16 bits.
    pub const STATUS: usize = 6;
    /// Most queue pairs, 16 bits.
    pub const MAX_VIRTQUEUE_PAIRS: usize = 8;
    /// Longest IP packet, 16 bits.
    pub const MTU: usize = 10;
    /// Megabits per second, 32 bits; all ones: unknown.
    pub const SPEED: usize = 12;
    /// 0 half, 1 full, 0xff unknown; 8 bits.
    pub const DUPLEX: usize = 16;
    /// Bytes up to here.
    pub const LEN: usize = 17;
}

/// Bits of the status in the configuration (5.1.4).
pub mod link_status {
    /// There is a link.
    pub const LINK_UP: u16 = 1;
    /// The driver is to announce itself.
    pub const ANNOUNCE: u16 = 2;
}

/// What precedes each frame: `struct virtio_net_hdr` (5.1.6), with `num_buffers`, as every device with `VERSION_1` has it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// [`header_flags`].
    pub flags: u8,
    /// [`segmentation`].
    pub gso_type: u8,
    /// Bytes of the headers, Ethernet to TCP; a hint.
    pub hdr_len: u16,
    /// Bytes of payload of each segment.
    pub gso_size: u16,
    /// First byte that the checksum covers.
    pub csum_start: u16,
    /// Where the checksum is, from there.
    pub csum_offset: u16,
    /// Received: buffers that the frame spans. Sent: 0.
    pub num_buffers: u16,
}

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = size_of::<Header>();

const _: () = assert!(HEADER_BYTES == 12);

/// [`Header::flags`] (5.1.6).
pub mod header_flags {
    /// The checksum is to be computed.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was found right.
    pub const DATA_VALID: u8 = 2;
}

/// [`Header::gso_type`] (5.1.6).
pub mod segmentation {
    /// None.
    pub const NONE: u8 = 0;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 3;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// The segments carry explicit congestion notification; a flag beside the type.
    pub const ECN: u8 = 0x80;
}

/// Commands on the control queue (5.1.6.5): class, command.
pub mod control {
    /// Promiscuous mode: a byte, 0 or 1 (5.1.6.5.1).
    pub const RX_PROMISC: [u8; 2] = [0, 0];
    /// All multicast frames: a byte, 0 or 1.
    pub const RX_ALLMULTI: [u8; 2] = [0, 1];
    /// The tables of unicast and multicast addresses: each a count of 32 bits and the addresses (5.1.6.5.2).
    pub const MAC_TABLE_SET: [u8; 2] = [1, 0];
    /// The address, 6 bytes.
    pub const MAC_ADDR_SET: [u8; 2] = [1, 1];
    /// Queue pairs in use, 16 bits (5.1.6.5.5).
    pub const MQ_PAIRS_SET: [u8; 2] = [4, 0];
    /// Receive offloads, the feature bits in 64 bits (5.1.6.5.6).
    pub const GUEST_OFFLOADS_SET: [u8; 2] = [5, 0];
    /// Answer: done.
    pub const OK: u8 = 0;
    /// Answer: not done.
    pub const ERR: u8 = 1;
}
