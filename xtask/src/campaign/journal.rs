//! What became of each fault: a line of JSON in a file, so that a campaign can be taken up again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Class;
use super::boot::Current;

/// What the guest saw of a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The driver ended.
    pub died: bool,
    /// Microseconds from the injection to when that was seen.
    pub latency_us: u64,
    /// The load got no answer for a while.
    pub stalled: bool,
    /// Driver and load came back by themselves.
    pub recovered: bool,
    /// How long that took, in microseconds, from when the fault was gone.
    pub recover_us: u64,
    /// They did not come back at all.
    pub stuck: bool,
    /// The kernel went down.
    pub kernel: bool,
    /// The emulator crashed each time that it was tried, so nothing was seen.
    #[serde(default)]
    pub unjudged: bool,
    /// Requests that failed.
    pub failed: u64,
    /// Blocks that were not what they must be.
    pub wrong: u64,
    /// Sessions that failed for good.
    pub lost: u64,
    /// Why the driver ended.
    pub reason: String,
}

impl Seen {
    /// From the guest's line.
    ///
    /// # Errors
    /// When a word is missing.
    pub fn parse(line: &str) -> anyhow::Result<Seen> {
        let (words, reason) = line.split_once(" reason=").unwrap_or((line, ""));
        let number = |key: &str| -> anyhow::Result<u64> {
            let word = words
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            let word = word.with_context(|| format!("no {key} in {line:?}"))?;
            word.parse().with_context(|| format!("{key}={word}"))
        };
        if number("stuck")? == 1 && !words.contains("died=") {
            return Ok(Seen {
                stuck: true,
                died: true,
                reason: reason.to_owned(),
                ..Seen::default()
            });
        }
        Ok(Seen {
            died: number("died")? == 1,
            latency_us: number("latency-us")?,
            stalled: number("stalled")? == 1,
            recovered: number("recovered")? == 1,
            recover_us: number("recover-us")?,
            stuck: number("stuck")? == 1,
            kernel: false,
            unjudged: false,
            failed: number("failed")?,
            wrong: number("wrong")?,
            lost: number("lost")?,
            reason: reason.to_owned(),
        })
    }

    /// How the system noticed, for the table; `None` if it did not.
    pub fn detected_by(&self) -> Option<&'static str> {
        const WORDS: [(&str, &str); 13] = [
            ("panicked", "panic"),
            ("panic", "panic"),
            ("heartbeat", "heartbeat"),
            ("in service after", "start limit"),
            ("client's request in time", "client's deadline"),
            ("protocol with a client", "client's check"),
            ("refused memory", "IOMMU"),
            ("interrupt storm", "storm"),
            ("killed", "killed"),
            ("exited", "gave up"),
            ("page fault", "fault"),
            ("instruction", "fault"),
            ("breakpoint", "fault"),
        ];
        if !self.died {
            return None;
        }
        let found = WORDS.iter().find(|(word, _)| self.reason.contains(word));
        Some(found.map_or("gave up", |(_, by)| by))
    }

    /// Whether anything was to be seen of it.
    pub fn manifested(&self) -> bool {
        let harm = self.failed > 0 || self.wrong > 0 || self.lost > 0;
        !self.unjudged && (self.died || harm || self.stuck || !self.recovered)
    }

    /// Whether the load saw nothing but a pause.
    pub fn workload_correct(&self) -> bool {
        self.failed == 0 && self.wrong == 0 && self.lost == 0 && !self.stuck
    }
}

/// A fault and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Driver.
    pub driver: String,
    /// Class.
    pub class: Class,
    /// Seed of the campaign.
    pub seed: u64,
    /// Number within driver and class.
    pub number: u64,
    /// What was done.
    pub fault: String,
    /// Whether the place was reached; `None` if that is not known.
    pub activated: Option<bool>,
    /// What was seen.
    pub seen: Seen,
}

impl Entry {
    /// From a fault that is over.
    pub fn new(
        driver: &str,
        class: Class,
        seed: u64,
        number: u64,
        current: &Current,
        seen: Seen,
    ) -> Entry {
        Entry {
            driver: driver.to_owned(),
            class,
            seed,
            number,
            fault: current.fault.text.clone(),
            activated: current.activated.or(seen.manifested().then_some(true)),
            seen,
        }
    }
}

/// The file.
pub struct Journal {
    file: Option<fs::File>,
    /// All entries, those of earlier runs too.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Takes up the file, or begins it; without a path nothing is kept.
    ///
    /// # Errors
    /// When the file cannot be used or holds something else.
    pub fn open(path: Option<&PathBuf>) -> anyhow::Result<Journal> {
        let Some(path) = path else {
            return Ok(Journal {
                file: None,
                entries: Vec::new(),
            });
        };
        let entries = if path.exists() {
            read(path)?
        } else {
            Vec::new()
        };
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Journal {
            file: Some(file.with_context(|| path.display().to_string())?),
            entries,
        })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, entry: Entry) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_string(&entry)?;
            line.push('\n');
            file.write_all(line.as_bytes()).context("the journal")?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Whether a fault is done.
    pub fn has(&self, driver: &str, class: Class, seed: u64, number: u64) -> bool {
        self.entries.iter().any(|entry| {
            entry.number == number
                && entry.class == class
                && entry.seed == seed
                && entry.driver == driver
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}
