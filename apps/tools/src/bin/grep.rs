//! `grep`: prints lines that match.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use tools::regex::{Extent, Matcher, Rules, Syntax};
use unix::input::{Input, Lines, chomp};
use unix::{Arg, Args, Errno, Stop, Tool};
unix::program!("grep", HELP, run);

const HELP: &str = "\
Usage: grep [-EFGHLchilnoqrsvwx] [-m NUM] [-e PATTERN]... [PATTERN] [FILE]...
Print the lines of each FILE that match PATTERN, a basic regular expression.

  -c  only the number of lines
  -E  extended regular expressions
  -e PATTERN  one of several
  -F  PATTERNs are plain text
  -H, -h  with, without the name of the file
  -i  case does not matter
  -L, -l  only names of files without, with such lines
  -m NUM  at most so many lines of a file
  -n  with the number of the line
  -o  only the parts that match
  -q  print nothing, the status tells
  -r  directories with all that is in them
  -s  no messages about files that cannot be read
  -v  lines that do not match
  -w  only whole words
  -x  only whole lines
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Lines,
    Count,
    NamesWith,
    NamesWithout,
    Nothing,
}

struct Options {
    show: Show,
    invert: bool,
    numbers: bool,
    only_matching: bool,
    names: Option<bool>,
    most: u64,
    quiet_errors: bool,
}

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.usage_status = 2;
    let mut o = Options {
        show: Show::Lines,
        invert: false,
        numbers: false,
        only_matching: false,
        names: None,
        most: u64::MAX,
        quiet_errors: false,
    };
    let mut rules = Rules::default();
    let mut patterns: Vec<String> = Vec::new();
    let mut recursive = false;
    let mut operands = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('E') => rules.syntax = Syntax::Extended,
            Arg::Short('F') => rules.syntax = Syntax::Plain,
            Arg::Short('G') => rules.syntax = Syntax::Basic,
            Arg::Short('i' | 'y') => rules.ignore_case = true,
            Arg::Short('w') => rules.extent = Extent::Words,
            Arg::Short('x') => rules.extent = Extent::Lines,
            Arg::Short('c') => o.show = Show::Count,
            Arg::Short('l') => o.show = Show::NamesWith,
            Arg::Short('L') => o.show = Show::NamesWithout,
            Arg::Short('q') => o.show = Show::Nothing,
            Arg::Short('H') => o.names = Some(true),
            Arg::Short('h') => o.names = Some(false),
            Arg::Short('n') => o.numbers = true,
            Arg::Short('o') => o.only_matching = true,
            Arg::Short('r' | 'R') => recursive = true,
            Arg::Short('s') => o.quiet_errors = true,
            Arg::Short('v') => o.invert = true,
            Arg::Short('a') => {}
            Arg::Short('m') => {
                let text = tool.value()?;
                match text.parse() {
                    Ok(n) => o.most = n,
                    Err(_) => return Err(tool.fatal(2, format_args!("invalid max count"))),
                }
            }
            Arg::Short('e') => {
                let text = tool.value()?;
                patterns.extend(text.split('\n').map(String::from));
            }
            Arg::Operand(text) => operands.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if patterns.is_empty() {
        if operands.is_empty() {
            let text = "Usage: grep [OPTION]... PATTERNS [FILE]...\n\
                Try 'grep --help' for more information.\n";
            // Nowhere to report that a message cannot be shown.
            let _ = unix::Stream::stderr().write_all(text.as_bytes());
            return Err(Stop::Status(2));
        }
        let text = operands.remove(0);
        patterns.extend(text.split('\n').map(String::from));
    }
    let matcher = match Matcher::new(&patterns, &rules) {
        Ok(matcher) => matcher,
        Err(message) => return Err(tool.fatal(2, format_args!("{message}"))),
    };
    if operands.is_empty() {
        operands.push(String::from(if recursive { "." } else { "-" }));
    }
    let names = o.names.unwrap_or(operands.len() > 1 || recursive);
    let mut search = Search {
        matcher,
        o,
        names,
        found: false,
        failed: false,
    };
    for name in &operands {
        if recursive && name != "-" {
            search.tree(tool, name, name == ".", Place::Operand)?;
        } else {
            search.file(tool, name)?;
        }
        if search.done() {
            break;
        }
    }
    if search.found && search.done() {
        return Ok(());
    }
    if search.failed {
        return Err(Stop::Status(2));
    }
    if search.found {
        Ok(())
    } else {
        Err(Stop::Status(1))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Operand,
    Below,
}

