//! Definitions of Intel's gigabit Ethernet controllers 8254x and 82574, as far as the driver here uses them. Section numbers are those
//! of the PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, revision 4.0 ("SDM"), and of the 82574
//! datasheet, revision 3.4 ("82574"). Pure definitions: no access to devices.
//!
//! ```
//! // The filter's place for a group address (SDM 13.5.1).
//! assert_eq!(spec_e1000::multicast_hash([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01]), (0, 16));
//! ```
#![no_std]
#![forbid(unsafe_code)]

/// PCI vendor ID of Intel.
pub const PCI_VENDOR: u16 = 0x8086;
/// PCI device ID of the 82540EM.
pub const DEVICE_82540EM: u16 = 0x100e;
/// PCI device ID of the 82574L.
pub const DEVICE_82574L: u16 = 0x10d3;

/// Device control (SDM 13.4.1).
pub mod ctrl {
    /// 82574: no requests to memory any more.
    pub const GIO_MASTER_DISABLE: u32 = 1 << 2;
    /// Speed from the link.
    pub const ASDE: u32 = 1 << 5;
    /// Set link up.
    pub const SLU: u32 = 1 << 6;
    /// Reset; clears itself.
    pub const RST: u32 = 1 << 26;
}

/// Device status (SDM 13.4.2).
pub mod status {
    /// Full duplex.
    pub const FD: u32 = 1;
    /// Link up.
    pub const LU: u32 = 1 << 1;
    /// Speed: 0 for 10, 1 for 100, 2 and 3 for 1000 megabits per second.
    pub const SPEED_SHIFT: u32 = 6;
    /// 82574: requests to memory are under way or may be.
    pub const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// Extended device control (82574 10.2.2.3).
pub mod ctrl_ext {
    /// A message masks its causes (with `IAM`).
    pub const EIAME: u32 = 1 << 24;
    /// Interrupt acknowledge auto-mask; with no cause in `IAM` it masks nothing when `ICR` is read.
    pub const IAME: u32 = 1 << 27;
    /// Pending bits are cleared when messages are used.
    pub const PBA_CLR: u32 = 1 << 31;
}

/// EEPROM (SDM 5.6, 13.4.4; 82574 10.2.2.5).
pub mod eeprom {
    /// Start a read.
    pub const START: u32 = 1;
    /// 8254x: it is done.
    pub const DONE_8254X: u32 = 1 << 4;
    /// 82574: it is done.
    pub const DONE_82574: u32 = 1 << 1;
    /// 8254x: where the address is.
    pub const ADDRESS_SHIFT_8254X: u32 = 8;
    /// 82574: where the address is.
    pub const ADDRESS_SHIFT_82574: u32 = 2;
    /// Where the word is.
    pub const DATA_SHIFT: u32 = 16;
    /// Words that the checksum covers, with itself at the end.
    pub const CHECKED_WORDS: u16 = 0x40;
    /// What these words add up to (SDM 5.6.35).
    pub const CHECKSUM: u16 = 0xbaba;
}

/// Causes of interrupts (SDM 13.4.17; 82574 10.2.4.1).
pub mod cause {
    /// The link changed.
    pub const LSC: u32 = 1 << 2;
    /// 82574: receive queue 0.
    pub const RXQ0: u32 = 1 << 20;
    /// 82574: transmit queue 0.
    pub const TXQ0: u32 = 1 << 22;
    /// 82574: all others.
    pub const OTHER: u32 = 1 << 24;
}

/// Vectors of the causes (82574 10.2.4.9): four bits each.
pub mod ivar {
    /// A vector that counts.
    pub const VALID: u32 = 1 << 3;
    /// Receive queue 0.
    pub const RXQ0_SHIFT: u32 = 0;
    /// Transmit queue 0.
    pub const TXQ0_SHIFT: u32 = 8;
    /// All others.
    pub const OTHER_SHIFT: u32 = 16;
}

/// Receive control (SDM 13.4.22).
pub mod rctl {
    /// On.
    pub const EN: u32 = 1 << 1;
    /// All unicast frames.
    pub const UPE: u32 = 1 << 3;
    /// All multicast frames.
    pub const MPE: u32 = 1 << 4;
    /// Broadcast frames.
    pub const BAM: u32 = 1 << 15;
    /// Buffers of 2048 bytes: both size bits and the extension clear.
    pub const BSIZE_2048: u32 = 0;
    /// Frame check sequences are stripped.
    pub const SECRC: u32 = 1 << 26;
}

/// Bytes of a receive buffer with [`rctl::BSIZE_2048`].
pub const BUFFER_BYTES: u32 = 2048;

/// Transmit control (SDM 13.4.33).
pub mod tctl {
    /// On.
    pub const EN: u32 = 1 << 1;
    /// Short frames are padded.
    pub const PSP: u32 = 1 << 3;
    /// Collision threshold, as recommended.
    pub const CT: u32 = 0x0f << 4;
    /// Collision distance for full duplex, as recommended.
    pub const COLD: u32 = 0x40 << 12;
}

/// Transmit inter-packet gap, as recommended for copper (SDM 13.4.34): 10, 8, 6.
pub const TIPG: u32 = 10 | 8 << 10 | 6 << 20;

/// Transmit descriptor control (SDM 13.4.44): descriptors are written back one by one.
pub const TXDCTL_8254X: u32 = 1 << 16 | 1 << 24;
/// The same for the 82574, where bit 22, reserved before, is to be set (82574 10.2.6.11).
pub const TXDCTL_82574: u32 = TXDCTL_8254X | 1 << 22;

/// Receive checksum control (SDM 13.4.26): IPv4, TCP and UDP.
pub const RXCSUM: u32 = 1 << 8 | 1 << 9;

/// High half of a receive address (SDM 13.5.3): it counts.
pub const RAH_VALID: u32 = 1 << 31;

/// Offset of the multicast table array in the registers (SDM 13.5.1).
pub const MTA: usize = 0x5200;
/// Words of it.
pub const MTA_WORDS: usize = 128;

/// Bytes of any descriptor.
pub const DESCRIPTOR_BYTES: usize = 16;

/// Receive descriptors (SDM 3.2.3): address, length, checksum, status, errors, special.
pub mod rx {
    /// Where the length is, 16 bits.
    pub const LENGTH: usize = 8;
    /// Where the status is, 8 bits.
    pub const STATUS: usize = 12;
    /// Where the errors are, 8 bits.
    pub const ERRORS: usize = 13;
    /// Done.
    pub const STATUS_DD: u8 = 1;
    /// End of the frame.
    pub const STATUS_EOP: u8 = 1 << 1;
    /// Checksums were not looked at.
    pub const STATUS_IXSM: u8 = 1 << 2;
    /// The TCP or UDP checksum was looked at.
    pub const STATUS_TCPCS: u8 = 1 << 5;
    /// The IPv4 header's checksum was looked at.
    pub const STATUS_IPCS: u8 = 1 << 6;
    /// Checksum of TCP or UDP is wrong.
    pub const ERROR_TCPE: u8 = 1 << 5;
    /// Checksum of the IPv4 header is wrong.
    pub const ERROR_IPE: u8 = 1 << 6;
    /// Errors of the frame itself: check sequence, symbols, sequence, carrier, data.
    pub const ERROR_FRAME: u8 = 0x97;
}

/// Transmit descriptors (SDM 3.3).
pub mod tx {
    /// Where the status is, 8 bits; 0 of it is done.
    pub const STATUS: usize = 12;
    /// Done.
    pub const STATUS_DD: u8 = 1;
    /// Most bytes of a data descriptor that all controllers take.
    pub const DATA_MAX: u32 = 8192;

