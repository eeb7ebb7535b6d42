//! The disk that `cargo xtask run` uses when none is named.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::disk_file::DiskFile;
use super::tree::{Capability, Tree, set_times};
use super::{EXT4, MIB, once};
use crate::{build, setup};

const GREETING: &str = "\
Welcome to Bulkhead.

This disk is an image that xtask made: a GPT with one ext4 partition. The driver
that reads it is an ordinary process without access to its memory; `lsdev` shows
it, `why` tells how it was chosen, and `kill` ends it.

    ls -l /            what is here
    cat /docs/README.md
    sha256sum -c /SHA256SUMS
    lspci; lsblk; mount; ps

What you write to this disk is gone after power-off. Boot with your own image:
`cargo xtask run --disk FILE`.
";

/// Makes the demo image if it is not there, and gives its path.
///
/// # Errors
///
/// When a tool fails.
pub fn demo() -> anyhow::Result<PathBuf> {
    setup::ensure(&[setup::IMAGES])?;
    let folder = once("demo", |folder| {
        let files = tempfile::tempdir()?;
        let tree = Tree {
            folder: files.path().to_owned(),
            capability: Capability::Unix,
        };
        fill(&tree)?;
        let disk = DiskFile::create(&folder.join("disk.img"), 128 * MIB)?;
        let extent = disk.partition_gpt(MIB)?;
        disk.format_ext(extent, EXT4, &tree)
    })?;
    Ok(folder.join("disk.img"))
}

fn fill(tree: &Tree) -> anyhow::Result<()> {
    tree.write("README", GREETING.as_bytes())?;
    let root = build::workspace_root();
    copy_documents(root, tree)?;
    tree.seeded("big.bin", 16 << 20)?;
    for number in 0..200 {
        let name = format!("files/{:02}/file-{number:03}.bin", number % 20);
        tree.seeded(&name, 37 * number)?;
    }
    let mut deep = "deep".to_owned();
    for level in [
        "down", "the", "rabbit", "hole", "to", "the", "very", "bottom",
    ] {
        deep.push('/');
        deep.push_str(level);
    }
    tree.write(&format!("{deep}/found.txt"), b"You found it.\n")?;
    for (name, target) in [
        ("bottom", deep.as_str()),
        ("greeting", "README"),
        ("files/up", "../big.bin"),
    ] {
        std::os::unix::fs::symlink(target, tree.folder.join(name))
            .with_context(|| format!("cannot link {name}"))?;
    }
    tree.finish()?;
    set_times(&tree.folder)
}

/// Copies the repository's own texts to `docs/`.
fn copy_documents(root: &Path, tree: &Tree) -> anyhow::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") || name.starts_with("LICENSE") {
            let text = fs::read(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            tree.write(&format!("docs/{name}"), &text)?;
        }
    }
    Ok(())
}
