//! One connection: negotiation, then requests.

use core::time::Duration;

use block_client::{
    Access, Buffer, BufferAccess, Disk, Operation, Request, Session, SessionError, Status,
};
use nbd::negotiation::{self, Choice, Export, OPTION_DATA_MAX, OPTION_HEAD, reply};
use nbd::transmission::{
    self, Command, Durability, LENGTH_MAX, Limits, REQUEST_BYTES, Refusal, Style, WRITE, flags,
};
use net::{Delay, NetworkError, TcpStream};
use rt::{Deadline, Mapping};

use crate::{Exports, Writing};

/// Time for each step of the negotiation.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Time between requests: clients keep idle connections.
const IDLE_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Time for data that was announced to come, or to be taken.
const DATA_LIMIT: Duration = Duration::from_secs(120);
/// Time for a disk, with its driver's restarts.
const DISK_LIMIT: Duration = Duration::from_secs(120);
/// Request size that is served well.
const PREFERRED: u32 = 128 * 1024;
/// Options of a negotiation: nobody negotiates for ever.
const OPTIONS_MAX: u32 = 1000;

/// Why a connection ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The network.
    Network(NetworkError),
    /// The client left the protocol.
    Protocol(&'static str),
    /// The disk, before transmission.
    Disk(SessionError),
}

impl From<NetworkError> for Broken {
    fn from(error: NetworkError) -> Broken {
        Broken::Network(error)
    }
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Broken::Network(error) => error.fmt(f),
            Broken::Protocol(what) => f.write_str(what),
            Broken::Disk(error) => error.fmt(f),
        }
    }
}

/// An export that was chosen.
struct Chosen {
    disk: Disk,
    export: Export,
    style: Style,
}

/// Serves a connection to its end.
pub fn serve(mut stream: TcpStream, exports: &Exports) -> Result<(), Broken> {
    // Replies are whole messages: there is nothing to gather.
    stream.set_delay(Delay::None)?;
    let Some(chosen) = negotiate(&mut stream, exports)? else {
        return Ok(());
    };
    Transmission::new(&chosen)?.run(&mut stream)
}

fn receive<const N: usize>(
    stream: &mut TcpStream,
    limit: Duration,
) -> Result<Option<[u8; N]>, Broken> {
    let mut bytes = [0; N];
    match stream.read_full(&mut bytes, Deadline::after(limit))? {
        0 if N > 0 => Ok(None),
        n if n < N => Err(Broken::Protocol(
            "the client left in the middle of a message",
        )),
        _ => Ok(Some(bytes)),
    }
}

fn open(exports: &Exports, name: &str) -> Option<(Disk, Export)> {
    let name = match name {
        "" => exports.names.first()?,
        name => exports.names.iter().find(|n| *n == name)?,
    };
    let (_, endpoint, own_name) = exports.disks.open(name.as_str()).ok()?;
    let disk = Disk::named(endpoint, own_name).ok()?;
    let info = disk.info();
    let mut bits = flags::HAS_FLAGS | flags::SEND_FLUSH | flags::SEND_FUA | flags::CAN_MULTI_CONN;
    if info.access == Access::ReadOnly || exports.writing == Writing::Forbidden {
        bits |= flags::READ_ONLY;
    } else {
        if info.max_discard > 0 {
            bits |= flags::SEND_TRIM;
        }
        if info.max_write_zeroes > 0 {
            bits |= flags::SEND_WRITE_ZEROES;
        }
    }
    let export = Export {
        size: disk.len_bytes(),
        flags: bits,
        block: info.block_size,
        preferred: PREFERRED.max(info.physical_block_size),
        longest: LENGTH_MAX,
    };
    Some((disk, export))
}

/// The negotiation; `None`: the client had enough.
fn negotiate(stream: &mut TcpStream, exports: &Exports) -> Result<Option<Chosen>, Broken> {
    let step = || Deadline::after(STEP_LIMIT);
    stream.write_all(&negotiation::GREETING, step())?;
    let Some(client) = receive::<4>(stream, STEP_LIMIT)? else {
        return Ok(None);
    };
    let client = u32::from_be_bytes(client);
    if client & negotiation::client_flags::FIXED_NEWSTYLE == 0 {
        return Err(Broken::Protocol("the client is too old"));
    }
    let mut style = Style::Simple;
    for _ in 0..OPTIONS_MAX {
        let Some(head) = receive::<OPTION_HEAD>(stream, STEP_LIMIT)? else {
            return Ok(None);
        };
        let head = negotiation::head(&head).ok_or(Broken::Protocol("no option"))?;
        let option = head.option;
        if head.length > OPTION_DATA_MAX {
            return Err(Broken::Protocol("an option is too long"));
        }
        let mut data = alloc::vec![0; head.length as usize];
        if stream.read_full(&mut data, step())? < data.len() {
            return Err(Broken::Protocol(
                "the client left in the middle of an option",
            ));
        }
        let mut say = |kind, data: &[u8]| {
            stream.write_all(&negotiation::reply_to(option, kind, data), step())
        };
        match negotiation::choice(option, &data) {
            Choice::ExportName(name) => {
                let (disk, export) =
                    open(exports, &name).ok_or(Broken::Protocol("no such export"))?;
                stream.write_all(&negotiation::export(&export, client), step())?;
                return Ok(Some(Chosen {
                    disk,
                    export,
                    style,
                }));
            }
            Choice::Abort => {
                say(reply::ACK, &[])?;
                return Ok(None);
            }
            Choice::List => {
                for name in &exports.names {
                    say(reply::SERVER, &negotiation::listed(name))?;
                }
                say(reply::ACK, &[])?;
            }
            Choice::Info(name, kinds) | Choice::Go(name, kinds) => {
                let Some((disk, export)) = open(exports, &name) else {
                    say(reply::ERR_UNKNOWN, b"no such export")?;
                    continue;
                };
                for data in negotiation::about(&export, &name, &kinds) {
                    say(reply::INFO, &data)?;
                }
                say(reply::ACK, &[])?;
                // 7 is GO; INFO goes on.
                if option == 7 {
                    return Ok(Some(Chosen {
                        disk,
                        export,
                        style,
                    }));
                }
            }
            Choice::StructuredReply => {
                style = Style::Structured;
                say(reply::ACK, &[])?;
            }
            Choice::Unknown => say(reply::ERR_UNSUP, b"not known here")?,
            Choice::Malformed => say(reply::ERR_INVALID, b"malformed")?,
        }
    }
    Err(Broken::Protocol("too many options"))
}

