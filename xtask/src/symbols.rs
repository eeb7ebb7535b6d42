//! Names the addresses in the guest's log.
//!
//! A kernel panic and the report of a dead process give addresses; this writes
//! the function's name behind each. It knows an address by its form, and a program
//! by the word after `process` or by `bin/NAME`. It is a filter on text: what it does not know it leaves.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use elf::ElfStream;
use elf::endian::AnyEndian;

use crate::build::Built;

/// Addresses from here up are the kernel's.
const KERNEL_MIN: u64 = 0xffff_8000_0000_0000;
/// Symbol type of functions (System V gABI, chapter 4, "Symbol Table").
const STT_FUNC: u8 = 2;
/// Symbol type of entry points written in assembly.
const STT_NOTYPE: u8 = 0;

/// The functions of one ELF file.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    /// Start address to (length in bytes, name).
    by_start: BTreeMap<u64, (u64, String)>,
}

impl Functions {
    /// Reads the symbols of an ELF file; one without symbols has no functions.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no ELF file.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let mut elf = ElfStream::<AnyEndian, _>::open_stream(std::fs::File::open(file)?)?;
        let mut by_start: BTreeMap<u64, (u64, String)> = BTreeMap::new();
        if let Some((symbols, names)) = elf.symbol_table()? {
            for symbol in symbols.iter() {
                if ![STT_FUNC, STT_NOTYPE].contains(&symbol.st_symtype()) || symbol.st_shndx == 0 {
                    continue;
                }
                let name = names.get(symbol.st_name as usize)?;
                if name.is_empty() {
                    continue;
                }
                let name = format!("{:#}", rustc_demangle::demangle(name));
                let known = by_start.entry(symbol.st_value).or_default();
                // Of two names for one address the one with a size is the function.
                if symbol.st_size >= known.0 {
                    *known = (symbol.st_size, name);
                }
            }
        }
        Ok(Self { by_start })
    }

    /// `name+0xoffset` of the function that an address is in.
    pub fn name(&self, address: u64) -> Option<String> {
        self.name_before(address, 0)
    }

    /// The same for the byte `back` bytes before the address.
    pub fn name_before(&self, address: u64, back: u64) -> Option<String> {
        let inside = address.checked_sub(back)?;
        let (start, (len, name)) = self.by_start.range(..=inside).next_back()?;
        // A symbol without a size reaches to the next one.
        let found = *len == 0 || inside - start < *len;
        found.then(|| format!("{name}+{:#x}", address - start))
    }
}

/// The functions of the kernel and of every program that was asked about.
pub struct Symbols {
    kernel: Functions,
    files: BTreeMap<String, std::path::PathBuf>,
    programs: BTreeMap<String, Functions>,
    /// The program that the report speaks of.
    current: Option<String>,
}

impl Symbols {
    /// Reads the kernel's symbols; programs are read when they are spoken of.
    /// A file that cannot be read has no names.
    pub fn of(built: &Built) -> Self {
        Self {
            kernel: Functions::load(&built.kernel).unwrap_or_default(),
            files: built
                .programs
                .iter()
                .map(|program| (program.name.clone(), program.elf.clone()))
                .collect(),
            programs: BTreeMap::new(),
            current: None,
        }
    }

    /// The line with a name behind each address that has one.
    pub fn annotate(&mut self, line: &str) -> String {
        self.note_program(line);
        // A frame but the first has a return address, which may be behind the
        // end of a function that ends in a call.
        let back = u64::from(is_caller_frame(line));
        let mut text = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let len = rest[start..]
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len() - start);
            let (before, after) = rest.split_at(start + len);
            text.push_str(before);
            if let Some(name) = address(&before[start..]).and_then(|at| self.name(at, back)) {
                text.push_str(&format!(" <{name}>"));
            }
            rest = after;
        }
        text.push_str(rest);
        text
    }

    fn note_program(&mut self, line: &str) {
        let mut previous = "";
        for word in line.split_whitespace() {
            let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let name = name.strip_prefix("bin/").unwrap_or(name);
            let named = previous.eq_ignore_ascii_case("process") || word.contains("bin/");
            if named && self.files.contains_key(name) {
                self.current = Some(name.to_owned());
                return;
            }
            previous = word;
        }
    }

    fn name(&mut self, address: u64, back: u64) -> Option<String> {
        if address >= KERNEL_MIN {
            return self.kernel.name_before(address, back);
        }
        let program = self.current.clone()?;
        let file = self.files.get(&program)?;
        let functions = self
            .programs
            .entry(program)
            .or_insert_with(|| Functions::load(file).unwrap_or_default());
        functions.name_before(address, back)
    }
}

