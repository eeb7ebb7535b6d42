//! Port I/O of the kernel's own few devices, and model-specific registers.

use core::arch::asm;

/// Reads a byte.
///
/// # Safety
/// The port belongs to a device of which a read is harmless or intended here.
#[inline]
pub unsafe fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the caller vouches for the port; the instruction touches no memory.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte.
///
/// # Safety
/// The device behind the port does nothing to memory that the kernel uses.
#[inline]
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller vouches for the port.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

/// Reads 32 bits.
///
/// # Safety
/// As for [`in8`].
#[inline]
pub unsafe fn in32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: the caller vouches for the port; the instruction touches no memory.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Model-specific registers (SDM volume 4, chapter 2).
pub mod msr {
    pub const APIC_BASE: u32 = 0x1b;
    pub const PAT: u32 = 0x277;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    /// The first of the x2APIC registers; each stands for 16 bytes of the xAPIC.
    pub const X2APIC: u32 = 0x800;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it.
#[inline]
pub unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the register exists; reading one has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor has it, and the value keeps what the kernel relies on.
#[inline]
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller vouches for register and value. Not `nomem`: some of
    // them start an action that must see earlier stores.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}
