//! Volumes made by mke2fs, compared with the folder that they were made from.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use ext::Ext;
use tempfile::TempDir;
use volume::{
    FsError, Tree,
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

/// Whether the folder has files of several gigabytes of holes.
#[derive(Clone, Copy, PartialEq)]
enum Sparse {
    Yes,
    No,
}

/// The folder that the images are made from.
fn folder(large: Sparse) -> &'static Path {
    static FOLDERS: [OnceLock<TempDir>; 2] = [OnceLock::new(), OnceLock::new()];
    FOLDERS[large as usize]
        .get_or_init(|| {
            let dir = TempDir::new().unwrap();
            let root = dir.path();
            for (at, len) in [
                0, 1, 59, 60, 61, 100, 1023, 1024, 4095, 4096, 4097, 65_536, 300_000, 5_000_000,
            ]
            .into_iter()
            .enumerate()
            {
                fs::write(root.join(format!("size-{len}")), contents(at as u64, len)).unwrap();
            }
            let many = root.join("many");
            fs::create_dir(&many).unwrap();
            for at in 0..3000u64 {
                let name = format!("file number {at} with a name of some length.txt");
                fs::write(many.join(name), contents(at, (at % 97) as usize)).unwrap();
            }
            let mut deep = root.to_path_buf();
            for level in 0..40 {
                deep.push(format!("level-{level}"));
            }
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("bottom"), b"here").unwrap();
            fs::write(root.join("n".repeat(255)), b"the longest name").unwrap();
            fs::write(root.join("räksmörgås – 雪.txt"), b"not ASCII").unwrap();
            symlink("size-100", root.join("link")).unwrap();
            symlink("t".repeat(59), root.join("link-59")).unwrap();
            symlink("t".repeat(60), root.join("link-60")).unwrap();
            symlink("t".repeat(900), root.join("link-900")).unwrap();
            symlink("/absolute/target", root.join("many/absolute")).unwrap();
            fs::hard_link(root.join("size-4097"), root.join("second-name")).unwrap();
            fs::set_permissions(root.join("size-61"), fs::Permissions::from_mode(0o4711)).unwrap();
            if large == Sparse::No {
                return dir;
            }
            // Data behind 4 GiB, holes around it.
            let sparse = fs::File::create(root.join("sparse")).unwrap();
            for (at, offset) in [0, 70_000, (4 << 30) - 5, 5 << 30].into_iter().enumerate() {
                sparse
                    .write_all_at(&contents(at as u64 + 50, 9000), offset)
                    .unwrap();
            }
            sparse.set_len((5 << 30) + 200_000_000).unwrap();
            // So many extents that the tree has two levels.
            let comb = fs::File::create(root.join("comb")).unwrap();
            for at in 0..2500 {
                comb.write_all_at(&contents(at, 4096), at * 8192).unwrap();
            }
            fs::create_dir(root.join("empty")).unwrap();
            dir
        })
        .path()
}

fn mke2fs(arguments: &[&str], size: &str, from: &Path) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-L", "a label", "-d"])
        .arg(from)
        .args(arguments)
        .args([image.as_os_str(), OsStr::new(size)])
        .output()
        .expect("mke2fs (package e2fsprogs) is needed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (dir, image)
}

fn compare(arguments: &[&str], format: &str) {
    compare_with(arguments, format, Sparse::Yes);
}

fn compare_with(arguments: &[&str], format: &str, large: Sparse) {
    let folder = folder(large);
    let (_dir, image) = mke2fs(arguments, "300M", folder);
    let cache = host::open_image(&image).unwrap();
    let compared = host::run(&cache, async {
        let ext = Ext::mount(cache.clone()).await.unwrap();
        use volume::FileSystem;
        let statistics = ext.statistics();
        assert_eq!(
            (statistics.format, &statistics.label[..]),
            (format, &b"a label"[..])
        );
        assert_eq!(ext.warnings(), ext::Warnings::default());
        let tree = Tree::new(ext);
        same_as_folder(&tree, &cache, folder, Keeps::UnixAttributes).await
    });
    assert!(compared > 3058, "{compared}");
}

#[test]
fn ext4_as_made_by_default() {
    compare(&["-t", "ext4"], "ext4");
}

