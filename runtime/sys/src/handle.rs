//! Owned handles, and what every kind of them can do.

use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{
    Error, HandleInfo, ObjectKind, Property, RawHandle, Result, Rights, Signals, Syscall, Topic,
};
use crate::port::{Packet, Port, Watch};
use crate::raw::syscall;
use crate::sync::Mutex;
use crate::time::Deadline;

/// A handle of any kind; closed when dropped.
#[derive(PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Handle(RawHandle);

impl Handle {
    /// Takes ownership of a handle's number.
    #[inline]
    pub const fn from_raw(raw: RawHandle) -> Handle {
        Handle(raw)
    }
    /// Gives ownership away: the handle stays open.
    #[inline]
    pub fn into_raw(self) -> RawHandle {
        let raw = self.0;
        mem::forget(self);
        raw
    }
    /// The number.
    #[inline]
    pub const fn raw(&self) -> RawHandle {
        self.0
    }
    /// As a handle of a certain kind. The kernel checks the kind at each use; see
    /// [`AsHandle::kind`] to ask.
    #[inline]
    pub fn into_type<T: HandleType>(self) -> T {
        T::from_handle(self)
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        if self.0 != RawHandle::INVALID {
            // SAFETY: closing passes no memory.
            let _ = unsafe { syscall(Syscall::HandleClose, [self.0.0 as usize]) };
        }
    }
}

/// A type that owns a handle of one kind.
pub trait HandleType: AsHandle + Sized {
    /// The kind of object; `None` for [`Handle`] itself.
    const KIND: Option<ObjectKind>;
    /// Wraps a handle.
    fn from_handle(handle: Handle) -> Self;
    /// Unwraps the handle.
    fn into_handle(self) -> Handle;
    /// Looks at a borrowed handle as one of this kind.
    fn from_ref(handle: &Handle) -> &Self;
}

/// What can be done with a handle of any kind.
pub trait AsHandle {
    /// The handle.
    fn as_handle(&self) -> &Handle;

    /// A second handle to the object with the same rights. Needs `DUPLICATE`.
    fn duplicate(&self) -> Result<Self>
    where
        Self: HandleType,
    {
        self.duplicate_with(Rights::SAME)
    }

    /// A second handle to the object with fewer rights. Needs `DUPLICATE`; asking for a right that
    /// this handle lacks gives `AccessDenied`.
    fn duplicate_with(&self, rights: Rights) -> Result<Self>
    where
        Self: HandleType,
    {
        let raw = self.as_handle().raw();
        // SAFETY: duplicating passes no memory.
        let new = unsafe {
            syscall(
                Syscall::HandleDuplicate,
                [raw.0 as usize, rights.0 as usize],
            )
        };
        Ok(Self::from_handle(Handle::from_raw(RawHandle(
            new.result()? as u32,
        ))))
    }

    /// Identity, kind, rights and present signals. Needs no right.
    fn info(&self) -> Result<HandleInfo> {
        object_info(self.as_handle(), Topic::Handle)
    }

    /// The object's ID, unique since boot.
    fn koid(&self) -> Result<u64> {
        Ok(self.info()?.koid)
    }

    /// The kind of the object.
    fn kind(&self) -> Result<ObjectKind> {
        ObjectKind::from_number(self.info()?.kind).ok_or(Error::Internal)
    }

    /// Queues a packet with `key` on `port` when one of `signals` goes from clear to set, and at
    /// once if one is set. Needs `WAIT`, and `WRITE` on the port.
    fn wait_async(&self, port: &Port, key: u64, signals: Signals, watch: Watch) -> Result<()> {
        let options = match watch {
            Watch::Once => crate::abi::WAIT_ONCE,
            Watch::Persistent => 0,
        };
        // SAFETY: watching passes no memory.
        unsafe {
            syscall(
                Syscall::WaitAsync,
                [
                    self.as_handle().raw().0 as usize,
                    port.as_handle().raw().0 as usize,
                    key as usize,
                    signals.0 as usize,
                    options,
                ],
            )
        }
        .unit()
    }

