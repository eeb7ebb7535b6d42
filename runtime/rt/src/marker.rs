//! Marks for the instruction counter.

/// Starts (`marker!(start N)`) or ends (`marker!(stop N)`) section N of a measurement, 0 to 0x7fff:
/// an instruction that does nothing and that the counter knows, `nopl 0x5242NNNN(%rax,%rax)`.
#[macro_export]
macro_rules! marker {
    (start $id:expr) => {
        $crate::Marker::<{ $crate::marker_word($id, false) }>::mark()
    };
    (stop $id:expr) => {
        $crate::Marker::<{ $crate::marker_word($id, true) }>::mark()
    };
}

/// The displacement of a marker's address.
#[doc(hidden)]
pub const fn marker_word(id: u32, stop: bool) -> u32 {
    assert!(id < 0x8000, "a section's number is below 0x8000");
    0x5242_0000 | id | if stop { 0x8000 } else { 0 }
}

#[doc(hidden)]
pub struct Marker<const WORD: u32>;

impl<const WORD: u32> Marker<WORD> {
    /// Executes the marker. Not `nomem`: what comes before and after stays there.
    #[inline(always)]
    pub fn mark() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a no-operation that accesses nothing.
        unsafe {
            core::arch::asm!(
                ".byte 0x0f, 0x1f, 0x84, 0x00",
                ".long {}",
                const WORD,
                options(nostack, preserves_flags)
            )
        };
    }
}
