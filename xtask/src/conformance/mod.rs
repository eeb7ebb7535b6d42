//! `cargo xtask test conformance`: each class's suite over every driver of the class at every home, as a matrix.
//!
//! The homes of the host run in one program (`tests/conformance`); the microkernel's runs inside a booted
//! system, on disks that are made here and looked at again afterwards, and on interfaces whose wire ends here.

mod booted;
mod booted_net;
mod hosted;
mod matrix;
mod wire;

use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{anyhow, bail, ensure};

use crate::levels::Tally;

pub use matrix::Verdict;
use matrix::{Entry, Matrix};

/// Drivers, the matrix's rows. That of Intel's network interfaces has two: the 82540EM and the 82574L, by QEMU's names.
const DRIVERS: &[&str] = &["virtio-blk", "nvme", "virtio-net", "e1000", "e1000e"];
/// Those of network interfaces.
const INTERFACES: &[&str] = &["virtio-net", "e1000", "e1000e"];
/// Homes, its columns.
const HOMES: &[&str] = &["os", "sim", "qtest", "vfio"];

/// Seeds of the simulator in a run that names none: each of the first four draws other features.
const SEEDS: u64 = 4;

/// What the run is to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The only seed; without it the first few.
    pub seed: Option<u64>,
    /// Only drivers, homes and cases with one of these words in their name (`nvme sim flush`).
    pub filter: Option<String>,
    /// The matrix as JSON instead of as a table.
    pub json: bool,
}

/// Runs the suite and prints the matrix.
///
/// # Errors
/// When a home cannot be prepared; what fails there is counted instead.
pub fn run(options: &Options) -> anyhow::Result<Tally> {
    let words: Vec<&str> = options.filter.iter().flat_map(|f| f.split(' ')).collect();
    let only = |names: &[&'static str]| -> Vec<&'static str> {
        let chosen = names.iter().copied().filter(|name| words.contains(name));
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            names.to_vec()
        } else {
            chosen
        }
    };
    let (drivers, homes) = (only(DRIVERS), only(HOMES));
    let mut rest = words
        .iter()
        .copied()
        .filter(|word| !DRIVERS.contains(word) && !HOMES.contains(word));
    let case = rest.next();
    ensure!(
        rest.next().is_none(),
        "'{}' names more than one case",
        words.join(" ")
    );
    let mut matrix = Matrix::new(&drivers, &homes);
    let seeds = options.seed.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut hosted = homes.clone();
    hosted.retain(|home| !["os", "vfio"].contains(home));
    let suite = match hosted[..] {
        [] => None,
        _ => Some(hosted::build()?),
    };
    // All at once: most of the cells wait most of the time.
    let (at_hosts, booted) = thread::scope(|scope| {
        let at_hosts = suite
            .as_ref()
            .map(|suite| scope.spawn(|| hosted::run(suite, &drivers, &hosted, case, &seeds)));
        let booted = match homes.contains(&"os") {
            true => booted_rows(&drivers, case, seeds.start),
            false => Ok(Vec::new()),
        };
        (at_hosts.map(thread::ScopedJoinHandle::join), booted)
    });
    let at_hosts = match at_hosts {
        None => Vec::new(),
        Some(Ok(entries)) => entries?,
        Some(Err(_)) => bail!("the hosts' caller panicked"),
    };
    for entry in at_hosts {
        matrix.add(entry);
    }
    if homes.contains(&"vfio") {
        // `cargo xtask test vfio` drives the devices there with tests of its own.
        let reason = "the suite is not part of the Linux guest's program";
        for &driver in &drivers {
            matrix.add(Entry {
                driver: driver.to_owned(),
                home: "vfio".to_owned(),
                case: "all".to_owned(),
                verdict: Verdict::NotRun(reason.to_owned()),
            });
        }
    }
    for (driver, verdicts) in booted? {
        for (case, verdict) in verdicts {
            matrix.add(Entry {
                driver: driver.to_owned(),
                home: "os".to_owned(),
                case,
                verdict,
            });
        }
    }
    if options.json {
        println!("{}", matrix.json());
    } else {
        print!("{}", matrix.table());
    }
    Ok(matrix.tally())
}

/// A driver, and what became of each case.
type Row<'a> = (&'a str, Vec<(String, Verdict)>);

/// The microkernel's column, two guests at a time: each waits for its wire or its disk now and then.
fn booted_rows<'a>(
    drivers: &[&'a str],
    case: Option<&str>,
    seed: u64,
) -> anyhow::Result<Vec<Row<'a>>> {
    let queue = Mutex::new(drivers.iter().copied());
    let lane = || {
        let mut rows = Vec::new();
        loop {
            let driver = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(driver) = driver else {
                return Ok(rows);
            };
            let verdicts = if INTERFACES.contains(&driver) {
                booted_net::run(driver, case, seed)?
            } else {
                booted::run(driver, case, seed)?
            };
            rows.push((driver, verdicts));
        }
    };
    thread::scope(|scope| {
        let lanes = [scope.spawn(lane), scope.spawn(lane)];
        let rows = lanes.map(|lane| match lane.join() {
            Ok(rows) => rows,
            Err(_) => Err(anyhow!("a guest's caller panicked")),
        });
        let rows: Vec<Vec<Row<'_>>> = rows.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(rows.into_iter().flatten().collect())
    })
}
