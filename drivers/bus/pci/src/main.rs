//! The process `pci`: the bus driver of one PCI host bridge. Nobody else reaches configuration space.
//!
//! Handles: `serve:bus` ([`proto::bus::PciBusServer`]), `log`, `ecam` (`Mmio` resource of the configuration
//! space) or `ports` (`IoPort` 0xcf8 to 0xcff), `bars:N` (`Mmio` resources of the apertures, for MSI-X tables
//! and virtio's device status), `irq0` (the interrupt of slots whose devices come and go), `events` (its devmgr's
//! ears). The successor of one that died also gets `topology` (a VMO with the descriptions of all functions): then
//! nothing is written to the configuration space of devices. Arguments: see [`pci_bus::arguments`].
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod server;
mod slots;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use access::Access;
use pci_bus::arguments::Host;
use pci_bus::assign;
use pci_bus::enumerate;
use proto::bus::PciFunctionInfo;
use rt::{Channel, Vmo, startup};
use slots::Start;

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
    let apertures = access::usable(&host);
    let mut gone = Vec::new();
    let (topology, start) = match startup::take::<Vmo>("topology") {
        Some(known) => {
            let known = read(&known)?;
            gone.extend(known.iter().map(|info| info.address));
            let topology = enumerate::take_over(&access, known);
            gone.retain(|address| topology.find(*address).is_none());
            (topology, Start::Successor)
        }
        None => {
            let mut topology = enumerate::enumerate(&access, segment, &host.roots);
            assign::assign(&access, &mut topology, &apertures);
            (topology, Start::First)
        }
    };
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
    let events = startup::take("events");
    let mut bus = server::Bus::new(access, topology, apertures, channel, events, start)?;
    if start == Start::Successor {
        bus.catch_up(&gone);
    }
    bus.run()
}

/// The descriptions of functions that devmgr keeps.
fn read(known: &Vmo) -> Result<Vec<PciFunctionInfo>, String> {
    let text = |e: rt::Error| format!("topology: {e}");
    let len = known.size().map_err(text)?;
    let mut bytes = alloc::vec![0; usize::try_from(len).map_err(|e| e.to_string())?];
    known.read(0, &mut bytes).map_err(text)?;
    // What follows in the last page is no part of it.
    let (infos, _) = postcard::take_from_bytes(&bytes).map_err(|e| format!("topology: {e}"))?;
    Ok(infos)
}
