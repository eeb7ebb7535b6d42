//! Names for addresses, and crash reports as text.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crash_report::{Fault, Frame};
use elf::ElfBytes;
use elf::abi::STT_FUNC;
use elf::endian::LittleEndian;
use rustc_demangle::demangle;
use sys::abi::{CrashReport, REGISTER_NAMES};

/// The functions of a program.
#[derive(Debug, Default)]
pub struct Symbols {
    /// (address, size, mangled name), by address.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Reads the symbol table of an ELF file; empty if there is none that can be read.
    pub fn parse(file: &[u8]) -> Symbols {
        let mut functions = Vec::new();
        if let Ok(elf) = ElfBytes::<LittleEndian>::minimal_parse(file)
            && let Ok(Some((table, strings))) = elf.symbol_table()
        {
            for symbol in table.iter() {
                if symbol.st_symtype() == STT_FUNC
                    && symbol.st_value != 0
                    && let Ok(name) = strings.get(symbol.st_name as usize)
                {
                    functions.push((symbol.st_value, symbol.st_size, name.to_string()));
                }
            }
        }
        functions.sort_by_key(|(address, ..)| *address);
        Symbols { functions }
    }

    /// Function and offset in it.
    pub fn lookup(&self, address: u64) -> Option<(String, u64)> {
        let after = self
            .functions
            .partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(after.checked_sub(1)?)?;
        let offset = address.checked_sub(*start)?;
        // A size of 0 is an assembler's function without one.
        (offset < *size || *size == 0).then(|| (alloc::format!("{:#}", demangle(name)), offset))
    }
}

/// Name of an x86 exception (Intel SDM volume 3, table 6-1).
pub fn exception_name(vector: u32) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid instruction",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        _ => "exception",
    }
}

/// A crash in one line, for instance `page fault: write to 0x0 at 0x401234`.
pub fn fault_text(crash: &CrashReport, f: &mut impl Write) -> fmt::Result {
    f.write_str(exception_name(crash.vector))?;
    if crash.vector == 14 {
        let access = match crash.code {
            code if code & 16 != 0 => "execution of",
            code if code & 2 != 0 => "write to",
            _ => "read of",
        };
        write!(f, ": {access} {:#x}", crash.address)?;
    }
    let ip = crash.registers[16];
    write!(f, " at {ip:#x}")
}

/// The fault of a crash, with names.
pub fn fault(crash: &CrashReport, symbols: &Symbols) -> Fault {
    let name = |address: u64, back: u64| {
        let (function, offset) = symbols.lookup(address.saturating_sub(back))?;
        Some(alloc::format!(
            "{function}+{:#x}",
            offset.saturating_add(back)
        ))
    };
    let addresses = crash.backtrace.iter().take_while(|a| **a != 0);
    let frames = addresses.enumerate().map(|(place, address)| Frame {
        address: *address,
        // A return address may be the first byte of the next function: look at the call.
        function: name(*address, u64::from(place > 0)),
    });
    let registers = REGISTER_NAMES.iter().zip(crash.registers);
    Fault {
        thread: crash.thread_koid,
        vector: crash.vector,
        code: crash.code,
        address: crash.address,
        registers: registers.map(|(n, v)| (n.to_string(), v)).collect(),
        backtrace: frames.collect(),
    }
}

/// A crash in one line with the function: `page fault: write to 0x0 at 0x401234 in queue::push+0x10`.
pub fn crash_text(crash: &CrashReport, symbols: &Symbols) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = fault_text(crash, &mut text);
    if let Some((function, offset)) = symbols.lookup(crash.registers[16]) {
        let _ = write!(text, " in {function}+{offset:#x}");
    }
    text
}

/// A whole crash report: a line with the reason, the registers, the backtrace with names.
pub fn write_crash_report(
    crash: &CrashReport,
    symbols: &Symbols,
    out: &mut impl Write,
) -> fmt::Result {
    let name_len = crash
        .name
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(crash.name.len());
    let name = String::from_utf8_lossy(&crash.name[..name_len]);
    let (process, thread) = (crash.process_koid, crash.thread_koid);
    let text = crash_text(crash, symbols);
    writeln!(out, "{name} (process {process}, thread {thread}): {text}")?;
    write!(out, "{}", fault(crash, symbols))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_to_find(x: u64) -> u64 {
        std::hint::black_box(x) + 1
    }

    #[test]
    fn finds_a_function_of_this_test() {
        assert_eq!(a_function_to_find(1), 2);
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let symbols = Symbols::parse(&file);
        let (start, size, _) = symbols
            .functions
            .iter()
            .find(|(.., name)| name.contains("a_function_to_find"))
            .cloned()
            .expect("the test's own symbol");
        let (name, offset) = symbols.lookup(start + 1).unwrap();
        assert!(name.ends_with("a_function_to_find"), "{name}");
        assert_eq!(offset, 1);
        assert_ne!(symbols.lookup(start + size).map(|f| f.0), Some(name));
    }

    #[test]
    fn report_names_the_reason() {
        let mut crash = CrashReport {
            vector: 14,
            code: 6,
            address: 0x10,
            ..Default::default()
        };
        crash.name[..3].copy_from_slice(b"abc");
        crash.registers[16] = 0x40_1000;
        crash.backtrace[0] = 0x40_2000;
        let mut text = String::new();
        write_crash_report(&crash, &Symbols::default(), &mut text).unwrap();
        assert!(
            text.starts_with("abc (process 0, thread 0): page fault: write to 0x10 at 0x401000\n")
        );
        assert!(text.contains("  0x402000\n"));
    }
}
