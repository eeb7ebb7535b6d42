//! The VFS and the file-system services as they run, on threads instead of
//! processes: real protocols, real images, a disk driver that answers over rings.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use fs_server::{DiskCache, Format, serve_disk};
use ipc::{
    CallError, Channel, Deadline, Event, Vmo,
    sys::{AsHandle, MapAccess, Mapping, SharedMapping},
};
use proto::{
    block::{
        Access, BlockEndpointRequest, BlockEndpointServer, BlockInfo, BlockSessionRequest,
        BlockSessionServer, Completion, SessionInfo, Status, Submission,
    },
    devmgr::{Class, DevError, EndpointInfo, EndpointsRequest, EndpointsServer},
    fs::{
        BytesRef, FileKind, FilesClient, FilesServer, FsError, LastLink, MountError, OpenFlags,
        VolumeServer,
    },
};
use ring::{Consumer, Layout, Producer};
use rt::process::Child;
use supervision::restart;
use tempfile::TempDir;
use vfs::{
    RootChoice,
    service::{self, DiskEndpoint, Launcher, Sources},
};

// A disk driver.

struct DiskImage {
    bytes: fs::File,
    len: u64,
    /// Requests that touch this byte fail.
    bad_byte: Option<u64>,
}

/// An endpoint that serves an image.
fn disk(image: &Path, bad_byte: Option<u64>) -> Channel {
    let bytes = fs::File::open(image).unwrap();
    let len = bytes.metadata().unwrap().len() / 512 * 512;
    let image = Arc::new(DiskImage {
        bytes,
        len,
        bad_byte,
    });
    let (client, server) = BlockEndpointServer::pair().unwrap();
    thread::spawn(move || serve_endpoint(&image, &server));
    client.into_channel()
}

fn serve_endpoint(image: &Arc<DiskImage>, server: &BlockEndpointServer) {
    while let Ok(request) = server.next(Deadline::FOREVER) {
        match request {
            BlockEndpointRequest::Info { reply } => {
                let info = BlockInfo {
                    block_size: 512,
                    physical_block_size: 512,
                    block_count: image.len / 512,
                    first_lba: 0,
                    access: Access::ReadOnly,
                    max_transfer: 256 * 1024,
                    max_discard: 0,
                    max_write_zeroes: 0,
                    volatile_cache: false,
                    queues: 1,
                    max_depth: 64,
                    serial: String::new(),
                    driver: "image".into(),
                    generation: 0,
                };
                reply.ok(info).unwrap();
            }
            BlockEndpointRequest::OpenSession { depth, reply, .. } => {
                let depth = depth.next_power_of_two();
                let completion_offset = Layout::of::<Submission>(depth.into())
                    .unwrap()
                    .size_bytes()
                    .next_multiple_of(64);
                let len = completion_offset
                    + Layout::of::<Completion>(depth.into()).unwrap().size_bytes();
                let rings = Vmo::create(len).unwrap();
                let mapping = Mapping::map(&rings, 0, len, MapAccess::ReadWrite).unwrap();
                let memory = SharedMapping::new(mapping);
                let session = DiskSession {
                    image: image.clone(),
                    submissions: Consumer::new(memory.clone(), 0, depth.into()).unwrap(),
                    completions: Producer::new(memory, completion_offset, depth.into()).unwrap(),
                    submitted: Event::create().unwrap(),
                    completed: Event::create().unwrap(),
                    buffers: BTreeMap::new(),
                };
                let (submitted, completed) = (
                    session.submitted.duplicate().unwrap(),
                    session.completed.duplicate().unwrap(),
                );
                let (client, server) = BlockSessionServer::pair().unwrap();
                let info = SessionInfo {
                    depth,
                    completion_offset: completion_offset as u32,
                    queue: 0,
                    session: 0,
                    epoch: 1,
                };
                thread::spawn(move || session.serve(&server));
                reply
                    .ok(info, client.into_channel(), rings, submitted, completed)
                    .unwrap();
            }
            BlockEndpointRequest::Derive { .. } => {}
        }
    }
}

struct DiskSession {
    image: Arc<DiskImage>,
    submissions: Consumer<Submission, SharedMapping>,
    completions: Producer<Completion, SharedMapping>,
    submitted: Event,
    completed: Event,
    buffers: BTreeMap<u16, (Vmo, u64)>,
}

