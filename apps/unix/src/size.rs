//! Sizes for people (`-h`) and sizes that people type (`4K`, `1M`).

use alloc::format;
use alloc::string::String;

const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// Bytes in powers of 1024 as GNU prints them: rounded up, one decimal below 10.
pub fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}");
    }
    let mut unit: u64 = 1024;
    let mut index = 1;
    while index < UNITS.len() - 1 && bytes / unit >= 1024 {
        unit = unit.saturating_mul(1024);
        index += 1;
    }
    // Tenths and whole units, rounded up; a value that rounds to 1024 moves to the next unit.
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(unit));
    let name = |i: usize| UNITS.get(i).copied().unwrap_or("?");
    if tenths < 100 {
        return format!("{}.{}{}", tenths / 10, tenths % 10, name(index));
    }
    let whole = bytes.div_ceil(unit);
    if whole >= 1024 {
        format!("1.0{}", name(index + 1))
    } else {
        format!("{whole}{}", name(index))
    }
}

/// A number with an optional suffix: `c` 1, `w` 2, `b` 512, `K`/`KiB`/`k` 1024, `KB`/`kB` 1000, and so on
/// for `M G T P`; factors may be joined with `x`. `None` if it is no such number or too large.
pub fn parse(text: &str) -> Option<u64> {
    let mut product: u64 = 1;
    for factor in text.split('x') {
        let digits = factor.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = factor.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let scale: u64 = match suffix {
            "" | "c" | "B" => 1,
            "w" => 2,
            "b" => 512,
            _ => {
                let mut chars = suffix.chars();
                let power = match chars.next()? {
                    'k' | 'K' => 1,
                    'M' => 2,
                    'G' => 3,
                    'T' => 4,
                    'P' => 5,
                    _ => return None,
                };
                match chars.as_str() {
                    "" | "iB" => 1024u64.checked_pow(power)?,
                    "B" => 1000u64.checked_pow(power)?,
                    _ => return None,
                }
            }
        };
        product = product.checked_mul(number.checked_mul(scale)?)?;
    }
    Some(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_sizes_are_those_of_gnu() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10_239, "10K"),
            (10_240, "10K"),
            (10_241, "11K"),
            (1_048_575, "1.0M"),
            (1_048_576, "1.0M"),
            (5 << 30, "5.0G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn typed_sizes() {
        assert_eq!(parse("4K"), Some(4096));
        assert_eq!(parse("1kB"), Some(1000));
        assert_eq!(parse("2x3b"), Some(3072));
        assert_eq!(parse("1Z"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("99999999999P"), None);
    }
}
