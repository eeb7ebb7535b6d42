//! Device memory: an instance that knows its bounds, not an address.
//!
//! On the bare target an access is the plain volatile load or store. On a host, and on the target with the
//! feature `bus`, it goes through a [`Bus`] object, so that a model, another process, a trace or a fault
//! injector can stand in. The choice is made here and in no driver.

use alloc::sync::Arc;

use crate::{Width, Word};

/// Register access that stands in for the hardware. Offsets are in bytes; the caller has checked them
/// against the region and its alignment.
pub trait Bus: Send + Sync {
    /// Reads; the value is zero-extended.
    fn read(&self, offset: usize, width: Width) -> u64;
    /// Writes the low bits of `value`.
    fn write(&self, offset: usize, width: Width, value: u64);
}

/// An access or a window is not inside its region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionError {
    /// First byte that was asked for.
    pub offset: usize,
    /// Bytes that were asked for.
    pub len: usize,
    /// Bytes of the region.
    pub region: usize,
}

impl core::fmt::Display for RegionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let RegionError {
            offset,
            len,
            region,
        } = self;
        write!(
            f,
            "{len} bytes at {offset:#x} are not inside a region of {region:#x} bytes"
        )
    }
}

impl core::error::Error for RegionError {}

/// A window of device memory. Clones and windows share what keeps it mapped.
#[derive(Clone)]
pub struct Mmio {
    access: access::Access,
    start: usize,
    len: usize,
}

impl core::fmt::Debug for Mmio {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Mmio {{ start: {:#x}, len: {:#x} }}",
            self.start, self.len
        )
    }
}

impl Mmio {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A window of `len` bytes from `offset` on.
    ///
    /// # Errors
    /// When it is not inside this one.
    pub fn window(&self, offset: usize, len: usize) -> Result<Mmio, RegionError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(Mmio {
                access: self.access.clone(),
                start: self.start + offset,
                len,
            }),
            _ => Err(RegionError {
                offset,
                len,
                region: self.len,
            }),
        }
    }

    /// Reads at a byte offset.
    ///
    /// # Panics
    /// When the offset is misaligned or outside: offsets are constants of the driver, or were checked when
    /// they came from the device.
    #[inline]
    pub fn read<T: Word>(&self, offset: usize) -> T {
        self.check(offset, T::WIDTH);
        self.access.read(self.start + offset)
    }

    /// Writes at a byte offset.
    ///
    /// # Panics
    /// As [`Mmio::read`].
    #[inline]
    pub fn write<T: Word>(&self, offset: usize, value: T) {
        self.check(offset, T::WIDTH);
        self.access.write(self.start + offset, value);
    }

    #[inline]
    fn check(&self, offset: usize, width: Width) {
        let bytes = width.bytes();
        let inside = offset <= self.len && bytes <= self.len - offset;
        if !inside || (self.start + offset) & (bytes - 1) != 0 {
            outside(offset, bytes, self.len);
        }
    }
}

#[cold]
fn outside(offset: usize, bytes: usize, len: usize) -> ! {
    panic!("register access of {bytes} bytes at {offset:#x} in a region of {len:#x} bytes");
}

#[cfg(all(target_os = "none", not(feature = "bus")))]
#[expect(unsafe_code, reason = "volatile access to mapped device memory")]
mod access {
    use super::*;
    use core::ptr::NonNull;

    #[derive(Clone)]
    pub(super) struct Access {
        base: NonNull<u8>,
        _owner: Arc<dyn Send + Sync>,
    }

    // SAFETY: device memory has no thread; `_owner` keeps it mapped and is itself Send and Sync.
    unsafe impl Send for Access {}
    // SAFETY: as above; accesses are single volatile loads and stores.
    unsafe impl Sync for Access {}

    impl Access {
        #[inline]
        pub(super) fn read<T: Word>(&self, at: usize) -> T {
            // SAFETY: `check` kept `at` aligned and inside of what `from_mapping` was promised.
            unsafe { self.base.as_ptr().add(at).cast::<T>().read_volatile() }.little_endian()
        }
        #[inline]
        pub(super) fn write<T: Word>(&self, at: usize, value: T) {
            // SAFETY: as in `read`.
            unsafe {
                self.base
                    .as_ptr()
                    .add(at)
                    .cast::<T>()
                    .write_volatile(value.little_endian())
            }
        }
    }

    impl Mmio {
        /// Device memory that is mapped at `base`.
        ///
        /// # Safety
        /// `len` bytes from `base` on stay mapped readable and writable, as device memory to which no
        /// reference exists, until `owner` is dropped. `base` is aligned to 8 bytes.
        pub unsafe fn from_mapping(
            base: NonNull<u8>,
            len: usize,
            owner: Arc<dyn Send + Sync>,
        ) -> Mmio {
            Mmio {
                access: Access {
                    base,
                    _owner: owner,
                },
                start: 0,
                len,
            }
        }
    }
}

#[cfg(any(not(target_os = "none"), feature = "bus"))]
mod access {
    use super::*;

    #[derive(Clone)]
    pub(super) struct Access(Arc<dyn Bus>);

    impl Access {
        pub(super) fn read<T: Word>(&self, at: usize) -> T {
            T::truncate(self.0.read(at, T::WIDTH))
        }
        pub(super) fn write<T: Word>(&self, at: usize, value: T) {
            self.0.write(at, T::WIDTH, value.to_u64());
        }
    }

    impl Mmio {
        /// A region of `len` bytes whose accesses go to `bus`.
        pub fn from_bus(bus: Arc<dyn Bus>, len: usize) -> Mmio {
            Mmio {
                access: Access(bus),
                start: 0,
                len,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spin::Mutex;
    use std::vec::Vec;

    struct Trace(Mutex<Vec<(usize, Width, Option<u64>)>>);
    impl Bus for Trace {
        fn read(&self, offset: usize, width: Width) -> u64 {
            self.0.lock().push((offset, width, None));
            0x1122_3344_5566_7788
        }
        fn write(&self, offset: usize, width: Width, value: u64) {
            self.0.lock().push((offset, width, Some(value)));
        }
    }

    #[test]
    fn windows_keep_their_bounds() {
        let trace = Arc::new(Trace(Mutex::new(Vec::new())));
        let region = Mmio::from_bus(trace.clone(), 0x100);
        let window = region.window(0x40, 0x10).unwrap();
        assert_eq!(window.read::<u16>(2), 0x7788);
        window.write::<u32>(0xc, 7);
        assert_eq!(
            *trace.0.lock(),
            [(0x42, Width::U16, None), (0x4c, Width::U32, Some(7))]
        );
        assert!(region.window(0xf8, 9).is_err());
        assert!(region.window(usize::MAX, 2).is_err());
        assert!(window.window(8, 9).is_err());
    }

    #[test]
    #[should_panic(expected = "register access of 4 bytes at 0xe")]
    fn an_access_across_the_end_stops_the_driver() {
        let window = Mmio::from_bus(Arc::new(Trace(Mutex::new(Vec::new()))), 0x10);
        window.read::<u32>(0xe);
    }
}
