//! Finds out what the host lacks and installs it.
//!
//! Nothing is installed twice, and nothing outside the system's packages and
//! the Rust toolchain is touched. On a system without apt the missing programs
//! are named and nothing is changed.

mod toolchain;

use std::process::Command;

use anyhow::{Context, bail};

use crate::tool::{self, Output};

pub use toolchain::{Toolchain, cargo};

/// A program of the host and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    program: &'static str,
    package: &'static str,
}

pub(crate) const fn needed(program: &'static str, package: &'static str) -> Needed {
    Needed { program, package }
}

/// What runs the machine.
pub const MACHINE: &[Needed] = &[needed("qemu-system-x86_64", "qemu-system-x86")];

/// What makes and checks disk images.
pub const IMAGES: &[Needed] = &[
    needed("mke2fs", "e2fsprogs"),
    needed("debugfs", "e2fsprogs"),
    needed("mkfs.vfat", "dosfstools"),
    needed("mcopy", "mtools"),
    needed("sgdisk", "gdisk"),
    needed("sfdisk", "fdisk"),
    needed("fdisk", "fdisk"),
];

/// What compiles the counter and the Linux side of a comparison.
pub const COMPILER: &[Needed] = &[needed("gcc", "build-essential")];

/// What compiles libFuzzer.
pub const CXX: &[Needed] = &[needed("g++", "g++")];

/// Installs what is missing of `wanted`.
///
/// # Errors
///
/// When something is missing and cannot be installed; the message names it.
pub fn ensure(wanted: &[&[Needed]]) -> anyhow::Result<()> {
    let missing: Vec<Needed> = wanted
        .iter()
        .flat_map(|group| group.iter())
        .filter(|needed| tool::find(needed.program).is_none())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    packages.dedup();
    if let Err(error) = install(&packages) {
        let list: Vec<String> = missing
            .iter()
            .map(|needed| format!("{} (Debian package {})", needed.program, needed.package))
            .collect();
        bail!("install these yourself: {}: {error:#}", list.join(", "));
    }
    match missing
        .iter()
        .find(|needed| tool::find(needed.program).is_none())
    {
        Some(needed) => bail!(
            "package {} was installed, but {} is not there",
            needed.package,
            needed.program
        ),
        None => Ok(()),
    }
}

/// Installs Debian packages, as root or with sudo.
fn install(packages: &[&str]) -> anyhow::Result<()> {
    if tool::find("apt-get").is_none() {
        bail!("this system has no apt");
    }
    eprintln!("xtask: installing {}", packages.join(" "));
    let update = as_root(&["apt-get", "update", "-q"])?;
    tool::run(&mut { update }, Output::OnFailure).context("cannot read the package lists")?;
    let mut arguments = vec!["apt-get", "install", "-y", "-q", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    let mut install = as_root(&arguments)?;
    install.env("DEBIAN_FRONTEND", "noninteractive");
    tool::run(&mut install, Output::OnFailure)
}

fn as_root(arguments: &[&str]) -> anyhow::Result<Command> {
    let (program, rest) = arguments.split_first().context("an empty command")?;
    if rustix::process::geteuid().is_root() {
        let mut command = tool::command(program);
        command.args(rest);
        return Ok(command);
    }
    if tool::find("sudo").is_none() {
        bail!("{program} needs root, and there is no sudo");
    }
    let mut command = tool::command("sudo");
    // sudo asks for a password on the terminal.
    command.stdin(std::process::Stdio::inherit());
    command.args(arguments);
    Ok(command)
}
