//! Building a process: few system calls, since this is what starting a program costs.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use proto::startup::{BootstrapClient, Startup, StreamKind, name};
use sys::abi::{PAGE_SIZE, Quota};
use sys::{
    AsHandle, Channel, Handle, HandleType, Process, Scratch, SegmentAccess, ThreadStart, Vmo,
};

use crate::process::Child;
use crate::process::image::{HEAD_BYTES, Image, ImageError, Segment, SegmentKind};
use crate::startup;

/// Stack of a first thread; pages are allocated at first use, and a guard page is below.
const STACK_BYTES: usize = 256 * 1024;

/// Why a program was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// The file is not a program.
    Image(ImageError),
    /// A system call failed: what for, and how.
    Kernel(&'static str, sys::Error),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Image(error) => error.fmt(f),
            SpawnError::Kernel(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl core::error::Error for SpawnError {}

impl From<ImageError> for SpawnError {
    fn from(error: ImageError) -> SpawnError {
        SpawnError::Image(error)
    }
}

/// What a child's standard stream is.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Nothing: reads end at once, writes vanish.
    #[default]
    Null,
    /// The parent's own.
    Inherit,
    /// A byte stream.
    Pipe(Channel),
    /// A byte stream to or from a terminal.
    Terminal(Channel),
    /// An open file.
    File(Channel),
    /// The log, as raw text (the child needs the handle `log`).
    Log,
}

const STREAM_NAMES: [&str; 3] = [name::STDIN, name::STDOUT, name::STDERR];

/// A program to start.
#[derive(Debug)]
pub struct Command<'a> {
    program: &'a Vmo,
    process_name: String,
    startup: Startup,
    env_set: bool,
    cwd_set: bool,
    stdio: [Stdio; 3],
    handles: Vec<Handle>,
    quota: Option<Quota>,
    priority: Option<u8>,
    affinity: u64,
    stack_bytes: usize,
}

impl<'a> Command<'a> {
    /// Starts the ELF file in `program` (a handle with READ, MAP and EXECUTE), under this name, which
    /// is the first argument too.
    pub fn new(program: &'a Vmo, name: &str) -> Command<'a> {
        let process_name = name.rsplit('/').next().unwrap_or(name).to_string();
        let startup = Startup {
            args: alloc::vec![name.to_string()],
            ..Startup::default()
        };
        Command {
            program,
            process_name,
            startup,
            env_set: false,
            cwd_set: false,
            stdio: [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit],
            handles: Vec::new(),
            quota: None,
            priority: None,
            affinity: 0,
            stack_bytes: STACK_BYTES,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.startup.args.push(arg.to_string());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.startup
            .args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_string()));
        self
    }

    /// Sets the whole environment; otherwise it is the parent's.
    pub fn env(mut self, env: Vec<(String, String)>) -> Self {
        self.startup.env = env;
        self.env_set = true;
        self
    }

    /// Sets the current directory; otherwise it is the parent's.
    pub fn cwd(mut self, cwd: &str) -> Self {
        self.startup.cwd = cwd.to_string();
        self.cwd_set = true;
        self
    }

