//! Contents of blocks that tell where they belong: every word depends on the block's address and a
//! generation, so that a block that is misplaced, stale, torn or shifted is seen and named.

use alloc::format;
use alloc::string::String;

/// Bytes of a word of a stamp.
const WORD: usize = 8;

/// Fills a block with the stamp of `lba` and `generation`. The first word is the address, the second the
/// generation, the others are mixed from both and their place.
pub fn write(block: &mut [u8], lba: u64, generation: u64) {
    for (place, word) in block.chunks_mut(WORD).enumerate() {
        let bytes = word_at(lba, generation, place as u64).to_le_bytes();
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = from;
        }
    }
}

/// Checks a block.
///
/// # Errors
/// What it holds instead.
pub fn check(block: &[u8], lba: u64, generation: u64) -> Result<(), String> {
    for (place, word) in block.chunks_exact(WORD).enumerate() {
        let seen = number(word);
        let expected = word_at(lba, generation, place as u64);
        if seen != expected {
            return Err(format!(
                "block {lba}, byte {}: {seen:#018x} for {expected:#018x}; it holds {}",
                place * WORD,
                describe(block)
            ));
        }
    }
    Ok(())
}

/// What a block holds, for people.
pub fn describe(block: &[u8]) -> String {
    let mut words = block.chunks_exact(WORD).map(number);
    let (lba, generation) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    if let Some(first) = block.first()
        && block.iter().all(|byte| byte == first)
    {
        return format!("{first:#04x} all over");
    }
    if check_words(block, lba, generation) {
        return format!("block {lba} of generation {generation}");
    }
    format!("a mixture that begins like block {lba} of generation {generation}")
}

fn check_words(block: &[u8], lba: u64, generation: u64) -> bool {
    let mut words = block.chunks_exact(WORD).enumerate();
    words.all(|(place, word)| number(word) == word_at(lba, generation, place as u64))
}

fn number(word: &[u8]) -> u64 {
    word.iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn word_at(lba: u64, generation: u64, place: u64) -> u64 {
    match place {
        0 => lba,
        1 => generation,
        _ => {
            let mixed = lba
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(generation.wrapping_mul(0xbf58_476d_1ce4_e5b9))
                .wrapping_add(place.wrapping_mul(0x94d0_49bb_1331_11eb));
            mixed ^ (mixed >> 29)
        }
    }
}
