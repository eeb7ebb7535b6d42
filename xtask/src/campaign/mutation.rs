//! Mutations of machine code: one instruction of a driver becomes another one of the same length.
//!
//! The kinds are those with which the isolation of drivers has been measured since Nooks (Swift et al., SOSP 2003, 6.2)
//! and MINIX 3 (Herder et al., DSN 2009, IV): slips of a programmer, made where they end up, in the code.

use std::path::Path;

use anyhow::{Context, ensure};
use elf::ElfStream;
use elf::endian::AnyEndian;
use fastrand::Rng;
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, Encoder, FlowControl, Formatter, Instruction,
    InstructionInfoFactory, IntelFormatter, OpAccess, OpKind, Register,
};

use super::reached::Reached;
use crate::symbols::Functions;

/// Symbol type of functions (System V gABI, chapter 4, "Symbol Table").
const STT_FUNC: u8 = 2;

/// What a mutation imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The wrong source.
    Source,
    /// The wrong destination.
    Destination,
    /// A wrong address: another base, or another distance.
    Pointer,
    /// A condition turned round.
    Branch,
    /// A loop that runs once too often or too seldom, and the like: a number that is off by one.
    OffByOne,
    /// An assignment forgotten: a move, a load or a store is not there.
    Assignment,
    /// An instruction is not there.
    Missing,
    /// A call is not made.
    Call,
    /// One bit is another.
    BitFlip,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Source, "source"),
    (Kind::Destination, "destination"),
    (Kind::Pointer, "pointer"),
    (Kind::Branch, "branch"),
    (Kind::OffByOne, "off by one"),
    (Kind::Assignment, "assignment"),
    (Kind::Missing, "missing"),
    (Kind::Call, "call"),
    (Kind::BitFlip, "bit flip"),
];

/// How often another instruction is tried for a kind.
const TRIES: u32 = 2000;
/// Longest instruction (Intel SDM, volume 2, 2.3.11).
const LONGEST: usize = 15;

/// Bytes of the program file that become others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First byte in the file.
    pub offset: u64,
    /// What was there.
    pub before: Vec<u8>,
    /// What comes there.
    pub after: Vec<u8>,
    /// For reports: kind, place, both instructions.
    pub text: String,
}

/// The segments of a program: address and bytes in the file.
///
/// # Errors
/// When it is no ELF file.
pub fn segments(program: &Path) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let bytes = std::fs::read(program)?;
    let elf = ElfStream::<AnyEndian, _>::open_stream(std::fs::File::open(program)?)?;
    let parts = elf.segments().iter().map(|segment| {
        let (from, len) = (segment.p_offset as usize, segment.p_filesz as usize);
        let part = bytes.get(from..from + len).context("a segment outside")?;
        Ok((segment.p_vaddr, part.to_vec()))
    });
    parts.collect()
}

/// Which of a driver's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// All of it.
    Anywhere,
    /// What runs when it starts, or rarely.
    Rare,
    /// What runs all the time.
    Often,
}

/// A driver's code.
pub struct Code {
    functions: Functions,
    /// Address, offset in the file and bytes of each function.
    bodies: Vec<(u64, u64, Vec<u8>)>,
    plan: Option<u64>,
    reached: Reached,
}

/// Where a driver with faults built in looks for its plan (`ddk/backend-os/src/faults.rs`).
const PLAN_SYMBOL: &str = "BULKHEAD_FAULT_PLAN";