    /// Standard input; otherwise the parent's.
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdio[0] = stdio;
        self
    }

    /// Standard output; otherwise the parent's.
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdio[1] = stdio;
        self
    }

    /// Standard error; otherwise the parent's.
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stdio[2] = stdio;
        self
    }

    /// Gives a handle under a name.
    pub fn handle(mut self, name: &str, handle: impl HandleType) -> Self {
        self.startup.handle_names.push(name.to_string());
        self.handles.push(handle.into_handle());
        self
    }

    /// Gives a duplicate of each of the parent's own start-up handles that have these names.
    pub fn inherit<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        for name in names {
            let known = self.startup.handle_names.iter().any(|n| n == name);
            if !known
                && !STREAM_NAMES.contains(&name)
                && let Some(handle) = startup::handle::<Handle>(name)
                && let Ok(handle) = handle.duplicate()
            {
                self = self.handle(name, handle);
            }
        }
        self
    }

    /// Gives a duplicate of each of the parent's own start-up handles: for shells and their like.
    pub fn inherit_all(self) -> Self {
        self.inherit(startup::handle_names())
    }

    /// Limits it; otherwise the parent's limits hold.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Priority of its first thread.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// CPUs that its first thread may run on, a bit each.
    pub fn affinity(mut self, cpus: u64) -> Self {
        self.affinity = cpus;
        self
    }

    /// Size of its first thread's stack.
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        self.prepare()?.start()
    }

    /// Makes the process, whose first thread does not run yet.
    pub fn prepare(mut self) -> Result<Prepared, SpawnError> {
        let image = read_image(self.program)?;
        if !self.env_set {
            self.startup.env = startup::env_all().to_vec();
        }
        if !self.cwd_set {
            self.startup.cwd = startup::cwd().to_string();
        }
        self.add_streams()?;

        let process = Process::create(&self.process_name, self.quota.as_ref())
            .map_err(|e| SpawnError::Kernel("create a process", e))?;
        let stack = map_image(&process, self.program, &image, self.stack_bytes)?;

        let (parent_end, child_end) =
            Channel::create().map_err(|e| SpawnError::Kernel("create a channel", e))?;
        BootstrapClient::new(parent_end)
            .start(&self.startup, self.handles)
            .map_err(|e| SpawnError::Kernel("send the start-up message", transport_error(e)))?;

        let start = ThreadStart {
            name: "main",
            entry: image.entry,
            stack,
            arg: 0,
            handle: Some(child_end.into_handle()),
            priority: self.priority,
            affinity: self.affinity,
        };
        Ok(Prepared { process, start })
    }

    /// Adds the standard streams' handles and kinds.
    fn add_streams(&mut self) -> Result<(), SpawnError> {
        let stdio = core::mem::take(&mut self.stdio);
        for (i, (stdio, stream)) in stdio.into_iter().zip(STREAM_NAMES).enumerate() {
            let (kind, channel) = match stdio {
                Stdio::Null => (StreamKind::Null, None),
                Stdio::Log => (StreamKind::Log, None),
                Stdio::Pipe(channel) => (StreamKind::Pipe, Some(channel)),
                Stdio::Terminal(channel) => (StreamKind::Terminal, Some(channel)),
                Stdio::File(channel) => (StreamKind::File, Some(channel)),
                Stdio::Inherit => {
                    let own = startup::handle::<Channel>(stream).map(AsHandle::duplicate);
                    let own = own
                        .transpose()
                        .map_err(|e| SpawnError::Kernel("pass a standard stream on", e))?;
                    (startup::streams().get(i).copied().unwrap_or_default(), own)
                }
            };
            if let Some(place) = self.startup.streams.get_mut(i) {
                *place = kind;
            }
            if let Some(channel) = channel {
                self.startup.handle_names.push(stream.to_string());
                self.handles.push(channel.into_handle());
            }
        }
        Ok(())
    }
}

/// A process that is all there and does not run yet.
#[derive(Debug)]
pub struct Prepared {
    process: Process,
    start: ThreadStart<'static>,
}

impl Prepared {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts its first thread.
    pub fn start(self) -> Result<Child, SpawnError> {
        self.process
            .start_thread(self.start)
            .map_err(|e| SpawnError::Kernel("start a thread", e))?;
        Ok(Child::from_process(self.process))
    }
}

fn transport_error(error: ipc::CallError<()>) -> sys::Error {
    match error {
        ipc::CallError::Transport(error) => error,
        // Too many arguments or handles for a message.
        ipc::CallError::Codec(_) => sys::Error::OutOfRange,
        _ => sys::Error::Internal,
    }
}