#[test]
fn ext4_with_blocks_of_1_kib() {
    compare(&["-t", "ext4", "-b", "1024"], "ext4");
}

#[test]
fn ext4_with_blocks_of_2_kib_and_old_group_checksums() {
    compare(
        &[
            "-t",
            "ext4",
            "-b",
            "2048",
            "-O",
            "^metadata_csum,uninit_bg,^64bit",
        ],
        "ext4",
    );
}

#[test]
fn ext4_with_blocks_of_64_kib() {
    compare(&["-t", "ext4", "-b", "65536"], "ext4");
}

#[test]
fn ext4_with_inline_data() {
    // mke2fs 1.47 gives sparse files a wrong size when it may put data inline.
    compare_with(
        &["-t", "ext4", "-I", "512", "-O", "inline_data"],
        "ext4",
        Sparse::No,
    );
}

#[test]
fn ext4_with_meta_groups_and_a_checksum_seed() {
    let features = "meta_bg,^resize_inode,metadata_csum_seed,flex_bg,large_dir";
    compare(&["-t", "ext4", "-b", "1024", "-O", features], "ext4");
}

#[test]
fn ext4_with_clusters() {
    compare(&["-t", "ext4", "-O", "bigalloc", "-C", "16384"], "ext4");
}

#[test]
fn ext3() {
    compare(&["-t", "ext3"], "ext3");
}

#[test]
fn ext2() {
    compare(&["-t", "ext2"], "ext2");
}

#[test]
fn ext2_with_blocks_of_1_kib_and_three_levels_of_pointers() {
    compare(&["-t", "ext2", "-b", "1024"], "ext2");
}

#[test]
fn ext2_of_revision_0() {
    compare(
        &["-t", "ext2", "-r", "0", "-I", "128", "-O", "none"],
        "ext2",
    );
}

// Damage.

/// An image of a small folder, and the byte offset of an inode of it.
struct Small {
    _dir: TempDir,
    image: PathBuf,
}

impl Small {
    fn new(arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::create_dir(from.join("sub")).unwrap();
        fs::write(from.join("sub/inner"), contents(7, 10_000)).unwrap();
        symlink("sub/inner", from.join("link")).unwrap();
        let comb = fs::File::create(from.join("comb")).unwrap();
        for at in 0..12 {
            comb.write_all_at(&contents(at, 1024), at * 8192).unwrap();
        }
        fs::write(from.join("plain"), contents(3, 200_000)).unwrap();
        let image = dir.path().join("image");
        let output = Command::new("mke2fs")
            .args(["-q", "-F", "-d"])
            .arg(&from)
            .args(arguments)
            .args([image.as_os_str(), OsStr::new("4M")])
            .output()
            .expect("mke2fs (package e2fsprogs) is needed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { _dir: dir, image }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image).unwrap()
    }

    /// Changes the image with commands of debugfs.
    fn debugfs(&self, commands: &[&str]) {
        for command in commands {
            let output = Command::new("debugfs")
                .args(["-w", "-R", command])
                .arg(&self.image)
                .output()
                .expect("debugfs (package e2fsprogs) is needed");
            assert!(output.status.success());
        }
    }

    fn errors(&self) -> String {
        errors(self.bytes())
    }
}

/// Everything that goes wrong when all of an image is read.
fn errors(bytes: impl host::Bytes + 'static) -> String {
    let cache = host::cache(bytes, 128 << 10);
    host::run(&cache, async {
        match Ext::mount(cache.clone()).await {
            Ok(ext) => read_everything(&ext, &cache).await,
            Err(error) => format!("mount: {error}"),
        }
    })
}

#[test]
fn an_undamaged_image_has_no_errors() {
    for arguments in [
        &["-t", "ext4", "-b", "1024"][..],
        &["-t", "ext2", "-b", "1024"],
    ] {
        assert_eq!(Small::new(arguments).errors(), "");
    }
}

#[test]
fn a_truncated_image_is_named_as_such() {
    let mut bytes = Small::new(&["-t", "ext4"]).bytes();
    bytes.truncate(3 << 20);
    assert!(errors(bytes.clone()).contains("shorter than its block count says (truncated?)"));
    bytes.truncate(1500);
    assert!(errors(bytes).contains("outside the volume of 1024 bytes"));
}

#[test]
fn a_damaged_superblock_is_named_as_such() {
    let bytes = Small::new(&["-t", "ext4"]).bytes();
    let with = |offset: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[1024 + offset..][..value.len()].copy_from_slice(value);
        errors(bytes)
    };
    assert!(with(56, &[0, 0]).contains("not ext2/3/4: signature 0x0 instead of 0xef53"));
    assert!(with(200, &[1]).contains("superblock 0: checksum mismatch"));
    let plain = Small::new(&["-t", "ext2"]).bytes();
    let with = |offset: usize, value: &[u8]| {
        let mut bytes = plain.clone();
        bytes[1024 + offset..][..value.len()].copy_from_slice(value);
        errors(bytes)
    };
    assert!(with(24, &[9]).contains("log_block_size"));
    assert!(with(32, &[0; 4]).contains("blocks_per_group"));
    assert!(with(40, &[0; 4]).contains("inodes_per_group"));
    assert!(with(0, &[9; 4]).contains("inodes_count does not fit the groups"));
    assert!(with(88, &[100, 0]).contains("inode_size"));
    assert!(with(96, &[0xFF; 4]).contains("unsupported: incompatible feature"));
}

