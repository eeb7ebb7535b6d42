//! What a driver says of itself: name, version, class, which devices it matches, what it needs.
//!
//! A [`Manifest`] is plain data of fixed layout (little-endian, version in the first bytes). The driver's
//! program carries it in the ELF section [`SECTION`]; the device manager reads it from there with
//! [`Manifest::from_bytes`], without running the program. It holds no policy and reads no ELF files.
//!
//! ```
//! use ddk_manifest::{Class, Identity, Manifest, PciIdentity, bar, dma, pci_class, pci_device};
//!
//! const DISK: Manifest = Manifest::new(
//!     "disk",
//!     Class::BLOCK,
//!     [0, 1, 0],
//!     &[pci_device(0x1234, 0x0001), pci_class(0x01, 0x08, 0x02)],
//!     &[bar(0), dma(64)],
//! );
//! let device = PciIdentity {
//!     vendor: 0x1b36,
//!     device: 0x0010,
//!     subsystem_vendor: 0,
//!     subsystem: 0,
//!     class: 0x01,
//!     subclass: 0x08,
//!     interface: 0x02,
//! };
//! let rule = DISK.best_match(&Identity::Pci(device)).expect("it matches by class");
//! assert_eq!(rule.to_string(), "pci-class:01/08/02");
//! // Bytes of a file are checked.
//! assert!(Manifest::from_bytes(b"no manifest").is_err());
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod device;
mod need;

pub use device::{Identity, MatchRule, PciIdentity, pci_class, pci_device, platform};
pub use need::{
    Need, NeedKind, bar, dma, interrupt_line, io_ports, memory_bars, message_interrupt, msix,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the ELF section that holds exactly one [`Manifest`].
pub const SECTION: &str = ".bulkhead.manifest";
/// First bytes of a manifest; the last one is the version of this layout.
pub const MAGIC: [u8; 8] = *b"BHDRIVR\x01";
/// Most match rules of a driver.
pub const MATCHES_MAX: usize = 16;
/// Most needs of a driver.
pub const NEEDS_MAX: usize = 12;
/// Most bytes of a name.
pub const NAME_MAX: usize = 32;

/// Class of device that a driver serves: an open number, so that a newer driver can be listed by an older
/// system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Class(pub u32);

impl Class {
    /// Disks.
    pub const BLOCK: Class = Class(1);
    /// Serial ports.
    pub const SERIAL: Class = Class(2);
    /// Network interfaces.
    pub const NET: Class = Class(3);
    /// Keyboards and pointers.
    pub const INPUT: Class = Class(4);
    /// Displays.
    pub const DISPLAY: Class = Class(5);
    /// Sound.
    pub const AUDIO: Class = Class(6);
    /// Random numbers.
    pub const RNG: Class = Class(7);
    /// USB host controllers.
    pub const USB_HOST: Class = Class(8);
    /// Buses: children are nodes of their own.
    pub const BUS: Class = Class(9);
    /// Anything else.
    pub const OTHER: Class = Class(0);

    /// Name in lower case.
    pub const fn text(self) -> &'static str {
        match self.0 {
            1 => "block",
            2 => "serial",
            3 => "net",
            4 => "input",
            5 => "display",
            6 => "audio",
            7 => "rng",
            8 => "usb-host",
            9 => "bus",
            _ => "other",
        }
    }
}

/// What to do when the driver's process ends without being asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RestartPolicy(pub u32);

impl RestartPolicy {
    /// The system's default: at once, then with growing pauses, up to a budget.
    pub const DEFAULT: RestartPolicy = RestartPolicy(0);
    /// Never.
    pub const NEVER: RestartPolicy = RestartPolicy(1);
}

/// The manifest. Fields that this version does not define are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Manifest {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Bytes of this record.
    pub size: u32,
    /// Class.
    pub class: Class,
    /// Name in UTF-8, zero-filled. See [`Manifest::name`].
    pub name: [u8; NAME_MAX],
    /// Version: major, minor, patch.
    pub version: [u16; 3],
    /// Bit 0: [`Manifest::FALLBACK`].
    pub flags: u16,
    /// Decides between drivers whose rules are equally specific; higher wins.
    pub priority: i32,
    /// What to do when it dies.
    pub restart: RestartPolicy,
    /// Version of the state that the driver saves; 0 for none.
    pub state_schema: u32,
    /// Rules in use of `matches`.
    pub match_count: u32,
    /// Needs in use of `needs`.
    pub need_count: u32,
    /// Unused, zero.
    pub reserved: u32,
    /// The driver matches a device that any of these matches. See [`Manifest::matches`].
    pub matches: [MatchRule; MATCHES_MAX],
    /// What it must be granted. See [`Manifest::needs`].
    pub needs: [Need; NEEDS_MAX],
}

