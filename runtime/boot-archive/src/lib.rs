//! The boot archive as a process holds it: a VMO, of which only the index is copied.
//!
//! The format is in [`boot::archive`].
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use boot::archive::{ArchiveError, Directory, Entry, HEADER_SIZE, PAGE_SIZE};
use sys::{Error, Vmo};

/// Largest index that is read.
const INDEX_BYTES_MAX: usize = 4 << 20;

/// Why the archive or a member cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootArchiveError {
    /// The VMO holds no archive.
    Format(ArchiveError),
    /// A system call failed.
    Kernel(Error),
    /// There is no member of that name.
    NotFound,
}

impl core::fmt::Display for BootArchiveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BootArchiveError::Format(error) => error.fmt(f),
            BootArchiveError::Kernel(error) => error.fmt(f),
            BootArchiveError::NotFound => f.write_str("not in the boot archive"),
        }
    }
}

impl core::error::Error for BootArchiveError {}

impl From<Error> for BootArchiveError {
    fn from(error: Error) -> Self {
        BootArchiveError::Kernel(error)
    }
}

impl From<ArchiveError> for BootArchiveError {
    fn from(error: ArchiveError) -> Self {
        BootArchiveError::Format(error)
    }
}

/// An archive whose index was checked.
#[derive(Debug)]
pub struct BootArchive {
    vmo: Vmo,
    head: Vec<u8>,
    len: u64,
}

impl BootArchive {
    /// Reads and checks the index.
    ///
    /// # Errors
    /// [`BootArchiveError::Format`] and [`BootArchiveError::Kernel`].
    pub fn open(vmo: Vmo) -> Result<BootArchive, BootArchiveError> {
        let len = vmo.size()?;
        let mut header = [0; HEADER_SIZE];
        vmo.read(0, &mut header)?;
        let head_len = Directory::head_len(&header)?;
        if head_len > INDEX_BYTES_MAX || head_len as u64 > len {
            let expected = head_len as u64;
            return Err(ArchiveError::Truncated {
                expected,
                found: len,
            }
            .into());
        }
        let mut head = alloc::vec![0; head_len];
        vmo.read(0, &mut head)?;
        Directory::parse(&head, len)?;
        Ok(BootArchive { vmo, head, len })
    }

    /// The VMO.
    pub const fn vmo(&self) -> &Vmo {
        &self.vmo
    }

    fn directory(&self) -> Result<Directory<'_>, BootArchiveError> {
        Ok(Directory::parse(&self.head, self.len)?)
    }

    /// All entries, sorted by name.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        self.directory()
            .map(|d| (0..d.len()).filter_map(|i| d.get(i)).collect())
            .unwrap_or_default()
    }

    /// The entry of that name.
    ///
    /// # Errors
    /// [`BootArchiveError::NotFound`].
    pub fn find(&self, name: &str) -> Result<Entry<'_>, BootArchiveError> {
        self.directory()?
            .find(name)
            .ok_or(BootArchiveError::NotFound)
    }

    /// A member's contents.
    ///
    /// # Errors
    /// [`BootArchiveError::NotFound`] and [`BootArchiveError::Kernel`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BootArchiveError> {
        let entry = self.find(name)?;
        let mut bytes = alloc::vec![0; entry.len];
        self.vmo.read(entry.offset as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// A window on a member, in whole pages, with the rights of the archive's own handle: what a
    /// process is started from without a copy of its text.
    ///
    /// # Errors
    /// [`BootArchiveError::NotFound`] and [`BootArchiveError::Kernel`].
    pub fn window(&self, name: &str) -> Result<Vmo, BootArchiveError> {
        let entry = self.find(name)?;
        let pages = entry.len.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        Ok(self.vmo.slice(entry.offset as u64, pages)?)
    }
}
