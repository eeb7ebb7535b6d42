//! `cargo xtask crash`: crash reports that a system saved, with the lines of the sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use crash_report::{FORMAT, Fault, Report, area};

use crate::UsageError;
use crate::build::{self, workspace_root};
use crate::symbols::Functions;
use crate::tool;

/// What `cargo xtask crash` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct CrashArgs {
    /// The image or device that a system saved its reports to, or a file with what `drv --json crash` printed there.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the newest trace of a driver to this file, for `cargo xtask replay`.
    #[arg(long, value_name = "OUT")]
    trace: Option<PathBuf>,
}

/// Prints reports.
///
/// # Errors
/// When the file cannot be read or is none.
pub fn run(args: &CrashArgs) -> anyhow::Result<()> {
    let mut trace = None;
    for (mut report, its_trace) in read(&args.file)? {
        trace = its_trace.or(trace);
        let name = report.subject.name.clone();
        let mut note = None;
        if let Some(fault) = &mut report.fault {
            match elf(&name, report.subject.crc32, fault)? {
                Some(elf) => add_lines(fault, &elf)?,
                None => note = Some(format!("{name} was built from other sources: no lines")),
            }
        }
        print!("{report}");
        if let Some(note) = note {
            eprintln!("xtask: {note}");
        }
    }
    if let Some(out) = &args.trace {
        let what = || format!("{}: no report with its trace", args.file.display());
        let trace = trace.ok_or_else(|| UsageError(what()))?;
        fs::write(out, trace).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}

/// The reports of a file with the recordings of their traces: an area of a disk, or JSON, which has none.
fn read(file: &Path) -> anyhow::Result<Vec<(Report, Option<Vec<u8>>)>> {
    let bytes =
        fs::read(file).map_err(|error| UsageError(format!("{}: {error}", file.display())))?;
    let what = || format!("{} holds no crash reports", file.display());
    let reports: Vec<(Report, Option<Vec<u8>>)> = if area::is_ours(&bytes) {
        let parse = |(body, trace)| Ok((serde_json::from_slice(body)?, trace));
        let reports = area::reports(&bytes).into_iter().map(parse);
        reports.collect::<serde_json::Result<_>>()?
    } else if bytes.trim_ascii_start().starts_with(b"[") {
        let reports: Vec<Report> = serde_json::from_slice(&bytes).with_context(what)?;
        reports.into_iter().map(|report| (report, None)).collect()
    } else {
        vec![(serde_json::from_slice(&bytes).with_context(what)?, None)]
    };
    let other = reports.iter().find(|(report, _)| report.format != FORMAT);
    if let Some((other, _)) = other {
        let seen = other.format;
        let text = format!(
            "{}: reports of format {seen}, expected {FORMAT}",
            file.display()
        );
        return Err(UsageError(text).into());
    }
    Ok(reports)
}

/// The program among those that were built here, with its debug information: the one with that checksum, or one that has the same
/// functions at the addresses of the backtrace.
fn elf(name: &str, crc32: Option<u32>, fault: &Fault) -> anyhow::Result<Option<PathBuf>> {
    let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    for program in build::built_before(name)? {
        let same = Some(checksum.checksum(&fs::read(&program.stripped)?)) == crc32;
        if same || agrees(&Functions::load(&program.stripped)?, fault) {
            return Ok(Some(program.elf));
        }
    }
    Ok(None)
}

fn agrees(functions: &Functions, fault: &Fault) -> bool {
    let mut frames = fault.backtrace.iter().enumerate();
    frames.all(|(place, frame)| {
        let back = u64::from(place > 0);
        frame.function.is_some() && functions.name_before(frame.address, back) == frame.function
    })
}

/// Puts function, file and line behind each address of the backtrace, calls that were inlined included.
fn add_lines(fault: &mut Fault, elf: &Path) -> anyhow::Result<()> {
    for (place, frame) in fault.backtrace.iter_mut().enumerate() {
        // A return address may belong to the next line: look at the call.
        let inside = frame.address.saturating_sub(u64::from(place > 0));
        let mut command = tool::command("addr2line");
        command.args([
            "--functions",
            "--demangle",
            "--inlines",
            "--pretty-print",
            "-e",
        ]);
        command.arg(elf).arg(format!("{inside:#x}"));
        let output = tool::read(&mut command)?;
        let text = String::from_utf8_lossy(&output).into_owned();
        let root = format!("{}/", workspace_root().display());
        let lines: Vec<String> = text
            .lines()
            .filter(|line| !line.contains("??"))
            .map(|line| {
                line.trim()
                    .replace("(inlined by) ", "in ")
                    .replace(&root, "")
            })
            .collect();
        if !lines.is_empty() {
            frame.function = Some(lines.join("\n               "));
        }
    }
    Ok(())
}
