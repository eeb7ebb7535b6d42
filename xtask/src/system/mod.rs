//! System tests: the whole system boots in QEMU, runs shell commands, and its
//! answers are compared with the host's.
//!
//! What a test expects comes from the host's own tools run on the files that
//! went into an image, never from an earlier run of Bulkhead. The console and
//! the log of each test stay in `target/system`.

mod bad_clients;
mod bad_wire;
mod control_line;
mod crash;
mod driver_death;
mod driver_faults;
mod drivers;
pub mod endurance;
mod faults;
pub mod headless;
mod host_side;
mod hostile;
mod hotplug;
mod injected;
mod interfaces;
mod kernel;
pub mod network;
mod reading;
mod reload;
mod runtime;
pub mod services;
mod shell;
mod truth;
mod tutorial;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::build::{self, ArchiveExtras, Built, Profile};
use crate::guest::disk::{Access, Disk};
use crate::guest::machine::{self, Processors};
use crate::guest::{self, Machine, Outcome, Streams};
use crate::levels::Tally;
use crate::setup;
use crate::symbols::{Annotator, Symbols};

/// Time limit of a test that names none: a machine under emulation, beside
/// other work on the same processor, that reads every file of an image.
const TIME_LIMIT: Duration = Duration::from_secs(240);
/// How often a known fault of QEMU's may end a test before that counts.
const EMULATOR_CRASHES: u32 = 3;

/// Guests that run at a time: most have one processor.
const GUESTS: usize = 2;
/// Guests beside them that mostly wait, for what takes its time on any machine.
const WAITING_GUESTS: usize = 1;

/// A test: a machine, a script, and what is expected of it.
pub struct SystemTest {
    name: String,
    cpus: u32,
    processors: Processors,
    iommu: bool,
    command_line: String,
    disks: Vec<Disk>,
    devices: Vec<String>,
    replaced: Vec<(&'static str, &'static str)>,
    script: Option<String>,
    time_limit: Duration,
    meanwhile: Option<Work>,
    check: Check,
    files: Option<Files>,
    without: Vec<String>,
    mostly_waits: bool,
}

/// What a test adds to the boot archive: names and contents.
type Files = Box<dyn Fn(&Built) -> anyhow::Result<Vec<(String, Vec<u8>)>> + Send + Sync>;

/// What the host does while the guest runs.
type Work = Box<dyn Fn(&mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> + Send + Sync>;

/// Judges what a run gave.
type Check = Box<dyn Fn(&Report) -> anyhow::Result<()> + Send + Sync>;

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What the shell's commands wrote to standard output.
    pub console: String,
    /// What the kernel and the services logged, and what went to standard error.
    pub log: String,
}

