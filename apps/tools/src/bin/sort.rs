//! `sort`: sorts lines by bytes or numbers.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::cmp::Ordering;

use unix::input::Input;
use unix::{Arg, Args, Stop, Tool};
unix::program!("sort", HELP, run);

const HELP: &str = "\
Usage: sort [-fnru] [-b] [-h] [-t CHARACTER] [-k FIRST[n][r][,LAST]]... [-o FILE] [FILE]...
Print the lines of all FILEs in order.

  -b            leading blanks do not count
  -f            case does not matter
  -h            by sizes such as 4K and 1.5M
  -k FIRST,LAST by these fields, counted from 1
  -n            by number
  -o FILE       write to FILE
  -r            the other way round
  -s            keep the order of lines that compare equal
  -t CHARACTER  between fields, instead of blanks
  -z            lines end with NUL
  -u            only one of lines that compare equal
";

#[derive(Clone, Default)]
struct Order {
    numeric: bool,
    human: bool,
    fold: bool,
    blanks: bool,
    reverse: bool,
}

struct Key {
    first: usize,
    last: Option<usize>,
    /// `None`: as the options outside say.
    order: Option<Order>,
}

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.usage_status = 2;
    let mut order = Order::default();
    let mut keys = Vec::new();
    let (mut unique, mut stable) = (false, false);
    let mut separator = None;
    let mut delimiter = b'\n';
    let mut output = None;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('n') => order.numeric = true,
            Arg::Short('h') => order.human = true,
            Arg::Short('f') => order.fold = true,
            Arg::Short('b') => order.blanks = true,
            Arg::Short('r') => order.reverse = true,
            Arg::Short('u') => unique = true,
            Arg::Short('s') => stable = true,
            Arg::Short('z') => delimiter = 0,
            Arg::Short('o') => output = Some(tool.value()?),
            Arg::Short('t') => {
                let text = tool.value()?;
                match text.as_bytes() {
                    [byte] => separator = Some(*byte),
                    _ => return Err(tool.fatal(2, format_args!("multi-character tab '{text}'"))),
                }
            }
            Arg::Short('k') => {
                let text = tool.value()?;
                match key(&text) {
                    Some(key) => keys.push(key),
                    None => {
                        return Err(tool.fatal(
                            2,
                            format_args!(
                                "invalid number at field start: invalid count at start of '{text}'"
                            ),
                        ));
                    }
                }
            }
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if keys.is_empty() {
        keys.push(Key {
            first: 0,
            last: None,
            order: None,
        });
    }
    let mut text: Vec<u8> = Vec::new();
    for name in Tool::inputs(names) {
        if let Err(error) = read(&name, delimiter, &mut text) {
            return Err(tool.fatal(2, format_args!("cannot read: {name}: {error}")));
        }
    }
    let mut lines: Vec<&[u8]> = text.split(|b| *b == delimiter).collect();
    // What follows the last newline is no line.
    lines.pop();
    let by_keys = |a: &&[u8], b: &&[u8]| {
        for key in &keys {
            let order = key.order.as_ref().unwrap_or(&order);
            let x = field(a, key, separator);
            let y = field(b, key, separator);
            let result = compare(x, y, order);
            let result = if order.reverse {
                result.reverse()
            } else {
                result
            };
            if result != Ordering::Equal {
                return result;
            }
        }
        Ordering::Equal
    };
    lines.sort_by(|a, b| {
        let result = by_keys(a, b);
        if result != Ordering::Equal || stable || unique {
            return result;
        }
        if order.reverse { b.cmp(a) } else { a.cmp(b) }
    });
    if unique {
        lines.dedup_by(|a, b| by_keys(a, b) == Ordering::Equal);
    }
    if let Some(name) = output {
        let written = unix::fs::File::create(&name).and_then(|mut file| {
            for line in &lines {
                file.write_all(line)?;
                file.write_all(&[delimiter])?;
            }
            Ok(())
        });
        return written
            .map_err(|error| tool.fatal(2, format_args!("open failed: {name}: {error}")));
    }
    for line in lines {
        tool.out.bytes(line)?;
        tool.out.bytes(&[delimiter])?;
    }
    Ok(())
}

