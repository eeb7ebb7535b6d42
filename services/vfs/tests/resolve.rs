//! Resolution over several volumes, judged by the host's own.
//!
//! A host folder with links stands for the whole tree; some of its folders are
//! volumes of their own. The kernel of the host says what each path leads to.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use proto::fs::FsError;
use tempfile::TempDir;
use vfs::{Ending, MountTable, Question, Resolution, join};

enum Walk {
    Found(PathBuf),
    Symlink(usize, Vec<u8>),
    Failed(FsError),
}

/// What a file-system service does, on a host folder.
fn walk(root: &Path, path: &[u8], follow: bool) -> Walk {
    let mut at = root.to_path_buf();
    let names: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    for (component, name) in names.iter().enumerate() {
        if !at.is_dir() {
            return Walk::Failed(FsError::NotADirectory);
        }
        at.push(std::ffi::OsStr::from_bytes(name));
        let Ok(metadata) = fs::symlink_metadata(&at) else {
            return Walk::Failed(FsError::NotFound);
        };
        if metadata.is_symlink() && (follow || component + 1 < names.len()) {
            let target = fs::read_link(&at).unwrap();
            return Walk::Symlink(component, target.as_os_str().as_bytes().to_vec());
        }
    }
    Walk::Found(at)
}

/// Resolves as the service does; the volumes are host folders.
fn resolve(mounts: &MountTable<PathBuf>, path: &[u8]) -> Result<PathBuf, FsError> {
    let mut resolution = Resolution::new(path)?;
    let mut questions = 0;
    loop {
        questions += 1;
        assert!(questions < 300, "no end");
        let question = resolution.next(mounts);
        let (mount, on_volume, last) = match &question {
            Question::Directory { mount, path } => (mount, path, false),
            Question::Object { mount, path } => (mount, path, true),
        };
        let root = &mounts.get(mount.expect("there is a root")).unwrap().volume;
        match walk(root, on_volume, true) {
            Walk::Symlink(component, target) => resolution.symlink(component, &target)?,
            Walk::Failed(error) => return Err(error),
            Walk::Found(at) if last => {
                if resolution.ending() == Ending::Directory && !at.is_dir() {
                    return Err(FsError::NotADirectory);
                }
                return Ok(at);
            }
            Walk::Found(at) if at.is_dir() => resolution.is_directory(),
            Walk::Found(_) => return Err(FsError::NotADirectory),
        }
    }
}

struct Tree {
    dir: TempDir,
    mounts: MountTable<PathBuf>,
}