impl Code {
    /// The functions of a program whose names `wanted` wants.
    ///
    /// # Errors
    /// When the file is no program with symbols.
    pub fn load(file: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Code> {
        let functions = Functions::load(file)?;
        let bytes = std::fs::read(file)?;
        let mut elf = ElfStream::<AnyEndian, _>::open_stream(std::fs::File::open(file)?)?;
        let segments: Vec<_> = elf.segments().to_vec();
        let (symbols, names) = elf.symbol_table()?.context("no symbols")?;
        let (mut bodies, mut plan) = (Vec::new(), None);
        for symbol in symbols.iter() {
            let (start, len) = (symbol.st_value, symbol.st_size);
            if names.get(symbol.st_name as usize)? == PLAN_SYMBOL {
                let inside = |s: &&elf::segment::ProgramHeader| {
                    s.p_vaddr <= start && start + len <= s.p_vaddr + s.p_filesz
                };
                let segment = segments.iter().find(inside);
                plan = segment.map(|s| start - s.p_vaddr + s.p_offset);
            }
            if symbol.st_symtype() != STT_FUNC || len == 0 {
                continue;
            }
            let Some(name) = functions.name(start) else {
                continue;
            };
            let segment = segments
                .iter()
                .find(|s| s.p_vaddr <= start && start + len <= s.p_vaddr + s.p_filesz);
            let Some(segment) = segment.filter(|_| wanted(&name)) else {
                continue;
            };
            let offset = start - segment.p_vaddr + segment.p_offset;
            let body = bytes.get(offset as usize..(offset + len) as usize);
            bodies.push((start, offset, body.context("a function outside")?.to_vec()));
        }
        bodies.sort();
        bodies.dedup();
        ensure!(!bodies.is_empty(), "{}: no functions", file.display());
        Ok(Code {
            functions,
            bodies,
            plan,
            reached: Reached::default(),
        })
    }

    /// The same with what is known of where it runs.
    pub fn with_reached(self, reached: Reached) -> Code {
        let ours = |block: &(u64, u64)| self.body_at(block.0).is_some();
        let keep = |blocks: Vec<(u64, u64)>| blocks.into_iter().filter(ours).collect();
        let reached = Reached {
            rare: keep(reached.rare),
            often: keep(reached.often),
        };
        Code { reached, ..self }
    }

    /// The function that an address is in.
    fn body_at(&self, address: u64) -> Option<&(u64, u64, Vec<u8>)> {
        let bodies = &self.bodies;
        let next = bodies.partition_point(|body| body.0 <= address);
        let body = bodies.get(next.checked_sub(1)?)?;
        (address < body.0 + body.2.len() as u64).then_some(body)
    }

    /// Offset in the file of the plan of a driver with faults built in.
    pub fn plan(&self) -> Option<u64> {
        self.plan
    }

    /// Bytes of code.
    pub fn len(&self) -> usize {
        self.bodies.iter().map(|body| body.2.len()).sum()
    }

    /// An instruction by chance: its address, its place in the file, its bytes.
    fn instruction(&self, place: Where, random: &mut Rng) -> (Instruction, u64, Vec<u8>) {
        let blocks = match place {
            Where::Anywhere => &[][..],
            Where::Rare => &self.reached.rare,
            Where::Often => &self.reached.often,
        };
        // By length, so that each instruction has about the same chance.
        let lengths: u64 = blocks.iter().map(|block| block.1).sum();
        let address = if lengths == 0 {
            let mut at = random.usize(..self.len());
            let body = self.bodies.iter().find(|body| {
                let inside = at < body.2.len();
                if !inside {
                    at -= body.2.len();
                }
                inside
            });
            body.unwrap_or(&self.bodies[0]).0 + at as u64
        } else {
            let mut at = random.u64(..lengths);
            let block = blocks.iter().find(|block| {
                let inside = at < block.1;
                if !inside {
                    at -= block.1;
                }
                inside
            });
            block.unwrap_or(&blocks[0]).0 + at
        };
        let (start, offset, bytes) = self.body_at(address).unwrap_or(&self.bodies[0]);
        let at = (address - start) as usize;
        let mut decoder = Decoder::with_ip(64, bytes, *start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if decoder.position() > at {
                break;
            }
        }
        let from = (instruction.ip() - start) as usize;
        let to = from + instruction.len();
        (instruction, offset + from as u64, bytes[from..to].to_vec())
    }

    /// A mutation by chance.
    pub fn mutate(&self, place: Where, random: &mut Rng) -> Patch {
        let (kind, name) = KINDS[random.usize(..KINDS.len())];
        for _ in 0..TRIES {
            let (instruction, offset, before) = self.instruction(place, random);
            let Some(after) = changed(kind, &instruction, &before, random) else {
                continue;
            };
            if after != before {
                return self.patch(name, &instruction, offset, before, after);
            }
        }
        // Every code has bits.
        let (instruction, offset, before) = self.instruction(place, random);
        let after = flipped(&before, random);
        self.patch("bit flip", &instruction, offset, before, after)
    }

    /// An instruction by chance becomes an endless loop.
    pub fn hang(&self, place: Where, random: &mut Rng) -> Patch {
        // `jmp $`
        self.replaced("endless loop", &[0xeb, 0xfe], place, random)
    }

    /// The driver ends at an instruction by chance, before it.
    pub fn stop(&self, place: Where, random: &mut Rng) -> Patch {
        // `ud2`
        self.replaced("ends", &[0x0f, 0x0b], place, random)
    }

    fn replaced(&self, name: &str, with: &[u8], place: Where, random: &mut Rng) -> Patch {
        loop {
            let (instruction, offset, before) = self.instruction(place, random);
            if before.len() >= with.len() {
                let mut after = before.clone();
                after[..with.len()].copy_from_slice(with);
                return self.patch(name, &instruction, offset, before, after);
            }
        }
    }

    fn patch(
        &self,
        kind: &str,
        instruction: &Instruction,
        offset: u64,
        before: Vec<u8>,
        after: Vec<u8>,
    ) -> Patch {
        let at = instruction.ip();
        let place = self.functions.name(at).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, &after, at, DecoderOptions::NONE);
        let text = format!(
            "{kind} at {place}: {} -> {}",
            shown(instruction),
            shown(&decoder.decode())
        );
        Patch {
            offset,
            before,
            after,
            text,
        }
    }
}

