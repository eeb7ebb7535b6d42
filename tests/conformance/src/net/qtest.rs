//! The home beside QEMU: QEMU's own device, with this process at the other end of its wire, a datagram for each frame. The
//! wire waits where the device has no room, and nothing is lost on it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_qtest::QtestMachine;
use ddk_class_net::NetDevice;
use ddk_conformance_net::{
    Cutting, Fault, Home, MacAddress, Nic, Offloads, Problem, Promise, Shape, Wired,
};
use tempfile::TempDir;

use super::device::Device;
use super::host_nic::HostNic;
use crate::device::{Ended, Payload};

/// Address that the device is given.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x60];
/// CPUs that drivers are told of.
const CPUS: usize = 2;
/// Name of the device, and of its wire.
const DEVICE: &str = "dut";
const WIRE: &str = "wire";
/// Longest datagram of QEMU's.
const DATAGRAM_MAX: usize = 70_000;

/// QEMU's device, and what is known of it.
#[derive(Clone, Copy)]
pub struct Model {
    /// With everything.
    pub plain: &'static str,
    /// Without whatever can be left out; none if there is nothing.
    pub bare: Option<&'static str>,
    /// What it can, if it does not depend on the wire.
    pub offloads: Option<Offloads>,
    /// It finds out whether received checksums are right.
    pub checks_sums: bool,
    /// What it makes of frames to be cut.
    pub cutting: Cutting,
}

/// The home of driver `D`.
pub struct NicQtest<D> {
    model: Model,
    driver: PhantomData<D>,
}

impl<D> NicQtest<D> {
    /// For this device of QEMU.
    ///
    /// # Errors
    /// Why nothing can run.
    pub fn new(model: Model) -> Result<NicQtest<D>, String> {
        if ddk_backend_qtest::qemu().is_none() {
            return Err("no qemu-system-x86_64 in PATH".to_owned());
        }
        Ok(NicQtest {
            model,
            driver: PhantomData,
        })
    }
}

impl<D: NetDevice + 'static> Home for NicQtest<D> {
    fn open(&mut self, shape: Shape, _: u64) -> Result<Box<dyn Nic + '_>, Problem> {
        let device = match shape {
            Shape::Plain => self.model.plain,
            Shape::Bare => self
                .model
                .bare
                .ok_or_else(|| Problem::not_offered("QEMU's device has nothing to do without"))?,
            Shape::Queues => {
                let reason = "QEMU's datagram wires have one queue";
                return Err(Problem::not_offered(reason));
            }
        };
        let device = QemuDevice::new::<D>(device, shape, &self.model)?;
        Ok(Box::new(HostNic::<D, _>::new(device)?))
    }
}

struct QemuDevice {
    machine: QtestMachine,
    platform: Option<Arc<dyn Platform>>,
    wire: UnixDatagram,
    /// Frames that the wire has had no room for yet.
    inward: VecDeque<Vec<u8>>,
    /// Frames that nobody has looked at yet.
    outward: VecDeque<Vec<u8>>,
    promise: Promise,
    /// Pages that nobody had before the driver came.
    free_pages: usize,
    _folder: TempDir,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

impl QemuDevice {
    fn new<D: NetDevice>(device: &str, shape: Shape, model: &Model) -> Result<Self, Problem> {
        let folder = tempfile::tempdir().map_err(failed("folder"))?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let wire = UnixDatagram::bind(path("test")).map_err(failed("wire"))?;
        wire.set_nonblocking(true).map_err(failed("wire"))?;
        let netdev = format!(
            "dgram,id={WIRE},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path("qemu"),
            path("test")
        );
        let mac = MacAddress(MAC);
        let machine = QtestMachine::builder()
            .cpus(CPUS)
            .arguments(["-netdev", netdev.as_str()])
            .pluggable_device(&format!("{device},netdev={WIRE},id={DEVICE},mac={mac}"))
            .start()
            .map_err(failed("machine"))?;
        wire.connect(path("qemu")).map_err(failed("wire"))?;
        let free_pages = machine.free_pages();
        let platform = machine
            .platform_for(DEVICE, &D::MANIFEST)
            .map_err(failed("platform"))?;
        let controls = model.offloads.is_some() || shape != Shape::Bare;
        Ok(QemuDevice {
            machine,
            platform: Some(platform),
            wire,
            inward: VecDeque::new(),
            outward: VecDeque::new(),
            promise: Promise {
                mac: Some(mac),
                mtu: 1500,
                offloads: model.offloads,
                filters: controls,
                changes_mac: controls,
                tells_link: controls,
                counts_missed: false,
                checks_sums: model.checks_sums,
                cutting: model.cutting,
            },
            free_pages,
            _folder: folder,
        })
    }
}

impl Device for QemuDevice {
    fn platform(&self) -> Option<Arc<dyn Platform>> {
        self.platform.clone()
    }

    fn payload(
        &mut self,
        pages: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Box<dyn Payload>), Problem> {
        let (buffer, payload) = self
            .machine
            .payload(pages * ddk::PAGE, access)
            .map_err(failed("memory for a buffer"))?;
        Ok((buffer, Box::new(payload)))
    }

    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem> {
        self.inward.push_back(frame.to_vec());
        self.carry()
    }

    fn carry(&mut self) -> Result<(), Problem> {
        while let Some(frame) = self.inward.front() {
            match self.wire.send(frame) {
                Ok(_) => {
                    self.inward.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What was plugged out takes nothing any more.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                Err(error) => return Err(failed("wire")(error)),
            }
        }
        loop {
            let mut bytes = vec![0; DATAGRAM_MAX];
            match self.wire.recv(&mut bytes) {
                Ok(len) => {
                    bytes.truncate(len);
                    self.outward.push_back(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(failed("wire")(error)),
            }
        }
    }

    fn wire_next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        if self.outward.is_empty() {
            self.carry()?;
        }
        Ok(self.outward.pop_front())
    }

    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        let what = serde_json::json!({ "name": DEVICE, "up": link == Wired::Plugged });
        let set = self.machine.qmp().execute("set_link", what);
        set.map(drop).map_err(failed("set_link"))
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        match fault {
            Fault::Gone => self.machine.unplug(DEVICE).map_err(failed("unplug")),
            fault => fault.unless_offered(),
        }
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        self.platform = None;
        let free = self.machine.free_pages();
        if ended == Ended::Stopped && free != self.free_pages {
            let kept = self.free_pages.saturating_sub(free);
            return Err(Problem::Failed(format!(
                "{kept} pages are in use at the end"
            )));
        }
        Ok(())
    }
}