impl DiskSession {
    /// Polls both: simple, and nothing waits for a doorbell that was lost.
    fn serve(mut self, server: &BlockSessionServer) {
        let _ = &self.submitted;
        loop {
            match server.next(Deadline::after(Duration::from_micros(300))) {
                Ok(BlockSessionRequest::RegisterBuffer {
                    slot,
                    vmo,
                    offset,
                    reply,
                    ..
                }) => {
                    self.buffers.insert(slot, (vmo, offset));
                    reply.ok().unwrap();
                }
                Ok(BlockSessionRequest::UnregisterBuffer { slot, reply }) => {
                    self.buffers.remove(&slot);
                    reply.ok().unwrap();
                }
                Err(ipc::Error::TimedOut) => {}
                Err(_) => return,
            }
            while let Some(request) = self.submissions.pop().unwrap() {
                let status = self.read(&request);
                let length = if status == Status::OK {
                    request.length
                } else {
                    0
                };
                let done = Completion {
                    id: request.id,
                    status: status.0,
                    length,
                };
                self.completions.push(&done).unwrap();
            }
            if self.completions.publish() {
                self.completed.ring().unwrap();
            }
        }
    }

    fn read(&self, request: &Submission) -> Status {
        let Some((vmo, base)) = self.buffers.get(&request.slot) else {
            return Status::BAD_BUFFER;
        };
        let (start, len) = (request.lba * 512, u64::from(request.length));
        if start + len > self.image.len || !len.is_multiple_of(512) || request.operation != 1 {
            return Status::OUT_OF_RANGE;
        }
        if self
            .image
            .bad_byte
            .is_some_and(|bad| (start..start + len).contains(&bad))
        {
            return Status::IO_ERROR;
        }
        let mut bytes = vec![0; len as usize];
        self.image.bytes.read_exact_at(&mut bytes, start).unwrap();
        vmo.write(base + request.offset, &bytes).unwrap();
        Status::OK
    }
}

// devmgr's list of disks.

fn endpoints(disks: Vec<(&'static str, Option<&'static str>, Channel)>) -> Channel {
    let (client, server) = EndpointsServer::pair().unwrap();
    thread::spawn(move || {
        let info = |name: &str, parent: Option<&str>| EndpointInfo {
            name: name.into(),
            class: Class::Block,
            parent: parent.map(Into::into),
            node: "/test".into(),
            driver: "image".into(),
            epoch: 1,
            properties: Vec::new(),
        };
        while let Ok(request) = server.next(Deadline::FOREVER) {
            match request {
                EndpointsRequest::List { reply } => {
                    let list: Vec<_> = disks.iter().map(|(n, p, _)| info(n, *p)).collect();
                    reply.ok(list).unwrap();
                }
                EndpointsRequest::Open { name, reply } => {
                    match disks.iter().find(|(other, ..)| **other == name) {
                        Some((name, parent, endpoint)) => {
                            let endpoint = endpoint.duplicate().unwrap();
                            // Its driver never dies here: nobody answers at the name.
                            let (name_client, _) = Channel::create().unwrap();
                            let found = info(name, *parent);
                            reply.ok(found, endpoint, name_client).unwrap();
                        }
                        None => reply.error(DevError::NotFound).unwrap(),
                    }
                }
                EndpointsRequest::WaitSettled { reply } => reply.ok().unwrap(),
                EndpointsRequest::Watch { .. } => {}
            }
        }
    });
    client.into_channel()
}

/// Starts the services on threads.
struct Threads;

impl Launcher for Threads {
    fn launch(
        &self,
        program: &str,
        disk: DiskEndpoint,
        volume: Channel,
    ) -> Result<Option<Child>, MountError> {
        let disk = (disk.endpoint, disk.name);
        let volume = VolumeServer::new(volume);
        let program = program.to_string();
        thread::spawn(move || match program.as_str() {
            "ext" => serve_disk(
                Format {
                    name: "ext",
                    has_signature: ext::has_signature,
                    mount: async |cache: std::rc::Rc<DiskCache>| ext::Ext::mount(cache).await,
                },
                disk,
                volume,
            ),
            "fat" => serve_disk(
                Format {
                    name: "fat",
                    has_signature: fat::has_signature,
                    mount: async |cache: std::rc::Rc<DiskCache>| fat::Fat::mount(cache).await,
                },
                disk,
                volume,
            ),
            other => panic!("{other}"),
        });
        Ok(None)
    }
}

