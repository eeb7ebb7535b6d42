//! The results: medians, the printed table, the JSON file, the check against a
//! baseline.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::passes::{Count, Pass};
use super::rows::{self, Row};

/// What is given for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Instructions per operation, user and kernel, of everything that ran.
    Instructions,
    /// Nanoseconds per operation.
    WallNs,
    /// Megabytes (10^6 bytes) per second.
    MbPerS,
}

impl Metric {
    const ALL: [Self; 3] = [Self::Instructions, Self::WallNs, Self::MbPerS];

    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::WallNs => "wall_ns",
            Self::MbPerS => "mb_per_s",
        }
    }
}

/// Per operation, for each row and metric, the value of each measurement.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: BTreeMap<(String, Metric), Vec<f64>>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count that needs more than 53 bits cannot come about in a run"
)]
fn per_operation(total: u64, operations: u64) -> f64 {
    total as f64 / operations as f64
}

impl Samples {
    /// Takes up the passes of one boot under the plugin, each as a measurement.
    pub fn add_counts(&mut self, passes: &[(Pass, Count)]) {
        for (pass, count) in passes {
            let value = per_operation(count.instructions(), pass.operations);
            self.push(&pass.row, Metric::Instructions, value);
        }
    }

    /// Takes up one boot without the plugin: the median of its passes is one
    /// measurement, as what disturbs one pass often disturbs the whole boot.
    pub fn add_times(&mut self, passes: &[Pass]) {
        let mut boot: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for pass in passes {
            let value = per_operation(pass.ns, pass.operations);
            boot.entry(&pass.row).or_default().push(value);
        }
        for (row, mut values) in boot {
            let Some(ns) = median(&mut values) else {
                continue;
            };
            self.push(row, Metric::WallNs, ns);
            let bytes = rows::ROWS
                .iter()
                .find(|r| r.name == row)
                .map_or(0, |r| r.bytes);
            if bytes > 0 && ns > 0.0 {
                // Bytes per nanosecond are thousands of megabytes per second.
                self.push(row, Metric::MbPerS, per_operation(bytes, 1) / ns * 1e3);
            }
        }
    }

    fn push(&mut self, row: &str, metric: Metric, value: f64) {
        self.values
            .entry((row.to_owned(), metric))
            .or_default()
            .push(value);
    }

    /// Median and number of measurements.
    fn get(&self, row: &str, metric: Metric) -> Option<(f64, usize)> {
        let mut values = self.values.get(&(row.to_owned(), metric))?.clone();
        Some((median(&mut values)?, values.len()))
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle - 1)?, upper))
}

/// Both systems' samples for the rows that were asked for.
#[derive(Clone, Debug)]
pub struct Table {
    /// The rows, in order.
    pub rows: Vec<&'static Row>,
    /// Bulkhead.
    pub ours: Samples,
    /// The peer, if there was one.
    pub linux: Option<Samples>,
}

