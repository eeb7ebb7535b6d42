//! What a block of the region holds: its number and generation, mixed into every word, so that a lost, torn,
//! stray or repeated write shows. A block that was never written is zero and has generation 0.

/// Bytes of a block of the region, whatever the disk's own are.
pub const BLOCK: usize = 4096;
const WORDS: usize = BLOCK / 8;
const MAGIC: u64 = u64::from_le_bytes(*b"ENDURE01");

/// The word of a block at an index.
pub fn word(number: u64, generation: u64, index: usize) -> u64 {
    match index {
        0 => MAGIC,
        1 => number,
        2 => generation,
        _ => {
            let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ generation.rotate_left(32);
            (seed ^ (index as u64) << 48).wrapping_mul(0xff51_afd7_ed55_8ccd)
        }
    }
}

/// The generation of a block, or `None` when it is not whole or not the block of that number.
pub fn generation(block: &[u8], number: u64) -> Option<u64> {
    if block.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let read = |index: usize| {
        let bytes = block.get(index * 8..index * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let generation = read(2)?;
    (0..WORDS)
        .all(|index| read(index) == Some(word(number, generation, index)))
        .then_some(generation)
}
