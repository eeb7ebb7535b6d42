//! e1000 over its models.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_sim::{Sim, SimPlatform};
use ddk_conformance_net::{
    Cutting, Fault, Home, MacAddress, Nic, Offloads, Problem, Promise, Shape, Wired, frame,
};
use model_e1000::{E1000Model, Kind, Misbehaviour};

use super::{CPUS, MAC, OnWire};
use crate::device::{Ended, Payload};
use crate::net::device::Device;
use crate::net::host_nic::HostNic;
use crate::net::{I82540EM_OFFLOADS, I82574L_OFFLOADS};

/// The home.
pub struct E1000Sim(pub Kind);

impl Home for E1000Sim {
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Nic + '_>, Problem> {
        let vectors = match (self.0, shape) {
            (_, Shape::Queues) => {
                return Err(Problem::not_offered("the driver has one queue pair"));
            }
            (Kind::I82540em, Shape::Bare) => {
                return Err(Problem::not_offered(
                    "the 82540EM has nothing to do without",
                ));
            }
            // Without messages it is looked at, as the 82540EM is.
            (Kind::I82574l, Shape::Bare) => 0,
            _ => 2,
        };
        let model = E1000Model::new(&Sim::new(seed), self.0, MAC, vectors);
        let device = E1000Device {
            platform: model.platform(CPUS),
            model,
            on_wire: OnWire::default(),
            offloads: match self.0 {
                Kind::I82540em => I82540EM_OFFLOADS,
                Kind::I82574l => I82574L_OFFLOADS,
            },
        };
        Ok(Box::new(HostNic::<e1000::E1000, _>::new(device)?))
    }
}

struct E1000Device {
    model: Arc<E1000Model>,
    platform: Arc<SimPlatform>,
    on_wire: OnWire,
    offloads: Offloads,
}

const LIES: [(&str, Misbehaviour); 3] = [
    ("a frame longer than its buffer", Misbehaviour::Overlong),
    ("frames that are damaged", Misbehaviour::Damaged),
    ("messages without a cause", Misbehaviour::Spurious),
];
const LIE_NAMES: &[&str] = &[LIES[0].0, LIES[1].0, LIES[2].0];

impl Device for E1000Device {
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
        Promise {
            mac: Some(MacAddress(MAC)),
            mtu: 1500,
            offloads: Some(self.offloads),
            filters: true,
            changes_mac: true,
            tells_link: true,
            counts_missed: true,
            checks_sums: true,
            cutting: Cutting::Right,
        }
    }

    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem> {
        // Whoever puts it on the wire pads it.
        let mut bytes = frame.to_vec();
        bytes.resize(bytes.len().max(frame::WIRE_MIN), 0);
        // A gigabit a second, with the preamble, the check sequence and the gap.
        let ns = (bytes.len() as u64 + 24) * 8;
        self.model.sim().schedule().pass(ns);
        self.model.deliver(&bytes);
        Ok(())
    }

    fn wire_next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        Ok(self.on_wire.next(self.model.take_sent()))
    }

    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        self.model.set_wire(link == Wired::Plugged);
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
        self.model.misbehave(misbehaviour);
        Ok(())
    }

    fn lies(&self) -> &'static [&'static str] {
        LIE_NAMES
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        if ended == Ended::Stopped && !self.model.is_quiet() {
            return Err(Problem::failed("the device was left running"));
        }
        crate::sim::finish(&self.platform, self.model.sim().memory(), ended)
    }
}
