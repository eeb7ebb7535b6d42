//! Copies of the repository, for what changes sources or begins where a newcomer begins.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::build::workspace_root;
use crate::tool;

/// Folders of a build folder that hold what cargo built for a profile.
const BUILT: [&str; 3] = ["deps", "build", ".fingerprint"];

/// Brings a copy up to date with the sources as they are in the work tree, new files included; other files
/// of the copy are removed, except in its `target`. What has not changed keeps its time, so that it is not built again.
///
/// # Errors
///
/// When git does not list the files, or one cannot be read or written.
pub fn sources(copy: &Path) -> anyhow::Result<()> {
    let wanted = listed()?;
    for name in &wanted {
        let from = workspace_root().join(name);
        // What was removed and is not yet committed.
        if !from.is_file() {
            continue;
        }
        let bytes = fs::read(&from).with_context(|| format!("cannot read {name}"))?;
        write(copy, name, &bytes)?;
    }
    remove_others(copy, copy, &wanted)
}

/// Writes a file of a copy, unless it has these contents already.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(copy: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let to = copy.join(name);
    if fs::read(&to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// Gives a copy's build folder what was built here from the registry, as links: cargo takes that over and
/// builds only the copy's own packages. `parts` are paths of profiles in both build folders.
///
/// # Errors
///
/// When a link cannot be made.
pub fn seed(target: &Path, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        for folder in BUILT {
            let from = workspace_root().join("target").join(part).join(folder);
            let to = target.join(part).join(folder);
            if to.exists() || !from.exists() {
                continue;
            }
            fs::create_dir_all(target.join(part))?;
            tool::read(tool::command("cp").arg("-al").arg(&from).arg(&to))?;
        }
    }
    Ok(())
}

/// A copy that stands where the repository is, for the commands that are run in it: cargo knows packages by their
/// place, so what was built here is up to date there. A mount namespace does it.
#[derive(Debug)]
pub struct StandIn {
    copy: PathBuf,
    arguments: Vec<&'static str>,
}

impl StandIn {
    /// `None` where the system does not let this user have a mount namespace: then the copy builds for itself.
    pub fn of(copy: &Path) -> Option<Self> {
        let ways = [vec!["--mount"], vec!["--mount", "--map-root-user"]];
        ways.into_iter()
            .map(|arguments| Self {
                copy: copy.to_owned(),
                arguments,
            })
            .find(|stand_in| tool::read(&mut stand_in.shell("true")).is_ok())
    }

    /// Gives the copy what was built here and the times of the sources, so that cargo finds nothing to do. Products are
    /// links; what cargo rewrites in place is copied.
    ///
    /// # Errors
    ///
    /// When a file cannot be copied.
    pub fn take_over(&self, parts: &[&str]) -> anyhow::Result<()> {
        let target = self.copy.join("target");
        for part in parts {
            let _ = fs::remove_dir_all(target.join(part));
        }
        seed(&target, parts)?;
        for part in parts {
            let here = workspace_root().join("target").join(part);
            let there = target.join(part);
            if here.exists() {
                let kept = there.join(".fingerprint");
                fs::remove_dir_all(&kept)?;
                tool::read(
                    tool::command("cp")
                        .arg("-a")
                        .args([here.join(".fingerprint"), kept]),
                )?;
            }
        }
        for name in listed()? {
            let (from, to) = (workspace_root().join(&name), self.copy.join(&name));
            if let (Ok(meta), Ok(file)) =
                (from.metadata(), fs::File::options().write(true).open(to))
            {
                file.set_modified(meta.modified()?)?;
            }
        }
        Ok(())
    }

    /// A program that runs in the copy.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tool::command("unshare");
        command
            .args(&self.arguments)
            .args([
                "sh",
                "-c",
                "mount --bind \"$1\" \"$2\" && cd \"$2\" && shift 2 && exec \"$@\"",
                "sh",
            ])
            .args([self.copy.as_path(), workspace_root()])
            .arg(program);
        command
    }

    /// A shell that runs a line in the copy.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        command
    }
}

/// The sources: what git knows, and new files that it is not to ignore.
fn listed() -> anyhow::Result<BTreeSet<String>> {
    let mut command = tool::command("git");
    command
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(workspace_root());
    let listed = String::from_utf8(tool::read(&mut command)?).context("names of files")?;
    Ok(listed
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

fn remove_others(root: &Path, folder: &Path, wanted: &BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path == root.join("target") {
            continue;
        }
        if path.is_dir() {
            remove_others(root, &path, wanted)?;
            // An empty folder would be a package without a manifest; one that is not stays.
            let _ = fs::remove_dir(&path);
        } else if let Ok(name) = path.strip_prefix(root)
            && !wanted.contains(name.to_string_lossy().as_ref())
        {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
