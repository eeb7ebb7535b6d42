//! Boots a system and collects what it measured.
//!
//! Two kinds of runs: under the TCG plugin, for instructions, and without it, for
//! time. The systems differ only in what they boot; devices, processor and memory are
//! the same.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::passes::{self, Count, Pass};
use super::rows;
use crate::build;
use crate::guest::{self, Machine, Outcome, Streams};
use crate::tool::{self, Output};

/// A boot with all rows takes about half a minute under the plugin.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Size of a raw disk in bytes. It has no contents: reads give zeros, writes vanish,
/// so that the host's disk has no part in the result.
const RAW_DISK: u64 = 1 << 30;

/// Files in the root of the ext4 disk: one for each row, so that no row finds in a cache
/// what another one read. Their size is a power of two that no row reads to the end.
const FILES: [&str; 5] = ["qd1.bin", "qd32.bin", "128k.bin", "1m.bin", "cached.bin"];
const FILE_BYTES: u64 = 64 << 20;
/// Size of the ext4 disk in bytes.
const EXT4_DISK: u64 = 384 << 20;

/// On which serial line a system prints its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// COM1.
    Log,
    /// COM2.
    Console,
}

/// A system that can be booted and measures the rows that it was told to.
#[derive(Clone, Debug)]
pub struct System {
    /// For messages.
    pub name: &'static str,
    /// ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Where its results appear.
    pub results: Results,
}

/// Keeps this process, and what it starts, on one processor of the host: the last
/// that it may use. Otherwise it depends on the host's scheduler whether a device
/// works beside the guest or in turns with it.
///
/// # Errors
///
/// When the host does not allow it.
pub fn stay_on_one_processor() -> anyhow::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(last.context("no processor")?);
    sched_setaffinity(None, &one).context("cannot stay on one processor")
}

/// The devices of every run.
#[derive(Clone, Debug)]
pub struct Devices {
    ext4: PathBuf,
}

impl Devices {
    /// Makes the ext4 disk if it is not there.
    ///
    /// # Errors
    ///
    /// When the image cannot be made.
    pub fn prepare() -> anyhow::Result<Self> {
        let folder = build::target_folder("bench")?;
        let ext4 = folder.join("ext4.img");
        if ext4.is_file() {
            return Ok(Self { ext4 });
        }
        let contents = tempfile::tempdir_in(&folder)?;
        // No two blocks alike, and the same in each image.
        let bytes: Vec<u8> = (0..FILE_BYTES / 8)
            .flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        for file in FILES {
            std::fs::write(contents.path().join(file), &bytes)?;
        }
        let image = tempfile::NamedTempFile::new_in(&folder)?;
        image.as_file().set_len(EXT4_DISK)?;
        tool::run(
            tool::command("mke2fs")
                .args(["-q", "-F", "-t", "ext4", "-d"])
                .arg(contents.path())
                .arg(image.path()),
            Output::OnFailure,
        )?;
        image.persist(&ext4)?;
        Ok(Self { ext4 })
    }

