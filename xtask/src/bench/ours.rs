//! Bulkhead as a system to measure: the boot archive's script runs the program
//! `bench` with the names of the rows.

use anyhow::Context;
use tempfile::TempDir;

use super::measure::{Results, System};
use super::rows::{On, Row};
use crate::build::{self, ArchiveExtras, Built, Profile};

/// A Bulkhead that was built for these rows. Its archive lasts as long as this.
#[derive(Debug)]
pub struct Ours {
    /// What to boot.
    pub system: System,
    /// The files that it was made from.
    pub built: Built,
    _folder: TempDir,
}

/// Builds Bulkhead, optimised.
///
/// # Errors
///
/// When something does not compile.
pub fn prepare(rows: &[&Row]) -> anyhow::Result<Ours> {
    let built = build::build(Profile::Release)?;
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(build::target_folder("bench")?)
        .context("a folder for the run")?;
    let archive = folder.path().join("boot.archive");
    let names: Vec<&str> = rows
        .iter()
        .filter(|row| row.on == On::Both)
        .map(|row| row.name)
        .collect();
    let extras = ArchiveExtras {
        exec: Some(format!("bench {}", names.join(" "))),
        bench: true,
        ..ArchiveExtras::default()
    };
    build::write_archive(&built, &extras, &archive)?;
    Ok(Ours {
        system: System {
            name: "Bulkhead",
            kernel: built.kernel.clone(),
            initrd: archive,
            command_line: String::new(),
            results: Results::Console,
        },
        built,
        _folder: folder,
    })
}
