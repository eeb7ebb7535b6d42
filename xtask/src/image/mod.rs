//! Disk images, made by the ordinary Linux tools without root.
//!
//! Images are seeded and kept under `target/images`; each is made once. An
//! image that is being made has another name, so that a broken-off run leaves
//! nothing behind that looks whole.

pub mod damage;
mod demo;
pub mod disk_file;
pub mod random;
pub mod tree;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{UsageError, build, setup};
use damage::Fault;
use disk_file::{DiskFile, ExtOptions};
use tree::{Capability, Tree};

pub use demo::demo;

/// Changes whenever an image's contents change, so that old ones are not used.
const GENERATION: u32 = 2;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What `cargo xtask image` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct ImageArgs {
    /// `demo`, an image of the system tests, or `all`.
    #[arg(default_value = "demo")]
    name: String,
}

/// `cargo xtask image`: makes images and prints their paths.
///
/// # Errors
///
/// When a tool fails, or there is no image of that name.
pub fn run(args: &ImageArgs) -> anyhow::Result<()> {
    let wanted = |name: &str| args.name == name || args.name == "all";
    let mut files = Vec::new();
    if wanted("demo") {
        files.push(demo()?);
    }
    for layout in Layout::ALL
        .into_iter()
        .filter(|layout| wanted(layout.name()))
    {
        files.push(layout.image()?.file);
    }
    for fault in Fault::ALL.into_iter().filter(|fault| wanted(fault.name())) {
        files.push(fault.image()?);
    }
    if files.is_empty() {
        let mut names = vec!["demo", "all"];
        names.extend(Layout::ALL.map(Layout::name));
        names.extend(Fault::ALL.map(Fault::name));
        return Err(UsageError(format!(
            "there is no image {:?}; there is {}",
            args.name,
            names.join(", ")
        ))
        .into());
    }
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}

/// An image and the files that are in it.
#[derive(Clone, Debug)]
pub struct TestImage {
    /// The image.
    pub file: PathBuf,
    /// What is in it.
    pub tree: Tree,
}

/// The images that the system tests read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A GPT whose one partition, ext4, starts beyond 4 GiB.
    GptExt4,
    /// A GPT for sectors of 4096 bytes, with one partition, ext4.
    Gpt4096Ext4,
    /// An MBR with one FAT32 partition.
    MbrFat32,
    /// ext2 without a partition table, with 1 KiB blocks, so that a large
    /// file's offsets need triple indirect blocks.
    BareExt2,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 4] = [
        Self::GptExt4,
        Self::Gpt4096Ext4,
        Self::MbrFat32,
        Self::BareExt2,
    ];

    /// Name of the image's file, without extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::GptExt4 => "gpt-ext4",
            Self::Gpt4096Ext4 => "gpt-4096-ext4",
            Self::MbrFat32 => "mbr-fat32",
            Self::BareExt2 => "bare-ext2",
        }
    }

    /// Bytes of a logical block of the disk that it is for.
    pub fn block_size(self) -> u32 {
        match self {
            Self::GptExt4 | Self::MbrFat32 | Self::BareExt2 => 512,
            Self::Gpt4096Ext4 => 4096,
        }
    }

    /// The image, made if it is not there.
    ///
    /// # Errors
    ///
    /// When a tool fails.
    pub fn image(self) -> anyhow::Result<TestImage> {
        setup::ensure(&[setup::IMAGES])?;
        let capability = match self {
            Self::MbrFat32 => Capability::Fat,
            Self::GptExt4 | Self::Gpt4096Ext4 | Self::BareExt2 => Capability::Unix,
        };
        let folder = once(&format!("tree-{capability:?}"), |folder| {
            Tree::make(folder, capability).map(drop)
        })?;
        let tree = Tree { folder, capability };
        let folder = once(self.name(), |folder| {
            self.make(&folder.join("disk.img"), &tree)
        })?;
        Ok(TestImage {
            file: folder.join("disk.img"),
            tree,
        })
    }

    fn make(self, file: &Path, tree: &Tree) -> anyhow::Result<()> {
        match self {
            Self::GptExt4 => {
                let disk = DiskFile::create(file, 5 * GIB)?;
                let extent = disk.partition_gpt(4 * GIB + 512 * MIB)?;
                disk.format_ext(extent, EXT4, tree)
            }
            Self::Gpt4096Ext4 => {
                let disk = DiskFile::create(file, 384 * MIB)?;
                let extent = disk.partition_gpt_4096(64 * MIB)?;
                disk.format_ext(extent, EXT4, tree)
            }
            Self::MbrFat32 => {
                let disk = DiskFile::create(file, 4 * GIB)?;
                let extent = disk.partition_mbr()?;
                disk.format_fat(extent, 32, tree)
            }
            Self::BareExt2 => {
                let disk = DiskFile::create(file, 256 * MIB)?;
                let options = ExtOptions {
                    kind: "ext2",
                    block_len: 1024,
                    features: None,
                };
                disk.format_ext(disk.whole(), options, tree)
            }
        }
    }
}

/// ext4 as mke2fs makes it by default.
const EXT4: ExtOptions = ExtOptions {
    kind: "ext4",
    block_len: 4096,
    features: None,
};

/// Makes a disk of ext4, without a partition table, that holds these files.
///
/// # Errors
///
/// When a tool fails.
pub fn with_files(file: &Path, files: &[(&str, &[u8])]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let tree = Tree {
        folder: folder.path().to_owned(),
        capability: Capability::Unix,
    };
    for (name, contents) in files {
        tree.write(name, contents)?;
    }
    let disk = DiskFile::create(file, 16 * MIB)?;
    disk.format_ext(disk.whole(), EXT4, &tree)
}

/// The folder `name` under `target/images`, filled by `make` if it is not there.
fn once(name: &str, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let images = build::target_folder(&format!("images/{GENERATION}"))?;
    let folder = images.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("xtask: making {name}");
    let temporary = tempfile::Builder::new()
        .prefix("new-")
        .tempdir_in(&images)?;
    make(temporary.path()).with_context(|| format!("cannot make {name}"))?;
    let temporary = temporary.keep();
    if let Err(error) = std::fs::rename(&temporary, &folder) {
        // Another run may have been faster; its folder is as good.
        std::fs::remove_dir_all(&temporary)?;
        if !folder.is_dir() {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
    }
    Ok(folder)
}
