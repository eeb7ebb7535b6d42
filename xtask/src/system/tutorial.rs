//! The book's tutorial: its commands, as they stand there, in a copy of the
//! repository, lead to a driver that is bound.

use std::fs;

use anyhow::{Context, ensure};

use crate::build::target_folder;
use crate::copy::{self, StandIn};
use crate::tool;

/// Profiles whose packages the copy takes over.
const PARTS: [&str; 5] = [
    "debug",
    "programs/release",
    "programs/x86_64-unknown-none/release",
    "kernel/release",
    "kernel/x86_64-unknown-none/release",
];

/// What the commands must have printed between them.
const EXPECTED: [&str; 2] = ["running my-edu", ": first register: 0x010000ed"];

/// Runs every command of the tutorial, in order.
pub(super) fn commands_of_the_book() -> anyhow::Result<()> {
    let copy = target_folder("tutorial")?;
    copy::sources(&copy)?;
    let stand_in = StandIn::of(&copy);
    match &stand_in {
        Some(stand_in) => stand_in.take_over(&PARTS)?,
        None => copy::seed(&copy.join("target"), &PARTS)?,
    }
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
        let mut command = match &stand_in {
            Some(stand_in) => stand_in.shell(line),
            None => {
                let mut command = tool::command("sh");
                command.args(["-c", line]).current_dir(&copy);
                command
            }
        };
        // What the copy builds stays there.
        command.env_remove("CARGO_TARGET_DIR");
        let output = tool::read(&mut command).with_context(|| format!("`{line}`"))?;
        printed.push_str(&String::from_utf8_lossy(&output));
    }
    for expected in EXPECTED {
        ensure!(printed.contains(expected), "nothing printed {expected:?}");
    }
    Ok(())
}
