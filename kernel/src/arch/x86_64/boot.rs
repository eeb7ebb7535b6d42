//! From the PVH entry (32 bits, no paging) to `crate::main`: long mode, higher
//! half, the kernel's final page tables, [`BootInfo`].
//!
//! The entry state is described in Xen's `docs/misc/pvh.pandoc`: protected mode, flat
//! segments, paging off, EBX = address of the start information.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::ptr::addr_of;

use boot::info::{BootInfo, BootSource, MapFull, MemoryKind, MemoryMap};

use super::layout::{DIRECT_MAP, IMAGE, PAGE_SIZE, REGION, USER_MAX, index, phys_to_virt};
use super::paging::{ACCESSED, ADDRESS, DIRTY, GLOBAL, LARGE, NO_EXECUTE, PRESENT, WRITE, write};
use super::pvh::{self, COMMAND_LINE_MAX};
use super::{cpu, features, serial, time, trap};

/// Regions of the memory map.
const REGIONS_MAX: usize = 128;
/// What the boot tables and the static direct map cover.
const STATIC_DIRECT_MAP: u64 = 4 << 30;
/// One table of the third level; memory behind it is not used.
const DIRECT_MAP_MAX: u64 = 512 << 30;
/// Last-level tables for the image, 2 MiB each; the linker script asserts that they
/// are enough.
const IMAGE_TABLES: usize = 4;
/// Where other processors start in real mode.
pub const TRAMPOLINE: u64 = 0x8000;

global_asm!(
    // The note that makes this a PVH kernel: XEN_ELFNOTE_PHYS32_ENTRY.
    ".section .note.xen, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_entry - {image}",

    ".section .text.boot, \"ax\"",
    ".code32",
    ".global pvh_entry",
    "pvh_entry:",
    "  cli",
    "  cld",
    "  movl $(boot_stack_top - {image}), %esp",
    "  movl %ebx, %ebp",
    // 115200 baud on COM1, so that a failure below can be read.
    "  movl $(boot_uart - {image}), %esi",
    "1:",
    "  movzwl (%esi), %edx",
    "  testl %edx, %edx",
    "  jz 2f",
    "  movb 2(%esi), %al",
    "  outb %al, %dx",
    "  addl $3, %esi",
    "  jmp 1b",
    "2:",
    "  movl $(boot_text_start - {image}), %esi",
    "  call boot_print",
    // Long mode and no-execute pages are the least that the kernel needs.
    "  movl $0x80000000, %eax",
    "  cpuid",
    "  cmpl $0x80000001, %eax",
    "  jb 9f",
    "  movl $0x80000001, %eax",
    "  cpuid",
    "  andl $0x20100000, %edx",
    "  cmpl $0x20100000, %edx",
    "  jne 9f",
    // PAE and global pages off until the final tables; then the tables, long mode
    // and NX, paging and write protection.
    "  movl %cr4, %eax",
    "  orl $0x20, %eax",
    "  movl %eax, %cr4",
    "  movl $(boot_root - {image}), %eax",
    "  movl %eax, %cr3",
    "  movl $0xc0000080, %ecx",
    "  rdmsr",
    "  orl $0x900, %eax",
    "  wrmsr",
    "  movl %cr0, %eax",
    "  orl $0x80010001, %eax",
    "  movl %eax, %cr0",
    "  lgdt boot_gdt_pointer - {image}",
    "  ljmp $8, $(boot_long_mode - {image})",
    "9:",
    "  movl $(boot_text_processor - {image}), %esi",
    "  call boot_print",
    "  hlt",
    "  jmp 9b",

    // Prints the text at ESI.
    "boot_print:",
    "  movl $0x3fd, %edx",
    "1:",
    "  inb %dx, %al",
    "  testb $0x20, %al",
    "  jz 1b",
    "  lodsb",
    "  testb %al, %al",
    "  jz 2f",
    "  movl $0x3f8, %edx",
    "  outb %al, %dx",
    "  jmp boot_print",
    "2:",
    "  ret",

    ".code64",
    "boot_long_mode:",
    "  xorl %eax, %eax",
    "  movl %eax, %ds",
    "  movl %eax, %es",
    "  movl %eax, %ss",
    "  movabsq $boot_higher_half, %rax",
    "  jmp *%rax",
    "boot_higher_half:",
    "  movq $boot_stack_top, %rsp",
    "  movl %ebp, %edi",
    "  xorl %ebp, %ebp",
    "  call {entry}",
    "  ud2",

    ".section .rodata.boot, \"a\"",
    // Port (16 bits) and value: interrupts off, divisor 1, 8n1, FIFOs, DTR and RTS.
    "boot_uart:",
    "  .irp pair, 0x0003f9, 0x8003fb, 0x0103f8, 0x0003f9, 0x0303fb, 0xc703fa, 0x0303fc",
    "    .word \\pair & 0xffff",
    "    .byte \\pair >> 16",
    "  .endr",
    "  .word 0",
    "boot_text_start: .asciz \"Bulkhead: PVH entry\\n\"",
    "boot_text_processor: .asciz \"panic: the processor has no 64-bit mode or no NX\\n\"",

    ".section .data.boot, \"aw\"",
    ".balign 8",
    "boot_gdt:",
    "  .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "boot_gdt_pointer:",
    "  .word 23",
    "  .long boot_gdt - {image}",
    // The first 4 GiB three times: where they are, in the direct map, and the first
    // of them for the image.
    ".balign 4096",
    "boot_root:",
    "  .quad boot_low - {image} + 3",
    "  .fill 255, 8, 0",
    "  .quad boot_low - {image} + 3",
    "  .fill 254, 8, 0",
    "  .quad boot_high - {image} + 3",
    "boot_low:",
    "  .irp step, 0, 1, 2, 3",
    "    .quad boot_pages - {image} + 4096 * \\step + 3",
    "  .endr",
    "  .fill 508, 8, 0",
    "boot_high:",
    "  .fill 510, 8, 0",
    "  .quad boot_pages - {image} + 3",
    "  .quad 0",
    "boot_pages:",
    "  .set page, 0",
    "  .rept 2048",
    "    .quad page + 0x83",
    "    .set page, page + 0x200000",
    "  .endr",
    ".text",
    image = const IMAGE,
    entry = sym entry,
    options(att_syntax)
);

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
    static boot_stack_guard: u8;
    static boot_stack_top: u8;
}

