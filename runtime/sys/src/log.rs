//! The kernel's log, by a `Log` resource.

use crate::abi::{LogOp, Result, Syscall};
use crate::raw::syscall;
use crate::resource::Resource;

/// Appends a line; the kernel adds the time and the process's name. Needs `WRITE`.
pub fn log_write(log: &Resource, line: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads a borrowed slice.
    unsafe { call(log, LogOp::Write, line.as_ptr() as usize, line.len(), 0) }.map(|_| ())
}

/// Appends bytes as they are to the serial log. Needs `WRITE`.
pub fn log_write_raw(log: &Resource, bytes: &[u8]) -> Result<()> {
    // SAFETY: as above.
    unsafe {
        call(
            log,
            LogOp::WriteRaw,
            bytes.as_ptr() as usize,
            bytes.len(),
            0,
        )
    }
    .map(|_| ())
}

/// Waits until everything has left the serial port.
pub fn log_flush(log: &Resource) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { call(log, LogOp::Flush, 0, 0, 0) }.map(|_| ())
}

/// What [`log_read`] read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// Bytes read, whole lines.
    pub len: usize,
    /// Sequence number to go on from.
    pub next: u64,
}

/// Reads whole lines from a sequence number (a byte count since boot) on; the oldest are lost
/// first. Needs `READ`.
pub fn log_read(log: &Resource, buffer: &mut [u8], sequence: u64) -> Result<LogRead> {
    let (pointer, len) = (buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the kernel writes at most `len` bytes to a slice that is borrowed exclusively.
    let (read, next) = unsafe { call(log, LogOp::Read, pointer, len, sequence) }?;
    Ok(LogRead {
        len: read.min(len),
        next: next as u64,
    })
}

/// # Safety
///
/// `len` bytes at `pointer` are ours to read or, for `Read`, to write.
unsafe fn call(
    log: &Resource,
    op: LogOp,
    pointer: usize,
    len: usize,
    sequence: u64,
) -> Result<(usize, usize)> {
    // SAFETY: the caller's promise.
    unsafe {
        syscall(
            Syscall::Log,
            [log.arg(), op as usize, pointer, len, sequence as usize],
        )
    }
    .pair()
}
