//! Starts init, the first process, from the boot archive, and hands it everything there is.

use alloc::sync::Arc;
use alloc::vec::Vec;

use boot::archive::Archive;
use boot::info::BootInfo;
use bulkhead_abi::{
    ABI_VERSION, AcpiTable, InitMessage, MAP_EXEC, MAP_READ, MAP_WRITE, NAME_MAX, PAGE_SIZE,
    PRIORITY_MANAGER, PRIORITY_MAX, Quota, Rights, USER_MAX,
};
use elf::ElfBytes;
use elf::abi::{PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;

use crate::arch::{self, Frame, ThreadState};
use crate::ipc::channel::{Channel, Message};
use crate::memory::user::bytes_of;
use crate::memory::vmo::Vmo;
use crate::memory::{frames, pages};
use crate::object::process::Process;
use crate::object::resource::Resource;
use crate::object::thread::Thread;
use crate::object::{Handle, Object};
use crate::{object, sched};

/// Path of init in the archive, unless the command line says `init=PATH`.
const INIT: &str = "bin/init";
const STACK_BYTES: usize = 256 * 1024;

/// Why init cannot start.
#[derive(Debug)]
pub enum StartError {
    /// No or a damaged archive.
    Archive,
    /// The archive has no such file.
    NoInit(&'static str),
    /// Init is no program for this machine.
    BadProgram,
    /// The kernel refused something.
    Kernel(bulkhead_abi::Error),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StartError::Archive => {
                write!(f, "no boot archive, or a damaged one (pass it as initrd)")
            }
            StartError::NoInit(path) => write!(f, "the boot archive has no {path}"),
            StartError::BadProgram => write!(f, "init is not a program for this machine"),
            StartError::Kernel(error) => write!(f, "{error}"),
        }
    }
}

impl From<bulkhead_abi::Error> for StartError {
    fn from(error: bulkhead_abi::Error) -> Self {
        StartError::Kernel(error)
    }
}

/// Starts init.
pub fn start(info: &BootInfo) -> Result<(), StartError> {
    let (base, len) = info.archive;
    if base == 0 || len == 0 {
        return Err(StartError::Archive);
    }
    // SAFETY: the boot entry set this RAM aside for the archive; nothing writes it.
    let bytes = unsafe { core::slice::from_raw_parts(arch::phys_to_virt(base), len as usize) };
    let archive = Archive::parse(bytes).map_err(|_| StartError::Archive)?;
    let option = |word: &'static str| word.strip_prefix("init=");
    let path = info
        .command_line
        .split_whitespace()
        .find_map(option)
        .unwrap_or(INIT);
    let file = archive.find(path).ok_or(StartError::NoInit(path))?;

    let quota = Quota {
        pages: frames::total() as u64,
        handles: 65536,
        threads: 4096,
        processes: 4096,
        max_priority: u32::from(PRIORITY_MAX),
    };
    let mut name = [0; NAME_MAX];
    name[..4].copy_from_slice(b"init");
    let process = Process::new(None, name, quota, crate::system_info_page())?;
    let entry = load(&process, file.data)?;

    let stack = Vmo::anonymous(STACK_BYTES, Some(process.account().clone()))?;
    let stack_flags = MAP_READ | MAP_WRITE;
    let stack_base = process
        .space()
        .map(&stack, 0, STACK_BYTES, stack_flags, stack_flags, 0)?;

    let channel = Channel::new();
    let kernel_end = Handle::new(Object::Channel(channel.clone(), 0), Rights::ALL);
    channel
        .write(0, first_message(info, &process)?)
        .map_err(|(error, _)| error)?;
    let init_end = Handle::new(Object::Channel(channel, 1), Rights::ALL);
    let bootstrap = process.add_handle(init_end)?;
    drop(kernel_end);

    process.account().charge_thread()?;
    let frame = Frame::user(entry, stack_base + STACK_BYTES - 8, bootstrap as usize, 0);
    let thread = Thread::new(
        process.clone(),
        name,
        PRIORITY_MANAGER,
        u64::MAX,
        frame,
        ThreadState::default(),
    );
    process.add_thread(thread.clone());
    sched::start(&thread);
    Ok(())
}