#[test]
fn overlapping_extents_are_named_as_such() {
    // Without checksums, so that the overlap itself is what is noticed.
    let make = || Small::new(&["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"]);
    let offset_of_leaf = |small: &Small| {
        // The comb's leaf is the only block with the signature and 12 entries.
        let bytes = small.bytes();
        (0..bytes.len())
            .step_by(1024)
            .find(|at| bytes[*at..][..4] == [0x0A, 0xF3, 12, 0])
            .expect("a leaf of 12 extents")
    };
    let small = make();
    let leaf = offset_of_leaf(&small);
    let with = |entry: usize, field: usize, value: &[u8]| {
        let mut bytes = small.bytes();
        bytes[leaf + 12 + entry * 12 + field..][..value.len()].copy_from_slice(value);
        errors(bytes)
    };
    // Entry 3 begins at file block 24; let entry 2, at 16, be 9 blocks long.
    let logical = with(2, 4, &[9, 0]);
    assert!(
        logical.contains("two cover the same block of the file"),
        "{logical}"
    );
    // Entry 5 gets entry 4's blocks.
    let start = small.bytes()[leaf + 12 + 4 * 12 + 8..][..4].to_vec();
    let physical = with(5, 8, &start);
    assert!(
        physical.contains("two claim the same block of the volume"),
        "{physical}"
    );
    let outside = with(5, 8, &[0xFF, 0xFF, 0xFF, 0]);
    assert!(outside.contains("points outside the volume"), "{outside}");
    let metadata = with(5, 8, &[2, 0, 0, 0]);
    assert!(
        metadata.contains("the file system's own metadata"),
        "{metadata}"
    );
    let zero = with(5, 4, &[0, 0]);
    assert!(zero.contains("extent of length 0"), "{zero}");
}

#[test]
fn pointers_to_one_block_twice_or_outside_are_named_as_such() {
    let small = Small::new(&["-t", "ext2", "-b", "1024"]);
    small.debugfs(&["set_inode_field plain block[3] 0x7fffffff"]);
    assert!(small.errors().contains("points outside the volume"));
    small.debugfs(&["set_inode_field plain block[3] 0"]);
    assert_eq!(small.errors(), "");
    small.debugfs(&["set_inode_field plain block[IND] 1"]);
    assert!(small.errors().contains("the file system's own metadata"));
}