struct Search {
    matcher: Matcher,
    o: Options,
    names: bool,
    found: bool,
    failed: bool,
}

impl Search {
    fn done(&self) -> bool {
        self.found && self.o.show == Show::Nothing
    }

    fn complain(&mut self, tool: &mut Tool, name: &str, error: Errno) {
        self.failed = true;
        if !self.o.quiet_errors {
            tool.warn(format_args!("{name}: {error}"));
        }
    }

    fn tree(
        &mut self,
        tool: &mut Tool,
        path: &str,
        implicit: bool,
        place: Place,
    ) -> Result<(), Stop> {
        // Links below are not followed.
        let metadata = match place {
            Place::Operand => unix::fs::stat(path),
            Place::Below => unix::fs::lstat(path),
        };
        match metadata {
            Ok(m) if m.is_dir() => match unix::fs::read_dir(path) {
                Ok(entries) => {
                    for entry in entries {
                        let below = if implicit {
                            entry.name.clone()
                        } else {
                            unix::path::join(path, &entry.name)
                        };
                        self.tree(tool, &below, false, Place::Below)?;
                        if self.done() {
                            break;
                        }
                    }
                }
                Err(error) => self.complain(tool, path, error),
            },
            Ok(m) if m.is_file() || place == Place::Operand => self.file(tool, path)?,
            Ok(_) => {}
            Err(error) => self.complain(tool, path, error),
        }
        Ok(())
    }

    fn file(&mut self, tool: &mut Tool, name: &str) -> Result<(), Stop> {
        let shown = if name == "-" {
            "(standard input)"
        } else {
            name
        };
        if name != "-" && unix::fs::stat(name).is_ok_and(|m| m.is_dir()) {
            if !self.o.quiet_errors {
                tool.warn(format_args!("{name}: Is a directory"));
            }
            self.failed = true;
            return Ok(());
        }
        let mut lines = match Input::open(name) {
            Ok(input) => Lines::new(input),
            Err(error) => {
                self.complain(tool, name, error);
                return Ok(());
            }
        };
        let (mut number, mut count) = (0u64, 0u64);
        let mut binary = false;
        while count < self.o.most {
            let line = match lines.next_line() {
                Ok(Some(line)) => chomp(line),
                Ok(None) => break,
                Err(error) => {
                    self.complain(tool, name, error);
                    break;
                }
            };
            number += 1;
            binary |= line.contains(&0);
            if self.matcher.is_match(line) == self.o.invert {
                continue;
            }
            count += 1;
            self.found |= self.o.show != Show::NamesWithout;
            match self.o.show {
                Show::Nothing | Show::NamesWith | Show::NamesWithout => break,
                Show::Count => continue,
                Show::Lines => {}
            }
            if binary {
                // Into the standard output since GNU grep 3.5.
                writeln!(tool.out, "grep: {shown}: binary file matches")?;
                break;
            }
            let prefix = |part: &mut Vec<u8>| {
                if self.names {
                    part.extend_from_slice(shown.as_bytes());
                    part.push(b':');
                }
                if self.o.numbers {
                    part.extend_from_slice(alloc::format!("{number}:").as_bytes());
                }
            };
            let mut text = Vec::new();
            if self.o.only_matching {
                if !self.o.invert {
                    for (from, to) in self.matcher.matches(line) {
                        prefix(&mut text);
                        text.extend_from_slice(line.get(from..to).unwrap_or_default());
                        text.push(b'\n');
                    }
                }
            } else {
                prefix(&mut text);
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            tool.out.bytes(&text)?;
        }
        match self.o.show {
            Show::Count if self.names => writeln!(tool.out, "{shown}:{count}")?,
            Show::Count => writeln!(tool.out, "{count}")?,
            Show::NamesWith if count > 0 => writeln!(tool.out, "{shown}")?,
            Show::NamesWithout if count == 0 => {
                self.found = true;
                writeln!(tool.out, "{shown}")?;
            }
            _ => {}
        }
        Ok(())
    }
}
