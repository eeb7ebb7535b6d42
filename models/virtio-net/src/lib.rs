//! A virtio network device (virtio 1.2, 5.1) and the wire on it.
//!
//! What the driver sends is kept ([`NetModel::sent`]) as it would be on the wire, after checksums and segmentation; [`deliver`] is what comes from
//! the wire, through the device's filter. The model is strict: a buffer that is too short, an offload that was not agreed on,
//! a command that does not exist are violations.

mod offload;

use std::collections::VecDeque;
use std::sync::Arc;

use model_virtio::{DeviceChain, DeviceLogic, Request, Served, VirtioPci};
use spec_virtio::net::{HEADER_BYTES, Header, config, control, feature, link_status, segmentation};
use zerocopy::{FromBytes, IntoBytes};

pub use model_offload::sum;

/// Shortest receive chain without mergeable buffers: header and the longest frame (5.1.6.3.1).
const ROOM_MIN: u32 = 12 + 1514;

/// What a [`NetModel`] is like.
#[derive(Clone, Debug)]
pub struct NetModelOptions {
    /// Features offered beside `VERSION_1`.
    pub features: u64,
    /// Address.
    pub mac: [u8; 6],
    /// Longest IP packet.
    pub mtu: u16,
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of each queue.
    pub queue_size: u16,
}

impl Default for NetModelOptions {
    fn default() -> Self {
        NetModelOptions {
            features: feature::CSUM
                | feature::GUEST_CSUM
                | feature::CTRL_GUEST_OFFLOADS
                | feature::MTU
                | feature::MAC
                | feature::GUEST_TSO4
                | feature::GUEST_TSO6
                | feature::HOST_TSO4
                | feature::HOST_TSO6
                | feature::MRG_RXBUF
                | feature::STATUS
                | feature::CTRL_VQ
                | feature::CTRL_RX
                | feature::MQ
                | feature::CTRL_MAC_ADDR
                | feature::SPEED_DUPLEX
                | spec_virtio::feature::RING_INDIRECT_DESC
                | spec_virtio::feature::RING_EVENT_IDX,
            mac: [0x52, 0x54, 0, 1, 2, 3],
            mtu: 1500,
            pairs: 1,
            queue_size: 64,
        }
    }
}

/// How the device departs from the rules, from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Takes frames to be sent and does not finish with them.
    Stuck,
    /// The same, and ignores a reset.
    Dead,
    /// Finishes with every frame twice.
    Twice,
    /// Says that a received frame spans more buffers than there are.
    ManyBuffers,
    /// Says that a received frame spans no buffer.
    NoBuffers,
    /// Finishes with a receive buffer that holds less than a header.
    NoHeader,
    /// Does not answer commands.
    Mute,
    /// Refuses commands.
    Refuses,
}

/// A frame that the driver sent, as it was on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Queue pair.
    pub pair: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The device.
pub struct NetModel {
    options: NetModelOptions,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
    /// Whether there is a carrier; call [`VirtioPci::change_config`] after changing it.
    pub link_up: bool,
    /// What the driver sent.
    pub sent: Vec<Sent>,
    /// Frames from the wire that found no buffer.
    pub missed: u32,
    /// Queue pairs in use.
    pub active: u16,
    /// Receive offloads that are on, as feature bits.
    pub offloads: u64,
    mac: [u8; 6],
    promiscuous: bool,
    all_multicast: bool,
    groups: Vec<[u8; 6]>,
    /// Receive buffers by pair.
    buffers: Vec<VecDeque<DeviceChain>>,
    /// Features of the present life.
    features: u64,
}

impl NetModel {
    /// A device with its link up.
    pub fn new(options: NetModelOptions) -> NetModel {
        NetModel {
            misbehaviour: Misbehaviour::None,
            link_up: true,
            sent: Vec::new(),
            missed: 0,
            active: 1,
            offloads: 0,
            mac: options.mac,
            promiscuous: false,
            all_multicast: false,
            groups: Vec::new(),
            buffers: vec![VecDeque::new(); options.pairs.into()],
            features: 0,
            options,
        }
    }

    /// Receive buffers that the driver has given to a pair.
    pub fn buffers(&self, pair: usize) -> usize {
        self.buffers[pair].len()
    }

    /// Number of the control queue (5.1.2): it comes after the pairs that were agreed on.
    fn control_queue(&self, features: u64) -> u16 {
        if features & feature::MQ != 0 {
            2 * self.options.pairs
        } else {
            2
        }
    }

    fn offered_guest(features: u64) -> u64 {
        features & (feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6)
    }

