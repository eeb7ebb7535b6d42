//! One boot of a campaign: faults are injected into the running system from outside, one after the other.
//!
//! The system is the one that is shipped, bit for bit. Programs are mapped straight from the boot archive, so a
//! driver's code is changed by writing to the archive's pages in the guest's memory, and healed the same way.
//! The guest's side is `tests/system/endurance`, `test-campaign`: it says on the console when it is ready and
//! what it saw, and reads its orders from a page of the archive.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use boot::archive::Archive;

use super::Class;
use super::journal::{Entry, Seen};
use super::memory::Memory;
use super::mutation::{Code, Patch};
use super::plan::{self, Fault, Order};
use super::subject::{Device, Subject};
use crate::build::{self, ArchiveExtras, Built};
use crate::guest::{self, Machine, Outcome, Streams, machine};
use crate::symbols::{Annotator, Symbols};
use crate::system::endurance::check_image;

/// Blocks of 4 KiB under load: few, so that all are looked at after each fault.
const BLOCKS: usize = 256;
const DISK_BYTES: u64 = 32 << 20;
/// How long a client of the campaign waits for an answer.
const PATIENCE_MS: u32 = 700;
/// How long a fault is watched that shows nothing.
const WINDOW_US: u64 = 25_000;
/// Member of the archive through which the guest gets its orders, and its length in bytes.
const MAILBOX: &str = "etc/campaign";
const PAGE: usize = 4096;

/// What is booted.
pub struct Boot<'a> {
    /// The system.
    pub built: &'a Built,
    /// The driver that is to suffer, and its device.
    pub subject: Subject,
    /// Its code.
    pub code: &'a Code,
    /// Processors.
    pub cpus: u32,
    /// Whether an IOMMU stands between device and memory.
    pub iommu: bool,
    /// Seed of faults and load.
    pub seed: u64,
    /// Where console, log and image stay.
    pub folder: &'a Path,
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All its faults are done, and nothing was left behind.
    Done,
    /// The system or the driver did not get over a fault; says how it ended.
    Stuck(String),
    /// All its faults are done, and the counts or the image are not what they must be.
    Traces(String),
    /// The emulator crashed, which is nobody's fault here; by this signal, while this fault was in.
    Emulator(i32, Option<Box<Entry>>),
    /// Somebody wants the campaign to end.
    Interrupted,
}

