//! Which functions the instructions of a row went to.
//!
//! The counter's profile knows blocks of code by address and first bytes. The bytes
//! tell which program a user address belongs to, since all programs are linked to the
//! same place.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;

use crate::build::Built;
use crate::symbols::Functions;

/// Functions shown.
const SHOWN: usize = 40;

/// One line of the counter's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    address: u64,
    code: [u8; 8],
    instructions: u64,
}

impl Block {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let code = u64::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
        let instructions = words.next()?.parse().ok()?;
        Some(Self {
            address,
            code,
            instructions,
        })
    }
}

/// A program or the kernel: its functions and its bytes.
struct Program {
    name: String,
    functions: Functions,
    /// Address and contents of each loadable segment.
    segments: Vec<(u64, Vec<u8>)>,
}

impl Program {
    fn load(name: &str, file: &std::path::Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let elf = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(&bytes)?;
        let mut segments = Vec::new();
        for header in elf.segments().into_iter().flatten() {
            if header.p_type == elf::abi::PT_LOAD {
                segments.push((header.p_vaddr, elf.segment_data(&header)?.to_vec()));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            functions: Functions::load(file)?,
            segments,
        })
    }

    /// Whether this code stands at that address. Short blocks end in zeros.
    fn holds(&self, block: &Block) -> bool {
        let len = block
            .code
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |i| i + 1);
        self.segments.iter().any(|(start, bytes)| {
            let offset = block.address.checked_sub(*start);
            let offset = offset.and_then(|offset| usize::try_from(offset).ok());
            offset
                .and_then(|offset| bytes.get(offset..)?.get(..len))
                .is_some_and(|code| code == &block.code[..len])
        })
    }
}

/// The functions that took most instructions, for each of `operations` operations.
///
/// # Errors
///
/// When a program cannot be read, or `profile` is not what the counter writes.
pub fn report(profile: &str, built: &Built, operations: u64) -> anyhow::Result<String> {
    let mut programs = vec![Program::load("kernel", &built.kernel)?];
    for program in &built.programs {
        programs.push(Program::load(&program.name, &program.elf)?);
    }
    let mut functions: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut sum = 0;
    for line in profile.lines() {
        let block = Block::parse(line).with_context(|| line.to_owned())?;
        let program = programs.iter().find(|program| program.holds(&block));
        let place = match program {
            Some(program) => {
                let function = program.functions.name(block.address);
                let function = function.unwrap_or_else(|| format!("{:#x}", block.address));
                let (function, _) = function.rsplit_once('+').unwrap_or((&function, ""));
                (program.name.clone(), function.to_owned())
            }
            None => ("?".to_owned(), format!("{:#x}", block.address)),
        };
        *totals.entry(place.0.clone()).or_default() += block.instructions;
        *functions.entry(place).or_default() += block.instructions;
        sum += block.instructions;
    }

    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by_key(|(_, instructions)| std::cmp::Reverse(*instructions));
    let mut sorted: Vec<_> = functions.into_iter().collect();
    sorted.sort_by_key(|(_, instructions)| std::cmp::Reverse(*instructions));
    let operations = operations.max(1);
    let mut text = format!("instructions per operation: {}\n", sum / operations);
    for (program, instructions) in totals.iter().filter(|(_, n)| *n >= operations) {
        let _ = writeln!(text, "{:>10} {program}", instructions / operations);
    }
    text.push('\n');
    for ((program, function), instructions) in sorted.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:>10} {program:<16} {function}",
            instructions / operations
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_by_their_code() {
        let block = Block::parse("400010 0f1f440000554889 77").unwrap();
        assert_eq!(block.instructions, 77);
        let program = |bytes: &[u8]| Program {
            name: String::new(),
            functions: Functions::default(),
            segments: vec![(0x40_0000, bytes.to_vec())],
        };
        let mut code = vec![0xcc; 0x10];
        code.extend_from_slice(&[0x0f, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5]);
        assert!(program(&code).holds(&block));
        code[0x12] = 0x45;
        assert!(!program(&code).holds(&block));
        assert!(!program(&code[..0x12]).holds(&block));
        assert_eq!(Block::parse("400010 0f1f"), None);
    }
}
