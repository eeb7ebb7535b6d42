//! `cargo xtask replay`: a driver follows a recording on this machine, with no device.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::UsageError;
use crate::build::workspace_root;
use crate::setup;

/// What `cargo xtask replay` takes.
///
/// The driver is built from the sources as they are. The exit status is 0 when it followed the recording to
/// its end, 1 when it did something else, which is printed with what was recorded.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReplayArgs {
    /// The recording: what `cargo xtask crash --trace` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Builds the drivers for the host and has the recorded one follow.
///
/// # Errors
/// When there is no such file, or the drivers do not build.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let file = std::fs::canonicalize(&args.file)
        .map_err(|error| UsageError(format!("{}: {error}", args.file.display())))?;
    let mut command = setup::cargo();
    command.args(["run", "--quiet", "--package", "ddk-trace-block"]);
    command.args(["--example", "replay", "--"]).arg(&file);
    let status = command.current_dir(workspace_root()).status();
    let status = status.context("cannot start cargo")?;
    Ok(ExitCode::from(u8::from(!status.success())))
}
