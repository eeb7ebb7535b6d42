//! Who uses which interrupt vector. Device vectors are numbered once for all
//! processors, so that a vector alone names its interrupt.

use core::sync::atomic::{AtomicU32, Ordering};

use super::lock::SpinLock;
use super::{cpu, io_apic};
use crate::arch::Msi;

/// The first vector for devices. Below are exceptions and the old interrupt
/// controllers, which are masked and can only send spurious interrupts.
const DEVICE_FIRST: u8 = 0x30;
const DEVICE_LAST: u8 = 0xef;
pub const TIMER: u8 = 0xf0;
pub const RESCHEDULE: u8 = 0xf1;
pub const SHOOTDOWN: u8 = 0xf2;
/// The IOMMU refused a device something.
pub const REFUSAL: u8 = 0xf3;
pub const SPURIOUS: u8 = 0xff;

/// Where a device writes to interrupt the processor with local APIC ID 0 (SDM 3A,
/// 11.11.1).
const MSI_ADDRESS: u64 = 0xfee0_0000;

/// What a vector is for.
pub enum Purpose {
    Device,
    Timer,
    Reschedule,
    Shootdown,
    Refusal,
    Spurious,
}

/// See [`Purpose`].
#[inline]
pub fn purpose(vector: u8) -> Purpose {
    match vector {
        DEVICE_FIRST..=DEVICE_LAST => Purpose::Device,
        TIMER => Purpose::Timer,
        RESCHEDULE => Purpose::Reschedule,
        SHOOTDOWN => Purpose::Shootdown,
        REFUSAL => Purpose::Refusal,
        _ => Purpose::Spurious,
    }
}

static USED: SpinLock<[u64; 4]> = SpinLock::new([0; 4]);
/// For level-triggered lines: the input, plus 1.
static LEVEL_LINE: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// Reserves a device vector.
pub fn allocate() -> Option<u8> {
    let mut used = USED.lock();
    let free = |vector: &u8| {
        used.get(usize::from(vector / 64))
            .is_some_and(|word| word & 1 << (vector % 64) == 0)
    };
    let vector = (DEVICE_FIRST..=DEVICE_LAST).find(free)?;
    used[usize::from(vector / 64)] |= 1 << (vector % 64);
    Some(vector)
}

/// Gives a vector back.
pub fn free(vector: u8) {
    LEVEL_LINE[usize::from(vector)].store(0, Ordering::Relaxed);
    USED.lock()[usize::from(vector / 64)] &= !(1 << (vector % 64));
}

/// Notes that `vector` belongs to the level-triggered input `gsi`.
pub fn set_level_line(vector: u8, gsi: u32) {
    LEVEL_LINE[usize::from(vector)].store(gsi + 1, Ordering::Release);
}

/// A level-triggered line stays asserted until its driver served the device, so it
/// is masked before the acknowledgement.
#[inline]
pub fn before_device_interrupt(vector: u8) {
    if let Some(gsi) = LEVEL_LINE[usize::from(vector)]
        .load(Ordering::Acquire)
        .checked_sub(1)
    {
        io_apic::line_mask(gsi);
    }
}

/// Address of a message to the processor that runs this. `None` if it cannot be named in one.
pub fn message_address() -> Option<u64> {
    let id = cpu::this().apic_id.load(Ordering::Acquire);
    let id = u8::try_from(id).ok()?;
    Some(MSI_ADDRESS | u64::from(id) << 12)
}

/// Allocates a message-signalled interrupt to processor `cpu`. `None` if that is
/// not running, cannot be named in a message, or no vector is left.
pub fn msi_allocate(cpu: usize) -> Option<Msi> {
    let data = cpu::of(cpu).filter(|data| data.online.load(Ordering::Acquire))?;
    let apic_id = u8::try_from(data.apic_id.load(Ordering::Relaxed)).ok()?;
    let vector = allocate()?;
    // Fixed delivery, edge triggered.
    Some(Msi {
        vector,
        address: MSI_ADDRESS | u64::from(apic_id) << 12,
        data: vector.into(),
    })
}

/// Frees the vector of a message that no device can send any more.
pub fn msi_free(vector: u8) {
    if matches!(purpose(vector), Purpose::Device) {
        free(vector);
    }
}
