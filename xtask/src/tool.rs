//! Runs the programs of the host that xtask stands on.
//!
//! It finds them in the folders of the administrator too, which Debian leaves
//! out of a user's `PATH`, and keeps standard output clean.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Where a program's own output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To xtask's standard error.
    Inherit,
    /// Kept, and shown only when the program fails.
    OnFailure,
}

fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        path.push(":");
        path.push(folder);
    }
    path
}

/// The path of an installed program.
pub fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A command for a program of that name, or of that path.
pub fn command(name: impl AsRef<OsStr>) -> Command {
    let name = name.as_ref();
    let found = name.to_str().and_then(find);
    let mut command = Command::new(found.unwrap_or_else(|| name.into()));
    command.env("PATH", search_path()).stdin(Stdio::null());
    command
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        text.push(' ');
        if argument
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./=:,+".contains(c))
            && !argument.is_empty()
        {
            text.push_str(&argument);
        } else {
            text.push_str(&format!("'{}'", argument.replace('\'', "'\\''")));
        }
    }
    text
}

/// Runs a command to its end.
///
/// # Errors
///
/// When it cannot be started or its status is not 0.
pub fn run(command: &mut Command, output: Output) -> anyhow::Result<()> {
    let text = shown(command);
    let cannot_start = || format!("cannot start {text}");
    match output {
        Output::Inherit => {
            // Not on standard output: that belongs to the guest.
            let stderr = rustix::io::dup(rustix::stdio::stderr()).context("standard error")?;
            let status = command
                .stdout(Stdio::from(stderr))
                .status()
                .with_context(cannot_start)?;
            if !status.success() {
                bail!("{text}: {status}");
            }
        }
        Output::OnFailure => {
            let output = command.output().with_context(cannot_start)?;
            if !output.status.success() {
                bail!(
                    "{text}: {}\n{}{}",
                    output.status,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
    Ok(())
}

/// Runs a command and gives its standard output.
///
/// # Errors
///
/// When it cannot be started or its status is not 0.
pub fn read(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let text = shown(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start {text}"))?;
    if !output.status.success() {
        bail!(
            "{text}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