impl Boot<'_> {
    /// Boots, and injects the faults. `done` is told of each.
    ///
    /// # Errors
    /// When the machine cannot be made.
    pub fn run(&self, faults: &[(Class, u64)], done: &mut dyn FnMut(Entry)) -> anyhow::Result<End> {
        let Subject {
            name: driver,
            endpoint,
            program,
            ..
        } = self.subject;
        let name = format!("{driver}-{}", self.seed);
        let image = self.folder.join(format!("{name}.img"));
        // Nothing of an earlier boot.
        let _ = fs::remove_file(&image);
        fs::File::create(&image)?.set_len(DISK_BYTES)?;
        let archive_file = self.folder.join(format!("{name}.archive"));
        let script = format!(
            "{}drv policy {endpoint} budget=4294967295 pause-min-ms=0 pause-max-ms=0 \
             start-ms=3000 heartbeat-ms=200 silence-ms=700\n\
             drv restart {endpoint}; sleep 1\n\
             cat /boot/{MAILBOX} > /dev/null\n\
             echo '== processes before'; ps -l\n\
             echo '== counts before'; kernstat -l\n\
             echo '== load'\n\
             test-campaign {} {} {BLOCKS} {PATIENCE_MS}\n\
             echo \"status $?\"\n\
             echo '== counts after'; kernstat -l\n\
             echo '== processes after'; ps -l\n\
             true\n",
            self.subject.make_room(),
            self.subject.target(),
            self.seed,
        );
        let extras = ArchiveExtras {
            exec: Some(script),
            files: vec![(MAILBOX.to_owned(), vec![0; PAGE])],
            ..ArchiveExtras::default()
        };
        build::write_archive(self.built, &extras, &archive_file)?;
        let archive = fs::read(&archive_file)?;
        let parsed = Archive::parse(&archive).map_err(|e| anyhow::anyhow!("{e}"))?;
        let place = |name: &str| parsed.find(name).map(|member| member.offset as u64);
        let program =
            place(&format!("bin/{program}")).context("the driver is not in the archive")?;
        let mailbox = place(MAILBOX).context("mailbox")?;

        let socket = tempfile::tempdir()?;
        let path = socket.path().join("qtest");
        let listener = Memory::listen(&path)?;
        let mut machine = Machine::new(&self.built.kernel, Some(archive_file.clone()));
        machine.cpus = self.cpus;
        machine.processors = machine::reliable();
        machine.iommu = self.iommu;
        machine.disks.extend(self.subject.disk(&image));
        machine.extra = Memory::arguments(&path);
        machine.extra.extend(self.subject.arguments(self.iommu));
        let mut conductor = Conductor {
            boot: self,
            listener,
            memory: None,
            first_page: archive.get(..PAGE).context("archive")?.to_vec(),
            archive_len: archive.len() as u64,
            program,
            mailbox,
            base: 0,
            sequence: 0,
            faults: faults.iter(),
            current: None,
            done,
            line: Vec::new(),
            injected: Rc::default(),
            text: String::new(),
            console: fs::File::create(self.folder.join(format!("{name}.console")))?,
            error: None,
        };
        let log_file = self.folder.join(format!("{name}.log"));
        let mut log = Log {
            file: fs::File::create(&log_file)?,
            line: Vec::new(),
            injected: conductor.injected.clone(),
        };
        let limit = Duration::from_secs(180 + 30 * faults.len() as u64);
        let outcome = guest::run(
            &machine,
            Some(limit),
            &mut Streams {
                console: &mut conductor,
                log: &mut Annotator::new(Symbols::of(self.built), &mut log),
                input: None,
            },
        )?;
        let (text, error, current) = (
            std::mem::take(&mut conductor.text),
            conductor.error.take(),
            conductor.current.take(),
        );
        let begun = conductor.sequence > 0;
        fs::remove_file(&archive_file)?;
        drop(log);
        if let Outcome::Signal(_) = outcome {
            return Ok(End::Interrupted);
        }
        // Before the errors: a machine that is gone has no memory to write to.
        if let Outcome::Crashed(signal) = outcome {
            let during = current.map(|(class, number, fault)| {
                let seen = Seen {
                    unjudged: true,
                    reason: format!("QEMU crashed (signal {signal})"),
                    ..Seen::default()
                };
                Box::new(Entry::new(driver, class, self.seed, number, &fault, seen))
            });
            return Ok(End::Emulator(signal, during));
        }
        if let Some(error) = error {
            return Err(error.context("injection"));
        }
        let stuck = text.contains("\nresult stuck=1") || text.contains("FAILED");
        if outcome != Outcome::Exit(0) || stuck || current.is_some() {
            let trace = self.folder.join(format!("{name}-stuck.log"));
            fs::copy(&log_file, &trace)?;
            ensure!(
                begun,
                "the system does not come up: {outcome:?}, log in {}",
                trace.display()
            );
            let last = text
                .lines()
                .rev()
                .find(|l| l.starts_with("FAILED"))
                .unwrap_or("");
            let end = format!("{outcome:?} {last}; log in {}", trace.display());
            if let Some((class, number, fault)) = current {
                let kernel = outcome == Outcome::Panic;
                let seen = Seen {
                    died: true,
                    stuck: true,
                    kernel,
                    reason: end.clone(),
                    ..Seen::default()
                };
                (conductor.done)(Entry::new(driver, class, self.seed, number, &fault, seen));
            }
            return Ok(End::Stuck(end));
        }
        let judged = judged(&text).and_then(|()| match self.subject.device {
            Device::Disk(_) => check_image(&image, &text, BLOCKS),
            Device::Interface(_) => Ok(()),
        });
        fs::remove_file(&image)?;
        Ok(match judged {
            Ok(()) => End::Done,
            Err(error) => End::Traces(format!("{error:#}")),
        })
    }
}

