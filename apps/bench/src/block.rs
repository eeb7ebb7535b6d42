//! Reads and writes of the raw disks, through a session of the block protocol: the
//! buffer is registered once and the driver never maps it.

use block_client::{Buffer, BufferAccess, Disk, Request, Session};
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, Deadline, Vmo};

use crate::measure::{Failure, Section, measure_plain};
use crate::section;

/// A disk that the measurements may write to, and the sections of its rows.
pub struct Target {
    /// Its serial number.
    serial: &'static str,
    read_depth_1: Section,
    read_depth_32: Section,
    write_depth_1: Section,
    write_depth_32: Section,
    sequential_128k: Section,
    sequential_1m: Section,
}

/// The virtio-blk disk.
pub const RAW: Target = Target {
    serial: "bench-raw",
    read_depth_1: section!(9),
    read_depth_32: section!(10),
    write_depth_1: section!(11),
    write_depth_32: section!(12),
    sequential_128k: section!(13),
    sequential_1m: section!(14),
};

/// The NVMe disk.
pub const NVME: Target = Target {
    serial: "bench-nvme",
    read_depth_1: section!(20),
    read_depth_32: section!(21),
    write_depth_1: section!(22),
    write_depth_32: section!(23),
    sequential_128k: section!(24),
    sequential_1m: section!(25),
};

const SMALL: u32 = 4096;
const OPERATIONS: u32 = 2_000;
const DEPTH: u16 = 32;
/// Bytes that a pass reads, from where the last one ended.
const SEQUENTIAL_BYTES: u32 = 8 << 20;
const BUFFER_BYTES: u64 = 1 << 20;
/// The driver's own deadlines are shorter.
const LIMIT_S: u64 = 60;

/// Offsets that look random and do not repeat before each block was read once, so that
/// no cache can answer. The number of blocks is a power of two; the factor is odd.
#[derive(Clone, Copy)]
pub struct Offsets {
    next: u64,
    blocks: u64,
}

impl Offsets {
    /// For so many blocks of 4 KiB.
    pub fn new(blocks: u64) -> Result<Self, Failure> {
        if !blocks.is_power_of_two() {
            return Err(Failure::new("not a power of two of blocks", blocks));
        }
        Ok(Self { next: 0, blocks })
    }

