//! The loop that moves bytes: one thread, never blocked by a reader or writer that does not keep up.
//!
//! The streams, the mode and the line that is being typed are kept in init's vault: programs that read and write
//! go on when this process dies. Output that was on its way through it, one write at most, may be cut.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use console::tty::{self, Input, SIZE_QUERY, Tty};
use rt::abi::Signals;
use rt::ipc::CallError;
use rt::proto::console::{
    ConsoleDrainReply, ConsoleError, ConsoleRequest, ConsoleServer, Mode, Session, Size,
};
use rt::proto::devmgr::EndpointsClient;
use rt::proto::serial::{SerialEndpointClient, SerialError};
use rt::proto::stream::CHUNK_MAX;
use rt::{
    AsHandle, Channel, Deadline, Error, Event, HandleList, HandleType, Packet, Port, Watch, startup,
};
use supervision::Supervised;

extern crate alloc;

/// Bits per second that are set on the port; an emulated one is as fast as it can be anyway.
const RATE: u32 = 115_200;
/// Bytes of output that wait here before programs have to.
const PENDING_MAX: usize = 64 * 1024;
/// Most bytes of a write to the port while a person watches: ctrl-C stops what was not yet written.
/// (The port's channel holds 512 of them.)
const INTERACTIVE_CHUNK: usize = 64;

const KEY_CLIENTS: u64 = 1;
const KEY_OUTPUT: u64 = 2;
const KEY_SERIAL: u64 = 3;
const KEY_SUPERVISOR: u64 = 4;
/// Between two attempts to open a serial port that is still another's.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// While there is no port, pings are answered this often.
const LOOK: Duration = Duration::from_secs(1);

/// Keys of the vault.
const STREAMS: &str = "streams";
const TYPED: &str = "typed";

/// The serial port: its endpoint and its stream.
struct Line {
    endpoint: SerialEndpointClient,
    stream: Channel,
}

/// What is typed and not yet read, and how: is the mode raw, the line, the size.
type Typed = (bool, Vec<u8>, Size);

struct Console {
    supervised: Option<Supervised>,
    /// As it was kept last.
    kept: Option<Typed>,
    session: Session,
    tty: Tty,
    size: Size,
    line: Line,
    /// Where input goes, and the end of it that clients get. A headless run has none: its end of
    /// input is there from the start.
    input: Option<Channel>,
    input_for_clients: Channel,
    /// Where output comes from, and the end of it that clients get.
    output: Channel,
    output_for_clients: Channel,
    interrupt: Event,
    pending: VecDeque<u8>,
    drains: Vec<ConsoleDrainReply>,
}

/// Entry point.
pub fn run() -> Result<(), String> {
    let session = match startup::args().get(1).map(String::as_str) {
        Some("headless") => Session::Headless,
        _ => Session::Interactive,
    };
    // A port that serves another purpose.
    let reserved = startup::args().get(2).map_or("", String::as_str);
    let ports = startup::handle::<Channel>("serial").ok_or("no handle 'serial'")?;
    let ports = ports
        .duplicate()
        .map(|channel| EndpointsClient::new(channel).repeating())
        .map_err(|e| alloc::format!("{e}"))?;
    let server = startup::take::<Channel>("serve:console").ok_or("no handle 'serve:console'")?;
    let server = ConsoleServer::new(server);
    serve(session, &ports, reserved, &server).map_err(|e| alloc::format!("{e}"))
}

fn serve(
    session: Session,
    ports: &EndpointsClient,
    reserved: &str,
    server: &ConsoleServer,
) -> Result<(), Error> {
    let port = Port::create()?;
    let supervised = Supervised::from_startup();
    if let Some(own) = &supervised {
        own.watch(&port, KEY_SUPERVISOR)?;
    }
    let streams = Streams::kept_or_new(supervised.as_ref())?;
    let mut console = Console {
        session,
        tty: Tty::new(),
        size: Size {
            columns: 80,
            rows: 24,
        },
        line: connect(ports, reserved, &port, supervised.as_ref())?,
        supervised,
        kept: None,
        input: (session == Session::Interactive).then_some(streams.input),
        input_for_clients: streams.input_for_clients,
        output: streams.output,
        output_for_clients: streams.output_for_clients,
        interrupt: streams.interrupt,
        pending: VecDeque::new(),
        drains: Vec::new(),
    };
    console.restore();
    let wanted = Signals::READABLE | Signals::PEER_CLOSED;
    server
        .channel()
        .wait_async(&port, KEY_CLIENTS, wanted, Watch::Persistent)?;
    console
        .output
        .wait_async(&port, KEY_OUTPUT, Signals::READABLE, Watch::Persistent)?;
    let mut packets = [Packet::default(); 8];
    loop {
        // A watch reports edges, so everything that is there is handled before each wait.
        loop {
            match server.next(Deadline::NOW) {
                Ok(request) => console.request(request)?,
                Err(Error::PeerClosed) => return Ok(()),
                Err(_) => break,
            }
        }
        let progress = console.read_serial().and_then(|()| console.pump());
        match progress {
            Ok(()) => {}
            Err(Error::PeerClosed) => {
                rt::warn!("the serial port is gone; waiting for another one");
                console.line = connect(ports, reserved, &port, console.supervised.as_ref())?;
                continue;
            }
            Err(error) => return Err(error),
        }
        console.keep();
        if let Some(own) = &console.supervised {
            own.answer();
        }
        port.wait(&mut packets, Deadline::FOREVER)?;
    }
}

