//! QMP, QEMU's control channel: JSON objects, one a line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A command may have to wait for requests in flight.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Events that are kept; older ones are forgotten.
const EVENTS_KEPT: usize = 256;

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QmpError {
    /// QEMU has ended, or does not answer.
    Closed,
    /// QEMU's own words.
    Refused(String),
    /// The event did not come within the limit.
    NoEvent(String),
}

impl std::fmt::Display for QmpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QmpError::Closed => f.write_str("QEMU has ended or does not answer"),
            QmpError::Refused(text) => write!(f, "QEMU refuses: {text}"),
            QmpError::NoEvent(name) => write!(f, "QEMU did not report {name} in time"),
        }
    }
}

impl std::error::Error for QmpError {}

struct Stream {
    reader: BufReader<UnixStream>,
    /// What was read of a line when the time was over.
    partial: String,
    events: VecDeque<Value>,
}

/// The control channel of a machine.
pub struct Qmp(Mutex<Stream>);

impl Qmp {
    /// Takes QEMU's greeting and leaves the negotiation.
    pub(crate) fn new(socket: UnixStream) -> Result<Qmp, QmpError> {
        let limit = Some(ANSWER_LIMIT);
        let ready = socket.set_read_timeout(limit);
        ready.map_err(|_| QmpError::Closed)?;
        let mut stream = Stream {
            reader: BufReader::new(socket),
            partial: String::new(),
            events: VecDeque::new(),
        };
        if stream
            .next(ANSWER_LIMIT)?
            .is_none_or(|v| v["QMP"].is_null())
        {
            return Err(QmpError::Closed);
        }
        let qmp = Qmp(Mutex::new(stream));
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command (QEMU QMP Reference Manual) and gives what it returns.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with QEMU's description.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!(
            "{}\n",
            json!({ "execute": command, "arguments": arguments })
        );
        let socket = stream.reader.get_mut();
        socket
            .write_all(text.as_bytes())
            .map_err(|_| QmpError::Closed)?;
        loop {
            let mut answer = stream.next(ANSWER_LIMIT)?.ok_or(QmpError::Closed)?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                let text = error["desc"].as_str().unwrap_or("no reason given");
                return Err(QmpError::Refused(format!("{command}: {text}")));
            }
            stream.keep(answer);
        }
    }

    /// Waits for an event, or finds one that came since it was last asked for.
    ///
    /// # Errors
    /// [`QmpError::NoEvent`] when it does not come within `limit`.
    pub fn event(&self, name: &str, limit: Duration) -> Result<Value, QmpError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + limit;
        loop {
            let at = stream.events.iter().position(|e| e["event"] == name);
            if let Some(event) = at.and_then(|at| stream.events.remove(at)) {
                return Ok(event);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::NoEvent(name.to_owned()));
            }
            if let Some(event) = stream.next(left)? {
                stream.keep(event);
            }
        }
    }
}

impl Stream {
    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next object; `None` when none comes within the limit.
    fn next(&mut self, limit: Duration) -> Result<Option<Value>, QmpError> {
        let socket = self.reader.get_ref();
        let timed = socket.set_read_timeout(Some(limit));
        timed.map_err(|_| QmpError::Closed)?;
        match self.reader.read_line(&mut self.partial) {
            Ok(0) => Err(QmpError::Closed),
            Ok(_) => {
                let line = std::mem::take(&mut self.partial);
                serde_json::from_str(&line)
                    .map(Some)
                    .map_err(|error| QmpError::Refused(format!("{line:?}: {error}")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(QmpError::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_between_answers_are_kept_and_lines_may_come_in_pieces() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut commands = BufReader::new(theirs.try_clone().unwrap()).lines();
            theirs.write_all(b"{\"QMP\": {}}\n").unwrap();
            let negotiation = commands.next().unwrap().unwrap();
            theirs
                .write_all(b"{\"return\": {}}\n{\"event\": \"STOP\"}\n{\"event\":")
                .unwrap();
            let command = commands.next().unwrap().unwrap();
            theirs
                .write_all(b" \"RESUME\"}\n{\"error\": {\"desc\": \"not so\"}}\n")
                .unwrap();
            (negotiation, command)
        });
        let qmp = Qmp::new(ours).unwrap();
        qmp.event("STOP", Duration::from_secs(20)).unwrap();
        let nothing = qmp.event("RESUME", Duration::from_millis(20));
        assert_eq!(nothing, Err(QmpError::NoEvent("RESUME".to_owned())));
        let refused = qmp.execute("cont", json!({})).unwrap_err();
        assert_eq!(refused, QmpError::Refused("cont: not so".to_owned()));
        qmp.event("RESUME", Duration::from_secs(20)).unwrap();
        let (negotiation, command) = peer.join().unwrap();
        assert!(negotiation.contains("qmp_capabilities"));
        assert!(command.contains("\"cont\""));
        let closed = qmp.execute("quit", json!({}));
        assert_eq!(closed, Err(QmpError::Closed));
    }
}
