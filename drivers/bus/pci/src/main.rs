//! The process `pci`: the bus driver of one PCI host bridge. Nobody else reaches configuration space.
//!
//! Handles: `serve:bus` ([`proto::bus::PciBusServer`]), `log`, `ecam` (`Mmio` resource of the configuration
//! space) or `ports` (`IoPort` 0xcf8 to 0xcff), `bars:N` (`Mmio` resources of the apertures, for MSI-X tables
//! and virtio's device status), `irq0` (the interrupt of slots whose devices come and go). Arguments: see [`pci_bus::arguments`].
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod server;
mod slots;

use alloc::string::String;

use access::Access;
use pci_bus::arguments::Host;
use pci_bus::assign;
use pci_bus::enumerate;
use rt::{Channel, startup};

rt::entry!(main);

fn main() {
    if let Err(why) = run() {
        rt::error!("{why}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let words = startup::args().iter().skip(1).map(String::as_str);
    let host = Host::from_words(words)?;
    let channel: Channel = startup::take("serve:bus").ok_or("no channel to serve")?;
    let access = Access::open(&host)?;
    let segment = host.ecam.map_or(0, |e| e.segment);
    let mut topology = enumerate::enumerate(&access, segment, &host.roots);
    let apertures = access::usable(&host);
    assign::assign(&access, &mut topology, &apertures);
    for problem in &topology.problems {
        rt::warn!("{problem}");
    }
    for f in &topology.functions {
        for fault in &f.info.faults {
            rt::warn!("{}: {fault}", f.info.address);
        }
    }
    rt::info!(
        "{} functions by {}",
        topology.functions.len(),
        access.describe()
    );
    server::Bus::new(access, topology, apertures, channel)?.run()
}
