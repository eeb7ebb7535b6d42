//! A block queue over a host file or bytes, for tests and host tools. It can be
//! told to fail, to reorder and to hold back completions.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    future::Future,
    io,
    os::unix::fs::FileExt,
    path::Path,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::{
    BlockError, BlockQueue, Cache, Completion, FsError, Memory, QueueFull, ReadRequest, Volume,
};

/// Where the bytes come from.
pub trait Bytes {
    /// Size in bytes.
    fn len_bytes(&self) -> u64;
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// As the host says.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Bytes for Vec<u8> {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = self.get(start..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Bytes of which some were changed.
pub struct Patched {
    /// What they were.
    pub base: &'static [u8],
    /// Offsets and what stands there instead.
    pub patches: BTreeMap<u64, u8>,
}

impl Bytes for Patched {
    fn len_bytes(&self) -> u64 {
        self.base.len() as u64
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = self
            .base
            .get(start..)
            .and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, value) in self.patches.range(offset..offset + into.len() as u64) {
            into[(at - offset) as usize] = *value;
        }
        Ok(())
    }
}

impl Bytes for File {
    fn len_bytes(&self) -> u64 {
        self.metadata().map(|metadata| metadata.len()).unwrap_or(0)
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }
}

impl<B: Bytes + ?Sized> Bytes for Box<B> {
    fn len_bytes(&self) -> u64 {
        (**self).len_bytes()
    }
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, into)
    }
}

/// Memory shared by the queue and the cache.
#[derive(Clone)]
pub struct HostMemory(Rc<RefCell<Vec<u8>>>);

impl HostMemory {
    /// `len` bytes of a pattern that no file has.
    pub fn new(len: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0xA5; len])))
    }
}

impl Memory for HostMemory {
    fn len_bytes(&self) -> usize {
        self.0.borrow().len()
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
    }
}

/// A queue that completes requests when it is reaped.
pub struct HostQueue {
    bytes: Box<dyn Bytes>,
    memory: HostMemory,
    queued: RefCell<VecDeque<ReadRequest>>,
    kicked: Cell<usize>,
    capacity: usize,
    max_transfer: u32,
    bad_pages: BTreeSet<u64>,
    newest_first: bool,
}

impl HostQueue {
    /// A queue over `bytes` that reads into `memory`, 32 deep.
    pub fn new(bytes: impl Bytes + 'static, memory: HostMemory) -> Self {
        Self {
            bytes: Box::new(bytes),
            memory,
            queued: RefCell::default(),
            kicked: Cell::new(0),
            capacity: 32,
            max_transfer: 1 << 20,
            bad_pages: BTreeSet::new(),
            newest_first: false,
        }
    }
    /// At most this many requests at a time.
    pub fn capacity(mut self, requests: usize) -> Self {
        self.capacity = requests;
        self
    }
    /// At most this many bytes a request.
    pub fn max_transfer(mut self, bytes: u32) -> Self {
        self.max_transfer = bytes;
        self
    }
    /// Requests that touch this page (of 4096 bytes) fail.
    pub fn bad_page(mut self, page: u64) -> Self {
        self.bad_pages.insert(page);
        self
    }
    /// Completes the youngest request first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
}

impl BlockQueue for HostQueue {
    fn size_bytes(&self) -> u64 {
        self.bytes.len_bytes() / 512 * 512
    }
    fn max_transfer_bytes(&self) -> u32 {
        self.max_transfer
    }
    fn push(&self, request: &ReadRequest) -> Result<(), QueueFull> {
        assert!(request.len_bytes <= self.max_transfer && request.len_bytes > 0);
        assert!(request.device_offset.is_multiple_of(4096));
        let mut queued = self.queued.borrow_mut();
        if queued.len() == self.capacity {
            return Err(QueueFull);
        }
        queued.push_back(*request);
        Ok(())
    }
    fn kick(&self) {
        self.kicked.set(self.queued.borrow().len());
    }
    fn poll_reap(&self, _cx: &mut Context<'_>) -> Poll<Completion> {
        let mut queued = self.queued.borrow_mut();
        if self.kicked.get() == 0 {
            return Poll::Pending;
        }
        let at = if self.newest_first {
            self.kicked.get() - 1
        } else {
            0
        };
        let Some(request) = queued.remove(at) else {
            return Poll::Pending;
        };
        self.kicked.set(self.kicked.get() - 1);
        let mut memory = self.memory.0.borrow_mut();
        let start = request.memory_offset;
        let into = &mut memory[start..start + request.len_bytes as usize];
        let pages = request.device_offset / 4096
            ..(request.device_offset + u64::from(request.len_bytes)).div_ceil(4096);
        let failed = self.bad_pages.range(pages).next().is_some()
            || self
                .bytes
                .read_exact_at(request.device_offset, into)
                .is_err();
        let result = if failed {
            Err(BlockError::Device)
        } else {
            Ok(())
        };
        Poll::Ready(Completion {
            id: request.id,
            result,
        })
    }
}

/// The cache over a host queue.
pub type HostCache = Cache<HostQueue, HostMemory>;

/// A cache of `cache_bytes` over `bytes`.
pub fn cache(bytes: impl Bytes + 'static, cache_bytes: usize) -> Rc<HostCache> {
    let memory = HostMemory::new(cache_bytes);
    Rc::new(Cache::new(HostQueue::new(bytes, memory.clone()), memory))
}

/// A cache of 4 MiB over an image file.
///
/// # Errors
/// As the host says.
pub fn open_image(path: &Path) -> io::Result<Rc<HostCache>> {
    Ok(cache(File::open(path)?, 4 << 20))
}

/// Runs a future to its end, taking the cache's completions.
///
/// # Panics
/// When the future waits for something that can no longer come.
pub fn run<Q: BlockQueue, M: Memory, T>(cache: &Cache<Q, M>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..50_000_000u64 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        cache.poll_pump(&mut cx);
    }
    panic!("the future makes no progress");
}

/// Runs a future that never waits.
///
/// # Panics
/// When it does wait.
pub fn run_ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

/// Bytes in memory as a volume without a cache.
impl Volume for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }
    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError> {
        Bytes::read_exact_at(self, offset, into).map_err(|_| FsError::OutsideVolume {
            offset,
            len_bytes: into.len() as u64,
            volume_bytes: self.len() as u64,
        })
    }
}
