//! Transmission: requests, and replies whole or in parts.

use proto::block::Operation;

/// What a request starts with.
const REQUEST_MAGIC: u32 = 0x2560_9513;
/// What a simple reply starts with.
const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// What a part of a structured reply starts with.
const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// Bytes of a request without its data.
pub const REQUEST_BYTES: usize = 28;
/// Longest data of a request.
pub const LENGTH_MAX: u32 = 4 << 20;

/// Transmission flags of an export.
pub mod flags {
    /// The others mean something.
    pub const HAS_FLAGS: u16 = 1;
    /// Nothing can be written.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH is there.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// FUA is there.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM is there.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES is there.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// A read can be asked for in one part; only with structured replies.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush of one connection counts for all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Flags of a command.
pub mod command_flags {
    /// Durable with the reply.
    pub const FUA: u16 = 1;
    /// WRITE_ZEROES without unmapping.
    pub const NO_HOLE: u16 = 1 << 1;
    /// READ in one part.
    pub const DF: u16 = 1 << 2;
}

/// Errors, with the numbers of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Refusal {
    /// EPERM: the export is read-only.
    Permission = 1,
    /// EIO.
    Io = 5,
    /// EINVAL.
    Invalid = 22,
    /// ENOSPC: a write beyond the end.
    NoSpace = 28,
    /// ENOTSUP.
    Unsupported = 95,
    /// ESHUTDOWN: the disk is gone.
    Shutdown = 108,
}

/// A request as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// [`command_flags`].
    pub flags: u16,
    /// The command's number.
    pub command: u16,
    /// Chosen by the client, returned with the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

/// The request in these bytes; `None`: this is none, and the connection ends.
pub fn request(bytes: &[u8; REQUEST_BYTES]) -> Option<Request> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (flags, rest) = rest.split_first_chunk::<2>()?;
    let (command, rest) = rest.split_first_chunk::<2>()?;
    let (cookie, rest) = rest.split_first_chunk::<8>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*magic) == REQUEST_MAGIC).then_some(Request {
        flags: u16::from_be_bytes(*flags),
        command: u16::from_be_bytes(*command),
        cookie: u64::from_be_bytes(*cookie),
        offset: u64::from_be_bytes(*offset),
        length: u32::from_be_bytes(*length),
    })
}

/// What an export allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the export.
    pub size: u64,
    /// Bytes of a block: offsets and lengths are multiples.
    pub block: u32,
    /// [`flags`] of the export.
    pub flags: u16,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// This, on this range of bytes, durable if it says so.
    Do(Operation, Durability),
    /// The connection ends after what is under way.
    Disconnect,
    /// Nothing: the reason. The data of a write is there all the same.
    Refuse(Refusal),
}

/// When a write is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// With a flush.
    Flushed,
    /// With its reply.
    Immediate,
}

/// The command's number for writing, whose request has data.
pub const WRITE: u16 = 1;

/// Looks at a request: is it possible, and inside the export.
pub fn command(request: &Request, limits: &Limits) -> Command {
    let (operation, allowed, needed) = match request.command {
        0 => (Operation::Read, command_flags::DF | command_flags::FUA, 0),
        WRITE => (Operation::Write, command_flags::FUA, 0),
        2 => return Command::Disconnect,
        3 => (Operation::Flush, command_flags::FUA, flags::SEND_FLUSH),
        4 => (Operation::Discard, command_flags::FUA, flags::SEND_TRIM),
        6 => (
            Operation::WriteZeroes,
            command_flags::FUA | command_flags::NO_HOLE,
            flags::SEND_WRITE_ZEROES,
        ),
        _ => return Command::Refuse(Refusal::Invalid),
    };
    if request.flags & !allowed != 0 {
        return Command::Refuse(Refusal::Invalid);
    }
    if operation.modifies() && limits.flags & flags::READ_ONLY != 0 {
        return Command::Refuse(Refusal::Permission);
    }
    if limits.flags & needed != needed {
        return Command::Refuse(Refusal::Unsupported);
    }
    if operation == Operation::Flush {
        let empty = request.offset == 0 && request.length == 0;
        return if empty {
            Command::Do(operation, Durability::Flushed)
        } else {
            Command::Refuse(Refusal::Invalid)
        };
    }
    let end = request.offset.checked_add(request.length.into());
    if end.is_none_or(|end| end > limits.size) {
        let beyond = match operation {
            Operation::Write | Operation::WriteZeroes => Refusal::NoSpace,
            _ => Refusal::Invalid,
        };
        return Command::Refuse(beyond);
    }
    let block = u64::from(limits.block.max(1));
    let aligned = request.offset.is_multiple_of(block)
        && u64::from(request.length).is_multiple_of(block)
        && request.length > 0;
    if !aligned {
        return Command::Refuse(Refusal::Invalid);
    }
    let transfers = matches!(operation, Operation::Read | Operation::Write);
    if transfers && request.length > LENGTH_MAX {
        return Command::Refuse(Refusal::Invalid);
    }
    let durability = if request.flags & command_flags::FUA != 0 && operation != Operation::Read {
        Durability::Immediate
    } else {
        Durability::Flushed
    };
    Command::Do(operation, durability)
}

/// How replies look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// One piece.
    Simple,
    /// In parts, each with its kind.
    Structured,
}

/// Kinds of parts.
mod chunk {
    pub const DONE: u16 = 1;
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const ERROR: u16 = 1 << 15 | 1;
}

/// Longest head of a reply.
pub const REPLY_HEAD_MAX: usize = 28;