fn tree() -> Tree {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    for folder in ["a/b/c", "mnt/one/x/y", "mnt/two/deep/er", "empty"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in [
        "a/file",
        "a/b/c/file",
        "mnt/one/file",
        "mnt/one/x/y/file",
        "mnt/two/deep/file",
    ] {
        fs::write(root.join(file), file).unwrap();
    }
    for (link, target) in [
        ("a/up", ".."),
        ("a/to-one", "../mnt/one"),
        ("mnt/one/out", "../../a/b"),
        ("mnt/one/x/two", "../../two/deep/"),
        ("mnt/two/deep/loop", "loop"),
        ("a/file-link", "file"),
        ("a/b/slash", "../file/"),
        ("a/dangling", "nowhere"),
        ("a/b/chain", "../to-one/x/two/er"),
        ("m", "mnt"),
        ("mnt/two/self", "."),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let mut mounts = MountTable::default();
    for target in ["", "mnt/one", "mnt/two", "mnt/two/deep"] {
        let number = mounts.reserve_number();
        let components: Vec<Vec<u8>> = target
            .split('/')
            .filter(|c| !c.is_empty())
            .map(|c| c.into())
            .collect();
        mounts.add(number, components, root.join(target));
    }
    Tree { dir, mounts }
}

fn check(tree: &Tree, path: &str) {
    let root = tree.dir.path().canonicalize().unwrap();
    let ours = resolve(&tree.mounts, format!("/{path}").as_bytes());
    // On the host the tree's root has a parent; paths that leave it are not compared.
    let host = fs::metadata(root.join(path)).and_then(|_| fs::canonicalize(root.join(path)));
    match (ours, host) {
        (Ok(ours), Ok(host)) => assert_eq!(ours.canonicalize().unwrap(), host, "{path}"),
        (Err(ours), Err(host)) => {
            let expected = match host.raw_os_error() {
                Some(2) => FsError::NotFound,
                Some(20) => FsError::NotADirectory,
                Some(40) => FsError::TooManyLinks,
                other => panic!("{path}: {other:?}"),
            };
            assert_eq!(ours, expected, "{path}");
        }
        (ours, host) => panic!("{path}: {ours:?}, the host says {host:?}"),
    }
}

#[test]
fn selected_paths() {
    let tree = tree();
    for path in [
        "",
        ".",
        "a",
        "a/",
        "a/file",
        "a/file/",
        "a/file/.",
        "a/file/..",
        "a/up/a/up/a/file",
        "a/to-one/x/y/file",
        "a/to-one/../two",
        "mnt/one/out/c/file",
        "mnt/one/x/two/file",
        "mnt/one/x/two/er/../../self/deep/er",
        "mnt/two/deep/loop",
        "a/dangling",
        "a/dangling/x",
        "a/file-link",
        "a/file-link/",
        "a/b/slash",
        "a/b/chain",
        "a/b/chain/../file",
        "m/one/file",
        "m/two/self/self/deep",
        "nothing",
        "nothing/x",
        "nothing/..",
        "a//b///c/./file",
        "mnt/one/..",
        "mnt/one/../one/file",
    ] {
        check(&tree, path);
    }
}

#[test]
fn the_root_has_no_parent_and_absolute_links_begin_there() {
    let tree = tree();
    let root = tree.dir.path().canonicalize().unwrap();
    symlink("/mnt/one/x", root.join("mnt/two/absolute")).unwrap();
    let resolved = |path: &str| resolve(&tree.mounts, path.as_bytes());
    assert_eq!(resolved("/../../a/file"), Ok(root.join("a/file")));
    assert_eq!(
        resolved("/mnt/two/absolute/y/file"),
        Ok(root.join("mnt/one/x/y/file"))
    );
    assert_eq!(
        resolved("/mnt/two/absolute/../file"),
        Ok(root.join("mnt/one/file"))
    );
    assert_eq!(resolved("relative"), Err(FsError::InvalidArgument));
    assert_eq!(resolved("/nul\0"), Err(FsError::InvalidArgument));
    assert_eq!(resolved(&"/a".repeat(3000)), Err(FsError::NameTooLong));
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let tree = tree();
    let root = tree.dir.path().canonicalize().unwrap();
    for at in 0..45 {
        symlink(format!("chain{}", at + 1), root.join(format!("chain{at}"))).unwrap();
    }
    fs::write(root.join("chain45"), "").unwrap();
    for first in 0..10 {
        check(&tree, &format!("chain{first}"));
    }
}

#[test]
fn the_canonical_path_and_names_that_lead_to_mounts() {
    let tree = tree();
    let mut resolution = Resolution::new(b"/a/../mnt/./one/x").unwrap();
    let mut question = resolution.next(&tree.mounts);
    assert_eq!(
        question,
        Question::Directory {
            mount: Some(1),
            path: b"a".to_vec()
        }
    );
    resolution.is_directory();
    question = resolution.next(&tree.mounts);
    assert_eq!(
        question,
        Question::Object {
            mount: Some(2),
            path: b"x".to_vec()
        }
    );
    assert_eq!(join(resolution.canonical()), b"/mnt/one/x");
    let names = |path: &[&str]| {
        let path: Vec<Vec<u8>> = path.iter().map(|c| c.as_bytes().to_vec()).collect();
        tree.mounts
            .names_in(&path)
            .into_iter()
            .map(|n| String::from_utf8(n).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["mnt"]);
    assert_eq!(names(&["mnt"]), ["one", "two"]);
    assert_eq!(names(&["mnt", "one"]), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_paths(
        names in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "b", "c", "file", "mnt", "one", "two", "deep", "er", "x", "y", "up", "to-one",
                "out", "loop", "chain", "m", "self", "slash", "file-link", "..", ".", "",
            ]),
            0..9,
        ),
    ) {
        thread_local!(static TREE: Tree = tree());
        // Leaving the tree is where host and guest differ.
        let depth_ok = TREE.with(|tree| {
            let root = tree.dir.path().canonicalize().unwrap();
            (0..=names.len()).all(|n| {
                fs::canonicalize(root.join(names[..n].join("/")))
                    .map_or(true, |path| path.starts_with(&root))
            })
        });
        if depth_ok {
            TREE.with(|tree| check(tree, names.join("/").trim_start_matches('/')));
        }
    }
}
