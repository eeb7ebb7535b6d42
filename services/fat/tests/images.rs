//! Volumes made by mkfs.vfat and mtools, compared with what was copied in.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use fat::Fat;
use tempfile::TempDir;
use volume::{
    FileSystem, Tree,
    compare::{Keeps, read_everything, same_as_folder},
    host,
};

/// Bytes that differ from file to file and from block to block.
fn contents(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn tool(name: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    let output = Command::new(name)
        .env("LC_ALL", "C.UTF-8")
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{name} is needed (dosfstools, mtools): {error}"));
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The folder that goes on the larger images.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let dir = TempDir::new().unwrap();
            let root = dir.path();
            for (at, len) in [0, 1, 511, 512, 513, 4096, 65_536, 300_000]
                .into_iter()
                .enumerate()
            {
                fs::write(root.join(format!("size-{len}")), contents(at as u64, len)).unwrap();
            }
            let many = root.join("many");
            fs::create_dir(&many).unwrap();
            for at in 0..400u64 {
                let name = format!("file number {at} with a name of some length.txt");
                fs::write(many.join(name), contents(at, (at % 97) as usize)).unwrap();
            }
            let mut deep = root.to_path_buf();
            for level in 0..12 {
                deep.push(format!("level-{level}"));
            }
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("bottom"), b"here").unwrap();
            for len in [12, 13, 14, 26, 27, 239, 255] {
                fs::write(root.join("n".repeat(len)), format!("{len} characters")).unwrap();
            }
            fs::write(root.join("räksmörgås – 雪.txt"), b"not ASCII").unwrap();
            fs::write(root.join("SHORT.TXT"), b"8.3").unwrap();
            fs::write(root.join("lower.txt"), b"8.3 in lower case").unwrap();
            fs::write(root.join("no extension"), b"").unwrap();
            fs::create_dir(root.join("empty")).unwrap();
            dir
        })
        .path()
}

/// An image with `from` copied in; every `then` is a command of mtools after it.
fn image(size: u64, mkfs: &[&str], from: &Path, then: &[&[&OsStr]]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(size).unwrap();
    tool(
        "mkfs.vfat",
        mkfs.iter().map(OsStr::new).chain([image.as_os_str()]),
    );
    let entries: Vec<PathBuf> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let options = ["-s", "-Q", "-i"].map(OsStr::new);
    let copy = options.into_iter().chain([image.as_os_str()]);
    let copy = copy.chain(entries.iter().map(|entry| entry.as_os_str()));
    tool("mcopy", copy.chain([OsStr::new("::/")]));
    for command in then {
        if let [name, arguments @ ..] = command {
            let image = [OsStr::new("-i"), image.as_os_str()];
            tool(name.to_str().unwrap(), image.iter().chain(arguments));
        }
    }
    let check = Command::new("fsck.vfat")
        .arg("-n")
        .arg(&image)
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    (dir, image)
}

fn compare(size: u64, mkfs: &[&str], format: &str) {
    let (_dir, image) = image(size, mkfs, folder(), &[]);
    let cache = host::open_image(&image).unwrap();
    let compared = host::run(&cache, async {
        let fat = Fat::mount(cache.clone()).await.unwrap();
        let statistics = fat.statistics();
        assert_eq!(
            (statistics.format, &statistics.label[..]),
            (format, &b"A LABEL"[..])
        );
        let tree = Tree::new(fat);
        same_as_folder(&tree, &cache, folder(), Keeps::ContentsOnly).await
    });
    assert!(compared > 430, "{compared}");
}

#[test]
fn fat12() {
    compare(15 << 20, &["-F", "12", "-n", "A LABEL", "-s", "8"], "fat12");
}

#[test]
fn fat16() {
    compare(64 << 20, &["-F", "16", "-n", "A LABEL"], "fat16");
}

#[test]
fn fat16_with_clusters_of_32_kib() {
    compare(
        256 << 20,
        &["-F", "16", "-n", "A LABEL", "-s", "64"],
        "fat16",
    );
}

#[test]
fn fat32() {
    compare(300 << 20, &["-F", "32", "-n", "A LABEL"], "fat32");
}

#[test]
fn fat32_with_sectors_of_4_kib() {
    compare(
        300 << 20,
        &["-F", "32", "-n", "A LABEL", "-S", "4096", "-s", "1"],
        "fat32",
    );
}

#[test]
fn fat32_smaller_than_any_should_be() {
    // mtools refuses to write to it, Linux and we take it for what it says.
    let empty = TempDir::new().unwrap();
    let image_path = empty.path().join("image");
    fs::File::create(&image_path)
        .unwrap()
        .set_len(20 << 20)
        .unwrap();
    let arguments = ["-F", "32", "-s", "1", image_path.to_str().unwrap()];
    tool("mkfs.vfat", arguments);
    let cache = host::open_image(&image_path).unwrap();
    host::run(&cache, async {
        let fat = Fat::mount(cache.clone()).await.unwrap();
        assert_eq!(fat.statistics().format, "fat32");
        let root = fat.open(fat.root()).await.unwrap();
        assert_eq!(volume::compare::list(&fat, &root, 9).await, Ok(vec![]));
    });
}