impl SystemTest {
    /// A test on one processor without disks.
    fn new(
        name: impl Into<String>,
        script: impl Into<String>,
        check: impl Fn(&Report) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            cpus: 1,
            processors: Processors::default(),
            iommu: false,
            command_line: String::new(),
            disks: Vec::new(),
            devices: Vec::new(),
            replaced: Vec::new(),
            script: Some(script.into()),
            time_limit: TIME_LIMIT,
            meanwhile: None,
            check: Box::new(check),
            files: None,
            without: Vec::new(),
            mostly_waits: false,
        }
    }

    /// A run that is not judged: what it printed is the result.
    pub fn measurement(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self::new(name, script, |_| Ok(()))
    }

    /// A test that runs another program than the shell: `command_line` says so
    /// to the kernel.
    fn without_shell(
        name: impl Into<String>,
        command_line: impl Into<String>,
        check: impl Fn(&Report) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: None,
            command_line: command_line.into(),
            ..Self::new(name, "", check)
        }
    }

    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// The processors take turns.
    pub fn in_turn(mut self) -> Self {
        self.processors = Processors::InTurn;
        self
    }

    /// The processors as [`machine::reliable`] has them: for devices that die dozens of times.
    pub fn reliable(mut self) -> Self {
        self.processors = machine::reliable();
        self
    }

    /// With an IOMMU.
    pub fn iommu(mut self) -> Self {
        self.iommu = true;
        self
    }

    pub fn disks(mut self, disks: impl IntoIterator<Item = Disk>) -> Self {
        self.disks.extend(disks);
        self
    }

    /// Further members of the boot archive, made from what was built.
    fn files(
        mut self,
        files: impl Fn(&Built) -> anyhow::Result<Vec<(String, Vec<u8>)>> + Send + Sync + 'static,
    ) -> Self {
        self.files = Some(Box::new(files));
        self
    }

    /// Without a program in the boot archive.
    fn without(mut self, program: &str) -> Self {
        self.without.push(program.to_owned());
        self
    }

    /// Words of the kernel's command line.
    fn command_line(mut self, words: &str) -> Self {
        self.command_line = words.to_string();
        self
    }

    /// Further arguments of QEMU.
    pub fn devices(mut self, arguments: &[&str]) -> Self {
        self.devices
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Another program than its own for a service.
    fn replace(mut self, name: &'static str, by: &'static str) -> Self {
        self.replaced.push((name, by));
        self
    }

    /// It hardly needs a processor: retransmissions, limits and pauses are what it is about.
    fn mostly_waits(mut self) -> Self {
        self.mostly_waits = true;
        self
    }

    pub fn time_limit(mut self, seconds: u64) -> Self {
        self.time_limit = Duration::from_secs(seconds);
        self
    }

    fn run(&self, built: &Built, folder: &Path) -> anyhow::Result<()> {
        (self.check)(&self.execute(built, folder)?)
    }

    /// What somebody on the host does while it runs, from what the console says.
    fn meanwhile(
        mut self,
        work: impl Fn(&mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.meanwhile = Some(Box::new(work));
        self
    }

    /// Runs it without judging it. Console and log stay in the folder. A run that a known fault of QEMU's ended says
    /// nothing about the system: it is made again, from the disks as they were, and the output says so.
    ///
    /// # Errors
    /// When the archive cannot be written, QEMU does not run, or that fault ends it again and again.
    pub fn execute(&self, built: &Built, folder: &Path) -> anyhow::Result<Report> {
        let written = self
            .disks
            .iter()
            .filter(|disk| disk.access == Access::ReadWrite);
        let mut kept = Vec::new();
        for (number, disk) in written.enumerate() {
            let copy = folder.join(format!("{}.disk{number}", self.name));
            fs::copy(&disk.file, &copy)?;
            kept.push((copy, &disk.file));
        }
        let mut crashes = 0;
        let report = loop {
            let (machine, report) = self.attempt(built, folder)?;
            if crashes == EMULATOR_CRASHES || !guest::met_known_fault(&machine, &report.outcome) {
                break report;
            }
            crashes += 1;
            println!(
                "note    {}: QEMU itself crashed, by a fault of its versions before 8.1; again",
                self.name
            );
            for (copy, disk) in &kept {
                fs::copy(copy, disk)?;
            }
        };
        for (copy, _) in kept {
            fs::remove_file(copy)?;
        }
        Ok(report)
    }

    /// Runs it once.
    fn attempt(&self, built: &Built, folder: &Path) -> anyhow::Result<(Machine, Report)> {
        let archive = folder.join(format!("{}.archive", self.name));
        let extras = ArchiveExtras {
            exec: self.script.clone(),
            replaced: self.replaced.clone(),
            without: self.without.clone(),
            files: match &self.files {
                Some(files) => files(built)?,
                None => Vec::new(),
            },
            ..ArchiveExtras::default()
        };
        build::write_archive(built, &extras, &archive)?;
        let mut machine = Machine::new(&built.kernel, Some(archive.clone()));
        machine.cpus = self.cpus;
        machine.processors = self.processors;
        machine.iommu = self.iommu;
        machine.command_line.clone_from(&self.command_line);
        machine.disks.clone_from(&self.disks);
        machine.extra.clone_from(&self.devices);
        let (mut console, mut log) = (Vec::new(), Vec::new());
        let (said, mut heard) = mpsc::channel();
        let outcome = std::thread::scope(|scope| {
            let work = self.meanwhile.as_ref();
            let hand = work.map(|work| scope.spawn(move || work(&mut heard)));
            let outcome = guest::run(
                &machine,
                Some(self.time_limit),
                &mut Streams {
                    console: &mut Overheard {
                        console: &mut console,
                        said,
                    },
                    log: &mut Annotator::new(Symbols::of(built), &mut log),
                    input: None,
                },
            )?;
            match hand.map(std::thread::ScopedJoinHandle::join) {
                Some(_) if guest::met_known_fault(&machine, &outcome) => Ok(outcome),
                Some(Ok(Err(error))) => Err(error.context("the host's part")),
                Some(Err(_)) => bail!("the host's part panicked"),
                Some(Ok(Ok(()))) | None => Ok(outcome),
            }
        })?;
        fs::remove_file(archive)?;
        if let Outcome::Signal(_) = outcome {
            // Somebody wants the whole run to end, not this test to fail.
            std::process::exit(i32::from(outcome.status()));
        }
        fs::write(folder.join(format!("{}.console", self.name)), &console)?;
        fs::write(folder.join(format!("{}.log", self.name)), &log)?;
        let report = Report {
            outcome,
            console: String::from_utf8_lossy(&console).into_owned(),
            log: String::from_utf8_lossy(&log).into_owned(),
        };
        Ok((machine, report))
    }
}

/// The console's output, kept and passed on to whoever acts on it.
struct Overheard<'a> {
    console: &'a mut Vec<u8>,
    said: mpsc::Sender<Vec<u8>>,
}

