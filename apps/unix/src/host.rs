//! Back end on a Unix host, for comparing the programs with the host's own.

use std::fs as host_fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{self, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::errno::{Errno, Result};
use crate::fs::{DirEntry, Kind, Metadata, Mount, VolumeInfo};
use crate::process::{Spawn, Status, Waited};
use crate::stream::{OpenMode, Stream};

/// Entry point of a program.
pub fn run_program(run: impl FnOnce(Vec<String>) -> i32) {
    let args = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    process::exit(run(args));
}

fn errno(error: io::Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => Errno::from_number(number),
        (None, io::ErrorKind::BrokenPipe) => Errno::BrokenPipe,
        _ => Errno::Io,
    }
}

#[derive(Debug)]
enum End {
    Stdin,
    Stdout,
    Stderr,
    File(host_fs::File),
    Reader(io::PipeReader),
    Writer(io::PipeWriter),
}

/// An end of a stream that other processes can be given.
#[derive(Clone, Debug)]
pub struct OsStream(Rc<End>);

pub fn standard_stream(number: u32) -> Stream {
    Stream::Os(OsStream(Rc::new(match number {
        0 => End::Stdin,
        1 => End::Stdout,
        _ => End::Stderr,
    })))
}

pub fn pipe() -> Result<(OsStream, OsStream)> {
    let (reader, writer) = io::pipe().map_err(errno)?;
    Ok((
        OsStream(Rc::new(End::Reader(reader))),
        OsStream(Rc::new(End::Writer(writer))),
    ))
}

pub fn open_stream(path: &str, mode: OpenMode) -> Result<OsStream> {
    let mut options = host_fs::OpenOptions::new();
    match mode {
        OpenMode::Read => options.read(true),
        OpenMode::Truncate => options.write(true).create(true).truncate(true),
        OpenMode::Append => options.append(true).create(true),
    };
    Ok(OsStream(Rc::new(End::File(
        options.open(path).map_err(errno)?,
    ))))
}

impl OsStream {
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        match &*self.0 {
            // Unbuffered, so that the rest stays there for the next process.
            End::Stdin => {
                let fd = io::stdin().as_fd().try_clone_to_owned().map_err(errno)?;
                host_fs::File::from(fd).read(buffer).map_err(errno)
            }
            End::File(file) => (&*file).read(buffer).map_err(errno),
            End::Reader(reader) => (&*reader).read(buffer).map_err(errno),
            _ => Err(Errno::BadDescriptor),
        }
    }

    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        match &*self.0 {
            End::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)
                    .and_then(|()| out.flush())
                    .map_err(errno)
            }
            End::Stderr => io::stderr().write_all(bytes).map_err(errno),
            End::File(file) => (&*file).write_all(bytes).map_err(errno),
            End::Writer(writer) => (&*writer).write_all(bytes).map_err(errno),
            _ => Err(Errno::BadDescriptor),
        }
    }

    pub fn metadata(&self) -> Option<Metadata> {
        let found = match &*self.0 {
            End::Stdin => host_fs::metadata("/proc/self/fd/0").ok()?,
            End::File(file) => file.metadata().ok()?,
            _ => return None,
        };
        Some(metadata(&found)).filter(Metadata::is_file)
    }

    pub fn is_terminal(&self) -> bool {
        match &*self.0 {
            End::Stdin => io::stdin().is_terminal(),
            End::Stdout => io::stdout().is_terminal(),
            End::Stderr => io::stderr().is_terminal(),
            _ => false,
        }
    }

    fn stdio(&self, number: u32) -> Result<Stdio> {
        Ok(match &*self.0 {
            End::Stdin if number == 0 => Stdio::inherit(),
            End::Stdout if number == 1 => Stdio::inherit(),
            End::Stderr if number == 2 => Stdio::inherit(),
            End::Stdin => Stdio::null(),
            End::Stdout => Stdio::from(io::stdout()),
            End::Stderr => Stdio::from(io::stderr()),
            End::File(file) => Stdio::from(file.try_clone().map_err(errno)?),
            End::Reader(reader) => Stdio::from(reader.try_clone().map_err(errno)?),
            End::Writer(writer) => Stdio::from(writer.try_clone().map_err(errno)?),
        })
    }
}

