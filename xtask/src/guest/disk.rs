//! A disk of the machine: what `--disk` says, and how QEMU is told.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::UsageError;

/// The bus that a disk hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk over PCI.
    #[default]
    Virtio,
    /// A namespace of an NVMe controller over PCI.
    Nvme,
}

/// All buses by the name that `bus=` takes.
const BUSES: &[(&str, Bus)] = &[("virtio", Bus::Virtio), ("nvme", Bus::Nvme)];

/// A disk and its options, as help texts show them.
pub const SYNTAX: &str = "FILE[,bus=virtio|nvme][,controller=NAME][,block=512|4096][,readonly]";

/// What the guest may do to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Writes go to the file.
    #[default]
    ReadWrite,
    /// virtio tells the guest that it is read-only; on QEMU's NVMe, which has no word for
    /// it, writes fail.
    ReadOnly,
    /// Writes work and vanish when the machine is switched off.
    Snapshot,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image: raw or qcow2, told apart by content.
    pub file: PathBuf,
    /// The bus that it hangs on.
    pub bus: Bus,
    /// NVMe disks with the same name here are namespaces of one controller; without a name a disk has a
    /// controller of its own.
    pub controller: Option<String>,
    /// Bytes of a logical block; without a number as the device has it, which is 512.
    pub block_size: Option<u32>,
    /// What the guest may do to it.
    pub access: Access,
}

impl Disk {
    /// A disk on the default bus.
    pub fn new(file: impl Into<PathBuf>, access: Access) -> Self {
        Self {
            file: file.into(),
            bus: Bus::default(),
            controller: None,
            block_size: None,
            access,
        }
    }

    /// Reads what [`SYNTAX`] shows. A file name may have commas, as
    /// options are taken from the end.
    ///
    /// # Errors
    ///
    /// [`UsageError`] for an option or a bus that is not there.
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        let mut disk = Self::new("", Access::ReadWrite);
        let mut file = text;
        while let Some((rest, option)) = file.rsplit_once(',') {
            if option == "readonly" {
                disk.access = Access::ReadOnly;
            } else if let Some(name) = option.strip_prefix("controller=") {
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
                if name.is_empty() || !plain {
                    return Err(UsageError(format!(
                        "--disk {text}: controller {name:?} is not made of letters and digits"
                    )));
                }
                disk.controller = Some(name.to_owned());
            } else if let Some(bytes) = option.strip_prefix("block=") {
                disk.block_size = match bytes {
                    "512" => Some(512),
                    "4096" => Some(4096),
                    _ => {
                        return Err(UsageError(format!(
                            "--disk {text}: blocks of {bytes:?} bytes, there are 512 and 4096"
                        )));
                    }
                };
            } else if let Some(name) = option.strip_prefix("bus=") {
                let bus = BUSES.iter().find(|(known, _)| *known == name);
                disk.bus = bus.map(|(_, bus)| *bus).ok_or_else(|| {
                    let names: Vec<&str> = BUSES.iter().map(|(name, _)| *name).collect();
                    UsageError(format!(
                        "--disk {text}: unknown bus {name:?}, there is {}",
                        names.join(", ")
                    ))
                })?;
            } else if Path::new(file).exists() {
                break;
            } else {
                return Err(UsageError(format!(
                    "--disk {text}: unknown option {option:?}, there is bus=, controller=, block= and readonly"
                )));
            }
            file = rest;
        }
        if file.is_empty() {
            return Err(UsageError(format!("--disk {text:?} names no file")));
        }
        if disk.controller.is_some() && disk.bus != Bus::Nvme {
            return Err(UsageError(format!(
                "--disk {text}: controller= is for bus=nvme"
            )));
        }
        disk.file = PathBuf::from(file);
        Ok(disk)
    }

    /// Checks that the image can be opened.
    ///
    /// # Errors
    ///
    /// [`UsageError`] with the file's name and the reason.
    pub fn check(&self) -> Result<(), UsageError> {
        let problem =
            |reason: String| UsageError(format!("disk {}: {reason}", self.file.display()));
        let data = std::fs::metadata(&self.file).map_err(|error| problem(error.to_string()))?;
        if data.is_dir() {
            return Err(problem("is a folder, not a disk image".to_owned()));
        }
        std::fs::File::options()
            .read(true)
            .write(self.access == Access::ReadWrite)
            .open(&self.file)
            .map_err(|error| problem(error.to_string()))?;
        Ok(())
    }

    fn controller_id(&self, index: usize) -> String {
        match &self.controller {
            Some(name) => format!("nvme-{name}"),
            None => format!("nvme-disk{index}"),
        }
    }

    /// QEMU's arguments for disk number `index`, behind those of [`controllers`].
    pub fn arguments(&self, index: usize, cpus: u32) -> Vec<String> {
        let node = format!("disk{index}");
        let read_only = self.access == Access::ReadOnly;
        let format = format_of(&self.file);
        let mut arguments = match self.access {
            Access::Snapshot => {
                // The one form in which QEMU makes the overlay by itself; a
                // comma in an option's value is doubled.
                let file = self.file.display().to_string().replace(',', ",,");
                vec![
                    "-drive".to_owned(),
                    format!("if=none,id={node},format={format},snapshot=on,file={file}"),
                ]
            }
            Access::ReadWrite | Access::ReadOnly => {
                let driver = if is_block_device(&self.file) {
                    "host_device"
                } else {
                    "file"
                };
                let file = json!({
                    "driver": driver,
                    "node-name": format!("{node}-file"),
                    "filename": self.file,
                    "read-only": read_only,
                    "discard": "unmap",
                });
                let image = json!({
                    "driver": format,
                    "node-name": node,
                    "file": format!("{node}-file"),
                    "read-only": read_only,
                    "discard": "unmap",
                });
                vec![
                    "-blockdev".to_owned(),
                    file.to_string(),
                    "-blockdev".to_owned(),
                    image.to_string(),
                ]
            }
        };
        let mut device = match self.bus {
            Bus::Virtio => {
                format!("virtio-blk-pci,drive={node},num-queues={cpus},disable-legacy=on")
            }
            Bus::Nvme => format!("nvme-ns,drive={node},bus={}", self.controller_id(index)),
        };
        if let Some(bytes) = self.block_size {
            device.push_str(&format!(
                ",logical_block_size={bytes},physical_block_size={bytes}"
            ));
        }
        arguments.extend(["-device".to_owned(), device]);
        arguments
    }
}

