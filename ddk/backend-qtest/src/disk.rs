//! Disks of a machine: an image, and what is to go wrong with it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A disk, to be named in a `-device` argument as `drive=NAME`.
///
/// Its image is raw. Above it lie faults, if any were asked for, and a throttle that is open until
/// [`hold`](crate::QtestMachine::hold).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    pub(crate) name: String,
    image: PathBuf,
    read_only: bool,
    bad_sectors: Vec<u64>,
}

/// Bytes of the sectors of [`Disk::bad_sector`], whatever the block size of the device is.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// What a medium that cannot be read answers (Linux, errno EIO).
const IO_ERROR: u32 = 5;

impl Disk {
    /// A disk over a raw image.
    pub fn new(name: &str, image: impl AsRef<Path>) -> Disk {
        Disk {
            name: name.to_owned(),
            image: image.as_ref().to_owned(),
            read_only: false,
            bad_sectors: Vec::new(),
        }
    }

    /// The device says that it is read-only.
    #[must_use]
    pub fn read_only(mut self) -> Disk {
        self.read_only = true;
        self
    }

    /// Reads and writes that touch this sector of 512 bytes fail with an error of the medium (blkdebug).
    #[must_use]
    pub fn bad_sector(mut self, sector: u64) -> Disk {
        self.bad_sectors.push(sector);
        self
    }

    /// The group of the throttle, and a node in it that is not the disk's.
    pub(crate) fn group(&self) -> String {
        format!("{}-throttle", self.name)
    }

    pub(crate) fn ballast(&self) -> String {
        format!("{}-ballast", self.name)
    }

    /// QEMU's arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let name = &self.name;
        let (file, medium) = (format!("{name}-file"), format!("{name}-medium"));
        let mut nodes = vec![json!({
            "driver": "file",
            "node-name": file,
            "filename": self.image,
            "read-only": self.read_only,
            "discard": "unmap",
        })];
        let image = |node: &str| {
            json!({
                "driver": "raw",
                "node-name": node,
                "file": file,
                "read-only": self.read_only,
                "discard": "unmap",
            })
        };
        if self.bad_sectors.is_empty() {
            nodes.push(image(&medium));
        } else {
            let sound = format!("{name}-sound");
            nodes.push(image(&sound));
            let faults: Vec<Value> = self.bad_sectors.iter().map(|s| fault(*s)).collect();
            nodes.push(json!({
                "driver": "blkdebug",
                "node-name": medium,
                "image": sound,
                "read-only": self.read_only,
                "discard": "unmap",
                "inject-error": faults,
            }));
        }
        let group = self.group();
        nodes.push(json!({
            "driver": "throttle",
            "node-name": name,
            "throttle-group": group,
            "file": medium,
            "read-only": self.read_only,
            "discard": "unmap",
        }));
        nodes.push(json!({
            "driver": "throttle",
            "node-name": self.ballast(),
            "throttle-group": group,
            "file": { "driver": "null-co", "size": 1 << 20, "node-name": format!("{name}-null") },
        }));
        let throttle = json!({ "qom-type": "throttle-group", "id": group });
        let mut arguments = vec!["-object".to_owned(), throttle.to_string()];
        for node in nodes {
            arguments.extend(["-blockdev".to_owned(), node.to_string()]);
        }
        arguments
    }
}

/// An entry of blkdebug's list: each access of that sector fails.
fn fault(sector: u64) -> Value {
    json!({
        "event": "none",
        "errno": IO_ERROR,
        "sector": sector,
        "once": false,
    })
}