#[test]
fn contents_behind_4_gib_and_free_space() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("first"), contents(1, 100_000)).unwrap();
    let image_path = {
        let (keep, image) = image(6 << 30, &["-F", "32", "-s", "64"], &from, &[]);
        let kept = dir.path().join("image");
        fs::rename(&image, &kept).unwrap();
        drop(keep);
        kept
    };
    // The hint makes mtools go on behind 4 GiB.
    let bytes = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&image_path)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&bytes, &150_000u32.to_le_bytes(), 512 + 492).unwrap();
    fs::write(from.join("far"), contents(2, 3_000_000)).unwrap();
    tool(
        "mcopy",
        [
            OsStr::new("-i"),
            image_path.as_os_str(),
            from.join("far").as_os_str(),
            OsStr::new("::/"),
        ],
    );
    let cache = host::open_image(&image_path).unwrap();
    host::run(&cache, async {
        let tree = Tree::new(Fat::mount(cache.clone()).await.unwrap());
        let root = tree.filesystem().open(1).await.unwrap();
        let node = tree.lookup(&root, b"FAR").await.expect("names ignore case");
        let far = tree.filesystem().open(node).await.unwrap();
        let extent = tree.filesystem().extent(&far, 0).await.unwrap();
        assert!(
            matches!(extent.place, volume::Place::Volume(at) if at > 4 << 30),
            "{extent:?}"
        );
        assert_eq!(
            same_as_folder(&tree, &cache, &from, Keeps::ContentsOnly).await,
            2
        );
    });
}

#[test]
fn scattered_files_and_deleted_names() {
    for (mkfs, size) in [
        (&["-F", "12", "-s", "1"][..], 1440 << 10),
        (&["-F", "16", "-s", "1"], 5 << 20),
        (&["-F", "32", "-s", "1"], 40 << 20),
    ] {
        let dir = TempDir::new().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        for at in 0..40 {
            fs::write(
                from.join(format!("a file to be kept or not {at}")),
                contents(at, 20_000),
            )
            .unwrap();
        }
        let (_keep, image) = image(size, mkfs, &from, &[]);
        for at in (0..40).step_by(2) {
            let name = format!("::/a file to be kept or not {at}");
            tool(
                "mdel",
                [OsStr::new("-i"), image.as_os_str(), OsStr::new(&name)],
            );
            fs::remove_file(from.join(format!("a file to be kept or not {at}"))).unwrap();
        }
        fs::write(from.join("scattered"), contents(99, 500_000)).unwrap();
        tool(
            "mcopy",
            [
                OsStr::new("-i"),
                image.as_os_str(),
                from.join("scattered").as_os_str(),
                OsStr::new("::/"),
            ],
        );
        let cache = host::open_image(&image).unwrap();
        host::run(&cache, async {
            let tree = Tree::new(Fat::mount(cache.clone()).await.unwrap());
            assert_eq!(
                same_as_folder(&tree, &cache, &from, Keeps::ContentsOnly).await,
                21
            );
        });
    }
}

// Damage.

/// A FAT16 image of one sector a cluster with a file of 20 clusters in it:
/// bytes, byte offset of the first table, first cluster of the file.
fn small() -> &'static (Vec<u8>, usize, usize) {
    static SMALL: OnceLock<(Vec<u8>, usize, usize)> = OnceLock::new();
    SMALL.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("VICTIM.BIN"), contents(1, 20 * 512)).unwrap();
        fs::create_dir(from.join("a folder with a long name")).unwrap();
        fs::write(
            from.join("a folder with a long name/inner"),
            contents(2, 3000),
        )
        .unwrap();
        let (_keep, image) = image(5 << 20, &["-F", "16", "-s", "1", "-R", "1"], &from, &[]);
        let bytes = fs::read(image).unwrap();
        let entry = bytes
            .windows(11)
            .position(|window| window == b"VICTIM  BIN")
            .unwrap();
        let cluster = usize::from(u16::from_le_bytes([bytes[entry + 26], bytes[entry + 27]]));
        (bytes, 512, cluster)
    })
}

fn errors(bytes: impl host::Bytes + 'static) -> String {
    let cache = host::cache(bytes, 128 << 10);
    host::run(&cache, async {
        match Fat::mount(cache.clone()).await {
            Ok(fat) => read_everything(&fat, &cache).await,
            Err(error) => format!("mount: {error}"),
        }
    })
}

fn with_link(cluster_of_file: usize, value: u16) -> String {
    let (bytes, table, first) = small();
    let mut bytes = bytes.clone();
    bytes[table + (first + cluster_of_file) * 2..][..2].copy_from_slice(&value.to_le_bytes());
    errors(bytes)
}

#[test]
fn an_undamaged_image_has_no_errors() {
    assert_eq!(errors(small().0.clone()), "");
}

