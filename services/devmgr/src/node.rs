//! Nodes of the device tree and the states that they go through.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ddk_manifest::{Identity, PciIdentity};
use proto::bus::PciFunctionInfo;
use proto::devmgr::NodeState;
use serde::{Deserialize, Serialize};

use crate::pci_names::PciNames;

/// A device that the platform has without a bus that could be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlatformDevice {
    /// What drivers match, for instance `uart16550`.
    pub compatible: String,
    /// Ranges of I/O ports: first and count.
    pub ports: Vec<(u16, u16)>,
    /// ISA interrupt numbers.
    pub interrupts: Vec<u8>,
    /// For people.
    pub description: String,
}

/// What a node stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Device {
    /// A bus: its children have nodes of their own.
    Bus {
        /// For people.
        description: String,
    },
    /// A PCI function.
    Pci(PciFunctionInfo),
    /// A platform device.
    Platform(PlatformDevice),
}

impl Device {
    /// What match rules look at; `None` for a bus, which no driver is looked for.
    pub fn identity(&self) -> Option<Identity<'_>> {
        match self {
            Device::Bus { .. } => None,
            Device::Pci(info) => Some(Identity::Pci(PciIdentity {
                vendor: info.vendor,
                device: info.device,
                subsystem_vendor: info.subsystem_vendor,
                subsystem: info.subsystem,
                class: info.class,
                subclass: info.subclass,
                interface: info.interface,
            })),
            Device::Platform(device) => Some(Identity::Platform(&device.compatible)),
        }
    }

    /// The identity for people.
    pub fn identity_text(&self) -> String {
        match self {
            Device::Bus { .. } => String::from("bus"),
            Device::Pci(i) => format!(
                "pci vendor={:04x} device={:04x} subsystem={:04x}:{:04x} class={:02x}/{:02x}/{:02x}",
                i.vendor,
                i.device,
                i.subsystem_vendor,
                i.subsystem,
                i.class,
                i.subclass,
                i.interface
            ),
            Device::Platform(device) => format!("platform {}", device.compatible),
        }
    }

    /// What the device is, for people.
    pub fn description(&self, names: &PciNames<'_>) -> String {
        match self {
            Device::Bus { description } => description.clone(),
            Device::Pci(info) => format!(
                "{}: {}",
                names.class(info.class, info.subclass),
                names.device(info.vendor, info.device)
            ),
            Device::Platform(device) => device.description.clone(),
        }
    }

    /// Names and values for `lsdev -v`.
    pub fn properties(&self, names: &PciNames<'_>) -> Vec<(String, String)> {
        let mut list = Vec::new();
        let mut add = |name: &str, value: String| list.push((name.to_string(), value));
        match self {
            Device::Bus { .. } => {}
            Device::Pci(i) => {
                add("vendor", format!("{:04x}", i.vendor));
                add("device", format!("{:04x}", i.device));
                add(
                    "class",
                    format!("{:02x}{:02x}{:02x}", i.class, i.subclass, i.interface),
                );
                add("revision", format!("{:02x}", i.revision));
                add("class-name", names.class(i.class, i.subclass).to_string());
                add("vendor-name", names.vendor(i.vendor));
                add("device-name", names.device(i.vendor, i.device));
                add("reset", format!("{:?}", i.reset));
                for fault in &i.faults {
                    add("fault", fault.clone());
                }
            }
            Device::Platform(device) => {
                add("compatible", device.compatible.clone());
                for (first, count) in &device.ports {
                    let last = first.saturating_add(count.saturating_sub(1));
                    add("ports", format!("{first:#x}-{last:#x}"));
                }
                for irq in &device.interrupts {
                    add("irq", format!("{irq}"));
                }
            }
        }
        list
    }
}

/// Whether a node in this state keeps the tree from being settled. A driver that died and waits for its next
/// start does not: the system must not wait for what may never work.
pub const fn is_on_its_way(state: NodeState) -> bool {
    matches!(state, NodeState::Loaded | NodeState::Starting)
}

/// Whether the driver will not serve again unless an administrator starts it.
pub const fn is_over(state: NodeState) -> bool {
    matches!(
        state,
        NodeState::Unbound | NodeState::Stopped | NodeState::Failed | NodeState::Quarantined
    )
}
