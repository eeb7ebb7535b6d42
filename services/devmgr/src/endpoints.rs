//! The table of endpoints, disks before their partitions, in a stable order.
//!
//! Generic over what stands behind an entry, so that it is tested without channels.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proto::devmgr::{Class, DevError, EndpointInfo};
use serde::{Deserialize, Serialize};

/// Most properties of an endpoint, and most bytes of a name or value: what a publisher says is kept, so it
/// is bounded.
const PROPERTIES_MAX: usize = 32;
const PROPERTY_BYTES_MAX: usize = 256;
/// Highest partition number.
pub const PARTITION_MAX: u32 = 1024;

/// Order in which names are listed: the text before a number, then the number.
type Key = Vec<(String, u64)>;

fn key(name: &str) -> Key {
    let mut parts: Key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_len = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, tail) = rest.split_at(text_len);
        let number_len = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, tail) = tail.split_at(number_len);
        parts.push((text.to_string(), number.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    parts
}

/// What is asked of a whole disk's partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Scan {
    /// Nobody looked yet.
    Waiting,
    /// The `part` service has it.
    UnderWay,
    /// Done.
    Done,
}

struct Entry<E> {
    info: EndpointInfo,
    endpoint: E,
    scan: Scan,
}

/// Endpoints by class and name.
pub struct Table<E> {
    entries: BTreeMap<(Class, Key), Entry<E>>,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Table {
            entries: BTreeMap::new(),
        }
    }
}

impl<E> Table<E> {
    /// Adds an endpoint.
    ///
    /// # Errors
    /// [`DevError::AlreadyExists`], [`DevError::Invalid`].
    pub fn publish(&mut self, info: EndpointInfo, endpoint: E) -> Result<(), DevError> {
        let long = |s: &String| s.len() > PROPERTY_BYTES_MAX;
        if info.properties.len() > PROPERTIES_MAX
            || info.properties.iter().any(|(n, v)| long(n) || long(v))
        {
            return Err(DevError::Invalid(String::from("properties")));
        }
        let key = (info.class, key(&info.name));
        if self.entries.contains_key(&key) {
            return Err(DevError::AlreadyExists);
        }
        let scan = if info.class == Class::Block && info.parent.is_none() {
            Scan::Waiting
        } else {
            Scan::Done
        };
        self.entries.insert(
            key,
            Entry {
                info,
                endpoint,
                scan,
            },
        );
        Ok(())
    }

    /// Adds a partition of a disk; gives its name.
    ///
    /// # Errors
    /// [`DevError::NotFound`] when the disk is not there in that epoch, and those of [`Table::publish`].
    pub fn publish_partition(
        &mut self,
        parent: &str,
        epoch: u32,
        number: u32,
        properties: Vec<(String, String)>,
        endpoint: E,
    ) -> Result<String, DevError> {
        if !(1..=PARTITION_MAX).contains(&number) {
            return Err(DevError::Invalid(String::from("partition number")));
        }
        let disk = self
            .get(Class::Block, parent)
            .filter(|(info, _)| info.epoch == epoch && info.parent.is_none())
            .map(|(info, _)| info.clone())
            .ok_or(DevError::NotFound)?;
        let name = format!("{parent}p{number}");
        let info = EndpointInfo {
            name: name.clone(),
            parent: Some(disk.name.clone()),
            properties,
            ..disk
        };
        // A service that died half way through a table publishes what it had published again.
        let again = self.get(Class::Block, &name);
        if again.is_some_and(|(there, _)| there.parent == info.parent && there.epoch == epoch) {
            self.entries.remove(&(Class::Block, key(&name)));
        }
        self.publish(info, endpoint)?;
        Ok(name)
    }

    /// Everything that is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&EndpointInfo, Scan, &E)> {
        let entries = self.entries.values();
        entries.map(|entry| (&entry.info, entry.scan, &entry.endpoint))
    }

    /// Puts an endpoint back that was in a table before.
    pub fn restore(&mut self, info: EndpointInfo, endpoint: E, scan: Scan) {
        let key = (info.class, key(&info.name));
        let entry = Entry {
            info,
            endpoint,
            scan,
        };
        self.entries.insert(key, entry);
    }

    /// The endpoint of that name.
    pub fn get(&self, class: Class, name: &str) -> Option<(&EndpointInfo, &E)> {
        self.entries
            .get(&(class, key(name)))
            .filter(|e| e.info.name == name)
            .map(|e| (&e.info, &e.endpoint))
    }

    /// All endpoints of a class in their stable order.
    pub fn list(&self, class: Class) -> Vec<EndpointInfo> {
        self.entries
            .values()
            .filter(|e| e.info.class == class)
            .map(|e| e.info.clone())
            .collect()
    }

    /// Names with scheme of what a node serves.
    pub fn of_node(&self, node: &str) -> Vec<String> {
        self.entries
            .values()
            .filter(|e| e.info.node == node)
            .map(|e| format!("{}:/{}", scheme(e.info.class), e.info.name))
            .collect()
    }

    /// Takes away what a node serves, partitions included; gives what it was.
    pub fn withdraw(&mut self, node: &str) -> Vec<EndpointInfo> {
        let mut gone = Vec::new();
        self.entries.retain(|_, e| {
            let stays = e.info.node != node;
            if !stays {
                gone.push(e.info.clone());
            }
            stays
        });
        gone
    }

    /// The next disk that nobody looked at for partitions; it is under way from then on.
    pub fn next_unscanned(&mut self) -> Option<(&EndpointInfo, &E)> {
        let entry = self
            .entries
            .values_mut()
            .find(|e| e.scan == Scan::Waiting)?;
        entry.scan = Scan::UnderWay;
        Some((&entry.info, &entry.endpoint))
    }

    /// A disk's partitions are all published.
    ///
    /// # Errors
    /// [`DevError::NotFound`] when the disk is not there in that epoch.
    pub fn scanned(&mut self, disk: &str, epoch: u32) -> Result<(), DevError> {
        let entry = self
            .entries
            .get_mut(&(Class::Block, key(disk)))
            .filter(|e| e.info.epoch == epoch && e.info.name == disk)
            .ok_or(DevError::NotFound)?;
        entry.scan = Scan::Done;
        Ok(())
    }

    /// Whether a disk is there and was looked at.
    pub fn is_scanned(&self, disk: &str) -> bool {
        let entry = self.entries.get(&(Class::Block, key(disk)));
        entry.is_some_and(|e| e.scan == Scan::Done && e.info.name == disk)
    }

    /// Hands all disks under way out again: the `part` service that had them is gone.
    pub fn rescan(&mut self) {
        for e in self.entries.values_mut() {
            if e.scan == Scan::UnderWay {
                e.scan = Scan::Waiting;
            }
        }
    }

    /// Whether every disk was looked at.
    pub fn all_scanned(&self) -> bool {
        self.entries.values().all(|e| e.scan == Scan::Done)
    }
}

