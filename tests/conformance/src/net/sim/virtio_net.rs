//! virtio-net over its model.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_sim::{Sim, SimPlatform};
use ddk_conformance_net::{
    Cut, Cutting, Fault, Home, MacAddress, Nic, Offloads, Problem, Promise, Segmentation, Shape,
    Sum, Wired,
};
use fastrand::Rng;
use model_virtio::VirtioPci;
use model_virtio_net::{Misbehaviour, NetModel, NetModelOptions, deliver};
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};
use spec_virtio::net::{Header, feature, header_flags, segmentation};

use super::{CPUS, MAC, OnWire};
use crate::device::{Ended, Payload};
use crate::net::device::Device;
use crate::net::host_nic::HostNic;

/// The home.
pub struct VirtioNetSim;

impl Home for VirtioNetSim {
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Nic + '_>, Problem> {
        let device = VirtioDevice::new(shape, seed);
        Ok(Box::new(HostNic::<virtio_net::VirtioNet, _>::new(device)?))
    }
}

struct VirtioDevice {
    model: Arc<VirtioPci<NetModel>>,
    platform: Arc<SimPlatform>,
    promise: Promise,
    features: u64,
    on_wire: OnWire,
}

const LIES: [(&str, Misbehaviour); 4] = [
    ("every frame sent twice", Misbehaviour::Twice),
    (
        "a frame over more buffers than there are",
        Misbehaviour::ManyBuffers,
    ),
    ("a frame over no buffer", Misbehaviour::NoBuffers),
    ("a frame without its header", Misbehaviour::NoHeader),
];
const LIE_NAMES: &[&str] = &[LIES[0].0, LIES[1].0, LIES[2].0, LIES[3].0];

/// A model that differs with the seed in all that a device may choose.
fn options(shape: Shape, seed: u64) -> NetModelOptions {
    let mut rng = Rng::with_seed(seed);
    let mut features = feature::MAC | feature::STATUS;
    // The first four seeds have each of the kinds of ring.
    if seed & 1 == 0 {
        features |= RING_INDIRECT_DESC;
    }
    if seed & 2 == 0 {
        features |= RING_EVENT_IDX;
    }
    let control = feature::CTRL_VQ | feature::CTRL_RX | feature::CTRL_MAC_ADDR;
    if shape != Shape::Bare {
        features |= control
            | feature::CSUM
            | feature::GUEST_CSUM
            | feature::MTU
            | feature::SPEED_DUPLEX
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::MRG_RXBUF
            | feature::CTRL_GUEST_OFFLOADS;
    }
    let pairs = if shape == Shape::Queues {
        features |= feature::MQ;
        rng.u16(2..=5)
    } else {
        1
    };
    NetModelOptions {
        features,
        mac: MAC,
        mtu: 1500,
        pairs,
        queue_size: rng.choice([32, 64, 128, 256]).unwrap_or(128),
    }
}

/// What the driver can make of these features.
fn offloads(features: u64) -> Offloads {
    let mut offloads = Offloads::empty();
    let has = |bits| features & bits == bits;
    if has(feature::CSUM) {
        offloads |= Offloads::TX_CHECKSUM;
    }
    // Long frames need chains longer than a ring's share.
    if has(feature::CSUM | RING_INDIRECT_DESC | feature::HOST_TSO4 | feature::HOST_TSO6) {
        offloads |= Offloads::TX_TCP4 | Offloads::TX_TCP6;
    }
    if has(feature::GUEST_CSUM) {
        offloads |= Offloads::RX_CHECKSUM;
    }
    if has(feature::GUEST_TSO4 | feature::GUEST_TSO6) {
        offloads |= Offloads::RX_TCP4 | Offloads::RX_TCP6;
    }
    offloads
}

