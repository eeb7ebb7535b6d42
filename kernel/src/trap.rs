//! Hooks that the architecture's trap code calls, each with interrupts disabled on the CPU's own stack. Every one takes the
//! kernel lock, does its work, and lets the scheduler decide which thread the CPU returns to.

use bulkhead_abi::exit;

use crate::arch::{Access, Exception, Frame};
use crate::lock::{Cell, lock};
use crate::object::process::Process;
use crate::object::thread::Thread;
use crate::{dma, irq, report, sched, syscall};
use alloc::sync::Arc;

/// Events since boot.
#[derive(Clone, Copy)]
pub struct Counters {
    pub syscalls: u64,
    pub page_faults: u64,
}

static SYSCALLS: Cell<u64> = Cell::new(0);
static PAGE_FAULTS: Cell<u64> = Cell::new(0);

/// Events since boot.
pub fn counters() -> Counters {
    Counters {
        syscalls: SYSCALLS.get(),
        page_faults: PAGE_FAULTS.get(),
    }
}

/// A system call.
pub fn syscall(_frame: &mut Frame) {
    let _lock = lock();
    SYSCALLS.set(SYSCALLS.get() + 1);
    sched::serve_current(syscall::dispatch);
}

/// A page fault of a user thread.
pub fn page_fault(_frame: &mut Frame, address: usize, access: Access) {
    let _lock = lock();
    sched::serve_current(|thread| {
        let process = thread.process();
        PAGE_FAULTS.set(PAGE_FAULTS.get() + 1);
        process.page_faults.set(process.page_faults.get() + 1);
        if let Err(error) = process.space().fault(address, access) {
            let code = u64::from(access.present)
                | u64::from(access.write) << 1
                | u64::from(access.exec) << 4;
            let e = Exception {
                vector: 14,
                name: "page fault",
                code,
                addr: address as u64,
            };
            end_by_fault(thread, process, e, error.text());
        }
    });
}

/// Another exception of a user thread.
pub fn exception(_frame: &mut Frame, e: Exception) {
    let _lock = lock();
    if let Some(thread) = sched::current() {
        end_by_fault(&thread, thread.process(), e, "exception");
    }
    sched::finish_hook();
}

fn end_by_fault(thread: &Arc<Thread>, process: &Arc<Process>, e: Exception, why: &str) {
    if process.is_dying() {
        return;
    }
    let crash = report::of_thread(thread, Some(e));
    report::print(&crash, e.name, why);
    process.set_crash(crash);
    process.kill(exit::FAULTED, -1);
}

/// The CPU's timer.
pub fn timer() {
    let _lock = lock();
    sched::tick();
    sched::finish_hook();
}

/// Another CPU wants this one to decide anew.
pub fn reschedule() {
    let _lock = lock();
    sched::kicked();
    sched::finish_hook();
}

/// A device interrupt.
pub fn device_interrupt(vector: u8) {
    let _lock = lock();
    sched::count_interrupt();
    irq::dispatch(vector);
    sched::finish_hook();
}

/// The IOMMU refused a device something.
pub fn dma_refused() {
    let _lock = lock();
    sched::count_interrupt();
    dma::refused();
    sched::finish_hook();
}

/// An exception in the kernel itself.
pub fn kernel_fault(frame: &Frame, e: Exception) -> ! {
    report::kernel_fault(frame, e)
}