/// The scheme that lists a class.
pub const fn scheme(class: Class) -> &'static str {
    match class {
        Class::Block => "disk",
        Class::Serial => "serial",
        Class::Net => "net",
        Class::Bus | Class::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, node: &str, epoch: u32) -> EndpointInfo {
        EndpointInfo {
            name: name.into(),
            class: Class::Block,
            parent: None,
            node: node.into(),
            driver: "virtio-blk".into(),
            epoch,
            properties: Vec::new(),
        }
    }

    fn listed(table: &Table<u32>) -> Vec<String> {
        table
            .list(Class::Block)
            .into_iter()
            .map(|e| e.name)
            .collect()
    }

    #[test]
    fn lists_in_the_order_of_numbers() {
        let mut table = Table::default();
        for (i, name) in ["virtio10", "virtio2", "nvme0n1"].iter().enumerate() {
            table.publish(disk(name, "/pci/x", 1), i as u32).unwrap();
        }
        for number in [10, 2] {
            table
                .publish_partition("virtio2", 1, number, Vec::new(), 9)
                .unwrap();
        }
        assert_eq!(
            listed(&table),
            ["nvme0n1", "virtio2", "virtio2p2", "virtio2p10", "virtio10"]
        );
        assert_eq!(table.get(Class::Block, "virtio02"), None);
        assert_eq!(
            table
                .get(Class::Block, "virtio2p2")
                .unwrap()
                .0
                .parent
                .as_deref(),
            Some("virtio2")
        );
    }

    #[test]
    fn a_dead_driver_takes_its_partitions_along() {
        let mut table = Table::default();
        table.publish(disk("virtio0", "/pci/a", 1), 0).unwrap();
        table.publish(disk("virtio1", "/pci/b", 1), 1).unwrap();
        table
            .publish_partition("virtio0", 1, 1, Vec::new(), 2)
            .unwrap();
        assert_eq!(
            table.of_node("/pci/a"),
            ["disk:/virtio0", "disk:/virtio0p1"]
        );
        assert_eq!(table.withdraw("/pci/a").len(), 2);
        assert_eq!(listed(&table), ["virtio1"]);
        // A partition of the old incarnation comes too late.
        table.publish(disk("virtio0", "/pci/a", 2), 3).unwrap();
        assert_eq!(
            table.publish_partition("virtio0", 1, 1, Vec::new(), 4),
            Err(DevError::NotFound)
        );
        assert_eq!(table.scanned("virtio0", 1), Err(DevError::NotFound));
    }

    #[test]
    fn each_disk_is_scanned_once() {
        let mut table = Table::default();
        table.publish(disk("virtio0", "/pci/a", 1), 0).unwrap();
        assert!(!table.all_scanned());
        assert_eq!(table.next_unscanned().unwrap().0.name, "virtio0");
        assert!(table.next_unscanned().is_none());
        table.rescan();
        assert!(table.next_unscanned().is_some());
        table
            .publish_partition("virtio0", 1, 1, Vec::new(), 2)
            .unwrap();
        table.scanned("virtio0", 1).unwrap();
        assert!(table.all_scanned());
        assert_eq!(
            table.publish_partition("virtio0p1", 1, 1, Vec::new(), 2),
            Err(DevError::NotFound)
        );
    }

    #[test]
    fn what_a_publisher_says_is_bounded() {
        let mut table = Table::default();
        let mut info = disk("virtio0", "/pci/a", 1);
        info.properties = vec![("x".into(), "y".repeat(257))];
        assert!(matches!(table.publish(info, 0), Err(DevError::Invalid(_))));
        table.publish(disk("virtio0", "/pci/a", 1), 0).unwrap();
        assert_eq!(
            table.publish(disk("virtio0", "/pci/a", 1), 0),
            Err(DevError::AlreadyExists)
        );
        for number in [0, 1025] {
            assert!(
                table
                    .publish_partition("virtio0", 1, number, Vec::new(), 0)
                    .is_err()
            );
        }
    }
}