/// Where a linker symbol is in physical memory.
fn physical(symbol: *const u8) -> u64 {
    symbol as u64 - IMAGE
}

#[repr(C, align(4096))]
struct Tables<const N: usize>(UnsafeCell<[[u64; 512]; N]>);
// SAFETY: only the boot processor writes them, before others run; after that they
// change like every page table, by single stores.
unsafe impl<const N: usize> Sync for Tables<N> {}

impl<const N: usize> Tables<N> {
    const fn new() -> Tables<N> {
        Tables(UnsafeCell::new([[0; 512]; N]))
    }

    /// The physical address of table `n`.
    fn frame(&self, n: usize) -> u64 {
        physical(self.0.get().cast()) + (n * PAGE_SIZE) as u64
    }
}

static ROOT: Tables<1> = Tables::new();
static DIRECT: Tables<1> = Tables::new();
static DIRECT_PAGES: Tables<4> = Tables::new();
static REGION_TABLE: Tables<1> = Tables::new();
static IMAGE_TOP: Tables<1> = Tables::new();
static IMAGE_MIDDLE: Tables<1> = Tables::new();
static IMAGE_PAGES: Tables<IMAGE_TABLES> = Tables::new();
/// The image's pages once more in the direct map, without its write permissions.
static ALIAS_PAGES: Tables<IMAGE_TABLES> = Tables::new();

/// The kernel's own root table.
#[inline]
pub fn kernel_root() -> u64 {
    ROOT.frame(0)
}

/// Stack of the exceptions that need one of their own, until `init` made others.
#[repr(C, align(16))]
struct EarlyStack(UnsafeCell<[u8; 16384]>);
// SAFETY: only the processor uses it, as a stack.
unsafe impl Sync for EarlyStack {}
static EARLY_STACK: EarlyStack = EarlyStack(UnsafeCell::new([0; 16384]));

struct Boot {
    memory: MemoryMap<REGIONS_MAX>,
    command_line: [u8; COMMAND_LINE_MAX],
    info: BootInfo,
    mapped_end: u64,
}

struct Storage(UnsafeCell<Boot>);
// SAFETY: written by `entry` only, before other processors run.
unsafe impl Sync for Storage {}

static BOOT: Storage = Storage(UnsafeCell::new(Boot {
    memory: MemoryMap::new(),
    command_line: [0; COMMAND_LINE_MAX],
    info: BootInfo {
        memory: &[],
        archive: (0, 0),
        command_line: "",
        rsdp: 0,
        framebuffer: None,
        source: BootSource::Pvh,
    },
    mapped_end: STATIC_DIRECT_MAP,
}));

/// Physical memory, if the direct map covers it. Reading device registers this way
/// is not what it is for.
pub fn physical_memory(address: u64, len: usize) -> Option<&'static [u8]> {
    // SAFETY: written before `main`.
    let mapped_end = unsafe { (*BOOT.0.get()).mapped_end };
    let end = address.checked_add(len as u64)?;
    // SAFETY: mapped and never unmapped. What is read is firmware data or the
    // loader's, which nobody changes.
    (end <= mapped_end).then(|| unsafe { core::slice::from_raw_parts(phys_to_virt(address), len) })
}