/// Maps the segments of a program and returns its entry.
fn load(process: &Arc<Process>, file: &[u8]) -> Result<usize, StartError> {
    let bad = |_| StartError::BadProgram;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(bad)?;
    let segments = elf.segments().ok_or(StartError::BadProgram)?;
    for segment in segments
        .iter()
        .filter(|s| s.p_type == PT_LOAD && s.p_memsz != 0)
    {
        let data = elf.segment_data(&segment).map_err(bad)?;
        let start = segment.p_vaddr as usize;
        let within = start & (PAGE_SIZE - 1);
        let len = within
            .checked_add(segment.p_memsz as usize)
            .ok_or(StartError::BadProgram)?;
        if start >= USER_MAX || len > USER_MAX || data.len() > segment.p_memsz as usize {
            return Err(StartError::BadProgram);
        }
        let vmo = Vmo::anonymous(len, Some(process.account().clone()))?;
        vmo.write(within, data)?;
        let write = if segment.p_flags & PF_W != 0 {
            MAP_WRITE
        } else {
            0
        };
        let exec = if segment.p_flags & PF_X != 0 {
            MAP_EXEC
        } else {
            0
        };
        let flags = MAP_READ | write | exec;
        let fixed = flags | bulkhead_abi::MAP_FIXED;
        process.space().map(
            &vmo,
            0,
            pages(len) * PAGE_SIZE,
            fixed,
            flags,
            start - within,
        )?;
    }
    Ok(elf.ehdr.e_entry as usize)
}

/// Everything there is: see [`InitMessage`].
fn first_message(
    info: &BootInfo,
    process: &Arc<Process>,
) -> Result<alloc::boxed::Box<Message>, StartError> {
    let (base, len) = info.archive;
    let archive = Vmo::physical(
        base,
        pages(len as usize) * PAGE_SIZE,
        arch::CacheMode::WriteBack,
    );
    let mut handles = Vec::new();
    handles.push(Handle::new(Object::Resource(Resource::root()), Rights::ALL));
    let read_only = Rights::ALL.without(Rights::WRITE);
    handles.push(Handle::new(
        Object::Vmo(archive),
        read_only.without(Rights::PIN),
    ));
    handles.push(Handle::new(Object::Process(process.clone()), Rights::ALL));

    let mut tables = Vec::new();
    let mut failed = None;
    arch::acpi_tables(|signature, physical, len| {
        // The rest of a message's handles; machines have some thirty tables.
        if handles.len() >= bulkhead_abi::MESSAGE_HANDLES_MAX || failed.is_some() {
            return;
        }
        match copy_table(physical, len) {
            Ok(vmo) => {
                handles.push(Handle::new(
                    Object::Vmo(vmo),
                    read_only.without(Rights::EXECUTE),
                ));
                tables.push(AcpiTable {
                    signature,
                    len: len as u32,
                    physical,
                });
            }
            Err(error) => failed = Some(error),
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let head = InitMessage {
        abi_version: ABI_VERSION,
        acpi_count: tables.len() as u32,
        archive_len: len,
        rsdp: info.rsdp,
        command_line_len: info.command_line.len() as u64,
    };
    let mut bytes = bytes_of(&head).to_vec();
    tables
        .iter()
        .for_each(|table| bytes.extend_from_slice(bytes_of(table)));
    bytes.extend_from_slice(info.command_line.as_bytes());
    let mut message = Message::new(None, bytes.len(), |out| {
        out.copy_from_slice(&bytes);
        Ok(())
    })?;
    message.handles = handles;
    log!(
        "init: {} ACPI tables, archive of {} KiB, {} objects",
        tables.len(),
        len / 1024,
        object::live_objects().iter().sum::<u64>()
    );
    Ok(message)
}

/// A copy of a firmware table, so that what user space maps holds nothing else.
fn copy_table(physical: u64, len: usize) -> Result<Arc<Vmo>, bulkhead_abi::Error> {
    let vmo = Vmo::anonymous(len, None)?;
    // SAFETY: the architecture checked that the table lies in memory that the direct map covers.
    let bytes = unsafe { core::slice::from_raw_parts(arch::phys_to_virt(physical), len) };
    vmo.write(0, bytes)?;
    Ok(vmo)
}
