//! Reports of faults: of user threads, kept with their process, and of the kernel itself.

use bulkhead_abi::{BACKTRACE_MAX, CrashReport, REGISTER_NAMES};

use crate::arch::{self, Exception, Frame};
use crate::memory::user;
use crate::object::name_text;
use crate::object::thread::Thread;

/// Registers and backtrace of a thread that does not run, or that the caller is.
pub fn of_thread(thread: &Thread, e: Option<Exception>) -> CrashReport {
    // SAFETY: under the kernel lock, and the thread is in the kernel or not on a CPU: nobody writes its frame.
    let frame: &Frame = unsafe { &*thread.frame() };
    let process = thread.process();
    let mut crash = CrashReport {
        process_koid: process.base.koid(),
        thread_koid: thread.base.koid(),
        name: process.name(),
        vector: e.map_or(0, |e| u32::from(e.vector)),
        code: e.map_or(0, |e| e.code as u32),
        address: e.map_or(0, |e| e.addr),
        time_ns: arch::now_ns(),
        ..CrashReport::default()
    };
    for (name, value) in frame.registers() {
        if let Some(at) = REGISTER_NAMES.iter().position(|n| *n == name) {
            crash.registers[at] = value;
        }
    }
    let read = |address: usize| {
        user::read_record::<u64>(process.space(), address)
            .ok()
            .map(|v| v as usize)
    };
    crash.backtrace[0] = frame.ip() as u64;
    arch::backtrace(frame.fp(), read, &mut crash.backtrace[1..BACKTRACE_MAX]);
    crash
}

/// Writes a crash report to the log.
pub fn print(crash: &CrashReport, what: &str, why: &str) {
    let name = name_text(&crash.name);
    let pid = crash.process_koid;
    if crash.vector == 14 {
        let access = match (crash.code & 2 != 0, crash.code & 16 != 0) {
            (_, true) => "execute",
            (true, _) => "write",
            _ => "read",
        };
        crate::log!(
            "{name} ({pid}): {what}: {access} of {:#x}: {why}",
            crash.address
        );
    } else {
        crate::log!(
            "{name} ({pid}): {what} (vector {}, code {:#x})",
            crash.vector,
            crash.code
        );
    }
    for (names, values) in REGISTER_NAMES.chunks(4).zip(crash.registers.chunks(4)) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| (names[n], values[n]));
        crate::log!(
            "{name} ({pid}):   {:>6} {:016x} {:>6} {:016x} {:>6} {:016x} {:>6} {:016x}",
            a.0,
            a.1,
            b.0,
            b.1,
            c.0,
            c.1,
            d.0,
            d.1
        );
    }
    for (n, address) in crash.backtrace.iter().take_while(|a| **a != 0).enumerate() {
        crate::log!("{name} ({pid}):   #{n} {address:#x}");
    }
}

/// An exception in the kernel.
pub fn kernel_fault(frame: &Frame, e: Exception) -> ! {
    crate::begin_panic();
    crate::log::panic_line(format_args!(
        "KERNEL PANIC on CPU {}: {} (vector {}, code {:#x}, address {:#x})",
        arch::cpu_id(),
        e.name,
        e.vector,
        e.code,
        e.addr
    ));
    for (name, value) in frame.registers() {
        crate::log::panic_line(format_args!("  {name:>6} {value:016x}"));
    }
    crate::log::panic_line(format_args!("  #0 {:#x}", frame.ip()));
    print_backtrace(frame.fp());
    crate::end_panic()
}

/// Prints the kernel's own backtrace from a frame pointer.
pub fn print_backtrace(fp: usize) {
    let mut addresses = [0; BACKTRACE_MAX];
    let read = |address: usize| {
        // Kernel stacks and the image lie above this address; anything else is no frame pointer.
        if address < 0xffff_c000_0000_0000 || !address.is_multiple_of(8) {
            return None;
        }
        // SAFETY: frame pointers chain through the kernel's own stack, which is mapped. A broken chain may fault; the
        // double panic that follows stops the machine, which is about to stop anyway.
        Some(unsafe { (address as *const usize).read_volatile() })
    };
    let n = arch::backtrace(fp, read, &mut addresses);
    for (i, address) in addresses[..n].iter().enumerate() {
        crate::log::panic_line(format_args!("  #{} {address:#x}", i + 1));
    }
}