/// The streams between the console and its programs.
struct Streams {
    input: Channel,
    input_for_clients: Channel,
    output: Channel,
    output_for_clients: Channel,
    interrupt: Event,
}

impl Streams {
    /// Those of an earlier process, which programs have; else new ones, which are kept.
    fn kept_or_new(vault: Option<&Supervised>) -> Result<Streams, Error> {
        if let Some(Ok(Some(((), handles)))) = vault.map(|vault| vault.get::<()>(STREAMS)) {
            let mut handles = handles.into_iter();
            let mut next = || handles.next().ok_or(Error::NotFound);
            return Ok(Streams {
                input: next()?.into_type(),
                input_for_clients: next()?.into_type(),
                output: next()?.into_type(),
                output_for_clients: next()?.into_type(),
                interrupt: next()?.into_type(),
            });
        }
        let (input, input_for_clients) = Channel::create()?;
        let (output, output_for_clients) = Channel::create()?;
        let streams = Streams {
            input,
            input_for_clients,
            output,
            output_for_clients,
            interrupt: Event::create()?,
        };
        if let Some(vault) = vault {
            let channels = [
                &streams.input,
                &streams.input_for_clients,
                &streams.output,
                &streams.output_for_clients,
            ];
            let mut handles = Vec::new();
            for channel in channels {
                handles.push(channel.duplicate()?.into_handle());
            }
            handles.push(streams.interrupt.duplicate()?.into_handle());
            if let Err(error) = vault.put(STREAMS, &(), handles) {
                rt::warn!("the terminal will not outlive the console: {error}");
            }
        }
        Ok(streams)
    }
}

/// Opens the first serial port but `reserved`, waiting for one if there is none.
fn connect(
    ports: &EndpointsClient,
    reserved: &str,
    port: &Port,
    supervised: Option<&Supervised>,
) -> Result<Line, Error> {
    let mut changes = ports.watch().ok();
    let mut message = Vec::new();
    loop {
        let mut busy = false;
        let list = ports.list().unwrap_or_default();
        for candidate in list.iter().filter(|port| port.name != reserved) {
            let Ok((_, channel, _)) = ports.open(&candidate.name) else {
                continue;
            };
            let endpoint = SerialEndpointClient::new(channel);
            match endpoint.open(RATE) {
                Ok(stream) => {
                    let wanted = Signals::READABLE | Signals::WRITABLE | Signals::PEER_CLOSED;
                    stream.wait_async(port, KEY_SERIAL, wanted, Watch::Persistent)?;
                    return Ok(Line { endpoint, stream });
                }
                // An earlier console's end is being noticed.
                Err(CallError::Remote(SerialError::Busy)) => busy = true,
                Err(error) => rt::warn!("serial port {}: {error}", candidate.name),
            }
        }
        if let Some(own) = supervised {
            own.answer();
        }
        // Whatever changed, the list tells what is there now.
        let limit = Deadline::after(if busy { BUSY_PAUSE } else { LOOK });
        let read = changes
            .as_ref()
            .map(|changes| changes.read_vec(&mut message, &mut HandleList::new(), limit));
        match read {
            Some(Ok(_) | Err(Error::TimedOut)) => {}
            // The device manager died; its successor tells of changes as well.
            Some(Err(_)) | None => {
                rt::time::sleep(BUSY_PAUSE);
                changes = ports.watch().ok();
            }
        }
    }
}

impl Console {
    /// Goes on with what an earlier process kept.
    fn restore(&mut self) {
        let kept = self
            .supervised
            .as_ref()
            .map(|vault| vault.get::<Typed>(TYPED));
        let Some(Ok(Some(((is_raw, line, size), _)))) = kept else {
            return;
        };
        let mode = if is_raw {
            tty::Mode::Raw
        } else {
            tty::Mode::Cooked
        };
        self.tty = Tty::with_line(mode, line);
        self.size = size;
    }

    /// Keeps what changed.
    fn keep(&mut self) {
        if self.session == Session::Headless {
            return;
        }
        let Some(vault) = &self.supervised else {
            return;
        };
        let is_raw = self.tty.mode() == tty::Mode::Raw;
        let typed: Typed = (is_raw, self.tty.line().to_vec(), self.size);
        if self.kept.as_ref() == Some(&typed) {
            return;
        }
        if let Err(error) = vault.put(TYPED, &typed, Vec::new()) {
            rt::warn!("what is typed is not kept: {error}");
        }
        self.kept = Some(typed);
    }

