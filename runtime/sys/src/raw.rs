//! The `syscall` instruction, once.

use crate::abi::{Error, Result, Syscall};

/// `rax` and `rdx` after a call.
pub(crate) struct Raw {
    pub(crate) value: isize,
    pub(crate) second: usize,
}

impl Raw {
    /// The value, or the error that it codes.
    #[inline]
    pub(crate) fn result(self) -> Result<usize> {
        if self.value < 0 {
            Err(Error::from_code(self.value as i32))
        } else {
            Ok(self.value as usize)
        }
    }

    /// Both values, or the error.
    #[inline]
    pub(crate) fn pair(self) -> Result<(usize, usize)> {
        if self.value < 0 {
            Err(Error::from_code(self.value as i32))
        } else {
            Ok((self.value as usize, self.second))
        }
    }

    /// For calls without a value.
    #[inline]
    pub(crate) fn unit(self) -> Result<()> {
        self.result().map(|_| ())
    }
}

/// Makes a system call; missing arguments are 0.
///
/// # Safety
///
/// Arguments that are addresses follow what the call says of them: memory that the kernel reads is
/// initialised, memory that it writes is writable, for the length given, and not borrowed
/// otherwise. Calls that map, unmap or protect memory or start threads touch no memory that safe
/// code relies on.
#[inline(always)]
#[cfg(target_os = "none")]
pub(crate) unsafe fn syscall<const N: usize>(call: Syscall, args: [usize; N]) -> Raw {
    let arg = |i: usize| if i < N { args[i] } else { 0 };
    let value: isize;
    let second: usize;
    // Each arm loads only the registers that its call has arguments for.
    // SAFETY: the kernel keeps every register except `rax`, `rdx`, `rcx` and `r11`, and uses no user
    // stack; memory is the caller's promise.
    unsafe {
        match N {
            0..=2 => core::arch::asm!("syscall", inlateout("rax") call as usize => value,
                in("rdi") arg(0), in("rsi") arg(1), lateout("rdx") second,
                lateout("rcx") _, lateout("r11") _, options(nostack)),
            3 => core::arch::asm!("syscall", inlateout("rax") call as usize => value,
                in("rdi") arg(0), in("rsi") arg(1), inlateout("rdx") arg(2) => second,
                lateout("rcx") _, lateout("r11") _, options(nostack)),
            _ => core::arch::asm!("syscall", inlateout("rax") call as usize => value,
                in("rdi") arg(0), in("rsi") arg(1), inlateout("rdx") arg(2) => second,
                in("r10") arg(3), in("r8") arg(4), in("r9") arg(5),
                lateout("rcx") _, lateout("r11") _, options(nostack)),
        }
    }
    Raw { value, second }
}

/// Makes a call of the stand-in for the kernel; missing arguments are 0.
///
/// # Safety
///
/// As for the real one.
#[cfg(not(target_os = "none"))]
pub(crate) unsafe fn syscall<const N: usize>(call: Syscall, args: [usize; N]) -> Raw {
    let mut all = [0usize; 6];
    for (to, from) in all.iter_mut().zip(args) {
        *to = from;
    }
    // SAFETY: the caller's promise is the one that the stand-in asks for.
    let (value, second) = unsafe { crate::host::dispatch(call, all) };
    Raw { value, second }
}
