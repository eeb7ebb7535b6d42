//! The files that go into an image: a folder of the host, which stays there as
//! the truth that a guest's answers are compared with.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::random::Random;
use crate::tool::{self, Output};

/// Time of every file: 2024-02-29 12:34:56 UTC, even seconds as FAT has them.
pub const FILE_TIME_S: u64 = 1_709_210_096;

/// Hashes of all files but the huge one, as `sha256sum` of the host prints them.
pub const HASH_LIST: &str = "SHA256SUMS";
/// The file that reaches to multi-gigabyte offsets. It is too long to be hashed
/// whole under emulation; its pieces of data are.
pub const HUGE_FILE: &str = "sparse/huge.bin";
/// Length of each piece of data in the huge file, in bytes.
pub const HUGE_PIECE_LEN: u64 = 64 * 1024;

/// What a file system can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Symbolic links, any name, files beyond 4 GiB, holes.
    Unix,
    /// FAT with long names.
    Fat,
}

/// A folder with files for an image.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The folder on the host.
    pub folder: PathBuf,
    /// What was put in.
    pub capability: Capability,
}

impl Tree {
    /// Offsets of the huge file's pieces of data, in bytes, all multiples of
    /// [`HUGE_PIECE_LEN`] / 2: at the start, across 2 GiB, and where it exists
    /// across 4 GiB, and the last.
    pub fn huge_pieces(&self) -> &'static [u64] {
        const HALF: u64 = HUGE_PIECE_LEN / 2;
        const GIB: u64 = 1 << 30;
        match self.capability {
            Capability::Unix => &[0, 2 * GIB - HALF, 4 * GIB - HALF, 5 * GIB],
            Capability::Fat => &[0, 2 * GIB - HALF, 2 * GIB + 128 * 1024 * 1024],
        }
    }

    /// Makes the full tree of a few thousand files in an empty folder.
    pub(super) fn make(folder: &Path, capability: Capability) -> anyhow::Result<Self> {
        let tree = Self {
            folder: folder.to_owned(),
            capability,
        };
        tree.write("README.txt", b"Files that Bulkhead's tests read.\n")?;
        tree.write("empty", b"")?;
        tree.seeded("big.bin", 24 << 20)?;
        for len in [
            1, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 32_767, 32_768, 65_535, 65_536,
            65_537, 131_072, 300_000, 1_048_575, 1_048_577, 3_333_333, 5_000_000,
        ] {
            tree.seeded(&format!("sizes/{len}.bin"), len)?;
        }
        let mut random = Random::named("small files");
        for number in 0..1600 {
            let len = random.below(12_000) as usize;
            let name = format!("small/folder {:02}/file-{number:04}.dat", number % 40);
            tree.seeded(&name, len)?;
        }
        for number in 0..1400 {
            let name = format!("many/{number:05} is the number of an entry of a large folder.txt");
            tree.write(&name, format!("{number}\n").as_bytes())?;
        }
        let mut deep = "deep".to_owned();
        for level in 0..40 {
            deep.push_str(&format!("/level{level}"));
            tree.write(&format!("{deep}/here.txt"), deep.as_bytes())?;
        }
        tree.names()?;
        if capability == Capability::Unix {
            tree.links()?;
        }
        tree.sparse(
            "sparse/holes.bin",
            24 << 20,
            &[1 << 20, (17 << 20) + 12_345],
        )?;
        let pieces = tree.huge_pieces();
        let len = pieces.last().copied().unwrap_or(0) + HUGE_PIECE_LEN;
        tree.sparse(HUGE_FILE, len, pieces)?;
        tree.finish()?;
        Ok(tree)
    }

    /// Makes a handful of files, enough to be damaged.
    pub(super) fn make_small(folder: &Path, capability: Capability) -> anyhow::Result<Self> {
        let tree = Self {
            folder: folder.to_owned(),
            capability,
        };
        tree.write("GOOD.TXT", b"this file is whole\n")?;
        tree.seeded("VICTIM.BIN", 200_000)?;
        tree.seeded("LAST.BIN", 6 << 20)?;
        tree.write("FOLDER/INSIDE.TXT", b"inside\n")?;
        tree.finish()?;
        Ok(tree)
    }

    fn names(&self) -> anyhow::Result<()> {
        let longest = match self.capability {
            Capability::Unix => 255,
            // 255 UTF-16 units; the tools of the host count less generously.
            Capability::Fat => 250,
        };
        let mut names = vec![
            "two words.txt".to_owned(),
            ".hidden".to_owned(),
            "many.dots.in.a.name".to_owned(),
            "UPPER.TXT".to_owned(),
            "MiXeD CaSe.TxT".to_owned(),
            "plus+comma,semicolon;equals=[brackets].txt".to_owned(),
            "apostrophe's & ampersand $HOME (1).txt".to_owned(),
            "Grüße aus Köln – ελληνικά 日本語.txt".to_owned(),
            format!("{}.txt", "n".repeat(longest - 4)),
        ];
        if self.capability == Capability::Unix {
            names.extend(
                [
                    "upper.txt",
                    "back\\slash",
                    "star*question?.txt",
                    "double\"quote",
                    "colon:pipe|less<greater>",
                    "trailing space ",
                    "trailing dot.",
                    "-dash",
                ]
                .map(str::to_owned),
            );
        }
        for name in names {
            self.seeded(&format!("names/{name}"), 100 + name.len())?;
        }
        Ok(())
    }

    fn links(&self) -> anyhow::Result<()> {
        let long_target = format!("../names/{}.txt", "n".repeat(251));
        for (name, target) in [
            ("relative", "../sizes/4097.bin"),
            ("absolute", "/sizes/65537.bin"),
            ("folder", "../small/folder 07"),
            ("chain", "relative"),
            ("through-folder", "folder/file-0007.dat"),
            ("slow", long_target.as_str()),
            ("broken", "no/such/file"),
            ("loop-a", "loop-b"),
            ("loop-b", "loop-a"),
        ] {
            let path = self.path(&format!("links/{name}"))?;
            std::os::unix::fs::symlink(target, &path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    /// The host's path of a file, whose folder is made.
    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        Ok(path)
    }

    pub(super) fn write(&self, name: &str, data: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name)?;
        fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn seeded(&self, name: &str, len: usize) -> anyhow::Result<()> {
        self.write(name, &Random::named(name).bytes(len))
    }

    fn sparse(&self, name: &str, len: u64, pieces: &[u64]) -> anyhow::Result<()> {
        let path = self.path(name)?;
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len(len)?;
        let mut random = Random::named(name);
        for offset in pieces {
            file.write_all_at(&random.bytes(HUGE_PIECE_LEN as usize), *offset)?;
        }
        Ok(())
    }

    /// Writes the list of hashes and gives every file its time.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        let mut list = tool::command("sh");
        list.current_dir(&self.folder).env("LC_ALL", "C").args([
            "-c",
            "find . -type f ! -path ./$1 ! -name $2 -print0 | sort -z | xargs -0 sha256sum",
            "sh",
            HUGE_FILE,
            HASH_LIST,
        ]);
        let hashes = tool::read(&mut list)?;
        self.write(HASH_LIST, &hashes)?;
        let mut touch = tool::command("find");
        touch
            .arg(&self.folder)
            .args(["-type", "l", "-exec", "touch", "-h", "-d"])
            .args([&format!("@{FILE_TIME_S}"), "{}", "+"]);
        tool::run(&mut touch, Output::OnFailure)?;
        set_times(&self.folder)
    }
}

/// Sets the times of everything below `folder`, and of itself.
pub(super) fn set_times(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            set_times(&entry.path())?;
        } else if kind.is_file() {
            set_time(&entry.path())?;
        }
    }
    set_time(folder)
}

fn set_time(path: &Path) -> anyhow::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FILE_TIME_S);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path)
        .and_then(|file| file.set_times(times))
        .with_context(|| format!("cannot set the time of {}", path.display()))
}
