//! What a campaign's faults go into: a driver, with the device that it drives.

use crate::guest::disk::{Access, Bus, Disk};
use crate::system::endurance;

/// Its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A disk on a bus.
    Disk(Bus),
    /// A network interface, by QEMU's name.
    Interface(&'static str),
}

/// A driver under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is called here.
    pub name: &'static str,
    /// Its program.
    pub program: &'static str,
    /// Its device.
    pub device: Device,
    /// The name of the endpoint that is under load.
    pub endpoint: &'static str,
}

/// All of them. Intel's driver has two rows: the 82540EM has no messages and is looked at each millisecond, the 82574L interrupts.
pub fn all() -> Vec<Subject> {
    let disks = endurance::DRIVERS
        .iter()
        .map(|(name, bus, endpoint)| Subject {
            name,
            program: name,
            device: Device::Disk(*bus),
            endpoint,
        });
    let interface = |(name, program, model)| Subject {
        name,
        program,
        device: Device::Interface(model),
        endpoint: "eth0",
    };
    let interfaces = [
        ("virtio-net", "virtio-net", "virtio-net-pci"),
        ("e1000", "e1000", "e1000"),
        ("e1000e", "e1000", "e1000e"),
    ];
    disks.chain(interfaces.map(interface)).collect()
}

impl Subject {
    /// Whether it is a disk.
    pub fn is_disk(&self) -> bool {
        matches!(self.device, Device::Disk(_))
    }

    /// What `test-campaign` calls its endpoint.
    pub fn target(&self) -> String {
        let scheme = if self.is_disk() { "disk" } else { "net" };
        format!("{scheme}:{}", self.endpoint)
    }

    /// Commands that make the endpoint free for the load: the network stack has the queues of every interface.
    pub fn make_room(&self) -> &'static str {
        match self.device {
            Device::Disk(_) => "",
            Device::Interface(_) => "svc stop httpd > /dev/null; svc stop netstack > /dev/null\n",
        }
    }

    /// The disk with an image, if it is one.
    pub fn disk(&self, image: &std::path::Path) -> Option<Disk> {
        match self.device {
            Device::Disk(bus) => Some(Disk {
                bus,
                ..Disk::new(image, Access::ReadWrite)
            }),
            Device::Interface(_) => None,
        }
    }

    /// QEMU's arguments for the interface, if it is one.
    pub fn arguments(&self, iommu: bool) -> Vec<String> {
        let Device::Interface(model) = self.device else {
            return Vec::new();
        };
        let contained = match model {
            "virtio-net-pci" if iommu => ",disable-legacy=on,iommu_platform=on",
            _ => "",
        };
        let device = format!("{model},netdev=net0{contained}");
        ["-netdev", "user,id=net0", "-device", &device]
            .map(str::to_owned)
            .to_vec()
    }
}
