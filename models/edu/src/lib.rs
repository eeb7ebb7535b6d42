//! Model of `edu`, QEMU's device for teaching (QEMU, docs/specs/edu.rst): a factorial, a word that comes back
//! inverted, interrupts on request, and DMA between memory and a buffer of 4 KiB.
//!
//! It is stricter than the device: what the specification rules out is noted as a violation by the driver, and
//! so is an access to memory that the driver does not own. Factorial and DMA take until the driver waits.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ddk::{Bus, Width};
use ddk_backend_sim::{DeviceMemory, SimInterrupt, SimPlatform};

/// Bytes of BAR 0.
pub const BAR_BYTES: usize = 0x10_0000;
/// Where the buffer begins in the device's own address space.
pub const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer.
pub const BUFFER_BYTES: usize = 4096;

const COMPUTING: u32 = 0x01;
const INTERRUPT_WHEN_DONE: u32 = 0x80;
const FACTORIAL_INTERRUPT: u32 = 0x01;
const DMA_INTERRUPT: u32 = 0x100;
const DMA_START: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;
const DMA_INTERRUPT_WHEN_DONE: u64 = 4;

/// How the device goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// It is another device.
    OtherIdentification,
    /// The word of the liveness check does not come back inverted.
    NotInverted,
    /// It computes for ever.
    Stuck,
    /// It finishes without an interrupt.
    NoInterrupt,
    /// DMA writes into memory change a bit.
    FlipsABit,
    /// It is unplugged when the first factorial is asked for.
    Unplugged,
}

#[derive(Default)]
struct State {
    misbehaviour: Misbehaviour,
    gone: bool,
    liveness: u32,
    factorial: u32,
    status: u32,
    pending: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    buffer: Vec<u8>,
    platform: Weak<SimPlatform>,
}

/// The model.
pub struct Edu {
    memory: DeviceMemory,
    interrupt: Arc<SimInterrupt>,
    address_bits: u32,
    state: Mutex<State>,
}

impl Edu {
    /// A device that drives `address_bits` bits of an address (the option `dma_mask` of QEMU's; 28 is usual).
    pub fn new(address_bits: u32, misbehaviour: Misbehaviour) -> Arc<Edu> {
        Arc::new(Edu {
            memory: DeviceMemory::low(),
            interrupt: Arc::default(),
            address_bits,
            state: Mutex::new(State {
                misbehaviour,
                buffer: vec![0; BUFFER_BYTES],
                ..State::default()
            }),
        })
    }

    /// A platform with this device in it.
    pub fn platform(self: &Arc<Self>) -> Arc<SimPlatform> {
        let platform = SimPlatform::builder()
            .bar(0, self.clone(), BAR_BYTES)
            .interrupts(vec![self.interrupt.clone()])
            .memory(self.memory.clone())
            .build();
        self.state().platform = Arc::downgrade(&platform);
        let model = self.clone();
        platform.on_idle(move || model.run());
        platform
    }

    /// Interrupts that are pending at the device.
    pub fn pending(&self) -> u32 {
        self.state().pending
    }

    /// How often it interrupted.
    pub fn interrupts(&self) -> u64 {
        self.interrupt.fired()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what was asked for.
    pub fn run(&self) {
        let mut s = self.state();
        if s.gone {
            return;
        }
        if s.status & COMPUTING != 0 && s.misbehaviour != Misbehaviour::Stuck {
            s.factorial = (1..=s.factorial).fold(1, u32::wrapping_mul);
            s.status &= !COMPUTING;
            if s.status & INTERRUPT_WHEN_DONE != 0 {
                self.raise(&mut s, FACTORIAL_INTERRUPT);
            }
        }
        if s.command & DMA_START != 0 && s.misbehaviour != Misbehaviour::Stuck {
            self.transfer(&mut s);
            s.command &= !DMA_START;
            if s.command & DMA_INTERRUPT_WHEN_DONE != 0 {
                self.raise(&mut s, DMA_INTERRUPT);
            }
        }
    }

    fn raise(&self, s: &mut State, bits: u32) {
        s.pending |= bits;
        if s.misbehaviour != Misbehaviour::NoInterrupt {
            self.interrupt.fire();
        }
    }

    fn transfer(&self, s: &mut State) {
        let to_memory = s.command & DMA_TO_MEMORY != 0;
        let (inside, outside) = if to_memory {
            (s.source, s.destination)
        } else {
            (s.destination, s.source)
        };
        let range = inside.checked_sub(BUFFER).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(s.count).ok()?)?;
            (end <= BUFFER_BYTES).then_some(start..end)
        });
        let Some(range) = range else {
            return s.violation(format!(
                "DMA of {:#x} bytes at {inside:#x} is not inside of the buffer",
                s.count
            ));
        };
        if outside >> self.address_bits != 0 {
            return s.violation(format!(
                "DMA address {outside:#x} has more than {} bits",
                self.address_bits
            ));
        }
        let result = if to_memory {
            let mut bytes = s.buffer[range].to_vec();
            if s.misbehaviour == Misbehaviour::FlipsABit
                && let Some(byte) = bytes.first_mut()
            {
                *byte ^= 0x10;
            }
            self.memory.write(outside, &bytes)
        } else {
            self.memory.read(outside, &mut s.buffer[range])
        };
        if let Err(error) = result {
            s.violation(format!(
                "DMA reaches {:#x}, which is not granted",
                error.address
            ));
        }
    }
}

impl State {
    fn violation(&self, text: String) {
        if let Some(platform) = self.platform.upgrade() {
            platform.violation(text);
        }
    }
}

impl Bus for Edu {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let s = self.state();
        if s.gone {
            return width.all_ones();
        }
        if width != Width::U32 && (offset < 0x80 || width != Width::U64) {
            s.violation(format!("read of {} bytes at {offset:#x}", width.bytes()));
        }
        match offset {
            0x00 if s.misbehaviour == Misbehaviour::OtherIdentification => 0x0100_00ee,
            0x00 => 0x0100_00ed,
            0x04 => u64::from(s.liveness),
            0x08 => u64::from(s.factorial),
            0x20 => u64::from(s.status),
            0x24 => u64::from(s.pending),
            0x80 => s.source,
            0x88 => s.destination,
            0x90 => s.count,
            0x98 => s.command,
            _ => {
                s.violation(format!("read of no register at {offset:#x}"));
                width.all_ones()
            }
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let mut s = self.state();
        if s.gone {
            return;
        }
        if width != Width::U32 && (offset < 0x80 || width != Width::U64) {
            s.violation(format!("write of {} bytes at {offset:#x}", width.bytes()));
        }
        let word = value as u32;
        match offset {
            0x04 if s.misbehaviour == Misbehaviour::NotInverted => s.liveness = word,
            0x04 => s.liveness = !word,
            0x08 if s.status & COMPUTING != 0 => {
                s.violation("factorial asked for while one is computed".to_owned());
            }
            0x08 => {
                s.gone = s.misbehaviour == Misbehaviour::Unplugged;
                s.factorial = word;
                s.status |= COMPUTING;
            }
            0x20 => s.status = s.status & !INTERRUPT_WHEN_DONE | word & INTERRUPT_WHEN_DONE,
            0x60 => self.raise(&mut s, word),
            0x64 => s.pending &= !word,
            0x80..=0x98 if s.command & DMA_START != 0 => {
                s.violation(format!("write at {offset:#x} while DMA runs"));
            }
            0x80 => s.source = value,
            0x88 => s.destination = value,
            0x90 => s.count = value,
            0x98 => s.command = value,
            _ => s.violation(format!("write of no register at {offset:#x}")),
        }
    }
}
