//! A command line that runs: its process, its output on the way out, its input on the way in.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use control::{Receiving, Sending, descendants};
use control_link::{Ending, FromSystem, Input, OutputStream};
use rt::abi::{PRIORITY_DEFAULT, Quota, Signals};
use rt::process::{Child, Command, Stdio};
use rt::proto::proc::ProcessesClient;
use rt::{AsHandle, Channel, Deadline, Error, HandleList, Port, Vmo, Watch, startup};

use crate::line::Line;

/// Handles that are for this process alone. A command gets all others: what a shell at the console has.
const OWN: &[&str] = &["serial", "archive"];
/// Code of a command that was cancelled, as a shell's ctrl-C has it.
const KILL_CODE: i32 = 2;

/// One output of the command.
struct Output {
    which: OutputStream,
    channel: Channel,
    /// A message that was read, from `position` on not sent.
    pending: Vec<u8>,
    position: usize,
}

impl Output {
    /// Reads the next message if the last one is sent; tells whether there is something to send.
    fn fill(&mut self) -> bool {
        while self.position >= self.pending.len() {
            let mut handles = HandleList::new();
            self.position = 0;
            match self
                .channel
                .read_vec(&mut self.pending, &mut handles, Deadline::NOW)
            {
                Ok(_) => {}
                // Nothing now, or never again: the shell's end tells which.
                Err(_) => {
                    self.pending.clear();
                    return false;
                }
            }
        }
        true
    }
}

/// What becomes of the command's input.
struct InputStream {
    channel: Channel,
    receiving: Receiving,
    waiting: VecDeque<Vec<u8>>,
    ended: bool,
}

/// A running command.
pub struct Execution {
    id: u32,
    child: Child,
    outputs: [Output; 2],
    sending: Sending,
    input: Option<InputStream>,
    cancelled: bool,
}

