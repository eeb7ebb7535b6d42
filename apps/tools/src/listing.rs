//! The formats of `ls` and `stat`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::civil;
use unix::fs::{Kind, Metadata};

/// How `ls -l` shows things.
#[derive(Clone, Copy, Debug, Default)]
pub struct LongOptions {
    /// Sizes for people.
    pub human: bool,
    /// Owner and group as numbers, also where there is a name.
    pub numeric_ids: bool,
    /// Seconds since 1970: times of the last half year show the hour, others the year.
    pub now: i64,
}

/// The one user that has a name without a user database.
fn owner(id: u32, numeric: bool) -> String {
    if id == 0 && !numeric {
        String::from("root")
    } else {
        format!("{id}")
    }
}

/// Half of an average Gregorian year, in seconds, as GNU `ls` has it.
const HALF_YEAR: i64 = 31_556_952 / 2;

/// Lines of `ls -l`: inode (if it is to be shown), metadata, and the name as it is to be shown.
pub fn long(items: &[(Option<u64>, Option<Metadata>, String)], options: &LongOptions) -> String {
    let mut cells: Vec<[String; 7]> = Vec::new();
    for (inode, metadata, _) in items {
        let inode = inode.map(|n| format!("{n}")).unwrap_or_default();
        let Some(m) = metadata else {
            let unknown = || String::from("?");
            cells.push([
                inode,
                String::from("?????????? "),
                unknown(),
                unknown(),
                unknown(),
                unknown(),
                unknown(),
            ]);
            continue;
        };
        let size = match m.kind() {
            Kind::CharDevice | Kind::BlockDevice => {
                format!("{}, {}", m.device_numbers.0, m.device_numbers.1)
            }
            _ if options.human => unix::size::human(m.size),
            _ => format!("{}", m.size),
        };
        let (seconds, nanoseconds) = m.modified;
        let recent = seconds <= options.now && seconds > options.now - HALF_YEAR;
        let format = if recent { "%b %e %H:%M" } else { "%b %e  %Y" };
        cells.push([
            inode,
            m.mode_text(),
            format!("{}", m.links),
            owner(m.uid, options.numeric_ids),
            owner(m.gid, options.numeric_ids),
            size,
            civil::format(format, seconds, nanoseconds),
        ]);
    }
    let mut widths = [0usize; 7];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let [
        inode_width,
        _,
        links_width,
        owner_width,
        group_width,
        size_width,
        date_width,
    ] = widths;
    let mut out = String::new();
    for ([inode, mode, links, owner, group, size, date], (shown, _, name)) in
        cells.iter().zip(items)
    {
        if shown.is_some() {
            out.push_str(&format!("{inode:>inode_width$} "));
        }
        out.push_str(&format!(
            "{mode} {links:>links_width$} {owner:<owner_width$} {group:<group_width$} {size:>size_width$} {date:>date_width$} {name}\n"
        ));
    }
    out
}

