//! Entries from and returns to threads: system calls, exceptions, interrupts.
//!
//! In user mode the TSS' stack pointer is the end of the thread's frame, so that
//! the processor itself stores the first part of it; the entry pushes the rest
//! behind and only then changes to the kernel stack. Interrupts are off until the
//! return, and what cannot be disabled (NMI, #MC, #DB, #DF) has stacks of its own,
//! so that nothing else is ever pushed on a frame.
//!
//! An interrupt in kernel mode hit the idle loop: nothing is saved, and the loop
//! starts anew when it is resumed. Any other trap in kernel mode is a bug.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu::{self, TablePointer};
use super::frame::{FROM_SYSCALL, Frame};
use super::vectors::{self, Purpose};
use super::{apic, fpu, tlb};
use crate::arch::{Access, Exception};

const DEBUG: u64 = 1;
const NMI: u64 = 2;
const BREAKPOINT: u64 = 3;
const OVERFLOW: u64 = 4;
const DEVICE_NOT_AVAILABLE: u64 = 7;
const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;
const FIRST_INTERRUPT: u64 = 32;

/// The flag that lets the kernel through SMAP; interrupts do not clear it.
const FLAG_AC: u64 = 1 << 18;

// The frame's layout, for the entries.
const ORIGIN: usize = core::mem::offset_of!(Frame, origin);
const RIP: usize = core::mem::offset_of!(Frame, rip);
const CS: usize = core::mem::offset_of!(Frame, cs);
const RFLAGS: usize = core::mem::offset_of!(Frame, rflags);
const RSP: usize = core::mem::offset_of!(Frame, rsp);