    /// End of the frame.
    pub const COMMAND_EOP: u8 = 1;
    /// Insert the frame check sequence.
    pub const COMMAND_IFCS: u8 = 1 << 1;
    /// Segment.
    pub const COMMAND_TSE: u8 = 1 << 2;
    /// Report status.
    pub const COMMAND_RS: u8 = 1 << 3;
    /// Not a legacy descriptor.
    pub const COMMAND_DEXT: u8 = 1 << 5;

    /// In a context descriptor's command: TCP.
    pub const CONTEXT_TCP: u8 = 1;
    /// In a context descriptor's command: IPv4.
    pub const CONTEXT_IPV4: u8 = 1 << 1;

    /// Insert the IPv4 header's checksum.
    pub const OPTION_IXSM: u8 = 1;
    /// Insert the TCP or UDP checksum.
    pub const OPTION_TXSM: u8 = 1 << 1;

    /// What a context descriptor says (SDM 3.3.6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Context {
        /// First byte of the IP header.
        pub ip_start: u8,
        /// Where its checksum is in the frame.
        pub ip_offset: u8,
        /// Last byte of it.
        pub ip_end: u16,
        /// First byte that the TCP or UDP checksum covers; it goes to the end of the frame.
        pub start: u8,
        /// Where it is in the frame.
        pub offset: u8,
        /// [`CONTEXT_TCP`], [`CONTEXT_IPV4`], [`COMMAND_TSE`].
        pub command: u8,
        /// Bytes of payload, without headers.
        pub payload: u32,
        /// Bytes of headers.
        pub header: u8,
        /// Bytes of payload of each segment.
        pub segment: u16,
    }

    impl Context {
        /// The descriptor's two words.
        pub const fn descriptor(&self) -> [u64; 2] {
            let low = self.ip_start as u64
                | (self.ip_offset as u64) << 8
                | (self.ip_end as u64) << 16
                | (self.start as u64) << 32
                | (self.offset as u64) << 40;
            let high = (self.payload & 0xf_ffff) as u64
                | ((self.command | COMMAND_DEXT) as u64) << 24
                | (self.header as u64) << 40
                | (self.segment as u64) << 48;
            [low, high]
        }
    }

    /// A data descriptor (SDM 3.3.7): `len` is at most [`DATA_MAX`].
    pub const fn data(address: u64, len: u32, command: u8, options: u8) -> [u64; 2] {
        let high = (len & 0xf_ffff) as u64
            | 1 << 20
            | ((command | COMMAND_DEXT) as u64) << 24
            | (options as u64) << 40;
        [address, high]
    }
}

/// Word and bit of the multicast table for a group address, with the filter's offset 0 (SDM 13.5.1): bits 47 to 36 of the address.
pub const fn multicast_hash(address: [u8; 6]) -> (usize, u32) {
    let hash = (address[4] >> 4) as usize | (address[5] as usize) << 4;
    (hash >> 5 & (MTA_WORDS - 1), (hash & 0x1f) as u32)
}
