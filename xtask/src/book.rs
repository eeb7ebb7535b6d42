//! The book: builds it with mdBook where that is installed, and checks its sources without.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::build::workspace_root;
use crate::tool::{self, Output};

/// Checks every link and every piece of code that the book takes from a crate.
///
/// # Errors
///
/// With the first that leads nowhere.
pub fn check() -> anyhow::Result<()> {
    let source = workspace_root().join("docs/src");
    let summary = read(&source.join("SUMMARY.md"))?;
    let mut chapters = 0;
    for target in links(&summary) {
        let chapter = source.join(target);
        let text = read(&chapter)?;
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap_or(link);
            ensure!(
                source.join(file).exists(),
                "{}: {link} leads nowhere",
                chapter.display()
            );
        }
        for include in between(&text, "{{#include ", "}}") {
            included(&source, include).with_context(|| chapter.display().to_string())?;
        }
        chapters += 1;
    }
    ensure!(chapters > 0, "docs/src/SUMMARY.md lists no chapter");
    Ok(())
}

/// Builds the book into `target/book`, or says how to get mdBook.
///
/// # Errors
///
/// When mdBook fails, or a link of the sources leads nowhere.
pub fn build() -> anyhow::Result<()> {
    check()?;
    if tool::find("mdbook").is_none() {
        eprintln!(
            "xtask: the book is not built: mdbook is missing (`cargo install mdbook` gets it)"
        );
        return Ok(());
    }
    let mut command = tool::command("mdbook");
    command.arg("build").arg(workspace_root().join("docs"));
    tool::run(&mut command, Output::Inherit)
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Checks that `FILE:ANCHOR` is there and holds something.
fn included(source: &Path, include: &str) -> anyhow::Result<()> {
    let (file, anchor) = include
        .split_once(':')
        .context("an anchor belongs to an include")?;
    let text = read(&source.join(file))?;
    let begin = format!("ANCHOR: {anchor}\n");
    let end = format!("ANCHOR_END: {anchor}\n");
    match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from + begin.len() < to => Ok(()),
        _ => bail!("{file} has no anchor {anchor}"),
    }
}

/// Targets of the Markdown links in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    between(text, "](", ")")
}

fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start)
        .skip(1)
        .filter_map(move |rest| rest.split_once(end).map(|(inner, _)| inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_and_include_of_the_book_leads_somewhere() {
        check().unwrap();
    }

    #[test]
    fn an_include_without_its_anchor_is_named() {
        let source = workspace_root().join("docs/src");
        let file = "../../examples/edu/src/lib.rs";
        included(&source, &format!("{file}:manifest")).unwrap();
        let error = included(&source, &format!("{file}:nowhere")).unwrap_err();
        assert!(error.to_string().contains("nowhere"));
    }
}
