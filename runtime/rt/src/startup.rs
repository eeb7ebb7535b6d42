//! What the process was started with: arguments, environment, current directory, handles by name.
//! Read from the bootstrap channel at first use, so that a program that needs nothing pays nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proto::startup::{BootstrapRequest, BootstrapServer, StreamKind};
use sys::abi::{AcpiTable, Error, InitMessage, RawHandle, ResourceKind};
use sys::{
    Channel, Deadline, Handle, HandleList, HandleType, Once, Process, Resource, Result, Vmo,
};

pub use proto::startup::name;

struct Entry {
    name: String,
    handle: Handle,
    taken: AtomicBool,
}

impl Entry {
    fn new(name: String, handle: Handle) -> Entry {
        Entry {
            name,
            handle,
            taken: AtomicBool::new(false),
        }
    }
}

#[derive(Default)]
struct Data {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    handles: Vec<Entry>,
    streams: [StreamKind; 3],
}

static BOOTSTRAP: AtomicU32 = AtomicU32::new(0);
static DATA: Once<Data> = Once::new();

/// Called once, by the entry.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "a host has its own entry")
)]
pub(crate) fn set_bootstrap(handle: RawHandle) {
    BOOTSTRAP.store(handle.0, Ordering::Relaxed);
}

fn take_bootstrap() -> Option<Channel> {
    match BOOTSTRAP.swap(0, Ordering::Relaxed) {
        0 => None,
        raw => Some(Channel::from_raw(RawHandle(raw))),
    }
}

fn data() -> &'static Data {
    DATA.get_or_init(|| read_message().unwrap_or_default())
}

fn read_message() -> Option<Data> {
    let server = BootstrapServer::new(take_bootstrap()?);
    // The parent sends the message before it starts the first thread.
    let BootstrapRequest::Start { startup, handles } = server.next(Deadline::NOW).ok()?;
    Some(Data {
        args: startup.args,
        env: startup.env,
        cwd: startup.cwd,
        handles: startup
            .handle_names
            .into_iter()
            .zip(handles)
            .map(|(name, handle)| Entry::new(name, handle))
            .collect(),
        streams: startup.streams,
    })
}

/// The arguments; the first is the program's name.
pub fn args() -> &'static [String] {
    &data().args
}

/// The program's name: the last part of the first argument.
pub fn program_name() -> &'static str {
    let full = args().first().map_or("?", String::as_str);
    full.rsplit('/').next().unwrap_or(full)
}

/// The program's name without reading anything, for panics.
#[cfg(target_os = "none")]
pub(crate) fn program_name_if_known() -> &'static str {
    if DATA.get().is_some() {
        program_name()
    } else {
        "process"
    }
}

/// The environment.
pub fn env_all() -> &'static [(String, String)] {
    &data().env
}

/// A variable of the environment.
pub fn env(name: &str) -> Option<&'static str> {
    data()
        .env
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
}

/// The current directory at the start, absolute; `/` if the parent said nothing.
pub fn cwd() -> &'static str {
    match data().cwd.as_str() {
        "" => "/",
        cwd => cwd,
    }
}

/// Kinds of the standard streams.
pub(crate) fn streams() -> [StreamKind; 3] {
    data().streams
}

/// A handle by name, borrowed: `handle::<Channel>("file")`. `None` if there is none or it was taken.
pub fn handle<T: HandleType>(name: &str) -> Option<&'static T> {
    let entry = data().handles.iter().find(|entry| entry.name == name)?;
    (!entry.taken.load(Ordering::Relaxed)).then(|| T::from_ref(&entry.handle))
}

/// A handle by name, if the start-up message has been read; never blocks or allocates.
pub(crate) fn handle_if_known<T: HandleType>(name: &str) -> Option<&'static T> {
    DATA.get()?;
    handle(name)
}

/// A handle by name, owned. It is gone from here then.
pub fn take<T: HandleType>(name: &str) -> Option<T> {
    let entry = data().handles.iter().find(|entry| entry.name == name)?;
    (!entry.taken.swap(true, Ordering::Relaxed))
        .then(|| T::from_handle(Handle::from_raw(entry.handle.raw())))
}

