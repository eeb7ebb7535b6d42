//! Which systems run: a file each in `target/systems`, made when a system is ready.
//!
//! A file whose system is gone is found by its address, where nobody listens any more, and removed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{UsageError, build};

/// Logs of systems that are kept.
const LOGS_MAX: usize = 10;

/// What `run --headless` prints of a system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Address of its control port: a Unix socket.
    pub control: PathBuf,
    /// Process that runs it; it ends with that.
    pub pid: u32,
    /// Its log.
    pub log: PathBuf,
    /// Ports of the host that lead to it.
    pub ports: Vec<Forward>,
}

/// A port of the host that leads to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port on the host.
    pub host: String,
    /// Address and port in the guest.
    pub guest: String,
}

/// A system's entry; gone when this is dropped.
#[derive(Debug)]
pub struct Entry {
    file: PathBuf,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // One that is left behind is found to be stale.
        let _ = fs::remove_file(&self.file);
    }
}

fn folder() -> anyhow::Result<PathBuf> {
    build::target_folder("systems")
}

/// Where the log of this process's system goes. Logs of earlier ones are removed, but for the newest.
///
/// # Errors
/// When the folder cannot be made or read.
pub fn log_file() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let mut logs: Vec<_> = files(&folder, "log")?
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    logs.sort();
    let surplus = logs.len().saturating_sub(LOGS_MAX.saturating_sub(1));
    for (_, path) in logs.iter().take(surplus) {
        let running = path.with_extension("json").exists();
        if !running {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
    Ok(folder.join(format!("{}.log", std::process::id())))
}

/// Enters a system that is ready.
///
/// # Errors
/// When the file cannot be written.
pub fn enter(system: &System) -> anyhow::Result<Entry> {
    let folder = folder()?;
    let file = folder.join(format!("{}.json", system.pid));
    let mut temporary = tempfile::NamedTempFile::new_in(&folder)?;
    serde_json::to_writer(&mut temporary, system)?;
    temporary
        .persist(&file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Entry { file })
}

/// The system that `selector` means: a process id, an address, or without one the only one that runs.
///
/// # Errors
/// [`UsageError`] when there is none, or several and none was named.
pub fn find(selector: Option<&str>) -> anyhow::Result<PathBuf> {
    if let Some(address) = selector.filter(|text| text.contains('/')) {
        return Ok(PathBuf::from(address));
    }
    let mut running = running(&folder()?)?;
    if let Some(text) = selector {
        let pid: u32 = text
            .parse()
            .map_err(|_| UsageError(format!("{text:?} is no process id and no address")))?;
        let system = running.into_iter().find(|system| system.pid == pid);
        let system = system.ok_or_else(|| {
            UsageError(format!(
                "no system runs as process {pid}; it may have ended"
            ))
        })?;
        return Ok(system.control);
    }
    match (running.pop(), running.as_slice()) {
        (Some(system), []) => Ok(system.control),
        (Some(system), others) => {
            let mut pids: Vec<String> = others.iter().map(|s| s.pid.to_string()).collect();
            pids.push(system.pid.to_string());
            Err(UsageError(format!(
                "several systems run; name one with --system PID: {}",
                pids.join(", ")
            ))
            .into())
        }
        (None, _) => Err(UsageError(
            "no system runs; start one with `cargo xtask run --headless`".to_owned(),
        )
        .into()),
    }
}

/// Systems that run, by process id; entries of others are removed.
fn running(folder: &Path) -> anyhow::Result<Vec<System>> {
    let mut systems = Vec::new();
    for path in files(folder, "json")? {
        let system = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice::<System>(&text).ok());
        match system {
            Some(system) if UnixStream::connect(&system.control).is_ok() => systems.push(system),
            _ => {
                // Somebody else may have removed it.
                let _ = fs::remove_file(&path);
            }
        }
    }
    systems.sort_by_key(|system| system.pid);
    Ok(systems)
}

fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect())
}

/// Ports that QEMU's user network forwards, from its arguments: `hostfwd=tcp:ADDRESS:PORT-ADDRESS:PORT`.
pub fn forwards(arguments: &[String]) -> Vec<Forward> {
    let options = arguments.iter().flat_map(|text| text.split(','));
    options
        .filter_map(|option| {
            let (protocol, rest) = option.strip_prefix("hostfwd=")?.split_once(':')?;
            let (host, guest) = rest.split_once('-')?;
            let host = match host.strip_prefix(':') {
                Some(port) => format!("0.0.0.0:{port}"),
                None => host.to_owned(),
            };
            Some(Forward {
                protocol: if protocol.is_empty() { "tcp" } else { protocol }.to_owned(),
                host,
                guest: guest.strip_prefix(':').unwrap_or(guest).to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn system(folder: &Path, pid: u32) -> System {
        System {
            control: folder.join(format!("{pid}.socket")),
            pid,
            log: PathBuf::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_system_that_is_gone_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (here, gone) = (system(folder.path(), 1), system(folder.path(), 2));
        for system in [&here, &gone] {
            let file = folder.path().join(format!("{}.json", system.pid));
            fs::write(file, serde_json::to_vec(system).unwrap()).unwrap();
        }
        fs::write(folder.path().join("3.json"), b"{").unwrap();
        let _listener = UnixListener::bind(&here.control).unwrap();
        // Its socket is there, and nobody behind it.
        drop(UnixListener::bind(&gone.control).unwrap());
        assert_eq!(running(folder.path()).unwrap(), [here]);
        assert_eq!(files(folder.path(), "json").unwrap().len(), 1);
    }

    #[test]
    fn forwarded_ports_are_read_from_the_arguments() {
        let arguments = [
            "-netdev",
            "user,id=n,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::5-10.0.2.15:7",
        ];
        let found = forwards(&arguments.map(str::to_owned));
        let expected = [
            ("tcp", "127.0.0.1:8080", "80"),
            ("udp", "0.0.0.0:5", "10.0.2.15:7"),
        ];
        let expected = expected.map(|(protocol, host, guest)| Forward {
            protocol: protocol.to_owned(),
            host: host.to_owned(),
            guest: guest.to_owned(),
        });
        assert_eq!(found, expected);
    }
}
