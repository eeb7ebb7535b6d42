//! Fuzz targets: what must bear any bytes, as functions of bytes.
//!
//! [`TARGETS`] lists them: parsers of what comes from disks, firmware, files and clients, and whole drivers
//! over a [hostile device](hostile). A panic, an endless loop or an access outside of what was granted is a
//! finding. `cargo xtask fuzz` drives them with libFuzzer; an ordinary `cargo test` replays the corpora in
//! `corpus/TARGET/`. No oracle for right answers stands here: the packages' own tests have those.
#![forbid(unsafe_code)]

mod block;
mod bus;
mod drivers;
mod filesystems;
pub mod hostile;
mod input;
mod net;
mod parsers;
mod requests;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name, also of the folder of its corpus.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Longest input worth trying, in bytes.
    pub bytes_max: usize,
    /// Feeds it.
    pub run: fn(&[u8]),
}

const fn target(
    name: &'static str,
    bytes_max: usize,
    run: fn(&[u8]),
    about: &'static str,
) -> Target {
    Target {
        name,
        about,
        bytes_max,
        run,
    }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target(
        "virtio-blk",
        4096,
        drivers::virtio_blk,
        "driver virtio-blk over a hostile device, with requests",
    ),
    target(
        "virtio-blk-client",
        4096,
        block::virtio_blk_client,
        "driver virtio-blk and an honest device, with a hostile client",
    ),
    target(
        "nvme",
        8192,
        drivers::nvme,
        "driver nvme over a hostile device, with requests",
    ),
    target(
        "virtio-net",
        4096,
        drivers::virtio_net,
        "driver virtio-net over a hostile device, with frames",
    ),
    target(
        "virtio-net-client",
        4096,
        net::virtio_net_client,
        "driver virtio-net and an honest device, with a hostile client",
    ),
    target(
        "e1000",
        4096,
        drivers::e1000,
        "driver e1000 over hostile devices, with frames",
    ),
    target(
        "e1000-client",
        4096,
        net::e1000_client,
        "driver e1000 and honest devices, with a hostile client",
    ),
    target(
        "edu",
        2048,
        drivers::edu,
        "driver edu over a hostile device",
    ),
    target(
        "uart16550",
        2048,
        drivers::uart16550,
        "driver uart16550 over hostile ports",
    ),
    target(
        "pci-bus",
        4096,
        bus::pci_bus,
        "PCI bus driver over hostile functions",
    ),
    target("partitions", 8192, filesystems::partitions, "GPT and MBR"),
    target("ext", 65536, filesystems::ext, "ext2, ext3 and ext4"),
    target("fat", 65536, filesystems::fat, "FAT12, FAT16 and FAT32"),
    target("acpi-tables", 4096, parsers::acpi_tables, "ACPI tables"),
    target("aml", 4096, parsers::aml, "ACPI definition blocks"),
    target("elf", 4096, parsers::elf, "program images"),
    target(
        "manifest",
        4096,
        parsers::manifest,
        "driver manifests, in programs and alone",
    ),
    target(
        "boot-archive",
        4096,
        parsers::boot_archive,
        "the boot archive",
    ),
    target(
        "control-link",
        8192,
        parsers::control_link,
        "frames of the control port, both ways",
    ),
    target("ipc", 4096, requests::ipc, "requests of every protocol"),
];

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
