//! The matrix: drivers by homes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::levels::Tally;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As promised.
    Passed,
    /// Not so.
    Failed(String),
    /// The home cannot run it.
    NotRun(String),
}

impl Verdict {
    /// The verdict with this word (`passed`, `FAILED`, `not run`).
    pub fn new(word: &str, detail: &str) -> Option<Self> {
        match word {
            "passed" => Some(Self::Passed),
            "FAILED" => Some(Self::Failed(detail.to_owned())),
            "not run" => Some(Self::NotRun(detail.to_owned())),
            _ => None,
        }
    }
}

/// A case of a cell.
#[derive(Clone, Debug)]
pub struct Entry {
    pub driver: String,
    pub home: String,
    pub case: String,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    passed: usize,
    /// Case and reason.
    failed: Vec<(String, String)>,
    /// Cases by reason.
    not_run: BTreeMap<String, Vec<String>>,
}

impl Cell {
    fn text(&self) -> String {
        let ran = self.passed + self.failed.len();
        if !self.failed.is_empty() {
            return format!("FAILED {} of {ran}", self.failed.len());
        }
        if ran > 0 {
            return format!("{ran} passed");
        }
        match self.not_run.keys().next() {
            Some(reason) => format!("not run: {reason}"),
            None => "not run: nothing was asked for".to_owned(),
        }
    }

    fn skipped(&self) -> usize {
        self.not_run.values().map(Vec::len).sum()
    }
}

/// See the module.
pub struct Matrix {
    drivers: Vec<String>,
    homes: Vec<String>,
    cells: BTreeMap<(String, String), Cell>,
}

impl Matrix {
    /// An empty one.
    pub fn new(drivers: &[&str], homes: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            drivers: owned(drivers),
            homes: owned(homes),
            cells: BTreeMap::new(),
        }
    }

    /// Takes a case in.
    pub fn add(&mut self, entry: Entry) {
        let cell = self.cells.entry((entry.driver, entry.home)).or_default();
        match entry.verdict {
            Verdict::Passed => cell.passed += 1,
            Verdict::Failed(what) => cell.failed.push((entry.case, what)),
            Verdict::NotRun(reason) => cell.not_run.entry(reason).or_default().push(entry.case),
        }
    }

    fn cell(&self, driver: &str, home: &str) -> Cell {
        let key = (driver.to_owned(), home.to_owned());
        self.cells.get(&key).cloned().unwrap_or_default()
    }

    /// Counts of all cells.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for ((driver, home), cell) in &self.cells {
            tally.add(Tally {
                passed: cell.passed,
                failures: (cell.failed.iter())
                    .map(|(case, what)| format!("{driver} {home} {case}: {what}"))
                    .collect(),
                skipped: cell.skipped(),
            });
        }
        tally
    }

    /// For people: the table, then what failed, then what did not run and why.
    pub fn table(&self) -> String {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(self.homes.iter().cloned());
        for driver in &self.drivers {
            let mut row = vec![driver.clone()];
            row.extend(self.homes.iter().map(|home| self.cell(driver, home).text()));
            rows.push(row);
        }
        let widths: Vec<usize> = (0..=self.homes.len())
            .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &rows {
            let line = row
                .iter()
                .zip(&widths)
                .fold(String::new(), |mut line, (cell, width)| {
                    let _ = write!(line, "{cell:width$}  ");
                    line
                });
            let _ = writeln!(text, "        {}", line.trim_end());
        }
        for ((driver, home), cell) in &self.cells {
            for (case, what) in &cell.failed {
                let _ = writeln!(text, "FAILED  {driver} {home} {case}: {what}");
            }
        }
        for ((driver, home), cell) in &self.cells {
            for (reason, cases) in &cell.not_run {
                let count = cases.len();
                let first = cases.first().map_or("", String::as_str);
                let which = if count == 1 {
                    first.to_owned()
                } else {
                    format!("{first} and {} more", count - 1)
                };
                let _ = writeln!(text, "not run {driver} {home} {which}: {reason}");
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let mut cells = Vec::new();
        for driver in &self.drivers {
            for home in &self.homes {
                let cell = self.cell(driver, home);
                let failed: Vec<Value> = cell
                    .failed
                    .iter()
                    .map(|(case, what)| json!({ "case": case, "what": what }))
                    .collect();
                cells.push(json!({
                    "driver": driver,
                    "home": home,
                    "text": cell.text(),
                    "passed": cell.passed,
                    "failed": failed,
                    "not_run": cell.not_run,
                }));
            }
        }
        json!({ "cells": cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_never_shows_what_did_not_run_as_passed() {
        let mut matrix = Matrix::new(&["a", "b"], &["x", "y"]);
        let mut add = |driver: &str, home: &str, case: &str, verdict| {
            matrix.add(Entry {
                driver: driver.into(),
                home: home.into(),
                case: case.into(),
                verdict,
            });
        };
        add("a", "x", "one", Verdict::Passed);
        add("a", "x", "two", Verdict::NotRun("no fault".into()));
        add("a", "y", "one", Verdict::NotRun("no QEMU".into()));
        add("b", "x", "one", Verdict::Passed);
        add("b", "x", "two", Verdict::Failed("wrong data".into()));
        let table = matrix.table();
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        assert!(lines[1].starts_with("a  1 passed"), "{table}");
        assert!(lines[1].ends_with("not run: no QEMU"), "{table}");
        assert!(lines[2].contains("FAILED 1 of 2"), "{table}");
        assert!(lines.contains(&"FAILED  b x two: wrong data"), "{table}");
        assert!(lines.contains(&"not run a x two: no fault"), "{table}");
        let tally = matrix.tally();
        assert_eq!((tally.passed, tally.skipped), (2, 2));
        assert_eq!(tally.failures, ["b x two: wrong data"]);
        assert_eq!(
            matrix.json()["cells"][3]["text"],
            "not run: nothing was asked for"
        );
    }
}
