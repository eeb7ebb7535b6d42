//! The loop: one thread, never blocked by a host or a command that does not keep up.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use boot_archive::BootArchive;
use control_link::{
    COMMAND_BYTES_MAX, Ending, FrameError, FromSystem, Input, REQUESTS_MAX, ToSystem, VERSION,
};
use rt::proto::devmgr::EndpointsClient;
use rt::proto::proc::ProcessesClient;
use rt::{AsHandle, Channel, Error, Packet, Port, Vmo, startup};

use crate::execute::Execution;
use crate::line::Line;
use crate::replace::Replacement;
use crate::request::Request;

const KEY_LINE: u64 = 1;
const KEY_REQUEST: u64 = 2;
/// Queued by the loop itself when there is more to read.
const KEY_AGAIN: u64 = 3;

struct Control {
    port: Port,
    shell: Vmo,
    processes: Option<ProcessesClient>,
    incarnation: u64,
    line: Line,
    requests: BTreeMap<u32, Request>,
    damaged: u32,
}

/// Entry point.
pub fn run() -> Result<(), String> {
    let name = startup::args()
        .get(1)
        .ok_or("started without the name of a serial port")?;
    let client = |name: &str| startup::take::<Channel>(name);
    let ports = client("serial").ok_or("started without the handle \"serial\"")?;
    let ports = EndpointsClient::new(ports);
    let archive =
        startup::take::<Vmo>("archive").ok_or("started without the handle \"archive\"")?;
    let archive = BootArchive::open(archive).map_err(|error| error.to_string())?;
    let shell = archive
        .window("bin/sh")
        .map_err(|error| format!("bin/sh: {error}"))?;
    let processes = startup::handle::<Channel>("proc")
        .and_then(|channel| channel.duplicate().ok())
        .map(ProcessesClient::new);
    let text = |error: Error| error.to_string();
    let port = Port::create().map_err(text)?;
    let line = Line::open(&ports, name, &port, KEY_LINE).map_err(text)?;
    let mut control = Control {
        port,
        shell,
        processes,
        incarnation: rt::time::now_ns(),
        line,
        requests: BTreeMap::new(),
        damaged: 0,
    };
    rt::info!("control port at serial:/{name}");
    control.hello();
    loop {
        match control.turn() {
            Ok(()) => {}
            Err(Error::PeerClosed) => {
                rt::warn!("the serial port is gone; waiting for it");
                control.line = Line::open(&ports, name, &control.port, KEY_LINE).map_err(text)?;
                // What was on its way is lost, in both directions.
                control.damaged = control.damaged.saturating_add(1);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl Control {
    fn turn(&mut self) -> Result<(), Error> {
        let mut messages = alloc::vec::Vec::new();
        let more = self.line.receive(|message| messages.push(message))?;
        for message in messages {
            match message {
                Ok(message) => self.serve(message),
                Err(error) => self.complain(error),
            }
        }
        let damaged = core::mem::take(&mut self.damaged);
        if damaged > 0 {
            self.line.send(&FromSystem::Damaged { frames: damaged });
        }
        let line = &mut self.line;
        let mut over = alloc::vec::Vec::new();
        for (id, request) in &mut self.requests {
            if let Some(ending) = request.pump(line) {
                over.push((*id, ending));
            }
        }
        for (id, ending) in over {
            self.requests.remove(&id);
            self.line.send(&FromSystem::Ended { id, ending });
        }
        let again = self.line.flush()?;
        if more {
            self.port.queue(KEY_AGAIN, 0)?;
        }
        let mut packets = [Packet::default(); 16];
        match self.port.wait(&mut packets, again) {
            Ok(_) | Err(Error::TimedOut | Error::ShouldWait) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A line of garbage is one line of the log, not one each.
    fn complain(&mut self, error: FrameError) {
        if self.damaged == 0 {
            rt::warn!("{error}");
        }
        self.damaged = self.damaged.saturating_add(1);
    }

    fn hello(&mut self) {
        self.line.send(&FromSystem::Hello {
            version: VERSION,
            incarnation: self.incarnation,
        });
    }

    fn refuse(&mut self, id: u32, reason: String) {
        let ending = Ending::Failed { reason };
        self.line.send(&FromSystem::Ended { id, ending });
    }

    fn serve(&mut self, message: ToSystem) {
        match message {
            ToSystem::Hello => {
                self.line.begin();
                self.hello();
            }
            ToSystem::Received { frames } => self.line.received(frames),
            ToSystem::Execute {
                id,
                command,
                input,
                credit,
            } => self.begin(id, |control| {
                let execution = control.execute(id, &command, input, credit)?;
                Ok(Request::Execution(execution))
            }),
            ToSystem::Replace { id, driver, length } => self.begin(id, |_| {
                let replacement = Replacement::start(id, driver, length)?;
                Ok(Request::Replacement(replacement))
            }),
            ToSystem::Data { id, offset, bytes } => {
                self.with(id, |request, _| request.input(offset, bytes));
            }
            ToSystem::End { id } => {
                self.with(id, |request, port| request.end_input(port, KEY_REQUEST));
            }
            ToSystem::Credit { id, bytes } => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.grant(bytes);
                }
            }
            // What is over needs no cancelling, and was told.
            ToSystem::Cancel { id } => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.cancel(self.processes.as_ref());
                }
            }
        }
    }

    /// Begins a request, or tells why not.
    fn begin(&mut self, id: u32, start: impl FnOnce(&mut Control) -> Result<Request, String>) {
        if id == 0 || self.requests.contains_key(&id) {
            // An end for this number would be taken for the other one's.
            rt::warn!("a request with number {id}, which is in use");
            return;
        }
        let started = if self.requests.len() >= REQUESTS_MAX {
            Err(format!("{REQUESTS_MAX} requests are under way already"))
        } else {
            start(self)
        };
        match started {
            Ok(request) => {
                self.requests.insert(id, request);
            }
            Err(reason) => self.refuse(id, reason),
        }
    }

    /// Lets a request take something; one that cannot is over. What is over takes nothing.
    fn with(&mut self, id: u32, take: impl FnOnce(&mut Request, &Port) -> Result<(), String>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if let Err(reason) = take(request, &self.port) {
            request.cancel(self.processes.as_ref());
            self.requests.remove(&id);
            self.refuse(id, reason);
        }
    }

    fn execute(
        &mut self,
        id: u32,
        command: &str,
        input: Input,
        credit: u32,
    ) -> Result<Execution, String> {
        if command.len() > COMMAND_BYTES_MAX {
            return Err(format!(
                "a command of {} bytes, where {COMMAND_BYTES_MAX} is the most",
                command.len()
            ));
        }
        let execution = Execution::start(
            &self.shell,
            id,
            command,
            input,
            credit,
            &self.port,
            KEY_REQUEST,
        )?;
        if let Some(greeting) = execution.greeting() {
            self.line.send(&greeting);
        }
        Ok(execution)
    }
}