/// QEMU's arguments for the controllers that the disks hang on, as far as the disks do not bring their own.
pub fn controllers(disks: &[Disk], cpus: u32) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let id = disk.controller_id(index);
        if disk.bus != Bus::Nvme || ids.contains(&id) {
            continue;
        }
        // A queue pair for each processor, and a vector more for the admin queue.
        let device = format!(
            "nvme,id={id},serial={id},max_ioqpairs={cpus},msix_qsize={}",
            cpus + 1
        );
        arguments.extend(["-device".to_owned(), device]);
        ids.push(id);
    }
    arguments
}

/// The image's format by its first bytes. QEMU must not guess: a guest could
/// write a qcow2 header, with the name of any host file in it, to a raw disk.
fn format_of(file: &Path) -> &'static str {
    let mut magic = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if magic == *b"QFI\xfb" => "qcow2",
        _ => "raw",
    }
}

fn is_block_device(file: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(file).is_ok_and(|data| data.file_type().is_block_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_end() {
        let plain = Disk::parse("a.img").unwrap();
        assert_eq!(plain, Disk::new("a.img", Access::ReadWrite));
        let both = Disk::parse("a.img,bus=virtio,readonly").unwrap();
        assert_eq!(both, Disk::new("a.img", Access::ReadOnly));
        let nvme = Disk::parse("a.img,bus=nvme,controller=x,block=4096").unwrap();
        let expected = Disk {
            bus: Bus::Nvme,
            controller: Some("x".to_owned()),
            block_size: Some(4096),
            ..Disk::new("a.img", Access::ReadWrite)
        };
        assert_eq!(nvme, expected);
    }

    #[test]
    fn a_file_name_may_have_commas() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a,b.img");
        std::fs::write(&file, b"x").unwrap();
        let text = format!("{},readonly", file.display());
        let disk = Disk::parse(&text).unwrap();
        assert_eq!(disk, Disk::new(&file, Access::ReadOnly));
        disk.check().unwrap();
    }

    #[test]
    fn what_is_not_there_is_named() {
        let message = |text: &str| Disk::parse(text).unwrap_err().to_string();
        assert!(message("a.img,bus=floppy").contains("unknown bus \"floppy\", there is virtio"));
        assert!(message("a.img,controller=x").contains("is for bus=nvme"));
        assert!(message("a.img,bus=nvme,controller=a/b").contains("letters and digits"));
        assert!(message("a.img,block=520").contains("there are 512 and 4096"));
        assert!(message("a.img,fast").contains("unknown option \"fast\""));
        assert!(message("").contains("names no file"));
        let missing = Disk::new("/nonexistent/x.img", Access::ReadOnly);
        assert!(
            missing
                .check()
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/x.img")
        );
        assert!(Disk::new("/", Access::ReadOnly).check().is_err());
    }

    #[test]
    fn namespaces_share_the_controller_that_they_name() {
        let disk = |text: &str| Disk::parse(text).unwrap();
        let disks = [
            disk("a,bus=nvme,controller=x"),
            disk("b"),
            disk("c,bus=nvme,controller=x"),
            disk("d,bus=nvme"),
        ];
        let arguments = controllers(&disks, 2);
        assert_eq!(
            arguments,
            [
                "-device",
                "nvme,id=nvme-x,serial=nvme-x,max_ioqpairs=2,msix_qsize=3",
                "-device",
                "nvme,id=nvme-disk3,serial=nvme-disk3,max_ioqpairs=2,msix_qsize=3",
            ]
        );
        let device = |index: usize| disks[index].arguments(index, 2).pop().unwrap();
        assert_eq!(device(2), "nvme-ns,drive=disk2,bus=nvme-x");
        assert_eq!(device(3), "nvme-ns,drive=disk3,bus=nvme-disk3");
    }

    #[test]
    fn the_format_is_found_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk.raw");
        std::fs::write(&file, b"QFI\xfb and more").unwrap();
        assert_eq!(format_of(&file), "qcow2");
        std::fs::write(&file, b"QF").unwrap();
        assert_eq!(format_of(&file), "raw");
    }
}
