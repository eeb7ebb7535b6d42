//! A device without honesty: a [`Platform`] whose registers, configuration space, interrupts, DMA contents and
//! time come from the fuzzer's bytes.
//!
//! A register answers with what was last written to it, or what a device makes of that ([`Shape::honest`]), or with a number
//! from the input, as the input wishes, so that a driver gets far while any single answer can be a lie. Each time that the driver writes
//! a register or waits, the device may write into memory that the driver shares with it, and fire. When the
//! input is over the device is gone: reads give ones and waits end at their deadline. So every run ends, and one
//! that asks on for [`AFTER_END_MAX`] accesses of a device that is gone has hung.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddk::{
    Bus, Deadline, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, PAGE, Platform,
    PlatformError, PortBus, PortIo, Width, Work,
};
use ddk_backend_sim::DeviceMemory;

use crate::input::Input;

/// Accesses that a driver may need to notice that its device is gone.
pub const AFTER_END_MAX: u32 = 1 << 17;
/// Pages of shared memory, beyond which there is no more.
const DMA_PAGES_MAX: usize = 1024;

struct State {
    input: Input,
    registers: BTreeMap<(u8, usize), u64>,
    config: Vec<u8>,
    regions: Vec<DmaRegion>,
    pages: usize,
    bound: Vec<Option<(Queue, u64)>>,
    honest: fn(u8, usize, u64) -> u64,
    now_ns: u64,
    after_end: u32,
}

/// What the device looks like before it lies.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Configuration space.
    pub config: Vec<u8>,
    /// Memory BARs: register and bytes.
    pub bars: Vec<(u8, usize)>,
    /// Interrupts.
    pub interrupts: u16,
    /// Ports of a range.
    pub ports: u16,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Contents of registers: BAR, offset, value.
    pub registers: Vec<(u8, usize, u64)>,
    /// What an honest device makes of what was written: BAR, offset and contents give what is read. Without it, the contents.
    pub honest: Option<fn(u8, usize, u64) -> u64>,
}

#[derive(Clone)]
struct Device(Arc<Mutex<State>>);

/// The platform. Clones are the same device.
#[derive(Clone)]
pub struct HostilePlatform {
    device: Device,
    shape: Arc<Shape>,
    memory: DeviceMemory,
}

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, space: u8, offset: usize, width: Width) -> u64 {
        let mut s = self.state();
        if s.over() {
            return width.all_ones();
        }
        let choice = s.input.byte();
        if choice < 0xe0 {
            let stored = s.registers.get(&(space, offset)).copied().unwrap_or(0);
            return (s.honest)(space, offset, stored) & width.all_ones();
        }
        s.input.number(width.bytes())
    }

    fn write(&self, space: u8, offset: usize, width: Width, value: u64) {
        let mut s = self.state();
        if s.over() {
            return;
        }
        s.registers
            .insert((space, offset), value & width.all_ones());
        s.act();
    }
}

impl State {
    /// Whether the device is gone.
    fn over(&mut self) -> bool {
        let over = self.input.is_over();
        if over {
            self.after_end += 1;
            assert!(
                self.after_end < AFTER_END_MAX,
                "the driver does not notice that the device is gone"
            );
        }
        over
    }

    /// Writes into shared memory, and fires.
    fn act(&mut self) {
        let choice = self.input.byte();
        for _ in 0..choice & 3 {
            let number = usize::from(self.input.byte());
            let offset = self.input.number(2) as usize;
            let len = usize::from(self.input.byte() & 0x1f) + 1;
            let bytes = self.input.take(len);
            let Some(region) = self.regions.get(number % self.regions.len().max(1)) else {
                break;
            };
            for (n, byte) in bytes.into_iter().enumerate() {
                region.write::<u8>((offset + n) % region.len(), byte);
            }
        }
        if choice & 4 != 0 {
            let index = usize::from(self.input.byte());
            let index = index % self.bound.len().max(1);
            if let Some(Some((queue, key))) = self.bound.get(index) {
                queue.push(*key);
            }
        }
    }
}

impl HostilePlatform {
    /// A device of that shape whose behaviour is in `input`.
    pub fn new(input: Input, shape: Shape) -> HostilePlatform {
        let registers = shape.registers.iter().map(|(b, o, v)| ((*b, *o), *v));
        let state = State {
            input,
            registers: registers.collect(),
            config: shape.config.clone(),
            regions: Vec::new(),
            pages: 0,
            bound: vec![None; usize::from(shape.interrupts)],
            honest: shape.honest.unwrap_or(|_, _, contents| contents),
            now_ns: 0,
            after_end: 0,
        };
        HostilePlatform {
            device: Device(Arc::new(Mutex::new(state))),
            shape: Arc::new(shape),
            memory: DeviceMemory::default(),
        }
    }

    /// The memory that the device reaches.
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    /// Takes bytes from the input for something beside the device.
    pub fn input<R>(&self, take: impl FnOnce(&mut Input) -> R) -> R {
        take(&mut self.device.state().input)
    }

    /// Whether the device is gone.
    pub fn is_over(&self) -> bool {
        self.device.state().input.is_over()
    }

    /// Lets the device act.
    pub fn act(&self) {
        self.device.state().act();
    }
}

struct Registers(Device, u8);

