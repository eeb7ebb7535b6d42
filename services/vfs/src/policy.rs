//! Which disk is mounted where at boot. Order is by name, not by who was found
//! first; names end in numbers, which count as such.

use alloc::{string::String, vec::Vec};
use core::cmp::Ordering;

/// A disk or partition with a file system on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDisk {
    /// Its name: `virtio0p1`.
    pub name: String,
}

/// What `root=` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootChoice {
    /// The first disk that has a file system.
    First,
    /// The disk of this name.
    Named(String),
}

impl RootChoice {
    /// From the configuration: nothing, `NAME` or `disk:/NAME`.
    pub fn parse(text: Option<&str>) -> Self {
        match text.map(|text| {
            text.trim()
                .trim_start_matches("disk:")
                .trim_start_matches('/')
        }) {
            None | Some("") => Self::First,
            Some(name) => Self::Named(name.into()),
        }
    }
}

/// A disk and its mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The disk.
    pub disk: BootDisk,
    /// `/` or `/mnt/NAME`.
    pub target: String,
}

/// Gives each disk its place, the root first. With a root named that is not
/// there, no disk becomes the root.
pub fn assign(mut disks: Vec<BootDisk>, root: &RootChoice) -> Vec<Assignment> {
    disks.sort_by(|a, b| compare_names(&a.name, &b.name));
    let root_at = match root {
        RootChoice::First => (!disks.is_empty()).then_some(0),
        RootChoice::Named(name) => disks.iter().position(|disk| disk.name == *name),
    };
    let root_disk = root_at.map(|at| disks.remove(at));
    let root = root_disk.map(|disk| Assignment {
        disk,
        target: "/".into(),
    });
    let others = disks.into_iter().map(|disk| {
        let target = alloc::format!("/mnt/{}", disk.name);
        Assignment { disk, target }
    });
    root.into_iter().chain(others).collect()
}

/// Compares names piece by piece: digits as numbers, the rest as text.
fn compare_names(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (piece_a, piece_b) = (piece(&mut a), piece(&mut b));
        let numbers = (piece_a.parse::<u64>(), piece_b.parse::<u64>());
        let ordering = match numbers {
            (Ok(number_a), Ok(number_b)) => number_a.cmp(&number_b),
            _ => piece_a.cmp(piece_b),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    a.len().cmp(&b.len())
}

/// Takes the leading digits, or the leading non-digits.
fn piece<'a>(text: &mut &'a str) -> &'a str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (piece, rest) = text.split_at(end);
    *text = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(names: &[&str]) -> Vec<BootDisk> {
        names
            .iter()
            .map(|name| BootDisk {
                name: (*name).into(),
            })
            .collect()
    }

    fn targets(names: &[&str], root: &str) -> Vec<(String, String)> {
        let choice = RootChoice::parse(Some(root));
        assign(disks(names), &choice)
            .into_iter()
            .map(|a| (a.disk.name, a.target))
            .collect()
    }

    #[test]
    fn the_first_by_name_is_the_root() {
        let got = targets(&["virtio10", "virtio2p10", "virtio2p9", "nvme0"], "");
        let expected = [
            ("nvme0", "/"),
            ("virtio2p9", "/mnt/virtio2p9"),
            ("virtio2p10", "/mnt/virtio2p10"),
            ("virtio10", "/mnt/virtio10"),
        ];
        assert_eq!(got, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    }

    #[test]
    fn a_root_can_be_named_and_be_missing() {
        assert_eq!(
            targets(&["a0", "b0"], "disk:/b0")[0],
            ("b0".into(), "/".into())
        );
        assert_eq!(
            targets(&["a0", "b0"], "b0")[1],
            ("a0".into(), "/mnt/a0".into())
        );
        assert!(
            targets(&["a0"], "c0")
                .iter()
                .all(|(_, target)| target != "/")
        );
        assert_eq!(targets(&[], ""), []);
    }
}
