//! `ls`: lists directories.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use tools::listing::LongOptions;
use unix::fs::{Kind, Metadata};
use unix::{Arg, Args, Stop, Tool};
unix::program!("ls", HELP, run);

const HELP: &str = "\
Usage: ls [-1ACadFhilnRrSt] [FILE]...
List FILEs and the contents of directories (the current one by default), sorted by name.

  -1  one name a line
  -A  also names that begin with a dot, but not . and ..
  -a  also names that begin with a dot
  -C  in columns (default on a terminal)
  -d  directories themselves, not their contents
  -F  a mark behind the name: / directory, * program, @ link
  -h  with -l, sizes for people
  -i  inode numbers
  -l  mode, links, owner, group, size, date
  -n  as -l, owner and group as numbers
  -R  directories below too
  -r  the other way round
  -S  by size, largest first
  -t  by time of change, newest first
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.usage_status = 2;
    let mut options = Options::default();
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('1') => options.one_per_line = true,
            Arg::Short('C') => options.columns = true,
            Arg::Short('A') => options.hidden = Hidden::AlmostAll,
            Arg::Short('a') => options.hidden = Hidden::All,
            Arg::Short('d') => options.directories_themselves = true,
            Arg::Short('F') => options.marks = true,
            Arg::Short('h') => options.long.human = true,
            Arg::Short('i') => options.inodes = true,
            Arg::Short('l') => options.is_long = true,
            Arg::Short('n') => {
                options.is_long = true;
                options.long.numeric_ids = true;
            }
            Arg::Short('R') => options.recursive = true,
            Arg::Short('r') => options.reverse = true,
            Arg::Short('S') => options.sort = Sort::Size,
            Arg::Short('t') => options.sort = Sort::Time,
            Arg::Short('U' | 'f') => options.sort = Sort::None,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    options.long.now = (unix::process::wall_clock_ns() / 1_000_000_000) as i64;
    if names.is_empty() {
        names.push(String::from("."));
    }
    let several = names.len() > 1;
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for name in names {
        // A link on the command line is followed, unless it is to be shown itself.
        let keep = options.is_long || options.directories_themselves || options.marks;
        let found = unix::fs::lstat(&name).map(|own| {
            let target = unix::fs::stat(&name);
            match target {
                Ok(m) if !keep || (m.is_dir() && name.ends_with('/')) => m,
                _ => own,
            }
        });
        match found {
            Ok(m) if m.is_dir() && !options.directories_themselves => directories.push((name, m)),
            Ok(m) => files.push(Item::new(name.clone(), &name, Some(m))),
            Err(error) => {
                tool.fail(format_args!("cannot access '{name}': {error}"));
                tool.status = 2;
            }
        }
    }
    sort(&mut files, &options);
    print_items(tool, &files, &options)?;
    let mut first = files.is_empty();
    let mut directories: Vec<Item> = directories
        .into_iter()
        .map(|(name, m)| Item::new(name.clone(), &name, Some(m)))
        .collect();
    sort(&mut directories, &options);
    for directory in &directories {
        let header = several || options.recursive;
        list(tool, &directory.path, &options, header, &mut first, 2)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Hidden {
    #[default]
    Skip,
    AlmostAll,
    All,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Name,
    Size,
    Time,
    None,
}

#[derive(Default)]
struct Options {
    one_per_line: bool,
    columns: bool,
    hidden: Hidden,
    directories_themselves: bool,
    marks: bool,
    inodes: bool,
    is_long: bool,
    recursive: bool,
    reverse: bool,
    sort: Sort,
    long: LongOptions,
}

impl Options {
    fn needs_metadata(&self) -> bool {
        self.is_long || self.marks || matches!(self.sort, Sort::Size | Sort::Time)
    }
}

struct Item {
    name: String,
    path: String,
    inode: u64,
    is_dir: bool,
    metadata: Option<Metadata>,
}

impl Item {
    fn new(name: String, path: &str, metadata: Option<Metadata>) -> Item {
        let inode = metadata.as_ref().map_or(0, |m| m.inode);
        let is_dir = metadata.as_ref().is_some_and(Metadata::is_dir);
        Item {
            name,
            path: String::from(path),
            inode,
            is_dir,
            metadata,
        }
    }
}

fn sort(items: &mut [Item], options: &Options) {
    let time = |i: &Item| i.metadata.as_ref().map_or((0, 0), |m| m.modified);
    let size = |i: &Item| i.metadata.as_ref().map_or(0, |m| m.size);
    items.sort_by(|a, b| {
        let by_name = a.name.as_bytes().cmp(b.name.as_bytes());
        let order = match options.sort {
            Sort::Name => by_name,
            Sort::Size => size(b).cmp(&size(a)).then(by_name),
            Sort::Time => time(b).cmp(&time(a)).then(by_name),
            Sort::None => return Ordering::Equal,
        };
        if options.reverse {
            order.reverse()
        } else {
            order
        }
    });
}

/// Lists a directory, and those below with `-R`.
fn list(
    tool: &mut Tool,
    path: &str,
    options: &Options,
    header: bool,
    first: &mut bool,
    failure: i32,
) -> Result<(), Stop> {
    let entries = match unix::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            tool.warn(format_args!("cannot open directory '{path}': {error}"));
            tool.status = tool.status.max(failure);
            return Ok(());
        }
    };
    if header {
        let gap = if *first { "" } else { "\n" };
        writeln!(tool.out, "{gap}{path}:")?;
    }
    *first = false;
    let mut items = Vec::new();
    if options.hidden == Hidden::All {
        for name in [".", ".."] {
            let full = unix::path::join(path, name);
            items.push(Item::new(
                String::from(name),
                &full,
                unix::fs::lstat(&full).ok(),
            ));
        }
    }
    for entry in entries {
        if entry.name.starts_with('.') && options.hidden == Hidden::Skip {
            continue;
        }
        let full = unix::path::join(path, &entry.name);
        let mut item = Item::new(entry.name, &full, None);
        item.inode = entry.inode;
        item.is_dir = entry.kind == Kind::Directory;
        if options.needs_metadata() {
            match unix::fs::lstat(&full) {
                Ok(m) => item.metadata = Some(m),
                Err(error) => tool.fail(format_args!("cannot access '{full}': {error}")),
            }
        }
        items.push(item);
    }
    sort(&mut items, options);
    if options.is_long {
        let blocks: u64 = items
            .iter()
            .filter_map(|i| i.metadata.as_ref())
            .map(|m| m.blocks)
            .sum();
        if options.long.human {
            writeln!(
                tool.out,
                "total {}",
                unix::size::human(blocks.saturating_mul(512))
            )?;
        } else {
            writeln!(tool.out, "total {}", blocks.div_ceil(2))?;
        }
    }
    print_items(tool, &items, options)?;
    if options.recursive {
        for item in items
            .iter()
            .filter(|i| i.is_dir && i.name != "." && i.name != "..")
        {
            list(tool, &item.path, options, true, first, 1)?;
        }
    }
    Ok(())
}

