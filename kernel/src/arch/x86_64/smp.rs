//! Starts the other processors (SDM volume 3A, 9.4): INIT, start-up message, real
//! mode, long mode, `crate::secondary_main`.

use core::arch::global_asm;
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::boot::{self, Log, TRAMPOLINE, kernel_root};
use super::cpu::{self, MAX_CPUS};
use super::layout::{PAGE_SIZE, phys_to_virt};
use super::{apic, kernel_map, paging, time};
use crate::arch::NoMemory;
use crate::memory::frames;

const KERNEL_STACK_LEN: usize = 64 << 10;
const INTERRUPT_STACK_LEN: usize = 16 << 10;

/// Between INIT and the start-up message. The 10 ms of the old specification are
/// for processors with an external APIC.
const INIT_DELAY_NS: u64 = 200_000;
/// After that the start-up message is repeated once.
const STARTUP_REPEAT_NS: u64 = 20_000_000;
/// After that the processor is given up.
const STARTUP_TIMEOUT_NS: u64 = 2_000_000_000;

global_asm!(
    ".section .rodata.trampoline, \"a\"",
    ".global trampoline_begin, trampoline_end, trampoline_parameters",
    ".code16",
    "trampoline_begin:",
    "  cli",
    "  cld",
    "  xorw %ax, %ax",
    "  movw %ax, %ds",
    "  lgdtl {page} + trampoline_gdt_pointer - trampoline_begin",
    "  movl %cr0, %eax",
    "  orl $1, %eax",
    "  movl %eax, %cr0",
    "  ljmpl $8, $({page} + trampoline_32 - trampoline_begin)",
    ".code32",
    "trampoline_32:",
    "  movw $16, %ax",
    "  movw %ax, %ds",
    "  movw %ax, %es",
    "  movw %ax, %ss",
    "  movl %cr4, %eax",
    "  orl $0x20, %eax",
    "  movl %eax, %cr4",
    "  movl {page} + trampoline_parameters - trampoline_begin, %eax",
    "  movl %eax, %cr3",
    "  movl $0xc0000080, %ecx",
    "  rdmsr",
    "  orl $0x900, %eax",
    "  wrmsr",
    "  movl %cr0, %eax",
    "  orl $0x80010001, %eax",
    "  movl %eax, %cr0",
    "  ljmpl $24, $({page} + trampoline_64 - trampoline_begin)",
    ".code64",
    "trampoline_64:",
    "  movq trampoline_parameters + 8(%rip), %rsp",
    "  movq trampoline_parameters + 16(%rip), %rdi",
    "  movq %rsp, %rsi",
    "  xorl %ebp, %ebp",
    "  callq *trampoline_parameters + 24(%rip)",
    "  ud2",
    ".balign 8",
    // 32-bit code, data, 64-bit code.
    "trampoline_gdt:",
    "  .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    "trampoline_gdt_pointer:",
    "  .word 31",
    "  .long {page} + trampoline_gdt - trampoline_begin",
    ".balign 8",
    // Root table, stack, number, entry.
    "trampoline_parameters:",
    "  .quad 0, 0, 0, 0",
    "trampoline_end:",
    ".text",
    page = const TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_begin: u8;
    static trampoline_parameters: u8;
    static trampoline_end: u8;
}

/// The local APICs of the machine, in the MADT's order; set by `init`.
static APIC_IDS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(usize::MAX) }; MAX_CPUS];

/// Notes a processor for [`start_secondary_cpus`]. Those behind [`MAX_CPUS`] are not
/// used.
pub fn add_processor(apic_id: u32) {
    let free = APIC_IDS
        .iter()
        .find(|slot| slot.load(Ordering::Relaxed) == usize::MAX);
    if let Some(slot) = free {
        slot.store(apic_id as usize, Ordering::Relaxed);
    }
}

