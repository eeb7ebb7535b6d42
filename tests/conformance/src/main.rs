//! Runs the conformance suites over drivers at the homes of a host.
//!
//! `cargo xtask test conformance` runs this, adds what it learns from a booted system, and prints the matrix.
//! Alone, `cargo run -p conformance -- --drivers virtio-blk --homes sim` prints a line for each case.
#![forbid(unsafe_code)]

mod device;
mod doorbell;
mod gateway;
mod host_disk;
mod net;
mod qtest;
mod sim;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ddk_class_net::NetDevice;
use ddk_conformance_core::{Options, Outcome};
use model_e1000::Kind;
use {ddk_conformance_block as block, ddk_conformance_net as network};

/// A home, by the suite that runs there.
enum Suite {
    /// Disks.
    Block(Box<dyn block::Home>),
    /// Network interfaces.
    Net(Box<dyn network::Home>),
}

impl Suite {
    /// Runs it; tells each case's name and outcome.
    fn run(&mut self, options: &Options, report: &mut dyn FnMut(String, &Outcome)) {
        match self {
            Suite::Block(home) => {
                block::run(&mut **home, options, &mut |case, o| {
                    report(case.to_string(), o)
                });
            }
            Suite::Net(home) => {
                network::run(&mut **home, options, &mut |case, o| {
                    report(case.to_string(), o)
                });
            }
        }
    }
}

/// Which suite is a cell's.
#[derive(Clone, Copy)]
enum Class {
    Block,
    Net,
}

impl Class {
    /// Names of its cases.
    fn cases(self) -> Vec<String> {
        match self {
            Class::Block => block::cases().map(|case| case.to_string()).collect(),
            Class::Net => network::cases().map(|case| case.to_string()).collect(),
        }
    }
}

/// A driver at a home.
struct Cell {
    class: Class,
    driver: &'static str,
    home: &'static str,
    /// Whether other seeds show anything new.
    seeded: bool,
    open: fn() -> Result<Suite, String>,
}

/// Everything that can run on a host.
const CELLS: &[Cell] = &[
    Cell {
        class: Class::Block,
        driver: "virtio-blk",
        home: "sim",
        seeded: true,
        open: || Ok(Suite::Block(Box::new(sim::VirtioBlkSim))),
    },
    Cell {
        class: Class::Block,
        driver: "virtio-blk",
        home: "qtest",
        seeded: false,
        open: || {
            let device = "virtio-blk-pci,num-queues=2,disable-legacy=on";
            let home = qtest::Qtest::<virtio_blk::VirtioBlk>::new(device)?;
            Ok(Suite::Block(Box::new(home)))
        },
    },
    Cell {
        class: Class::Block,
        driver: "nvme",
        home: "sim",
        seeded: true,
        open: || Ok(Suite::Block(Box::new(sim::NvmeSim))),
    },
    Cell {
        class: Class::Block,
        driver: "nvme",
        home: "qtest",
        seeded: false,
        open: || {
            let home = qtest::Qtest::<nvme::Nvme>::new("nvme")?;
            Ok(Suite::Block(Box::new(home)))
        },
    },
    Cell {
        class: Class::Net,
        driver: "virtio-net",
        home: "sim",
        seeded: true,
        open: || Ok(Suite::Net(Box::new(net::VirtioNetSim))),
    },
    Cell {
        class: Class::Net,
        driver: "virtio-net",
        home: "qtest",
        seeded: false,
        open: || nic::<virtio_net::VirtioNet>(net::VIRTIO_NET),
    },
    Cell {
        class: Class::Net,
        driver: "e1000",
        home: "sim",
        seeded: true,
        open: || Ok(Suite::Net(Box::new(net::E1000Sim(Kind::I82540em)))),
    },
    Cell {
        class: Class::Net,
        driver: "e1000",
        home: "qtest",
        seeded: false,
        open: || nic::<e1000::E1000>(net::I82540EM),
    },
    Cell {
        class: Class::Net,
        driver: "e1000e",
        home: "sim",
        seeded: true,
        open: || Ok(Suite::Net(Box::new(net::E1000Sim(Kind::I82574l)))),
    },
    Cell {
        class: Class::Net,
        driver: "e1000e",
        home: "qtest",
        seeded: false,
        open: || nic::<e1000::E1000>(net::I82574L),
    },
];

/// The home of a driver of network interfaces beside QEMU.
fn nic<D: NetDevice + 'static>(model: net::Model) -> Result<Suite, String> {
    Ok(Suite::Net(Box::new(net::NicQtest::<D>::new(model)?)))
}

/// Runs the conformance suites at the homes of a host.
#[derive(Parser)]
struct Cli {
    /// Only these drivers.
    #[arg(long, value_delimiter = ',')]
    drivers: Vec<String>,
    /// Only these homes.
    #[arg(long, value_delimiter = ',')]
    homes: Vec<String>,
    /// Only cases whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seeds from the first one on, where a home draws its devices from the seed.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// A JSON object for each case, one a line.
    #[arg(long)]
    json: bool,
    /// Stop at the first failure.
    #[arg(long)]
    first: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let wanted =
        |choice: &[String], name: &str| choice.is_empty() || choice.iter().any(|c| c == name);
    let (mut ran, mut failed) = (0, 0);
    for cell in CELLS {
        if !wanted(&cli.drivers, cell.driver) || !wanted(&cli.homes, cell.home) {
            continue;
        }
        let mut home = match (cell.open)() {
            Ok(home) => home,
            Err(reason) => {
                for case in cell.class.cases() {
                    let outcome = Outcome::NotRun(reason.clone());
                    show(&cli, cell, &case, &outcome);
                }
                continue;
            }
        };
        let seeds = if cell.seeded { cli.seeds } else { 1 };
        for seed in cli.seed..cli.seed.saturating_add(seeds) {
            let options = Options {
                seed,
                filter: cli.filter.clone(),
            };
            let mut last = Instant::now();
            home.run(&options, &mut |mut name, outcome| {
                if cell.seeded {
                    name.push_str(&format!("/seed-{seed}"));
                }
                show(&cli, cell, &name, outcome);
                if std::env::var_os("CONFORMANCE_TIMES").is_some() {
                    eprintln!("{name}: {} ms", last.elapsed().as_millis());
                    last = Instant::now();
                }
                match outcome {
                    Outcome::Passed => ran += 1,
                    Outcome::Failed(_) => {
                        ran += 1;
                        failed += 1;
                        if cli.first {
                            std::process::exit(1);
                        }
                    }
                    Outcome::NotRun(_) => {}
                }
            });
        }
    }
    // A run without a test has shown nothing.
    if failed == 0 && ran > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn show(cli: &Cli, cell: &Cell, case: &str, outcome: &Outcome) {
    let (word, detail) = match outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed(what) => ("FAILED", what.as_str()),
        Outcome::NotRun(reason) => ("not run", reason.as_str()),
    };
    if cli.json {
        let line = serde_json::json!({
            "driver": cell.driver,
            "home": cell.home,
            "case": case,
            "outcome": word,
            "detail": detail,
        });
        println!("{line}");
    } else if detail.is_empty() {
        println!("{word:<8}{} {} {case}", cell.driver, cell.home);
    } else {
        println!("{word:<8}{} {} {case}: {detail}", cell.driver, cell.home);
    }
}
