//! What a guest's output and the counter's file say about each pass of a row.
//!
//! The guest prints `bench ROW id=SECTION n=OPERATIONS ns=TIME` after each pass. The
//! TCG plugin writes one line of JSON for the same pass, under the section's number.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

/// One pass, as the guest saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Name of the row.
    pub row: String,
    /// Number in the markers around the pass.
    pub section: u64,
    /// Operations between the markers; at least 1.
    pub operations: u64,
    /// Time between the markers by the guest's clock, in nanoseconds.
    pub ns: u64,
}

impl Pass {
    /// Reads a line of the guest's output. `None` when it is about something else.
    ///
    /// # Errors
    ///
    /// When the line starts like a result but is not one, or reports a failure.
    pub fn parse(line: &str) -> anyhow::Result<Option<Self>> {
        let line = line.trim();
        if let Some(why) = line.strip_prefix("bench-failed ") {
            bail!("the guest says: {why}");
        }
        let Some(rest) = line.strip_prefix("bench ") else {
            return Ok(None);
        };
        let mut words = rest.split_whitespace();
        let row = words.next().context("no row")?.to_owned();
        let mut numbers = BTreeMap::new();
        for word in words {
            let parsed = word
                .split_once('=')
                .and_then(|(key, value)| Some((key, value.parse::<u64>().ok()?)));
            let (key, value) = parsed.with_context(|| format!("{word:?} in {line:?}"))?;
            numbers.insert(key, value);
        }
        let number = |key| {
            let value = numbers.get(key).copied();
            value.with_context(|| format!("no {key}= in {line:?}"))
        };
        let operations = number("n")?;
        if operations == 0 {
            bail!("no operations in {line:?}");
        }
        Ok(Some(Self {
            row,
            section: number("id")?,
            operations,
            ns: number("ns")?,
        }))
    }
}

/// What the plugin counted between a pair of markers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// By name: `user`, `kernel`, `cr3_writes` and the other counters of the plugin.
    pub counters: BTreeMap<String, u64>,
}

impl Count {
    /// Instructions, user and kernel.
    pub fn instructions(&self) -> u64 {
        ["user", "kernel"]
            .iter()
            .filter_map(|name| self.counters.get(*name))
            .sum()
    }
}

/// Reads the counter's file: for each section its passes, in order.
///
/// # Errors
///
/// When a line is not what the plugin writes.
pub fn read_counts(text: &str) -> anyhow::Result<BTreeMap<u64, Vec<Count>>> {
    let mut sections: BTreeMap<u64, Vec<Count>> = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let fields = value.as_object().with_context(|| line.to_owned())?;
        let section = fields
            .get("section")
            .and_then(Value::as_u64)
            .with_context(|| format!("no section in {line}"))?;
        let counters = fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "section" | "pass"))
            .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
            .collect();
        sections
            .entry(section)
            .or_default()
            .push(Count { counters });
    }
    Ok(sections)
}

/// Joins the guest's passes with the counts of the same run: the k-th pass that the
/// guest printed for a section is the k-th that the plugin saw.
///
/// # Errors
///
/// When the two disagree about how many passes there were.
pub fn join(
    passes: Vec<Pass>,
    counts: &BTreeMap<u64, Vec<Count>>,
) -> anyhow::Result<Vec<(Pass, Count)>> {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let mut joined = Vec::new();
    for pass in passes {
        let index = seen.entry(pass.section).or_default();
        let of_section = counts.get(&pass.section);
        let count = of_section.and_then(|all| all.get(*index));
        let count = count.with_context(|| {
            format!("{}: pass {} was printed but not counted", pass.row, *index)
        })?;
        *index += 1;
        joined.push((pass, count.clone()));
    }
    for (section, used) in seen {
        let counted = counts.get(&section).map_or(0, Vec::len);
        if counted != used {
            bail!("section {section}: {counted} passes counted, {used} printed");
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_pass_and_ignores_other_lines() {
        let pass = Pass::parse("bench spawn id=6 n=100 ns=12345\r").unwrap();
        assert_eq!(
            pass,
            Some(Pass {
                row: "spawn".into(),
                section: 6,
                operations: 100,
                ns: 12345
            })
        );
        assert_eq!(Pass::parse("[    0.1] bench mark").unwrap(), None);
    }

    #[test]
    fn a_broken_result_is_an_error_and_not_a_missing_row() {
        for line in [
            "bench spawn id=6 n=100",
            "bench spawn id=6 n=0 ns=1",
            "bench spawn id=6 n=x ns=1",
            "bench-failed /dev/vda: No such file or directory",
        ] {
            assert!(Pass::parse(line).is_err(), "{line}");
        }
    }

    fn pass(section: u64) -> Pass {
        Pass {
            row: "r".into(),
            section,
            operations: 2,
            ns: 1,
        }
    }

    #[test]
    fn passes_and_counts_are_joined_in_order() {
        let text = concat!(
            r#"{"section":1,"pass":0,"user":1,"kernel":10,"halts":3}"#,
            "\n",
            r#"{"section":2,"pass":0,"user":5,"kernel":6}"#,
            "\n",
            r#"{"section":1,"pass":1,"user":2,"kernel":20,"halts":0}"#,
            "\n"
        );
        let counts = read_counts(text).unwrap();
        let joined = join(vec![pass(1), pass(1), pass(2)], &counts).unwrap();
        let sums: Vec<u64> = joined.iter().map(|(_, c)| c.instructions()).collect();
        assert_eq!(sums, [11, 22, 11]);
        assert_eq!(joined[0].1.counters["halts"], 3);

        assert!(join(vec![pass(1)], &counts).is_err(), "one pass unprinted");
        assert!(join(vec![pass(3)], &counts).is_err(), "one pass uncounted");
        assert!(read_counts("{\"pass\":1}").is_err());
    }
}
