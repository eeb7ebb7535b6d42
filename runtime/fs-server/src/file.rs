//! The file protocol: one open file or directory.

use alloc::vec::Vec;
use core::{cell::RefCell, ops::ControlFlow};

use ipc::{
    Vmo,
    sys::{MapAccess, Mapping},
};
use proto::fs::{
    BUFFER_BYTES_MAX, Bytes, BytesRef, DirectoryEntry, FileRequest, FileServer,
    FsError as ClientError, INLINE_BYTES_MAX,
};
use volume::{FileKind, FileSystem, ReadAhead};

use crate::{
    convert,
    memory::BufferSink,
    server::{Contents, Volume},
};

/// Bytes of entries in one answer, counted with what each takes in the message.
const ENTRIES_BYTES_MAX: usize = 24 * 1024;
/// What an entry takes beside its name, at most.
const ENTRY_BYTES: usize = 16;

/// Serves an open file until its channel is closed.
pub(crate) async fn serve<C: Contents>(
    volume: &Volume<C>,
    file: &<C::Format as FileSystem>::File,
    server: FileServer,
) {
    let Ok(requests) = volume.executor.requests(server) else {
        return;
    };
    let mut open = OpenFile {
        volume,
        file,
        kind: volume.filesystem().attributes(file).kind,
        ahead: RefCell::default(),
        buffer: None,
        inline: Vec::new(),
    };
    while let Ok(Some(request)) = requests.next().await {
        open.answer(request).await;
    }
}

struct OpenFile<'a, C: Contents> {
    volume: &'a Volume<C>,
    file: &'a <C::Format as FileSystem>::File,
    kind: FileKind,
    ahead: RefCell<ReadAhead>,
    buffer: Option<Mapping>,
    /// Kept from read to read.
    inline: Vec<u8>,
}

impl<C: Contents> OpenFile<'_, C> {
    async fn answer(&mut self, request: FileRequest) {
        let read_only = ClientError::ReadOnlyFileSystem;
        // A client that is gone needs no answer.
        let _ = match request {
            FileRequest::ReadBuffer {
                offset,
                len,
                at,
                reply,
            } => reply.send(self.read_buffer(offset, len, at).await),
            FileRequest::Read { offset, len, reply } => match self.read(offset, len).await {
                Ok(bytes) => reply.ok(BytesRef(bytes)),
                Err(error) => reply.error(error),
            },
            FileRequest::Stat { reply } => reply.ok(convert::info(
                &self.volume.filesystem().attributes(self.file),
                self.volume.number.get(),
            )),
            FileRequest::ReadDirectory { position, reply } => {
                reply.send(self.read_directory(position).await)
            }
            FileRequest::RegisterBuffer {
                length,
                buffer,
                reply,
            } => reply.send(self.register(&buffer, length)),
            FileRequest::Vmo { reply } => reply.send(self.vmo().await),
            FileRequest::Write { reply, .. } => reply.error(read_only),
            FileRequest::WriteBuffer { reply, .. } => reply.error(read_only),
            FileRequest::Truncate { reply, .. } => reply.error(read_only),
            // Nothing is ever unwritten.
            FileRequest::Sync { reply } => reply.ok(),
        };
    }

    /// Only ordinary files have contents here.
    fn check_kind(&self) -> Result<(), ClientError> {
        match self.kind {
            FileKind::File => Ok(()),
            FileKind::Directory => Err(ClientError::IsADirectory),
            FileKind::Symlink => Err(ClientError::TooManyLinks),
            _ => Err(ClientError::NotSupported),
        }
    }

    fn error(&self, error: &volume::FsError) -> ClientError {
        let node = self.volume.filesystem().attributes(self.file).node;
        self.volume.error(error, &format_args!("inode {node}"))
    }

    async fn read(&mut self, offset: u64, len: u32) -> Result<&[u8], ClientError> {
        self.check_kind()?;
        let len = len.min(INLINE_BYTES_MAX) as usize;
        let mut bytes = core::mem::take(&mut self.inline);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        let target = bytes.get_mut(..len).unwrap_or_default();
        let contents = &self.volume.contents;
        let read = contents
            .read(
                self.file,
                &self.ahead,
                offset,
                len as u64,
                &mut &mut *target,
            )
            .await;
        self.inline = bytes;
        let read = read.map_err(|error| self.error(&error))?;
        Ok(self.inline.get(..read as usize).unwrap_or_default())
    }

    async fn read_buffer(&mut self, offset: u64, len: u64, at: u64) -> Result<u64, ClientError> {
        self.check_kind()?;
        let buffer = self.buffer.as_ref().ok_or(ClientError::InvalidArgument)?;
        let room = (buffer.len() as u64)
            .checked_sub(at)
            .ok_or(ClientError::InvalidArgument)?;
        let mut sink = BufferSink::new(buffer, at as usize);
        let len = len.min(room);
        let contents = &self.volume.contents;
        let read = contents
            .read(self.file, &self.ahead, offset, len, &mut sink)
            .await;
        match read {
            Ok(_) if sink.failed() => Err(ClientError::Io),
            Ok(read) => Ok(read),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn register(&mut self, buffer: &Vmo, length: u64) -> Result<(), ClientError> {
        if length == 0 || length > BUFFER_BYTES_MAX {
            return Err(ClientError::InvalidArgument);
        }
        let mapped = Mapping::map(buffer, 0, length as usize, MapAccess::ReadWrite);
        self.buffer = Some(mapped.map_err(|_| ClientError::InvalidArgument)?);
        Ok(())
    }

    async fn read_directory(
        &self,
        position: u64,
    ) -> Result<(Vec<DirectoryEntry>, Option<u64>), ClientError> {
        let mut entries = Vec::new();
        let mut room = ENTRIES_BYTES_MAX;
        let filesystem = self.volume.filesystem();
        let next = filesystem
            .read_directory(self.file, position, &mut |entry| {
                let Some(left) = room.checked_sub(entry.name.len() + ENTRY_BYTES) else {
                    return ControlFlow::Break(());
                };
                room = left;
                entries.push(DirectoryEntry {
                    name: Bytes(entry.name.to_vec()),
                    node: entry.node,
                    kind: convert::kind(entry.kind),
                });
                ControlFlow::Continue(())
            })
            .await;
        Ok((entries, next.map_err(|error| self.error(&error))?))
    }

    async fn vmo(&self) -> Result<(u64, Vmo), ClientError> {
        self.check_kind()?;
        self.volume.contents.vmo(self.file).await
    }
}
