//! What the tools share beyond [`unix`]: tables, listings, regular expressions, the expressions of
//! `find`, running other programs. Each tool itself is a program in `src/bin`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;
pub mod devices;
pub mod expression;
pub mod listing;
pub mod pci;
pub mod processes;
pub mod regex;
pub mod service;
pub mod table;
pub mod words;

use alloc::format;
use alloc::string::String;

use unix::Errno;

/// `NUMBER[smhd]` as `sleep` takes it, in nanoseconds.
pub fn interval_ns(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 's') => (text.get(..at)?, 1),
        (at, 'm') => (text.get(..at)?, 60),
        (at, 'h') => (text.get(..at)?, 3600),
        (at, 'd') => (text.get(..at)?, 86_400),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let ns = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(digits.parse().ok()?);
    Some(ns.saturating_mul(unit))
}

/// What `umount` says.
pub fn unmount_text(error: Errno) -> &'static str {
    match error {
        Errno::Busy => "target is busy.",
        Errno::Invalid => "not mounted.",
        Errno::NoEntry => "no mount point specified.",
        other => other.text(),
    }
}

/// The last line of `dd`: bytes, time and rate.
pub fn transfer_text(bytes: u64, elapsed_ns: u64) -> String {
    let mut text = match bytes {
        1 => String::from("1 byte"),
        n => format!("{n} bytes"),
    };
    if bytes >= 1000 {
        text.push_str(&format!(
            " ({}B",
            scaled(u128::from(bytes), 1000, ["k", "M", "G", "T"])
        ));
        if bytes >= 1024 {
            text.push_str(&format!(
                ", {}B",
                scaled(u128::from(bytes), 1024, ["Ki", "Mi", "Gi", "Ti"])
            ));
        }
        text.push(')');
    }
    let elapsed_ns = elapsed_ns.max(1);
    let rate = u128::from(bytes) * 1_000_000_000 / u128::from(elapsed_ns);
    let rate = if rate < 1000 {
        format!("{rate} ")
    } else {
        scaled(rate, 1000, ["k", "M", "G", "T"])
    };
    let (whole, micro) = (
        elapsed_ns / 1_000_000_000,
        elapsed_ns % 1_000_000_000 / 1000,
    );
    format!("{text} copied, {whole}.{micro:06} s, {rate}B/s\n")
}

/// A number with a unit and one decimal below 10.
fn scaled(value: u128, base: u128, units: [&str; 4]) -> String {
    let mut scale = base;
    let mut unit = 0;
    while unit + 1 < units.len() && value / scale >= base {
        scale *= base;
        unit += 1;
    }
    let tenths = (value * 10 + scale / 2) / scale;
    let name = units.get(unit).copied().unwrap_or("");
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (value + scale / 2) / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval_ns("1"), Some(1_000_000_000));
        assert_eq!(interval_ns("0.25"), Some(250_000_000));
        assert_eq!(interval_ns(".5m"), Some(30_000_000_000));
        assert_eq!(interval_ns("2h"), Some(7_200_000_000_000));
        for wrong in ["", "s", ".", "x", "1.x", "-1"] {
            assert_eq!(interval_ns(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn transfers() {
        assert_eq!(
            transfer_text(5, 1_000_000_000),
            "5 bytes copied, 1.000000 s, 5 B/s\n"
        );
        assert_eq!(
            transfer_text(1_048_576, 500_000_000),
            "1048576 bytes (1.0 MB, 1.0 MiB) copied, 0.500000 s, 2.1 MB/s\n"
        );
    }
}
