//! Sets up, builds, runs, tests and measures Bulkhead: `cargo xtask --help`.
//!
//! Standard output carries only what a command is for (the guest's console, a
//! table, a result line); everything else goes to standard error.

mod bench;
mod book;
mod build;
mod campaign;
mod conformance;
mod control;
mod copy;
mod crash;
mod fetch;
mod fuzz;
mod guest;
mod hostile;
mod image;
mod judge;
mod levels;
mod linux;
mod mutations;
mod new;
mod replay;
mod run;
mod setup;
mod symbols;
mod system;
mod tool;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Exit status when a kernel panicked.
pub const STATUS_PANIC: u8 = 101;
/// Exit status when the guest ended without saying how, or QEMU did not start.
pub const STATUS_DIED: u8 = 102;
/// Exit status when time ran out.
pub const STATUS_TIMEOUT: u8 = 124;
/// Exit status when a running system could not serve a request.
pub const STATUS_NOT_SERVED: u8 = 125;
/// Exit status when the command line asks for something that is not there.
pub const STATUS_USAGE: u8 = 2;

/// Sets up, builds, runs, tests and measures Bulkhead.
///
/// Whatever is missing (QEMU, image tools, the bare-metal Rust target) is
/// installed first, and named as it is installed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and boot in QEMU: a shell, or `--exec` for commands without a terminal.
    Run(Box<run::RunArgs>),
    /// Run shell commands in a running system.
    Sh(control::ShArgs),
    /// Build a driver and put it in the place of the one that runs in a system.
    Push(control::PushArgs),
    /// Print the crash reports that a system saved, with the lines of the sources.
    Crash(crash::CrashArgs),
    /// Have a driver follow the trace of a crash report on this machine, with no device.
    Replay(replay::ReplayArgs),
    /// Build the kernel, all programs and the boot archive.
    Build(build::BuildArgs),
    /// Make the demo disk image, or one of the tests', and print its path.
    Image(image::ImageArgs),
    /// Run all checks and tests, or one level of them.
    Test(levels::TestArgs),
    /// Measure, and compare with Linux in the same QEMU.
    Bench(bench::BenchArgs),
    /// Inject faults into drivers under a verified load, and count what became of them.
    Campaign(campaign::CampaignArgs),
    /// Have clients that others wrote use the system while drivers die, and judge what they saw.
    Judge(judge::JudgeArgs),
    /// Fuzz parsers and drivers with libFuzzer.
    Fuzz(fuzz::FuzzArgs),
    /// Begin a driver: a package from a template.
    New(new::NewArgs),
    /// Build the documentation of all packages, and the book if mdBook is installed.
    Doc,
    /// Remove everything that was built.
    Clean,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // One clear line; `--help` has the rest.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            eprintln!("xtask: {}", line.strip_prefix("error: ").unwrap_or(line));
            return ExitCode::from(STATUS_USAGE);
        }
        // Help and version.
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Sh(args) => control::sh(&args),
        Command::Push(args) => control::push(&args),
        Command::Crash(args) => crash::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::run(&args),
        Command::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => levels::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::Judge(args) => judge::run(&args),
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(args) => fuzz::run(&args).map(|()| ExitCode::SUCCESS),
        Command::New(args) => new::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doc => build::documentation(tool::Output::Inherit)
            .and_then(|()| book::build())
            .map(|()| ExitCode::SUCCESS),
        Command::Clean => clean().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(match error.downcast_ref::<UsageError>() {
            Some(_) => STATUS_USAGE,
            None => 1,
        })
    })
}

fn clean() -> anyhow::Result<()> {
    let target = build::workspace_root().join("target");
    match std::fs::remove_dir_all(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", target.display()))
        }
        _ => Ok(()),
    }
}

/// The command line asks for something that is not there; status [`STATUS_USAGE`].
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