/// Names in as many columns as fit, sorted downwards.
pub fn columns(names: &[String], width: usize) -> String {
    let lengths: Vec<usize> = names.iter().map(|n| n.chars().count()).collect();
    let fits = |rows: usize| {
        let total: usize = lengths
            .chunks(rows)
            .map(|column| column.iter().max().map_or(0, |m| m + 2))
            .sum();
        total <= width + 2
    };
    let rows = (1..names.len())
        .find(|rows| fits(*rows))
        .unwrap_or(names.len());
    let mut out = String::new();
    for row in 0..rows {
        let mut line = String::new();
        let mut pad = 0;
        for (column, column_lengths) in names.chunks(rows).zip(lengths.chunks(rows)) {
            let Some(name) = column.get(row) else { break };
            line.push_str(&" ".repeat(pad));
            line.push_str(name);
            let widest = column_lengths.iter().max().copied().unwrap_or(0);
            pad = (widest + 2).saturating_sub(column_lengths.get(row).copied().unwrap_or(0));
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn full_time((seconds, nanoseconds): (i64, u32)) -> String {
    civil::format("%F %T.%N +0000", seconds, nanoseconds)
}

/// Device number as Linux packs it, from a volume number: major in the upper byte.
fn device_parts(device: u64) -> (u64, u64) {
    let major = (device >> 8) & 0xfff | (device >> 32) & 0xffff_f000;
    let minor = device & 0xff | (device >> 12) & 0xffff_ff00;
    (major, minor)
}

/// What `stat` prints without a format.
pub fn stat_default(name: &str, m: &Metadata) -> String {
    let mut shown = String::from(name);
    if m.is_symlink()
        && let Ok(target) = unix::fs::read_link(name)
    {
        shown = format!("{name} -> {target}");
    }
    let device = device_parts(m.device);
    let special = match m.kind() {
        Kind::CharDevice | Kind::BlockDevice => {
            format!(
                "     Device type: {},{}",
                m.device_numbers.0, m.device_numbers.1
            )
        }
        _ => String::new(),
    };
    format!(
        "  File: {shown}\n  Size: {:<10}\tBlocks: {:<10} IO Block: {:<6} {}\n\
         Device: {},{}\tInode: {:<11} Links: {}{special}\n\
         Access: ({:04o}/{})  Uid: ({:5}/{:>8})   Gid: ({:5}/{:>8})\n\
         Access: {}\nModify: {}\nChange: {}\n Birth: {}\n",
        m.size,
        m.blocks,
        m.block_size,
        m.kind_text(),
        device.0,
        device.1,
        m.inode,
        if special.is_empty() {
            format!("{}", m.links)
        } else {
            format!("{:<5}", m.links)
        },
        m.mode & 0o7777,
        m.mode_text(),
        m.uid,
        if m.uid == 0 { "root" } else { "UNKNOWN" },
        m.gid,
        if m.gid == 0 { "root" } else { "UNKNOWN" },
        full_time(m.accessed),
        full_time(m.modified),
        full_time(m.changed),
        m.created.map_or_else(|| String::from("-"), full_time),
    )
}

/// The text of `stat -c`.
pub fn stat_format(pattern: &str, name: &str, m: &Metadata) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // Flags and width as of printf.
        let (mut left, mut zero, mut width) = (false, false, 0usize);
        let directive = loop {
            match chars.next() {
                Some('-') => left = true,
                Some('0') if width == 0 => zero = true,
                Some(d @ '0'..='9') => {
                    width = (width * 10 + d.to_digit(10).unwrap_or(0) as usize).min(4096);
                }
                other => break other,
            }
        };
        let text = match directive {
            Some('a') => format!("{:o}", m.mode & 0o7777),
            Some('A') => m.mode_text(),
            Some('b') => format!("{}", m.blocks),
            Some('B') => String::from("512"),
            Some('d') => format!("{}", m.device),
            Some('D') => format!("{:x}", m.device),
            Some('f') => format!("{:x}", m.mode),
            Some('F') => String::from(m.kind_text()),
            Some('g') => format!("{}", m.gid),
            Some('G') => String::from(if m.gid == 0 { "root" } else { "UNKNOWN" }),
            Some('h') => format!("{}", m.links),
            Some('i') => format!("{}", m.inode),
            Some('n') => String::from(name),
            Some('N') => match unix::fs::read_link(name) {
                Ok(target) if m.is_symlink() => format!("'{name}' -> '{target}'"),
                _ => format!("'{name}'"),
            },
            Some('o') => format!("{}", m.block_size),
            Some('s') => format!("{}", m.size),
            Some('t') => format!("{:x}", m.device_numbers.0),
            Some('T') => format!("{:x}", m.device_numbers.1),
            Some('u') => format!("{}", m.uid),
            Some('U') => String::from(if m.uid == 0 { "root" } else { "UNKNOWN" }),
            Some('w') => m.created.map_or_else(|| String::from("-"), full_time),
            Some('W') => format!("{}", m.created.map_or(0, |t| t.0)),
            Some('x') => full_time(m.accessed),
            Some('X') => format!("{}", m.accessed.0),
            Some('y') => full_time(m.modified),
            Some('Y') => format!("{}", m.modified.0),
            Some('z') => full_time(m.changed),
            Some('Z') => format!("{}", m.changed.0),
            Some('%') => String::from("%"),
            _ => String::from("?"),
        };
        let fill = width.saturating_sub(text.chars().count());
        match (left, zero) {
            (true, _) => {
                out.push_str(&text);
                out.push_str(&" ".repeat(fill));
            }
            (false, true) => {
                out.push_str(&"0".repeat(fill));
                out.push_str(&text);
            }
            (false, false) => {
                out.push_str(&" ".repeat(fill));
                out.push_str(&text);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_columns() {
        let names: Vec<String> = ["a", "bbbb", "cc", "d", "ee"].map(String::from).to_vec();
        assert_eq!(columns(&names, 80), "a  bbbb  cc  d  ee\n");
        assert_eq!(columns(&names, 10), "a     d\nbbbb  ee\ncc\n");
        assert_eq!(columns(&[], 80), "");
    }
}
