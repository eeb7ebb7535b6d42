//! Throughput over the interval at which a driver is killed: what crashes cost a client that sees none of them.
//!
//! Only ratios are told: to the same load in the same boot with nobody killed, all intervals in turns.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use serde_json::json;

use super::CampaignArgs;
use crate::build::{self, Profile};
use crate::guest::disk::{Access, Disk};
use crate::setup;
use crate::system::SystemTest;
use crate::system::endurance::DRIVERS;

/// Milliseconds between deaths; 0 for none.
const INTERVALS_MS: [u64; 6] = [0, 15_000, 8_000, 4_000, 2_000, 1_000];
const DISK_BYTES: u64 = 32 << 20;

/// A driver at an interval, over all rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    interval_ms: u64,
    requests: u64,
    kills: u64,
    elapsed_us: u64,
}

impl Point {
    fn per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.elapsed_us.max(1) as f64
    }
}

/// A driver's curve.
struct Curve {
    driver: &'static str,
    /// The first one is without deaths.
    points: Vec<Point>,
}

impl Curve {
    /// Throughput with deaths by that without.
    fn ratio(&self, point: &Point) -> f64 {
        let base = self.points.first().map_or(0.0, Point::per_second);
        if base > 0.0 {
            point.per_second() / base
        } else {
            0.0
        }
    }
}

/// Measures, prints and draws.
///
/// # Errors
/// When the system does not build, or the load was not right.
pub fn run(args: &CampaignArgs, drivers: &[&'static str]) -> anyhow::Result<ExitCode> {
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder("campaign")?;
    let mut curves = Vec::new();
    for driver in drivers.iter().copied() {
        let known = DRIVERS.iter().find(|(name, ..)| *name == driver);
        let (_, bus, disk_name) = *known.context("no such driver")?;
        let image = folder.join(format!("curve-{driver}.img"));
        let _ = fs::remove_file(&image);
        fs::File::create(&image)?.set_len(DISK_BYTES)?;
        let intervals = INTERVALS_MS.map(|ms| ms.to_string()).join(" ");
        let script = format!(
            "drv policy {disk_name} budget=4294967295 pause-min-ms=0 pause-max-ms=0\n\
             test-curve {disk_name} {} {} {} {intervals}\n",
            args.seed, args.seconds, args.rounds
        );
        let seconds = args.seconds * args.rounds * INTERVALS_MS.len() as u64;
        let disk = Disk {
            bus,
            ..Disk::new(&image, Access::ReadWrite)
        };
        let test = SystemTest::measurement(format!("curve-{driver}"), script)
            .cpus(args.cpus)
            .disks([disk])
            .time_limit(seconds * 2 + 120);
        let report = test.execute(&built, &folder)?;
        fs::remove_file(&image)?;
        curves.push(Curve {
            driver,
            points: points(&report.console)?,
        });
    }
    for curve in &curves {
        tell(curve, args.json);
    }
    let svg = args.svg.clone().unwrap_or_else(|| folder.join("curve.svg"));
    fs::write(&svg, plot(&curves)).with_context(|| svg.display().to_string())?;
    eprintln!("xtask: plot in {}", svg.display());
    Ok(ExitCode::SUCCESS)
}

fn points(console: &str) -> anyhow::Result<Vec<Point>> {
    let mut points = INTERVALS_MS.map(|interval_ms| Point {
        interval_ms,
        ..Point::default()
    });
    let mut lines = 0;
    for line in console.lines().filter(|line| line.starts_with("point ")) {
        let number = |key: &str| -> anyhow::Result<u64> {
            let word = line
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            Ok(word
                .with_context(|| format!("no {key} in {line:?}"))?
                .parse()?)
        };
        let interval_ms = number("interval-ms")?;
        let point = points.iter_mut().find(|p| p.interval_ms == interval_ms);
        let point = point.with_context(|| format!("odd {line:?}"))?;
        point.requests += number("requests")?;
        point.kills += number("kills")?;
        point.elapsed_us += number("elapsed-us")?;
        lines += 1;
    }
    ensure!(
        lines > 0 && lines % INTERVALS_MS.len() == 0 && !console.contains("FAILED"),
        "the load was not right: {}",
        console.lines().last().unwrap_or_default()
    );
    Ok(points.to_vec())
}

fn tell(curve: &Curve, as_json: bool) {
    for point in &curve.points {
        let ratio = curve.ratio(point);
        if as_json {
            println!(
                "{}",
                json!({
                    "driver": curve.driver,
                    "interval_ms": point.interval_ms,
                    "requests_per_second": point.per_second(),
                    "ratio": ratio,
                    "kills": point.kills,
                })
            );
            continue;
        }
        let every = match point.interval_ms {
            0 => "never killed".to_owned(),
            ms => format!("killed every {} s", ms / 1000),
        };
        println!(
            "{:<11} {every:<18} {:>5.1} % ({:.0} requests/s, {} deaths)",
            curve.driver,
            ratio * 100.0,
            point.per_second(),
            point.kills
        );
    }
}

/// Width, height, and where the axes stand.
const SIZE: (f64, f64) = (640.0, 360.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 310.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1541b", "#2da44e", "#8250df"];

/// Where an interval stands: the axis is logarithmic, from 1 to 16 s.
fn across(interval_ms: u64) -> f64 {
    let octaves = (interval_ms as f64 / 1000.0).log2() / 4.0;
    LEFT + 20.0 + octaves * (RIGHT - LEFT - 40.0)
}

/// Where a ratio stands, from 0 to 1.1.
fn up(ratio: f64) -> f64 {
    BOTTOM - ratio.clamp(0.0, 1.1) / 1.1 * (BOTTOM - TOP)
}

fn plot(curves: &[Curve]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE.0, SIZE.1
    );
    // Writing to a string does not fail.
    for percent in [0, 25, 50, 75, 100] {
        let y = up(f64::from(percent) / 100.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    for interval_ms in INTERVALS_MS.into_iter().filter(|ms| *ms > 0) {
        let x = across(interval_ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{BOTTOM}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#666\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 5.0,
            BOTTOM + 20.0,
            interval_ms / 1000
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\" stroke=\"#666\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">seconds between deaths of the driver</text>\n\
         <text x=\"{LEFT}\" y=\"14\">requests per second, of those with no death</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 42.0
    );
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let places: Vec<(f64, f64)> = curve
            .points
            .iter()
            .filter(|point| point.interval_ms > 0)
            .map(|point| (across(point.interval_ms), up(curve.ratio(point))))
            .collect();
        let line: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            line.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"
            );
        }
        let y = BOTTOM - 40.0 + number as f64 * 18.0;
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            RIGHT - 110.0,
            y - 4.0,
            RIGHT - 100.0,
            curve.driver
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up_and_what_is_missing_is_told() {
        let mut text = String::new();
        for round in 0..2 {
            for ms in INTERVALS_MS {
                let requests = if ms == 0 { 1000 } else { 900 };
                let _ = writeln!(
                    text,
                    "point round={round} interval-ms={ms} requests={requests} kills=3 recoveries=3 elapsed-us=1000000"
                );
            }
        }
        let curve = Curve {
            driver: "virtio-blk",
            points: points(&text).unwrap(),
        };
        assert_eq!(curve.points[1].kills, 6);
        assert!((curve.ratio(&curve.points[5]) - 0.9).abs() < 1e-9);
        let svg = plot(&[curve]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(points("").is_err());
        assert!(points(&format!("{text}FAILED block 3\n")).is_err());
    }
}
