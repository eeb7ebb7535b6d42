//! The saved registers of a thread.

use super::cpu;
use super::layout::USER_MAX;

/// `Frame::origin` of a frame that the system-call entry saved; interrupts and
/// exceptions leave their vector, which is below.
pub const FROM_SYSCALL: u64 = 256;

const ALWAYS_SET: u64 = 1 << 1;
const INTERRUPTS: u64 = 1 << 9;

/// All registers of a thread but the floating-point ones and the segment bases.
/// The order is that in which the trap entries store them: the processor pushes
/// the last five itself, straight into the frame. Aligned, because the processor
/// aligns the stack before it pushes (SDM volume 3A, 7.14.2).
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Which kind of trap saved the frame; decides how the kernel returns to it.
    pub(super) origin: u64,
    pub(super) error: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub rsp: u64,
    pub(super) ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 176);

impl Default for Frame {
    /// A user frame with all registers zero.
    fn default() -> Frame {
        Frame::user(0, 0, 0, 0)
    }
}

impl Frame {
    /// A frame that starts a user thread at `entry` with the stack pointer `stack`
    /// and two arguments. Any values are safe: at worst the thread faults.
    pub fn user(entry: usize, stack: usize, arg0: usize, arg1: usize) -> Frame {
        Frame {
            rip: canonical(entry),
            rsp: stack as u64,
            rdi: arg0 as u64,
            rsi: arg1 as u64,
            cs: cpu::USER_CODE,
            ss: cpu::USER_DATA,
            ..Frame::zero()
        }
    }

    /// The frame of the idle loop on processor `cpu`.
    pub fn idle(cpu: usize) -> Frame {
        Frame {
            rip: super::trap::idle_entry(),
            rsp: cpu::idle_stack(cpu),
            cs: cpu::KERNEL_CODE,
            ss: cpu::KERNEL_DATA,
            rflags: ALWAYS_SET,
            ..Frame::zero()
        }
    }

    fn zero() -> Frame {
        Frame {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            origin: 0,
            error: 0,
            rip: 0,
            cs: 0,
            rflags: ALWAYS_SET | INTERRUPTS,
            rsp: 0,
            ss: 0,
        }
    }

    /// The system call's number.
    #[inline]
    pub fn syscall_number(&self) -> usize {
        self.rax as usize
    }

    /// The system call's argument `n`, below 6; others are 0.
    #[inline(always)]
    pub fn syscall_argument(&self, n: usize) -> usize {
        let value = match n {
            0 => self.rdi,
            1 => self.rsi,
            2 => self.rdx,
            3 => self.r10,
            4 => self.r8,
            5 => self.r9,
            _ => 0,
        };
        value as usize
    }

    /// What the system call returns.
    #[inline]
    pub fn set_result(&mut self, value: isize, second: usize) {
        self.rax = value as u64;
        self.rdx = second as u64;
    }

    /// The instruction pointer.
    #[inline]
    pub fn ip(&self) -> usize {
        self.rip as usize
    }

    /// The frame pointer, where [`super::backtrace`] starts.
    #[inline]
    pub fn fp(&self) -> usize {
        self.rbp as usize
    }

    /// All registers with their names, for reports.
    pub fn registers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("rip", self.rip),
            ("rsp", self.rsp),
            ("rbp", self.rbp),
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
            ("rflags", self.rflags),
            ("cs", self.cs),
            ("ss", self.ss),
        ]
        .into_iter()
    }
}

/// IRET faults in the kernel on a non-canonical address; such a one becomes the
/// first address that no process can map, where the thread faults.
fn canonical(ip: usize) -> u64 {
    if ip < USER_MAX {
        ip as u64
    } else {
        USER_MAX as u64
    }
}

/// The frame pointer of the caller, for a backtrace of the kernel itself.
#[inline(always)]
pub fn frame_pointer() -> usize {
    let fp: usize;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) fp, options(nomem, nostack, preserves_flags))
    };
    fp
}

/// Follows the chain of frame pointers from `fp` and stores return addresses in
/// `out`; returns their number. `read` fetches a word, if it can be read. Frames
/// must lie at ascending addresses, so that the walk ends on any memory.
pub fn backtrace(fp: usize, read: impl Fn(usize) -> Option<usize>, out: &mut [u64]) -> usize {
    let mut fp = fp;
    let mut count = 0;
    for slot in out {
        if fp == 0 || !fp.is_multiple_of(8) {
            break;
        }
        let return_address = fp.checked_add(8).and_then(&read);
        let (Some(next), Some(address)) = (read(fp), return_address) else {
            break;
        };
        if address == 0 {
            break;
        }
        *slot = address as u64;
        count += 1;
        if next <= fp {
            break;
        }
        fp = next;
    }
    count
}
