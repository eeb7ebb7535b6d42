//! Stable names of endpoints: `virtio0`, `nvme0n1`, `uart0`, `eth0`.
//!
//! A number belongs to a stem and a node's path and stays with them as long as the system runs, so that a
//! restarted driver has its old name. Nodes are numbered in the order of their paths when they are bound,
//! not in the order in which drivers happen to start.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ddk_manifest::Class;
use serde::{Deserialize, Serialize};

/// Most bytes of a suffix.
const SUFFIX_MAX: usize = 16;

/// Numbers given out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Names {
    numbers: BTreeMap<(String, String), u32>,
    next: BTreeMap<String, u32>,
}

/// The stem of a driver's endpoints. Interfaces are `eth`, whatever drives them, and serial ports of a hypervisor `hvc`;
/// else it is the driver's name up to the first `-`, without digits at the end.
pub fn stem(class: Class, driver: &str) -> &str {
    if class == Class::NET {
        return "eth";
    }
    // Not among the disks of virtio, which are `virtio` too.
    if class == Class::SERIAL && driver.starts_with("virtio-") {
        return "hvc";
    }
    let word = driver.split('-').next().unwrap_or(driver);
    let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.is_empty() { word } else { stem }
}

impl Names {
    /// Numbers all nodes that were bound together: (path, stem of the driver).
    pub fn reserve<'a>(&mut self, bound: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut bound: Vec<_> = bound.into_iter().collect();
        bound.sort_unstable();
        for (path, stem) in bound {
            self.number(path, stem);
        }
    }

    fn number(&mut self, path: &str, stem: &str) -> u32 {
        let stem = stem.to_string();
        let next = &mut self.next;
        *self
            .numbers
            .entry((stem.clone(), path.to_string()))
            .or_insert_with(|| {
                let next = next.entry(stem).or_insert(0);
                let number = *next;
                *next = next.saturating_add(1);
                number
            })
    }

    /// Name of an endpoint of the driver with this stem at that node; `None` for a suffix that is no plain word.
    pub fn name(&mut self, path: &str, stem: &str, suffix: &str) -> Option<String> {
        let plain = suffix.len() <= SUFFIX_MAX
            && suffix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain {
            return None;
        }
        let number = self.number(path, stem);
        Some(format!("{stem}{number}{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems() {
        assert_eq!(stem(Class::BLOCK, "virtio-blk"), "virtio");
        assert_eq!(stem(Class::SERIAL, "uart16550"), "uart");
        assert_eq!(stem(Class::SERIAL, "virtio-console"), "hvc");
        assert_eq!(stem(Class::SERIAL, "8250"), "8250");
        assert_eq!(stem(Class::BLOCK, "nvme"), "nvme");
        assert_eq!(stem(Class::NET, "virtio-net"), "eth");
    }

    #[test]
    fn numbers_follow_paths_and_stay() {
        let mut names = Names::default();
        names.reserve([
            ("/pci/00:05.0", "virtio"),
            ("/pci/00:03.0", "nvme"),
            ("/pci/00:04.0", "virtio"),
        ]);
        let mut name = |p: &str, d: &str, s: &str| names.name(p, d, s);
        assert_eq!(
            name("/pci/00:05.0", "virtio", "").as_deref(),
            Some("virtio1")
        );
        assert_eq!(
            name("/pci/00:04.0", "virtio", "").as_deref(),
            Some("virtio0")
        );
        assert_eq!(
            name("/pci/00:03.0", "nvme", "n1").as_deref(),
            Some("nvme0n1")
        );
        // Plugged in later: the next number, although the path comes first.
        assert_eq!(
            name("/pci/00:02.0", "virtio", "").as_deref(),
            Some("virtio2")
        );
        assert_eq!(
            name("/pci/00:04.0", "virtio", "").as_deref(),
            Some("virtio0")
        );
        assert_eq!(name("/pci/00:04.0", "virtio", "../x"), None);
    }
}
