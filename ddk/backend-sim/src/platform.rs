//! The platform: what a driver is given of a simulation.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ddk::{
    Bus, DmaMemory, DmaRegion, EventQueue, Interrupt, LogLevel, Mmio, Platform, PlatformError,
    PortBus, PortIo, Width, Work,
};

use crate::queue::{Idle, SimInterrupt, SimQueue};
use crate::{DeviceMemory, Schedule, Sim};

/// What an access to a register costs, in nanoseconds of the virtual clock.
const REGISTER_NS: u64 = 100;
/// What an access to shared memory costs.
const MEMORY_NS: u64 = 5;

/// What a device consists of.
pub struct SimPlatformBuilder {
    sim: Sim,
    bars: Vec<(u8, Arc<dyn Bus>, usize)>,
    config: Vec<u8>,
    interrupts: Vec<Arc<SimInterrupt>>,
    ports: Vec<(Arc<dyn PortBus>, u16)>,
    memory: DeviceMemory,
    cpus: usize,
    epoch: u32,
}

impl SimPlatformBuilder {
    pub(crate) fn new(sim: Sim) -> SimPlatformBuilder {
        SimPlatformBuilder {
            memory: sim.memory().clone(),
            sim,
            bars: Vec::new(),
            config: Vec::new(),
            interrupts: Vec::new(),
            ports: Vec::new(),
            cpus: 1,
            epoch: 1,
        }
    }

    /// A BAR of `len` bytes behind which `bus` answers.
    pub fn bar(mut self, index: u8, bus: Arc<dyn Bus>, len: usize) -> Self {
        self.bars.push((index, bus, len));
        self
    }

    /// Contents of configuration space. A device that has one is a PCI function: until the driver enables
    /// it, its BARs do not answer and it may not reach memory.
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

    /// The memory that the models reach, in place of the simulation's.
    pub fn memory(mut self, memory: DeviceMemory) -> Self {
        self.memory = memory;
        self
    }

    /// CPUs of the machine.
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self
    }

    /// Incarnation of the driver on this device, from 1.
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = epoch;
        self
    }

    /// The platform.
    pub fn build(self) -> Arc<SimPlatform> {
        let is_pci = !self.config.is_empty();
        self.memory.set_bus_master(!is_pci);
        Arc::new(SimPlatform {
            gate: Arc::new(Gate {
                sim: self.sim.clone(),
                is_pci,
                enabled: AtomicBool::new(false),
                told: AtomicBool::new(false),
            }),
            device: self,
            log: Mutex::default(),
            idle: Idle::default(),
            threads: AtomicU32::new(0),
        })
    }
}

/// Whether the device's BARs answer.
struct Gate {
    sim: Sim,
    is_pci: bool,
    enabled: AtomicBool,
    /// One violation for a driver that forgot to enable the device, not one an access.
    told: AtomicBool,
}

impl Gate {
    fn is_open(&self) -> bool {
        if !self.is_pci || self.enabled.load(Ordering::Relaxed) {
            return true;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            self.sim
                .violation("access to a BAR while the device is not enabled");
        }
        false
    }
}

/// Registers on the simulation's clock: time passes before each access, and with it what falls due.
struct Clocked {
    gate: Arc<Gate>,
    device: Arc<dyn Bus>,
}

impl Bus for Clocked {
    fn read(&self, offset: usize, width: Width) -> u64 {
        self.gate.sim.schedule().pass(REGISTER_NS);
        if !self.gate.is_open() {
            return width.all_ones();
        }
        self.device.read(offset, width)
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        self.gate.sim.schedule().pass(REGISTER_NS);
        if self.gate.is_open() {
            self.device.write(offset, width, value);
        }
    }
}

/// Ports on the simulation's clock.
struct ClockedPorts {
    schedule: Schedule,
    device: Arc<dyn PortBus>,
}

macro_rules! clocked_ports {
    ($($read:ident $write:ident $word:ident),*) => {
        impl PortBus for ClockedPorts {
            $(
                fn $read(&self, offset: u16) -> $word {
                    self.schedule.pass(REGISTER_NS);
                    self.device.$read(offset)
                }
                fn $write(&self, offset: u16, value: $word) {
                    self.schedule.pass(REGISTER_NS);
                    self.device.$write(offset, value);
                }
            )*
        }
    };
}
clocked_ports!(read8 write8 u8, read16 write16 u16, read32 write32 u32);

