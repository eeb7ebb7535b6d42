//! A virtio device on the PCI bus: registers and queues (virtio 1.2, 4.1). What kind of device it is, its
//! [`DeviceLogic`] says.

use std::sync::{Arc, Mutex, Weak};

use ddk::{Bus, Width};
use spec_virtio::{feature, status};

use ddk_backend_sim::{DeviceMemory, SimInterrupt, SimPlatform};

use crate::DeviceQueue;

const ISR: usize = 0x1000;
const CONFIG: usize = 0x2000;
const NOTIFY: usize = 0x3000;
const NOTIFY_MULTIPLIER: usize = 4;

/// What makes a virtio device one of its kind.
pub trait DeviceLogic: Send {
    /// Features beside `VERSION_1`.
    fn features(&self) -> u64;
    /// Device-specific configuration.
    fn config(&self) -> Vec<u8>;
    /// Queues, and entries of each.
    fn queues(&self) -> (u16, u16);
    /// Serves what is available in a queue. `true`: raise its interrupt.
    ///
    /// # Errors
    /// Which rule the driver broke.
    fn serve(
        &mut self,
        index: u16,
        queue: &mut DeviceQueue,
        memory: &DeviceMemory,
    ) -> Result<bool, String>;
    /// The device is reset.
    fn reset(&mut self) {}
    /// Whether a reset succeeds.
    fn answers_reset(&self) -> bool {
        true
    }
}

#[derive(Clone, Default)]
struct QueueRegisters {
    size: u16,
    vector: u16,
    enabled: bool,
    addresses: [u64; 3],
}

struct State<L> {
    logic: L,
    platform: Weak<SimPlatform>,
    status: u8,
    device_select: u32,
    driver_select: u32,
    accepted: u64,
    config_vector: u16,
    generation: u8,
    queue_select: u16,
    registers: Vec<QueueRegisters>,
    queues: Vec<Option<DeviceQueue>>,
    notified: Vec<bool>,
    gone: bool,
}

/// The model. Plug it in as BAR 4, with [`VirtioPci::config_space`] as configuration space.
pub struct VirtioPci<L> {
    memory: DeviceMemory,
    interrupts: Vec<Arc<SimInterrupt>>,
    state: Mutex<State<L>>,
}

impl<L: DeviceLogic> VirtioPci<L> {
    /// Bytes of the BAR.
    pub const BAR_BYTES: usize = 0x4000;

    /// A device with an interrupt for each vector.
    pub fn new(logic: L, memory: DeviceMemory, vectors: u16) -> Arc<VirtioPci<L>> {
        let (count, size) = logic.queues();
        let registers = QueueRegisters {
            size,
            vector: 0xffff,
            ..Default::default()
        };
        Arc::new(VirtioPci {
            memory,
            interrupts: (0..vectors).map(|_| Arc::default()).collect(),
            state: Mutex::new(State {
                logic,
                platform: Weak::new(),
                status: 0,
                device_select: 0,
                driver_select: 0,
                accepted: 0,
                config_vector: 0xffff,
                generation: 0,
                queue_select: 0,
                registers: vec![registers; count.into()],
                queues: (0..count).map(|_| None).collect(),
                notified: vec![false; count.into()],
                gone: false,
            }),
        })
    }

    /// A platform with this device in it.
    pub fn platform(self: &Arc<Self>, cpus: usize) -> Arc<SimPlatform>
    where
        L: 'static,
    {
        let platform = SimPlatform::builder()
            .bar(4, self.clone(), Self::BAR_BYTES)
            .config(Self::config_space())
            .interrupts(self.interrupts.clone())
            .memory(self.memory.clone())
            .cpus(cpus)
            .build();
        self.state.lock().unwrap().platform = Arc::downgrade(&platform);
        let model = self.clone();
        platform.on_idle(move || model.run());
        platform
    }

