//! Folders that exist only because mounts lie below them (`/mnt`, or `/` without a root volume): their names are
//! those that lead to the mounts.
//!
//! A folder of a volume lists what the volume holds and nothing else, so that a listing agrees with that of any other
//! system; `mount` tells what is mounted below.

use alloc::{collections::BTreeSet, rc::Rc, vec::Vec};

use proto::fs::{
    Bytes, DirectoryEntry, FileClient, FileInfo, FileKind, FileRequest, FileServer, FsError,
};

use super::server::Vfs;

/// Opens such a folder.
pub(crate) fn open(
    vfs: &Rc<Vfs>,
    info: FileInfo,
    names: BTreeSet<Vec<u8>>,
) -> Result<(FileInfo, FileClient), FsError> {
    let (client, server) = FileServer::pair().map_err(|_| FsError::NoMemory)?;
    let folder = MountFolder {
        info,
        names: names.into_iter().collect(),
    };
    let served = vfs.clone();
    vfs.executor
        .spawn(async move { folder.serve(&served, server).await })
        .detach();
    Ok((info, client))
}

struct MountFolder {
    info: FileInfo,
    names: Vec<Vec<u8>>,
}

impl MountFolder {
    async fn serve(self, vfs: &Vfs, server: FileServer) {
        let Ok(requests) = vfs.executor.requests(server) else {
            return;
        };
        while let Ok(Some(request)) = requests.next().await {
            let refused = FsError::IsADirectory;
            // A client that is gone needs no answer.
            let _ = match request {
                FileRequest::ReadDirectory { position, reply } => {
                    reply.send(Ok((self.entries(position), None)))
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

    fn entries(&self, position: u64) -> Vec<DirectoryEntry> {
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        let entry = |name: &Vec<u8>| DirectoryEntry {
            name: Bytes(name.clone()),
            node: 0,
            kind: FileKind::Directory,
        };
        self.names.iter().skip(skip).map(entry).collect()
    }
}
