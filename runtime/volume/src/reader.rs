//! Contents of files through the cache: extents resolved, holes as zeroes, the
//! next window fetched behind the read.

use core::cell::RefCell;

use crate::{BlockQueue, Cache, Extent, FileSystem, FsError, Memory, PAGE_BYTES, Place, ReadAhead};

/// Takes the bytes of a read, in order.
pub trait Sink<M> {
    /// `len` bytes of the cache's memory belong at `position` of the read.
    fn cached(&mut self, position: u64, memory: &M, offset: usize, len: usize);
    /// `len` zeroes belong at `position`.
    fn zeroes(&mut self, position: u64, len: u64);
    /// These bytes belong at `position`.
    fn bytes(&mut self, position: u64, bytes: &[u8]);
}

impl<M: Memory> Sink<M> for &mut [u8] {
    fn cached(&mut self, position: u64, memory: &M, offset: usize, len: usize) {
        let start = position as usize;
        if let Some(part) = self.get_mut(start..start + len) {
            memory.read(offset, part);
        }
    }
    fn zeroes(&mut self, position: u64, len: u64) {
        let start = position as usize;
        if let Some(part) = self.get_mut(start..start + len as usize) {
            part.fill(0);
        }
    }
    fn bytes(&mut self, position: u64, bytes: &[u8]) {
        let start = position as usize;
        if let Some(part) = self.get_mut(start..start + bytes.len()) {
            part.copy_from_slice(bytes);
        }
    }
}

/// Reads up to `len` bytes at `offset`; returns how many there were before the
/// end of the file.
///
/// # Errors
/// [`FsError::IsADirectory`], what the device reports, or corruption.
pub async fn read<F: FileSystem, Q: BlockQueue, M: Memory>(
    filesystem: &F,
    cache: &Cache<Q, M>,
    file: &F::File,
    ahead: &RefCell<ReadAhead>,
    offset: u64,
    len: u64,
    sink: &mut impl Sink<M>,
) -> Result<u64, FsError> {
    let attributes = filesystem.attributes(file);
    if attributes.kind == crate::FileKind::Directory {
        return Err(FsError::IsADirectory);
    }
    let size = attributes.size_bytes;
    let len = len.min(size.saturating_sub(offset));
    if len == 0 {
        return Ok(0);
    }
    let end = offset.saturating_add(len);
    let mut extent = extent_at(filesystem, file, offset).await?;
    let window = ahead.borrow_mut().on_read(offset, len, size);
    // The read's own request goes out before those of the window behind it. A read of one page asks
    // for it by itself.
    if let Place::Volume(start) = extent.place
        && (window.is_some() || len > PAGE_BYTES as u64)
    {
        let skip = offset - extent.file_offset;
        let here = (extent.len_bytes - skip).min(len);
        cache.prefetch(start.saturating_add(skip), here);
    }
    if let Some(window) = window {
        // Its errors are met when those bytes are read.
        let _ = prefetch(filesystem, cache, file, window).await;
    }
    let mut at = offset;
    loop {
        let skip = at - extent.file_offset;
        let here = (extent.len_bytes - skip).min(end - at);
        let position = at - offset;
        match extent.place {
            Place::Volume(start) => {
                let from = start.saturating_add(skip);
                cache
                    .for_each_piece(from, here, |memory, offset, len, within| {
                        sink.cached(position + within, memory, offset, len);
                    })
                    .await?;
            }
            Place::Hole => sink.zeroes(position, here),
            Place::Inline => {
                let data = filesystem.inline_data(file);
                let start = usize::try_from(skip).unwrap_or(usize::MAX);
                let part = data.get(start..).unwrap_or_default();
                let part = part.get(..here as usize).unwrap_or(part);
                sink.bytes(position, part);
                sink.zeroes(position + part.len() as u64, here - part.len() as u64);
            }
        }
        at += here;
        if at >= end {
            return Ok(len);
        }
        extent = extent_at(filesystem, file, at).await?;
    }
}

/// Fetches a range of a file into the cache without waiting for the data.
///
/// # Errors
/// As [`read`], of the mapping only.
pub async fn prefetch<F: FileSystem, Q: BlockQueue, M: Memory>(
    filesystem: &F,
    cache: &Cache<Q, M>,
    file: &F::File,
    range: core::ops::Range<u64>,
) -> Result<(), FsError> {
    let mut at = range.start;
    while at < range.end {
        let extent = extent_at(filesystem, file, at).await?;
        let skip = at - extent.file_offset;
        let here = (extent.len_bytes - skip).min(range.end - at);
        if let Place::Volume(start) = extent.place {
            cache.prefetch(start.saturating_add(skip), here);
        }
        at += here;
    }
    Ok(())
}

/// The extent at `offset`, checked to cover it.
async fn extent_at<F: FileSystem>(
    filesystem: &F,
    file: &F::File,
    offset: u64,
) -> Result<Extent, FsError> {
    let extent = filesystem.extent(file, offset).await?;
    let covers = extent.file_offset <= offset
        && extent
            .file_offset
            .checked_add(extent.len_bytes)
            .is_some_and(|end| end > offset);
    if covers {
        Ok(extent)
    } else {
        let node = filesystem.attributes(file).node;
        Err(FsError::corrupt(
            "file",
            node,
            "no extent covers the offset",
            offset,
            extent.file_offset,
        ))
    }
}
