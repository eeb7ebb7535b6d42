//! Per-processor data, descriptor tables, control registers.

use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::ptr::{self, addr_of, addr_of_mut};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::features::cpu_features;
use super::fpu::ThreadState;
use super::frame::Frame;
use super::port::{msr, read_msr, write_msr};
use super::{io_bitmap, paging, trap};

/// The most processors that are started.
pub const MAX_CPUS: usize = 8;

// Selectors. SYSRET wants user data and 64-bit user code behind each other, after a
// place for 32-bit code that stays empty (SDM volume 2B, SYSRET).
pub const KERNEL_CODE: u64 = 0x08;
pub const KERNEL_DATA: u64 = 0x10;
pub const USER_DATA: u64 = 0x20 | 3;
pub const USER_CODE: u64 = 0x28 | 3;
const TSS: u16 = 0x30;
const SYSRET_BASE: u64 = 0x18 | 3;

// Entries of the interrupt stack table. Those exceptions may come at any
// instruction, also between a system call's entry and its change of stacks.
pub const IST_DOUBLE_FAULT: u8 = 1;
pub const IST_NMI: u8 = 2;
pub const IST_MACHINE_CHECK: u8 = 3;
pub const IST_DEBUG: u8 = 4;

const IDLE_STACK_WORDS: usize = 32;

/// The task-state segment (SDM volume 3A, 8.7).
#[repr(C, packed(4))]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}

const _: () = assert!(size_of::<Tss>() == 104);
/// An I/O map base behind the segment's limit: no port is permitted.
const NO_IO_MAP: u16 = u16::MAX;

/// What belongs to one processor. Only that processor uses the cells.
#[repr(C, align(64))]
pub struct PerCpu {
    // Used by the trap entries through GS.
    pub current_frame: Cell<*mut Frame>,
    pub kernel_stack: Cell<u64>,
    pub scratch: Cell<u64>,
    this: Cell<*const PerCpu>,
    id: Cell<usize>,
    // Used from Rust only.
    pub state: Cell<*mut ThreadState>,
    pub fpu_live: Cell<bool>,
    pub address_space: paging::Loaded,
    pub armed_deadline: Cell<u64>,
    pub loaded_io_bitmap: io_bitmap::Loaded,
    pub apic_id: AtomicU32,
    pub online: AtomicBool,
    idle_stack: UnsafeCell<[u64; IDLE_STACK_WORDS]>,
    gdt: UnsafeCell<[u64; 8]>,
    align_rsp0: u32,
    tss: UnsafeCell<Tss>,
    /// Directly behind the TSS, which points to it. One byte more, all ones, ends
    /// it (SDM volume 1, 19.5.2).
    pub io_map: UnsafeCell<[u8; io_bitmap::BYTES + 4]>,
}

pub const CURRENT_FRAME: usize = offset_of!(PerCpu, current_frame);
pub const KERNEL_STACK: usize = offset_of!(PerCpu, kernel_stack);
pub const SCRATCH: usize = offset_of!(PerCpu, scratch);
pub const RSP0: usize = offset_of!(PerCpu, tss) + offset_of!(Tss, rsp);
const _: () = assert!(RSP0.is_multiple_of(8));
const _: () = assert!(offset_of!(PerCpu, io_map) == offset_of!(PerCpu, tss) + size_of::<Tss>());

// SAFETY: the cells are used by their processor only (and by the boot processor
// before it starts the other); what others use is atomic.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new() -> PerCpu {
        PerCpu {
            current_frame: Cell::new(ptr::null_mut()),
            kernel_stack: Cell::new(0),
            scratch: Cell::new(0),
            this: Cell::new(ptr::null()),
            id: Cell::new(0),
            state: Cell::new(ptr::null_mut()),
            fpu_live: Cell::new(false),
            address_space: paging::Loaded::new(),
            armed_deadline: Cell::new(u64::MAX),
            loaded_io_bitmap: io_bitmap::Loaded::new(),
            apic_id: AtomicU32::new(u32::MAX),
            online: AtomicBool::new(false),
            idle_stack: UnsafeCell::new([0; IDLE_STACK_WORDS]),
            gdt: UnsafeCell::new([0; 8]),
            align_rsp0: 0,
            tss: UnsafeCell::new(Tss {
                reserved0: 0,
                rsp: [0; 3],
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                io_map_base: NO_IO_MAP,
            }),
            io_map: UnsafeCell::new([0xff; io_bitmap::BYTES + 4]),
        }
    }

    /// Where the processor pushes when it comes from user mode: the end of the
    /// current frame.
    pub fn set_trap_frame(&self, frame: *mut Frame) {
        self.current_frame.set(frame);
        // SAFETY: this processor's own TSS, which the processor reads only on a trap.
        unsafe { addr_of_mut!((*self.tss.get()).rsp[0]).write_unaligned(frame.add(1) as u64) };
    }

    /// Sets the stack of an entry (1 to 7) of the interrupt stack table.
    pub fn set_interrupt_stack(&self, entry: u8, top: u64) {
        let Some(slot) = usize::from(entry).checked_sub(1).filter(|&slot| slot < 7) else {
            return;
        };
        // SAFETY: this processor's TSS; `slot` is inside the array.
        unsafe {
            addr_of_mut!((*self.tss.get()).ist)
                .cast::<u64>()
                .add(slot)
                .write_unaligned(top)
        };
    }

    /// Permits the ports of the I/O map, or none at all.
    pub fn enable_io_map(&self, enable: IoMap) {
        let base = match enable {
            IoMap::Use => size_of::<Tss>() as u16,
            IoMap::DenyAll => NO_IO_MAP,
        };
        // SAFETY: this processor's TSS.
        unsafe { addr_of_mut!((*self.tss.get()).io_map_base).write_unaligned(base) };
    }
}

