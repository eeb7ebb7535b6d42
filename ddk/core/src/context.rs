//! The device that a driver was given.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::Poll;

use crate::event::Hub;
use crate::{
    Deadline, DmaRegion, DriverError, EventQueue, Irq, LogLevel, Mmio, Platform, PlatformError,
    PortIo, SavedState, Width, Work,
};

/// Everything that a driver was granted. Clones are the same device.
#[derive(Clone)]
pub struct DeviceContext(Arc<Inner>);

struct Inner {
    platform: Arc<dyn Platform>,
    hub: Hub,
}

impl core::fmt::Debug for DeviceContext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DeviceContext")
    }
}

impl DeviceContext {
    /// The device behind a backend.
    ///
    /// # Errors
    /// When the backend has no queue to wait on.
    pub fn new(platform: Arc<dyn Platform>) -> Result<DeviceContext, PlatformError> {
        let hub = Hub::new(platform.event_queue()?);
        Ok(DeviceContext(Arc::new(Inner { platform, hub })))
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// The backend, for class layers.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.0.platform
    }

    /// Nanoseconds of a clock that never goes back.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.0.platform.now_ns()
    }

    /// The point in time `ms` milliseconds from now.
    pub fn deadline_in_ms(&self, ms: u32) -> Deadline {
        Deadline::at_ns(self.now_ns().saturating_add(u64::from(ms) * 1_000_000))
    }

    /// Waits until the deadline.
    pub async fn sleep_until(&self, deadline: Deadline) {
        poll_fn(|_| {
            if deadline.is_over(self.now_ns()) {
                return Poll::Ready(());
            }
            self.hub().wake_at(deadline);
            Poll::Pending
        })
        .await;
    }

    /// Asks `done` again and again, at growing intervals, until it says yes or `limit_ms` have passed.
    ///
    /// # Errors
    /// [`DriverError::TimedOut`] with `operation`, or what `done` fails with.
    pub async fn poll_until(
        &self,
        operation: &'static str,
        limit_ms: u32,
        mut done: impl FnMut() -> Result<bool, DriverError>,
    ) -> Result<(), DriverError> {
        let deadline = self.deadline_in_ms(limit_ms);
        let mut pause_ns = 10_000;
        while !done()? {
            let now = self.now_ns();
            if deadline.is_over(now) {
                return Err(DriverError::TimedOut {
                    operation,
                    waited_ms: limit_ms,
                });
            }
            let next = Deadline::at_ns(now.saturating_add(pause_ns)).min(deadline);
            self.sleep_until(next).await;
            pause_ns = (pause_ns * 2).min(10_000_000);
        }
        Ok(())
    }

    /// Writes a line to the log; see [`info!`](crate::info) and its siblings.
    pub fn log(&self, level: LogLevel, text: core::fmt::Arguments<'_>) {
        self.0.platform.log(level, text);
    }

    /// CPUs of the machine.
    pub fn cpu_count(&self) -> usize {
        self.0.platform.cpu_count()
    }

    /// Incarnation of this driver on this device, from 1.
    pub fn epoch(&self) -> u32 {
        self.0.platform.epoch()
    }

    /// What [`Driver::save`](crate::Driver::save) of the version before left, if this start follows a reload.
    /// A driver that cannot go on from it fails to start, and the version before takes over again; it must not
    /// trust the contents more than it would a file's.
    pub fn restored(&self) -> Option<SavedState> {
        self.0.platform.restored()
    }

    /// A queue of its own, for a loop on the data path.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn event_queue(&self) -> Result<alloc::boxed::Box<dyn EventQueue>, DriverError> {
        self.0
            .platform
            .event_queue()
            .map_err(|e| DriverError::platform("event queue", e))
    }

    /// Runs `work` on a thread of its own.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), DriverError> {
        self.0
            .platform
            .spawn(name, cpu, work)
            .map_err(|e| DriverError::platform("thread", e))
    }

    /// The device as a PCI function.
    pub fn pci(&self) -> PciFunction<'_> {
        PciFunction { cx: self }
    }

    /// Interrupts granted: MSI-X vectors from 0 on, or lines.
    pub fn interrupt_count(&self) -> u16 {
        self.0.platform.interrupt_count()
    }

    /// One of them.
    ///
    /// # Errors
    /// When it was not granted.
    pub fn interrupt(&self, index: u16) -> Result<Irq, DriverError> {
        let source = self.0.platform.interrupt(index);
        let source = source.map_err(|e| DriverError::platform("interrupt", e))?;
        Ok(Irq::new(source, self.clone()))
    }

    /// A range of I/O ports with at least `ports` ports.
    ///
    /// # Errors
    /// When it was not granted or is shorter.
    pub fn io_ports(&self, index: u8, ports: u16) -> Result<PortIo, DriverError> {
        let range = self.0.platform.io_ports(index);
        let range = range.map_err(|e| DriverError::platform("I/O ports", e))?;
        range.require(ports).map_err(|e| DriverError::Protocol {
            what: "length of the I/O port range",
            expected: ports.into(),
            seen: e.region as u64,
        })?;
        Ok(range)
    }

    /// Zeroed memory for control structures.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn dma_region(&self, len: usize) -> Result<DmaRegion, DriverError> {
        self.0
            .platform
            .dma_region(len)
            .map_err(|e| DriverError::platform("DMA memory", e))
    }
}

