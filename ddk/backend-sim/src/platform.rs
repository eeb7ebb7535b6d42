//! The platform: queues, clock, interrupts, configuration space.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ddk::{
    Bus, Deadline, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, Platform,
    PlatformError, PortBus, PortIo, Width, Work,
};

use crate::DeviceMemory;

#[derive(Default)]
struct Shared {
    clock_ns: AtomicU64,
    violations: Mutex<Vec<String>>,
    log: Mutex<Vec<String>>,
    works: Mutex<Vec<Work>>,
    enabled: AtomicBool,
    /// Runs the models when the driver waits.
    idle: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

/// A queue whose waiting lets the models run and then moves the clock.
#[derive(Clone)]
pub struct SimQueue {
    events: Arc<Mutex<VecDeque<Event>>>,
    shared: Arc<Shared>,
}

impl SimQueue {
    /// Puts an event in.
    pub fn push(&self, key: u64) {
        let mut events = self.events.lock().unwrap();
        match events.iter_mut().find(|e| e.key == key) {
            Some(event) => event.count += 1,
            None => events.push_back(Event { key, count: 1 }),
        }
    }
}

impl EventQueue for SimQueue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        for round in 0..2 {
            let mut queued = self.events.lock().unwrap();
            let taken = queued.len().min(events.len());
            for (slot, event) in events.iter_mut().zip(queued.drain(..taken)) {
                *slot = event;
            }
            drop(queued);
            if taken > 0 {
                return Ok(taken);
            }
            if round == 0 {
                let idle = self.shared.idle.lock().unwrap().take();
                if let Some(mut idle) = idle {
                    idle();
                    *self.shared.idle.lock().unwrap() = Some(idle);
                }
            }
        }
        if deadline == Deadline::NEVER {
            // Nothing will ever come: the test would hang.
            return Err(PlatformError::Closed);
        }
        self.shared
            .clock_ns
            .fetch_max(deadline.as_ns(), Ordering::Relaxed);
        Ok(0)
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        self.push(key);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An interrupt that a model fires.
#[derive(Default)]
pub struct SimInterrupt {
    target: Mutex<Option<(SimQueue, u64)>>,
    fired: AtomicU64,
}

impl SimInterrupt {
    /// Fires it.
    pub fn fire(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
        if let Some((queue, key)) = &*self.target.lock().unwrap() {
            queue.push(*key);
        }
    }

    /// How often it fired.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }
}

impl Interrupt for SimInterrupt {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let queue = queue
            .as_any()
            .downcast_ref::<SimQueue>()
            .ok_or(PlatformError::Invalid)?;
        *self.target.lock().unwrap() = Some((queue.clone(), key));
        Ok(())
    }

    fn unbind(&self) {
        *self.target.lock().unwrap() = None;
    }

    fn acknowledge(&self) {}
}

/// What a test's device consists of.
#[derive(Default)]
pub struct SimPlatformBuilder {
    bars: Vec<(u8, Arc<dyn Bus>, usize)>,
    config: Vec<u8>,
    interrupts: Vec<Arc<SimInterrupt>>,
    ports: Vec<(Arc<dyn PortBus>, u16)>,
    memory: DeviceMemory,
    cpus: usize,
}

impl SimPlatformBuilder {
    /// A BAR of `len` bytes behind which `bus` answers.
    pub fn bar(mut self, index: u8, bus: Arc<dyn Bus>, len: usize) -> Self {
        self.bars.push((index, bus, len));
        self
    }

    /// Contents of configuration space.
    pub fn config(mut self, bytes: Vec<u8>) -> Self {
        self.config = bytes;
        self
    }

    /// The interrupts, which the models fire.
    pub fn interrupts(mut self, interrupts: Vec<Arc<SimInterrupt>>) -> Self {
        self.interrupts = interrupts;
        self
    }

    /// A range of I/O ports.
    pub fn ports(mut self, bus: Arc<dyn PortBus>, len: u16) -> Self {
        self.ports.push((bus, len));
        self
    }