impl Table {
    /// The table as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (metric, title) in [
            (Metric::Instructions, "instructions per operation"),
            (Metric::WallNs, "nanoseconds per operation"),
            (Metric::MbPerS, "MB/s"),
        ] {
            let mut lines = String::new();
            for row in &self.rows {
                let ours = self.ours.get(row.name, metric).map(|(value, _)| value);
                let linux = self.linux.as_ref().and_then(|s| s.get(row.name, metric));
                let linux = linux.map(|(value, _)| value);
                if ours.is_none() && linux.is_none() {
                    continue;
                }
                let ratio = match (ours, linux) {
                    (Some(ours), Some(linux)) if linux > 0.0 => format!("{:.2}", ours / linux),
                    _ => "-".to_owned(),
                };
                // Writing to a string cannot fail.
                let _ = writeln!(
                    lines,
                    "{:<20} {:<40} {:>14} {:>14} {:>7}",
                    row.name,
                    row.label,
                    grouped(ours),
                    grouped(linux),
                    ratio
                );
            }
            if !lines.is_empty() {
                let _ = writeln!(
                    text,
                    "{:<61} {:>14} {:>14} {:>7}",
                    title, "ours", "Linux", "ratio"
                );
                text.push_str(&lines);
                text.push('\n');
            }
        }
        text
    }

    /// The table as JSON.
    pub fn json(&self) -> Value {
        let mut rows = Vec::new();
        for row in &self.rows {
            for metric in Metric::ALL {
                let ours = self.ours.get(row.name, metric);
                let linux = self.linux.as_ref().and_then(|s| s.get(row.name, metric));
                if let Some((_, runs)) = ours.or(linux) {
                    rows.push(json!({
                        "row": row.name,
                        "metric": metric.name(),
                        "ours": ours.map(|(value, _)| rounded(value)),
                        "linux": linux.map(|(value, _)| rounded(value)),
                        "runs": runs,
                    }));
                }
            }
        }
        json!({ "rows": rows })
    }

    /// Compares instructions with an earlier result, row by row, and names each that
    /// grew by more than its tolerance or is gone. Returns how many were compared.
    ///
    /// # Errors
    ///
    /// When a row regressed, or `baseline` is not such a file.
    pub fn check(&self, baseline: &Value) -> anyhow::Result<usize> {
        let earlier = baseline["rows"]
            .as_array()
            .context("the baseline has no rows")?;
        let mut compared = 0;
        let mut regressions = Vec::new();
        for row in &self.rows {
            let entry = earlier.iter().find(|entry| {
                entry["row"] == row.name && entry["metric"] == Metric::Instructions.name()
            });
            let Some(before) = entry.and_then(|entry| entry["ours"].as_f64()) else {
                continue;
            };
            compared += 1;
            match self.ours.get(row.name, Metric::Instructions) {
                None => regressions.push(format!("{}: no result", row.name)),
                Some((now, _)) if now > before * (1.0 + row.tolerance_percent / 100.0) => {
                    regressions.push(format!(
                        "{}: {now:.0} instructions, baseline {before:.0}, {:+.1} % (allowed {} %)",
                        row.name,
                        (now / before - 1.0) * 100.0,
                        row.tolerance_percent
                    ));
                }
                Some(_) => {}
            }
        }
        if !regressions.is_empty() {
            bail!("slower than the baseline:\n  {}", regressions.join("\n  "));
        }
        Ok(compared)
    }
}

/// One decimal is more than any row repeats.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A number with its thousands apart; a dash for none.
fn grouped(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(row: &str, metric: Metric, values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.push(row, metric, *value);
        }
        samples
    }

    fn table(values: &[f64]) -> Table {
        Table {
            rows: rows::matching(Some("null-call")),
            ours: samples("null-call", Metric::Instructions, values),
            linux: Some(samples("null-call", Metric::Instructions, &[324.0])),
        }
    }

    #[test]
    fn the_median_ignores_an_outlier() {
        assert_eq!(median(&mut [9e9, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&mut [1.0, 2.0]), Some(1.5));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn json_has_the_promised_fields() {
        let json = table(&[100.04, 100.0, 162.0]).json();
        assert_eq!(
            json,
            json!({"rows": [{
                "row": "null-call", "metric": "instructions",
                "ours": 100.0, "linux": 324.0, "runs": 3
            }]})
        );
    }

    #[test]
    fn the_table_shows_the_ratio() {
        let text = table(&[162.0]).text();
        assert!(text.contains("0.50"), "{text}");
        assert_eq!(grouped(Some(1_295_147_260.4)), "1,295,147,260");
        assert_eq!(grouped(Some(324.0)), "324");
    }

    #[test]
    fn growth_beyond_the_tolerance_fails_the_check() {
        let baseline = table(&[100.0]).json();
        assert_eq!(table(&[102.9]).check(&baseline).unwrap(), 1);
        let error = table(&[103.1]).check(&baseline).unwrap_err().to_string();
        assert!(error.contains("null-call"), "{error}");
        assert!(table(&[]).check(&baseline).is_err(), "a row that vanished");
        assert!(table(&[1.0]).check(&json!({})).is_err());
    }

    #[test]
    fn times_of_a_boot_are_one_measurement() {
        let pass = |ns| Pass {
            row: "raw-seq-read-1m".into(),
            section: 1,
            operations: 2,
            ns,
        };
        let mut samples = Samples::default();
        samples.add_times(&[
            pass(2 * 1_048_576),
            pass(2 * 1_048_576),
            pass(2_000_000_000),
        ]);
        let get = |metric| samples.get("raw-seq-read-1m", metric);
        assert_eq!(get(Metric::WallNs), Some((1_048_576.0, 1)));
        assert_eq!(get(Metric::MbPerS), Some((1000.0, 1)));
    }
}
