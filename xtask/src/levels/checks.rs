//! Checks of the source: format, lints, documentation.

use std::process::Command;

use super::Tally;
use crate::build::{self, cargo::packages, workspace_root};
use crate::setup::{self, Toolchain};
use crate::tool::{self, Output};

/// rustfmt and clippy.
pub(super) fn lint() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    tally.check("rustfmt", || {
        let mut command = cargo(&["fmt", "--all", "--check", "--", "--files-with-diff"]);
        tool::run(&mut command, Output::OnFailure)
    });
    tally.check("drivers know no home", super::drivers::check);
    let (bare, host): (Vec<_>, Vec<_>) = packages()?
        .into_iter()
        .partition(|package| package.is_bare());
    tally.check("clippy, packages of the host", || {
        let mut command = cargo(&["clippy", "--quiet", "--all-targets"]);
        for package in &host {
            command.args(["--package", &package.name]);
        }
        command.args(["--", "-Dwarnings"]);
        tool::run(&mut command, Output::OnFailure)
    });
    const TARGET_NAME: &str = "clippy, packages of the bare target";
    match Toolchain::ensure()? {
        toolchain @ Toolchain::Installed => tally.check(TARGET_NAME, || {
            let mut command = toolchain.cargo("clippy", &[]);
            command.args(["--quiet", "--lib", "--bins"]);
            for package in &bare {
                command.args(["--package", &package.name]);
            }
            command.args(["--", "-Dwarnings"]);
            command.current_dir(workspace_root());
            tool::run(&mut command, Output::OnFailure)
        }),
        Toolchain::Debian { .. } => {
            tally.skip(TARGET_NAME, "clippy's toolchain lacks the target");
        }
    }
    Ok(tally)
}

/// rustdoc.
pub(super) fn documentation() -> Tally {
    let mut tally = Tally::default();
    tally.check("rustdoc", || build::documentation(Output::OnFailure));
    tally
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = setup::cargo();
    command.args(arguments).current_dir(workspace_root());
    command
}
