//! Bulkhead as a system to measure: the boot archive's script runs the program
//! `bench` with the names of the rows, or `bench-net`, which serves the host's loads.

use anyhow::Context;
use tempfile::TempDir;

use super::measure::{Results, System};
use super::rows::{On, Row};
use super::wire::PAGE_BYTES;
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

/// The page of the web server's row.
pub const PAGE: &str = "/files/boot/page.html";

/// Builds Bulkhead, optimised, to measure these rows from inside.
///
/// # Errors
///
/// When something does not compile.
pub fn prepare(rows: &[&Row]) -> anyhow::Result<Ours> {
    let names: Vec<&str> = rows
        .iter()
        .filter(|row| row.on == On::Both)
        .map(|row| row.name)
        .collect();
    with_script(format!("bench {}", names.join(" ")), Vec::new())
}

/// Builds it to serve the loads of the network's rows.
///
/// # Errors
///
/// When something does not compile.
pub fn prepare_server() -> anyhow::Result<Ours> {
    let page = ("page.html".to_owned(), vec![b'.'; PAGE_BYTES]);
    with_script("ip wait 30 >/dev/null; bench-net".to_owned(), vec![page])
}

fn with_script(script: String, files: Vec<(String, Vec<u8>)>) -> anyhow::Result<Ours> {
    let built = build::build(Profile::Release)?;
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(build::target_folder("bench")?)
        .context("a folder for the run")?;
    let archive = folder.path().join("boot.archive");
    let extras = ArchiveExtras {
        exec: Some(script),
        bench: true,
        files,
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
