//! The way into a program and out of it.

use core::fmt::Display;

/// Declares the program's main function: `rt::entry!(main);`. See the crate's documentation.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn __bulkhead_main() -> i32 {
                $crate::entry::ExitStatus::code($main())
            }
        };
    };
}

/// What `main` may return.
pub trait ExitStatus {
    /// The exit code, 0 for success.
    fn code(self) -> i32;
}

impl ExitStatus for () {
    fn code(self) -> i32 {
        0
    }
}

impl ExitStatus for i32 {
    fn code(self) -> i32 {
        self
    }
}

impl<T: ExitStatus, E: Display> ExitStatus for Result<T, E> {
    fn code(self) -> i32 {
        match self {
            Ok(status) => status.code(),
            Err(error) => {
                crate::eprintln!("{}: {error}", crate::startup::program_name());
                1
            }
        }
    }
}

/// Ends the program in an orderly way: what was printed goes out first.
pub fn exit(code: i32) -> ! {
    let _ = crate::io::flush();
    sys::exit(code)
}

#[cfg(target_os = "none")]
mod target {
    use core::fmt::Write;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicBool, Ordering};

    use sys::abi::RawHandle;

    unsafe extern "Rust" {
        /// What [`entry!`](crate::entry!) declares.
        fn __bulkhead_main() -> i32;
    }

    /// First instruction of a process: the kernel passes the bootstrap channel's handle.
    #[unsafe(no_mangle)]
    extern "C" fn _start(bootstrap: u64, _arg: usize) -> ! {
        crate::startup::set_bootstrap(RawHandle(bootstrap as u32));
        // SAFETY: `entry!` defines the function with this signature; it is called once, here.
        let code = unsafe { __bulkhead_main() };
        crate::exit(code)
    }

    /// Text of a fixed size: a panic may come from the allocator.
    struct Text {
        bytes: [u8; 512],
        len: usize,
    }

    impl Write for Text {
        fn write_str(&mut self, s: &str) -> core::fmt::Result {
            let room = &mut self.bytes[self.len..];
            let n = room.len().min(s.len());
            room[..n].copy_from_slice(&s.as_bytes()[..n]);
            self.len += n;
            Ok(())
        }
    }

    static PANICKING: AtomicBool = AtomicBool::new(false);

    /// Says what happened, in the log and on standard error, then ends in an illegal instruction, so
    /// that the kernel's crash report has registers and backtrace.
    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        // A panic while panicking goes straight to the end.
        if !PANICKING.swap(true, Ordering::Relaxed) {
            let mut text = Text {
                bytes: [0; 512],
                len: 0,
            };
            let name = crate::startup::program_name_if_known();
            let _ = write!(text, "{name}: panicked");
            if let Some(at) = info.location() {
                let _ = write!(text, " at {}:{}", at.file(), at.line());
            }
            let _ = write!(text, ": {}", info.message());
            let line = &text.bytes[..text.len];
            // The log has the process's name already.
            crate::log::write_line(line.get(name.len() + 2..).unwrap_or(line));
            crate::io::panic_message(line);
        }
        // SAFETY: the instruction faults; nothing runs after it.
        unsafe { core::arch::asm!("ud2", options(noreturn)) }
    }
}