    /// The next block's number.
    pub fn next(&mut self) -> u64 {
        let number = self.next.wrapping_mul(0x9e37_79b1) & (self.blocks - 1);
        self.next += 1;
        number
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// A raw disk with a session and a buffer.
struct Raw {
    session: Session,
    buffer: Buffer,
    /// Keeps the buffer's memory.
    _vmo: Vmo,
    /// Logical blocks in 4 KiB.
    small_blocks: u64,
    offsets: Offsets,
    next_byte: u64,
    block_bytes: u64,
}

impl Raw {
    /// `None` when the system has no such disk.
    fn open(serial: &str, depth: u16) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = raw_disk(serial)? else {
            return Ok(None);
        };
        let failed = |error| Failure::new("disk", error);
        let disk = Disk::new(endpoint).map_err(failed)?;
        let mut session = disk.open_session(depth).map_err(failed)?;
        let vmo =
            Vmo::create(BUFFER_BYTES as usize).map_err(|error| Failure::new("buffer", error))?;
        let buffer = session
            .register(&vmo, 0, BUFFER_BYTES, BufferAccess::Both)
            .map_err(failed)?;
        let block_bytes = u64::from(disk.info().block_size);
        Ok(Some(Self {
            session,
            buffer,
            _vmo: vmo,
            small_blocks: u64::from(SMALL) / block_bytes,
            offsets: Offsets::new(disk.len_bytes() / u64::from(SMALL))?,
            next_byte: 0,
            block_bytes,
        }))
    }

    fn random(&mut self, direction: Direction, slot: u64) -> Request {
        let lba = self.offsets.next() * self.small_blocks;
        let offset = slot * u64::from(SMALL);
        match direction {
            Direction::Read => Request::read(self.buffer, offset, SMALL, lba),
            Direction::Write => Request::write(self.buffer, offset, SMALL, lba),
        }
    }

    /// Waits for a completion and gives its token.
    fn wait(&mut self) -> Result<u64, Failure> {
        let failed = |error| Failure::new("session", error);
        loop {
            if let Some(done) = self.session.poll().map_err(failed)? {
                done.result()
                    .map_err(|status| Failure::new("request", status))?;
                return Ok(done.token);
            }
            self.session
                .wait(Deadline::after_secs(LIMIT_S))
                .map_err(failed)?;
        }
    }

    fn start(&mut self, request: Request, token: u64) -> Result<(), Failure> {
        self.session
            .submit(&request, token)
            .map_err(|error| Failure::new("submit", error))
    }

    fn kick(&mut self) -> Result<(), Failure> {
        self.session
            .kick()
            .map_err(|error| Failure::new("kick", error))
    }

    fn depth_1(&mut self, direction: Direction) -> Result<(), Failure> {
        for _ in 0..OPERATIONS {
            let request = self.random(direction, 0);
            self.start(request, 0)?;
            self.kick()?;
            self.wait()?;
        }
        Ok(())
    }

    /// Whatever has completed is replaced in one batch.
    fn depth_32(&mut self, direction: Direction) -> Result<(), Failure> {
        let mut started = 0;
        for slot in 0..u64::from(DEPTH) {
            let request = self.random(direction, slot);
            self.start(request, slot)?;
            started += 1;
        }
        self.kick()?;
        let mut completed = 0;
        while completed < OPERATIONS {
            let mut slot = Some(self.wait()?);
            while let Some(free) = slot {
                completed += 1;
                if started < OPERATIONS {
                    let request = self.random(direction, free);
                    self.start(request, free)?;
                    started += 1;
                }
                slot = match self.session.poll() {
                    Ok(Some(done)) => {
                        done.result()
                            .map_err(|status| Failure::new("request", status))?;
                        Some(done.token)
                    }
                    Ok(None) => None,
                    Err(error) => return Err(Failure::new("session", error)),
                };
            }
            self.kick()?;
        }
        Ok(())
    }

    fn sequential(&mut self, len: u32) -> Result<(), Failure> {
        // A device may take less at once than is asked for here.
        let step = len.min(self.session.max_transfer());
        for _ in 0..SEQUENTIAL_BYTES / len {
            let (mut offset, mut pending) = (0, 0_u32);
            while offset < len {
                let piece = step.min(len - offset);
                let lba = self.next_byte / self.block_bytes;
                self.start(Request::read(self.buffer, u64::from(offset), piece, lba), 0)?;
                self.next_byte += u64::from(piece);
                offset += piece;
                pending += 1;
            }
            self.kick()?;
            for _ in 0..pending {
                self.wait()?;
            }
        }
        Ok(())
    }
}

/// Endpoint of the disk with this serial number; `None` when the system has none.
fn raw_disk(serial: &str) -> Result<Option<Channel>, Failure> {
    let Some(scheme) = rt::startup::handle::<Channel>("disk") else {
        return Ok(None);
    };
    let scheme = scheme
        .duplicate()
        .map_err(|error| Failure::new("scheme disk", error))?;
    let disks = EndpointsClient::new(scheme);
    let failed = |error| Failure::new("disks", error);
    disks.wait_settled().map_err(failed)?;
    for entry in disks.list().map_err(failed)? {
        if entry.parent.is_some() {
            continue;
        }
        let (_, endpoint, _) = disks.open(&entry.name).map_err(failed)?;
        let disk = Disk::new(endpoint).map_err(|error| Failure::new(&entry.name, error))?;
        if disk.info().serial == serial {
            return Ok(Some(disks.open(&entry.name).map_err(failed)?.1));
        }
    }
    Ok(None)
}

fn random(
    row: &str,
    serial: &str,
    section: Section,
    depth: u16,
    run: fn(&mut Raw, Direction) -> Result<(), Failure>,
    direction: Direction,
) -> Result<bool, Failure> {
    let Some(mut raw) = Raw::open(serial, depth)? else {
        return Ok(false);
    };
    measure_plain(row, section, OPERATIONS, || run(&mut raw, direction))
}

fn sequential(row: &str, serial: &str, section: Section, len: u32) -> Result<bool, Failure> {
    let Some(mut raw) = Raw::open(serial, DEPTH)? else {
        return Ok(false);
    };
    measure_plain(row, section, SEQUENTIAL_BYTES / len, || raw.sequential(len))
}

/// The rows of a disk. Each is given its name and answers whether the disk is there.
///
/// # Errors
///
/// When the disk or its driver fails.
impl Target {
    /// `*-read-4k-qd1`.
    pub fn read_depth_1(&self, row: &str) -> Result<bool, Failure> {
        let section = self.read_depth_1;
        random(row, self.serial, section, 1, Raw::depth_1, Direction::Read)
    }

    /// `*-read-4k-qd32`.
    pub fn read_depth_32(&self, row: &str) -> Result<bool, Failure> {
        let section = self.read_depth_32;
        random(
            row,
            self.serial,
            section,
            DEPTH,
            Raw::depth_32,
            Direction::Read,
        )
    }

    /// `*-write-4k-qd1`.
    pub fn write_depth_1(&self, row: &str) -> Result<bool, Failure> {
        let section = self.write_depth_1;
        random(row, self.serial, section, 1, Raw::depth_1, Direction::Write)
    }

    /// `*-write-4k-qd32`.
    pub fn write_depth_32(&self, row: &str) -> Result<bool, Failure> {
        let section = self.write_depth_32;
        random(
            row,
            self.serial,
            section,
            DEPTH,
            Raw::depth_32,
            Direction::Write,
        )
    }

    /// `*-seq-read-128k`.
    pub fn sequential_128k(&self, row: &str) -> Result<bool, Failure> {
        sequential(row, self.serial, self.sequential_128k, 128 << 10)
    }

    /// `*-seq-read-1m`.
    pub fn sequential_1m(&self, row: &str) -> Result<bool, Failure> {
        sequential(row, self.serial, self.sequential_1m, 1 << 20)
    }
}