/// Whether the TSS has an I/O map.
#[derive(Clone, Copy)]
pub enum IoMap {
    /// It has.
    Use,
    /// Every port is denied.
    DenyAll,
}

static PER_CPU: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
static ONLINE: AtomicUsize = AtomicUsize::new(0);

/// This processor's data.
#[inline]
pub fn this() -> &'static PerCpu {
    let this: *const PerCpu;
    // SAFETY: GS points to this processor's data whenever Rust runs, and the
    // data never moves. The value is constant for a processor.
    unsafe {
        asm!("mov {}, gs:[{offset}]", out(reg) this, offset = const offset_of!(PerCpu, this), options(pure, readonly, nostack, preserves_flags));
        &*this
    }
}

/// Data of processor `cpu`.
pub fn of(cpu: usize) -> Option<&'static PerCpu> {
    PER_CPU.get(cpu)
}

/// All online processors but this one.
pub fn others() -> impl Iterator<Item = (usize, &'static PerCpu)> {
    let own = cpu_id();
    PER_CPU
        .iter()
        .enumerate()
        .filter(move |(cpu, data)| *cpu != own && data.online.load(Ordering::Acquire))
}

/// The number of this processor, from 0; the boot processor is 0.
#[inline]
pub fn cpu_id() -> usize {
    let id;
    // SAFETY: as in `this`.
    unsafe {
        asm!("mov {}, gs:[{offset}]", out(reg) id, offset = const offset_of!(PerCpu, id), options(pure, readonly, nostack, preserves_flags));
    }
    id
}

/// How many processors run. Their numbers are below that.
pub fn cpu_count() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// Counts processor `cpu` as running.
pub fn set_online(cpu: usize) {
    if let Some(data) = of(cpu) {
        data.online.store(true, Ordering::Release);
        ONLINE.fetch_add(1, Ordering::AcqRel);
    }
}

/// The top of the idle loop's stack: room for what a trap pushes before its entry
/// changes stacks.
pub fn idle_stack(cpu: usize) -> u64 {
    let data = of(cpu).unwrap_or(&PER_CPU[0]);
    data.idle_stack.get() as u64 + (IDLE_STACK_WORDS * 8) as u64
}

/// Loads this processor's tables and GS, so that traps work. `kernel_stack` is the
/// top of its stack.
///
/// # Safety
/// Called once on each processor, with its own number, before anything else
/// that uses per-processor data, with interrupts disabled.
pub unsafe fn load_tables(cpu: usize, kernel_stack: u64) {
    let data = &PER_CPU[cpu];
    data.this.set(data);
    data.id.set(cpu);
    data.kernel_stack.set(kernel_stack);

    // Bits 40-55 of a descriptor: type, DPL, present; 64-bit code (SDM 3A, 5.4.5).
    let base = data.tss.get() as u64;
    let limit = (size_of::<Tss>() + io_bitmap::BYTES) as u64;
    let tss_low =
        limit & 0xffff | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        tss_low,
        base >> 32,
    ];
    // SAFETY: nobody uses this processor's table yet.
    unsafe { *data.gdt.get() = gdt };
    let pointer = TablePointer {
        limit: size_of_val(&gdt) as u16 - 1,
        base: data.gdt.get() as u64,
    };
    // SAFETY: the table is valid and stays so. The far return loads CS with the
    // same kind of segment. A null SS, DS, ES, FS, GS is right for 64-bit code.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "mov ds, {zero:e}",
            "mov es, {zero:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            "ltr {tss:x}",
            pointer = in(reg) &pointer,
            code = const KERNEL_CODE,
            data = in(reg) KERNEL_DATA,
            zero = in(reg) 0,
            tss = in(reg) TSS,
            scratch = out(reg) _,
        );
        write_msr(msr::GS_BASE, data as *const PerCpu as u64);
        write_msr(msr::KERNEL_GS_BASE, 0);
    }
    trap::load_idt();
}