#[test]
fn a_looping_chain_is_named_as_such() {
    let first = small().2 as u16;
    for back_to in [first, first + 4, first + 9] {
        let looped = with_link(9, back_to);
        assert!(looped.contains("the chain loops"), "{looped}");
        assert!(
            looped.contains(&format!("FAT entry {}", first + 9)),
            "{looped}"
        );
    }
}

#[test]
fn other_wrong_chains_are_named_as_such() {
    assert!(with_link(5, 0).contains("runs into a free cluster"));
    assert!(with_link(5, 0xFFF7).contains("runs into a bad cluster"));
    assert!(with_link(5, 0xFFEE).contains("leads to a cluster out of range"));
    assert!(with_link(5, 1).contains("leads to a cluster out of range"));
    assert!(with_link(5, 0xFFFF).contains("the chain is shorter than the size"));
}

#[test]
fn a_directory_that_loops_comes_to_an_end() {
    let (bytes, table, _) = small();
    let mut bytes = bytes.clone();
    let entry = bytes
        .windows(8)
        .position(|window| window == b"AFOLDE~1")
        .unwrap();
    let cluster = usize::from(u16::from_le_bytes([bytes[entry + 26], bytes[entry + 27]]));
    bytes[table + cluster * 2..][..2].copy_from_slice(&(cluster as u16).to_le_bytes());
    // No end mark in it either.
    let data = {
        let sectors_per_fat = usize::from(u16::from_le_bytes([bytes[22], bytes[23]]));
        let root_entries = usize::from(u16::from_le_bytes([bytes[17], bytes[18]]));
        (1 + usize::from(bytes[16]) * sectors_per_fat) * 512 + root_entries * 32
    };
    let at = data + (cluster - 2) * 512;
    for entry in bytes[at..at + 512].chunks_mut(32) {
        entry[0] = 0xE5;
    }
    assert!(errors(bytes).contains("the chain loops"));
}

#[test]
fn a_damaged_boot_sector_is_named_as_such() {
    let (bytes, ..) = small();
    let with = |offset: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[offset..][..value.len()].copy_from_slice(value);
        errors(bytes)
    };
    assert!(with(510, &[0, 0]).contains("not FAT: signature 0x0 instead of 0xaa55"));
    assert!(with(11, &[0, 3]).contains("bytes per sector"));
    assert!(with(13, &[3]).contains("sectors per cluster"));
    assert!(with(13, &[0]).contains("sectors per cluster"));
    assert!(with(14, &[0, 0]).contains("reserved sectors"));
    assert!(with(16, &[0]).contains("number of FATs"));
    assert!(with(22, &[0xFF, 0xFF]).contains("no sectors left for data"));
    let mut bytes = bytes.clone();
    bytes.truncate(3 << 20);
    assert!(errors(bytes.clone()).contains("shorter than its sector count says (truncated?)"));
    bytes.truncate(100);
    assert!(errors(bytes).contains("outside the volume"));
}

#[test]
fn a_long_name_that_is_incomplete_gives_way_to_the_short_one() {
    let (bytes, ..) = small();
    let mut bytes = bytes.clone();
    let entry = bytes
        .windows(8)
        .position(|window| window == b"AFOLDE~1")
        .unwrap();
    bytes[entry - 32] = 0x05;
    let cache = host::cache(bytes, 1 << 20);
    host::run(&cache, async {
        let fat = Fat::mount(cache.clone()).await.unwrap();
        let root = fat.open(fat.root()).await.unwrap();
        let names = volume::compare::list(&fat, &root, 100).await.unwrap();
        assert!(
            names.iter().any(|(name, ..)| name == b"AFOLDE~1"),
            "{names:?}"
        );
    });
}

mod any_damage {
    use super::*;
    use proptest::prelude::*;

    fn images() -> &'static [Vec<u8>; 3] {
        static IMAGES: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
        IMAGES.get_or_init(|| {
            let dir = TempDir::new().unwrap();
            fs::create_dir(dir.path().join("a folder with a long name")).unwrap();
            for at in 0..5 {
                let name = format!("a folder with a long name/file number {at}");
                fs::write(dir.path().join(name), contents(at, 9000)).unwrap();
            }
            [("12", 1 << 20), ("16", 5 << 20), ("32", 34 << 20)].map(|(width, size)| {
                let mkfs = [
                    "-F",
                    width,
                    "-s",
                    "1",
                    "-R",
                    if width == "32" { "32" } else { "1" },
                ];
                fs::read(image(size, &mkfs, dir.path(), &[]).1).unwrap()
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn comes_to_an_end(
            which in 0usize..3,
            damage in proptest::collection::vec((any::<usize>(), any::<u8>(), 0usize..3), 1..40),
        ) {
            let base = &images()[which];
            let mut patches = std::collections::BTreeMap::new();
            for (offset, value, near) in damage {
                // The boot sector's numbers, the tables, the rest.
                let offset = 11 + offset % [48, 20_000, base.len() - 11][near];
                if !(510..512).contains(&offset) && offset != 21 {
                    patches.insert(offset as u64, value);
                }
            }
            errors(host::Patched { base, patches });
        }
    }
}
