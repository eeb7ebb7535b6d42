//! The process `depot`: waits for disks in the place of those who must not.
//!
//! Crash reports and their traces, which init keeps in memory, go to a disk or partition of their own
//! ([`proto::crash_report::area`]): the one that `BULKHEAD_CRASH` names (`disk:/NAME`), or the partition with the name `bulkhead-crash` in
//! its table. Drivers in `/drivers`, or the folder that `BULKHEAD_DRIVERS` names, go to the device manager ([`drivers`]). Start-up
//! handles: `proc`, `disk`, `file`, `dev`, `drv`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod drivers;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use block_client::{Disk, DiskReader, SessionError};
use proto::crash_report::{Report, area, trace};
use proto::devmgr::EndpointsClient;
use proto::proc::ProcessesClient;
use rt::ipc::CallError;
use rt::{Channel, Vmo, startup};
use supervision::Supervised;

rt::entry!(main);

/// Name in its partition table of a partition for reports.
const PARTITION: &str = "bulkhead-crash";
/// Key of the vault: number of the last report that is done with.
const SEEN: &str = "seen";
/// Between two reports that are saved: who dies again and again shall not keep the disk busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How long init is asked for a report at a time, and until a disk that is not there is looked for again.
const WAIT: Duration = Duration::from_secs(20);