/// Whether load, check and counts are as they must be at the end of a boot.
fn judged(console: &str) -> anyhow::Result<()> {
    ensure!(console.contains("\nstatus 0"), "the load failed");
    let part = |name: &str| {
        let from = console.split(&format!("== {name}\n")).nth(1);
        from.map(|rest| rest.split("\n== ").next().unwrap_or(rest))
            .with_context(|| format!("no section {name}"))
    };
    let pieces = heap_pieces(part("processes before")?, part("processes after")?);
    let changed: Vec<String> = part("counts before")?
        .lines()
        .zip(part("counts after")?.lines())
        .filter(|(before, after)| {
            let heaps = if before.starts_with("objects-Vmo") {
                pieces
            } else {
                0
            };
            !before.starts_with("used-bytes") && grown(before, after) > ONCE + heaps
        })
        .map(|(before, after)| format!("{before} before, {after} after"))
        .collect();
    ensure!(changed.is_empty(), "left behind: {}", changed.join("; "));
    Ok(())
}

/// What services make once, when a driver first has to be waited for to end: a fault that leaves something behind does so
/// many times in a boot.
const ONCE: i64 = 2;

/// The shortest piece by which a program's heap grows, which is a memory object without a handle.
const HEAP_PIECE: f64 = 512.0 * 1024.0;

/// Pieces by which the heaps of processes have grown that were there before, by what they are charged with: a service needs more
/// while there is a crash to be reported, and keeps it.
fn heap_pieces(before: &str, after: &str) -> i64 {
    let charged = |list: &str| -> BTreeMap<String, f64> {
        let rows = list.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some(((*words.first()?).to_owned(), bytes(words.get(7)?)?))
        });
        rows.collect()
    };
    let (before, after) = (charged(before), charged(after));
    let grown = after.iter().filter_map(|(pid, now)| {
        let grown = now - before.get(pid)?;
        (grown > 0.0).then(|| (grown / HEAP_PIECE).ceil() as i64)
    });
    grown.sum()
}

