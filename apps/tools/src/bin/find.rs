//! `find`: walks directories and tests what it finds.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use tools::expression::{self, End, Found, Walk};
use unix::{Stop, Tool};
unix::program!("find", HELP, run);

const HELP: &str = "\
Usage: find [PATH]... [EXPRESSION]
Walk the PATHs (the current directory by default) and evaluate EXPRESSION for everything there.

  -name PATTERN, -iname PATTERN   the name matches
  -path PATTERN                   the whole path matches
  -type [fdlcbps]                 kind of file
  -size [+-]N[cwbkMG]             size, rounded up to units (512 bytes by default)
  -newer FILE                     changed later than FILE
  -mtime [+-]N                    changed N times 24 hours ago
  -links [+-]N, -inum [+-]N       number of links, inode
  -perm MODE, -perm -MODE         exactly these permissions, at least these
  -empty                          an empty file or directory
  -maxdepth N, -mindepth N        how deep
  -prune                          do not go in
  -print, -print0, -ls            print the path, ended by a newline or NUL; as ls -li
  -exec COMMAND {} ;              run COMMAND; with {} + for many at once
  -quit                           end
  ! -not -a -and -o -or ( )       combine
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let args = tool.args.remaining();
    if args.first().is_some_and(|a| a == "--help") {
        return write!(tool.out, "{HELP}");
    }
    let is_expression = |a: &String| (a.starts_with('-') && a.len() > 1) || a == "(" || a == "!";
    let split = args.iter().position(is_expression).unwrap_or(args.len());
    let (paths, expression) = args.split_at(split);
    let now = (unix::process::wall_clock_ns() / 1_000_000_000) as i64;
    let mut walk = match expression::parse(expression, now) {
        Ok(parsed) => parsed,
        Err(message) => return Err(tool.fatal(1, format_args!("{message}"))),
    };
    let mut paths = paths.to_vec();
    if paths.is_empty() {
        paths.push(String::from("."));
    }
    let mut outcome = Ok(());
    for path in &paths {
        outcome = visit(tool, &mut walk, path, 0);
        if outcome.is_err() {
            break;
        }
    }
    match outcome {
        Ok(()) | Err(End::Quit) => {}
        Err(End::Stop(stop)) => return Err(stop),
    }
    walk.finish(tool)
}

fn visit(tool: &mut Tool, walk: &mut Walk, path: &str, depth: u64) -> Result<(), End> {
    let metadata = match unix::fs::lstat(path) {
        Ok(m) => m,
        Err(error) => {
            tool.fail(format_args!("'{path}': {error}"));
            return Ok(());
        }
    };
    let mut enter = metadata.is_dir() && depth < walk.max_depth;
    if depth >= walk.min_depth {
        let found = Found {
            path,
            metadata: &metadata,
        };
        enter &= walk.evaluate(tool, &found)? == expression::Descend::Yes;
    }
    if !enter {
        return Ok(());
    }
    match unix::fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                visit(tool, walk, &unix::path::join(path, &entry.name), depth + 1)?;
            }
        }
        Err(error) => tool.fail(format_args!("'{path}': {error}")),
    }
    Ok(())
}
