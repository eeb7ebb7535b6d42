//! QEMU's control channel (`-qmp unix:PATH,server=on,wait=off`).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Longest wait for QEMU's answer.
const LIMIT: Duration = Duration::from_secs(60);

/// QEMU's control channel.
pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects to the socket that QEMU's `-qmp` made.
    ///
    /// # Errors
    /// When QEMU is not there, or does not answer.
    pub fn open(path: &Path) -> anyhow::Result<Qmp> {
        let stream = UnixStream::connect(path).context("QEMU's control channel")?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut qmp = Qmp(BufReader::new(stream));
        qmp.message()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    fn message(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("QEMU's answer")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU's answer {line:?}"))
    }

    /// Runs a command.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<()> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}")?;
        loop {
            let answer = self.message()?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            // What comes in between are events.
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }
}

impl Qmp {
    /// The device is gone for QEMU too: only then may its name be used again.
    ///
    /// # Errors
    /// When QEMU does not say so.
    pub fn wait_deleted(&mut self, id: &str) -> anyhow::Result<()> {
        loop {
            let event = self.message()?;
            if event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id {
                return Ok(());
            }
        }
    }
}
