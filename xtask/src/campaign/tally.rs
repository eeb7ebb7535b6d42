//! The denominators of a campaign: of so many faults so many did this.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::journal::Entry;

/// Counts of a group of faults.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    injected: u64,
    /// Of those of which it is known.
    activated: u64,
    unknown: u64,
    manifested: u64,
    /// The driver ended by the fault.
    fail_stop: u64,
    fail_stop_recovered: u64,
    recovered: u64,
    workload_correct: u64,
    wrong: u64,
    failed: u64,
    by_hand: u64,
    stuck: u64,
    kernel: u64,
    /// Attempts beyond the grants that were not refused.
    not_refused: u64,
    /// Those on which QEMU crashed each time.
    unjudged: u64,
    latencies_us: Vec<u64>,
    recoveries_us: Vec<u64>,
    detected: BTreeMap<&'static str, Vec<u64>>,
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).copied().unwrap_or(0)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 100.0;
    }
    part as f64 * 100.0 / whole as f64
}

impl Tally {
    /// Counts a fault.
    pub fn add(&mut self, entry: &Entry) {
        let seen = &entry.seen;
        if seen.unjudged {
            self.unjudged += 1;
            return;
        }
        self.injected += 1;
        self.not_refused += u64::from(entry.fault.contains("NOT REFUSED"));
        match entry.activated {
            Some(true) => self.activated += 1,
            Some(false) => {}
            None => self.unknown += 1,
        }
        if !seen.manifested() {
            return;
        }
        self.manifested += 1;
        let recovered = seen.recovered && !seen.stuck;
        self.recovered += u64::from(recovered);
        if seen.died {
            self.fail_stop += 1;
            self.fail_stop_recovered += u64::from(recovered);
            self.latencies_us.push(seen.latency_us);
            self.recoveries_us.push(seen.recover_us);
        }
        if let Some(by) = seen.detected_by() {
            self.detected.entry(by).or_default().push(seen.latency_us);
        }
        self.workload_correct += u64::from(seen.workload_correct());
        self.wrong += u64::from(seen.wrong > 0);
        self.failed += u64::from(seen.failed > 0 || seen.lost > 0);
        self.by_hand += u64::from(!seen.recovered && !seen.stuck);
        self.stuck += u64::from(seen.stuck && !seen.kernel);
        self.kernel += u64::from(seen.kernel);
    }

    fn sort(&mut self) {
        self.latencies_us.sort_unstable();
        self.recoveries_us.sort_unstable();
        for times in self.detected.values_mut() {
            times.sort_unstable();
        }
    }

    /// For `--json`.
    pub fn json(&mut self) -> Value {
        self.sort();
        let detected: BTreeMap<_, _> = self
            .detected
            .iter()
            .map(|(by, times)| {
                let value = json!({
                    "count": times.len(),
                    "latency_us": { "p50": percentile(times, 50), "p99": percentile(times, 99) },
                });
                (*by, value)
            })
            .collect();
        json!({
            "injected": self.injected,
            "activated": self.activated,
            "activation_unknown": self.unknown,
            "manifested": self.manifested,
            "fail_stop": self.fail_stop,
            "fail_stop_recovered": self.fail_stop_recovered,
            "detected": detected,
            "recovered": self.recovered,
            "recover_us": {
                "p50": percentile(&self.recoveries_us, 50),
                "p99": percentile(&self.recoveries_us, 99),
            },
            "workload_correct": self.workload_correct,
            "wrong_data": self.wrong,
            "failed_requests": self.failed,
            "recovered_by_hand": self.by_hand,
            "stuck": self.stuck,
            "kernel_crashes": self.kernel,
            "grants_not_refused": self.not_refused,
            "not_judged": self.unjudged,
        })
    }

    /// Whether it is as good as a campaign must be: every attempt beyond the grants refused, no crash of the kernel, nothing stuck, 99 % of the fail-stop
    /// faults and 90 % of those that showed recovered without a person.
    pub fn is_good(&self) -> bool {
        self.kernel == 0
            && self.not_refused == 0
            && self.stuck == 0
            && share(self.fail_stop_recovered, self.fail_stop) >= 99.0
            && share(self.recovered, self.manifested) >= 90.0
    }

    fn row(&mut self, name: &str) -> String {
        self.sort();
        format!(
            "{name:<26} {:>8} {:>9} {:>10} {:>9} {:>6.2}% {:>9} {:>6.2}% {:>8} {:>6} {:>6} {:>7} {:>5} {:>6} {:>8.1} {:>8.1}",
            self.injected,
            self.activated,
            self.manifested,
            self.fail_stop,
            share(self.fail_stop_recovered, self.fail_stop),
            self.recovered,
            share(self.recovered, self.manifested),
            self.workload_correct,
            self.wrong,
            self.failed,
            self.by_hand,
            self.stuck,
            self.kernel,
            percentile(&self.recoveries_us, 50) as f64 / 1000.0,
            percentile(&self.recoveries_us, 99) as f64 / 1000.0,
        )
    }
}

/// The groups of a campaign: a row for each driver and class, then each driver, then all.
pub fn groups<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(String, Tally)> {
    let mut rows: BTreeMap<(String, u8), (String, Tally)> = BTreeMap::new();
    let mut all = Tally::default();
    for entry in entries {
        let class = format!("{:?}", entry.class);
        let keys = [
            (
                (entry.driver.clone(), entry.class as u8),
                format!("{} {class}", entry.driver),
            ),
            (
                (entry.driver.clone(), u8::MAX),
                format!("{} all", entry.driver),
            ),
        ];
        for (key, name) in keys {
            rows.entry(key)
                .or_insert_with(|| (name, Tally::default()))
                .1
                .add(entry);
        }
        all.add(entry);
    }
    let mut list: Vec<_> = rows.into_values().collect();
    list.push(("all".to_owned(), all));
    list
}

/// The table for people.
pub fn table(groups: &mut [(String, Tally)]) -> String {
    let mut text = format!(
        "{:<26} {:>8} {:>9} {:>10} {:>9} {:>7} {:>9} {:>7} {:>8} {:>6} {:>6} {:>7} {:>5} {:>6} {:>17}\n",
        "driver, class",
        "injected",
        "activated",
        "manifested",
        "fail-stop",
        "recov.",
        "recovered",
        "",
        "correct",
        "wrong",
        "failed",
        "by hand",
        "stuck",
        "kernel",
        "back ms p50, p99",
    );
    for (name, tally) in groups.iter_mut() {
        text.push_str(&tally.row(name));
        text.push('\n');
    }
    let Some((_, all)) = groups.last_mut() else {
        return text;
    };
    text.push_str("\ndetected by              count   p50 ms   p99 ms\n");
    for (by, times) in &all.detected {
        text.push_str(&format!(
            "{by:<22} {:>7} {:>8.1} {:>8.1}\n",
            times.len(),
            percentile(times, 50) as f64 / 1000.0,
            percentile(times, 99) as f64 / 1000.0,
        ));
    }
    if all.unjudged > 0 {
        text.push_str(&format!(
            "\nnot judged, since QEMU crashed on each try: {} more\n",
            all.unjudged
        ));
    }
    text
}