impl VirtioDevice {
    fn new(shape: Shape, seed: u64) -> VirtioDevice {
        let options = options(shape, seed);
        let features = options.features;
        let has = |bit| features & bit != 0;
        // Fewer vectors than queues ask for are the driver's to live with, but two queues take three.
        let least = if shape == Shape::Queues { 3 } else { 1 };
        let vectors = Rng::with_seed(seed).u16(least..=options.pairs + 1);
        let promise = Promise {
            mac: Some(MacAddress(MAC)),
            mtu: options.mtu.into(),
            offloads: Some(offloads(features)),
            filters: has(feature::CTRL_RX),
            changes_mac: has(feature::CTRL_MAC_ADDR),
            // A single vector is the queues'.
            tells_link: vectors > 1,
            // Nothing in the specification counts them.
            counts_missed: false,
            checks_sums: has(feature::GUEST_CSUM),
            cutting: Cutting::Right,
        };
        let model = VirtioPci::new(&Sim::new(seed), NetModel::new(options), vectors);
        let platform = model.platform(CPUS);
        VirtioDevice {
            model,
            platform,
            promise,
            features,
            on_wire: OnWire::default(),
        }
    }
}

impl Device for VirtioDevice {
    fn platform(&self) -> Option<Arc<dyn Platform>> {
        Some(self.platform.clone())
    }

    fn payload(
        &mut self,
        pages: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Box<dyn Payload>), Problem> {
        let (buffer, payload) = self.model.sim().memory().payload(pages, access);
        Ok((buffer, Box::new(payload)))
    }

    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem> {
        let sums = model_offload::received(frame);
        let is_right = sums.header == Some(true) && sums.transport == Some(true);
        let switched = self.features & feature::CTRL_GUEST_OFFLOADS != 0;
        let looks = if switched {
            self.model.with(|model, _| model.offloads)
        } else {
            self.features
        };
        let flags = if is_right && looks & feature::GUEST_CSUM != 0 {
            header_flags::DATA_VALID
        } else {
            0
        };
        let header = Header {
            flags,
            ..Header::default()
        };
        deliver(&self.model, frame, header);
        Ok(())
    }

    fn wire_send_joined(&mut self, frame: &[u8], cut: &Cut, sum: &Sum) -> Result<(), Problem> {
        let (gso_type, needed) = match cut.kind {
            Segmentation::TCP6 => (segmentation::TCPV6, feature::GUEST_TSO6),
            _ => (segmentation::TCPV4, feature::GUEST_TSO4),
        };
        if self.model.with(|model, _| model.offloads) & needed == 0 {
            return Err(Problem::not_offered("the device puts no segments together"));
        }
        let header = Header {
            flags: header_flags::NEEDS_CSUM,
            gso_type,
            hdr_len: cut.header_length,
            gso_size: cut.size,
            csum_start: sum.start,
            csum_offset: sum.offset,
            ..Header::default()
        };
        deliver(&self.model, frame, header);
        Ok(())
    }

    fn wire_next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let sent = self.model.with(|model, _| std::mem::take(&mut model.sent));
        Ok(self.on_wire.next(sent.into_iter().map(|sent| sent.bytes)))
    }

    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        let up = link == Wired::Plugged;
        self.model.with(|model, _| model.link_up = up);
        self.model.change_config();
        Ok(())
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        let misbehaviour = match fault {
            Fault::None => Misbehaviour::None,
            Fault::Silent => Misbehaviour::Stuck,
            Fault::Dead => Misbehaviour::Dead,
            Fault::Lie(number) => match LIES.get(number) {
                Some((_, lie)) => *lie,
                None => return Err(Problem::Failed(format!("there is no lie {number}"))),
            },
            Fault::Gone => {
                self.model.unplug();
                return Ok(());
            }
        };
        self.model
            .with(|model, _| model.misbehaviour = misbehaviour);
        Ok(())
    }

    fn lies(&self) -> &'static [&'static str] {
        LIE_NAMES
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        crate::sim::finish(&self.platform, self.model.sim().memory(), ended)
    }
}