global_asm!(
    ".section .text.trap, \"ax\"",
    ".global syscall_entry, resume, trap_stubs, debug_entry, nmi_entry",
    ".global double_fault_entry, machine_check_entry, idle_begin",
    // Stores and loads of the fifteen general registers, in the frame's order.
    ".macro push_registers",
    "  pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %rax",
    "  pushq %r8; pushq %r9; pushq %r10; pushq %r11; pushq %rbx",
    "  pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15",
    ".endm",
    ".macro pop_registers",
    "  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp",
    "  popq %rbx; popq %r11; popq %r10; popq %r9; popq %r8",
    "  popq %rax; popq %rcx; popq %rdx; popq %rsi; popq %rdi",
    ".endm",

    // A system call. CS, SS and the error field of a user frame never change, so
    // only the rest is stored. 25 instructions with SYSCALL itself, 21 back.
    ".balign 64",
    "syscall_entry:",
    "  swapgs",
    "  movq %rsp, %gs:{scratch}",
    "  movq %gs:{current_frame}, %rsp",
    "  movq %r15, 0(%rsp)",
    "  movq %r14, 8(%rsp)",
    "  movq %r13, 16(%rsp)",
    "  movq %r12, 24(%rsp)",
    "  movq %rbp, 32(%rsp)",
    "  movq %rbx, 40(%rsp)",
    "  movq %r10, 56(%rsp)",
    "  movq %r9, 64(%rsp)",
    "  movq %r8, 72(%rsp)",
    "  movq %rax, 80(%rsp)",
    "  movq %rdx, 96(%rsp)",
    "  movq %rsi, 104(%rsp)",
    "  movq %rdi, 112(%rsp)",
    "  movq ${from_syscall}, {origin}(%rsp)",
    "  movq %rcx, {rip}(%rsp)",
    "  movq %r11, {rflags}(%rsp)",
    "  movq %rsp, %rdi",
    "  movq %gs:{scratch}, %rax",
    "  movq %rax, {rsp}(%rdi)",
    "  movq %gs:{kernel_stack}, %rsp",
    "  xorl %ebp, %ebp",
    "  call {syscall}",

    // Returns to the current frame.
    "resume:",
    "  movq %gs:{current_frame}, %rsp",
    "  cmpq ${from_syscall}, {origin}(%rsp)",
    "  jne 2f",
    "  movq 0(%rsp), %r15",
    "  movq 8(%rsp), %r14",
    "  movq 16(%rsp), %r13",
    "  movq 24(%rsp), %r12",
    "  movq 32(%rsp), %rbp",
    "  movq 40(%rsp), %rbx",
    "  movq 56(%rsp), %r10",
    "  movq 64(%rsp), %r9",
    "  movq 72(%rsp), %r8",
    "  movq 80(%rsp), %rax",
    "  movq 96(%rsp), %rdx",
    "  movq 104(%rsp), %rsi",
    "  movq 112(%rsp), %rdi",
    "  movq {rip}(%rsp), %rcx",
    "  movq {rflags}(%rsp), %r11",
    "  movq {rsp}(%rsp), %rsp",
    "  swapgs",
    "  sysretq",
    // Saved by an interrupt or exception, or never run.
    "2:",
    "  testb $3, {cs}(%rsp)",
    "  jz 3f",
    "  swapgs",
    "3:",
    "  pop_registers",
    "  addq $16, %rsp",
    "  iretq",

    // Exceptions and interrupts. A stub for each vector pushes the vector behind
    // the error code.
    ".balign 16",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    "  .balign 16",
    "  .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    "  .else",
    "    pushq $0",
    "  .endif",
    "  pushq $vector",
    "  jmp trap_entry",
    "  .set vector, vector + 1",
    ".endr",

    ".balign 64",
    "trap_entry:",
    "  testb $3, 24(%rsp)",
    "  jz trap_from_kernel",
    "  swapgs",
    "trap_from_user:",
    "  push_registers",
    "  cld",
    "  movq %rsp, %rdi",
    "  movq %gs:{kernel_stack}, %rsp",
    "  xorl %ebp, %ebp",
    "  call {trap_from_user}",
    "  jmp resume",

    "trap_from_kernel:",
    "  pushq %rax",
    "  pushq %rcx",
    "  leaq idle_begin(%rip), %rax",
    "  movq 32(%rsp), %rcx",
    "  subq %rax, %rcx",
    "  cmpq $(idle_end - idle_begin), %rcx",
    "  jae 2f",
    "  movq 16(%rsp), %rdi",
    "  cmpq ${first_interrupt}, %rdi",
    "  jb 2f",
    "  cld",
    "  movq %gs:{kernel_stack}, %rsp",
    "  xorl %ebp, %ebp",
    "  call {interrupt}",
    "  jmp resume",
    "2:",
    "  popq %rcx",
    "  popq %rax",
    "kernel_trap_entry:",
    "  push_registers",
    "  cld",
    "  movq %rsp, %rdi",
    "  andq $-16, %rsp",
    "  call {kernel_trap}",
    "  ud2",

    // The stack of a debug exception is its own. From user mode, it continues as if
    // the processor had pushed on the frame.
    "debug_entry:",
    "  testb $3, 8(%rsp)",
    "  jz 2f",
    "  swapgs",
    "  movq %rax, %gs:{scratch}",
    "  movq %rsp, %rax",
    "  movq %gs:{rsp0}, %rsp",
    "  pushq 32(%rax)",
    "  pushq 24(%rax)",
    "  pushq 16(%rax)",
    "  pushq 8(%rax)",
    "  pushq 0(%rax)",
    "  movq %gs:{scratch}, %rax",
    "  pushq $0",
    "  pushq $1",
    "  jmp trap_from_user",
    "2:",
    "  pushq $0",
    "  pushq $1",
    "  jmp kernel_trap_entry",

    // An NMI may come at any instruction; it uses nothing that depends on GS.
    "nmi_entry:",
    "  pushq $0",
    "  pushq $2",
    "  push_registers",
    "  cld",
    "  movq %rsp, %rdi",
    "  call {nmi}",
    "  pop_registers",
    "  addq $16, %rsp",
    "  iretq",

    // Both are fatal, also from user mode.
    "double_fault_entry:",
    "  pushq $8",
    "  jmp kernel_trap_entry",
    "machine_check_entry:",
    "  pushq $0",
    "  pushq $18",
    "  jmp kernel_trap_entry",

    ".balign 16",
    "idle_begin:",
    "  sti",
    "  hlt",
    "  jmp idle_begin",
    "idle_end:",
    ".text",
    scratch = const cpu::SCRATCH,
    current_frame = const cpu::CURRENT_FRAME,
    kernel_stack = const cpu::KERNEL_STACK,
    rsp0 = const cpu::RSP0,
    origin = const ORIGIN,
    rip = const RIP,
    cs = const CS,
    rflags = const RFLAGS,
    rsp = const RSP,
    from_syscall = const FROM_SYSCALL,
    first_interrupt = const FIRST_INTERRUPT,
    syscall = sym syscall,
    trap_from_user = sym trap_from_user,
    interrupt = sym interrupt,
    kernel_trap = sym kernel_trap,
    nmi = sym nmi,
    options(att_syntax)
);