/// A running program.
#[derive(Debug)]
pub struct Child(process::Child);

pub fn spawn(spawn: &Spawn<'_>) -> Result<Child> {
    let stdio = |stream: &Stream, number| match stream {
        Stream::Null => Ok(Stdio::null()),
        Stream::Capture(_) => Err(Errno::BadDescriptor),
        Stream::Os(os) => os.stdio(number),
    };
    let mut command = process::Command::new(spawn.program);
    if let Some((name, rest)) = spawn.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(spawn.env.iter().map(|(n, v)| (n, v)))
        .current_dir(spawn.directory)
        .stdin(stdio(&spawn.stdin, 0)?)
        .stdout(stdio(&spawn.stdout, 1)?)
        .stderr(stdio(&spawn.stderr, 2)?);
    command.spawn().map(Child).map_err(errno)
}

fn status(status: process::ExitStatus) -> Status {
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Exited(code),
        (None, Some(signal @ (4 | 7 | 8 | 11))) => {
            Status::Faulted(signal, format!("signal {signal}"))
        }
        (None, signal) => Status::Killed(signal.unwrap_or(9)),
    }
}

impl Child {
    /// Its process ID.
    pub fn id(&self) -> u64 {
        u64::from(self.0.id())
    }
    /// Waits for its end.
    pub fn wait(&mut self) -> Result<Status> {
        self.0.wait().map(status).map_err(errno)
    }
    /// How it ended; `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<Status>> {
        self.0.try_wait().map(|s| s.map(status)).map_err(errno)
    }
    /// Ends it; the code is a signal number.
    pub fn kill(&mut self, _code: i32) -> Result<()> {
        self.0.kill().map_err(errno)
    }
    /// Waits for its end or for ctrl-C.
    pub fn wait_or_interrupt(&mut self, _terminal: &Terminal) -> Result<Waited> {
        self.wait().map(Waited::Ended)
    }
}

/// The terminal of an interactive shell: none on the host.
#[derive(Debug)]
pub struct Terminal(());

impl Terminal {
    /// That of this process, if it was given one.
    pub fn open() -> Option<Terminal> {
        None
    }
    /// Every byte at once, without echo.
    pub fn set_raw(&self) -> Result<()> {
        Err(Errno::NotTerminal)
    }
    /// By line, with echo.
    pub fn set_cooked(&self) -> Result<()> {
        Err(Errno::NotTerminal)
    }
    /// Whether ctrl-C was pressed since the last call.
    pub fn take_interrupt(&self) -> bool {
        false
    }
    /// Characters in a row.
    pub fn columns(&self) -> usize {
        80
    }
    /// Rows.
    pub fn rows(&self) -> usize {
        24
    }
    /// Reads what is typed, waiting at most so long: `None` if nothing came.
    pub fn read_timeout(&self, _buffer: &mut [u8], _timeout_ns: u64) -> Result<Option<usize>> {
        Err(Errno::NotTerminal)
    }
}

pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(n, v)| {
            (
                n.to_string_lossy().into_owned(),
                v.to_string_lossy().into_owned(),
            )
        })
        .collect()
}

pub fn own_program() -> String {
    std::env::current_exe().map_or_else(|_| "/bin/sh".into(), |p| p.to_string_lossy().into_owned())
}

pub fn process_id() -> u64 {
    u64::from(process::id())
}

pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

pub fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

pub fn sleep_ns(duration_ns: u64) {
    std::thread::sleep(Duration::from_nanos(duration_ns));
}

/// An open file.
#[derive(Debug)]
pub struct File(host_fs::File);