/// Bytes of a reply's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHead {
    bytes: [u8; REPLY_HEAD_MAX],
    length: usize,
}

impl ReplyHead {
    fn new() -> ReplyHead {
        ReplyHead {
            bytes: [0; REPLY_HEAD_MAX],
            length: 0,
        }
    }

    fn put(mut self, bytes: &[u8]) -> ReplyHead {
        let end = self.length + bytes.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn simple(cookie: u64, error: u32) -> ReplyHead {
    ReplyHead::new()
        .put(&SIMPLE_MAGIC.to_be_bytes())
        .put(&error.to_be_bytes())
        .put(&cookie.to_be_bytes())
}

fn part(cookie: u64, kind: u16, length: u32) -> ReplyHead {
    ReplyHead::new()
        .put(&CHUNK_MAGIC.to_be_bytes())
        .put(&chunk::DONE.to_be_bytes())
        .put(&kind.to_be_bytes())
        .put(&cookie.to_be_bytes())
        .put(&length.to_be_bytes())
}

/// The whole reply to a request that read nothing and went well.
pub fn done(style: Style, cookie: u64) -> ReplyHead {
    match style {
        Style::Simple => simple(cookie, 0),
        Style::Structured => part(cookie, chunk::NONE, 0),
    }
}

/// What stands before the data of a read.
pub fn data(style: Style, cookie: u64, offset: u64, length: u32) -> ReplyHead {
    match style {
        Style::Simple => simple(cookie, 0),
        Style::Structured => {
            part(cookie, chunk::OFFSET_DATA, length.saturating_add(8)).put(&offset.to_be_bytes())
        }
    }
}

/// The whole reply to a request that failed.
pub fn failed(style: Style, cookie: u64, refusal: Refusal) -> ReplyHead {
    match style {
        Style::Simple => simple(cookie, refusal as u32),
        Style::Structured => part(cookie, chunk::ERROR, 6)
            .put(&(refusal as u32).to_be_bytes())
            .put(&[0, 0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        size: 1 << 20,
        block: 512,
        flags: flags::HAS_FLAGS | flags::SEND_FLUSH | flags::SEND_TRIM,
    };

    fn asked(command: u16, flags: u16, offset: u64, length: u32) -> Request {
        Request {
            flags,
            command,
            cookie: 1,
            offset,
            length,
        }
    }

    #[test]
    fn commands() {
        let what = |r: Request| command(&r, &LIMITS);
        let read = Command::Do(Operation::Read, Durability::Flushed);
        assert_eq!(what(asked(0, 0, 512, 1024)), read);
        assert_eq!(what(asked(0, 0, (1 << 20) - 512, 512)), read);
        assert_eq!(
            what(asked(0, 0, 1 << 20, 512)),
            Command::Refuse(Refusal::Invalid)
        );
        assert_eq!(
            what(asked(1, 0, 1 << 20, 512)),
            Command::Refuse(Refusal::NoSpace)
        );
        assert_eq!(
            what(asked(1, 0, u64::MAX, 512)),
            Command::Refuse(Refusal::NoSpace)
        );
        assert_eq!(what(asked(1, 0, 1, 512)), Command::Refuse(Refusal::Invalid));
        assert_eq!(what(asked(1, 0, 0, 0)), Command::Refuse(Refusal::Invalid));
        let durable = Command::Do(Operation::Write, Durability::Immediate);
        assert_eq!(what(asked(1, 1, 0, 512)), durable);
        assert_eq!(what(asked(1, 2, 0, 512)), Command::Refuse(Refusal::Invalid));
        assert_eq!(what(asked(2, 0, 0, 0)), Command::Disconnect);
        assert_eq!(
            what(asked(6, 0, 0, 512)),
            Command::Refuse(Refusal::Unsupported)
        );
        assert_eq!(what(asked(9, 0, 0, 512)), Command::Refuse(Refusal::Invalid));
        let read_only = Limits {
            flags: LIMITS.flags | flags::READ_ONLY,
            ..LIMITS
        };
        let refused = command(&asked(1, 0, 0, 512), &read_only);
        assert_eq!(refused, Command::Refuse(Refusal::Permission));
    }

    #[test]
    fn replies() {
        assert_eq!(
            done(Style::Simple, 7).bytes(),
            b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07"
        );
        assert_eq!(
            data(Style::Structured, 7, 512, 1024).bytes(),
            b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x07\0\0\x04\x08\0\0\0\0\0\0\x02\0"
        );
        assert_eq!(
            failed(Style::Structured, 7, Refusal::Io).bytes(),
            b"\x66\x8e\x33\xef\0\x01\x80\x01\0\0\0\0\0\0\0\x07\0\0\0\x06\0\0\0\x05\0\0"
        );
    }

    proptest! {
        #[test]
        fn what_is_done_is_inside(command_number: u16, flag_bits in 0u16..8, offset: u64, length: u32) {
            let asked = asked(command_number % 8, flag_bits, offset, length);
            if let Command::Do(operation, _) = command(&asked, &LIMITS)
                && operation != Operation::Flush
            {
                let end = asked.offset.checked_add(asked.length.into());
                prop_assert!(end.is_some_and(|end| end <= LIMITS.size));
                prop_assert!(asked.offset.is_multiple_of(512) && asked.length.is_multiple_of(512) && asked.length > 0);
            }
        }

        #[test]
        fn any_request_is_survived(bytes: [u8; REQUEST_BYTES]) {
            if let Some(asked) = request(&bytes) {
                let _ = command(&asked, &LIMITS);
            }
        }
    }
}