impl Bus for Registers {
    fn read(&self, offset: usize, width: Width) -> u64 {
        self.0.read(self.1, offset, width)
    }
    fn write(&self, offset: usize, width: Width, value: u64) {
        self.0.write(self.1, offset, width, value);
    }
}

/// The space of ports, beside those of the BARs.
const PORTS: u8 = 0xff;

impl PortBus for Device {
    fn read8(&self, offset: u16) -> u8 {
        self.read(PORTS, offset.into(), Width::U8) as u8
    }
    fn write8(&self, offset: u16, value: u8) {
        self.write(PORTS, offset.into(), Width::U8, value.into());
    }
    fn read16(&self, offset: u16) -> u16 {
        self.read(PORTS, offset.into(), Width::U16) as u16
    }
    fn write16(&self, offset: u16, value: u16) {
        self.write(PORTS, offset.into(), Width::U16, value.into());
    }
    fn read32(&self, offset: u16) -> u32 {
        self.read(PORTS, offset.into(), Width::U32) as u32
    }
    fn write32(&self, offset: u16, value: u32) {
        self.write(PORTS, offset.into(), Width::U32, value.into());
    }
}

#[derive(Clone)]
struct Queue {
    events: Arc<Mutex<VecDeque<Event>>>,
    device: Device,
}

impl Queue {
    fn push(&self, key: u64) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        match events.iter_mut().find(|event| event.key == key) {
            Some(event) => event.count = event.count.saturating_add(1),
            None => events.push_back(Event { key, count: 1 }),
        }
    }

    fn take(&self, into: &mut [Event]) -> usize {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let count = events.len().min(into.len());
        for (slot, event) in into.iter_mut().zip(events.drain(..count)) {
            *slot = event;
        }
        count
    }
}

impl EventQueue for Queue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let taken = self.take(events);
        if taken > 0 {
            return Ok(taken);
        }
        let mut s = self.device.state();
        if !s.over() {
            s.act();
            // Time passes as it likes, but not beyond the deadline.
            let step = u64::from(s.input.byte()) << 16;
            s.now_ns = s
                .now_ns
                .saturating_add(step)
                .min(deadline.as_ns().max(s.now_ns));
            drop(s);
            return Ok(self.take(events));
        }
        if deadline == Deadline::NEVER {
            return Err(PlatformError::Closed);
        }
        s.now_ns = s.now_ns.max(deadline.as_ns());
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

struct Source(Device, usize);

impl Interrupt for Source {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let queue: &Queue = queue
            .as_any()
            .downcast_ref()
            .ok_or(PlatformError::Invalid)?;
        if let Some(bound) = self.0.state().bound.get_mut(self.1) {
            *bound = Some((queue.clone(), key));
        }
        Ok(())
    }
    fn unbind(&self) {
        if let Some(bound) = self.0.state().bound.get_mut(self.1) {
            *bound = None;
        }
    }
    fn acknowledge(&self) {}
}

impl Platform for HostilePlatform {
    fn now_ns(&self) -> u64 {
        self.device.state().now_ns
    }

    fn log(&self, _: LogLevel, text: core::fmt::Arguments<'_>) {
        // Formatting what the device said is code too.
        let _ = text.to_string();
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(Queue {
            events: Arc::default(),
            device: self.device.clone(),
        }))
    }

    fn cpu_count(&self) -> usize {
        self.shape.cpus.max(1)
    }

    fn spawn(&self, _: &str, _: Option<usize>, _: Work) -> Result<(), PlatformError> {
        Err(PlatformError::Unsupported)
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let bars = self.shape.bars.iter().filter(|bar| bar.0 == index);
        let windows: Vec<_> = bars
            .map(|(index, len)| {
                let bus = Arc::new(Registers(self.device.clone(), *index));
                (0, Mmio::from_bus(bus, *len))
            })
            .collect();
        if windows.is_empty() {
            return Err(PlatformError::NotGranted);
        }
        Ok(windows)
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let mut s = self.device.state();
        if s.over() {
            return Ok(width.all_ones() as u32);
        }
        if s.input.byte() >= 0xf0 {
            return Ok(s.input.number(width.bytes()) as u32);
        }
        let at = usize::from(offset);
        let bytes = s.config.get(at..at + width.bytes());
        let bytes = bytes.ok_or(PlatformError::Invalid)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn config_write(&self, _: u16, _: Width, _: u32) -> Result<(), PlatformError> {
        Err(PlatformError::NotGranted)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        Ok(())
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        Ok(())
    }

    fn interrupt_count(&self) -> u16 {
        self.shape.interrupts
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        if index >= self.shape.interrupts {
            return Err(PlatformError::NotGranted);
        }
        Ok(Arc::new(Source(self.device.clone(), index.into())))
    }

    fn io_ports(&self, _: u8) -> Result<PortIo, PlatformError> {
        if self.shape.ports == 0 {
            return Err(PlatformError::NotGranted);
        }
        Ok(PortIo::new(Arc::new(self.device.clone()), self.shape.ports))
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        let pages = len.div_ceil(PAGE);
        let mut s = self.device.state();
        if s.pages + pages > DMA_PAGES_MAX {
            return Err(PlatformError::NoMemory);
        }
        s.pages += pages;
        let region = self.memory.region(len);
        s.regions.push(region.clone());
        Ok(region)
    }
}