impl Patch {
    /// A trap in the instruction's place: whoever comes along there ends.
    pub fn probe(&self) -> Patch {
        let mut after = self.before.clone();
        // `int3`
        after[0] = 0xcc;
        Patch {
            after,
            ..self.clone()
        }
    }
}

fn shown(instruction: &Instruction) -> String {
    let mut text = String::new();
    IntelFormatter::new().format(instruction, &mut text);
    text
}

fn nops(len: usize) -> Vec<u8> {
    vec![0x90; len]
}

fn flipped(before: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut after = before.to_vec();
    let bit = random.usize(..after.len() * 8);
    after[bit / 8] ^= 1 << (bit % 8);
    after
}

/// What becomes of an instruction; `None` if it cannot be mutated so.
fn changed(
    kind: Kind,
    instruction: &Instruction,
    before: &[u8],
    random: &mut Rng,
) -> Option<Vec<u8>> {
    let flow = instruction.flow_control();
    match kind {
        Kind::BitFlip => Some(flipped(before, random)),
        Kind::Missing => Some(nops(before.len())),
        Kind::Call => {
            let call = matches!(flow, FlowControl::Call | FlowControl::IndirectCall);
            call.then(|| nops(before.len()))
        }
        Kind::Assignment => {
            let name = format!("{:?}", instruction.mnemonic());
            (name.starts_with("Mov") || name.starts_with("Cmov")).then(|| nops(before.len()))
        }
        Kind::Branch => {
            if instruction.condition_code() == ConditionCode::None {
                return None;
            }
            let mut other = *instruction;
            other.negate_condition_code();
            encoded(&other, before.len())
        }
        Kind::OffByOne => {
            let at = (0..instruction.op_count()).find(|op| {
                use OpKind::*;
                matches!(
                    instruction.op_kind(*op),
                    Immediate8
                        | Immediate16
                        | Immediate32
                        | Immediate8to16
                        | Immediate8to32
                        | Immediate8to64
                        | Immediate32to64
                )
            })?;
            let by = if random.bool() { 1 } else { -1 };
            let value = (instruction.immediate(at) as i64).wrapping_add(by);
            let mut other = *instruction;
            other.try_set_immediate_i64(at, value).ok()?;
            encoded(&other, before.len())
        }
        Kind::Pointer => {
            if instruction.memory_base() == Register::None || instruction.is_ip_rel_memory_operand()
            {
                return None;
            }
            let mut other = *instruction;
            if random.bool() {
                let distance = instruction.memory_displacement64() as i64;
                let by = [8, -8, 4, -4, 1, 64][random.usize(..6)];
                other.set_memory_displacement64(distance.wrapping_add(by) as u64);
            } else {
                other.set_memory_base(another(instruction.memory_base(), random)?);
            }
            encoded(&other, before.len())
        }
        Kind::Source | Kind::Destination => {
            let mut factory = InstructionInfoFactory::new();
            let info = factory.info(instruction);
            let wanted = |op: u32| {
                let writes = !matches!(info.op_access(op), OpAccess::Read | OpAccess::CondRead);
                instruction.op_kind(op) == OpKind::Register && writes == (kind == Kind::Destination)
            };
            let at = (0..instruction.op_count()).find(|op| wanted(*op))?;
            let mut other = *instruction;
            other.set_op_register(at, another(instruction.op_register(at), random)?);
            encoded(&other, before.len())
        }
    }
}

