//! A virtio device on the PCI bus: registers and queues (virtio 1.2, 4.1). What kind of device it is, its
//! [`DeviceLogic`] says.

use std::sync::{Arc, Mutex, Weak};

use ddk::{Bus, Width};
use ddk_backend_sim::{DeviceMemory, Sim, SimInterrupt, SimPlatform, Timing};
use spec_virtio::{feature, status};

use crate::{DeviceChain, DeviceQueue};

const ISR: usize = 0x1000;
const CONFIG: usize = 0x2000;
const CONFIG_BYTES: usize = 60;
const NOTIFY: usize = 0x3000;
const NOTIFY_MULTIPLIER: usize = 4;
/// No MSI-X vector (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// Every status bit that exists (2.1).
const STATUS_BITS: u8 = status::ACKNOWLEDGE
    | status::DRIVER
    | status::DRIVER_OK
    | status::FEATURES_OK
    | status::DEVICE_NEEDS_RESET
    | status::FAILED;

/// A request, as its [`DeviceLogic`] sees it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The queue that it came on.
    pub queue: u16,
    /// Its buffers.
    pub chain: &'a DeviceChain,
    /// Features that both sides agreed on.
    pub features: u64,
    /// Where the buffers are.
    pub memory: &'a DeviceMemory,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// It is done, with this many bytes written.
    Done(u32),
    /// It gets no answer.
    Lost,
    /// It gets two, against the rules.
    Twice(u32),
    /// It gets the answer of a chain that does not exist, against the rules.
    Misnamed(u32),
}

/// What makes a virtio device one of its kind.
pub trait DeviceLogic: Send + 'static {
    /// Features beside `VERSION_1`.
    fn features(&self) -> u64;
    /// Device-specific configuration.
    fn config(&self) -> Vec<u8>;
    /// The driver writes device-specific configuration.
    ///
    /// # Errors
    /// Which rule it broke; without an own answer all of it is read-only.
    fn write_config(&mut self, offset: usize, bytes: &[u8], features: u64) -> Result<(), String> {
        let _ = features;
        Err(format!(
            "write of {bytes:x?} to the read-only configuration at {offset:#x}"
        ))
    }
    /// Queues, and entries of each.
    fn queues(&self) -> (u16, u16);
    /// Carries out a request. It is shown to the driver some time later.
    ///
    /// # Errors
    /// Which rule the driver broke.
    fn serve(&mut self, request: &Request<'_>) -> Result<Served, String>;
    /// Whether each queue's requests are carried out and shown one after the other; else they overtake
    /// each other.
    fn is_in_order(&self) -> bool {
        false
    }
    /// Whether each queue's requests are carried out one after the other, and shown in any order.
    fn is_served_in_order(&self) -> bool {
        false
    }
    /// The device is reset.
    fn reset(&mut self) {}
    /// Whether a reset succeeds.
    fn answers_reset(&self) -> bool {
        true
    }
}

#[derive(Clone)]
struct QueueRegisters {
    size: u16,
    vector: u16,
    enabled: bool,
    addresses: [u64; 3],
}

struct State<L> {
    logic: L,
    status: u8,
    /// A reset was asked for and is not through.
    resetting: bool,
    /// Resets so far: what is left of an earlier life does not happen any more.
    life: u32,
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

/// The model. [`VirtioPci::platform`] puts it into a machine.
pub struct VirtioPci<L> {
    /// Itself, for what it schedules.
    me: Weak<VirtioPci<L>>,
    sim: Sim,
    timing: Timing,
    interrupts: Vec<Arc<SimInterrupt>>,
    state: Mutex<State<L>>,
}

impl<L: DeviceLogic> VirtioPci<L> {
    /// Bytes of the BAR.
    pub const BAR_BYTES: usize = 0x4000;

    /// A device with an interrupt for each vector.
    pub fn new(sim: &Sim, logic: L, vectors: u16) -> Arc<VirtioPci<L>> {
        VirtioPci::with_timing(sim, logic, vectors, Timing::default())
    }

    /// A device that takes its time.
    pub fn with_timing(sim: &Sim, logic: L, vectors: u16, timing: Timing) -> Arc<VirtioPci<L>> {
        let (count, _) = logic.queues();
        let mut state = State {
            logic,
            status: 0,
            resetting: false,
            life: 0,
            device_select: 0,
            driver_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            generation: 0,
            queue_select: 0,
            registers: Vec::new(),
            queues: (0..count).map(|_| None).collect(),
            notified: vec![false; count.into()],
            gone: false,
        };
        state.reset_queues();
        Arc::new_cyclic(|me| VirtioPci {
            me: me.clone(),
            sim: sim.clone(),
            timing,
            interrupts: (0..vectors).map(|_| Arc::default()).collect(),
            state: Mutex::new(state),
        })
    }

