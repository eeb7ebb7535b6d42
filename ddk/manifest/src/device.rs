//! Match rules: which devices a driver serves.

use crate::ManifestError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const KIND_PCI_DEVICE: u32 = 1;
const KIND_PCI_CLASS: u32 = 2;
const KIND_PLATFORM: u32 = 3;

/// One rule. Made with [`pci_device`], [`pci_class`] or [`platform`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MatchRule {
    kind: u32,
    /// PCI: vendor and device ID, or class, subclass and interface.
    ids: [u16; 4],
    reserved: u32,
    /// Platform: compatible name, zero-filled.
    name: [u8; 32],
}

/// A PCI function with this vendor and device ID.
pub const fn pci_device(vendor: u16, device: u16) -> MatchRule {
    MatchRule {
        kind: KIND_PCI_DEVICE,
        ids: [vendor, device, 0, 0],
        ..MatchRule::NONE
    }
}

/// A PCI function with this class, subclass and programming interface.
pub const fn pci_class(class: u8, subclass: u8, interface: u8) -> MatchRule {
    let ids = [class as u16, subclass as u16, interface as u16, 0];
    MatchRule {
        kind: KIND_PCI_CLASS,
        ids,
        ..MatchRule::NONE
    }
}

/// A device of the platform (firmware tables, fixed ports) by its compatible name.
///
/// # Panics
/// When the name is longer than 32 bytes, which stops the build.
pub const fn platform(compatible: &str) -> MatchRule {
    let bytes = compatible.as_bytes();
    assert!(
        !bytes.is_empty() && bytes.len() <= 32,
        "the compatible name has 1 to 32 bytes"
    );
    let mut rule = MatchRule {
        kind: KIND_PLATFORM,
        ..MatchRule::NONE
    };
    let mut i = 0;
    while i < bytes.len() {
        rule.name[i] = bytes[i];
        i += 1;
    }
    rule
}

/// Identity of a PCI function, from its configuration space (PCI Local Bus 3.0, 6.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciIdentity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
}

/// What a bus says of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity<'a> {
    /// A PCI function.
    Pci(PciIdentity),
    /// A platform device with its compatible name.
    Platform(&'a str),
}

impl MatchRule {
    /// The empty rule, which matches nothing.
    pub const NONE: MatchRule = MatchRule {
        kind: 0,
        ids: [0; 4],
        reserved: 0,
        name: [0; 32],
    };

    /// Whether the rule matches the device.
    pub fn matches(&self, device: &Identity<'_>) -> bool {
        let [a, b, c, _] = self.ids;
        match (self.kind, device) {
            (KIND_PCI_DEVICE, Identity::Pci(p)) => (a, b) == (p.vendor, p.device),
            (KIND_PCI_CLASS, Identity::Pci(p)) => {
                (a, b, c) == (p.class.into(), p.subclass.into(), p.interface.into())
            }
            (KIND_PLATFORM, Identity::Platform(name)) => self.platform_name() == *name,
            _ => false,
        }
    }

    /// How much the rule says of a device; the more specific of two matching drivers wins.
    pub const fn specificity(&self) -> u32 {
        match self.kind {
            KIND_PCI_DEVICE | KIND_PLATFORM => 200,
            KIND_PCI_CLASS => 100,
            _ => 0,
        }
    }

    fn platform_name(&self) -> &str {
        let len = self
            .name
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(self.name.len());
        self.name
            .get(..len)
            .and_then(|b| core::str::from_utf8(b).ok())
            .unwrap_or("")
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        match self.kind {
            KIND_PCI_DEVICE | KIND_PCI_CLASS | KIND_PLATFORM => Ok(()),
            other => Err(ManifestError::UnknownKind(other)),
        }
    }
}

impl core::fmt::Display for MatchRule {
    /// As `pci:1af4:1042`, `pci-class:01/08/02` or `platform:uart16550`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, _] = self.ids;
        match self.kind {
            KIND_PCI_DEVICE => write!(f, "pci:{a:04x}:{b:04x}"),
            KIND_PCI_CLASS => write!(f, "pci-class:{a:02x}/{b:02x}/{c:02x}"),
            KIND_PLATFORM => write!(f, "platform:{}", self.platform_name()),
            other => write!(f, "unknown:{other}"),
        }
    }
}
