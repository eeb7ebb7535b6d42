//! `tee`: copies standard input to files and to standard output.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use unix::stream::OpenMode;
use unix::{Arg, Args, Stop, Stream, Tool, path};
unix::program!("tee", HELP, run);

const HELP: &str = "\
Usage: tee [-a] [FILE]...
Copy standard input to each FILE and to standard output.

  -a  append
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut mode = OpenMode::Truncate;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('a') => mode = OpenMode::Append,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let mut files = Vec::new();
    for name in names {
        match Stream::open(&path::join(&unix::fs::current_dir(), &name), mode) {
            Ok(stream) => files.push((name, stream)),
            Err(error) => tool.fail(format_args!("{name}: {error}")),
        }
    }
    let input = Stream::stdin();
    let mut chunk = alloc::vec![0u8; 32 * 1024];
    loop {
        let n = match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) => return Err(tool.fatal(1, format_args!("read error: {error}"))),
        };
        let bytes = chunk.get(..n).unwrap_or_default();
        tool.out.bytes(bytes)?;
        tool.out.flush()?;
        files.retain(|(name, stream)| match stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                false
            }
        });
    }
}