    /// Waits until one of `signals` is set and tells which of them are. `TimedOut`, or `ShouldWait`
    /// with `Deadline::NOW`. For one-off waits; a loop over several sources wants a port of its own.
    fn wait_one(&self, signals: Signals, deadline: Deadline) -> Result<Signals> {
        let port = WAITING_PORT.lock().take();
        let port = match port {
            Some(port) => port,
            None => Port::create()?,
        };
        // A new key each time: a packet of an earlier wait cannot be taken for one of this.
        let key = WAIT_KEY.fetch_add(1, Ordering::Relaxed);
        self.wait_async(&port, key, signals, Watch::Once)?;
        let mut packet = [Packet::default()];
        let result = loop {
            match port.wait(&mut packet, deadline) {
                Ok(_) if packet[0].key == key => break Ok(Signals(packet[0].signals)),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            let _ = port.cancel(self.as_handle(), key);
        }
        *WAITING_PORT.lock() = Some(port);
        result
    }
}

/// A port kept for the next [`AsHandle::wait_one`].
static WAITING_PORT: Mutex<Option<Port>> = Mutex::new(None);
static WAIT_KEY: AtomicU64 = AtomicU64::new(1);

/// Asks for the record of a topic.
pub(crate) fn object_info<T: Info>(handle: &Handle, topic: Topic) -> Result<T> {
    let mut record = T::default();
    // SAFETY: the record is plain data of the kernel's layout for this topic (sealed trait `Info`),
    // owned here, and any bytes are valid in it.
    unsafe {
        syscall(
            Syscall::ObjectInfo,
            [
                handle.raw().0 as usize,
                topic as usize,
                (&raw mut record) as usize,
                size_of::<T>(),
            ],
        )
    }
    .result()?;
    Ok(record)
}

/// Asks for an array of records: fills `records` and tells how many there are in all.
pub(crate) fn object_info_array<T: Info>(
    handle: &Handle,
    topic: Topic,
    records: &mut [T],
) -> Result<(usize, usize)> {
    // SAFETY: as in `object_info`, for a slice of records.
    let (written, available) = unsafe {
        syscall(
            Syscall::ObjectInfo,
            [
                handle.raw().0 as usize,
                topic as usize,
                records.as_mut_ptr() as usize,
                size_of_val(records),
            ],
        )
    }
    .pair()?;
    Ok(((written / size_of::<T>()).min(records.len()), available))
}

/// All records of a topic; there may be more at the second look than at the first, so it is
/// repeated with room to spare.
pub(crate) fn object_info_all<T: Info>(
    handle: &Handle,
    topic: Topic,
) -> Result<alloc::vec::Vec<T>> {
    let mut capacity = 32;
    loop {
        let mut records = alloc::vec![T::default(); capacity];
        let (written, available) = object_info_array(handle, topic, &mut records)?;
        if available <= records.len() {
            records.truncate(written);
            return Ok(records);
        }
        capacity = available.saturating_add(available / 4);
    }
}

/// Records that `object_info` fills.
///
/// # Safety
///
/// `repr(C)` plain data in which every bit pattern is valid.
pub(crate) unsafe trait Info: Clone + Default {}

macro_rules! info {
    ($($record:ident)*) => {
        $(
            // SAFETY: a `repr(C)` record of integers and arrays of integers.
            unsafe impl Info for crate::abi::$record {}
        )*
    };
}
info! { HandleInfo ProcessInfo CrashReport ThreadInfo VmoInfo InterruptInfo DmaInfo ResourceInfo
KernelStats CpuInfo MappingInfo }

/// Sets a property whose value is a number.
pub(crate) fn object_set(handle: RawHandle, property: Property, value: usize) -> Result<()> {
    // SAFETY: the value is a number, not an address (callers pass only such properties).
    unsafe {
        syscall(
            Syscall::ObjectSet,
            [handle.0 as usize, property as usize, value, 0],
        )
    }
    .unit()
}

/// Sets the name of a process, thread or VMO; cut at 32 bytes.
pub(crate) fn set_name(handle: RawHandle, name: &str) -> Result<()> {
    let len = name.len().min(crate::abi::NAME_MAX);
    // SAFETY: `len` bytes of the name are readable.
    unsafe {
        syscall(
            Syscall::ObjectSet,
            [
                handle.0 as usize,
                Property::Name as usize,
                name.as_ptr() as usize,
                len,
            ],
        )
    }
    .unit()
}

impl AsHandle for Handle {
    #[inline]
    fn as_handle(&self) -> &Handle {
        self
    }
}

impl HandleType for Handle {
    const KIND: Option<ObjectKind> = None;
    #[inline]
    fn from_handle(handle: Handle) -> Handle {
        handle
    }
    #[inline]
    fn into_handle(self) -> Handle {
        self
    }
    #[inline]
    fn from_ref(handle: &Handle) -> &Handle {
        handle
    }
}

/// Declares an owned handle type of one kind.
macro_rules! handle_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(PartialEq, Eq, Debug, Hash)]
        #[repr(transparent)]
        pub struct $name($crate::handle::Handle);

        impl $name {
            /// Takes ownership of a handle's number.
            #[inline]
            pub const fn from_raw(raw: $crate::abi::RawHandle) -> $name {
                $name($crate::handle::Handle::from_raw(raw))
            }
            /// Gives ownership away: the handle stays open.
            #[inline]
            pub fn into_raw(self) -> $crate::abi::RawHandle {
                self.0.into_raw()
            }
            /// The number.
            #[inline]
            pub const fn raw(&self) -> $crate::abi::RawHandle {
                self.0.raw()
            }
            #[inline]
            #[allow(dead_code, reason = "each type uses what it needs")]
            pub(crate) const fn arg(&self) -> usize {
                self.0.raw().0 as usize
            }
        }

        impl $crate::handle::AsHandle for $name {
            #[inline]
            fn as_handle(&self) -> &$crate::handle::Handle {
                &self.0
            }
        }

        impl $crate::handle::HandleType for $name {
            const KIND: Option<$crate::abi::ObjectKind> = Some($crate::abi::ObjectKind::$name);
            #[inline]
            fn from_handle(handle: $crate::handle::Handle) -> $name {
                $name(handle)
            }
            #[inline]
            fn into_handle(self) -> $crate::handle::Handle {
                self.0
            }
            #[inline]
            fn from_ref(handle: &$crate::handle::Handle) -> &$name {
                // SAFETY: the type is a transparent wrapper of `Handle`.
                unsafe { &*(handle as *const $crate::handle::Handle).cast::<$name>() }
            }
        }

        impl From<$name> for $crate::handle::Handle {
            fn from(value: $name) -> $crate::handle::Handle {
                value.0
            }
        }
    };
}
pub(crate) use handle_type;

/// Wraps a call's result as a new handle.
#[inline]
pub(crate) fn new_handle<T: HandleType>(value: usize) -> T {
    T::from_handle(Handle::from_raw(RawHandle(value as u32)))
}