/// Text straight to the log, before there is anything else.
pub struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        serial::serial_write(text.as_bytes());
        Ok(())
    }
}

fn fail(reason: impl fmt::Debug) -> ! {
    // Writing to the serial port cannot fail.
    let _ = writeln!(Log, "panic: cannot boot: {reason:?}");
    serial::outcome("panic");
    cpu::halt()
}

extern "C" fn entry(start_info: u64) -> ! {
    serial::init();
    time::start();
    features::detect();
    trap::build_idt();
    // SAFETY: the boot processor is number 0, and this is its first use of the tables.
    unsafe { cpu::load_tables(0, addr_of!(boot_stack_top) as u64) };
    let early_stack = EARLY_STACK.0.get() as u64 + 16384;
    for stack in [
        cpu::IST_DOUBLE_FAULT,
        cpu::IST_NMI,
        cpu::IST_MACHINE_CHECK,
        cpu::IST_DEBUG,
    ] {
        cpu::this().set_interrupt_stack(stack, early_stack);
    }
    // SAFETY: nothing else refers to it yet.
    let boot: &'static mut Boot = unsafe { &mut *BOOT.0.get() };
    match read_start_info(start_info, boot).and_then(|()| Ok(build_tables(boot)?)) {
        Ok(()) => {}
        Err(error) => fail(error),
    }
    // SAFETY: the tables map code, stack and data where they are now.
    unsafe {
        super::paging::load_cr3(kernel_root());
        cpu::set_control_registers();
    }
    boot.info.memory = boot.memory.regions();
    cpu::set_online(0);
    crate::main(&boot.info)
}

/// Memory map, command line and archive from the PVH start information.
fn read_start_info(address: u64, boot: &mut Boot) -> Result<(), pvh::Error> {
    let read = |address: u64, len: usize| {
        let end = address.checked_add(len as u64)?;
        // SAFETY: the boot tables map the first 4 GiB; the loader's structures are
        // not changed while they are read.
        (end <= STATIC_DIRECT_MAP)
            .then(|| unsafe { core::slice::from_raw_parts(phys_to_virt(address), len) })
    };
    let memory = &mut boot.memory;
    let start = pvh::parse(address, read, memory)?;

    let (archive, archive_len) = start.module;
    memory.add(archive, archive_len, MemoryKind::Archive)?;
    let image = (
        physical(addr_of!(image_start)),
        physical(addr_of!(image_end)),
    );
    memory.add(image.0, image.1 - image.0, MemoryKind::Kernel)?;
    // Frame 0 stays unused, so that an address of 0 means none.
    memory.add(0, PAGE_SIZE as u64, MemoryKind::Reserved)?;
    memory.add(TRAMPOLINE, PAGE_SIZE as u64, MemoryKind::Kernel)?;
    if memory
        .regions()
        .last()
        .is_some_and(|last| last.end() > DIRECT_MAP_MAX)
    {
        memory.add(DIRECT_MAP_MAX, u64::MAX, MemoryKind::Reserved)?;
    }

    let mut len = 0;
    if start.command_line != 0 {
        for slot in &mut boot.command_line {
            let byte =
                read(start.command_line.saturating_add(len as u64), 1).and_then(<[u8]>::first);
            let Some(&byte) = byte.filter(|&&byte| byte != 0) else {
                break;
            };
            *slot = byte;
            len += 1;
        }
    }
    // SAFETY: not written again; `boot` is in a static.
    let text: &'static [u8] =
        unsafe { core::slice::from_raw_parts(boot.command_line.as_ptr(), len) };
    boot.info.command_line = match core::str::from_utf8(text) {
        Ok(text) => text.trim(),
        Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or(""),
    };
    boot.info.archive = if archive_len == 0 {
        (0, 0)
    } else {
        (archive, archive_len)
    };
    boot.info.rsdp = start.rsdp;
    Ok(())
}

const TABLE: u64 = PRESENT | WRITE | ACCESSED;
const PAGE: u64 = PRESENT | ACCESSED | DIRTY | GLOBAL;