fn read(name: &str, delimiter: u8, text: &mut Vec<u8>) -> unix::Result<()> {
    let mut input = Input::open(name)?;
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    loop {
        match input.read(&mut chunk)? {
            0 => break,
            n => text.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    if text.last().is_some_and(|b| *b != delimiter) {
        text.push(delimiter);
    }
    Ok(())
}

fn key(text: &str) -> Option<Key> {
    let mut order: Option<Order> = None;
    let mut part = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, flags) = text.split_at(digits);
        // Character positions inside fields (1.2) are not offered.
        for flag in flags.chars() {
            let order = order.get_or_insert_with(Order::default);
            match flag {
                'n' => order.numeric = true,
                'h' => order.human = true,
                'f' => order.fold = true,
                'b' => order.blanks = true,
                'r' => order.reverse = true,
                _ => return None,
            }
        }
        number.parse::<usize>().ok().filter(|n| *n > 0)
    };
    let (first, last) = match text.split_once(',') {
        Some((first, last)) => (part(first)?, Some(part(last)?)),
        None => (part(text)?, None),
    };
    Some(Key {
        first: first - 1,
        last,
        order,
    })
}

fn field<'a>(line: &'a [u8], key: &Key, separator: Option<u8>) -> &'a [u8] {
    if key.first == 0 && key.last.is_none() {
        return line;
    }
    let mut starts = alloc::vec![0];
    for (index, byte) in line.iter().enumerate() {
        let begins = match separator {
            Some(s) => *byte == s,
            // Without -t a field begins with the blanks before it.
            None => {
                let blank = |i: usize| line.get(i).is_some_and(|b| *b == b' ' || *b == b'\t');
                index > 0 && blank(index) && !blank(index - 1)
            }
        };
        if begins {
            starts.push(index + usize::from(separator.is_some()));
        }
    }
    let start = starts.get(key.first).copied().unwrap_or(line.len());
    let end = match key.last.and_then(|last| starts.get(last)) {
        Some(next) => next - usize::from(separator.is_some()),
        None => line.len(),
    };
    line.get(start..end.max(start)).unwrap_or_default()
}

/// Sign, digits before and after the point, without leading zeros.
fn number(text: &[u8]) -> (bool, &[u8], &[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let (negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = |t: &[u8]| t.iter().take_while(|b| b.is_ascii_digit()).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let zeros = whole.iter().take_while(|b| **b == b'0').count();
    let whole = whole.get(zeros..).unwrap_or_default();
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(after) => after.split_at(digits(after)),
        None => (&[][..], rest),
    };
    (negative, whole, fraction, rest)
}

fn compare_numbers(a: &[u8], b: &[u8], human: bool) -> Ordering {
    let (a_negative, a_whole, a_fraction, a_rest) = number(a);
    let (b_negative, b_whole, b_fraction, b_rest) = number(b);
    let is_zero =
        |whole: &[u8], fraction: &[u8]| whole.is_empty() && fraction.iter().all(|b| *b == b'0');
    let a_sign = if is_zero(a_whole, a_fraction) {
        0
    } else if a_negative {
        -1
    } else {
        1
    };
    let b_sign = if is_zero(b_whole, b_fraction) {
        0
    } else if b_negative {
        -1
    } else {
        1
    };
    if a_sign != b_sign || a_sign == 0 {
        return a_sign.cmp(&b_sign);
    }
    let unit = |rest: &[u8]| match rest.first() {
        Some(c) if human => b"KMGTPE"
            .iter()
            .position(|u| *u == c.to_ascii_uppercase())
            .map_or(0, |p| p + 1),
        _ => 0,
    };
    let a_digits = a_fraction.strip_suffix(b"0").unwrap_or(a_fraction);
    let b_digits = b_fraction.strip_suffix(b"0").unwrap_or(b_fraction);
    let magnitude = unit(a_rest)
        .cmp(&unit(b_rest))
        .then(a_whole.len().cmp(&b_whole.len()))
        .then(a_whole.cmp(b_whole))
        .then(a_digits.cmp(b_digits));
    if a_sign < 0 {
        magnitude.reverse()
    } else {
        magnitude
    }
}

fn compare(a: &[u8], b: &[u8], order: &Order) -> Ordering {
    if order.numeric || order.human {
        return compare_numbers(a, b, order.human);
    }
    let (a, b) = if order.blanks {
        (a.trim_ascii_start(), b.trim_ascii_start())
    } else {
        (a, b)
    };
    if order.fold {
        let upper = |t: &[u8]| t.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>();
        return upper(a).cmp(&upper(b));
    }
    a.cmp(b)
}
