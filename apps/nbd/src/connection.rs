//! One connection up to its requests: negotiation.

use block_client::{Access, Disk, SessionError};
use nbd::negotiation::{self, Choice, Export, OPTION_DATA_MAX, OPTION_HEAD, reply};
use nbd::transmission::{LENGTH_MAX, Style, flags};
use net::{Delay, NetworkError, TcpStream};
use rt::Deadline;

use crate::pipeline::{DATA_LIMIT, Transmission};
use crate::{Exports, Writing};

/// How often a silent client is asked whether it is there.
const KEEP_ALIVE_MS: u32 = 60_000;
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
pub struct Chosen {
    /// The disk.
    pub disk: Disk,
    /// What the client knows of it.
    pub export: Export,
    /// How it wants its replies.
    pub style: Style,
}

/// Serves a connection to its end.
pub fn serve(mut stream: TcpStream, exports: &Exports) -> Result<(), Broken> {
    // Replies are whole messages: there is nothing to gather.
    stream.set_delay(Delay::None)?;
    // Who vanished without a word does not keep its buffer for ever.
    stream.set_keep_alive(KEEP_ALIVE_MS)?;
    let Some(chosen) = negotiate(&mut stream, exports)? else {
        return Ok(());
    };
    Transmission::new(stream, &chosen)?.run()
}

/// When the message that comes or goes now has to be whole.
fn step() -> Deadline {
    Deadline::after(DATA_LIMIT)
}

fn receive<const N: usize>(stream: &mut TcpStream) -> Result<Option<[u8; N]>, Broken> {
    let mut bytes = [0; N];
    match stream.read_full(&mut bytes, step())? {
        0 if N > 0 => Ok(None),
        n if n < N => Err(Broken::Protocol(
            "the client left in the middle of a message",
        )),
        _ => Ok(Some(bytes)),
    }
}

fn open(exports: &Exports, name: &str, style: Style) -> Option<(Disk, Export)> {
    let name = match name {
        "" => exports.names.first()?,
        name => exports.names.iter().find(|n| *n == name)?,
    };
    let (_, endpoint, own_name) = exports.disks.open(name.as_str()).ok()?;
    let disk = Disk::named(endpoint, own_name).ok()?;
    let info = disk.info();
    let mut bits = flags::HAS_FLAGS | flags::SEND_FLUSH | flags::SEND_FUA | flags::CAN_MULTI_CONN;
    if style == Style::Structured {
        bits |= flags::SEND_DF;
    }
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
    stream.write_all(&negotiation::GREETING, step())?;
    let Some(client) = receive::<4>(stream)? else {
        return Ok(None);
    };
    let client = u32::from_be_bytes(client);
    if client & negotiation::client_flags::FIXED_NEWSTYLE == 0 {
        return Err(Broken::Protocol("the client is too old"));
    }
    let mut style = Style::Simple;
    for _ in 0..OPTIONS_MAX {
        let Some(head) = receive::<OPTION_HEAD>(stream)? else {
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
                    open(exports, &name, style).ok_or(Broken::Protocol("no such export"))?;
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
                let Some((disk, export)) = open(exports, &name, style) else {
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
