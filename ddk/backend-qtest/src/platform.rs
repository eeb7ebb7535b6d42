//! A device of a machine as a home for its driver.

use std::fmt::Arguments;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ddk::{
    DmaRegion, EventQueue, Interrupt, LogLevel, Mmio, PAGE, Platform, PlatformError, PortIo, Width,
    Work,
};
use ddk_backend_host::{HostInterrupt, InterruptSource, Services, now_ns};
use devmgr::grants::Grants;
use proto::bus::Message;

use crate::function::{Function, Interrupts, Ports, Window};
use crate::interrupt::{LineSource, MessageSource};

/// Messages fit into a page.
const VECTORS_MAX: u16 = (PAGE / 4) as u16;
/// Lines of functions on the root bus of the q35: the I/O APIC's inputs from 20 on (Intel ICH9, 5.8 and 10.1).
const FIRST_LINE: usize = 20;

/// A device with what its driver is granted. Dropping it fences the device: interrupts and bus mastering off,
/// then a reset.
pub struct QtestPlatform {
    function: Arc<Function>,
    services: Services,
    grants: Grants,
    kind: Interrupts,
    interrupts: Vec<Arc<dyn Interrupt>>,
    epoch: u32,
}

impl QtestPlatform {
    /// Takes the function, which is in nobody's hands, into service.
    pub(crate) fn new(
        function: Arc<Function>,
        grants: Grants,
        line: Option<usize>,
        services: Services,
    ) -> Result<QtestPlatform, PlatformError> {
        let epoch = function.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let mut platform = QtestPlatform {
            function,
            services,
            grants,
            kind: Interrupts::None,
            interrupts: Vec::new(),
            epoch,
        };
        // What fails from here on fences the function.
        if let Some(line) = line {
            let source = LineSource::new(platform.function.clone(), line);
            platform.add(source);
            platform.kind = Interrupts::Line;
        } else if platform.grants.vectors > 0 {
            let count = platform.grants.vectors.min(VECTORS_MAX);
            let memory = &platform.function.machine().memory;
            let words = memory.allocate(usize::from(count) * 4)?.into_region();
            let messages: Vec<Message> = (0..count)
                .map(|vector| MessageSource::message(&words, vector))
                .collect();
            platform.function.program(&messages)?;
            for vector in 0..count {
                let function = platform.function.clone();
                platform.add(MessageSource::new(function, vector, words.clone()));
            }
            platform.kind = Interrupts::Messages;
        }
        Ok(platform)
    }

    fn add(&mut self, source: impl InterruptSource + 'static) {
        self.interrupts.push(Arc::new(HostInterrupt::new(source)));
    }

    /// The I/O APIC's input that a function's line leads to, `None` when it has no line or lies behind a
    /// bridge.
    pub(crate) fn line_of(function: &Function) -> Option<usize> {
        let info = &function.info;
        let pin = usize::from(info.interrupt_pin.checked_sub(1)?);
        let on_root = function.bridges.is_empty();
        on_root.then(|| FIRST_LINE + (usize::from(info.address.device) + pin) % 4)
    }
}

impl Platform for QtestPlatform {
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn log(&self, level: LogLevel, text: Arguments<'_>) {
        self.services.log(level, text);
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        self.services.event_queue()
    }

    fn cpu_count(&self) -> usize {
        self.services.cpu_count()
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        self.services.spawn(name, cpu, work)
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let mut windows = Vec::new();
        for window in self.grants.windows.iter().filter(|w| w.bar == index) {
            let len = usize::try_from(window.len).map_err(|_| PlatformError::Invalid)?;
            let bus = Window {
                function: self.function.clone(),
                physical: window.physical,
            };
            windows.push((window.offset, Mmio::from_bus(Arc::new(bus), len)));
        }
        if windows.is_empty() {
            return Err(PlatformError::NotGranted);
        }
        Ok(windows)
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        self.function.config_read(offset, width)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        self.function.config_write(offset, width, value)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        self.function.enable(self.kind)
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.function.disable(self.kind)
    }

    fn interrupt_count(&self) -> u16 {
        self.interrupts.len() as u16
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        let interrupt = self.interrupts.get(usize::from(index));
        interrupt.cloned().ok_or(PlatformError::NotGranted)
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        let range = self
            .grants
            .ports
            .iter()
            .find(|(number, ..)| *number == index);
        let (_, first, count) = range.ok_or(PlatformError::NotGranted)?;
        let ports = Ports {
            function: self.function.clone(),
            first: *first,
        };
        Ok(PortIo::new(Arc::new(ports), *count))
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        if !self.grants.dma {
            return Err(PlatformError::NotGranted);
        }
        Ok(self.function.machine().memory.allocate(len)?.into_region())
    }
}

impl Drop for QtestPlatform {
    fn drop(&mut self) {
        if let Err(error) = self.function.fence() {
            let text = format_args!("the device was left as it is: {error}");
            self.services.log(LogLevel::Warning, text);
        }
        self.function.bound.store(false, Ordering::Release);
    }
}