impl File {
    /// Opens a file for reading.
    pub fn open(path: &str) -> Result<File> {
        host_fs::File::open(path).map(File).map_err(errno)
    }
    /// Creates or empties a file and opens it for writing.
    pub fn create(path: &str) -> Result<File> {
        host_fs::File::create(path).map(File).map_err(errno)
    }
    /// Opens an existing or new file for reading and writing in place.
    pub fn open_write(path: &str) -> Result<File> {
        let mut options = host_fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path).map(File).map_err(errno)
    }
    /// Reads at the position and moves it; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer).map_err(errno)
    }
    /// Reads at an offset.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(buffer, offset).map_err(errno)
    }
    /// Writes all at the position and moves it.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(errno)
    }
    /// Moves the position.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        io::Seek::seek(&mut self.0, io::SeekFrom::Start(offset))
            .map(|_| ())
            .map_err(errno)
    }
    /// Metadata.
    pub fn metadata(&self) -> Result<Metadata> {
        self.0.metadata().map(|m| metadata(&m)).map_err(errno)
    }
    /// Sets the size.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.0.set_len(size).map_err(errno)
    }
}

fn metadata(m: &host_fs::Metadata) -> Metadata {
    let rdev = m.rdev();
    Metadata {
        device: m.dev(),
        inode: m.ino(),
        mode: m.mode(),
        links: m.nlink(),
        uid: m.uid(),
        gid: m.gid(),
        size: m.size(),
        blocks: m.blocks(),
        block_size: m.blksize() as u32,
        device_numbers: (
            (rdev >> 8 & 0xfff) as u32,
            (rdev & 0xff | rdev >> 12 & 0xfff00) as u32,
        ),
        accessed: (m.atime(), m.atime_nsec() as u32),
        modified: (m.mtime(), m.mtime_nsec() as u32),
        changed: (m.ctime(), m.ctime_nsec() as u32),
        created: m.created().ok().and_then(|t| {
            let d = t.duration_since(UNIX_EPOCH).ok()?;
            Some((d.as_secs() as i64, d.subsec_nanos()))
        }),
    }
}

pub fn stat(path: &str) -> Result<Metadata> {
    host_fs::metadata(path).map(|m| metadata(&m)).map_err(errno)
}

pub fn lstat(path: &str) -> Result<Metadata> {
    host_fs::symlink_metadata(path)
        .map(|m| metadata(&m))
        .map_err(errno)
}

pub fn read_link(path: &str) -> Result<String> {
    host_fs::read_link(path)
        .map(|p| p.to_string_lossy().into_owned())
        .map_err(errno)
}

pub fn read_dir(path: &str) -> Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in host_fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let kind = entry.file_type().map_err(errno)?;
        entries.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            inode: std::os::unix::fs::DirEntryExt::ino(&entry),
            kind: if kind.is_dir() {
                Kind::Directory
            } else if kind.is_symlink() {
                Kind::Symlink
            } else {
                Kind::Regular
            },
        });
    }
    Ok(entries)
}

pub fn volume_info(_path: &str) -> Result<VolumeInfo> {
    Err(Errno::NotImplemented)
}

pub fn mounts() -> Result<Vec<Mount>> {
    Err(Errno::NotImplemented)
}

pub fn mount(
    _source: &str,
    _target: &str,
    _kind: &str,
    _options: &str,
) -> std::result::Result<(), String> {
    Err(Errno::NotPermitted.to_string())
}

pub fn unmount(_target: &str) -> Result<u32> {
    Err(Errno::NotPermitted)
}

pub fn wait_ready() -> Result<()> {
    Ok(())
}

pub fn current_dir() -> String {
    std::env::current_dir().map_or_else(|_| "/".into(), |d| d.to_string_lossy().into_owned())
}

pub fn make_dir(path: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    host_fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(errno)
}

pub fn remove_file(path: &str) -> Result<()> {
    host_fs::remove_file(path).map_err(errno)
}

pub fn remove_dir(path: &str) -> Result<()> {
    host_fs::remove_dir(path).map_err(errno)
}

pub fn rename(from: &str, to: &str) -> Result<()> {
    host_fs::rename(from, to).map_err(errno)
}

pub fn symlink(target: &str, path: &str) -> Result<()> {
    std::os::unix::fs::symlink(target, path).map_err(errno)
}

pub fn sync() -> Result<()> {
    Ok(())
}