    /// The memory that the models reach.
    pub fn memory(mut self, memory: DeviceMemory) -> Self {
        self.memory = memory;
        self
    }

    /// CPUs of the machine.
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self
    }

    /// The platform.
    pub fn build(self) -> Arc<SimPlatform> {
        Arc::new(SimPlatform {
            device: self,
            shared: Arc::new(Shared::default()),
        })
    }
}

/// See the crate.
pub struct SimPlatform {
    device: SimPlatformBuilder,
    shared: Arc<Shared>,
}

impl SimPlatform {
    /// A device without anything.
    pub fn builder() -> SimPlatformBuilder {
        SimPlatformBuilder {
            cpus: 1,
            ..Default::default()
        }
    }

    /// What runs each time that the driver waits with nothing to take.
    pub fn on_idle(&self, idle: impl FnMut() + Send + 'static) {
        *self.shared.idle.lock().unwrap() = Some(Box::new(idle));
    }

    /// Notes that the driver broke a rule.
    pub fn violation(&self, text: String) {
        self.shared.violations.lock().unwrap().push(text);
    }

    /// Lines of the log.
    pub fn log_lines(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Whether the driver has the device enabled.
    pub fn is_enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Relaxed)
    }

    /// Threads that were asked for and not run.
    pub fn take_works(&self) -> Vec<Work> {
        std::mem::take(&mut self.shared.works.lock().unwrap())
    }

    /// Moves the clock.
    pub fn advance_ms(&self, ms: u64) {
        self.shared
            .clock_ns
            .fetch_add(ms * 1_000_000, Ordering::Relaxed);
    }

    /// The rules that the driver broke.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().unwrap().clone()
    }

    /// Fails the test if the driver broke a rule.
    ///
    /// # Panics
    /// With what it did.
    pub fn check(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(
            violations.is_empty(),
            "the driver broke rules: {violations:#?}"
        );
    }
}

impl Platform for SimPlatform {
    fn now_ns(&self) -> u64 {
        self.shared.clock_ns.load(Ordering::Relaxed)
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        self.shared
            .log
            .lock()
            .unwrap()
            .push(format!("{level:?}: {text}"));
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(SimQueue {
            events: Arc::default(),
            shared: self.shared.clone(),
        }))
    }

    fn cpu_count(&self) -> usize {
        self.device.cpus
    }

    fn spawn(&self, _name: &str, _cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        self.shared.works.lock().unwrap().push(work);
        Ok(())
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let windows: Vec<_> = self.device.bars.iter().filter(|b| b.0 == index).collect();
        if windows.is_empty() {
            return Err(PlatformError::NotGranted);
        }
        Ok(windows
            .iter()
            .map(|(_, bus, len)| (0, Mmio::from_bus(bus.clone(), *len)))
            .collect())
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let start = usize::from(offset);
        if !start.is_multiple_of(width.bytes()) {
            return Err(PlatformError::Invalid);
        }
        let bytes = self.device.config.get(start..start + width.bytes());
        let bytes = bytes.ok_or(PlatformError::Invalid)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn config_write(&self, offset: u16, _: Width, _: u32) -> Result<(), PlatformError> {
        self.violation(format!("write to configuration space at {offset:#x}"));
        Err(PlatformError::NotGranted)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        self.shared.enabled.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.shared.enabled.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn interrupt_count(&self) -> u16 {
        self.device.interrupts.len() as u16
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        match self.device.interrupts.get(usize::from(index)) {
            Some(interrupt) => Ok(interrupt.clone()),
            None => Err(PlatformError::NotGranted),
        }
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        match self.device.ports.get(usize::from(index)) {
            Some((bus, len)) => Ok(PortIo::new(bus.clone(), *len)),
            None => Err(PlatformError::NotGranted),
        }
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        Ok(self.device.memory.region(len))
    }
}