/// Requests of a connection.
struct Transmission {
    session: Session,
    memory: Mapping,
    buffer: Buffer,
    limits: Limits,
    style: Style,
    max_discard: u32,
    max_write_zeroes: u32,
}

impl Transmission {
    fn new(chosen: &Chosen) -> Result<Transmission, Broken> {
        let mut session = chosen.disk.open_session(1).map_err(Broken::Disk)?;
        let length = LENGTH_MAX as usize;
        let system = |error| Broken::Disk(SessionError::System(error));
        let (vmo, memory) = Mapping::create(length).map_err(system)?;
        let buffer = session
            .register(&vmo, 0, length as u64, BufferAccess::Both)
            .map_err(Broken::Disk)?;
        let info = chosen.disk.info();
        Ok(Transmission {
            session,
            memory,
            buffer,
            limits: Limits {
                size: chosen.export.size,
                block: chosen.export.block,
                flags: chosen.export.flags,
            },
            style: chosen.style,
            max_discard: info.max_discard,
            max_write_zeroes: info.max_write_zeroes,
        })
    }

    fn run(&mut self, stream: &mut TcpStream) -> Result<(), Broken> {
        let limit = || Deadline::after(DATA_LIMIT);
        while let Some(bytes) = receive::<REQUEST_BYTES>(stream, IDLE_LIMIT)? {
            let asked = transmission::request(&bytes).ok_or(Broken::Protocol("no request"))?;
            if asked.command == WRITE {
                if asked.length > LENGTH_MAX {
                    return Err(Broken::Protocol("a write is longer than was agreed"));
                }
                self.take(stream, asked.length as usize)?;
            }
            let (cookie, style) = (asked.cookie, self.style);
            let outcome = match transmission::command(&asked, &self.limits) {
                Command::Disconnect => return Ok(()),
                Command::Refuse(refusal) => Err(refusal),
                Command::Do(operation, durability) => self
                    .perform(operation, asked.offset, asked.length, durability)
                    .map(|()| operation),
            };
            match outcome {
                Ok(Operation::Read) => {
                    let head = transmission::data(style, cookie, asked.offset, asked.length);
                    stream.write_all(head.bytes(), limit())?;
                    stream.write_from(&self.memory, 0, asked.length as usize, limit())?;
                }
                Ok(_) => stream.write_all(transmission::done(style, cookie).bytes(), limit())?,
                Err(refusal) => {
                    let head = transmission::failed(style, cookie, refusal);
                    stream.write_all(head.bytes(), limit())?;
                }
            }
        }
        Ok(())
    }

    /// Takes the data of a write into the buffer.
    fn take(&mut self, stream: &mut TcpStream, length: usize) -> Result<(), Broken> {
        let deadline = Deadline::after(DATA_LIMIT);
        let mut done = 0;
        while done < length {
            match stream.read_to(&self.memory, done, length - done, deadline)? {
                0 => return Err(Broken::Protocol("the client left in the middle of a write")),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Does it on the disk, in pieces that the disk takes.
    fn perform(
        &mut self,
        operation: Operation,
        offset: u64,
        length: u32,
        durability: Durability,
    ) -> Result<(), Refusal> {
        let block = self.limits.block.max(1);
        let longest = match operation {
            Operation::Discard => self.max_discard,
            Operation::WriteZeroes => self.max_write_zeroes,
            _ => self.session.max_transfer(),
        };
        let longest = (longest - longest % block).max(block);
        if operation == Operation::Flush {
            return self.one(&Request::flush());
        }
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(longest);
            let lba = (offset + u64::from(done)) / u64::from(block);
            let at = u64::from(done);
            let request = match operation {
                Operation::Read => Request::read(self.buffer, at, piece, lba),
                Operation::Write => Request::write(self.buffer, at, piece, lba),
                Operation::Discard => Request::discard(lba, piece),
                _ => Request::write_zeroes(lba, piece),
            };
            let durable = operation == Operation::Write && durability == Durability::Immediate;
            self.one(&if durable { request.durable() } else { request })?;
            done += piece;
        }
        // The disk has no such flag for the others.
        if durability == Durability::Immediate && operation != Operation::Write {
            return self.one(&Request::flush());
        }
        Ok(())
    }

    fn one(&mut self, request: &Request) -> Result<(), Refusal> {
        let outcome = self.session.run(request, Deadline::after(DISK_LIMIT));
        outcome.map_err(|error| match error {
            SessionError::Refused(Status::READ_ONLY) => Refusal::Permission,
            SessionError::Refused(Status::UNSUPPORTED) => Refusal::Unsupported,
            SessionError::Refused(Status::OUT_OF_RANGE | Status::INVALID) => Refusal::Invalid,
            SessionError::Refused(Status::GONE) | SessionError::Closed => Refusal::Shutdown,
            _ => Refusal::Io,
        })
    }
}