    /// Configuration space with the capabilities that lead to the structures.
    pub fn config_space() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[0..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
        bytes[6] = 0x10;
        bytes[0x34] = 0x40;
        let capabilities: [(u8, usize, u32); 4] = [
            (1, 0, 0x38),
            (3, ISR, 1),
            (4, CONFIG, 60),
            (2, NOTIFY, 0x1000),
        ];
        for (n, (kind, offset, length)) in capabilities.into_iter().enumerate() {
            let at = 0x40 + 0x18 * n;
            let next = if n == 3 { 0 } else { at as u8 + 0x18 };
            bytes[at..at + 5].copy_from_slice(&[0x09, next, 20, kind, 4]);
            bytes[at + 8..at + 12].copy_from_slice(&(offset as u32).to_le_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&(NOTIFY_MULTIPLIER as u32).to_le_bytes());
        }
        bytes
    }

    /// Serves every queue that was notified.
    pub fn run(&self) {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        for index in 0..state.queues.len() {
            if !std::mem::take(&mut state.notified[index]) {
                continue;
            }
            let Some(queue) = &mut state.queues[index] else {
                continue;
            };
            match state.logic.serve(index as u16, queue, &self.memory) {
                Ok(true) => self.fire(state.registers[index].vector),
                Ok(false) => {}
                Err(text) => state.violation(text),
            }
        }
    }

    /// Looks at the device's logic and its queues, to misbehave or to check.
    pub fn with<R>(&self, look: impl FnOnce(&mut L, &mut [Option<DeviceQueue>]) -> R) -> R {
        let state = &mut *self.state.lock().unwrap();
        look(&mut state.logic, &mut state.queues)
    }

    /// Raises the interrupt of a queue.
    pub fn fire_queue(&self, index: usize) {
        let vector = self.state.lock().unwrap().registers[index].vector;
        self.fire(vector);
    }

    /// The configuration changed.
    pub fn change_config(&self) {
        let mut state = self.state.lock().unwrap();
        state.generation = state.generation.wrapping_add(1);
        let vector = state.config_vector;
        drop(state);
        self.fire(vector);
    }

    /// Every register reads all ones from now on.
    pub fn unplug(&self) {
        self.state.lock().unwrap().gone = true;
    }

    /// Status that the driver left.
    pub fn status(&self) -> u8 {
        self.state.lock().unwrap().status
    }

    /// Queues in use.
    pub fn enabled_queues(&self) -> usize {
        self.state.lock().unwrap().queues.iter().flatten().count()
    }

    fn fire(&self, vector: u16) {
        if let Some(interrupt) = self.interrupts.get(usize::from(vector)) {
            interrupt.fire();
        }
    }
}

impl<L: DeviceLogic> State<L> {
    fn violation(&self, text: String) {
        match self.platform.upgrade() {
            Some(platform) => platform.violation(text),
            None => panic!("{text}"),
        }
    }

    fn queue(&mut self) -> Option<&mut QueueRegisters> {
        self.registers.get_mut(usize::from(self.queue_select))
    }

    fn features(&self) -> u64 {
        self.logic.features() | feature::VERSION_1
    }

    fn set_status(&mut self, value: u8) {
        if value == 0 {
            if !self.logic.answers_reset() {
                return;
            }
            self.status = 0;
            self.accepted = 0;
            self.queues.iter_mut().for_each(|q| *q = None);
            self.notified.fill(false);
            let (_, size) = self.logic.queues();
            self.registers.fill(QueueRegisters {
                size,
                vector: 0xffff,
                ..Default::default()
            });
            self.logic.reset();
            return;
        }
        if self.status & !value != 0 {
            self.violation(format!(
                "status bits {:#x} cleared without a reset",
                self.status & !value
            ));
        }
        let new = value & !self.status;
        self.status = value;
        if new & status::FEATURES_OK != 0 {
            let unknown = self.accepted & !self.features();
            if unknown != 0 || self.accepted & feature::VERSION_1 == 0 {
                self.status &= !status::FEATURES_OK;
            }
        }
        if new & status::DRIVER_OK != 0 && value & status::FEATURES_OK == 0 {
            self.violation("DRIVER_OK before FEATURES_OK".into());
        }
    }

