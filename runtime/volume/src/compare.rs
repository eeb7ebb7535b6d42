//! Compares a mounted volume with the host folder that it was made from, and
//! reads all of a volume that may be damaged. For tests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read,
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use crate::{
    BlockQueue, Cache, FileKind, FileSystem, FsError, Memory, NodeId, ReadAhead, Tree, reader,
};

/// What the format keeps of a file beside names, kinds and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Permissions, links, owners, times to the nanosecond or second; holes.
    UnixAttributes,
    /// Nothing.
    ContentsOnly,
}

/// All entries of a directory, read `batch` at a time.
///
/// # Errors
/// As the file system says.
pub async fn list<F: FileSystem>(
    filesystem: &F,
    directory: &F::File,
    batch: usize,
) -> Result<Vec<(Vec<u8>, NodeId, FileKind)>, FsError> {
    let mut entries = Vec::new();
    let mut position = Some(0);
    while let Some(from) = position {
        let mut room = batch;
        let mut resume = 0;
        position = filesystem
            .read_directory(directory, from, &mut |entry| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                resume = entry.next;
                entries.push((entry.name.to_vec(), entry.node, entry.kind));
                ControlFlow::Continue(())
            })
            .await?;
        if let Some(position) = position {
            assert!(
                position >= resume,
                "a refused entry is not behind those taken"
            );
        }
    }
    Ok(entries)
}

/// Compares recursively; returns the number of objects compared.
///
/// # Panics
/// At the first difference, naming it.
pub async fn same_as_folder<F: FileSystem, Q: BlockQueue, M: Memory>(
    tree: &Tree<F>,
    cache: &Cache<Q, M>,
    folder: &Path,
    keeps: Keeps,
) -> usize {
    let filesystem = tree.filesystem();
    let mut compared = 0;
    let mut todo = vec![(filesystem.root(), folder.to_path_buf())];
    while let Some((node, path)) = todo.pop() {
        let here = path.display();
        let directory = filesystem
            .open(node)
            .await
            .unwrap_or_else(|e| panic!("{here}: {e}"));
        let entries = list(filesystem, &directory, 7)
            .await
            .unwrap_or_else(|e| panic!("{here}: {e}"));
        let mut ours = BTreeMap::new();
        for (name, node, kind) in entries {
            if node_is_lost_and_found(&name, &path, folder) {
                continue;
            }
            assert!(
                ours.insert(name, (node, kind)).is_none(),
                "{here}: a name twice"
            );
        }
        let theirs: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        for entry in &theirs {
            let path = entry.path();
            let here = path.display();
            let name = entry.file_name();
            let (node, kind) = *ours
                .get(name.as_bytes())
                .unwrap_or_else(|| panic!("{here}: not on the volume"));
            assert_eq!(
                tree.lookup(&directory, name.as_bytes()).await,
                Ok(node),
                "{here}"
            );
            let file = filesystem
                .open(node)
                .await
                .unwrap_or_else(|e| panic!("{here}: {e}"));
            let attributes = filesystem.attributes(&file);
            assert!(
                kind == attributes.kind || kind == FileKind::Unknown,
                "{here}: kind"
            );
            let host = fs::symlink_metadata(&path).unwrap();
            if keeps == Keeps::UnixAttributes {
                assert_eq!(
                    u32::from(attributes.permissions),
                    host.mode() & 0o7777,
                    "{here}: mode"
                );
                assert_eq!(attributes.modified.seconds, host.mtime(), "{here}: time");
                assert_eq!(attributes.user, host.uid(), "{here}: owner");
                if !host.is_dir() {
                    assert_eq!(u64::from(attributes.links), host.nlink(), "{here}: links");
                }
            }
            if host.is_dir() {
                assert_eq!(attributes.kind, FileKind::Directory, "{here}");
                todo.push((node, path));
            } else if host.is_symlink() {
                assert_eq!(attributes.kind, FileKind::Symlink, "{here}");
                let target = filesystem.read_link(&file).await.unwrap();
                assert_eq!(
                    target,
                    fs::read_link(&path).unwrap().as_os_str().as_bytes(),
                    "{here}"
                );
            } else {
                assert_eq!(attributes.kind, FileKind::File, "{here}");
                assert_eq!(attributes.size_bytes, host.len(), "{here}: size");
                same_contents(filesystem, cache, &file, &path).await;
            }
            compared += 1;
        }
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{here}: names on the volume that the folder has not"
        );
        assert_eq!(
            tree.lookup(&directory, b"no such name").await,
            Err(FsError::NotFound)
        );
    }
    compared
}

