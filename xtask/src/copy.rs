//! Copies of the repository, for what changes sources or begins where a newcomer begins.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    let wanted: BTreeSet<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
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

fn remove_others(root: &Path, folder: &Path, wanted: &BTreeSet<&str>) -> anyhow::Result<()> {
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