#[test]
fn checksums_of_metadata_are_verified() {
    let small = Small::new(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum"]);
    let bytes = small.bytes();
    let find = |pattern: &[u8]| {
        bytes
            .windows(pattern.len())
            .position(|window| window == pattern)
            .unwrap()
    };
    let flipped = |offset: usize| {
        let mut bytes = bytes.clone();
        bytes[offset] ^= 1;
        errors(bytes)
    };
    let leaf = find(&[0x0A, 0xF3, 12, 0, 84, 0]);
    assert!(
        flipped(leaf + 20).contains("extent node in block"),
        "{}",
        flipped(leaf + 20)
    );
    let entry = find(b"\x05\x01inner\0");
    assert!(
        flipped(entry).contains("directory block"),
        "{}",
        flipped(entry)
    );
    // Generation or time of the inode whose fast link this is.
    let inode = find(b"sub/inner") - 40;
    assert!(flipped(inode + 8).contains("checksum mismatch"));
    // The first group descriptor.
    assert!(flipped(2048 + 14).contains("group descriptor 0: checksum mismatch"));
}

#[test]
fn directory_entries_that_cannot_be_are_named_as_such() {
    let small = Small::new(&["-t", "ext2", "-b", "1024"]);
    let bytes = small.bytes();
    let name = bytes
        .windows(8)
        .position(|window| window == b"\x05\x01inner\0")
        .unwrap()
        + 2;
    let with = |offset: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[offset..][..value.len()].copy_from_slice(value);
        errors(bytes)
    };
    let zero = with(name - 4, &[0, 0]);
    assert!(
        zero.contains("length of an entry (rec_len)") && zero.contains("seen 0x0"),
        "{zero}"
    );
    assert!(with(name - 4, &[0xFC, 0xFF]).contains("reaches beyond its block"));
    assert!(with(name - 8, &[0xFF; 4]).contains("inode out of range"));
    assert!(with(name, b"/").contains("holds '/' or NUL"));
}

#[test]
fn a_directory_that_contains_itself_ends() {
    let small = Small::new(&["-t", "ext2"]);
    small.debugfs(&["link sub sub/again"]);
    let cache = host::open_image(&small.image).unwrap();
    host::run(&cache, async {
        let tree = Tree::new(Ext::mount(cache.clone()).await.unwrap());
        let path = [&b"sub"[..], b"again", b"again", b"again", b"inner"];
        let walk = tree.walk(path.into_iter(), volume::FollowLast::Yes).await;
        assert!(matches!(walk, Ok(volume::Walk::Found(_))));
        let missing = tree
            .walk(
                [&b"sub"[..], b"nothing"].into_iter(),
                volume::FollowLast::Yes,
            )
            .await;
        assert!(matches!(missing, Err((1, FsError::NotFound))));
        let link = tree
            .walk([&b"link"[..], b"x"].into_iter(), volume::FollowLast::Yes)
            .await;
        assert!(
            matches!(link, Ok(volume::Walk::Symlink { component: 0, target }) if target == b"sub/inner")
        );
    });
}

mod any_damage {
    use super::*;
    use proptest::prelude::*;

    fn images() -> &'static [Vec<u8>; 4] {
        static IMAGES: OnceLock<[Vec<u8>; 4]> = OnceLock::new();
        IMAGES.get_or_init(|| {
            [
                &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"][..],
                &["-t", "ext2", "-b", "1024"],
                &[
                    "-t",
                    "ext4",
                    "-I",
                    "256",
                    "-O",
                    "inline_data,^metadata_csum",
                ],
                &["-t", "ext4", "-b", "1024"],
            ]
            .map(|arguments| Small::new(arguments).bytes())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn comes_to_an_end(
            image in 0usize..4,
            // Metadata lies mostly at the front.
            damage in proptest::collection::vec((0usize..4 << 20, any::<u8>(), 0u32..3), 1..40),
        ) {
            let base = &images()[image];
            let mut patches = std::collections::BTreeMap::new();
            for (offset, value, near) in damage {
                let range = [300 << 10, 40 << 10, base.len()][near as usize];
                // Not the signature, so that most cases get past it.
                let offset = offset % range;
                if !(1080..1082).contains(&offset) {
                    patches.insert(offset as u64, value);
                }
            }
            errors(host::Patched { base, patches });
        }

        #[test]
        fn superblock_fields_of_any_value_do_no_harm(
            fields in proptest::collection::vec((0usize..256, any::<u32>()), 1..4),
        ) {
            let mut bytes = images()[1].clone();
            for (field, value) in fields {
                if field != 14 {
                    bytes[1024 + field * 4..][..4].copy_from_slice(&value.to_le_bytes());
                }
            }
            errors(bytes);
        }
    }
}
