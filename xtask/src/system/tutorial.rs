//! The book's tutorial: its commands, as they stand there, in a copy of the
//! repository, lead to a driver that is bound.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::build::{target_folder, workspace_root};
use crate::tool;

/// What the commands must have printed between them.
const EXPECTED: [&str; 2] = ["running my-edu", "my-edu: first register: 0x010000ed"];

/// Runs every command of the tutorial, in order.
pub(super) fn commands_of_the_book() -> anyhow::Result<()> {
    let copy = target_folder("tutorial")?;
    copy_sources(&copy)?;
    let text = fs::read_to_string(copy.join("docs/src/tutorial.md"))?;
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    ensure!(
        commands
            .iter()
            .any(|line| line.contains("xtask new driver")),
        "the tutorial makes no driver"
    );
    let mut printed = String::new();
    for line in commands {
        let mut command = tool::command("sh");
        command
            .args(["-c", line])
            .current_dir(&copy)
            // The copy builds for itself.
            .env_remove("CARGO_TARGET_DIR");
        let output = tool::read(&mut command).with_context(|| format!("`{line}`"))?;
        printed.push_str(&String::from_utf8_lossy(&output));
    }
    for expected in EXPECTED {
        ensure!(printed.contains(expected), "nothing printed {expected:?}");
    }
    Ok(())
}

/// Copies what git knows, as it is in the work tree, and removes what an earlier run made.
fn copy_sources(copy: &Path) -> anyhow::Result<()> {
    let root = workspace_root();
    let made = copy.join("examples/my-edu");
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    let mut git = tool::command("git");
    git.args(["ls-files", "-z"]).current_dir(root);
    let list = tool::read(&mut git)?;
    for name in String::from_utf8_lossy(&list).split_terminator('\0') {
        let (from, to) = (root.join(name), copy.join(name));
        // What was removed and is not yet committed.
        let Ok(contents) = fs::read(&from) else {
            continue;
        };
        // Times of files that did not change stay, and with them what was built.
        if fs::read(&to).is_ok_and(|old| old == contents) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, contents).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
