//! Drivers in a folder of the root file system: one that fits a device without a driver is handed to the device manager, which
//! never waits for a file.
//!
//! A file is offered once: who unloads a driver by hand does not get it back unasked, whichever process died since.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use devmgr::node::Device;
use devmgr::program;
use proto::bus::PciFunctionInfo;
use proto::devmgr::{DeviceTreeClient, DriverAdminClient, NodeState, NodeSummary};
use rt::{Channel, Deadline, HandleList, Vmo, startup};
use supervision::Supervised;
use unix::fs::{self, File, Kind};

const FOLDER: &str = "/drivers";
/// Longest program.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// A driver that is started may be waited for.
const LIMIT: Duration = Duration::from_secs(180);
/// Key of the vault: the files that were offered.
const OFFERED: &str = "offered";
/// How long devices have to stay as they are until mounted file systems are looked at again.
const WAIT: Duration = Duration::from_secs(5);
/// Until a device manager that is stopped is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks for drivers for as long as the system runs.
///
/// # Errors
/// When a handle is missing or there are no file systems.
pub fn run(vault: Option<Supervised>) -> Result<(), String> {
    let channel = |name: &str| {
        startup::take::<Channel>(name).ok_or_else(|| format!("started without the handle {name:?}"))
    };
    let kept = vault.as_ref().and_then(|vault| vault.get(OFFERED).ok()?);
    let mut finder = Finder {
        tree: DeviceTreeClient::new(channel("dev")?).repeating(),
        admin: DriverAdminClient::new(channel("drv")?).with_timeout(LIMIT),
        offered: kept.map_or_else(BTreeSet::new, |(offered, _)| offered),
        vault,
    };
    let folder = match startup::env("BULKHEAD_DRIVERS") {
        Some("off") => return Ok(()),
        Some(folder) => folder,
        None => FOLDER,
    };
    fs::wait_ready().map_err(|error| format!("file systems: {error}"))?;
    let mut told = false;
    loop {
        let tree = &finder.tree;
        match tree.wait_settled().and_then(|()| tree.watch()) {
            Ok(changes) => {
                told = false;
                finder.follow(folder, &changes);
            }
            // It may be stopped, and started again by hand much later.
            Err(error) => {
                if !core::mem::replace(&mut told, true) {
                    rt::warn!("no drivers of {folder} for now: device manager: {error}");
                }
                rt::time::sleep(PAUSE);
            }
        }
    }
}

struct Finder {
    tree: DeviceTreeClient,
    admin: DriverAdminClient,
    /// Files that the device manager was offered.
    offered: BTreeSet<String>,
    /// They are kept there.
    vault: Option<Supervised>,
}

impl Finder {
    /// Looks whenever a device changes or a file system is mounted, until nobody tells of changes any more.
    fn follow(&mut self, folder: &str, changes: &Channel) {
        let (mut message, mut mounted) = (Vec::new(), None);
        loop {
            self.look(folder);
            loop {
                let (mut handles, until) = (HandleList::new(), Deadline::after(WAIT));
                match changes.read_vec(&mut message, &mut handles, until) {
                    Ok(_) => break,
                    Err(rt::Error::TimedOut) => {
                        let now = fs::mounts().map(|mounts| mounts.len()).ok();
                        if core::mem::replace(&mut mounted, now) != now {
                            break;
                        }
                    }
                    Err(_) => return,
                }
            }
            // What comes at once is looked at at once.
            let now = Deadline::NOW;
            while changes
                .read_vec(&mut message, &mut HandleList::new(), now)
                .is_ok()
            {}
        }
    }

    fn look(&mut self, folder: &str) {
        let devices = self.devices_without_driver();
        if devices.is_empty() {
            return;
        }
        // Most systems have no such folder.
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.iter().filter(|entry| entry.kind == Kind::Regular) {
            let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
            if self.offered.contains(&path) {
                continue;
            }
            match offer(&self.admin, &path, &devices) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(why) => rt::warn!("{path}: {why}"),
            }
            self.offered.insert(path);
            let kept = self.vault.as_ref();
            if let Some(Err(error)) = kept.map(|v| v.put(OFFERED, &self.offered, Vec::new())) {
                rt::warn!("{error}");
            }
        }
    }

    /// PCI functions that nobody serves. Empty when the device manager does not say.
    fn devices_without_driver(&self) -> Vec<PciFunctionInfo> {
        const BATCH: u32 = 64;
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let nodes = self.tree.list(&after, BATCH).unwrap_or_default();
            match nodes.last() {
                Some(last) if last.path > after => after.clone_from(&last.path),
                _ => return found,
            }
            let free = |n: &&NodeSummary| n.state == NodeState::Unbound && n.driver.is_none();
            for node in nodes.iter().filter(free) {
                let node = self.tree.node(&node.path);
                found.extend(node.ok().and_then(|node| node.pci));
            }
        }
    }
}

/// Hands a driver over if it fits one of the devices; tells whether it did.
fn offer(
    admin: &DriverAdminClient,
    path: &str,
    devices: &[PciFunctionInfo],
) -> Result<bool, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let manifest = program::manifest(|offset, buffer| {
        let read = file.read_at(offset, buffer).ok()?;
        (read == buffer.len()).then_some(())
    });
    let manifest = manifest.map_err(|error| error.to_string())?;
    let manifest = manifest.ok_or("it has no driver's manifest")?;
    let fits = |info: &PciFunctionInfo| {
        let device = Device::Pci(info.clone());
        let identity = device.identity();
        identity.is_some_and(|identity| manifest.best_match(&identity).is_some())
    };
    if !devices.iter().any(fits) {
        return Ok(false);
    }
    let length = file.metadata().map_err(|error| error.to_string())?.size;
    if length > PROGRAM_BYTES_MAX {
        return Err(format!("longer than {PROGRAM_BYTES_MAX} bytes"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let vmo = Vmo::create(bytes.len()).and_then(|vmo| vmo.write(0, &bytes).map(|()| vmo));
    let vmo = vmo.map_err(|error| error.to_string())?;
    let loaded = admin.load(path, bytes.len() as u64, vmo);
    let program = loaded.map_err(|error| format!("{error}"))?;
    let (driver, version, nodes) = (program.driver, program.version, program.nodes.join(", "));
    rt::info!("{path}: {driver} {version} for {nodes}");
    Ok(true)
}