fn mark(metadata: Option<&Metadata>) -> &'static str {
    match metadata {
        Some(m) => match m.kind() {
            Kind::Directory => "/",
            Kind::Symlink => "@",
            Kind::Fifo => "|",
            Kind::Socket => "=",
            Kind::Regular if m.mode & 0o111 != 0 => "*",
            _ => "",
        },
        None => "",
    }
}

fn print_items(tool: &mut Tool, items: &[Item], options: &Options) -> Result<(), Stop> {
    if options.is_long {
        let mut lines = Vec::new();
        for item in items {
            let mut name = item.name.clone();
            let mut suffix = mark(item.metadata.as_ref());
            if item.metadata.as_ref().is_some_and(Metadata::is_symlink) {
                let target = unix::fs::read_link(&item.path).unwrap_or_default();
                name.push_str(" -> ");
                name.push_str(&target);
                suffix = match unix::fs::stat(&item.path) {
                    Ok(m) => mark(Some(&m)),
                    Err(_) => "",
                };
            }
            if options.marks {
                name.push_str(suffix);
            }
            lines.push((options.inodes.then_some(item.inode), item.metadata, name));
        }
        return tool
            .out
            .bytes(tools::listing::long(&lines, &options.long).as_bytes());
    }
    let inode_width = items
        .iter()
        .map(|i| alloc::format!("{}", i.inode).len())
        .max()
        .unwrap_or(0);
    let shown: Vec<String> = items
        .iter()
        .map(|item| {
            let suffix = if options.marks {
                mark(item.metadata.as_ref())
            } else {
                ""
            };
            if options.inodes {
                alloc::format!("{:inode_width$} {}{suffix}", item.inode, item.name)
            } else {
                alloc::format!("{}{suffix}", item.name)
            }
        })
        .collect();
    if options.columns || (tool.out.is_terminal() && !options.one_per_line) {
        let width = unix::process::Terminal::open().map_or(80, |t| t.columns());
        return tool
            .out
            .bytes(tools::listing::columns(&shown, width).as_bytes());
    }
    for name in shown {
        writeln!(tool.out, "{name}")?;
    }
    Ok(())
}