fn read_image(program: &Vmo) -> Result<Image, SpawnError> {
    let kernel = |e| SpawnError::Kernel("read the program", e);
    let file_len = program.size().map_err(kernel)?;
    let mut scratch = Scratch::take();
    let head_len = usize::try_from(file_len)
        .unwrap_or(HEAD_BYTES)
        .min(HEAD_BYTES);
    let head = scratch.get_mut(..head_len).ok_or(ImageError::Truncated)?;
    program.read(0, head).map_err(kernel)?;
    Ok(Image::parse(head, file_len)?)
}

/// Maps segments and a stack; gives the first thread's stack pointer.
fn map_image(
    process: &Process,
    program: &Vmo,
    image: &Image,
    stack_bytes: usize,
) -> Result<usize, SpawnError> {
    let kernel = |e| SpawnError::Kernel("map the program", e);
    for segment in &image.segments {
        let access = match segment.kind {
            SegmentKind::Constants => SegmentAccess::Read,
            SegmentKind::Code => SegmentAccess::ReadExecute,
            SegmentKind::Data => continue,
        };
        let start = segment.page_start();
        let len = segment.page_end().saturating_sub(start);
        process
            .map_at(program, segment.page_offset(), len, access, start)
            .map_err(kernel)?;
    }

    // One VMO holds all writable memory: data segments one after the other, then the stack.
    let data = || {
        image
            .segments
            .iter()
            .filter(|s| s.kind == SegmentKind::Data)
    };
    let too_big = SpawnError::Kernel("map the program", sys::Error::OutOfRange);
    let stack_bytes = stack_bytes
        .checked_next_multiple_of(PAGE_SIZE)
        .ok_or(too_big)?;
    let data_bytes = data()
        .map(|s| s.page_end().saturating_sub(s.page_start()))
        .try_fold(0usize, usize::checked_add)
        .ok_or(too_big)?;
    let total = data_bytes.checked_add(stack_bytes).ok_or(too_big)?;
    let memory = Vmo::create(total).map_err(kernel)?;

    let mut offset = 0;
    // A run of segments whose pages follow each other is mapped in one go.
    let mut run: Option<(usize, usize, usize)> = None;
    for segment in data() {
        let len = segment.page_end().saturating_sub(segment.page_start());
        let at = offset + segment.address.saturating_sub(segment.page_start());
        copy_data(program, segment, &memory, at as u64).map_err(kernel)?;
        run = match run {
            Some((address, from, run_len)) if address + run_len == segment.page_start() => {
                Some((address, from, run_len + len))
            }
            other => {
                map_run(process, &memory, other)?;
                Some((segment.page_start(), offset, len))
            }
        };
        offset += len;
    }
    map_run(process, &memory, run)?;
    let stack = process
        .map_anywhere(
            &memory,
            data_bytes as u64,
            stack_bytes,
            SegmentAccess::ReadWrite,
        )
        .map_err(kernel)?;
    // As after a call: 8 below a multiple of 16.
    Ok(stack + stack_bytes - 8)
}

fn map_run(
    process: &Process,
    memory: &Vmo,
    run: Option<(usize, usize, usize)>,
) -> Result<(), SpawnError> {
    let Some((address, offset, len)) = run else {
        return Ok(());
    };
    process
        .map_at(
            memory,
            offset as u64,
            len,
            SegmentAccess::ReadWrite,
            address,
        )
        .map_err(|e| SpawnError::Kernel("map the program", e))
}

fn copy_data(program: &Vmo, segment: &Segment, memory: &Vmo, at: u64) -> sys::Result<()> {
    let mut scratch = Scratch::take();
    let mut done = 0;
    while done < segment.file_len {
        let n = (segment.file_len - done).min(scratch.len());
        let chunk = scratch.get_mut(..n).ok_or(sys::Error::Internal)?;
        program.read(segment.offset + done as u64, chunk)?;
        memory.write(at + done as u64, chunk)?;
        done += n;
    }
    Ok(())
}
