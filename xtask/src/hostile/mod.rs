//! Hostile frames against a running guest: bursts of them, and after each one a request that has to be answered as before. And hostile
//! clients of its web server.

pub mod clients;
pub mod station;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hostile_frames::{Flood, Generator, Net};
use serde::Serialize;

use station::{OWN, Station};

/// Time for the guest to get its address and to serve.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Frames between looks at what the guest sends.
const TURN: usize = 16;
/// What is asked for.
const PATH: &str = "/";

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where chance begins.
    pub seed: u64,
    /// Frames by chance.
    pub frames: usize,
    /// Of the frames with a changed field or cut short: each so many-th.
    pub sweep_step: usize,
    /// Connection requests of the flood; of other floods a quarter.
    pub flood: usize,
}

/// What became of a burst.
#[derive(Clone, Debug, Serialize)]
pub struct Burst {
    /// What was sent.
    pub name: String,
    /// How many frames.
    pub frames: usize,
    /// How long that took.
    pub seconds: f64,
    /// How long the request afterwards took.
    pub answer_seconds: f64,
    /// Frames of each kind, where there are several.
    pub kinds: BTreeMap<&'static str, usize>,
}

/// Waits until the guest serves; what it serves.
///
/// # Errors
/// When it does not.
pub fn ready(station: &mut Station) -> anyhow::Result<Vec<u8>> {
    station.until("the guest asks for an address", START_LIMIT, |station| {
        station.guest().map(drop)
    })?;
    let start = Instant::now();
    loop {
        match station.get(PATH) {
            Ok(page) if is_page(&page) => return Ok(page),
            Ok(other) if start.elapsed() > START_LIMIT => {
                bail!("the guest answers {:?}", String::from_utf8_lossy(&other));
            }
            Err(error) if start.elapsed() > START_LIMIT => return Err(error),
            // It listens a little later.
            _ => {
                let pause = Instant::now();
                station.until("a pause", START_LIMIT, |_| {
                    (pause.elapsed() > Duration::from_millis(200)).then_some(())
                })?;
            }
        }
    }
}

fn is_page(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 1000
}

/// Carries the plan out. `after` hears of each burst.
///
/// # Errors
/// When the guest does not answer rightly after a burst, or as `after`.
pub fn attack(
    station: &mut Station,
    page: &[u8],
    plan: Plan,
    mut after: impl FnMut(Burst) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let guest = station.guest().context("a guest that was ready")?;
    let net = Net {
        own: OWN,
        guest,
        port: 80,
    };
    let mut generator = Generator::new(net, plan.seed);
    let sweep = generator.sweep().into_iter().step_by(plan.sweep_step);
    let sweep: Vec<_> = sweep.map(|(kind, frame)| (kind.name(), frame)).collect();
    after(burst(station, page, "fields and lengths", sweep)?)?;
    for part in 0..4 {
        let frames = (0..plan.frames / 4).map(|_| {
            let (kind, frame) = generator.any();
            (kind.name(), frame)
        });
        let name = format!("by chance, part {}", part + 1);
        after(burst(station, page, &name, frames)?)?;
    }
    for flood in Flood::ALL {
        let count = match flood {
            Flood::Syn => plan.flood,
            _ => plan.flood / 4,
        };
        let frames = (0..count).map(|_| (flood.name(), generator.flood(flood)));
        let mut sent = burst(station, page, flood.name(), frames)?;
        sent.kinds.clear();
        after(sent)?;
    }
    Ok(())
}

fn burst(
    station: &mut Station,
    page: &[u8],
    name: &str,
    frames: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
) -> anyhow::Result<Burst> {
    let start = Instant::now();
    let mut kinds = BTreeMap::new();
    let mut count = 0;
    for (kind, frame) in frames {
        station
            .send(&frame)
            .with_context(|| format!("{name}, after {count} frames"))?;
        *kinds.entry(kind).or_default() += 1;
        count += 1;
        if count % TURN == 0 {
            station.turn()?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    // Frames said that this station is elsewhere.
    station.announce()?;
    let answer = station
        .get(PATH)
        .with_context(|| format!("after {count} frames of {name}"))?;
    ensure!(
        answer == page,
        "after {name} the answer is another one: {:?}",
        String::from_utf8_lossy(answer.get(..200).unwrap_or(&answer))
    );
    Ok(Burst {
        name: name.to_owned(),
        frames: count,
        seconds,
        answer_seconds: start.elapsed().as_secs_f64(),
        kinds,
    })
}