/// Whether a line of a backtrace, `#N 0x...`, is of a caller: N is not 0.
fn is_caller_frame(line: &str) -> bool {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix('#'))
        .is_some_and(|number| number.parse().is_ok_and(|number: u32| number > 0))
}

/// The address that a word is: `0x` and at least six digits, or all sixteen
/// digits of a register.
fn address(word: &str) -> Option<u64> {
    let digits = match word.strip_prefix("0x") {
        Some(digits) if (6..=16).contains(&digits.len()) => digits,
        None if word.len() == 16 => word,
        _ => return None,
    };
    u64::from_str_radix(digits, 16).ok()
}

/// Passes text on, line by line, with names behind its addresses.
pub struct Annotator<'a> {
    symbols: Symbols,
    line: Vec<u8>,
    output: &'a mut dyn Write,
}

impl<'a> Annotator<'a> {
    /// Writes to `output`.
    pub fn new(symbols: Symbols, output: &'a mut dyn Write) -> Self {
        Self {
            symbols,
            line: Vec::new(),
            output,
        }
    }

    fn write_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        match std::str::from_utf8(&line) {
            Ok(text) if text.contains("0x") || text.contains("process") => self
                .output
                .write_all(self.symbols.annotate(text).as_bytes()),
            _ => self.output.write_all(&line),
        }
    }
}

impl Write for Annotator<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                self.write_line()?;
            }
        }
        Ok(bytes.len())
    }

    /// Also writes a line that has no end yet.
    fn flush(&mut self) -> io::Result<()> {
        self.write_line()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(list: &[(u64, u64, &str)]) -> Functions {
        Functions {
            by_start: list
                .iter()
                .map(|(start, len, name)| (*start, (*len, (*name).to_owned())))
                .collect(),
        }
    }

    fn symbols() -> Symbols {
        Symbols {
            kernel: functions(&[(0xffff_ffff_8010_0000, 0x40, "kernel::main")]),
            files: [("cat", "/nonexistent")]
                .map(|(name, file)| (name.to_owned(), file.into()))
                .into(),
            programs: [("cat".to_owned(), functions(&[(0x40_1000, 0, "_start")]))].into(),
            current: None,
        }
    }

    #[test]
    fn addresses_get_names() {
        let mut symbols = symbols();
        assert_eq!(
            symbols.annotate("  #0 0xffffffff80100010 and 0xffffffff80100040\n"),
            "  #0 0xffffffff80100010 <kernel::main+0x10> and 0xffffffff80100040\n"
        );
        assert_eq!(
            symbols.annotate("rip ffffffff80100000 rsp ffff800000000000"),
            "rip ffffffff80100000 <kernel::main+0x0> rsp ffff800000000000"
        );
    }

    #[test]
    fn a_return_address_behind_a_function_is_its() {
        let mut symbols = symbols();
        assert_eq!(
            symbols.annotate("  #1 0xffffffff80100040"),
            "  #1 0xffffffff80100040 <kernel::main+0x40>"
        );
        assert_eq!(
            symbols.annotate("  #0 0xffffffff80100040"),
            "  #0 0xffffffff80100040"
        );
    }

    #[test]
    fn a_program_is_known_once_it_was_named() {
        let mut symbols = symbols();
        assert_eq!(symbols.annotate("rip 0x401004"), "rip 0x401004");
        symbols.annotate("process cat (12) killed: page fault");
        assert_eq!(
            symbols.annotate("rip 0x0000000000401004"),
            "rip 0x0000000000401004 <_start+0x4>"
        );
    }

    #[test]
    fn what_is_not_an_address_stays() {
        let mut symbols = symbols();
        for line in ["0x", "0xzz", "port 0x3f8", "0x00000000000000000000401004"] {
            symbols.annotate("process cat died");
            assert_eq!(symbols.annotate(line), line);
        }
    }

    #[test]
    fn text_that_comes_in_pieces_is_read_by_lines() {
        let mut output = Vec::new();
        let mut annotator = Annotator::new(symbols(), &mut output);
        annotator.write_all(b"at 0xffffffff").unwrap();
        annotator.write_all(b"80100000\nrest").unwrap();
        annotator.flush().unwrap();
        drop(annotator);
        let text = String::from_utf8(output).unwrap();
        assert_eq!(text, "at 0xffffffff80100000 <kernel::main+0x0>\nrest");
    }
}
