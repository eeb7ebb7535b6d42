//! What the device says of itself (virtio 1.2, 5.1.4), checked and in the units of the class.

use ddk::DriverError;
use ddk_class_net::{Duplex, Link, MacAddress, NicInfo, Offloads, SegmentationSum};
use ddk_virtio::Transport;
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};
use spec_virtio::net::{config, feature, link_status};

/// Longest IP packet of an Ethernet that says nothing else.
const MTU_DEFAULT: u16 = 1500;
/// Shortest IP packet that every host takes (RFC 791): less makes no network.
const MTU_MIN: u16 = 68;
/// Bytes of an Ethernet header with a VLAN tag.
const HEADER_BYTES: u32 = 18;
/// Longest frame to be segmented: an IP packet of 64 KiB and its Ethernet header.
const SEGMENTED_MAX: u32 = 65535 + 14;
/// Shortest receive buffer where frames spread over several: it bounds the buffers of a frame.
const MERGED_BUFFER_MIN: u32 = 256;
/// Address of a device that says none: locally administered (IEEE 802, the second bit), else arbitrary.
const MAC_DEFAULT: MacAddress = MacAddress([0x02, 0x42, 0x48, 0x00, 0x00, 0x01]);
/// Most queue pairs (5.1.4.1).
const PAIRS_MAX: u16 = 0x8000;

/// Features that are of use, of those that are offered: some need others (5.1.3.1), and those whose needs are not met are left out.
pub(crate) fn wanted(offered: u64) -> u64 {
    let mut wanted = feature::CSUM
        | feature::GUEST_CSUM
        | feature::MTU
        | feature::MAC
        | feature::MRG_RXBUF
        | feature::STATUS
        | feature::SPEED_DUPLEX
        | RING_EVENT_IDX
        | RING_INDIRECT_DESC;
    let has = |bits| offered & bits == bits;
    // Long frames need chains longer than a ring's share.
    if has(feature::CSUM | RING_INDIRECT_DESC) {
        wanted |= feature::HOST_TSO4 | feature::HOST_TSO6;
    }
    if has(feature::CTRL_VQ) {
        wanted |= feature::CTRL_VQ | feature::CTRL_RX | feature::CTRL_MAC_ADDR | feature::MQ;
        // Frames of 64 KiB are for clients that want them, in buffers that need not be as long.
        if has(feature::GUEST_CSUM | feature::CTRL_GUEST_OFFLOADS | feature::MRG_RXBUF) {
            wanted |= feature::CTRL_GUEST_OFFLOADS | feature::GUEST_TSO4 | feature::GUEST_TSO6;
        }
    }
    wanted & offered
}

/// The device's configuration and what follows from its features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) features: u64,
    pub(crate) mac: MacAddress,
    mtu: u16,
    /// Queue pairs.
    pub(crate) pairs: u16,
    pub(crate) link: Link,
}

impl Config {
    pub(crate) fn read(transport: &Transport, features: u64) -> Result<Config, DriverError> {
        let has = |bit: u64| features & bit != 0;
        let (mac, status, pairs, mtu, speed, duplex) = transport.read_config(|c| {
            (
                [0, 1, 2, 3, 4, 5].map(|n| c.read::<u8>(config::MAC + n)),
                c.read::<u16>(config::STATUS),
                c.read::<u16>(config::MAX_VIRTQUEUE_PAIRS),
                c.read::<u16>(config::MTU),
                c.read::<u32>(config::SPEED),
                c.read::<u8>(config::DUPLEX),
            )
        })?;
        let mac = if has(feature::MAC) {
            checked_mac(MacAddress(mac))?
        } else {
            MAC_DEFAULT
        };
        let mtu = if has(feature::MTU) {
            in_range("MTU", mtu, MTU_MIN, u16::MAX)?
        } else {
            MTU_DEFAULT
        };
        let pairs = if has(feature::MQ) {
            in_range("queue pairs", pairs, 1, PAIRS_MAX)?
        } else {
            1
        };
        let known = has(feature::SPEED_DUPLEX);
        // 5.1.4: all ones, or whatever is above 2^31 - 1, is unknown.
        let speed_mbps = if known && speed >> 31 == 0 { speed } else { 0 };
        let duplex = if known && duplex == 0 {
            Duplex::Half
        } else {
            Duplex::Full
        };
        let link = if has(feature::STATUS) && status & link_status::LINK_UP == 0 {
            Link::Down
        } else {
            Link::Up { speed_mbps, duplex }
        };
        Ok(Config {
            features,
            mac,
            mtu,
            pairs,
            link,
        })
    }

    pub(crate) fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    /// Longest frame without segmentation.
    pub(crate) fn frame_max(&self) -> u32 {
        u32::from(self.mtu) + HEADER_BYTES
    }

    /// Whether frames to be sent may be up to 64 KiB long.
    pub(crate) fn segments(&self) -> bool {
        self.has(feature::HOST_TSO4) || self.has(feature::HOST_TSO6)
    }

    /// What the device can.
    pub(crate) fn offloads(&self) -> Offloads {
        let pairs = [
            (feature::CSUM, Offloads::TX_CHECKSUM),
            (feature::HOST_TSO4, Offloads::TX_TCP4),
            (feature::HOST_TSO6, Offloads::TX_TCP6),
            (feature::GUEST_CSUM, Offloads::RX_CHECKSUM),
            (feature::GUEST_TSO4, Offloads::RX_TCP4),
            (feature::GUEST_TSO6, Offloads::RX_TCP6),
        ];
        let offered = pairs.iter().filter(|(bit, _)| self.has(*bit));
        offered.fold(Offloads::empty(), |all, (_, offload)| all | *offload)
    }

    /// The interface in the class's terms; `receive_offloads` are those that are on.
    pub(crate) fn info(&self, mac: MacAddress, receive_offloads: Offloads) -> NicInfo {
        NicInfo {
            mac,
            mtu: self.mtu.into(),
            frame_max: self.frame_max(),
            segmented_max: if self.segments() { SEGMENTED_MAX } else { 0 },
            rx_buffer_min: if self.has(feature::MRG_RXBUF) {
                MERGED_BUFFER_MIN
            } else {
                self.frame_max()
            },
            link: self.link,
            offloads: self.offloads(),
            receive_offloads,
            segmentation_sum: SegmentationSum::WithLength,
        }
    }
}

fn checked_mac(mac: MacAddress) -> Result<MacAddress, DriverError> {
    if mac.is_unicast() {
        return Ok(mac);
    }
    let [a, b, c, d, e, f] = mac.0;
    Err(DriverError::Protocol {
        what: "hardware address of an interface",
        expected: 0,
        seen: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
    })
}

fn in_range(what: &'static str, seen: u16, min: u16, max: u16) -> Result<u16, DriverError> {
    if (min..=max).contains(&seen) {
        return Ok(seen);
    }
    Err(DriverError::Protocol {
        what,
        expected: if seen < min { min } else { max }.into(),
        seen: seen.into(),
    })
}
