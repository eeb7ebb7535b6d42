//! Random system calls from a seed: what a hostile process does.
//!
//! `kernel-test-child` makes these calls for real; the kernel's tests on the host, also under Miri, put the
//! same seeds' calls to its portable parts.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod random;

use alloc::vec::Vec;

use bulkhead_abi::{PAGE_SIZE, Syscall, USER_MAX};
pub use random::Random;

/// Length of the memory that the caller owns and most pointers lead into, in bytes.
pub const AREA_BYTES: usize = 16 * PAGE_SIZE;
/// Handles that are remembered.
const HANDLES_MAX: usize = 400;

/// A system call: a number, which may be none that exists, and its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// What goes into the number's register.
    pub number: usize,
    /// What goes into the arguments' registers.
    pub args: [usize; 6],
}

impl Call {
    /// The call that the number names.
    pub const fn syscall(&self) -> Option<Syscall> {
        Syscall::from_number(self.number)
    }
}

/// A caller that knows its handles and the place of its memory. The same seed, answers and times give the
/// same calls.
#[derive(Debug)]
pub struct Caller {
    random: Random,
    handles: Vec<u32>,
    area: usize,
}

impl Caller {
    /// A caller with these handles, and [`AREA_BYTES`] of memory at `area`.
    pub fn new(seed: u64, handles: Vec<u32>, area: usize) -> Caller {
        Caller {
            random: Random::new(seed),
            handles,
            area,
        }
    }

    /// The next call. Deadlines are at most about a second away, so that every call comes back; most calls
    /// that would end the caller, and lines for the log, are left out.
    pub fn call(&mut self, now_ns: u64) -> Call {
        loop {
            let call = self.draw(now_ns);
            match call.syscall() {
                Some(Syscall::Kill) if self.random.below(20) != 0 => {}
                Some(Syscall::Log) => {}
                _ => return call,
            }
        }
    }

    /// Remembers what a call returned, if it makes handles.
    pub fn answered(&mut self, call: &Call, value: isize, second: usize) {
        let makes_handle = call.syscall().is_some_and(|syscall| {
            syscall.name().ends_with("_create")
                || matches!(syscall, Syscall::HandleDuplicate | Syscall::ThreadStart)
        });
        if makes_handle && value > 0 && self.handles.len() < HANDLES_MAX {
            self.handles.push(value as u32);
            if second != 0 {
                self.handles.push(second as u32);
            }
        }
    }

    fn draw(&mut self, now_ns: u64) -> Call {
        let number = match self.random.below(50) {
            n if n < 42 => n as usize,
            _ => self.random.number() as usize,
        };
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = self.argument();
        }
        if let Some(deadline) = deadline_argument(number).and_then(|at| args.get_mut(at)) {
            *deadline = match self.random.below(3) {
                0 => 0,
                1 => self.random.below(1 << 30) as usize,
                _ => now_ns.saturating_add(self.random.below(20_000)) as usize,
            };
        }
        Call { number, args }
    }

    fn argument(&mut self) -> usize {
        let random = &mut self.random;
        match random.below(12) {
            0..=3 => {
                let pick = random.below(self.handles.len().max(1) as u64) as usize;
                self.handles.get(pick).copied().unwrap_or(0) as usize
            }
            4 => random.below(64) as usize,
            5 => self.area + random.below(AREA_BYTES as u64) as usize,
            6 => self.area + AREA_BYTES - random.below(64) as usize,
            7 => 1usize << random.below(64),
            8 => (1usize << random.below(64)).wrapping_sub(1),
            9 => USER_MAX.wrapping_sub(random.below(8192) as usize),
            10 => 0xffff_fffd + random.below(3) as usize,
            _ => random.number() as usize,
        }
    }
}

/// Which argument of a call is a deadline.
fn deadline_argument(number: usize) -> Option<usize> {
    match Syscall::from_number(number)? {
        Syscall::PortWait => Some(3),
        Syscall::ChannelRead => Some(5),
        Syscall::ChannelCall | Syscall::FutexWait => Some(2),
        _ => None,
    }
}