/// Why bytes are no manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// Fewer or more bytes than one manifest has.
    Size {
        /// Bytes of a manifest of this version.
        expected: usize,
        /// Bytes that were there.
        seen: usize,
    },
    /// It does not begin with [`MAGIC`].
    Magic,
    /// The name is empty, not UTF-8, or holds other than letters, digits, `-` and `_`.
    Name,
    /// A count is larger than its table.
    Count {
        /// Entries of the table.
        limit: usize,
        /// The count.
        seen: usize,
    },
    /// A rule or need is of a kind that this version does not know.
    UnknownKind(u32),
}

impl core::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ManifestError::Size { expected, seen } => {
                write!(f, "manifest has {seen} bytes, expected {expected}")
            }
            ManifestError::Magic => f.write_str("not a driver manifest of this version"),
            ManifestError::Name => f.write_str("driver name is not a plain word"),
            ManifestError::Count { limit, seen } => {
                write!(f, "manifest counts {seen} entries, at most {limit} fit")
            }
            ManifestError::UnknownKind(kind) => write!(f, "unknown kind {kind} of rule or need"),
        }
    }
}

impl core::error::Error for ManifestError {}

impl Manifest {
    /// [`Manifest::flags`]: used only when no other driver matches.
    pub const FALLBACK: u16 = 1;

    /// A manifest, checked while compiling.
    ///
    /// # Panics
    /// When the name or a list is too long, which stops the build because manifests are constants.
    pub const fn new(
        name: &str,
        class: Class,
        version: [u16; 3],
        matches: &[MatchRule],
        needs: &[Need],
    ) -> Manifest {
        assert!(
            !name.is_empty() && name.len() <= NAME_MAX,
            "the name has 1 to 32 bytes"
        );
        assert!(matches.len() <= MATCHES_MAX, "at most 16 match rules");
        assert!(needs.len() <= NEEDS_MAX, "at most 12 needs");
        let mut manifest = Manifest {
            magic: MAGIC,
            size: size_of::<Manifest>() as u32,
            class,
            name: [0; NAME_MAX],
            version,
            flags: 0,
            priority: 0,
            restart: RestartPolicy::DEFAULT,
            state_schema: 0,
            match_count: matches.len() as u32,
            need_count: needs.len() as u32,
            reserved: 0,
            matches: [MatchRule::NONE; MATCHES_MAX],
            needs: [Need::NONE; NEEDS_MAX],
        };
        let mut i = 0;
        while i < name.len() {
            assert!(
                plain(name.as_bytes()[i]),
                "letters, digits, '-' and '_' make a name"
            );
            manifest.name[i] = name.as_bytes()[i];
            i += 1;
        }
        let mut i = 0;
        while i < matches.len() {
            manifest.matches[i] = matches[i];
            i += 1;
        }
        let mut i = 0;
        while i < needs.len() {
            manifest.needs[i] = needs[i];
            i += 1;
        }
        manifest
    }

    /// The same with a priority among equally specific drivers.
    pub const fn with_priority(mut self, priority: i32) -> Manifest {
        self.priority = priority;
        self
    }

    /// The same as a driver of last resort.
    pub const fn as_fallback(mut self) -> Manifest {
        self.flags |= Manifest::FALLBACK;
        self
    }

    /// The same with a restart policy.
    pub const fn with_restart(mut self, restart: RestartPolicy) -> Manifest {
        self.restart = restart;
        self
    }

