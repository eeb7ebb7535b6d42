//! The guest's memory from outside, while it runs: QEMU's qtest socket beside the ordinary CPU.
//!
//! Only what a campaign needs of that protocol (QEMU, softmmu/qtest.c): whole commands, one answer each. Writes go the way of a
//! device's, so that QEMU notices when it was code.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// QEMU answers within microseconds, unless the host has stopped it.
const LIMIT: Duration = Duration::from_secs(120);

/// The connection.
pub struct Memory {
    socket: BufReader<UnixStream>,
}

impl Memory {
    /// Listens where QEMU is told to connect to.
    ///
    /// # Errors
    /// When the path cannot be used.
    pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
        UnixListener::bind(path).with_context(|| path.display().to_string())
    }

    /// Arguments of QEMU that connect it.
    pub fn arguments(path: &Path) -> Vec<String> {
        let socket = format!("unix:{}", path.display());
        ["-qtest", &socket, "-qtest-log", "/dev/null"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Takes the connection of a QEMU that has been started.
    ///
    /// # Errors
    /// When none comes.
    pub fn accept(listener: &UnixListener) -> anyhow::Result<Memory> {
        let (socket, _) = listener.accept().context("QEMU's qtest connection")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        Ok(Memory {
            socket: BufReader::new(socket),
        })
    }

    fn command(&mut self, text: &str) -> anyhow::Result<String> {
        self.socket
            .get_mut()
            .write_all(format!("{text}\n").as_bytes())?;
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.socket.read_line(&mut line)?;
            ensure!(len > 0, "QEMU closed the qtest connection");
            match line.trim_end().split_once(' ') {
                Some(("OK", rest)) => return Ok(rest.to_owned()),
                _ if line.trim_end() == "OK" => return Ok(String::new()),
                // What interrupt controllers do is of no interest.
                _ if line.starts_with("IRQ") => {}
                _ => bail!("qtest: {} to {text:.40}", line.trim_end()),
            }
        }
    }

    /// Reads physical memory.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn read(&mut self, address: u64, len: usize) -> anyhow::Result<Vec<u8>> {
        let text = self.command(&format!("read {address:#x} {len:#x}"))?;
        let digits = text.trim_start_matches("0x");
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..len).map(|index| byte(index * 2)).collect();
        bytes.with_context(|| format!("qtest: read gave {text:.40}"))
    }

    /// Writes physical memory.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let mut text = format!("write {address:#x} {:#x} 0x", bytes.len());
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        self.command(&text).map(drop)
    }

    /// Where `start`, the first page of something, lies: looks at pages downward from `below`.
    ///
    /// # Errors
    /// When it is nowhere.
    pub fn find_page(&mut self, start: &[u8], below: u64) -> anyhow::Result<u64> {
        let mut page = below & !0xfff;
        while page > 0 {
            page -= 0x1000;
            if self.read(page, 64)? == start[..64] && self.read(page, start.len())? == start {
                return Ok(page);
            }
        }
        bail!("the boot archive is not in the guest's memory")
    }
}
