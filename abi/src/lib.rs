//! What the kernel and its user processes agree on: system-call numbers, handles, rights,
//! errors, signals, packets and the records that `object_info` fills.
//!
//! Plain data without dependencies. It holds no wrappers (see `rt`) and no protocols between
//! processes (see `proto`).
//!
//! # Calling convention (x86_64)
//!
//! `syscall` with the number in `rax` and up to six arguments in `rdi`, `rsi`, `rdx`, `r10`,
//! `r8`, `r9`. The result comes back in `rax` (negative: an [`Error`] code) and, where a call
//! says so, a second value in `rdx`. `rcx` and `r11` are lost; every other register is kept.
//!
//! The first thread of a process and every further one start with `rdi` = the handle and
//! `rsi` = the argument of their [`ThreadArgs`].
#![no_std]

pub mod error;
pub mod info;
pub mod layout;
pub mod object;
pub mod packet;
pub mod syscall;

pub use error::{Error, Result};
pub use info::*;
pub use layout::*;
pub use object::*;
pub use packet::*;
pub use syscall::*;

/// Version of this interface; a process checks it against [`SystemInfo::abi_version`].
pub const ABI_VERSION: u32 = 1;
