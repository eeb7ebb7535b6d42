//! Port I/O by user processes: the I/O permission bitmap (SDM volume 1, 19.5.2).
//!
//! A bitmap has 8 KiB, but only the bytes between its first and its last permitted
//! port differ from "denied"; a switch copies only those.

use alloc::alloc::alloc_zeroed;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::cpu::{self, IoMap};

/// Bytes of a bitmap for all 65,536 ports.
pub const BYTES: usize = 8192;

/// The ports that a process may use. None at first.
pub struct IoBitmap {
    /// Names the content: a new one with each change. Not 0.
    version: u64,
    /// The bytes that are not all "denied".
    first: usize,
    end: usize,
    /// One bit a port; set means permitted, the opposite of the processor's.
    permitted: [u8; BYTES],
}

fn new_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl IoBitmap {
    /// A bitmap that permits nothing; `None` without memory.
    pub fn new() -> Option<Box<IoBitmap>> {
        // SAFETY: the layout's size is not zero; zeros are valid for all fields; the
        // box frees with the same layout.
        let mut bitmap = unsafe {
            let memory = alloc_zeroed(Layout::new::<IoBitmap>()).cast::<IoBitmap>();
            if memory.is_null() {
                return None;
            }
            Box::from_raw(memory)
        };
        bitmap.version = new_version();
        Some(bitmap)
    }

    /// Permits `count` ports from `port`; what lies behind 0xffff is ignored. Takes
    /// effect at the next [`load_io_bitmap`].
    pub fn allow(&mut self, port: u16, count: u16) {
        let ports = usize::from(port)..(usize::from(port) + usize::from(count)).min(BYTES * 8);
        if ports.is_empty() {
            return;
        }
        let (first, end) = (ports.start / 8, ports.end.div_ceil(8));
        let empty = self.first == self.end;
        self.first = if empty { first } else { self.first.min(first) };
        self.end = if empty { end } else { self.end.max(end) };
        for port in ports {
            self.permitted[port / 8] |= 1 << (port % 8);
        }
        self.version = new_version();
    }

    /// Takes `count` ports from `port` on away again.
    pub fn forbid(&mut self, port: u16, count: u16) {
        for port in usize::from(port)..(usize::from(port) + usize::from(count)).min(BYTES * 8) {
            self.permitted[port / 8] &= !(1 << (port % 8));
        }
        self.version = new_version();
    }
}

/// What a processor has loaded.
pub struct Loaded {
    /// The bitmap's version, or 0 for none.
    version: Cell<u64>,
    /// What differs from "denied" in the processor's copy.
    dirty: Cell<(usize, usize)>,
}

impl Loaded {
    /// None.
    pub const fn new() -> Loaded {
        Loaded {
            version: Cell::new(0),
            dirty: Cell::new((0, 0)),
        }
    }
}

/// Lets the user code on this processor use the ports of `bitmap`.
#[inline]
pub fn load_io_bitmap(bitmap: Option<&IoBitmap>) {
    let cpu = cpu::this();
    let version = bitmap.map_or(0, |bitmap| bitmap.version);
    if cpu.loaded_io_bitmap.version.replace(version) != version {
        change(cpu, bitmap);
    }
}

#[cold]
fn change(cpu: &cpu::PerCpu, bitmap: Option<&IoBitmap>) {
    let Some(bitmap) = bitmap else {
        cpu.enable_io_map(IoMap::DenyAll);
        return;
    };
    let (first, end) = cpu
        .loaded_io_bitmap
        .dirty
        .replace((bitmap.first, bitmap.end));
    // SAFETY: this processor's own map, which no other code references.
    let map = unsafe { &mut *cpu.io_map.get() };
    map[first..end].fill(0xff);
    for (byte, permitted) in map[bitmap.first..bitmap.end]
        .iter_mut()
        .zip(&bitmap.permitted[bitmap.first..bitmap.end])
    {
        *byte = !permitted;
    }
    cpu.enable_io_map(IoMap::Use);
}