    /// Whether a frame from the wire is passed on (5.1.6.5.1).
    fn accepts(&self, frame: &[u8]) -> bool {
        let to = &frame[..6];
        let group = to[0] & 1 != 0;
        // Without commands for it there is no filter.
        self.features & feature::CTRL_RX == 0
            || self.promiscuous
            || to == [0xff; 6]
            || to == self.mac
            || group && (self.all_multicast || self.groups.iter().any(|g| g == to))
    }

    fn provide(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        let chain = asked.chain;
        if !chain.readable.is_empty() {
            return Err("receive buffer that the device is to read".into());
        }
        let room = chain.writable_len();
        let needed = if asked.features & feature::MRG_RXBUF != 0 {
            HEADER_BYTES as u32
        } else {
            ROOM_MIN
        };
        if room < needed {
            return Err(format!("receive buffer of {room} bytes, at least {needed}"));
        }
        self.buffers[usize::from(asked.queue / 2)].push_back(chain.clone());
        Ok(Served::Lost)
    }

    fn transmit(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        let chain = asked.chain;
        if !chain.writable.is_empty() {
            return Err("frame to be sent that the device is to write".into());
        }
        let mut bytes = chain.read(asked.memory)?;
        if bytes.len() < HEADER_BYTES {
            return Err(format!("frame of {} bytes has no header", bytes.len()));
        }
        let frame = bytes.split_off(HEADER_BYTES);
        let header = Header::read_from_bytes(&bytes).map_err(|e| e.to_string())?;
        let agreed = |bit, what| match asked.features & bit {
            0 => Err(format!("{what} without its feature")),
            _ => Ok(()),
        };
        if header.flags != 0 {
            agreed(feature::CSUM, "checksum")?;
        }
        match header.gso_type {
            segmentation::TCPV4 => agreed(feature::HOST_TSO4, "TSO4")?,
            segmentation::TCPV6 => agreed(feature::HOST_TSO6, "TSO6")?,
            _ => {}
        }
        if header.num_buffers != 0 {
            return Err("num_buffers of a frame to be sent".into());
        }
        for bytes in offload::frames(&header, frame)? {
            if bytes.len() > usize::from(self.options.mtu) + 18 {
                return Err(format!("{} bytes on the wire", bytes.len()));
            }
            self.sent.push(Sent {
                pair: asked.queue / 2,
                bytes,
            });
        }
        Ok(match self.misbehaviour {
            Misbehaviour::Stuck | Misbehaviour::Dead => Served::Lost,
            Misbehaviour::Twice => Served::Twice(0),
            _ => Served::Done(0),
        })
    }

    fn command(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        let (chain, features) = (asked.chain, asked.features);
        let bytes = chain.read(asked.memory)?;
        if chain.writable_len() != 1 {
            return Err("command without room for its answer".into());
        }
        if self.misbehaviour == Misbehaviour::Mute {
            return Ok(Served::Lost);
        }
        let answer = if self.misbehaviour == Misbehaviour::Refuses {
            control::ERR
        } else {
            self.obey(&bytes, features)?;
            control::OK
        };
        chain.write(asked.memory, 0, &[answer])?;
        Ok(Served::Done(1))
    }

    fn obey(&mut self, bytes: &[u8], features: u64) -> Result<(), String> {
        let odd = || format!("command {bytes:x?}");
        let agreed = |bit| match features & bit {
            0 => Err(format!("command {bytes:x?} without its feature")),
            _ => Ok(()),
        };
        let (command, data) = bytes.split_at_checked(2).ok_or_else(odd)?;
        match ([command[0], command[1]], data) {
            (control::RX_PROMISC, [on @ 0..=1]) => {
                agreed(feature::CTRL_RX)?;
                self.promiscuous = *on == 1;
            }
            (control::RX_ALLMULTI, [on @ 0..=1]) => {
                agreed(feature::CTRL_RX)?;
                self.all_multicast = *on == 1;
            }
            (control::MAC_TABLE_SET, [0, 0, 0, 0, rest @ ..]) => {
                agreed(feature::CTRL_RX)?;
                let (count, groups) = rest.split_at_checked(4).ok_or_else(odd)?;
                let count = u32::from_le_bytes(count.try_into().map_err(|_| odd())?);
                if groups.len() != 6 * count as usize {
                    return Err(odd());
                }
                let group = |g: &[u8]| g.try_into().expect("six bytes");
                self.groups = groups.chunks(6).map(group).collect();
            }
            (control::MAC_ADDR_SET, mac) => {
                agreed(feature::CTRL_MAC_ADDR)?;
                self.mac = mac.try_into().map_err(|_| odd())?;
            }
            (control::MQ_PAIRS_SET, &[low, high]) => {
                agreed(feature::MQ)?;
                let pairs = u16::from_le_bytes([low, high]);
                if !(1..=self.options.pairs).contains(&pairs) {
                    return Err(format!("{pairs} queue pairs of {}", self.options.pairs));
                }
                self.active = pairs;
            }
            (control::GUEST_OFFLOADS_SET, data) => {
                agreed(feature::CTRL_GUEST_OFFLOADS)?;
                let bits = u64::from_le_bytes(data.try_into().map_err(|_| odd())?);
                if bits & !Self::offered_guest(features) != 0 {
                    return Err(format!("receive offloads {bits:#x} not agreed on"));
                }
                self.offloads = bits;
            }
            _ => return Err(odd()),
        }
        Ok(())
    }
}