    fn enable(&mut self, memory: &DeviceMemory) {
        if self.status & status::FEATURES_OK == 0 || self.status & status::DRIVER_OK != 0 {
            self.violation("queue set up outside of its phase".into());
        }
        let (index, features) = (usize::from(self.queue_select), self.accepted);
        let Some(queue) = self.queue() else { return };
        queue.enabled = true;
        let (size, addresses) = (queue.size, queue.addresses);
        match DeviceQueue::new(memory.clone(), size, addresses, features) {
            Ok(queue) => self.queues[index] = Some(queue),
            Err(text) => self.violation(text),
        }
    }
}

impl<L: DeviceLogic> Bus for VirtioPci<L> {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        if state.gone {
            return width.all_ones();
        }
        if (CONFIG..CONFIG + 60).contains(&offset) {
            let config = state.logic.config();
            let from = offset - CONFIG;
            let bytes = (from..from + width.bytes()).map(|at| config.get(at).copied().unwrap_or(0));
            return bytes
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(byte));
        }
        match offset {
            0x00 => state.device_select.into(),
            0x04 => match state.device_select {
                0 => state.features() & 0xffff_ffff,
                1 => state.features() >> 32,
                _ => 0,
            },
            0x08 => state.driver_select.into(),
            0x10 => state.config_vector.into(),
            0x12 => state.queues.len() as u64,
            0x14 => state.status.into(),
            0x15 => state.generation.into(),
            0x16 => state.queue_select.into(),
            0x18 => state.queue().map_or(0, |q| q.size).into(),
            0x1a => state.queue().map_or(0xffff, |q| q.vector).into(),
            0x1c => state.queue().is_some_and(|q| q.enabled).into(),
            0x1e => state.queue_select.into(),
            other => {
                state.violation(format!("read at {other:#x}"));
                0
            }
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        if state.gone {
            return;
        }
        if (NOTIFY..NOTIFY + 0x1000).contains(&offset) {
            let index = (offset - NOTIFY) / NOTIFY_MULTIPLIER;
            if state.status & status::DRIVER_OK == 0 {
                state.violation("notification before DRIVER_OK".into());
            }
            match state.notified.get_mut(index) {
                Some(notified) if value == index as u64 && width == Width::U16 => *notified = true,
                _ => state.violation(format!("notification of queue {value} at {offset:#x}")),
            }
            return;
        }
        let vectors = self.interrupts.len() as u64;
        let vector = if value < vectors {
            value as u16
        } else {
            0xffff
        };
        match offset {
            0x00 => state.device_select = value as u32,
            0x08 => state.driver_select = value as u32,
            0x0c => {
                let shift = 32 * (state.driver_select & 1);
                state.accepted &= !(0xffff_ffff << shift);
                state.accepted |= value << shift;
            }
            0x10 => state.config_vector = vector,
            0x14 => state.set_status(value as u8),
            0x16 => state.queue_select = value as u16,
            0x18 => {
                if let Some(q) = state.queue() {
                    q.size = value as u16;
                }
            }
            0x1a => {
                if let Some(q) = state.queue() {
                    q.vector = vector;
                }
            }
            0x1c if value == 1 => state.enable(&self.memory),
            0x20..0x38 if width == Width::U32 => {
                let (which, shift) = ((offset - 0x20) / 8, 8 * (offset & 4) as u32);
                if let Some(q) = state.queue() {
                    q.addresses[which] &= !(0xffff_ffff << shift);
                    q.addresses[which] |= value << shift;
                }
            }
            other => state.violation(format!("write of {value:#x} at {other:#x}")),
        }
    }
}