/// Allocates the stacks of processor `cpu` and returns the top of the kernel stack.
pub fn allocate_stacks(data: &cpu::PerCpu) -> Result<u64, NoMemory> {
    for entry in [
        cpu::IST_DOUBLE_FAULT,
        cpu::IST_NMI,
        cpu::IST_MACHINE_CHECK,
        cpu::IST_DEBUG,
    ] {
        data.set_interrupt_stack(entry, kernel_map::stack(INTERRUPT_STACK_LEN)?);
    }
    kernel_map::stack(KERNEL_STACK_LEN)
}

/// Starts all processors that the firmware lists, up to [`MAX_CPUS`]. One that does
/// not come is reported in the log and left out.
pub fn start_secondary_cpus() {
    let usable = boot::boot_info().memory.iter().any(|region| {
        region.kind == ::boot::info::MemoryKind::Kernel
            && region.start <= TRAMPOLINE
            && TRAMPOLINE < region.end()
    });
    let tables = [(); 3].map(|()| frames::alloc_zeroed());
    let [Some(first), Some(second), Some(third)] = tables else {
        tables.into_iter().flatten().for_each(frames::free);
        return;
    };
    if usable {
        copy_trampoline();
        // SAFETY: fresh frames, freed after the mapping is gone. The processors load
        // CR3 in 64-bit mode only for the root, which is in the image.
        unsafe { boot::map_trampoline([first, second, third]) };
        let own = cpu::this().apic_id.load(Ordering::Relaxed) as usize;
        let ids = APIC_IDS.iter().map(|slot| slot.load(Ordering::Relaxed));
        for apic_id in ids.filter(|&id| id != usize::MAX && id != own) {
            // Numbers have no gaps, so that a processor that fails gives its own on.
            let cpu = cpu::cpu_count();
            let started = cpu::of(cpu).is_some_and(|data| start(cpu, data, apic_id as u32));
            if !started {
                // Writing to the serial port cannot fail.
                let _ = writeln!(Log, "processor with APIC ID {apic_id} does not start");
            }
        }
        boot::unmap_trampoline();
    }
    [first, second, third].into_iter().for_each(frames::free);
}

fn copy_trampoline() {
    let begin = &raw const trampoline_begin;
    let len = &raw const trampoline_end as usize - begin as usize;
    assert!(len <= PAGE_SIZE);
    // SAFETY: the page is reserved for this in the memory map.
    unsafe { phys_to_virt(TRAMPOLINE).copy_from_nonoverlapping(begin, len) };
}

fn start(cpu: usize, data: &'static cpu::PerCpu, apic_id: u32) -> bool {
    let Ok(stack) = allocate_stacks(data) else {
        return false;
    };
    let offset = &raw const trampoline_parameters as usize - &raw const trampoline_begin as usize;
    let entry: extern "C" fn(usize, u64) -> ! = secondary_entry;
    let parameters = [kernel_root(), stack, cpu as u64, entry as usize as u64];
    // SAFETY: inside the reserved page; no processor is using it.
    unsafe {
        phys_to_virt(TRAMPOLINE)
            .add(offset)
            .cast::<[u64; 4]>()
            .write_volatile(parameters)
    };
    let came = |timeout_ns: u64| {
        let end = time::now_ns() + timeout_ns;
        loop {
            if data.online.load(Ordering::Acquire) {
                return true;
            }
            if time::now_ns() > end {
                return false;
            }
            core::hint::spin_loop();
        }
    };
    apic::send_init(apic_id);
    time::delay_ns(INIT_DELAY_NS);
    apic::send_startup(apic_id, TRAMPOLINE);
    if came(STARTUP_REPEAT_NS) {
        return true;
    }
    apic::send_startup(apic_id, TRAMPOLINE);
    came(STARTUP_TIMEOUT_NS)
}

extern "C" fn secondary_entry(cpu: usize, stack: u64) -> ! {
    // SAFETY: `start` gave each processor its own number, and this is the processor's first code; the
    // kernel's tables are loaded.
    unsafe {
        cpu::load_tables(cpu, stack);
        cpu::set_control_registers();
        paging::load_cr3(kernel_root());
    }
    apic::enable();
    cpu::set_online(cpu);
    crate::secondary_main(cpu)
}
