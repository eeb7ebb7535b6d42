//! Marks the start and the end of a measured section for a counter outside the machine.
//!
//! A marker is an instruction that does nothing, at any privilege, on any machine; the
//! plugin in `xtask/plugin/count.c` looks for it and describes its form.

/// Bit of the number that tells the end of a section from its start.
const END: u32 = 0x8000;
/// What sets a marker apart from other instructions that do nothing.
#[cfg(target_os = "none")]
const TAG: u32 = 0x5242_0000;

/// Starts the section `SECTION`, 0 to 0x7fff.
#[inline(always)]
pub fn section_start<const SECTION: u32>() {
    const { assert!(SECTION < END) };
    // SAFETY: an instruction without effect; it does not access the address that it forms.
    #[cfg(target_os = "none")]
    unsafe {
        core::arch::asm!("nop dword ptr [rax + rax + {n}]", n = const TAG | SECTION, options(nostack, preserves_flags));
    }
}

/// Ends the section `SECTION`, 0 to 0x7fff.
#[inline(always)]
pub fn section_end<const SECTION: u32>() {
    const { assert!(SECTION < END) };
    // SAFETY: as above.
    #[cfg(target_os = "none")]
    unsafe {
        core::arch::asm!("nop dword ptr [rax + rax + {n}]", n = const TAG | END | SECTION, options(nostack, preserves_flags));
    }
}