unsafe extern "C" {
    fn resume() -> !;
    fn syscall_entry();
    fn trap_stubs();
    fn debug_entry();
    fn nmi_entry();
    fn double_fault_entry();
    fn machine_check_entry();
    fn idle_begin();
}

/// Where the idle loop starts.
pub fn idle_entry() -> u64 {
    idle_begin as *const () as u64
}

/// What SYSCALL jumps to.
pub fn syscall_entry_address() -> u64 {
    syscall_entry as *const () as u64
}

/// The frame that this processor returns to.
#[inline]
pub fn current_frame() -> *mut Frame {
    cpu::this().current_frame.get()
}

/// Leaves the stack of the boot code for the current frame, which
/// [`super::switch_to`] must have set.
pub fn enter_first() -> ! {
    assert!(!current_frame().is_null(), "no frame to enter");
    // SAFETY: there is a current frame; nothing on this stack is needed again.
    unsafe { resume() }
}

extern "C" fn syscall(frame: &mut Frame) {
    crate::trap::syscall(frame);
}

extern "C" fn trap_from_user(frame: &mut Frame) {
    if frame.rflags & FLAG_AC != 0 {
        forbid_user_access();
    }
    match frame.origin {
        PAGE_FAULT => {
            let code = frame.error;
            let access = Access {
                write: code & 1 << 1 != 0,
                exec: code & 1 << 4 != 0,
                present: code & 1 != 0,
            };
            crate::trap::page_fault(frame, fault_address() as usize, access);
        }
        DEVICE_NOT_AVAILABLE if fpu::first_use() => {}
        vector @ FIRST_INTERRUPT.. => interrupt(vector),
        _ => {
            let exception = describe(frame);
            crate::trap::exception(frame, exception);
        }
    }
}

/// The user had set the flag that suspends SMAP.
#[cold]
fn forbid_user_access() {
    if super::cpu_features().smap {
        // SAFETY: CLAC exists where SMAP does, and clears one flag.
        unsafe { asm!("clac", options(nomem, nostack)) };
    }
}

/// From user mode or the idle loop.
extern "C" fn interrupt(vector: u64) {
    let vector = vector as u8;
    match vectors::purpose(vector) {
        Purpose::Device => {
            vectors::before_device_interrupt(vector);
            apic::end_of_interrupt();
            crate::trap::device_interrupt(vector);
        }
        Purpose::Timer => {
            cpu::this().armed_deadline.set(u64::MAX);
            apic::end_of_interrupt();
            crate::trap::timer();
        }
        Purpose::Reschedule => {
            apic::end_of_interrupt();
            crate::trap::reschedule();
        }
        Purpose::Shootdown => {
            apic::end_of_interrupt();
            tlb::poll_shootdown();
        }
        Purpose::Refusal => {
            apic::end_of_interrupt();
            crate::trap::dma_refused();
        }
        // A spurious interrupt wants no acknowledgement (SDM 3A, 11.9).
        Purpose::Spurious => {}
    }
}