/// Bytes as `ps` prints them: 0, 4.0K, 12M.
fn bytes(text: &str) -> Option<f64> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, text.chars().last()?),
        None => (text, 'B'),
    };
    let unit = match unit {
        'K' => 1024.0,
        'M' => 1024.0 * 1024.0,
        'G' => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

/// By how much a count grew.
fn grown(before: &str, after: &str) -> i64 {
    let count = |line: &str| line.rsplit(' ').next()?.parse::<i64>().ok();
    match (count(before), count(after)) {
        (Some(before), Some(after)) => after - before,
        _ => i64::MAX,
    }
}

/// Answers the guest's lines: the console's stream is also the campaign's clock.
struct Conductor<'a, 'b> {
    boot: &'a Boot<'a>,
    listener: UnixListener,
    memory: Option<Memory>,
    first_page: Vec<u8>,
    archive_len: u64,
    /// Offsets in the archive.
    program: u64,
    mailbox: u64,
    /// Address of the archive.
    base: u64,
    sequence: u64,
    faults: std::slice::Iter<'b, (Class, u64)>,
    /// The fault that is in.
    current: Option<(Class, u64, Current)>,
    done: &'b mut dyn FnMut(Entry),
    line: Vec<u8>,
    /// What drivers said they injected, by the number of the order.
    injected: Rc<RefCell<BTreeMap<u64, String>>>,
    /// All lines so far, here and in a file for who watches.
    text: String,
    console: fs::File,
    error: Option<anyhow::Error>,
}

/// The guest's log: kept, and looked through for drivers' word that a fault is in.
struct Log {
    file: fs::File,
    line: Vec<u8>,
    injected: Rc<RefCell<BTreeMap<u64, String>>>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            let word = line
                .split_once(": fault ")
                .and_then(|(_, rest)| rest.split_once(": "));
            if let Some((number, text)) = word
                && let Ok(number) = number.parse()
            {
                self.injected
                    .borrow_mut()
                    .entry(number)
                    .or_insert_with(|| text.to_owned());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A fault under way.
#[derive(Clone, Debug)]
pub struct Current {
    /// The fault.
    pub fault: Fault,
    /// Whether its place was reached; `None` before that is known.
    pub activated: Option<bool>,
    /// The number of its first order, by which a driver with faults built in tells of it.
    number: u64,
    /// The trap is in.
    probing: bool,
}

impl Conductor<'_, '_> {
    fn memory(&mut self) -> anyhow::Result<&mut Memory> {
        if self.memory.is_none() {
            let mut memory = Memory::accept(&self.listener)?;
            // The boot loader puts it below the end of memory, which has 512 MiB.
            self.base =
                memory.find_page(&self.first_page, (512 << 20) - self.archive_len + 4096)?;
            self.memory = Some(memory);
        }
        self.memory.as_mut().context("memory")
    }

    fn order(&mut self, order: u64, parameter: u64) -> anyhow::Result<()> {
        self.sequence += 1;
        let (sequence, mailbox) = (self.sequence, self.mailbox);
        self.memory()?;
        let words = [order, parameter].map(u64::to_le_bytes).concat();
        let at = self.base + mailbox;
        let memory = self.memory()?;
        memory.write(at + 8, &words)?;
        memory.write(at, &sequence.to_le_bytes())
    }

    fn put(&mut self, patch: &Patch, bytes: &[u8]) -> anyhow::Result<()> {
        let program = self.program;
        self.memory()?;
        let at = self.base + program + patch.offset;
        self.memory()?.write(at, bytes)
    }

    fn plan_at(&mut self) -> anyhow::Result<u64> {
        let plan = self.boot.code.plan();
        let plan = plan.context("the driver has no faults built in")?;
        self.memory()?;
        Ok(self.base + self.program + plan)
    }

    /// Kind, parameter and seed; the number that puts them in force comes after.
    fn put_plan(&mut self, words: &[u64; 3]) -> anyhow::Result<()> {
        let at = self.plan_at()? + 8;
        let bytes = words.map(u64::to_le_bytes).concat();
        self.memory()?.write(at, &bytes)
    }

    fn put_plan_sequence(&mut self, number: u64) -> anyhow::Result<()> {
        let at = self.plan_at()?;
        self.memory()?.write(at, &number.to_le_bytes())
    }

    /// A line of the guest.
    fn answer(&mut self, line: &str) -> anyhow::Result<()> {
        let word = line.split(' ').next().unwrap_or_default();
        match word {
            "ready" => match self.faults.next() {
                None => self.order(4, 0),
                Some(&(class, number)) => self.inject(class, number),
            },
            "seen" => self.seen(line.contains("died=1")),
            "result" => self.result(line),
            _ => Ok(()),
        }
    }

    fn inject(&mut self, class: Class, number: u64) -> anyhow::Result<()> {
        let fault = plan::fault(class, self.boot.code, self.boot.seed, number);
        if let Some(patch) = &fault.patch {
            self.put(patch, &patch.after)?;
        }
        if let Some(plan) = fault.plan {
            // The order that follows has the next number, and the fault has the order's.
            self.put_plan(&plan)?;
            let number = self.sequence + 1;
            self.put_plan_sequence(number)?;
        }
        let (order, parameter) = match fault.order {
            Order::Watch => (1, WINDOW_US),
            Order::Restart => (5, 2 * WINDOW_US),
            Order::Kill(times) => (2, times),
        };
        self.current = Some((
            class,
            number,
            Current {
                activated: matches!(fault.order, Order::Kill(_)).then_some(true),
                number: self.sequence + 1,
                fault,
                probing: false,
            },
        ));
        self.order(order, parameter)
    }

    fn seen(&mut self, died: bool) -> anyhow::Result<()> {
        let Some((_, _, mut current)) = self.current.clone() else {
            return Ok(());
        };
        if let Some(patch) = &current.fault.patch {
            self.put(patch, &patch.before)?;
        }
        if current.fault.plan.is_some() {
            self.put_plan_sequence(0)?;
            self.put_plan(&[0; 3])?;
        }
        let probe = current.fault.patch.as_ref().filter(|_| {
            current.fault.probe && !died && !current.probing && current.fault.order == Order::Watch
        });
        match probe.map(Patch::probe) {
            Some(probe) => {
                self.put(&probe, &probe.after)?;
                current.probing = true;
                self.order(6, WINDOW_US)?;
            }
            None => {
                // A driver that ended reached the place; a trap that nobody ran into says that none did.
                current.activated = current
                    .activated
                    .or(died.then_some(true))
                    .or(current.probing.then_some(false));
                self.order(3, 0)?;
            }
        }
        if let Some((.., place)) = &mut self.current {
            *place = current;
        }
        Ok(())
    }

    fn result(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some((class, number, mut current)) = self.current.take() {
            if current.fault.plan.is_some() {
                let injected = self.injected.borrow().get(&current.number).cloned();
                current.activated = Some(injected.is_some());
                if let Some(text) = injected {
                    current.fault.text = format!("{}: {text}", current.fault.text);
                }
            }
            let seen = Seen::parse(line)?;
            let driver = self.boot.subject.name;
            let entry = Entry::new(driver, class, self.boot.seed, number, &current, seen);
            (self.done)(entry);
        }
        Ok(())
    }
}

impl Write for Conductor<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            self.text.push_str(&line);
            self.text.push('\n');
            writeln!(self.console, "{line}")?;
            if let Err(error) = self.answer(&line) {
                let kind = error.downcast_ref().map(io::Error::kind);
                let gone = matches!(
                    kind,
                    Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
                );
                self.error = Some(error);
                if !gone {
                    // The run ends as if nobody read the console any more.
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                // QEMU has ended, and how is for the run to see.
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(vmos: u32, handles: u32, devmgr: &str) -> String {
        format!(
            "== processes before\n\
             PID PPID S PRI THR  RSS HANDLES CHARGED LIMIT SYSCALLS FAULTS     TIME NAME\n  \
             1    0 R  24   1 440K     109    1.2M  487M     1103     32 00:00:00 init\n \
             82    1 S  24   1 800K      44    296K  487M     1116     49 00:00:00 devmgr\n\
             == counts before\nhandles 297\nused-bytes 1\nobjects-Vmo 55\n\
             == load\nstatus 0\n\
             == counts after\nhandles {handles}\nused-bytes 9999\nobjects-Vmo {vmos}\n\
             == processes after\n  \
             1    0 R  24   1 500K     109    1.2M  487M    16793     47 00:00:00 init\n \
             82    1 S  24   1 1.4M      44    {devmgr}  487M    39369    192 00:00:01 devmgr\n"
        )
    }

    #[test]
    fn what_is_left_behind_is_told_from_heaps_that_grew() {
        assert!(judged(&console(57, 299, "296K")).is_ok());
        assert!(judged(&console(58, 297, "296K")).is_err());
        assert!(judged(&console(57, 300, "296K")).is_err());
        // Pieces of 512 KiB.
        assert!(judged(&console(58, 297, "800K")).is_ok());
        assert!(judged(&console(59, 297, "1.2M")).is_ok());
        assert!(judged(&console(60, 297, "1.2M")).is_err());
    }
}