/// The operand of LGDT, SGDT and LIDT.
#[repr(C, packed)]
pub struct TablePointer {
    /// Length minus 1.
    pub limit: u16,
    /// Address.
    pub base: u64,
}

/// Points GS to this processor's data, whatever it was. For exceptions that may
/// come before the entry code did that. The descriptor table tells which
/// processor this is.
pub fn repair_gs() {
    let mut pointer = TablePointer { limit: 0, base: 0 };
    // SAFETY: SGDT stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) addr_of_mut!(pointer), options(nostack, preserves_flags)) };
    let base = pointer.base;
    let owner = PER_CPU.iter().find(|data| data.gdt.get() as u64 == base);
    // SAFETY: the register exists; this is the value that kernel code expects in it.
    unsafe { write_msr(msr::GS_BASE, addr_of!(*owner.unwrap_or(&PER_CPU[0])) as u64) };
}

/// Sets this processor's control registers and system-call registers.
///
/// # Safety
/// The final kernel page tables are loaded and [`load_tables`] was called.
pub unsafe fn set_control_registers() {
    const CR0_MP: u64 = 1 << 1;
    const CR0_EM: u64 = 1 << 2;
    const CR0_TS: u64 = 1 << 3;
    const CR0_NE: u64 = 1 << 5;
    const CR0_WP: u64 = 1 << 16;
    const CR0_AM: u64 = 1 << 18;
    const CR0_NW_CD: u64 = 0b11 << 29;
    const CR4_PAE: u64 = 1 << 5;
    const CR4_MCE: u64 = 1 << 6;
    const CR4_PGE: u64 = 1 << 7;
    const CR4_OSFXSR: u64 = 1 << 9;
    const CR4_OSXMMEXCPT: u64 = 1 << 10;
    const CR4_UMIP: u64 = 1 << 11;
    const CR4_FSGSBASE: u64 = 1 << 16;
    const CR4_PCIDE: u64 = 1 << 17;
    const CR4_OSXSAVE: u64 = 1 << 18;
    const CR4_SMEP: u64 = 1 << 20;
    const CR4_SMAP: u64 = 1 << 21;
    const EFER_SCE: u64 = 1 << 0;
    const EFER_NXE: u64 = 1 << 11;
    // Trap, interrupt, direction, I/O privilege, nested task, resume, alignment check.
    const FMASK: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 0b11 << 12 | 1 << 14 | 1 << 16 | 1 << 18;
    // Entry n in byte n: write-back, write-through, uncached-, uncached, then
    // write-combining, write-protected, uncached-, uncached (SDM 3A, 12.12).
    const PAT: u64 = 0x0007_0501_0007_0406;

    let features = cpu_features();
    let optional = [
        (features.umip, CR4_UMIP),
        (features.fsgsbase, CR4_FSGSBASE),
        (features.pcid, CR4_PCIDE),
        (features.xsave, CR4_OSXSAVE),
        (features.smep, CR4_SMEP),
        (features.smap, CR4_SMAP),
    ];
    let always = CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    let cr4 = optional
        .iter()
        .filter(|(has, _)| *has)
        .fold(always, |all, (_, bit)| all | bit);
    // SAFETY: each bit is set only where CPUID announces it; the kernel's pages are
    // mapped for supervisor access only, as SMEP and SMAP want; CR3 has PCID 0 as
    // setting PCIDE wants; PAT entries 0 to 3, the only ones in use so far, keep
    // their meaning.
    unsafe {
        let mut cr0: u64;
        asm!("mov {}, cr0", out(reg) cr0, options(nostack, preserves_flags));
        cr0 = cr0 & !(CR0_EM | CR0_NW_CD) | CR0_MP | CR0_TS | CR0_NE | CR0_WP | CR0_AM;
        asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
        write_msr(msr::PAT, PAT);
        write_msr(msr::EFER, read_msr(msr::EFER) | EFER_SCE | EFER_NXE);
        write_msr(msr::STAR, SYSRET_BASE << 48 | KERNEL_CODE << 32);
        write_msr(msr::LSTAR, trap::syscall_entry_address());
        write_msr(msr::FMASK, FMASK);
    }
    this().fpu_live.set(false);
    super::fpu::enable_components();
}

/// Stops this processor for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts disabled nothing runs here any more but NMIs.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