/// Names of the handles that have not been taken.
pub fn handle_names() -> impl Iterator<Item = &'static str> {
    data()
        .handles
        .iter()
        .filter(|entry| !entry.taken.load(Ordering::Relaxed))
        .map(|entry| entry.name.as_str())
}

/// An ACPI table for init.
#[derive(Debug)]
pub struct AcpiTableVmo {
    /// For instance `MCFG`.
    pub signature: [u8; 4],
    /// Bytes of the table, from the start of the VMO on.
    pub len: u32,
    /// Where the firmware put it.
    pub physical: u64,
    /// The table, read-only.
    pub vmo: Vmo,
}

/// What the kernel hands to init.
#[derive(Debug)]
pub struct InitStart {
    /// Authority over everything.
    pub root: Resource,
    /// The boot archive.
    pub archive: Vmo,
    /// Its bytes.
    pub archive_len: u64,
    /// Init's own process.
    pub process: Process,
    /// The firmware's tables.
    pub acpi: Vec<AcpiTableVmo>,
    /// Physical address of the RSDP, 0 if none.
    pub rsdp: u64,
    /// The kernel's command line.
    pub command_line: String,
}

/// For init alone, before anything else of this module: the kernel's first message. Derives a `Log`
/// resource, so that [`info!`](crate::info!) and the others work from here on. `NotFound` in a process
/// that was not started by the kernel.
pub fn take_init() -> Result<InitStart> {
    let channel = take_bootstrap().ok_or(Error::NotFound)?;
    let mut bytes = Vec::new();
    let mut handles = HandleList::new();
    let received = channel.read_vec(&mut bytes, &mut handles, Deadline::NOW)?;
    debug_assert_eq!(received.len, bytes.len());
    let mut rest = bytes.as_slice();
    let head: InitMessage = read_record(&mut rest)?;
    if head.abi_version != sys::abi::ABI_VERSION {
        return Err(Error::NotSupported);
    }
    let mut tables = Vec::new();
    for _ in 0..head.acpi_count {
        tables.push(read_record::<AcpiTable>(&mut rest)?);
    }
    let line_len = usize::try_from(head.command_line_len).map_err(|_| Error::OutOfRange)?;
    let line = rest.get(..line_len).ok_or(Error::OutOfRange)?;
    let command_line = String::from_utf8_lossy(line).into_owned();

    let mut next = || handles.pop_front().ok_or(Error::BadHandle);
    let root: Resource = next()?.into_type();
    let archive = next()?.into_type();
    let process = next()?.into_type();
    let acpi = tables
        .into_iter()
        .map(|table| {
            Ok(AcpiTableVmo {
                signature: table.signature,
                len: table.len,
                physical: table.physical,
                vmo: next()?.into_type(),
            })
        })
        .collect::<Result<_>>()?;

    let log = root.derive(ResourceKind::Log, 0, 1)?;
    let _ = DATA.set(Data {
        args: alloc::vec![String::from("init")],
        handles: alloc::vec![Entry::new(String::from(name::LOG), log.into())],
        streams: [StreamKind::Null, StreamKind::Log, StreamKind::Log],
        ..Data::default()
    });
    let archive_len = head.archive_len;
    Ok(InitStart {
        root,
        archive,
        archive_len,
        process,
        acpi,
        rsdp: head.rsdp,
        command_line,
    })
}

/// Plain records in init's message.
///
/// # Safety
///
/// `repr(C)` and valid for any bits.
unsafe trait Record: Copy {}
// SAFETY: integers only.
unsafe impl Record for InitMessage {}
// SAFETY: integers and an array of bytes.
unsafe impl Record for AcpiTable {}

fn read_record<T: Record>(rest: &mut &[u8]) -> Result<T> {
    let (record, tail) = rest
        .split_at_checked(size_of::<T>())
        .ok_or(Error::OutOfRange)?;
    *rest = tail;
    // SAFETY: as many bytes as a `T` has, and any bits are valid in it; it need not be aligned.
    Ok(unsafe { record.as_ptr().cast::<T>().read_unaligned() })
}