impl Write for Overheard<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Mostly nobody listens.
        let _ = self.said.send(bytes.to_vec());
        self.console.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Report {
    /// Checks the status of the last command.
    fn expect_status(&self, status: u8) -> anyhow::Result<()> {
        ensure!(
            self.outcome == Outcome::Exit(status),
            "ended with {:?}, expected status {status}; last words: {}",
            self.outcome,
            last_lines(&self.log, 3)
        );
        Ok(())
    }

    /// Checks what was printed, all of it.
    fn expect_console(&self, expected: &str) -> anyhow::Result<()> {
        compare("standard output", &self.console, expected)
    }

    /// The part of the console's text after the line `== NAME`, up to the next
    /// such line.
    fn section(&self, name: &str) -> anyhow::Result<&str> {
        section(&self.console, name)
            .with_context(|| format!("there is no section {name:?} in the output"))
    }

    /// The line of the log that has all these words, in any case.
    fn log_line(&self, words: &[&str]) -> anyhow::Result<&str> {
        self.log
            .lines()
            .find(|line| {
                let line = line.to_lowercase();
                words.iter().all(|word| line.contains(&word.to_lowercase()))
            })
            .with_context(|| format!("no line of the log has {words:?}"))
    }
}

fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("== {name}\n");
    let from = if text.starts_with(&start) {
        start.len()
    } else {
        text.find(&format!("\n{start}"))? + 1 + start.len()
    };
    let rest = text.get(from..)?;
    if rest.starts_with("== ") {
        return Some("");
    }
    Some(rest.find("\n== ").map_or(rest, |end| &rest[..=end]))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().rev().take(count).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Compares two texts and names the first line that differs.
fn compare(what: &str, found: &str, expected: &str) -> anyhow::Result<()> {
    if found == expected {
        return Ok(());
    }
    let (mut ours, mut theirs) = (found.lines(), expected.lines());
    for number in 1.. {
        let (ours, theirs) = (ours.next(), theirs.next());
        if ours != theirs {
            let shown =
                |line: Option<&str>| line.map_or("its end".to_owned(), |l| format!("{l:?}"));
            bail!(
                "{what}, line {number} of {}: {}, expected {} of {}",
                found.lines().count(),
                shown(ours),
                shown(theirs),
                expected.lines().count()
            );
        }
        if ours.is_none() {
            break;
        }
    }
    bail!("{what} differs in the line feed at its end")
}

