//! The platform: what the device manager granted to this process.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Arguments;

use ddk::{
    DmaRegion, EventQueue, Interrupt, LogLevel, Mmio, Platform, PlatformError, PortIo, SavedState,
    Width, Work,
};
use ipc::CallError;
use proto::bus::{BusError, PciDeviceClient};
use rt::log::Level;
use rt::{DmaDomain, Resource, Vmo, startup};

use crate::interrupt::OsInterrupt;
use crate::queue::{OsQueue, refused};
use crate::{dma, mmio, ports};

/// Registers of a function that can be memory BARs.
const BARS: u8 = 6;
/// Most interrupts of a device.
const INTERRUPTS_MAX: u16 = 2048;

/// One device, as it was granted in the start-up message.
pub struct OsPlatform {
    device: Option<PciDeviceClient>,
    /// BAR, offset in it, window.
    bars: Vec<(u8, u64, Mmio)>,
    interrupts: Vec<Arc<OsInterrupt>>,
    ports: Vec<PortIo>,
    domain: Option<Arc<DmaDomain>>,
    epoch: u32,
}

impl OsPlatform {
    /// Takes what was granted.
    ///
    /// # Errors
    /// When a window cannot be mapped or a port range not be had.
    pub fn from_startup() -> Result<OsPlatform, PlatformError> {
        let mut bars = Vec::new();
        for name in startup::handle_names() {
            let Some((index, offset)) = bar_window(name) else {
                continue;
            };
            let Some(vmo) = startup::handle::<Vmo>(name) else {
                continue;
            };
            bars.push((index, offset, mmio::map(vmo)?));
        }
        let irq = |n| startup::take::<rt::Interrupt>(&format!("irq{n}"));
        let interrupts = (0..INTERRUPTS_MAX).map_while(irq);
        let interrupts = interrupts.map(|i| Arc::new(OsInterrupt::new(i))).collect();
        let resource = |n| startup::take::<Resource>(&format!("ioport{n}"));
        let ports = (0..16u8).map_while(resource).map(|r| ports::grant(&r));
        let epoch = startup::env("BULKHEAD_EPOCH")
            .and_then(|text| text.parse().ok())
            .unwrap_or(1);
        Ok(OsPlatform {
            device: startup::take("device").map(PciDeviceClient::new),
            bars,
            interrupts,
            ports: ports.collect::<Result<_, _>>()?,
            domain: startup::take("dma").map(Arc::new),
            epoch,
        })
    }

    /// The DMA domain, for payload.
    pub(crate) fn domain(&self) -> Option<&Arc<DmaDomain>> {
        self.domain.as_ref()
    }

    pub(crate) fn device(&self) -> Result<&PciDeviceClient, PlatformError> {
        self.device.as_ref().ok_or(PlatformError::Unsupported)
    }
}

/// `bar4` is BAR 4 from its start, `bar4@2000` what follows from there (hexadecimal).
fn bar_window(name: &str) -> Option<(u8, u64)> {
    let rest = name.strip_prefix("bar")?;
    let (index, offset) = match rest.split_once('@') {
        Some((index, offset)) => (index, u64::from_str_radix(offset, 16).ok()?),
        None => (rest, 0),
    };
    let index = index.parse().ok().filter(|index| *index < BARS)?;
    Some((index, offset))
}

fn bus_refused(error: CallError<BusError>) -> PlatformError {
    match error {
        CallError::Remote(BusError::Kernel(code)) => PlatformError::Code(code),
        CallError::Remote(BusError::Protected) => PlatformError::NotGranted,
        CallError::Remote(BusError::BadAccess) => PlatformError::Invalid,
        CallError::Remote(BusError::NotSupported) => PlatformError::Unsupported,
        CallError::Transport(rt::Error::TimedOut) => PlatformError::TimedOut,
        _ => PlatformError::Closed,
    }
}

impl Platform for OsPlatform {
    #[inline]
    fn now_ns(&self) -> u64 {
        rt::time::now_ns()
    }

    fn log(&self, level: LogLevel, text: Arguments<'_>) {
        let level = match level {
            LogLevel::Error => Level::Error,
            LogLevel::Warning => Level::Warn,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
        };
        rt::log::write(level, None, text);
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(OsQueue::new()?))
    }

    fn cpu_count(&self) -> usize {
        (rt::system_info().cpu_count as usize).max(1)
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        let builder = rt::thread::builder(name);
        let builder = match cpu {
            Some(cpu) if cpu < 64 => builder.affinity(1 << cpu),
            _ => builder,
        };
        builder.spawn(work).map(drop).map_err(refused)
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn restored(&self) -> Option<SavedState> {
        let state = crate::entry::connection()?.restored().ok()??;
        let fields = state.fields.into_iter();
        Some(SavedState {
            schema: state.schema,
            fields: fields.map(|(n, contents)| (n, contents.0)).collect(),
        })
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let windows = self.bars.iter().filter(|(bar, ..)| *bar == index);
        let windows: Vec<_> = windows
            .map(|(_, offset, window)| (*offset, window.clone()))
            .collect();
        if windows.is_empty() {
            Err(PlatformError::NotGranted)
        } else {
            Ok(windows)
        }
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        self.device()?
            .config_read(offset, width as u8)
            .map_err(bus_refused)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        self.device()?
            .config_write(offset, width as u8, value)
            .map_err(bus_refused)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        self.device()?.enable().map_err(bus_refused)
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.device()?.disable().map_err(bus_refused)
    }

    fn interrupt_count(&self) -> u16 {
        self.interrupts.len() as u16
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        match self.interrupts.get(usize::from(index)) {
            Some(interrupt) => Ok(interrupt.clone()),
            None => Err(PlatformError::NotGranted),
        }
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        self.ports
            .get(usize::from(index))
            .cloned()
            .ok_or(PlatformError::NotGranted)
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        dma::region(self.domain().ok_or(PlatformError::NotGranted)?, len)
    }
}

#[cfg(test)]
mod tests {
    use super::bar_window;

    #[test]
    fn names_of_windows() {
        assert_eq!(bar_window("bar4"), Some((4, 0)));
        assert_eq!(bar_window("bar4@3000"), Some((4, 0x3000)));
        assert_eq!(bar_window("bar6"), None);
        assert_eq!(bar_window("bar"), None);
        assert_eq!(bar_window("bar1@"), None);
        assert_eq!(bar_window("log"), None);
    }
}
