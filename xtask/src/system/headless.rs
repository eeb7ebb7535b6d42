//! Systems without a terminal: `run --headless`, `sh` and `push` as a script uses them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, ensure};
use control_link::{ToSystem, encode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::host_side::xtask;
use crate::build::{self, Profile};
use crate::{STATUS_TIMEOUT, STATUS_USAGE};

/// A text of the driver's that appears in the log whenever it starts, and the same with another case.
const LOG_TEXT: (&str, &str) = (" blocks of ", " BLOCKS OF ");

/// A system that runs; ended with this.
pub struct System {
    child: Child,
    pid: String,
    line: Value,
}

impl Drop for System {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl System {
    /// Starts one, with these arguments of `run --headless`, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(arguments: &[&str]) -> anyhow::Result<System> {
        let mut command = xtask(&["run", "--headless"])?;
        command.args(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut text = String::new();
        let stdout = child.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut text)?;
        let line: Value = serde_json::from_str(&text)
            .with_context(|| format!("the line of a system that is ready is {text:?}"))?;
        let pid = child.id();
        let system = System {
            child,
            pid: pid.to_string(),
            line,
        };
        ensure!(system.line["pid"] == pid, "{}", system.line);
        Ok(system)
    }

    /// The host's port that leads to that TCP port of the guest.
    ///
    /// # Errors
    /// When none was forwarded.
    pub fn port(&self, guest: u16) -> anyhow::Result<u16> {
        let guest = guest.to_string();
        let mut ports = self.line["ports"].as_array().into_iter().flatten();
        let found = ports.find(|port| port["guest"] == guest.as_str());
        let host = found.and_then(|port| port["host"].as_str());
        let number = host.and_then(|host| host.rsplit(':').next());
        let number = number.with_context(|| format!("no port leads to {guest}: {}", self.line))?;
        Ok(number.parse()?)
    }

    /// One of xtask's commands for this system: the verb, then its arguments.
    ///
    /// # Errors
    /// When there is no verb.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let (verb, rest) = arguments.split_first().context("no command")?;
        let mut all = vec![*verb, "--system", &self.pid];
        all.extend(rest);
        xtask(&all)
    }

    /// Runs commands and checks their status.
    ///
    /// # Errors
    /// When they end otherwise.
    pub fn sh(&self, commands: &str, status: u8) -> anyhow::Result<Output> {
        let output = self.command(&["sh", commands])?.output()?;
        ensure!(
            output.status.code() == Some(status.into()),
            "{commands:?}: {}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it ended otherwise.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the system ended with {ended}");
        Ok(())
    }

    /// Its log so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        let file = self.line["log"].as_str().context("no log in the line")?;
        Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn first_word(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output).into_owned();
    text.split_whitespace().next().unwrap_or("").to_owned()
}

