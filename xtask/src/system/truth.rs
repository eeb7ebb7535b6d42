//! The host's answers: the same commands, run by the host's shell and tools on
//! the folder that went into an image.

use std::path::Path;

use anyhow::Context;

use crate::tool;

/// What the host's shell prints for `script` in `folder`.
pub(super) fn host_shell(folder: &Path, script: &str) -> anyhow::Result<String> {
    let mut command = tool::command("sh");
    command
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .args(["-c", script]);
    let output = tool::read(&mut command)?;
    String::from_utf8(output).context("the host's answer is not UTF-8")
}

/// The lines of a text, sorted: for answers whose order is free.
pub(super) fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}