/// Shared memory on the simulation's clock: the device may change it before each access of the driver.
struct ClockedMemory {
    schedule: Schedule,
    region: DmaRegion,
}

impl DmaMemory for ClockedMemory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.schedule.pass(MEMORY_NS);
        self.region.read_bytes(offset, into);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.schedule.pass(MEMORY_NS);
        self.region.write_bytes(offset, bytes);
    }
}

/// A home for one driver in a [`Sim`]. See the crate.
pub struct SimPlatform {
    device: SimPlatformBuilder,
    gate: Arc<Gate>,
    log: Mutex<Vec<String>>,
    idle: Idle,
    /// Threads that were spawned.
    threads: AtomicU32,
}

impl SimPlatform {
    /// A device without anything, in a simulation of its own.
    pub fn builder() -> SimPlatformBuilder {
        Sim::default().platform()
    }

    /// The simulation.
    pub fn sim(&self) -> &Sim {
        &self.device.sim
    }

    /// What runs each time that the driver waits with nothing to take: for models without a schedule.
    pub fn on_idle(&self, idle: impl FnMut() + Send + 'static) {
        *self.idle.lock().unwrap() = Some(Box::new(idle));
    }

    /// Notes that the driver broke a rule.
    pub fn violation(&self, text: String) {
        self.device.sim.violation(text);
    }

    /// Lines of the log.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Whether the driver has the device enabled.
    pub fn is_enabled(&self) -> bool {
        self.gate.enabled.load(Ordering::Relaxed)
    }

    /// Threads that the driver asked for so far.
    pub fn threads(&self) -> u32 {
        self.threads.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub fn advance_ms(&self, ms: u64) {
        self.device.sim.schedule().pass(ms * 1_000_000);
    }

    /// The rules that the driver broke.
    pub fn violations(&self) -> Vec<String> {
        self.device.sim.violations()
    }

    /// Fails the test if the driver broke a rule; see [`Sim::check`].
    ///
    /// # Panics
    /// With what it did.
    pub fn check(&self) {
        self.device.sim.check();
    }
}

impl Platform for SimPlatform {
    fn now_ns(&self) -> u64 {
        self.device.sim.now_ns()
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        self.log.lock().unwrap().push(format!("{level:?}: {text}"));
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        let queue = SimQueue::new(self.device.sim.clone(), self.idle.clone());
        Ok(Box::new(queue))
    }

    fn cpu_count(&self) -> usize {
        self.device.cpus
    }

    /// The thread runs when the others wait; see [`Sim::join`].
    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        if cpu.is_some_and(|cpu| cpu >= self.device.cpus) {
            return Err(PlatformError::Invalid);
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        let (sim, text) = (self.device.sim.clone(), format!("thread {name} panicked"));
        let spawned = self.device.sim.threads().spawn(name, work, move || {
            sim.violation(text);
        });
        spawned.map_err(|_| PlatformError::NoMemory)
    }

    fn epoch(&self) -> u32 {
        self.device.epoch
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let windows: Vec<_> = self.device.bars.iter().filter(|b| b.0 == index).collect();
        if windows.is_empty() {
            return Err(PlatformError::NotGranted);
        }
        Ok(windows
            .iter()
            .map(|(_, bus, len)| {
                let (gate, device) = (self.gate.clone(), bus.clone());
                (0, Mmio::from_bus(Arc::new(Clocked { gate, device }), *len))
            })
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
        self.gate.enabled.store(true, Ordering::Relaxed);
        self.device.memory.set_bus_master(true);
        Ok(())
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.gate.enabled.store(false, Ordering::Relaxed);
        self.device.memory.set_bus_master(!self.gate.is_pci);
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
            Some((bus, len)) => {
                let (schedule, device) = (self.device.sim.schedule().clone(), bus.clone());
                Ok(PortIo::new(
                    Arc::new(ClockedPorts { schedule, device }),
                    *len,
                ))
            }
            None => Err(PlatformError::NotGranted),
        }
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        let region = self.device.memory.region(len);
        let (schedule, pages) = (self.device.sim.schedule().clone(), region.pages().into());
        let memory = ClockedMemory { schedule, region };
        Ok(DmaRegion::from_memory(Arc::new(memory), pages))
    }
}
