//! The kernel's address space and the arithmetic on it.
//!
//! | from | what |
//! |---|---|
//! | 0 | the process, up to [`USER_MAX`] |
//! | [`DIRECT_MAP`] | all physical memory, at least 4 GiB |
//! | [`REGION`] | kernel stacks between unmapped pages, device registers |
//! | [`IMAGE`] | the kernel's image |

pub use bulkhead_abi::{PAGE_SIZE, USER_MAX};

// The last 64 KiB of the lower half stay unmapped, so that a system call cannot return
// to a non-canonical address (SYSRET would fault in the kernel then).
const _: () = assert!(USER_MAX <= 0x7fff_ffff_0000 && PAGE_SIZE == 4096);

/// Where physical address 0 is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Stacks and device registers.
pub const REGION: u64 = 0xffff_c000_0000_0000;
/// Where physical address 0 would be, seen from the kernel's image.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// The direct map's address of a physical address.
#[inline]
pub fn phys_to_virt(pa: u64) -> *mut u8 {
    (DIRECT_MAP + pa) as *mut u8
}

/// Copies `len` bytes from low to high addresses, by words. For short lengths that the compiler does not know.
///
/// # Safety
/// `from` leads to `len` readable bytes and `to` to as many writable ones; nobody relies on what becomes of
/// ranges that overlap or change meanwhile.
#[inline(always)]
pub unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear in all Rust code.
    unsafe {
        core::arch::asm!("rep movsq", "mov ecx, {rest:e}", "rep movsb", rest = in(reg) len & 7,
            inout("rcx") len / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// The index into the table of `level` (4 = root, 1 = the last) for `va`.
#[inline]
pub const fn index(va: usize, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1))) & 511
}

/// The bytes that one entry of a table of `level` maps.
#[inline]
pub const fn entry_span(level: u32) -> usize {
    1 << (12 + 9 * (level - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_select_nine_bits_each() {
        let va = (1 << 39) * 3 + (1 << 30) * 5 + (1 << 21) * 7 + (1 << 12) * 9 + 11;
        assert_eq!([4, 3, 2, 1].map(|level| index(va, level)), [3, 5, 7, 9]);
        assert_eq!(index(DIRECT_MAP as usize, 4), 256);
        assert_eq!(index(REGION as usize, 4), 384);
        assert_eq!(
            (index(IMAGE as usize, 4), index(IMAGE as usize, 3)),
            (511, 510)
        );
        assert_eq!(index(USER_MAX - 1, 4), 255);
    }

    #[test]
    fn spans_are_those_of_the_page_sizes() {
        assert_eq!(
            [1, 2, 3, 4].map(entry_span),
            [4 << 10, 2 << 20, 1 << 30, 512 << 30]
        );
    }
}