fn start(disks: Vec<(&'static str, Option<&'static str>, Channel)>, root: &str) -> FilesClient {
    let (client, server) = FilesServer::pair().unwrap();
    let root = RootChoice::parse(Some(root));
    let sources = Sources {
        archive: None,
        disks: Some(endpoints(disks)),
        root,
        rules: restart::DEFAULT_RULES,
        keeper: None,
        supervised: None,
    };
    thread::spawn(move || service::run(server, Box::new(Threads), sources).unwrap());
    client
}

// Images.

fn run(command: &mut Command) {
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("docs/deep/er")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for at in 0..300 {
        fs::write(
            root.join(format!("many/a name of some length, number {at}")),
            at.to_string(),
        )
        .unwrap();
    }
    let big: Vec<u8> = (0..3_000_000u32)
        .flat_map(|at| (at.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    fs::write(root.join("big.bin"), big).unwrap();
    fs::write(root.join("docs/deep/er/file"), "bottom").unwrap();
    dir
}

fn ext_image(dir: &Path, from: &Path) -> PathBuf {
    let image = dir.join("ext.img");
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(from)
        .arg(&image)
        .arg("64M"));
    image
}

fn fat_image(dir: &Path, from: &Path) -> PathBuf {
    let image = dir.join("fat.img");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run(Command::new("mkfs.vfat")
        .args(["-F", "32", "-s", "1"])
        .arg(&image));
    let entries = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    run(Command::new("mcopy")
        .args(["-s", "-Q", "-i"])
        .arg(&image)
        .args(entries)
        .arg("::/"));
    image
}

// A client.

fn names(files: &FilesClient, path: &str) -> Vec<String> {
    let (_, directory) = files
        .open(BytesRef(path.as_bytes()), OpenFlags::READ)
        .unwrap();
    let mut names = Vec::new();
    let mut position = Some(0);
    while let Some(from) = position {
        let (entries, next) = directory.read_directory(from).unwrap();
        names.extend(entries.into_iter().map(|entry| entry.name.to_text()));
        position = next;
    }
    names.sort();
    names
}

fn contents(files: &FilesClient, path: &str) -> Vec<u8> {
    let (info, file) = files
        .open(BytesRef(path.as_bytes()), OpenFlags::READ)
        .unwrap();
    let len = 1 << 20;
    let (vmo, mapping) = Mapping::create(len).unwrap();
    file.register_buffer(len as u64, vmo).unwrap();
    let mut bytes = Vec::new();
    loop {
        let offset = bytes.len() as u64;
        let got = file
            .read_buffer(offset, len as u64 - 4096, 4096u64)
            .unwrap() as usize;
        if got == 0 {
            break;
        }
        let mut part = vec![0; got];
        mapping.read(4096, &mut part).unwrap();
        bytes.extend(part);
    }
    assert_eq!(bytes.len() as u64, info.size_bytes);
    bytes
}

fn error<T: std::fmt::Debug>(result: Result<T, CallError<FsError>>) -> FsError {
    match result {
        Err(CallError::Remote(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_disks_are_mounted_and_read() {
    let from = folder();
    symlink("/mnt/v1/docs", from.path().join("to-fat")).unwrap();
    symlink("docs/../big.bin", from.path().join("to-big")).unwrap();
    let images = TempDir::new().unwrap();
    let ext = ext_image(images.path(), from.path());
    fs::remove_file(from.path().join("to-fat")).unwrap();
    fs::remove_file(from.path().join("to-big")).unwrap();
    let fat = fat_image(images.path(), from.path());
    let empty = images.path().join("empty.img");
    fs::File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let files = start(
        vec![
            ("v1", None, disk(&fat, None)),
            ("v0", None, disk(&empty, None)),
            ("v0p1", Some("v0"), disk(&ext, None)),
            ("v2", None, disk(&empty, None)),
        ],
        "",
    );
    let mounts = files.mounts().unwrap();
    let places: Vec<_> = mounts
        .iter()
        .map(|m| {
            (
                m.source.as_str(),
                m.target.to_text(),
                m.info.format.as_str(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            ("disk:/v0p1", "/".into(), "ext4"),
            ("disk:/v1", "/mnt/v1".into(), "fat32")
        ]
    );
    let big = fs::read(from.path().join("big.bin")).unwrap();
    for path in [
        "/big.bin",
        "/mnt/v1/big.bin",
        "/to-big",
        "/docs/../mnt/./v1//BIG.BIN",
    ] {
        assert!(contents(&files, path) == big, "{path}");
    }
    assert_eq!(contents(&files, "/to-fat/deep/er/file"), b"bottom");
    let target = files.canonicalize(BytesRef(b"/to-fat/deep/..")).unwrap();
    assert_eq!(target.to_text(), "/mnt/v1/docs");
    assert_eq!(
        names(&files, "/"),
        ["big.bin", "docs", "lost+found", "many", "to-big", "to-fat"]
    );
    assert_eq!(names(&files, "/mnt"), ["v1"]);
    assert_eq!(names(&files, "/mnt/v1"), ["big.bin", "docs", "many"]);
    assert_eq!(names(&files, "/many").len(), 300);
    assert_eq!(names(&files, "/mnt/v1/many").len(), 300);

    let stat = |path: &str, last| files.stat(BytesRef(path.as_bytes()), last);
    assert_eq!(
        stat("/to-big", LastLink::Keep).unwrap().kind,
        FileKind::Symlink
    );
    assert_eq!(
        stat("/to-big", LastLink::Follow).unwrap().size_bytes,
        big.len() as u64
    );
    assert_ne!(
        stat("/docs", LastLink::Keep).unwrap().volume,
        stat("/mnt/v1/docs", LastLink::Keep).unwrap().volume
    );
    assert_eq!(
        files.read_link(BytesRef(b"/to-big")).unwrap().to_text(),
        "docs/../big.bin"
    );
    assert_eq!(
        error(files.read_link(BytesRef(b"/docs"))),
        FsError::NotASymlink
    );
    assert_eq!(
        error(stat("/big.bin/", LastLink::Keep)),
        FsError::NotADirectory
    );
    assert_eq!(
        error(stat("/big.bin/x", LastLink::Keep)),
        FsError::NotADirectory
    );
    assert_eq!(error(stat("/mnt/v9", LastLink::Keep)), FsError::NotFound);
    let open = |path: &str, flags| files.open(BytesRef(path.as_bytes()), flags);
    assert_eq!(
        error(open("/new", OpenFlags::WRITE | OpenFlags::CREATE)),
        FsError::ReadOnlyFileSystem
    );
    assert_eq!(error(open("/new", OpenFlags::WRITE)), FsError::NotFound);
    assert_eq!(
        error(open("/big.bin", OpenFlags::DIRECTORY)),
        FsError::NotADirectory
    );
    assert_eq!(
        error(files.unlink(BytesRef(b"/big.bin"))),
        FsError::ReadOnlyFileSystem
    );
    let (_, directory) = open("/docs", OpenFlags::READ).unwrap();
    assert_eq!(error(directory.read(0u64, 10u32)), FsError::IsADirectory);

    // Small reads, and the file as memory.
    let (_, file) = open("/big.bin", OpenFlags::READ).unwrap();
    for offset in [
        0usize,
        5,
        4095,
        1_000_001,
        big.len() - 3,
        big.len(),
        big.len() + 9,
    ] {
        let got = file.read(offset as u64, 5000u32).unwrap();
        let expected = big.get(offset..).unwrap_or_default();
        assert!(got.0 == expected[..expected.len().min(5000)], "{offset}");
    }
    let (size, vmo) = file.vmo().unwrap();
    let mut image = vec![0; size as usize];
    vmo.read(0, &mut image).unwrap();
    assert!(image == big);
    assert!(vmo.write(0, b"x").is_err(), "it cannot be written");
}

#[test]
fn mount_and_unmount_by_request() {
    let from = folder();
    let images = TempDir::new().unwrap();
    let ext = ext_image(images.path(), from.path());
    let fat = fat_image(images.path(), from.path());
    let files = start(
        vec![
            ("a0", None, disk(&ext, None)),
            ("b0", None, disk(&fat, None)),
        ],
        "b0",
    );
    assert_eq!(names(&files, "/"), ["big.bin", "docs", "many"]);
    let unmount = |path: &str| files.unmount(BytesRef(path.as_bytes()));
    let mount = |source: &str, target: &str, format: &str, options: &str| {
        files
            .mount(source, BytesRef(target.as_bytes()), format, options)
            .unwrap()
    };
    assert_eq!(error(unmount("/")), FsError::Busy);
    assert_eq!(error(unmount("/docs")), FsError::InvalidArgument);
    let (_, held) = files
        .open(BytesRef(b"/mnt/a0/big.bin"), OpenFlags::READ)
        .unwrap();
    assert_eq!(error(unmount("/mnt/a0")), FsError::Busy);
    drop(held);
    // The service notices the closed file by itself.
    let gone = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        unmount("/mnt/a0").is_ok()
    });
    assert!(gone);
    assert_eq!(names(&files, "/"), ["big.bin", "docs", "many"]);
    assert_eq!(
        mount("disk:/a0", "/big.bin", "", "").unwrap_err().error,
        FsError::NotADirectory
    );
    assert_eq!(
        mount("disk:/zz", "/docs", "", "").unwrap_err().error,
        FsError::NoDevice
    );
    assert_eq!(
        mount("a0", "/docs", "", "").unwrap_err().error,
        FsError::InvalidArgument
    );
    assert_eq!(
        mount("disk:/a0", "/docs", "vfat", "").unwrap_err().error,
        FsError::UnknownFormat
    );
    assert_eq!(
        mount("disk:/a0", "/docs", "", "rw").unwrap_err().error,
        FsError::NotSupported
    );
    mount("disk:/a0", "/docs", "ext4", "ro").unwrap();
    assert_eq!(
        mount("disk:/a0", "/many", "", "").unwrap_err().error,
        FsError::Busy
    );
    // What was at the mount point is hidden.
    assert_eq!(
        names(&files, "/docs"),
        ["big.bin", "docs", "lost+found", "many"]
    );
    assert_eq!(contents(&files, "/docs/docs/deep/er/file"), b"bottom");
    let info = files.statfs(BytesRef(b"/docs/many")).unwrap();
    assert_eq!(
        (info.source.as_str(), info.target.to_text()),
        ("disk:/a0", "/docs".into())
    );
    unmount("/docs").unwrap();
    assert_eq!(names(&files, "/docs"), ["deep"]);
}

#[test]
fn damage_and_a_bad_sector_stop_only_what_they_touch() {
    let from = folder();
    let images = TempDir::new().unwrap();
    let ext = ext_image(images.path(), from.path());
    let mut broken = fs::read(&ext).unwrap();
    broken[1024 + 200] ^= 1;
    let broken_image = images.path().join("broken.img");
    fs::write(&broken_image, &broken).unwrap();
    let truncated = images.path().join("truncated.img");
    fs::write(&truncated, &fs::read(&ext).unwrap()[..10 << 20]).unwrap();
    // A byte in the middle of the large file.
    let big = fs::read(from.path().join("big.bin")).unwrap();
    let image = fs::read(&ext).unwrap();
    let probe = &big[6_000_000..6_000_064];
    let bad = image
        .windows(64)
        .position(|window| window == probe)
        .unwrap() as u64;
    let files = start(
        vec![
            ("a", None, disk(&broken_image, None)),
            ("b", None, disk(&truncated, None)),
            ("c", None, disk(&ext, Some(bad))),
        ],
        "",
    );
    let mounts = files.mounts().unwrap();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(
        (mounts[0].source.as_str(), &mounts[0].target.0[..]),
        ("disk:/c", &b"/"[..])
    );
    let (_, file) = files.open(BytesRef(b"/big.bin"), OpenFlags::READ).unwrap();
    assert_eq!(error(file.read(6_000_000u64, 64u32)), FsError::Io);
    // The pages before and behind are there, again and again.
    for offset in [5_990_000usize, 6_010_000, 0] {
        assert_eq!(
            file.read(offset as u64, 64u32).unwrap().0,
            big[offset..offset + 64]
        );
    }
    assert_eq!(contents(&files, "/docs/deep/er/file"), b"bottom");
    let refused = files
        .mount("disk:/a", BytesRef(b"/x"), "", "")
        .unwrap()
        .unwrap_err();
    assert!(
        refused.reason.contains("superblock 0: checksum mismatch"),
        "{refused}"
    );
    let refused = files
        .mount("disk:/b", BytesRef(b"/x"), "", "")
        .unwrap()
        .unwrap_err();
    assert!(refused.reason.contains("(truncated?)"), "{refused}");
}

#[test]
fn without_any_disk_there_is_an_empty_root() {
    let files = start(Vec::new(), "");
    assert_eq!(names(&files, "/"), [""; 0]);
    assert_eq!(
        error(files.stat(BytesRef(b"/x"), LastLink::Follow)),
        FsError::NotFound
    );
}