/// Everything that `sh` and `push` promise, in one system.
pub(super) fn a_running_system() -> anyhow::Result<()> {
    let mut system = System::start(&["--timeout-s", "300"])?;

    let output = system.sh("echo out; echo err >&2; exit 3", 3)?;
    ensure!(output.stdout == b"out\n", "{:?}", output.stdout);
    ensure!(output.stderr == b"err\n", "{:?}", output.stderr);

    // Megabytes out and in, byte for byte.
    let file = system.sh("cat /big.bin", 0)?.stdout;
    let expected = first_word(&system.sh("sha256sum /big.bin", 0)?.stdout);
    ensure!(
        file.len() > 10 << 20 && hash(&file) == expected,
        "{} bytes of /big.bin came, not its contents",
        file.len()
    );
    let mut child = system
        .command(&["sh", "--stdin", "sha256sum"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = file.get(..3 << 20).context("a part of the file")?;
    child.stdin.take().context("its input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(
        first_word(&output.stdout) == hash(input),
        "input arrived changed"
    );

    // A command without an end is killed with what it started.
    let output = system
        .command(&["sh", "--timeout-s", "1", "cat /big.bin - | yes >/dev/null"])?
        .output()?;
    ensure!(
        output.status.code() == Some(STATUS_TIMEOUT.into()),
        "{}",
        output.status
    );
    system.sh("! ps | grep yes", 0)?;

    // A client that is none, and one that goes away in the middle of a program.
    let address = system.line["control"].as_str().context("no address")?;
    UnixStream::connect(address)?.write_all(&[0x55, 0, 1, 2, 3, 0, 0xff, 0])?;
    let mut client = UnixStream::connect(address)?;
    for message in [
        ToSystem::Replace {
            id: 1,
            driver: "virtio-blk".to_owned(),
            length: 1 << 20,
        },
        ToSystem::Data {
            id: 1,
            offset: 0,
            bytes: vec![0x7f; 1000],
        },
    ] {
        client.write_all(&encode(&message)?)?;
    }
    drop(client);

    push_while_a_disk_is_read(&system, &expected)?;

    system.sh("poweroff", 0)?;
    system.ended()?;
    system.sh("true", STATUS_USAGE)?;
    Ok(())
}

/// A driver with a changed line for the log takes the place of the one that serves a disk under load.
fn push_while_a_disk_is_read(system: &System, expected: &str) -> anyhow::Result<()> {
    let program = build::build_program(Profile::Release, "virtio-blk")?;
    let mut bytes = std::fs::read(&program.stripped)?;
    let (from, to) = (LOG_TEXT.0.as_bytes(), LOG_TEXT.1.as_bytes());
    let place = bytes.windows(from.len()).position(|found| found == from);
    let place = place.context("the driver has no such text")?;
    bytes
        .get_mut(place..place + to.len())
        .context("the text's place")?
        .copy_from_slice(to);
    let changed = tempfile::NamedTempFile::new()?;
    std::fs::write(changed.path(), &bytes)?;
    ensure!(
        !system.log()?.contains(LOG_TEXT.1),
        "the changed line was there before"
    );

    let mut reader = system
        .command(&[
            "sh",
            "echo begun; for i in 1 2 3 4; do dd if=/big.bin bs=4k 2>/dev/null | sha256sum; done",
        ])?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(reader.stdout.take().context("its output")?);
    let mut begun = String::new();
    lines.read_line(&mut begun)?;
    let changed = changed.path().to_string_lossy();
    let output = system
        .command(&["push", "--json", "virtio-blk", "--program", &changed])?
        .output()?;
    ensure!(
        output.status.success(),
        "push: {}, {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let device = &report["devices"][0];
    ensure!(
        device["gap_ns"].as_u64().is_some_and(|gap| gap > 0) && device["fell_back"].is_null(),
        "{report}"
    );
    ensure!(
        system.log()?.contains(LOG_TEXT.1),
        "the changed line is not in the log"
    );
    let mut rest = String::new();
    lines.read_to_string(&mut rest)?;
    let hashes: Vec<String> = rest
        .lines()
        .map(|line| first_word(line.as_bytes()))
        .collect();
    ensure!(
        reader.wait()?.success() && hashes.len() == 4 && hashes.iter().all(|h| h == expected),
        "what was read meanwhile has the hashes {hashes:?}, expected {expected}"
    );

    // One that is damaged does not come up, and the one before serves again.
    let broken = tempfile::NamedTempFile::new()?;
    let entry = bytes.get(24..32).and_then(|field| field.try_into().ok());
    let entry = u64::from_le_bytes(entry.context("an ELF header")?);
    if let Some(field) = bytes.get_mut(24..32) {
        // Into the page of headers, where nothing can be executed.
        field.copy_from_slice(&(entry & 0xff_0000).to_le_bytes());
    }
    std::fs::write(broken.path(), &bytes)?;
    let broken = broken.path().to_string_lossy();
    let output = system
        .command(&["push", "--json", "virtio-blk", "--program", &broken])?
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(1) && !text.contains("\"fell_back\":null"),
        "a program that faults: {}, {text}",
        output.status
    );
    let again = first_word(&system.sh("sha256sum /big.bin", 0)?.stdout);
    ensure!(again == expected, "after the fall-back the hash is {again}");
    Ok(())
}
