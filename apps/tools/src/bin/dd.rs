//! `dd`: copies blocks.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::fs::File;
use unix::input::Input;
use unix::{Stop, Stream, Tool};
unix::program!("dd", HELP, run);

const HELP: &str = "\
Usage: dd [OPERAND]...
Copy a file in blocks.

  if=FILE of=FILE     instead of standard input and output
  bs=N                bytes in a block (512); ibs= and obs= are the same
  count=N             copy only N input blocks
  skip=N              skip N input blocks first
  seek=N              skip N output blocks first
  conv=notrunc        do not empty the output file
  iflag=count_bytes,skip_bytes,fullblock
  status=none|noxfer  print no statistics, or only those of records

N may have a suffix: c 1, w 2, b 512, K 1024, M, G, kB 1000 and so on.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut o = Operands {
        bs: 512,
        count: None,
        ..Operands::default()
    };
    for text in tool.operands()? {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Stop::Usage(alloc::format!("unrecognized operand '{text}'")));
        };
        let mut number = || {
            unix::size::parse(value)
                .ok_or_else(|| tool.fatal(1, format_args!("invalid number: '{value}'")))
        };
        match name {
            "if" => o.input = Some(String::from(value)),
            "of" => o.output = Some(String::from(value)),
            "bs" | "ibs" | "obs" => o.bs = number()?,
            "count" => o.count = Some(number()?),
            "skip" => o.skip = number()?,
            "seek" => o.seek = number()?,
            "status" => o.status = String::from(value),
            "conv" => o.keep_output = value.split(',').any(|c| c == "notrunc"),
            "iflag" => {
                for flag in value.split(',') {
                    match flag {
                        "count_bytes" => o.count_bytes = true,
                        "skip_bytes" => o.skip_bytes = true,
                        "fullblock" => o.full_blocks = true,
                        _ => {
                            return Err(Stop::Usage(alloc::format!(
                                "invalid input flag: '{flag}'"
                            )));
                        }
                    }
                }
            }
            _ => return Err(Stop::Usage(alloc::format!("unrecognized operand '{text}'"))),
        }
    }
    if o.bs == 0 {
        return Err(tool.fatal(1, format_args!("invalid number: '0'")));
    }
    copy(tool, &o)
}

#[derive(Default)]
struct Operands {
    input: Option<String>,
    output: Option<String>,
    bs: u64,
    count: Option<u64>,
    skip: u64,
    seek: u64,
    count_bytes: bool,
    skip_bytes: bool,
    full_blocks: bool,
    keep_output: bool,
    status: String,
}

enum Target {
    Stdout,
    Nowhere,
    File(File),
}

/// Largest block: it is one buffer in memory.
const BLOCK_MAX: u64 = 64 << 20;

fn copy(tool: &mut Tool, o: &Operands) -> Result<(), Stop> {
    let mut input = match &o.input {
        Some(name) => Input::open(name)
            .map_err(|e| tool.fatal(1, format_args!("failed to open '{name}': {e}")))?,
        None => Input::Stream(Stream::stdin()),
    };
    let mut target = match &o.output {
        Some(name) if name == "/dev/null" => Target::Nowhere,
        Some(name) => {
            let opened = if o.keep_output || o.seek > 0 {
                File::open_write(name)
            } else {
                File::create(name)
            };
            let mut file =
                opened.map_err(|e| tool.fatal(1, format_args!("failed to open '{name}': {e}")))?;
            let at = o.seek.saturating_mul(o.bs);
            let ready = if o.seek > 0 && !o.keep_output {
                file.truncate(at)
            } else {
                Ok(())
            };
            ready
                .and_then(|()| file.seek(at))
                .map_err(|e| tool.fatal(1, format_args!("'{name}': cannot seek: {e}")))?;
            Target::File(file)
        }
        None => Target::Stdout,
    };
    let input_name = o.input.as_deref().unwrap_or("standard input");
    if o.bs > BLOCK_MAX {
        return Err(tool.fatal(
            1,
            format_args!("memory exhausted by input buffer of size {} bytes", o.bs),
        ));
    }
    let mut block = alloc::vec![0u8; o.bs as usize];
    let skip = if o.skip_bytes {
        o.skip
    } else {
        o.skip.saturating_mul(o.bs)
    };
    match &mut input {
        Input::File(file) => {
            file.seek(skip)
                .map_err(|e| tool.fatal(1, format_args!("'{input_name}': cannot skip: {e}")))?;
        }
        Input::Stream(_) => {
            let mut left = skip;
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                match input.read(block.get_mut(..wanted).unwrap_or_default()) {
                    Ok(0) => break,
                    Ok(n) => left -= n as u64,
                    Err(e) => {
                        return Err(
                            tool.fatal(1, format_args!("error reading '{input_name}': {e}"))
                        );
                    }
                }
            }
        }
    }
    let started = unix::process::monotonic_ns();
    let limit = match o.count {
        None => u64::MAX,
        Some(n) if o.count_bytes => n,
        Some(n) => n.saturating_mul(o.bs),
    };
    let blocks = if o.count_bytes {
        u64::MAX
    } else {
        o.count.unwrap_or(u64::MAX)
    };
    let (mut full, mut partial, mut bytes) = (0u64, 0u64, 0u64);
    while full + partial < blocks && bytes < limit {
        let wanted = usize::try_from(limit - bytes)
            .unwrap_or(usize::MAX)
            .min(block.len());
        let mut filled = 0;
        let mut failure = None;
        while filled < wanted {
            match input.read(block.get_mut(filled..wanted).unwrap_or_default()) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            // From a pipe a short read is a block of its own.
            if matches!(input, Input::Stream(_)) && !o.full_blocks {
                break;
            }
        }
        let data = block.get(..filled).unwrap_or_default();
        if filled > 0 {
            match &mut target {
                Target::Stdout => tool.out.bytes(data)?,
                Target::Nowhere => {}
                Target::File(file) => {
                    if let Err(error) = file.write_all(data) {
                        let name = o.output.as_deref().unwrap_or("standard output");
                        tool.fail(format_args!("error writing '{name}': {error}"));
                        break;
                    }
                }
            }
            bytes += filled as u64;
            if filled == block.len() {
                full += 1;
            } else {
                partial += 1;
            }
        }
        if let Some(error) = failure {
            tool.fail(format_args!("error reading '{input_name}': {error}"));
            break;
        }
        if filled == 0 {
            break;
        }
    }
    tool.out.flush()?;
    let elapsed_ns = unix::process::monotonic_ns().saturating_sub(started);
    if o.status != "none" {
        let mut text =
            alloc::format!("{full}+{partial} records in\n{full}+{partial} records out\n");
        if o.status != "noxfer" {
            text.push_str(&tools::transfer_text(bytes, elapsed_ns));
        }
        // Nowhere to report that a message cannot be shown.
        let _ = Stream::stderr().write_all(text.as_bytes());
    }
    Ok(())
}