/// The PCI view of a device. Configuration space is reached through the bus driver, so reads here are for
/// start-up, not for the data path.
#[derive(Clone, Copy, Debug)]
pub struct PciFunction<'a> {
    cx: &'a DeviceContext,
}

/// Most capabilities of a function: the space from 0x40 to 0xff in steps of 4.
const CAPABILITIES_MAX: usize = 48;

impl PciFunction<'_> {
    /// Reads configuration space.
    ///
    /// # Errors
    /// When the bus refuses.
    pub fn config_read(&self, offset: u16, width: Width) -> Result<u32, DriverError> {
        let value = self.cx.platform().config_read(offset, width);
        value.map_err(|e| DriverError::platform("configuration read", e))
    }

    /// Writes configuration space.
    ///
    /// # Errors
    /// When the bus refuses.
    pub fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), DriverError> {
        let done = self.cx.platform().config_write(offset, width, value);
        done.map_err(|e| DriverError::platform("configuration write", e))
    }

    /// Offsets of the capabilities with this ID, in the order of the list (PCI Local Bus 3.0, 6.7).
    ///
    /// # Errors
    /// When the bus refuses, the list leads outside of its area or runs in a circle.
    pub fn capabilities(&self, id: u8) -> Result<Vec<u16>, DriverError> {
        const STATUS: u16 = 0x06;
        const STATUS_CAPABILITIES: u32 = 1 << 4;
        const POINTER: u16 = 0x34;
        let status = self.config_read(STATUS, Width::U16)?;
        if status == 0xffff {
            return Err(DriverError::DeviceGone {
                register: "PCI status",
            });
        }
        let mut found = Vec::new();
        if status & STATUS_CAPABILITIES == 0 {
            return Ok(found);
        }
        let mut at = self.config_read(POINTER, Width::U8)? & 0xfc;
        for _ in 0..CAPABILITIES_MAX {
            if at == 0 {
                return Ok(found);
            }
            if !(0x40..0x100).contains(&at) {
                return Err(bad_list(at));
            }
            let header = self.config_read(at as u16, Width::U16)?;
            if header & 0xff == u32::from(id) {
                found.push(at as u16);
            }
            at = header >> 8 & 0xfc;
        }
        Err(bad_list(at))
    }

    /// `len` bytes of a memory BAR from `offset` on.
    ///
    /// # Errors
    /// When the BAR was not granted, or the range is not inside one of its accessible windows.
    pub fn bar(&self, index: u8, offset: u64, len: usize) -> Result<Mmio, DriverError> {
        let windows = self.cx.platform().bar(index);
        let windows = windows.map_err(|e| DriverError::platform("memory BAR", e))?;
        for (start, window) in &windows {
            let inside = offset
                .checked_sub(*start)
                .and_then(|at| usize::try_from(at).ok());
            if let Some(part) = inside.and_then(|at| window.window(at, len).ok()) {
                return Ok(part);
            }
        }
        Err(DriverError::Protocol {
            what: "range of a memory BAR",
            expected: windows
                .iter()
                .map(|(s, w)| s + w.len() as u64)
                .max()
                .unwrap_or(0),
            seen: offset.saturating_add(len as u64),
        })
    }

    /// Switches memory decoding, bus mastering and interrupts on.
    ///
    /// # Errors
    /// When the bus refuses.
    pub fn enable(&self) -> Result<(), DriverError> {
        let done = self.cx.platform().enable_device();
        done.map_err(|e| DriverError::platform("enabling the device", e))
    }

    /// Switches bus mastering and interrupts off.
    ///
    /// # Errors
    /// When the bus refuses.
    pub fn disable(&self) -> Result<(), DriverError> {
        let done = self.cx.platform().disable_device();
        done.map_err(|e| DriverError::platform("disabling the device", e))
    }
}

fn bad_list(at: u32) -> DriverError {
    DriverError::Protocol {
        what: "PCI capability list",
        expected: 0x40,
        seen: at.into(),
    }
}

/// Writes an error to the log: something is broken.
#[macro_export]
macro_rules! error {
    ($cx:expr, $($text:tt)+) => { $cx.log($crate::LogLevel::Error, format_args!($($text)+)) };
}
/// Writes a warning to the log: something is odd.
#[macro_export]
macro_rules! warn {
    ($cx:expr, $($text:tt)+) => { $cx.log($crate::LogLevel::Warning, format_args!($($text)+)) };
}
/// Writes to the log what an operator wants to know.
#[macro_export]
macro_rules! info {
    ($cx:expr, $($text:tt)+) => { $cx.log($crate::LogLevel::Info, format_args!($($text)+)) };
}
/// Writes to the log what the driver's author wants to know.
#[macro_export]
macro_rules! debug {
    ($cx:expr, $($text:tt)+) => { $cx.log($crate::LogLevel::Debug, format_args!($($text)+)) };
}