extern "C" fn kernel_trap(frame: &Frame) -> ! {
    cpu::repair_gs();
    crate::trap::kernel_fault(frame, describe(frame))
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn nmi(frame: &Frame) {
    if STOP.load(Ordering::Acquire) {
        cpu::halt();
    }
    // Nobody else sends one: the hardware reports a failure.
    cpu::repair_gs();
    crate::trap::kernel_fault(frame, describe(frame));
}

/// Halts the other processors, wherever they are. For panics.
pub fn stop_other_cpus() {
    STOP.store(true, Ordering::Release);
    for (_, data) in cpu::others() {
        apic::send_nmi(data.apic_id.load(Ordering::Relaxed));
    }
}

fn fault_address() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

fn describe(frame: &Frame) -> Exception {
    const NAMES: [&str; 32] = [
        "#DE divide error",
        "#DB debug",
        "NMI",
        "#BP breakpoint",
        "#OF overflow",
        "#BR bound range",
        "#UD invalid opcode",
        "#NM device not available",
        "#DF double fault",
        "coprocessor segment overrun",
        "#TS invalid TSS",
        "#NP segment not present",
        "#SS stack segment",
        "#GP general protection",
        "#PF page fault",
        "reserved exception",
        "#MF x87 floating point",
        "#AC alignment check",
        "#MC machine check",
        "#XM SIMD floating point",
        "#VE virtualization",
        "#CP control protection",
        "reserved exception",
        "reserved exception",
        "reserved exception",
        "reserved exception",
        "reserved exception",
        "reserved exception",
        "#HV hypervisor injection",
        "#VC VMM communication",
        "#SX security",
        "reserved exception",
    ];
    let vector = frame.origin;
    let name = usize::try_from(vector)
        .ok()
        .and_then(|vector| NAMES.get(vector));
    Exception {
        vector: vector as u8,
        name: name.copied().unwrap_or("interrupt in kernel mode"),
        code: frame.error,
        addr: if vector == PAGE_FAULT || vector == DOUBLE_FAULT {
            fault_address()
        } else {
            0
        },
    }
}

/// A gate of the interrupt descriptor table (SDM 3A, 7.14.1): two words.
type Gate = [u64; 2];

struct Idt(UnsafeCell<[Gate; 256]>);
// SAFETY: written by `build_idt` before other processors run.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

fn gate(entry: u64, stack: u8, privilege: u64) -> Gate {
    let low = entry & 0xffff
        | cpu::KERNEL_CODE << 16
        | u64::from(stack) << 32
        // Interrupt gate, present.
        | 0x8e << 40
        | privilege << 45
        | (entry >> 16 & 0xffff) << 48;
    [low, entry >> 32]
}

/// Fills the table that all processors share.
pub fn build_idt() {
    let stubs = trap_stubs as *const () as u64;
    let mut gates = [[0; 2]; 256];
    for (vector, slot) in (0..).zip(&mut gates) {
        *slot = match vector {
            DEBUG => gate(debug_entry as *const () as u64, cpu::IST_DEBUG, 0),
            NMI => gate(nmi_entry as *const () as u64, cpu::IST_NMI, 0),
            DOUBLE_FAULT => gate(
                double_fault_entry as *const () as u64,
                cpu::IST_DOUBLE_FAULT,
                0,
            ),
            MACHINE_CHECK => gate(
                machine_check_entry as *const () as u64,
                cpu::IST_MACHINE_CHECK,
                0,
            ),
            // User code may raise these with INT3 and INTO.
            BREAKPOINT | OVERFLOW => gate(stubs + 16 * vector, 0, 3),
            _ => gate(stubs + 16 * vector, 0, 0),
        };
    }
    // SAFETY: called once, before any processor uses the table.
    unsafe { *IDT.0.get() = gates };
}

/// Makes this processor use the table.
pub fn load_idt() {
    let pointer = TablePointer {
        limit: size_of::<[Gate; 256]>() as u16 - 1,
        base: IDT.0.get() as u64,
    };
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}