fn text(what: &'static str) -> impl Fn(Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

impl Execution {
    /// Starts `command`; whatever happens to it comes to `port` with `key`.
    ///
    /// # Errors
    /// Why it was not started, for people.
    pub fn start(
        shell: &Vmo,
        id: u32,
        command: &str,
        input: Input,
        credit: u32,
        port: &Port,
        key: u64,
    ) -> Result<Execution, String> {
        let pipe = || Channel::create().map_err(text("make a pipe"));
        let (output, child_output) = pipe()?;
        let (errors, child_errors) = pipe()?;
        let (stdin, input) = match input {
            Input::Empty => (Stdio::Null, None),
            Input::Stream => {
                let (child_input, channel) = pipe()?;
                let wanted = Signals::WRITABLE | Signals::PEER_CLOSED;
                channel
                    .wait_async(port, key, wanted, Watch::Persistent)
                    .map_err(text("watch its input"))?;
                let input = InputStream {
                    channel,
                    receiving: Receiving::new(),
                    waiting: VecDeque::new(),
                    ended: false,
                };
                (Stdio::Pipe(child_input), Some(input))
            }
        };
        for channel in [&output, &errors] {
            let wanted = Signals::READABLE | Signals::PEER_CLOSED;
            channel
                .wait_async(port, key, wanted, Watch::Persistent)
                .map_err(text("watch its output"))?;
        }
        let quota = Quota {
            pages: u64::MAX,
            handles: 65_536,
            threads: 1_024,
            processes: 1_024,
            max_priority: u32::from(PRIORITY_DEFAULT),
        };
        let child = Command::new(shell, "sh")
            .arg("-c")
            .arg(command)
            .cwd("/")
            .priority(PRIORITY_DEFAULT)
            .quota(quota)
            .stdin(stdin)
            .stdout(Stdio::Pipe(child_output))
            .stderr(Stdio::Pipe(child_errors))
            .inherit(startup::handle_names().filter(|name| !OWN.contains(name)))
            .spawn()
            .map_err(|error| format!("cannot start the shell: {error}"))?;
        child
            .process()
            .wait_async(port, key, Signals::TERMINATED, Watch::Once)
            .map_err(text("watch the shell"))?;
        Ok(Execution {
            id,
            child,
            outputs: [
                Output::new(OutputStream::Output, output),
                Output::new(OutputStream::Errors, errors),
            ],
            sending: Sending::new(credit),
            input,
            cancelled: false,
        })
    }

    /// What its host is told at once: how much input it may send.
    pub fn greeting(&self) -> Option<FromSystem> {
        self.input.as_ref().map(|_| FromSystem::Credit {
            id: self.id,
            bytes: control_link::CREDIT_BYTES,
        })
    }

    /// More output is wanted.
    pub fn grant(&mut self, bytes: u32) {
        self.sending.grant(bytes);
    }

    /// Takes input.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn input(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), String> {
        let Some(input) = &mut self.input else {
            return Err(String::from("this request takes no input"));
        };
        let taken = input.receiving.take(offset, bytes.len());
        taken.map_err(|refused| refused.to_string())?;
        if !bytes.is_empty() {
            input.waiting.push_back(bytes);
        }
        Ok(())
    }

    /// There is no more input.
    pub fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ended = true;
        }
    }

    /// Kills the shell and all that descends from it.
    pub fn cancel(&mut self, processes: Option<&ProcessesClient>) {
        self.cancelled = true;
        let family = match (self.child.id(), processes) {
            (Ok(pid), Some(processes)) => descendants(&list(processes), pid),
            _ => Vec::new(),
        };
        // One that has just ended needs no killing.
        let _ = self.child.process().kill(KILL_CODE);
        if let Some(processes) = processes {
            for pid in family.iter().skip(1) {
                let _ = processes.kill(*pid, KILL_CODE);
            }
        }
    }

    /// Moves bytes both ways as far as they go now. Gives the end when everything is out.
    pub fn pump(&mut self, line: &mut Line) -> Option<Ending> {
        // Asked first: what it wrote before its end is in the pipes then.
        let ended = self.child.try_wait();
        self.pump_input(line);
        if !self.cancelled && !self.pump_outputs(line) {
            return None;
        }
        let exited = match ended {
            Ok(Some(exited)) => exited,
            Ok(None) => return None,
            Err(error) => {
                let reason = text("learn how the shell ended")(error);
                return Some(Ending::Failed { reason });
            }
        };
        Some(if self.cancelled {
            Ending::Cancelled
        } else {
            Ending::Exited {
                // The status of a shell is within 0 and 255.
                status: u8::try_from(exited.status() & 0xff).unwrap_or(u8::MAX),
            }
        })
    }

    /// Tells whether all that is there was sent.
    fn pump_outputs(&mut self, line: &mut Line) -> bool {
        let (id, mut all) = (self.id, true);
        for output in &mut self.outputs {
            while output.fill() {
                let rest = output.pending.get(output.position..).unwrap_or(&[]);
                let len = self.sending.next(rest.len());
                if len == 0 || !line.has_room() {
                    all = false;
                    break;
                }
                line.send(&FromSystem::Output {
                    id,
                    stream: output.which,
                    bytes: rest.get(..len).unwrap_or(rest).to_vec(),
                });
                self.sending.sent(len);
                output.position += len;
            }
        }
        all
    }

    fn pump_input(&mut self, line: &mut Line) {
        let Some(input) = &mut self.input else {
            return;
        };
        while let Some(bytes) = input.waiting.front() {
            match input.channel.write(bytes, &mut HandleList::new()) {
                Err(Error::ShouldWait) => return,
                // What nobody reads is used up too: the host need not know who reads how much.
                Ok(()) | Err(_) => {
                    let grant = input.receiving.used(bytes.len());
                    input.waiting.pop_front();
                    if let Some(bytes) = grant {
                        line.send(&FromSystem::Credit { id: self.id, bytes });
                    }
                }
            }
        }
        if input.ended {
            // Closing the channel is the end of the stream.
            self.input = None;
        }
    }
}

impl Output {
    fn new(which: OutputStream, channel: Channel) -> Output {
        Output {
            which,
            channel,
            pending: Vec::new(),
            position: 0,
        }
    }
}

/// All processes; as many as can be learned.
fn list(client: &ProcessesClient) -> Vec<rt::proto::proc::ProcessSummary> {
    const PAGE: u32 = 256;
    let mut all: Vec<rt::proto::proc::ProcessSummary> = Vec::new();
    loop {
        let after = all.last().map_or(0, |process| process.pid);
        match client.list(after, PAGE) {
            Ok(page) if !page.is_empty() => all.extend(page),
            _ => return all,
        }
    }
}