impl DeviceLogic for NetModel {
    fn features(&self) -> u64 {
        self.options.features
    }

    fn config(&self) -> Vec<u8> {
        let mut bytes = vec![0; config::LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let status = if self.link_up {
            link_status::LINK_UP
        } else {
            0
        };
        put(config::MAC, &self.options.mac);
        put(config::STATUS, status.as_bytes());
        put(config::MAX_VIRTQUEUE_PAIRS, self.options.pairs.as_bytes());
        put(config::MTU, self.options.mtu.as_bytes());
        put(config::SPEED, 10_000u32.as_bytes());
        put(config::DUPLEX, &[1]);
        bytes
    }

    fn queues(&self) -> (u16, u16) {
        (2 * self.options.pairs + 1, self.options.queue_size)
    }

    fn serve(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        self.features = asked.features;
        let control = self.control_queue(asked.features);
        match asked.queue {
            n if n == control && asked.features & feature::CTRL_VQ != 0 => self.command(asked),
            n if n >= control => Err(format!("request on queue {n}, which does not exist")),
            n if n % 2 == 0 => self.provide(asked),
            _ => self.transmit(asked),
        }
    }

    /// A wire keeps the order of frames.
    fn is_served_in_order(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.mac = self.options.mac;
        (self.promiscuous, self.all_multicast) = (false, false);
        self.groups.clear();
        self.buffers.iter_mut().for_each(VecDeque::clear);
        self.active = 1;
        self.features = 0;
    }

    fn answers_reset(&self) -> bool {
        self.misbehaviour != Misbehaviour::Dead
    }
}

/// A frame comes from the wire: it goes to the pair that its flow is steered to, with what `header` says of it. `false`: it was filtered, or found no
/// buffer.
pub fn deliver(device: &Arc<VirtioPci<NetModel>>, frame: &[u8], header: Header) -> bool {
    let memory = device.sim().memory().clone();
    let violated = |text: String| device.sim().violation(text);
    let fired = device.with(|model, queues| {
        if !model.link_up || !model.accepts(frame) {
            return None;
        }
        // The flow is the sender's address here.
        let pair = usize::from(frame[11]) % usize::from(model.active);
        let merges = model.features & feature::MRG_RXBUF != 0;
        let needed = (HEADER_BYTES + frame.len()) as u32;
        let waiting = &mut model.buffers[pair];
        let (mut count, mut room) = (0, 0);
        while room < needed && count < waiting.len() && (merges || count == 0) {
            room += waiting[count].writable_len();
            count += 1;
        }
        if room < needed {
            model.missed += 1;
            return None;
        }
        let header = Header {
            num_buffers: match model.misbehaviour {
                Misbehaviour::ManyBuffers => u16::MAX,
                Misbehaviour::NoBuffers => 0,
                _ => count as u16,
            },
            ..header
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(frame);
        let mut rest = bytes.as_slice();
        let mut told = false;
        for chain in waiting.drain(..count) {
            let here = rest.len().min(chain.writable_len() as usize);
            let (now, later) = rest.split_at(here);
            rest = later;
            let written = match model.misbehaviour {
                Misbehaviour::NoHeader => 5,
                _ => now.len() as u32,
            };
            let queue = queues[2 * pair].as_mut()?;
            let done = chain
                .write(&memory, 0, now)
                .and_then(|()| queue.complete(chain.head, written));
            told |= done.unwrap_or_else(|text| {
                violated(text);
                false
            });
        }
        Some((2 * pair, told))
    });
    if let Some((queue, true)) = fired {
        device.fire_queue(queue);
    }
    fired.is_some()
}
