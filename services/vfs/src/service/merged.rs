//! Directories with mounts below them: what the volume lists, and the names that
//! lead to mounts and are not on the volume.

use alloc::{collections::BTreeSet, rc::Rc, vec::Vec};

use executor::Caller;
use ipc::{CallError, Channel};
use proto::fs::{
    Bytes, DirectoryEntry, FileAsyncClient, FileClient, FileInfo, FileKind, FileRequest,
    FileServer, FsError, LastLink,
};

use super::{server::Vfs, volumes::lost};
use crate::join;

/// Positions from here on are those of the names that were added.
const ADDED: u64 = 1 << 63;

/// Opens such a directory; `file` is the volume's, if it has one there.
pub(crate) async fn open(
    vfs: &Rc<Vfs>,
    path: Vec<Vec<u8>>,
    info: FileInfo,
    file: Option<FileClient>,
    names: BTreeSet<Vec<u8>>,
) -> Result<(FileInfo, FileClient), FsError> {
    let mut added = Vec::new();
    for name in names {
        if file.is_none() || !on_volume(vfs, &path, &name).await {
            added.push(name);
        }
    }
    let below = match file {
        Some(file) => {
            let channel: Channel = file.into_channel();
            let caller = vfs
                .executor
                .caller(channel)
                .map_err(|_| FsError::NoMemory)?;
            Some(FileAsyncClient::new(caller))
        }
        None => None,
    };
    let (client, server) = FileServer::pair().map_err(|_| FsError::NoMemory)?;
    let directory = Merged { info, below, added };
    let served = vfs.clone();
    vfs.executor
        .spawn(async move { directory.serve(&served, server).await })
        .detach();
    Ok((info, client))
}

/// Whether the volume below has the name itself.
async fn on_volume(vfs: &Rc<Vfs>, path: &[Vec<u8>], name: &[u8]) -> bool {
    let (service, on_volume) = {
        let mounts = vfs.mounts.borrow();
        let Some(mount) = mounts.holding(path) else {
            return false;
        };
        let mut on_volume = path.get(mount.target.len()..).unwrap_or_default().to_vec();
        on_volume.push(name.to_vec());
        (mount.volume.clone(), join(&on_volume))
    };
    let relative = on_volume.strip_prefix(b"/").unwrap_or(&on_volume);
    service
        .volume
        .stat(Bytes::from(relative), LastLink::Keep)
        .await
        .is_ok()
}

struct Merged {
    info: FileInfo,
    below: Option<FileAsyncClient<Caller>>,
    added: Vec<Vec<u8>>,
}

impl Merged {
    async fn serve(self, vfs: &Vfs, server: FileServer) {
        let Ok(requests) = vfs.executor.requests(server) else {
            return;
        };
        while let Ok(Some(request)) = requests.next().await {
            let refused = FsError::IsADirectory;
            // A client that is gone needs no answer.
            let _ = match request {
                FileRequest::ReadDirectory { position, reply } => {
                    reply.send(self.read(position).await)
                }
                FileRequest::Stat { reply } => reply.ok(self.info),
                FileRequest::Sync { reply } => reply.ok(),
                FileRequest::Read { reply, .. } => reply.error(refused),
                FileRequest::ReadBuffer { reply, .. } => reply.error(refused),
                FileRequest::RegisterBuffer { reply, .. } => reply.error(refused),
                FileRequest::Vmo { reply } => reply.error(refused),
                FileRequest::Write { reply, .. } => reply.error(refused),
                FileRequest::WriteBuffer { reply, .. } => reply.error(refused),
                FileRequest::Truncate { reply, .. } => reply.error(refused),
            };
        }
    }

    async fn read(&self, position: u64) -> Result<(Vec<DirectoryEntry>, Option<u64>), FsError> {
        let first_added = if self.added.is_empty() {
            None
        } else {
            Some(ADDED)
        };
        let Some(skip) = position.checked_sub(ADDED) else {
            let Some(below) = &self.below else {
                return self.read_added(0);
            };
            return match below.read_directory(position).await {
                Ok((entries, next)) => Ok((entries, next.or(first_added))),
                Err(CallError::Remote(error)) => Err(error),
                Err(error) => Err(lost(error)),
            };
        };
        self.read_added(skip)
    }

    fn read_added(&self, skip: u64) -> Result<(Vec<DirectoryEntry>, Option<u64>), FsError> {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let entries = self.added.iter().skip(skip).map(|name| DirectoryEntry {
            name: Bytes(name.clone()),
            node: 0,
            kind: FileKind::Directory,
        });
        Ok((entries.collect(), None))
    }
}