    /// The raw disk, then the ext4 disk, the raw disk of an NVMe controller, and the
    /// device that raises interrupts.
    fn arguments(&self) -> Vec<String> {
        let without_contents = |name: &str| {
            json!({
                "driver": "null-co", "node-name": name, "size": RAW_DISK, "read-zeroes": true,
            })
        };
        let (raw, nvme) = (without_contents("raw"), without_contents("nvme"));
        let ext4 = json!({
            "driver": "raw", "node-name": "ext4", "read-only": true,
            "file": { "driver": "file", "filename": self.ext4, "read-only": true },
        });
        [
            "-blockdev",
            &raw.to_string(),
            "-device",
            "virtio-blk-pci,drive=raw,serial=bench-raw",
            "-blockdev",
            &ext4.to_string(),
            "-device",
            "virtio-blk-pci,drive=ext4",
            "-blockdev",
            &nvme.to_string(),
            // A queue pair for the processor, and a vector more for the admin queue.
            "-device",
            "nvme,id=bench-nvme,serial=bench-nvme,max_ioqpairs=1,msix_qsize=2",
            "-device",
            "nvme-ns,drive=nvme,bus=bench-nvme",
            "-device",
            "edu",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// Compiles the counter.
///
/// # Errors
///
/// When gcc reports an error.
pub fn plugin() -> anyhow::Result<PathBuf> {
    compile_plugin("count")
}

/// Compiles a plugin of QEMU's from `xtask/plugin`.
///
/// # Errors
///
/// When gcc reports an error.
pub fn compile_plugin(name: &str) -> anyhow::Result<PathBuf> {
    let source = build::workspace_root().join(format!("xtask/plugin/{name}.c"));
    let file = build::target_folder("bench")?.join(format!("{name}.so"));
    let mut compile = tool::command("gcc");
    compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]);
    compile.arg("-o").arg(&file).arg(&source);
    tool::run(&mut compile, Output::OnFailure)?;
    Ok(file)
}

/// Boots `system` once under the plugin, with a profile in the file `profile`.
///
/// # Errors
///
/// When the run does not end well, or its results make no sense.
pub fn count(
    system: &System,
    devices: &Devices,
    plugin: &Path,
    profile: Option<&Path>,
) -> anyhow::Result<Vec<(Pass, Count)>> {
    let file = counter_file()?;
    let arguments = plugin_arguments(plugin, file.path(), profile)?;
    let run = boot(system, devices, &arguments)?;
    let text = std::fs::read_to_string(file.path())?;
    passes::join(run.passes, &passes::read_counts(&text)?)
}

/// A file for the counter.
///
/// # Errors
///
/// When it cannot be made.
pub fn counter_file() -> anyhow::Result<tempfile::NamedTempFile> {
    Ok(tempfile::NamedTempFile::new_in(build::target_folder(
        "bench",
    )?)?)
}

/// QEMU's arguments for the counter that writes to `out`, and a profile to the file `profile`.
///
/// # Errors
///
/// When a path is not UTF-8.
pub fn plugin_arguments(
    plugin: &Path,
    out: &Path,
    profile: Option<&Path>,
) -> anyhow::Result<[String; 2]> {
    let text =
        |path: &Path| Ok::<_, anyhow::Error>(quoted(path.to_str().context("path is not UTF-8")?));
    let mut options = format!("{},out={}", text(plugin)?, text(out)?);
    if let Some(profile) = profile {
        options.push_str(&format!(",profile={}", text(profile)?));
    }
    Ok(["-plugin".to_owned(), options])
}

/// Boots `system` once without the plugin. The row of the boot has the time from the
/// start of QEMU; all others are timed by the guest.
///
/// # Errors
///
/// When the run does not end well, or its results make no sense.
pub fn time(system: &System, devices: &Devices) -> anyhow::Result<Vec<Pass>> {
    let mut run = boot(system, devices, &[])?;
    for pass in &mut run.passes {
        if pass.row == rows::BOOT {
            let booted = run.booted.context("a boot row without its time")?;
            pass.ns = u64::try_from(booted.as_nanos())?;
        }
    }
    Ok(run.passes)
}

/// A comma inside an option's value is doubled.
fn quoted(value: &str) -> String {
    value.replace(',', ",,")
}

/// What one boot gave.
struct Run {
    passes: Vec<Pass>,
    /// From the start of QEMU to the line of the boot row.
    booted: Option<Duration>,
}

fn boot(system: &System, devices: &Devices, arguments: &[String]) -> anyhow::Result<Run> {
    let mut machine = Machine::new(&system.kernel, Some(system.initrd.clone()));
    machine.command_line.clone_from(&system.command_line);
    machine.extra.extend(devices.arguments());
    machine.extra.extend(arguments.iter().cloned());

    let mut results = Collector::new();
    let mut other = Vec::new();
    let outcome = {
        let (console, log): (&mut dyn Write, &mut dyn Write) = match system.results {
            Results::Console => (&mut results, &mut other),
            Results::Log => (&mut other, &mut results),
        };
        let input = None;
        guest::run(
            &machine,
            Some(TIME_LIMIT),
            &mut Streams {
                console,
                log,
                input,
            },
        )?
    };
    if outcome != Outcome::Exit(0) || results.error.is_some() {
        // Nothing else would tell what went wrong.
        eprintln!("{}", String::from_utf8_lossy(&other));
        eprintln!("{}", results.text());
        if let Some(error) = results.error {
            return Err(error.context(system.name));
        }
        bail!("{}: {outcome:?}", system.name);
    }
    Ok(Run {
        passes: results.passes,
        booted: results.booted,
    })
}

/// Reads results from a guest's output as it comes.
struct Collector {
    started: Instant,
    output: Vec<u8>,
    /// Where the first line begins that is not yet complete.
    line_start: usize,
    passes: Vec<Pass>,
    booted: Option<Duration>,
    error: Option<anyhow::Error>,
}

impl Collector {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            output: Vec::new(),
            line_start: 0,
            passes: Vec::new(),
            booted: None,
            error: None,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn line(&mut self, line: &str) {
        match Pass::parse(line) {
            Ok(Some(pass)) => {
                if pass.row == rows::BOOT {
                    self.booted = Some(self.started.elapsed());
                }
                self.passes.push(pass);
            }
            Ok(None) => {}
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }
}

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        while let Some(len) = self.output[self.line_start..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let line = &self.output[self.line_start..self.line_start + len];
            let line = String::from_utf8_lossy(line).into_owned();
            self.line_start += len + 1;
            self.line(&line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_output_in_any_pieces() {
        let mut results = Collector::new();
        for piece in [
            "noise\nben",
            "ch boot id=0 n=1 ns=7\r\nbench spawn id=6",
            " n=5 ns=9\nbench half",
        ] {
            results.write_all(piece.as_bytes()).unwrap();
        }
        assert!(results.error.is_none() && results.booted.is_some());
        let rows: Vec<_> = results
            .passes
            .iter()
            .map(|p| (p.row.as_str(), p.ns))
            .collect();
        assert_eq!(rows, [("boot", 7), ("spawn", 9)]);
        results.write_all(b"\n").unwrap();
        assert!(results.error.is_some());
    }
}