/// Fills the kernel's tables: direct map, image with its rights, the region for
/// stacks and registers.
fn build_tables(boot: &mut Boot) -> Result<(), MapFull> {
    let usable = boot
        .memory
        .regions()
        .iter()
        .filter(|region| region.kind == MemoryKind::Usable);
    let usable_end = usable.map(|region| region.end()).max().unwrap_or(0);
    boot.mapped_end = usable_end.max(STATIC_DIRECT_MAP).next_multiple_of(1 << 30);

    let root = kernel_root();
    write(root, index(DIRECT_MAP as usize, 4), DIRECT.frame(0) | TABLE);
    write(
        root,
        index(REGION as usize, 4),
        REGION_TABLE.frame(0) | TABLE,
    );
    write(root, index(IMAGE as usize, 4), IMAGE_TOP.frame(0) | TABLE);
    // Every process copies the upper half, so that all of it that is ever used has
    // to be there from the start.
    const { assert!(index(USER_MAX - 1, 4) < index(DIRECT_MAP as usize, 4)) };

    for gigabyte in 0..4 {
        map_gigabyte(gigabyte, DIRECT_PAGES.frame(gigabyte as usize));
    }
    for gigabyte in 4..boot.mapped_end >> 30 {
        if features::cpu_features().gigabyte_pages {
            write(
                DIRECT.frame(0),
                gigabyte as usize,
                gigabyte << 30 | PAGE | WRITE | NO_EXECUTE | LARGE,
            );
        } else {
            map_gigabyte(gigabyte, take_frame(boot)?);
        }
    }
    map_image();
    Ok(())
}

/// Maps one gigabyte of the direct map with pages of 2 MiB, in `table`.
fn map_gigabyte(gigabyte: u64, table: u64) {
    for slot in 0..512 {
        let address = gigabyte << 30 | (slot as u64) << 21;
        write(table, slot, address | PAGE | WRITE | NO_EXECUTE | LARGE);
    }
    write(DIRECT.frame(0), gigabyte as usize, table | TABLE);
}

/// A frame below 4 GiB, out of the usable memory.
fn take_frame(boot: &mut Boot) -> Result<u64, MapFull> {
    let regions = boot.memory.regions().iter();
    let below = regions
        .filter(|region| region.kind == MemoryKind::Usable && region.end() <= STATIC_DIRECT_MAP);
    let Some(largest) = below.max_by_key(|region| region.len) else {
        fail("no memory for page tables")
    };
    let frame = largest.end() - PAGE_SIZE as u64;
    boot.memory
        .add(frame, PAGE_SIZE as u64, MemoryKind::Kernel)?;
    Ok(frame)
}

fn map_image() {
    let start = physical(addr_of!(image_start));
    let end = physical(addr_of!(image_end));
    let text = physical(addr_of!(text_end));
    let rodata = physical(addr_of!(rodata_end));
    let guard = physical(addr_of!(boot_stack_guard));

    write(
        IMAGE_TOP.frame(0),
        index(IMAGE as usize, 3),
        IMAGE_MIDDLE.frame(0) | TABLE,
    );
    let first = index(start as usize, 2);
    for n in 0..IMAGE_TABLES {
        write(
            IMAGE_MIDDLE.frame(0),
            first + n,
            IMAGE_PAGES.frame(n) | TABLE,
        );
        write(
            DIRECT_PAGES.frame(0),
            first + n,
            ALIAS_PAGES.frame(n) | TABLE,
        );
        for slot in 0..512 {
            let address = ((first + n) as u64) << 21 | (slot as u64) << 12;
            let rights = if address < text {
                0
            } else if address < rodata {
                NO_EXECUTE
            } else {
                NO_EXECUTE | WRITE
            };
            if (start..end).contains(&address) && address != guard {
                write(IMAGE_PAGES.frame(n), slot, address | PAGE | rights);
            }
            // What the kernel may not write, it may not write through the alias.
            write(
                ALIAS_PAGES.frame(n),
                slot,
                address | PAGE | NO_EXECUTE | rights & WRITE,
            );
        }
    }
}

/// The boot information, once `main` runs.
pub fn boot_info() -> &'static BootInfo {
    // SAFETY: not written after `main` was called.
    unsafe { &(*BOOT.0.get()).info }
}

/// Maps the trampoline where real mode has it, in the kernel's own tables.
///
/// # Safety
/// `tables` are free, zeroed frames below 4 GiB that stay so until [`unmap_trampoline`].
pub unsafe fn map_trampoline(tables: [u64; 3]) {
    let mut table = kernel_root();
    for (level, next) in [4, 3, 2].into_iter().zip(tables) {
        write(table, index(TRAMPOLINE as usize, level), next | TABLE);
        table = next;
    }
    write(
        table,
        index(TRAMPOLINE as usize, 1),
        (TRAMPOLINE & ADDRESS) | PRESENT | ACCESSED,
    );
}

/// Removes what [`map_trampoline`] made.
pub fn unmap_trampoline() {
    write(kernel_root(), 0, 0);
    // SAFETY: reloading the tables forgets the translation.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}