/// A test whose turn it is.
enum Turn<'a> {
    Host(host_side::Check),
    Guest(&'a SystemTest),
}

impl<'a> Turn<'a> {
    /// That of a test in a guest, with its name.
    fn of(test: &'a SystemTest) -> (&'a str, Self) {
        (&test.name, Self::Guest(test))
    }
}

/// Runs the system tests whose name contains `filter`.
///
/// # Errors
///
/// When a test cannot be prepared; a failure of a test is counted instead.
pub fn run(filter: Option<&str>) -> anyhow::Result<Tally> {
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let mut tally = Tally::default();
    setup::ensure(&[setup::MACHINE, setup::IMAGES])?;
    let mut built = None;
    // The images for the tests are made meanwhile.
    let tests = std::thread::scope(|scope| {
        let tests = scope.spawn(prepared);
        tally.check("build", || {
            built = Some(build::build(Profile::Release)?);
            Ok(())
        });
        tests.join()
    });
    let Some(built) = built else {
        tally.skip("system tests", "the system does not build");
        return Ok(tally);
    };
    let Ok(tests) = tests else {
        bail!("the tests' preparation panicked");
    };
    let mut tests = tests?;
    let folder = build::target_folder("system")?;
    tests.retain(|test| wanted(&test.name));
    // The longest are among those of the host's side, and come first.
    let hosts = host_side::TESTS.iter().filter(|(name, _)| wanted(name));
    let hosts = hosts.map(|(name, check)| (*name, Turn::Host(*check)));
    let (waiting, busy): (Vec<_>, Vec<_>) = tests.iter().partition(|test| test.mostly_waits);
    let queue = |turns: Vec<_>| Mutex::new(turns.into_iter());
    let busy = queue(hosts.chain(busy.into_iter().map(Turn::of)).collect());
    let waiting = queue(waiting.into_iter().map(Turn::of).collect());
    let counted = Mutex::new(&mut tally);
    let lane = |queue: &Mutex<std::vec::IntoIter<(&str, Turn<'_>)>>| {
        loop {
            let turn = locked(queue).next();
            let Some((name, turn)) = turn else { break };
            let started = Instant::now();
            let result = match turn {
                Turn::Host(check) => check(),
                Turn::Guest(test) => test.run(&built, &folder),
            };
            locked(&counted).record(name, started.elapsed(), result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| lane(&busy));
        }
        for _ in 0..WAITING_GUESTS {
            scope.spawn(|| lane(&waiting));
        }
    });
    if filter.is_some() && tally.passed + tally.failures.len() <= 1 {
        bail!(
            "no system test has {:?} in its name",
            filter.unwrap_or_default()
        );
    }
    Ok(tally)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All tests in guests, with their images made.
fn prepared() -> anyhow::Result<Vec<SystemTest>> {
    let mut tests = Vec::new();
    let groups = [
        kernel::tests,
        runtime::tests,
        shell::tests,
        reading::tests,
        faults::tests,
        driver_death::tests,
        driver_faults::tests,
        crash::tests,
        drivers::tests,
        interfaces::tests,
        endurance::tests,
        hotplug::tests,
        reload::tests,
        services::tests,
        network::tests,
        bad_wire::tests,
        hostile::tests,
        bad_clients::tests,
    ];
    for group in groups {
        tests.extend(group()?);
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_cut_at_their_marks() {
        let text = "== a\none\ntwo\n== b\n== c\nthree";
        assert_eq!(section(text, "a"), Some("one\ntwo\n"));
        assert_eq!(section(text, "b"), Some(""));
        assert_eq!(section(text, "c"), Some("three"));
        assert_eq!(section(text, "d"), None);
    }

    #[test]
    fn a_difference_is_named() {
        compare("x", "a\nb\n", "a\nb\n").unwrap();
        let message = compare("x", "a\nb\n", "a\nc\n").unwrap_err().to_string();
        assert_eq!(message, "x, line 2 of 2: \"b\", expected \"c\" of 2");
        assert!(compare("x", "a\n", "a").is_err());
        assert!(compare("x", "a\n", "a\nb\n").is_err());
    }
}