    /// A platform with this device in it.
    pub fn platform(self: &Arc<Self>, cpus: usize) -> Arc<SimPlatform> {
        self.sim
            .platform()
            .bar(4, self.clone(), Self::BAR_BYTES)
            .config(Self::config_space())
            .interrupts(self.interrupts.clone())
            .cpus(cpus)
            .build()
    }

    /// Its interrupts, by vector.
    pub fn interrupts(&self) -> &[Arc<SimInterrupt>] {
        &self.interrupts
    }

    /// The simulation that it is in.
    pub fn sim(&self) -> &Sim {
        &self.sim
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
            (4, CONFIG, CONFIG_BYTES as u32),
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

    /// Lets `event` happen to this life of the device.
    fn later(
        &self,
        life: u32,
        delay_ns: &std::ops::RangeInclusive<u64>,
        event: impl FnOnce(&Self, &mut State<L>) + Send + 'static,
    ) {
        let me = self.me.clone();
        self.sim.schedule().after(delay_ns.clone(), move || {
            let Some(me) = me.upgrade() else { return };
            let mut state = me.state.lock().unwrap();
            if state.life == life && !state.gone {
                event(&me, &mut state);
            }
        });
    }

    /// Looks at what is available in a queue.
    fn fetch(&self, state: &mut State<L>, index: usize) {
        state.notified[index] = false;
        while let Some(queue) = &mut state.queues[index] {
            match queue.pop() {
                Ok(None) => return,
                Ok(Some(chain)) if state.logic.is_in_order() => {
                    if let Some(served) = self.carry_out(state, index, &chain) {
                        self.publish(state, index, chain.head, served);
                    }
                }
                Ok(Some(chain)) if state.logic.is_served_in_order() => {
                    self.serve(state, index, &chain);
                }
                Ok(Some(chain)) => {
                    self.later(state.life, &self.timing.serve_ns, move |me, state| {
                        me.serve(state, index, &chain);
                    });
                }
                Err(text) => return self.sim.violation(text),
            }
        }
    }

    fn serve(&self, state: &mut State<L>, index: usize, chain: &DeviceChain) {
        let head = chain.head;
        if let Some(served) = self.carry_out(state, index, chain) {
            self.later(state.life, &self.timing.publish_ns, move |me, state| {
                me.publish(state, index, head, served);
            });
        }
    }

    fn carry_out(&self, state: &mut State<L>, index: usize, chain: &DeviceChain) -> Option<Served> {
        let request = Request {
            queue: index as u16,
            chain,
            features: state.accepted,
            memory: self.sim.memory(),
        };
        match state.logic.serve(&request) {
            Ok(served) => Some(served),
            Err(text) => {
                self.sim.violation(text);
                None
            }
        }
    }

    fn publish(&self, state: &mut State<L>, index: usize, head: u16, served: Served) {
        let Some(queue) = &mut state.queues[index] else {
            return;
        };
        let told = match served {
            Served::Lost => Ok(false),
            Served::Done(written) => queue.complete(head, written),
            Served::Twice(written) => queue
                .complete(head, written)
                .and_then(|_| queue.complete_raw(head.into(), written)),
            Served::Misnamed(written) => queue.complete_raw(u32::MAX, written),
        };
        match told {
            Ok(true) => self.later(state.life, &self.timing.interrupt_ns, move |me, state| {
                me.fire(state.registers[index].vector);
            }),
            Ok(false) => {}
            Err(text) => self.sim.violation(text),
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
    fn queue(&mut self) -> Option<&mut QueueRegisters> {
        self.registers.get_mut(usize::from(self.queue_select))
    }

    fn features(&self) -> u64 {
        self.logic.features() | feature::VERSION_1
    }

    fn reset_queues(&mut self) {
        let (count, size) = self.logic.queues();
        let registers = QueueRegisters {
            size,
            vector: NO_VECTOR,
            enabled: false,
            addresses: [0; 3],
        };
        self.registers = vec![registers; count.into()];
        self.queues.iter_mut().for_each(|q| *q = None);
        self.notified.fill(false);
    }

    fn reset(&mut self) {
        self.life += 1;
        self.status = 0;
        self.resetting = false;
        self.accepted = 0;
        self.config_vector = NO_VECTOR;
        self.reset_queues();
        self.logic.reset();
    }

    fn config_bytes(&self, from: usize, width: Width) -> u64 {
        let config = self.logic.config();
        let bytes = (from..from + width.bytes()).map(|at| config.get(at).copied().unwrap_or(0));
        bytes
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(byte))
    }

    /// Whether queues may be set up now (3.1.1, step 7).
    fn is_set_up_phase(&self) -> bool {
        self.status & (status::FEATURES_OK | status::DRIVER_OK) == status::FEATURES_OK
    }

    /// What the driver changes of the status (3.1.1).
    fn set_status(&mut self, value: u8) -> Result<(), String> {
        if value & !STATUS_BITS != 0 {
            return Err(format!(
                "status bits {:#x} do not exist",
                value & !STATUS_BITS
            ));
        }
        if self.status & !value != 0 {
            return Err(format!(
                "status bits {:#x} cleared without a reset",
                self.status & !value
            ));
        }
        let new = value & !self.status;
        self.status = value;
        let has = |bit| value & bit != 0;
        if has(status::FEATURES_OK) && !(has(status::ACKNOWLEDGE) && has(status::DRIVER)) {
            return Err("FEATURES_OK before ACKNOWLEDGE and DRIVER".into());
        }
        if new & status::FEATURES_OK != 0 {
            let unknown = self.accepted & !self.features();
            if unknown != 0 || self.accepted & feature::VERSION_1 == 0 {
                self.status &= !status::FEATURES_OK;
                return Err(format!("features {unknown:#x} accepted and not offered"));
            }
        }
        if new & status::DRIVER_OK != 0 && !has(status::FEATURES_OK) {
            return Err("DRIVER_OK before FEATURES_OK".into());
        }
        Ok(())
    }

    fn enable(&mut self, memory: &DeviceMemory) -> Result<(), String> {
        let (index, features) = (usize::from(self.queue_select), self.accepted);
        if !self.is_set_up_phase() {
            return Err(format!("queue {index} enabled outside of its phase"));
        }
        let Some(queue) = self.queue() else {
            return Err(format!("queue {index} enabled, which does not exist"));
        };
        if std::mem::replace(&mut queue.enabled, true) {
            return Err(format!("queue {index} enabled twice"));
        }
        let (size, addresses) = (queue.size, queue.addresses);
        let queue = DeviceQueue::new(memory.clone(), size, addresses, features)?;
        self.queues[index] = Some(queue);
        Ok(())
    }

    /// A register of the selected queue, while it may be written.
    fn queue_to_set_up(&mut self) -> Result<&mut QueueRegisters, String> {
        let index = self.queue_select;
        if !self.is_set_up_phase() {
            return Err(format!("queue {index} set up outside of its phase"));
        }
        match self.queue() {
            Some(queue) if !queue.enabled => Ok(queue),
            Some(_) => Err(format!("queue {index} changed while it is enabled")),
            None => Err(format!("queue {index} set up, which does not exist")),
        }
    }

    /// A write to the common configuration (4.1.4.3).
    fn write_common(
        &mut self,
        offset: usize,
        value: u64,
        vectors: usize,
        memory: &DeviceMemory,
    ) -> Result<(), String> {
        // A vector that does not exist reads back as none (4.1.5.1.2.1).
        let vector = if value < vectors as u64 {
            value as u16
        } else {
            NO_VECTOR
        };
        match offset {
            0x00 => self.device_select = value as u32,
            0x08 => self.driver_select = value as u32,
            0x0c => {
                if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
                    return Err("features written outside of their phase".into());
                }
                let shift = 32 * (self.driver_select & 1);
                self.accepted &= !(0xffff_ffff << shift);
                self.accepted |= value << shift;
            }
            0x10 => self.config_vector = vector,
            0x14 => self.set_status(value as u8)?,
            0x16 => self.queue_select = value as u16,
            0x18 => {
                let (_, max) = self.logic.queues();
                if value == 0 || value > max.into() || !value.is_power_of_two() {
                    return Err(format!("queue of {value} entries, at most {max}"));
                }
                self.queue_to_set_up()?.size = value as u16;
            }
            0x1a => self.queue_to_set_up()?.vector = vector,
            0x1c if value == 1 => self.enable(memory)?,
            0x20..0x38 => {
                let (which, shift) = ((offset - 0x20) / 8, 8 * (offset & 4) as u32);
                let queue = self.queue_to_set_up()?;
                queue.addresses[which] &= !(0xffff_ffff << shift);
                queue.addresses[which] |= value << shift;
            }
            0x04 | 0x12 | 0x15 | 0x1e => {
                return Err(format!(
                    "write of {value:#x} to the read-only register at {offset:#x}"
                ));
            }
            _ => return Err(format!("write of {value:#x} at {offset:#x}")),
        }
        Ok(())
    }
}

/// How wide a field of the common configuration is; it is accessed so and not otherwise (4.1.3.1).
fn width_of(offset: usize) -> Option<Width> {
    match offset {
        0x00 | 0x04 | 0x08 | 0x0c => Some(Width::U32),
        0x20..0x38 if offset.is_multiple_of(4) => Some(Width::U32),
        0x10 | 0x12 | 0x16 | 0x18 | 0x1a | 0x1c | 0x1e => Some(Width::U16),
        0x14 | 0x15 => Some(Width::U8),
        _ => None,
    }
}

impl<L: DeviceLogic> Bus for VirtioPci<L> {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        if state.gone {
            return width.all_ones();
        }
        if (CONFIG..CONFIG + CONFIG_BYTES).contains(&offset) {
            return state.config_bytes(offset - CONFIG, width);
        }
        if width_of(offset) != Some(width) {
            let bytes = width.bytes();
            self.sim
                .violation(format!("read of {bytes} bytes at {offset:#x}"));
            return 0;
        }
        match offset {
            0x00 => state.device_select.into(),
            0x04 => match state.device_select {
                0 => state.features() & 0xffff_ffff,
                1 => state.features() >> 32,
                _ => 0,
            },
            0x08 => state.driver_select.into(),
            0x0c => state.accepted >> (32 * (state.driver_select & 1)) & 0xffff_ffff,
            0x10 => state.config_vector.into(),
            0x12 => state.queues.len() as u64,
            0x14 => state.status.into(),
            0x15 => state.generation.into(),
            0x16 => state.queue_select.into(),
            0x18 => state.queue().map_or(0, |q| q.size).into(),
            0x1a => state.queue().map_or(NO_VECTOR, |q| q.vector).into(),
            0x1c => state.queue().is_some_and(|q| q.enabled).into(),
            0x1e => state.queue_select.into(),
            _ => {
                let (which, shift) = ((offset - 0x20) / 8, 8 * (offset & 4) as u32);
                let address = state.queue().map_or(0, |q| q.addresses[which]);
                address >> shift & 0xffff_ffff
            }
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        if state.gone {
            return;
        }
        if state.resetting {
            // 4.1.4.3.2: the driver waits until the status reads 0.
            let text = format!("write of {value:#x} at {offset:#x} before the reset completed");
            return self.sim.violation(text);
        }
        if (NOTIFY..NOTIFY + 0x1000).contains(&offset) {
            let index = (offset - NOTIFY) / NOTIFY_MULTIPLIER;
            let place = offset.is_multiple_of(NOTIFY_MULTIPLIER) && width == Width::U16;
            if state.status & status::DRIVER_OK == 0 {
                return self.sim.violation("notification before DRIVER_OK");
            }
            if !place || value != index as u64 || state.queues.get(index).is_none() {
                let text = format!("notification of queue {value} at {offset:#x}");
                return self.sim.violation(text);
            }
            if state.queues[index].is_none() {
                let text = format!("notification of queue {index}, which is not enabled");
                return self.sim.violation(text);
            }
            if !std::mem::replace(&mut state.notified[index], true) {
                self.later(state.life, &self.timing.fetch_ns, move |me, state| {
                    me.fetch(state, index);
                });
            }
            return;
        }
        if (CONFIG..CONFIG + CONFIG_BYTES).contains(&offset) {
            let bytes = &value.to_le_bytes()[..width.bytes()];
            let accepted = state.accepted;
            let done = state.logic.write_config(offset - CONFIG, bytes, accepted);
            return done.unwrap_or_else(|text| self.sim.violation(text));
        }
        if width_of(offset) != Some(width) {
            let bytes = width.bytes();
            let text = format!("write of {bytes} bytes, {value:#x}, at {offset:#x}");
            return self.sim.violation(text);
        }
        if offset == 0x14 && value == 0 {
            if state.status == 0 {
                state.reset();
            } else if state.logic.answers_reset() {
                state.resetting = true;
                self.later(state.life, &self.timing.reset_ns, |_, state| state.reset());
            }
            return;
        }
        let done = state.write_common(offset, value, self.interrupts.len(), self.sim.memory());
        done.unwrap_or_else(|text| self.sim.violation(text));
    }
}
