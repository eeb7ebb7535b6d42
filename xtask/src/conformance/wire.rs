//! The host's half of a wire: it holds the end of a guest's interface, and a program in the guest asks for what is to be done with it
//! over an interface of its own. The guest's half, with the form of question and answer, is in
//! `tests/system/conformance-net/src/wire.rs`.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::guest::qmp::Qmp;

/// Longest frame of QEMU's.
const FRAME_MAX: usize = 70_000;
/// Bytes before what belongs to a question: addresses, type, operation, number.
const HEADER_BYTES: usize = 19;
const TYPE: [u8; 2] = [0x88, 0xb6];
const SEND: u8 = 1;
const TAKE: u8 = 2;
const LINK: u8 = 3;
/// Longest packet of the interface for questions: it takes the longest frame of the suite with a header before it.
const QUESTION_MTU: usize = 10_000;
/// Most bytes of an answer.
const ANSWER_MAX: usize = 8000;
/// How long a question is waited for before the wire has its turn.
const TURN: Duration = Duration::from_millis(1);

/// Two datagram sockets, QEMU's and ours.
struct Line {
    socket: UnixDatagram,
    theirs: PathBuf,
}

impl Line {
    fn new(folder: &Path, name: &str) -> anyhow::Result<Line> {
        let ours = folder.join(format!("{name}.host"));
        let theirs = folder.join(format!("{name}.qemu"));
        for path in [&ours, &theirs] {
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        let socket =
            UnixDatagram::bind(&ours).with_context(|| format!("cannot make {}", ours.display()))?;
        Ok(Line { socket, theirs })
    }

    /// QEMU's argument.
    fn netdev(&self, id: &str) -> anyhow::Result<String> {
        let address = self.socket.local_addr()?;
        let ours = address.as_pathname().context("a socket without a name")?;
        Ok(format!(
            "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            self.theirs.display(),
            ours.display()
        ))
    }

    /// Sends a frame; `false`: not now, or not any more.
    fn send(&self, frame: &[u8]) -> anyhow::Result<bool> {
        match self.socket.send_to(frame, &self.theirs) {
            Ok(_) => Ok(true),
            Err(error)
                if [
                    ErrorKind::WouldBlock,
                    ErrorKind::NotFound,
                    ErrorKind::ConnectionRefused,
                ]
                .contains(&error.kind()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context("a frame to the guest"),
        }
    }

    /// The next frame of the guest's, if one comes in time.
    fn receive(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; FRAME_MAX];
        match self.socket.recv(&mut bytes) {
            Ok(len) => {
                bytes.truncate(len);
                Ok(Some(bytes))
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                Ok(None)
            }
            Err(error) => Err(error).context("a frame of the guest"),
        }
    }
}

/// See the module.
pub struct Wire {
    wire: Line,
    questions: Line,
    control: PathBuf,
    /// Frames that the wire has had no room for yet.
    inward: VecDeque<Vec<u8>>,
    /// Frames that nobody has asked for yet.
    outward: VecDeque<Vec<u8>>,
}

/// Name of the interface under test.
const DEVICE: &str = "dut";

impl Wire {
    /// Sockets in a folder.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn new(folder: &Path) -> anyhow::Result<Wire> {
        let control = folder.join("qmp");
        let (wire, questions) = (Line::new(folder, "wire")?, Line::new(folder, "ask")?);
        wire.socket.set_nonblocking(true)?;
        questions.socket.set_read_timeout(Some(TURN))?;
        Ok(Wire {
            wire,
            questions,
            control,
            inward: VecDeque::new(),
            outward: VecDeque::new(),
        })
    }

    /// QEMU's arguments for an interface under test with this address, and for the one that questions come over.
    ///
    /// # Errors
    /// When a socket has no name.
    pub fn arguments(&self, device: &str, mac: &str, helper: &str) -> anyhow::Result<Vec<String>> {
        let arguments = [
            "-netdev",
            &self.wire.netdev("wire")?,
            "-device",
            &format!("{device},netdev=wire,id={DEVICE},mac={mac}"),
            "-netdev",
            &self.questions.netdev("ask")?,
            "-device",
            &format!("virtio-net-pci,netdev=ask,mac={helper},host_mtu={QUESTION_MTU}"),
            "-qmp",
            &format!("unix:{},server=on,wait=off", self.control.display()),
        ];
        Ok(arguments.iter().map(ToString::to_string).collect())
    }

    /// Answers until it is stopped.
    ///
    /// # Errors
    /// When a socket breaks, or a question makes no sense.
    pub fn serve(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.carry()?;
            let Some(question) = self.questions.receive()? else {
                continue;
            };
            // A network stack may have been there before.
            if question.len() < HEADER_BYTES || question[12..14] != TYPE {
                continue;
            }
            self.carry()?;
            let mut answer = Vec::from(&question[6..12]);
            answer.extend(&question[..6]);
            answer.extend(&question[12..HEADER_BYTES]);
            answer.extend(self.answer(question[14], &question[HEADER_BYTES..])?);
            while !self.questions.send(&answer)? && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TURN);
            }
        }
        Ok(())
    }

    fn answer(&mut self, operation: u8, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut answer = Vec::new();
        match operation {
            SEND => {
                self.inward.push_back(bytes.to_vec());
                self.carry()?;
            }
            TAKE => {
                while let Some(frame) = self.outward.front()
                    && answer.len() + 2 + frame.len() <= ANSWER_MAX
                {
                    answer.extend((frame.len() as u16).to_be_bytes());
                    answer.extend(frame);
                    self.outward.pop_front();
                }
            }
            LINK => {
                let up = bytes.first() == Some(&1);
                let what = json!({ "name": DEVICE, "up": up });
                Qmp::open(&self.control)?.execute("set_link", &what)?;
            }
            _ => ensure!(false, "the guest asks for operation {operation}"),
        }
        Ok(answer)
    }

    /// Frames move along, in both directions.
    fn carry(&mut self) -> anyhow::Result<()> {
        while let Some(frame) = self.inward.front() {
            if !self.wire.send(frame)? {
                break;
            }
            self.inward.pop_front();
        }
        while let Some(frame) = self.wire.receive()? {
            // Longer ones are nothing that a wire carries.
            if frame.len() <= ANSWER_MAX - 2 {
                self.outward.push_back(frame);
            }
        }
        Ok(())
    }
}
