//! A file-system service on a disk: start-up, cache, and the contents of files.

use alloc::{format, rc::Rc, vec::Vec};
use core::{cell::RefCell, time::Duration};

use block_client::{BufferAccess, Disk, DiskReader};
use executor::{Deadline, Executor};
use ipc::{
    Channel, Vmo,
    sys::{AsHandle, MapAccess, Mapping, Rights},
};
use proto::fs::{FsError as ClientError, MountError, VolumeServer};
use volume::{
    BlockError, Cache, FileSystem, FsError, PAGE_BYTES, ReadAhead, Tree,
    reader::{self, Sink},
};

use crate::{
    convert,
    memory::{BufferSink, MappedMemory},
    queue::DiskQueue,
    server::{Contents, serve},
};

/// The page cache over a disk.
pub type DiskCache = Cache<DiskQueue, MappedMemory>;

/// Bytes of the cache: a sixteenth of the volume, within these.
const CACHE_BYTES_MIN: u64 = 1 << 20;
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// Requests in flight.
const QUEUE_DEPTH: u16 = 64;
/// Without any answer for this long, the disk is given up. The driver has shorter
/// deadlines of its own.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest file that is handed out as memory, in bytes.
const IMAGE_BYTES_MAX: u64 = 128 << 20;
/// Files kept as memory for the next program start, and their bytes together.
const IMAGES_MAX: usize = 16;
const IMAGES_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the volume that a signature is looked for in.
const SIGNATURE_BYTES: usize = 4096;

/// A format, as a service needs it.
pub struct Format<M> {
    /// Name for the log.
    pub name: &'static str,
    /// Whether the first bytes of a volume look like this format. Cheap: it is
    /// asked before the cache is made.
    pub has_signature: fn(&[u8]) -> bool,
    /// Mounts the volume.
    pub mount: M,
}

/// Runs a service: start-up handles `disk` (endpoint), `disk-name` (its name, for the time after
/// its driver's death) and `volume` (server end of the volume protocol). Returns the exit code, when the last client is gone.
pub fn disk_service<F, M>(format: Format<M>) -> i32
where
    F: FileSystem + 'static,
    F::File: 'static,
    M: AsyncFnOnce(Rc<DiskCache>) -> Result<F, FsError> + 'static,
{
    let handles = (
        rt::startup::take::<Channel>("disk"),
        rt::startup::take::<Channel>("disk-name"),
        rt::startup::take::<Channel>("volume"),
    );
    let (Some(disk), Some(name), Some(volume)) = handles else {
        rt::error!("started without the handles \"disk\", \"disk-name\" and \"volume\"");
        return 1;
    };
    match serve_disk(format, (disk, name), VolumeServer::new(volume)) {
        Ok(()) => 0,
        Err(error) => {
            rt::error!("{error}");
            1
        }
    }
}

/// Serves the volume on the disk (its endpoint and name), until the last client
/// of `volume` is gone.
///
/// # Errors
/// When the system has no port for the executor.
pub fn serve_disk<F, M>(
    format: Format<M>,
    disk: (Channel, Channel),
    volume: VolumeServer,
) -> Result<(), executor::Error>
where
    F: FileSystem + 'static,
    F::File: 'static,
    M: AsyncFnOnce(Rc<DiskCache>) -> Result<F, FsError> + 'static,
{
    let executor = Executor::new()?;
    let inner = executor.clone();
    let served = serve(executor.clone(), volume, async move || {
        open(&inner, format, disk).await
    });
    executor.block_on(served);
    Ok(())
}

/// Opens the disk and mounts it.
async fn open<F, M>(
    executor: &Executor,
    format: Format<M>,
    (endpoint, name): (Channel, Channel),
) -> Result<DiskContents<F>, MountError>
where
    F: FileSystem + 'static,
    M: AsyncFnOnce(Rc<DiskCache>) -> Result<F, FsError>,
{
    let device = |error: block_client::SessionError| MountError {
        error: ClientError::Io,
        reason: format!("disk: {error}"),
    };
    let system = |error: executor::Error| MountError {
        error: ClientError::NoMemory,
        reason: format!("cache: {error}"),
    };
    let disk = Disk::named(endpoint, name).map_err(device)?;
    let len = disk.len_bytes().min(SIGNATURE_BYTES as u64) as usize;
    let mut first = alloc::vec![0; len];
    DiskReader::new(&disk)
        .and_then(|mut disk| disk.read_at(0, &mut first))
        .map_err(device)?;
    if !(format.has_signature)(&first) {
        let reason = format!("no {} signature", format.name);
        return Err(MountError {
            error: ClientError::UnknownFormat,
            reason,
        });
    }
    let cache_bytes = (disk.len_bytes() / 16).clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX);
    let cache_bytes = cache_bytes as usize / PAGE_BYTES * PAGE_BYTES;
    let mut session = disk.open_session(QUEUE_DEPTH).map_err(device)?;
    let (memory, mapping) = cache_memory(cache_bytes).map_err(system)?;
    let buffer = session
        .register(&memory, 0, cache_bytes as u64, BufferAccess::DeviceWrites)
        .map_err(device)?;
    let queue = DiskQueue::new(executor, &disk, session, buffer).map_err(device)?;
    let cache = Rc::new(Cache::new(queue, MappedMemory(mapping)));
    let pumped = cache.clone();
    executor.spawn(async move { pumped.pump().await }).detach();
    executor
        .spawn(watch_silence(executor.clone(), cache.clone()))
        .detach();
    match (format.mount)(cache.clone()).await {
        Ok(filesystem) => Ok(DiskContents {
            tree: Tree::new(filesystem),
            cache,
            images: RefCell::default(),
        }),
        Err(error) => Err(MountError {
            error: convert::error(&error),
            reason: format!("{error}"),
        }),
    }
}

