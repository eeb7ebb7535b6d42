//! Checks that sources of drivers say nothing of where they run: no `cfg` but that of tests, no unsafe code,
//! no backend but in the one line of a program that chooses it.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::build::workspace_root;

/// Looks at every source file below `drivers/`.
pub(super) fn check() -> anyhow::Result<()> {
    let mut files = Vec::new();
    sources(&workspace_root().join("drivers"), &mut files)?;
    ensure!(!files.is_empty(), "no driver has sources");
    let mut problems = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let is_program = file.file_name().is_some_and(|name| name == "main.rs");
        let shown = file.strip_prefix(workspace_root()).unwrap_or(&file);
        for (line, problem) in problems_of(&text, is_program) {
            problems.push(format!("{}:{line}: {problem}", shown.display()));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Source files of drivers; their tests, which know their home, are left out.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "tests" && name != "target" {
                sources(&path, files)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    Ok(())
}

/// Numbers of lines, and what is wrong with them.
fn problems_of(text: &str, is_program: bool) -> Vec<(usize, &'static str)> {
    let mut problems = Vec::new();
    let mut choices = 0;
    let (mut forbids, mut has_code) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        has_code |= !code.trim().is_empty();
        forbids |= code.contains("forbid(unsafe_code)");
        let without_tests = code.replace("cfg(test)", "");
        let attribute = code.contains("#![cfg_attr(") && code.contains("no_std");
        if without_tests.contains("cfg") && !attribute {
            problems.push((number, "`cfg` on where the driver runs"));
        }
        if code.contains("unsafe ") || code.contains("unsafe{") {
            problems.push((number, "unsafe code"));
        }
        if code.contains("backend") {
            choices += 1;
            if !is_program || choices > 1 {
                problems.push((number, "a backend"));
            }
        }
    }
    let root = text.contains("#![no_std]") || text.contains("no_std");
    if root && has_code && !forbids {
        problems.push((1, "no `#![forbid(unsafe_code)]`"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::problems_of;

    #[test]
    fn what_ties_a_driver_to_a_home_is_found() {
        let found = |text: &str| problems_of(text, false).len();
        assert_eq!(
            found("#[cfg(test)]\nmod tests;\n// cfg, backend and unsafe in a comment\n"),
            0
        );
        assert_eq!(found("#[cfg(target_os = \"none\")]\nfn x() {}\n"), 1);
        assert_eq!(found("if cfg!(feature = \"os\") {}\n"), 1);
        assert_eq!(found("let x = unsafe { y() };\n"), 1);
        assert_eq!(found("use ddk_backend_os::Irq;\n"), 1);
        assert_eq!(found("#![no_std]\nfn x() {}\n"), 1);
    }

    #[test]
    fn the_drivers_know_no_home() {
        super::check().unwrap();
    }

    #[test]
    fn a_program_names_its_backend_once() {
        let line = "ddk_backend_os::block_driver!(x::X);\n";
        let head = "#![no_std]\n#![forbid(unsafe_code)]\n";
        assert!(problems_of(&format!("{head}{line}"), true).is_empty());
        assert_eq!(problems_of(&format!("{head}{line}{line}"), true).len(), 1);
    }
}