    /// Reads the contents of the section [`SECTION`] of a program.
    ///
    /// # Errors
    /// See [`ManifestError`]. Any bytes are safe to pass.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let expected = size_of::<Manifest>();
        let size_error = ManifestError::Size {
            expected,
            seen: bytes.len(),
        };
        let manifest = Manifest::read_from_bytes(bytes).map_err(|_| size_error)?;
        if manifest.magic != MAGIC {
            return Err(ManifestError::Magic);
        }
        if manifest.size as usize != expected {
            return Err(ManifestError::Size {
                expected,
                seen: manifest.size as usize,
            });
        }
        let (matches, needs) = (manifest.match_count as usize, manifest.need_count as usize);
        if matches > MATCHES_MAX {
            return Err(ManifestError::Count {
                limit: MATCHES_MAX,
                seen: matches,
            });
        }
        if needs > NEEDS_MAX {
            return Err(ManifestError::Count {
                limit: NEEDS_MAX,
                seen: needs,
            });
        }
        if manifest.name().is_empty() || !manifest.name().bytes().all(plain) {
            return Err(ManifestError::Name);
        }
        for rule in manifest.matches() {
            rule.check()?;
        }
        for need in manifest.needs() {
            need.check()?;
        }
        Ok(manifest)
    }

    /// The name; empty if the bytes are no UTF-8.
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|&b| b == 0).unwrap_or(NAME_MAX);
        self.name
            .get(..len)
            .and_then(|b| core::str::from_utf8(b).ok())
            .unwrap_or("")
    }

    /// The rules in use.
    pub fn matches(&self) -> &[MatchRule] {
        self.matches.get(..self.match_count as usize).unwrap_or(&[])
    }

    /// The needs in use.
    pub fn needs(&self) -> &[Need] {
        self.needs.get(..self.need_count as usize).unwrap_or(&[])
    }

    /// Whether it is a driver of last resort.
    pub fn is_fallback(&self) -> bool {
        self.flags & Manifest::FALLBACK != 0
    }

    /// The most specific rule that matches the device, if any does.
    pub fn best_match(&self, device: &Identity<'_>) -> Option<&MatchRule> {
        self.matches()
            .iter()
            .filter(|r| r.matches(device))
            .max_by_key(|r| r.specificity())
    }
}

const fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

const _: () = assert!(size_of::<MatchRule>() == 48 && size_of::<Need>() == 16);
const _: () = assert!(size_of::<Manifest>() == 80 + 48 * MATCHES_MAX + 16 * NEEDS_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLK: Manifest = Manifest::new(
        "virtio-blk",
        Class::BLOCK,
        [0, 1, 0],
        &[
            pci_device(0x1af4, 0x1042),
            pci_class(0x01, 0x08, 0x02),
            platform("uart16550"),
        ],
        &[memory_bars(), msix(1, 9), dma(64)],
    );

    #[test]
    fn survives_the_way_through_bytes() {
        let read = Manifest::from_bytes(BLK.as_bytes()).unwrap();
        assert_eq!(read, BLK);
        assert_eq!(read.name(), "virtio-blk");
        assert_eq!(read.matches().len(), 3);
        assert_eq!(read.needs()[1].kind(), NeedKind::Msix { min: 1, max: 9 });
        assert_eq!(read.needs()[2].kind(), NeedKind::Dma { address_bits: 64 });
    }

    #[test]
    fn the_exact_device_beats_the_class() {
        let device = Identity::Pci(PciIdentity {
            vendor: 0x1af4,
            device: 0x1042,
            subsystem_vendor: 0,
            subsystem: 0,
            class: 1,
            subclass: 8,
            interface: 2,
        });
        assert_eq!(BLK.best_match(&device), Some(&BLK.matches[0]));
        assert_eq!(
            BLK.best_match(&Identity::Platform("uart16550")),
            Some(&BLK.matches[2])
        );
        assert_eq!(BLK.best_match(&Identity::Platform("uart1655")), None);
    }

    #[test]
    fn defects_are_named() {
        assert!(matches!(
            Manifest::from_bytes(&[]),
            Err(ManifestError::Size { seen: 0, .. })
        ));
        let mut m = BLK;
        m.magic[7] = 9;
        assert_eq!(
            Manifest::from_bytes(m.as_bytes()),
            Err(ManifestError::Magic)
        );
        let mut m = BLK;
        m.need_count = 13;
        let count = Err(ManifestError::Count {
            limit: 12,
            seen: 13,
        });
        assert_eq!(Manifest::from_bytes(m.as_bytes()), count);
        let mut m = BLK;
        m.name[0] = b'/';
        assert_eq!(Manifest::from_bytes(m.as_bytes()), Err(ManifestError::Name));
    }

    proptest! {
        #[test]
        fn no_byte_string_panics(at in 0usize..size_of::<Manifest>(), value: u8, cut in 0usize..2000) {
            let mut bytes = BLK.as_bytes().to_vec();
            bytes[at] = value;
            if let Ok(m) = Manifest::from_bytes(&bytes) {
                prop_assert!(!m.name().is_empty());
                let _ = m.best_match(&Identity::Platform("x"));
            }
            bytes.truncate(cut);
            let _ = Manifest::from_bytes(&bytes);
        }
    }
}