    fn request(&mut self, request: ConsoleRequest) -> Result<(), Error> {
        match request {
            ConsoleRequest::Open { reply } => {
                let ends = (
                    self.input_for_clients.duplicate(),
                    self.output_for_clients.duplicate(),
                );
                match ends {
                    (Ok(input), Ok(output)) => reply.ok(self.session, input, output),
                    _ => reply.error(ConsoleError::NoResources),
                }
            }
            ConsoleRequest::SetMode { mode, reply } => {
                let mode = match mode {
                    Mode::Cooked => tty::Mode::Cooked,
                    Mode::Raw => tty::Mode::Raw,
                };
                if mode == tty::Mode::Raw
                    && self.tty.mode() == tty::Mode::Cooked
                    && self.session == Session::Interactive
                    && !self.tty.expects_report()
                {
                    self.tty.expect_report();
                    self.pending.extend(SIZE_QUERY);
                }
                if let Some(typed) = self.tty.set_mode(mode) {
                    self.deliver(&typed)?;
                }
                reply.ok()
            }
            ConsoleRequest::InterruptEvent { reply } => match self.interrupt.duplicate() {
                Ok(event) => reply.ok(event),
                Err(_) => reply.error(ConsoleError::NoResources),
            },
            ConsoleRequest::Size { reply } => reply.ok(self.size),
            ConsoleRequest::Drain { reply } => {
                self.drains.push(reply);
                Ok(())
            }
        }
    }

    /// Takes what was typed.
    fn read_serial(&mut self) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let mut handles = HandleList::new();
        loop {
            match self
                .line
                .stream
                .read_vec(&mut bytes, &mut handles, Deadline::NOW)
            {
                Ok(_) => {}
                Err(Error::ShouldWait | Error::TimedOut) => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.session == Session::Headless {
                continue;
            }
            // In raw mode what came together goes on together.
            let mut data = Vec::new();
            let mut echo = Vec::new();
            for byte in &bytes {
                match self.tty.input(*byte, &mut echo) {
                    Input::None => {}
                    Input::Data(more) if self.tty.mode() == tty::Mode::Raw => data.extend(more),
                    Input::Data(line) => self.deliver(&line)?,
                    Input::EndOfInput => self.deliver(&[4])?,
                    Input::Interrupt => {
                        self.interrupt.set()?;
                        // What was already on its way to the screen is not wanted any more.
                        self.discard_output();
                    }
                    Input::Size(columns, rows) => self.size = Size { columns, rows },
                }
            }
            if !data.is_empty() {
                self.deliver(&data)?;
            }
            self.pending.extend(echo);
        }
    }

    fn deliver(&mut self, data: &[u8]) -> Result<(), Error> {
        let Some(input) = &self.input else {
            return Ok(());
        };
        match input.write(data, &mut HandleList::new()) {
            // Nobody reads, and 512 lines wait already.
            Err(Error::ShouldWait) => {
                self.pending.push_back(0x07);
                Ok(())
            }
            other => other,
        }
    }

    fn discard_output(&mut self) {
        self.pending.clear();
        let mut bytes = Vec::new();
        while self
            .output
            .read_vec(&mut bytes, &mut HandleList::new(), Deadline::NOW)
            .is_ok()
        {}
    }

    /// Moves output to the port as far as it takes it, and answers those who wait for that.
    fn pump(&mut self) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let mut handles = HandleList::new();
        loop {
            if !self.write_pending()? {
                return Ok(());
            }
            match self
                .output
                .read_vec(&mut bytes, &mut handles, Deadline::NOW)
            {
                Ok(_) if self.session == Session::Interactive => {
                    let mut out = Vec::with_capacity(bytes.len().min(PENDING_MAX));
                    tty::output(&bytes, &mut out);
                    self.pending.extend(out);
                }
                Ok(_) => self.pending.extend(bytes.iter()),
                Err(_) => break,
            }
        }
        for reply in core::mem::take(&mut self.drains) {
            match self.line.endpoint.drain() {
                Ok(()) => reply.ok()?,
                Err(_) => reply.error(ConsoleError::Gone)?,
            }
        }
        Ok(())
    }

    /// Tells whether everything was taken.
    fn write_pending(&mut self) -> Result<bool, Error> {
        let limit = match self.session {
            Session::Interactive => INTERACTIVE_CHUNK,
            Session::Headless => CHUNK_MAX,
        };
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            let chunk = front.get(..front.len().min(limit)).unwrap_or(front);
            let n = chunk.len();
            match self.line.stream.write(chunk, &mut HandleList::new()) {
                Ok(()) => {
                    self.pending.drain(..n);
                }
                Err(Error::ShouldWait) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