fn main() {
    if let Err(why) = run() {
        rt::error!("{why}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let channel = |name: &str| {
        startup::take::<Channel>(name).ok_or_else(|| format!("started without the handle {name:?}"))
    };
    let vault = Supervised::from_startup();
    let for_drivers = vault.as_ref().and_then(|vault| vault.duplicate().ok());
    let finder = rt::thread::builder("drivers").spawn(|| {
        if let Err(why) = drivers::run(for_drivers) {
            // Without this thread the process is of half the use: it starts again.
            rt::error!("drivers: {why}");
            rt::exit(1);
        }
    });
    finder.map_err(|error| format!("thread: {error}"))?;
    let proc = ProcessesClient::new(channel("proc")?).with_timeout(WAIT);
    let mut saver = Saver {
        disks: EndpointsClient::new(channel("disk")?).repeating(),
        area: None,
    };
    // What an incarnation before has saved is not saved again.
    let kept = vault
        .as_ref()
        .and_then(|vault| vault.get::<u64>(SEEN).ok()?);
    let mut seen = kept.map_or(0, |(seen, _)| seen);
    let mut told = seen;
    loop {
        if told != seen {
            told = seen;
            if let Some(Err(error)) = vault.as_ref().map(|v| v.put(SEEN, &seen, Vec::new())) {
                rt::warn!("{error}");
            }
        }
        let report = match proc.next_crash(seen) {
            Ok(report) => report,
            // None for as long as a call lasts.
            Err(CallError::Transport(rt::Error::TimedOut)) => continue,
            Err(error) => return Err(format!("init: {error}")),
        };
        // What somebody ended by hand is no crash, though init tells of it.
        if !report.reason.is_defect() {
            seen = report.number;
            continue;
        }
        let area = match &report.trace {
            // Init may have let go of it.
            Some(_) => proc.crash_trace(report.number).ok(),
            None => None,
        };
        match saver.save(&report, area.as_ref()) {
            Ok(Some(sequence)) => {
                rt::info!("crash report {sequence} is saved: {}", report.title());
                seen = report.number;
                rt::time::sleep(PAUSE);
            }
            // There may be a disk for it later; init keeps the last reports until then.
            Ok(None) => rt::time::sleep(WAIT),
            Err(why) => {
                rt::warn!("crash report {} is not saved: {why}", report.number);
                saver.area = None;
                seen = report.number;
                rt::time::sleep(PAUSE);
            }
        }
    }
}

/// An open area.
struct Area {
    disk: DiskReader,
    slots: u64,
    /// Sequence number and slot of the newest report.
    newest: (u64, u64),
}

struct Saver {
    disks: EndpointsClient,
    area: Option<Area>,
}

fn text(error: SessionError) -> String {
    error.to_string()
}

impl Saver {
    /// Name of the endpoint for reports, if there is one.
    fn name(&self) -> Option<String> {
        match startup::env("BULKHEAD_CRASH") {
            Some("off") => None,
            Some(name) => {
                let name = name.trim_start_matches("disk:");
                Some(name.trim_start_matches('/').to_string())
            }
            None => {
                let disks = self.disks.list().ok()?;
                let is_ours = |(key, value): &(String, String)| key == "name" && value == PARTITION;
                let disk = disks.into_iter().find(|d| d.properties.iter().any(is_ours));
                Some(disk?.name)
            }
        }
    }

    fn open(&self) -> Result<Option<Area>, String> {
        let Some(name) = self.name() else {
            return Ok(None);
        };
        let Ok((_, endpoint, own_name)) = self.disks.open(&name) else {
            return Ok(None);
        };
        let disk = Disk::named(endpoint, own_name).map_err(text)?;
        let slots = area::slots(disk.len_bytes());
        if slots == 0 {
            let least = area::SLOT_BYTES;
            return Err(format!("disk:/{name} has less than {least} bytes"));
        }
        let mut disk = DiskReader::new(&disk).map_err(text)?;
        let mut newest = (0, slots.saturating_sub(1));
        let mut block: Vec<u8> = alloc::vec![0; area::BLOCK_BYTES];
        for slot in 0..slots {
            disk.read_at(place(slot), &mut block).map_err(text)?;
            if slot == 0 && !area::is_ours(&block) {
                return Err(format!("disk:/{name} holds something else"));
            }
            if let Some(head) = area::head(&block)
                && head.sequence > newest.0
            {
                newest = (head.sequence, slot);
            }
        }
        Ok(Some(Area {
            disk,
            slots,
            newest,
        }))
    }

    /// Saves a report and its trace; gives its sequence number, or `None` without a disk for it.
    fn save(&mut self, report: &Report, trace: Option<&Vmo>) -> Result<Option<u64>, String> {
        if self.area.is_none() {
            self.area = self.open()?;
        }
        let Some(area) = &mut self.area else {
            return Ok(None);
        };
        if let (Some(note), Some(vmo)) = (&report.trace, trace) {
            area.write_trace(note.bytes, vmo)?;
        }
        let body = serde_json::to_vec(report).map_err(|error| error.to_string())?;
        area.write(&body)?;
        area.disk.flush().map_err(text)?;
        Ok(Some(area.newest.0))
    }
}

impl Area {
    /// Writes the next slot.
    fn write(&mut self, body: &[u8]) -> Result<(), String> {
        let (sequence, slot) = self.newest;
        let sequence = sequence.saturating_add(1);
        let slot = slot.saturating_add(1).checked_rem(self.slots).unwrap_or(0);
        let bytes = area::encode(sequence, body);
        let bytes = bytes.ok_or_else(|| format!("{} bytes are too much", body.len()))?;
        self.disk.write_at(place(slot), &bytes).map_err(text)?;
        self.newest = (sequence, slot);
        Ok(())
    }

    /// Writes the recording of a trace into the next slots, or as much of its beginning as it may take up.
    fn write_trace(&mut self, len: u64, trace: &Vmo) -> Result<(), String> {
        let len = len.min(area::trace_bytes_max(self.slots));
        let parts = len.div_ceil(area::PART_BYTES as u64);
        let mut bytes: Vec<u8> = alloc::vec![0; area::PART_BYTES];
        for part in 0..parts {
            let at = part.saturating_mul(area::PART_BYTES as u64);
            let left = len.saturating_sub(at).min(area::PART_BYTES as u64);
            let Some(bytes) = bytes.get_mut(..left as usize) else {
                break;
            };
            if let Err(error) = trace.read(at.saturating_add(trace::RECORDING_AT as u64), bytes) {
                // The report without its trace rather than none.
                rt::warn!("a trace is not saved: {error}");
                break;
            }
            self.write(&area::part(part as u32, parts as u32, bytes))?;
        }
        Ok(())
    }
}

/// First byte of a slot.
fn place(slot: u64) -> u64 {
    slot.saturating_mul(area::SLOT_BYTES as u64)
}