fn node_is_lost_and_found(name: &[u8], path: &Path, root: &Path) -> bool {
    name == b"lost+found" && path == root && !path.join("lost+found").exists()
}

/// Long runs of zeroes are compared at both ends only, so that files of many
/// gigabytes of hole stay quick; data is compared byte by byte.
async fn same_contents<F: FileSystem, Q: BlockQueue, M: Memory>(
    filesystem: &F,
    cache: &Cache<Q, M>,
    file: &F::File,
    path: &Path,
) {
    let ahead = RefCell::new(ReadAhead::default());
    let mut host = fs::File::open(path).unwrap();
    let size = host.metadata().unwrap().len();
    // Sizes that are no multiple of anything, and larger than a run.
    let chunk = if size < 300_000 { 7919 } else { 1_300_007 };
    let (mut ours, mut theirs) = (vec![0xEE; chunk], vec![0; chunk]);
    let mut at = 0;
    while at < size {
        let extent = filesystem.extent(file, at).await.unwrap();
        let ends = extent.file_offset + extent.len_bytes;
        if extent.place == crate::Place::Hole && ends.min(size) - at > 64 << 20 {
            use std::os::unix::fs::FileExt;
            let skip_to = ends.min(size) - 1000;
            for probe in [at, at + (32 << 20), skip_to - 1000] {
                let mut bytes = [1; 1000];
                host.read_exact_at(&mut bytes, probe).unwrap();
                assert_eq!(
                    bytes,
                    [0; 1000],
                    "{}: a hole over data at {probe}",
                    path.display()
                );
            }
            at = skip_to;
            use std::io::Seek;
            host.seek(std::io::SeekFrom::Start(at)).unwrap();
        }
        let want = (chunk as u64).min(size - at) as usize;
        let (ours, theirs) = (&mut ours[..want], &mut theirs[..want]);
        ours.fill(0xEE);
        host.read_exact(theirs).unwrap();
        let got = reader::read(
            filesystem,
            cache,
            file,
            &ahead,
            at,
            chunk as u64,
            &mut &mut *ours,
        )
        .await
        .unwrap_or_else(|error| panic!("{} at {at}: {error}", path.display()));
        assert_eq!(got, want as u64, "{} at {at}", path.display());
        if ours != theirs {
            let first = ours
                .iter()
                .zip(&*theirs)
                .position(|(a, b)| a != b)
                .unwrap_or(0) as u64;
            panic!("{}: differs at byte {}", path.display(), at + first);
        }
        at += want as u64;
    }
    let end = reader::read(
        filesystem,
        cache,
        file,
        &ahead,
        size,
        10,
        &mut &mut [0; 10][..],
    )
    .await;
    assert_eq!(end, Ok(0));
}

/// Reads everything that can be reached, up to limits, and returns the errors
/// met, one a line. A damaged volume must come to an end here without a panic.
pub async fn read_everything<F: FileSystem, Q: BlockQueue, M: Memory>(
    filesystem: &F,
    cache: &Cache<Q, M>,
) -> String {
    let mut errors = String::new();
    let mut todo = vec![filesystem.root()];
    let mut seen = std::collections::BTreeSet::new();
    let mut buffer = vec![0; 256 * 1024];
    while let Some(node) = todo.pop() {
        if !seen.insert(node) || seen.len() > 20_000 {
            continue;
        }
        let mut note = |error: FsError| {
            let _ = writeln!(errors, "{error}");
        };
        let file = match filesystem.open(node).await {
            Ok(file) => file,
            Err(error) => {
                note(error);
                continue;
            }
        };
        let attributes = filesystem.attributes(&file);
        match attributes.kind {
            FileKind::Directory => {
                let result = filesystem
                    .read_directory(&file, 0, &mut |entry| {
                        todo.push(entry.node);
                        if todo.len() > 100_000 {
                            return ControlFlow::Break(());
                        }
                        ControlFlow::Continue(())
                    })
                    .await;
                result.err().map(&mut note);
            }
            FileKind::Symlink => {
                filesystem.read_link(&file).await.err().map(&mut note);
            }
            FileKind::File => {
                let ahead = RefCell::new(ReadAhead::default());
                let (mut at, mut reads) = (0u64, 0);
                while at < attributes.size_bytes && reads < 200 {
                    let len = buffer.len() as u64;
                    let mut sink = &mut buffer[..];
                    match reader::read(filesystem, cache, &file, &ahead, at, len, &mut sink).await {
                        Ok(got) => at += got,
                        Err(error) => {
                            note(error);
                            break;
                        }
                    }
                    reads += 1;
                }
            }
            _ => {}
        }
    }
    errors
}
