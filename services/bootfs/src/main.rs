//! Serves the boot archive, which the VFS mounts at `/boot`. Memory for running a
//! program is a window on the archive: nothing is copied.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{format, string::String};
use core::cell::RefCell;

use boot::archive::{Directory, HEADER_SIZE};
use bootfs::{BootFs, File};
use executor::Executor;
use fs_server::{Contents, MappedMemory, serve};
use ipc::{
    Channel, Vmo,
    sys::{MapAccess, Mapping},
};
use proto::fs::{FsError as ClientError, MountError, VolumeServer};
use supervision::Supervised;
use volume::{FileSystem, FsError, ReadAhead, Tree, reader::Sink};

rt::entry!(main);

fn main() {
    if let Err(error) = run() {
        rt::error!("{error}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let missing = |name| format!("started without the handle \"{name}\"");
    let archive = rt::startup::take::<Vmo>("archive").ok_or_else(|| missing("archive"))?;
    let server = rt::startup::take::<Channel>("serve:bootfs");
    let server = server.ok_or_else(|| missing("serve:bootfs"))?;
    let executor = Executor::new().map_err(|error| format!("executor: {error}"))?;
    if let Some(supervised) = Supervised::from_startup() {
        executor.spawn(supervised.serve(executor.clone())).detach();
    }
    let served = serve(executor.clone(), VolumeServer::new(server), async || {
        open(archive).map_err(|reason| MountError {
            error: ClientError::Io,
            reason,
        })
    });
    executor.block_on(served);
    Ok(())
}

fn open(archive: Vmo) -> Result<BootContents, String> {
    let system = |error: executor::Error| format!("archive: {error}");
    let len = archive.size().map_err(system)?;
    let mut header = [0; HEADER_SIZE];
    archive.read(0, &mut header).map_err(system)?;
    let bad = |error: boot::archive::ArchiveError| format!("archive: {error}");
    let mut head = alloc::vec![0; Directory::head_len(&header).map_err(bad)?];
    archive.read(0, &mut head).map_err(system)?;
    let directory = Directory::parse(&head, len).map_err(bad)?;
    let tree = Tree::new(BootFs::new(&directory));
    let len = directory.archive_len();
    let mapping = Mapping::map(&archive, 0, len, MapAccess::Read).map_err(system)?;
    Ok(BootContents {
        tree,
        memory: MappedMemory(mapping),
        archive,
    })
}

struct BootContents {
    tree: Tree<BootFs>,
    memory: MappedMemory,
    archive: Vmo,
}

impl Contents for BootContents {
    type Format = BootFs;

    fn tree(&self) -> &Tree<BootFs> {
        &self.tree
    }

    async fn read(
        &self,
        file: &File,
        _ahead: &RefCell<ReadAhead>,
        offset: u64,
        len: u64,
        sink: &mut impl Sink<MappedMemory>,
    ) -> Result<u64, FsError> {
        let size = self.tree.filesystem().attributes(file).size_bytes;
        let len = len.min(size.saturating_sub(offset));
        if len > 0 {
            // The index was checked: the member lies inside the archive.
            let start = (file.archive_offset() + offset) as usize;
            sink.cached(0, &self.memory, start, len as usize);
        }
        Ok(len)
    }

    async fn vmo(&self, file: &File) -> Result<(u64, Vmo), ClientError> {
        let size = self.tree.filesystem().attributes(file).size_bytes;
        let len = (size as usize)
            .next_multiple_of(volume::PAGE_BYTES)
            .max(volume::PAGE_BYTES);
        let window = self.archive.slice(file.archive_offset(), len);
        Ok((size, window.map_err(|_| ClientError::NoMemory)?))
    }
}