/// Another general register of the same size.
fn another(register: Register, random: &mut Rng) -> Option<Register> {
    if !register.is_gpr() {
        return None;
    }
    let same = |other: &Register| other.size() == register.size() && *other != register;
    let high = [Register::AH, Register::BH, Register::CH, Register::DH];
    let all: Vec<Register> = Register::values()
        .filter(|r| r.is_gpr() && same(r) && !high.contains(r))
        .collect();
    all.get(random.usize(..all.len().max(1))).copied()
}

/// The bytes of an instruction, filled up to `len`; `None` if it is longer.
fn encoded(instruction: &Instruction, len: usize) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, instruction.ip()).ok()?;
    let mut bytes = encoder.take_buffer();
    (bytes.len() <= len && len <= LONGEST).then(|| {
        bytes.resize(len, 0x90);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own code.
    fn own() -> Code {
        let file = std::env::current_exe().unwrap();
        Code::load(&file, |name| name.contains("campaign::mutation")).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_mutation_and_lengths_stay() {
        let code = own();
        for seed in 0..300 {
            let patch = code.mutate(Where::Anywhere, &mut Rng::with_seed(seed));
            assert_eq!(
                patch,
                code.mutate(Where::Anywhere, &mut Rng::with_seed(seed))
            );
            assert_eq!(patch.before.len(), patch.after.len());
            assert_ne!(patch.before, patch.after, "{}", patch.text);
            let probe = patch.probe();
            assert_eq!(probe.after[0], 0xcc);
            assert_eq!(probe.after[1..], patch.before[1..]);
        }
    }

    #[test]
    fn each_kind_does_what_its_name_says() {
        // cmp rax, 5 / jne +2 / mov rcx, [rdx+8]
        let bytes = [0x48, 0x83, 0xf8, 5, 0x75, 2, 0x48, 0x8b, 0x4a, 8];
        let mut decoder = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE);
        let instructions: Vec<_> = decoder.iter().collect();
        let mut random = Rng::with_seed(1);
        let mut after = |kind, index: usize| {
            let instruction: &Instruction = &instructions[index];
            let from = (instruction.ip() - 0x1000) as usize;
            let before = &bytes[from..from + instruction.len()];
            let after = changed(kind, instruction, before, &mut random)?;
            let mut decoder = Decoder::with_ip(64, &after, instruction.ip(), DecoderOptions::NONE);
            Some(shown(&decoder.decode()))
        };
        let number = after(Kind::OffByOne, 0).unwrap();
        assert!(
            ["cmp rax,4", "cmp rax,6"].contains(&number.as_str()),
            "{number}"
        );
        assert!(after(Kind::Branch, 1).unwrap().starts_with("je "));
        assert_eq!(after(Kind::Branch, 0), None);
        assert_eq!(after(Kind::Missing, 2).unwrap(), "nop");
        let moved = after(Kind::Destination, 2).unwrap();
        assert!(
            moved.ends_with(",[rdx+8]") && !moved.contains("rcx"),
            "{moved}"
        );
        assert_ne!(after(Kind::Pointer, 2).unwrap(), "mov rcx,[rdx+8]");
        assert_eq!(after(Kind::Call, 2), None);
    }
}
