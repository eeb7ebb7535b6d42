//! `cargo xtask bench`: measures Bulkhead and, beside it, Linux.

use std::path::PathBuf;

/// What `cargo xtask bench` was asked to measure.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BenchArgs {
    /// Only rows whose name contains this.
    pub name: Option<String>,
    /// Also measure this system in the same QEMU and compare.
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// Write the rows to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Debian's own kernel in the same QEMU.
    Linux,
}

/// Measures and prints the table.
///
/// # Errors
///
/// When a guest cannot be built, does not start or gives no result.
pub fn run(_args: BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("no benchmark is built in")
}
