//! Reads of files on ext4, through the file service, into a registered buffer.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use executor::{Caller, Executor};
use proto::fs::{Bytes, FileAsyncClient, FileClient, FsError, OpenFlags};
use rt::Vmo;

use crate::block::Offsets;
use crate::measure::{Failure, Section, measure, measure_plain};
use crate::{process, section};

const RANDOM: Section = section!(15);
const RANDOM_DEPTH_32: Section = section!(16);
const SEQUENTIAL_128K: Section = section!(17);
const SEQUENTIAL_1M: Section = section!(18);
const CACHED: Section = section!(19);

const SMALL: u64 = 4096;
const OPERATIONS: u32 = 2_000;
/// Reads in flight. An open file answers in order, so each has its own.
const DEPTH: u32 = 32;
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Bytes that a pass reads, from where the last one ended.
const SEQUENTIAL_BYTES: u64 = 8 << 20;
const BUFFER_BYTES: u64 = 1 << 20;

/// An open file with its buffer registered.
struct Reader {
    file: FileClient,
    len_bytes: u64,
    next_byte: u64,
}

impl Reader {
    /// `None` when there is no such file: another disk is mounted.
    fn open(path: &str) -> Result<Option<Self>, Failure> {
        let files = process::files()?;
        let (info, file) = match files.open(Bytes::from(path), OpenFlags::READ) {
            Ok(opened) => opened,
            Err(rt::ipc::CallError::Remote(FsError::NotFound)) => return Ok(None),
            Err(error) => return Err(Failure::new(path, error)),
        };
        let buffer =
            Vmo::create(BUFFER_BYTES as usize).map_err(|error| Failure::new("buffer", error))?;
        file.register_buffer(BUFFER_BYTES, buffer)
            .map_err(|error| Failure::new("register buffer", error))?;
        Ok(Some(Self {
            file,
            len_bytes: info.size_bytes,
            next_byte: 0,
        }))
    }

    fn read(&self, offset: u64, len: u64) -> Result<(), Failure> {
        match self.file.read_buffer(offset, len, 0) {
            Ok(n) if n == len => Ok(()),
            other => Err(Failure::new("read", other)),
        }
    }

    fn random(&self, offsets: &mut Offsets) -> Result<(), Failure> {
        for _ in 0..OPERATIONS {
            self.read(offsets.next() * SMALL, SMALL)?;
        }
        Ok(())
    }

    fn sequential(&mut self, len: u64) -> Result<(), Failure> {
        for _ in 0..SEQUENTIAL_BYTES / len {
            self.read(self.next_byte, len)?;
            self.next_byte += len;
        }
        Ok(())
    }
}

/// The row `ext4-read-4k-qd1`.
///
/// # Errors
///
/// When a read fails.
pub fn random_read(row: &str) -> Result<bool, Failure> {
    let Some(reader) = Reader::open("/qd1.bin")? else {
        return Ok(false);
    };
    let mut offsets = Offsets::new(reader.len_bytes / SMALL)?;
    measure_plain(row, RANDOM, OPERATIONS, || reader.random(&mut offsets))
}

/// The row `ext4-read-4k-qd32`: as many tasks on one thread, each with a file open and a read under way.
///
/// # Errors
///
/// When a read fails.
pub fn random_read_depth_32(row: &str) -> Result<bool, Failure> {
    let failed = |what: &'static str| move |error| Failure::new(what, error);
    let executor = Executor::new().map_err(failed("executor"))?;
    let mut files = Vec::new();
    let mut blocks = 0;
    for _ in 0..DEPTH {
        let Some(reader) = Reader::open("/qd32.bin")? else {
            return Ok(false);
        };
        blocks = reader.len_bytes / SMALL;
        let caller = executor.caller(reader.file.into_channel());
        let caller: Caller = caller.map_err(failed("caller"))?;
        files.push(Rc::new(FileAsyncClient::with_timeout(caller, READ_LIMIT)));
    }
    let offsets = Rc::new(RefCell::new(Offsets::new(blocks)?));
    let operations = OPERATIONS / DEPTH * DEPTH;
    measure_plain(row, RANDOM_DEPTH_32, operations, || {
        let tasks: Vec<_> = files
            .iter()
            .map(|file| {
                let (file, offsets) = (file.clone(), offsets.clone());
                executor.spawn(async move {
                    for _ in 0..OPERATIONS / DEPTH {
                        let offset = offsets.borrow_mut().next() * SMALL;
                        match file.read_buffer(offset, SMALL, 0).await {
                            Ok(SMALL) => {}
                            other => return Err(Failure::new("read", other)),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        executor.block_on(async {
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
    })
}

/// The row `ext4-cached-4k`: the same blocks in each pass, so that all but the first,
/// which is not counted, find them in the page cache.
///
/// # Errors
///
/// When a read fails.
pub fn cached_read(row: &str) -> Result<bool, Failure> {
    let Some(reader) = Reader::open("/cached.bin")? else {
        return Ok(false);
    };
    let prepare = || Offsets::new(reader.len_bytes / SMALL);
    measure(row, CACHED, OPERATIONS, prepare, |offsets| {
        reader.random(offsets)
    })
}

fn sequential(row: &str, section: Section, path: &str, len: u64) -> Result<bool, Failure> {
    let Some(mut reader) = Reader::open(path)? else {
        return Ok(false);
    };
    let operations = (SEQUENTIAL_BYTES / len) as u32;
    measure_plain(row, section, operations, || reader.sequential(len))
}

/// The row `ext4-seq-read-128k`.
///
/// # Errors
///
/// When a read fails.
pub fn sequential_128k(row: &str) -> Result<bool, Failure> {
    sequential(row, SEQUENTIAL_128K, "/128k.bin", 128 << 10)
}

/// The row `ext4-seq-read-1m`.
///
/// # Errors
///
/// When a read fails.
pub fn sequential_1m(row: &str) -> Result<bool, Failure> {
    sequential(row, SEQUENTIAL_1M, "/1m.bin", 1 << 20)
}