fn cache_memory(len: usize) -> Result<(Vmo, Mapping), executor::Error> {
    let vmo = Vmo::create(len)?;
    let mapping = Mapping::map(&vmo, 0, len, MapAccess::ReadWrite)?;
    Ok((vmo, mapping))
}

/// Gives the disk up when it owes answers and says nothing.
async fn watch_silence(executor: Executor, cache: Rc<DiskCache>) {
    let mut before = (0, false);
    loop {
        executor.sleep_until(Deadline::after(SILENCE)).await;
        let now = cache.queue().progress();
        if before.1 && now == before {
            cache.queue().give_up(BlockError::TimedOut);
            return;
        }
        before = now;
    }
}

/// A mounted volume on a disk.
struct DiskContents<F: FileSystem> {
    tree: Tree<F>,
    cache: Rc<DiskCache>,
    images: RefCell<Vec<Image>>,
}

/// A file that was handed out as memory.
struct Image {
    node: u64,
    vmo: Vmo,
    size_bytes: u64,
}

impl<F: FileSystem + 'static> Contents for DiskContents<F> {
    type Format = F;

    fn tree(&self) -> &Tree<F> {
        &self.tree
    }

    async fn read(
        &self,
        file: &F::File,
        ahead: &RefCell<ReadAhead>,
        offset: u64,
        len: u64,
        sink: &mut impl Sink<MappedMemory>,
    ) -> Result<u64, FsError> {
        let filesystem = self.tree.filesystem();
        reader::read(filesystem, &self.cache, file, ahead, offset, len, sink).await
    }

    async fn vmo(&self, file: &F::File) -> Result<(u64, Vmo), ClientError> {
        let attributes = self.tree.filesystem().attributes(file);
        let (node, size) = (attributes.node, attributes.size_bytes);
        if let Some(image) = self.images.borrow().iter().find(|image| image.node == node) {
            return Ok((image.size_bytes, read_only(&image.vmo)?));
        }
        if size > IMAGE_BYTES_MAX {
            return Err(ClientError::NoMemory);
        }
        let len = (size as usize).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        let (vmo, mapping) = Mapping::create(len).map_err(|_| ClientError::NoMemory)?;
        let ahead = RefCell::default();
        let mut sink = BufferSink::new(&mapping, 0);
        let read = self.read(file, &ahead, 0, size, &mut sink).await;
        if read.map_err(|error| convert::error(&error))? != size || sink.failed() {
            return Err(ClientError::Io);
        }
        let shared = read_only(&vmo)?;
        self.keep(Image {
            node,
            vmo,
            size_bytes: size,
        });
        Ok((size, shared))
    }
}

impl<F: FileSystem> DiskContents<F> {
    /// Keeps an image for the next program start, oldest out first.
    fn keep(&self, image: Image) {
        let mut images = self.images.borrow_mut();
        if image.size_bytes > IMAGES_BYTES_MAX {
            return;
        }
        images.push(image);
        let bytes = |images: &[Image]| images.iter().map(|image| image.size_bytes).sum::<u64>();
        while images.len() > IMAGES_MAX || bytes(&images) > IMAGES_BYTES_MAX {
            images.remove(0);
        }
    }
}

/// A handle for clients: to read, map and run.
pub(crate) fn read_only(vmo: &Vmo) -> Result<Vmo, ClientError> {
    let rights = Rights::READ
        | Rights::MAP
        | Rights::EXECUTE
        | Rights::DUPLICATE
        | Rights::TRANSFER
        | Rights::INSPECT;
    vmo.duplicate_with(rights)
        .map_err(|_| ClientError::NoMemory)
}
