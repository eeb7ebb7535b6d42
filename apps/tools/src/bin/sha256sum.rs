//! `sha256sum`: prints and checks SHA-256 sums (FIPS 180-4).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use unix::input::{Input, Lines, chomp};
use unix::{Arg, Args, Errno, Stop, Tool};
unix::program!("sha256sum", HELP, run);

const HELP: &str = "\
Usage: sha256sum [FILE]...
       sha256sum -c [--quiet] [--status] [FILE]...
Print the sum of each FILE, or check the sums that FILE lists.

  -c        check
  --quiet   do not print OK for each file
  --status  print nothing, the exit status tells
  -b, -t    accepted, without effect
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut check = false;
    let mut verbosity = Verbosity::All;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('c') => check = true,
            Arg::Short('b' | 't') => {}
            Arg::Long(name) if name == "check" => check = true,
            Arg::Long(name) if name == "quiet" => verbosity = Verbosity::Failures,
            Arg::Long(name) if name == "status" => verbosity = Verbosity::Nothing,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    for name in Tool::inputs(names) {
        if check {
            check_list(tool, &name, verbosity)?;
            continue;
        }
        match sum(&name) {
            Ok(sum) => match escaped(&name) {
                Some(escaped) => writeln!(tool.out, "\\{sum}  {escaped}")?,
                None => writeln!(tool.out, "{sum}  {name}")?,
            },
            Err(error) => tool.fail(format_args!("{name}: {error}")),
        }
    }
    Ok(())
}

/// A name that would break its line, with escapes; a backslash before the sum tells that there are any.
fn escaped(name: &str) -> Option<String> {
    if !name.contains(['\\', '\n', '\r']) {
        return None;
    }
    let escapes = name.replace('\\', "\\\\");
    Some(escapes.replace('\n', "\\n").replace('\r', "\\r"))
}

/// The name that was escaped; `None` if it holds anything but the escapes above.
fn unescaped(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// What `-c` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Verbosity {
    Nothing,
    Failures,
    All,
}

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

fn sum(name: &str) -> Result<String, Errno> {
    let mut input = Input::open(name)?;
    let mut hasher = Sha256::new();
    let mut chunk = alloc::vec![0u8; CHUNK];
    loop {
        match input.read(&mut chunk)? {
            0 => break,
            n => hasher.update(chunk.get(..n).unwrap_or_default()),
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('?'));
        }
    }
    Ok(text)
}

/// `SUM  NAME` or `SUM *NAME`, after a backslash if the name has escapes.
fn parse_line(line: &str) -> Option<(&str, String)> {
    let (line, has_escapes) = match line.strip_prefix('\\') {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (sum, rest) = line.split_at_checked(64)?;
    let name = rest
        .strip_prefix("  ")
        .or_else(|| rest.strip_prefix(" *"))?;
    if name.is_empty() || !sum.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let name = if has_escapes {
        unescaped(name)?
    } else {
        String::from(name)
    };
    Some((sum, name))
}

fn check_list(tool: &mut Tool, list: &str, verbosity: Verbosity) -> Result<(), Stop> {
    let mut lines = match Input::open(list) {
        Ok(input) => Lines::new(input),
        Err(error) => {
            tool.fail(format_args!("{list}: {error}"));
            return Ok(());
        }
    };
    let (mut good, mut bad, mut unreadable, mut malformed) = (0u64, 0u64, 0u64, 0u64);
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => String::from_utf8_lossy(chomp(line)).into_owned(),
            Ok(None) => break,
            Err(error) => {
                tool.fail(format_args!("{list}: {error}"));
                return Ok(());
            }
        };
        let Some((expected, name)) = parse_line(&line) else {
            malformed += u64::from(!line.trim().is_empty());
            continue;
        };
        let verdict = match sum(&name) {
            Ok(sum) if sum.eq_ignore_ascii_case(expected) => {
                good += 1;
                if verbosity == Verbosity::All {
                    writeln!(tool.out, "{name}: OK")?;
                }
                continue;
            }
            Ok(_) => {
                bad += 1;
                "FAILED"
            }
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                unreadable += 1;
                "FAILED open or read"
            }
        };
        if verbosity >= Verbosity::Failures {
            writeln!(tool.out, "{name}: {verdict}")?;
        }
    }
    let show = verbosity > Verbosity::Nothing;
    let s = |n: u64, one: &'static str, many: &'static str| if n == 1 { one } else { many };
    if good + bad + unreadable == 0 {
        tool.fail(format_args!(
            "{list}: no properly formatted checksum lines found"
        ));
        return Ok(());
    }
    if malformed > 0 && show {
        let text = s(malformed, "line is", "lines are");
        tool.warn(format_args!(
            "WARNING: {malformed} {text} improperly formatted"
        ));
    }
    if unreadable > 0 && show {
        let text = s(unreadable, "listed file", "listed files");
        tool.warn(format_args!(
            "WARNING: {unreadable} {text} could not be read"
        ));
    }
    if bad > 0 && show {
        let text = s(bad, "computed checksum", "computed checksums");
        tool.warn(format_args!("WARNING: {bad} {text} did NOT match"));
    }
    if bad + unreadable > 0 {
        tool.status = 1;
    }
    Ok(())
}
