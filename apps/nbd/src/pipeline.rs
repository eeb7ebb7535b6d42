//! Transmission: many requests under way at a time, in one thread that waits for the client and the disk together.
//!
//! Each request has a slot and, if it moves data, a place in the connection's buffer from its command to its reply's last
//! byte. Without a slot or a place nothing more is read, so a client that sends faster than it is served, or takes no
//! replies, is held up by its own connection.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use block_client::{Buffer, BufferAccess, Operation, Request, Session, SessionError, Status};
use nbd::arena::Arena;
use nbd::transmission::{
    self, Command, LENGTH_MAX, Limits, REQUEST_BYTES, Refusal, ReplyHead, Style, WRITE,
};
use nbd::work::{Longest, Piece, Work};
use net::TcpStream;
use rt::{Deadline, Mapping};

use crate::connection::{Broken, Chosen};

/// Most requests of a connection under way.
const SLOTS: usize = 64;
/// Most pieces of requests at the disk.
const DEPTH: u16 = 64;
/// Time between requests: clients keep idle connections.
const IDLE_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Time for what is expected to come, or for a reply to be taken: six retransmissions, after 1, 3, 7, 15, 31 and
/// 63 s (RFC 6298, 5), are within it, so that a wire that loses every fifth frame is no reason to leave.
pub const DATA_LIMIT: Duration = Duration::from_secs(120);
/// Time for a disk, with its driver's restarts.
const DISK_LIMIT: Duration = Duration::from_secs(120);

/// What the client is sending.
enum Input {
    /// A request; so many bytes of it are there.
    Head([u8; REQUEST_BYTES], usize),
    /// A request waits for a slot or a place.
    Held(transmission::Request),
    /// The data of a write: so many bytes are there.
    Data(Work, u32),
    /// Data of a write that is refused, and how much is still to come.
    Refused(transmission::Request, Refusal, u32),
    /// Nothing more.
    Ended,
}

/// A reply on its way to the client.
struct Reply {
    head: ReplyHead,
    /// Place of the request in the buffer, given back when the reply is out.
    place: Option<u32>,
    /// Bytes there that follow the head.
    data: u32,
    /// Bytes that were sent.
    sent: usize,
}

/// Requests of a connection.
pub struct Transmission {
    stream: TcpStream,
    session: Session,
    /// The disk does not answer any more, and what requests are told.
    lost: Option<Refusal>,
    memory: Mapping,
    buffer: Buffer,
    arena: Arena,
    limits: Limits,
    longest: Longest,
    style: Style,
    input: Input,
    works: Vec<Option<Work>>,
    replies: VecDeque<Reply>,
}

impl Transmission {
    /// Opens the disk's session.
    pub fn new(stream: TcpStream, chosen: &Chosen) -> Result<Transmission, Broken> {
        let mut session = chosen.disk.open_session(DEPTH).map_err(Broken::Disk)?;
        let length = LENGTH_MAX as usize;
        let system = |error| Broken::Disk(SessionError::System(error));
        let (vmo, memory) = Mapping::create(length).map_err(system)?;
        let buffer = session
            .register(&vmo, 0, length as u64, BufferAccess::Both)
            .map_err(Broken::Disk)?;
        for (handle, signals) in stream.wakers()? {
            session.also_wait_for(handle, signals);
        }
        let info = chosen.disk.info();
        Ok(Transmission {
            stream,
            lost: None,
            memory,
            buffer,
            arena: Arena::new(LENGTH_MAX),
            limits: Limits {
                size: chosen.export.size,
                block: chosen.export.block,
                flags: chosen.export.flags,
            },
            longest: Longest {
                block: chosen.export.block,
                transfer: session.max_transfer(),
                discard: info.max_discard,
                write_zeroes: info.max_write_zeroes,
            },
            session,
            style: chosen.style,
            input: Input::Head([0; REQUEST_BYTES], 0),
            works: (0..SLOTS).map(|_| None).collect(),
            replies: VecDeque::new(),
        })
    }

    /// Serves to the connection's end: what was asked before is done and answered.
    pub fn run(mut self) -> Result<(), Broken> {
        let mut deadline = None;
        loop {
            let mut moved = self.collect();
            moved |= self.send()?;
            moved |= self.receive()?;
            moved |= self.give();
            if moved {
                deadline = None;
                continue;
            }
            let busy = self.works.iter().any(Option::is_some);
            if matches!(self.input, Input::Ended) && !busy && self.replies.is_empty() {
                return Ok(());
            }
            if self.stream.arm()? {
                continue;
            }
            let idle = !busy && self.replies.is_empty() && matches!(self.input, Input::Head(_, 0));
            let limit = if busy {
                DISK_LIMIT
            } else if idle {
                IDLE_LIMIT
            } else {
                DATA_LIMIT
            };
            let until = *deadline.get_or_insert_with(|| Deadline::after(limit));
            self.wait(until)?;
        }
    }

    fn wait(&mut self, until: Deadline) -> Result<(), Broken> {
        if self.lost.is_some() {
            return Ok(self.stream.wait(until)?);
        }
        match self.session.wait(until) {
            Ok(()) => {}
            Err(SessionError::TimedOut) if self.session.ledger().is_empty() => {
                return Err(Broken::Protocol("nothing came from the client in time"));
            }
            Err(error) => self.lose(error),
        }
        Ok(())
    }

    /// The disk is of no use any more: what is under way fails, and what comes is refused. Nothing of the buffer is used
    /// again, since requests may still be at the device.
    fn lose(&mut self, error: SessionError) {
        rt::warn!("{}: {error}", self.stream.connection().remote);
        let told = refusal(error);
        self.lost = Some(Refusal::Shutdown);
        for slot in 0..self.works.len() {
            if let Some(work) = self.works.get_mut(slot).and_then(Option::take) {
                let head = transmission::failed(self.style, work.asked().cookie, told);
                self.reply(head, None, 0);
            }
        }
    }

    /// Takes what the disk did, and answers requests that are done.
    fn collect(&mut self) -> bool {
        let mut moved = false;
        while self.lost.is_none() {
            let done = match self.session.poll() {
                Ok(Some(done)) => done,
                Ok(None) => break,
                Err(error) => {
                    self.lose(error);
                    return true;
                }
            };
            moved = true;
            let slot = usize::try_from(done.token).unwrap_or(usize::MAX);
            let Some(work) = self.works.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            let outcome = done.result().map_err(SessionError::Refused);
            work.did(outcome.map_err(refusal));
            self.answer(slot);
        }
        moved
    }

    /// Answers the request of a slot if it is done.
    fn answer(&mut self, slot: usize) {
        let Some(entry) = self.works.get_mut(slot) else {
            return;
        };
        let Some(outcome) = entry.as_ref().and_then(Work::outcome) else {
            return;
        };
        let Some(work) = entry.take() else {
            return;
        };
        let asked = work.asked();
        let (head, data) = match outcome {
            Ok(()) if work.operation() == Operation::Read => (
                transmission::data(self.style, asked.cookie, asked.offset, asked.length),
                asked.length,
            ),
            Ok(()) => (transmission::done(self.style, asked.cookie), 0),
            Err(refusal) => (transmission::failed(self.style, asked.cookie, refusal), 0),
        };
        self.reply(head, work.place(), data);
    }

    fn reply(&mut self, head: ReplyHead, place: Option<u32>, data: u32) {
        self.replies.push_back(Reply {
            head,
            place,
            data,
            sent: 0,
        });
    }

    /// Sends what there is room for.
    fn send(&mut self) -> Result<bool, Broken> {
        let mut moved = false;
        while let Some(reply) = self.replies.front_mut() {
            let head = reply.head.bytes();
            let n = if let Some(rest) = head.get(reply.sent..).filter(|rest| !rest.is_empty()) {
                self.stream.try_write(rest)?
            } else {
                let sent = reply.sent - head.len();
                let at = reply.place.unwrap_or(0) as usize + sent;
                let rest = (reply.data as usize).saturating_sub(sent);
                self.stream.try_write_from(&self.memory, at, rest)?
            };
            reply.sent += n;
            moved |= n > 0;
            if reply.sent == head.len() + reply.data as usize {
                if let Some(place) = reply.place {
                    self.arena.give_back(place);
                }
                self.replies.pop_front();
            } else if n == 0 {
                break;
            }
        }
        self.stream.flush()?;
        Ok(moved)
    }

    /// Requests and replies under way: one that comes must not be too many.
    fn is_full(&self) -> bool {
        let works = self.works.iter().flatten().count();
        works + self.replies.len() >= SLOTS
    }

    /// Takes what the client sent.
    fn receive(&mut self) -> Result<bool, Broken> {
        let mut moved = false;
        loop {
            let step = match core::mem::replace(&mut self.input, Input::Ended) {
                Input::Head(bytes, got) => self.head(bytes, got)?,
                Input::Held(asked) => self.held(asked),
                Input::Data(work, got) => self.data(work, got)?,
                Input::Refused(asked, refusal, left) => self.refused(asked, refusal, left)?,
                Input::Ended => false,
            };
            if !step {
                return Ok(moved);
            }
            moved = true;
        }
    }

    fn head(&mut self, mut bytes: [u8; REQUEST_BYTES], got: usize) -> Result<bool, Broken> {
        let rest = bytes.get_mut(got..).unwrap_or(&mut []);
        let Some(n) = self.stream.try_read(rest)? else {
            self.input = Input::Head(bytes, got);
            return Ok(false);
        };
        if n == 0 && got > 0 {
            return Err(Broken::Protocol(
                "the client left in the middle of a request",
            ));
        }
        if n == 0 {
            return Ok(false);
        }
        let got = got + n;
        self.input = if got < REQUEST_BYTES {
            Input::Head(bytes, got)
        } else {
            let asked = transmission::request(&bytes).ok_or(Broken::Protocol("no request"))?;
            Input::Held(asked)
        };
        Ok(true)
    }

    /// Looks at a request, when there is room for it.
    fn held(&mut self, asked: transmission::Request) -> bool {
        if self.is_full() {
            self.input = Input::Held(asked);
            return false;
        }
        let (operation, durability) = match transmission::command(&asked, &self.limits) {
            Command::Disconnect => return true,
            Command::Refuse(refusal) => return self.refuse(asked, refusal),
            Command::Do(..) if self.lost.is_some() => {
                return self.refuse(asked, self.lost.unwrap_or(Refusal::Shutdown));
            }
            Command::Do(operation, durability) => (operation, durability),
        };
        let place = match operation {
            Operation::Read | Operation::Write => match self.arena.take(asked.length) {
                Some(place) => Some(place),
                None => {
                    self.input = Input::Held(asked);
                    return false;
                }
            },
            _ => None,
        };
        let work = Work::new(asked, operation, durability, place);
        self.input = if operation == Operation::Write {
            Input::Data(work, 0)
        } else {
            self.start(work);
            Input::Head([0; REQUEST_BYTES], 0)
        };
        true
    }

    fn refuse(&mut self, asked: transmission::Request, refusal: Refusal) -> bool {
        let left = if asked.command == WRITE {
            asked.length
        } else {
            0
        };
        self.input = Input::Refused(asked, refusal, left);
        true
    }

    /// Passes over the data of a write that is refused; then it is refused.
    fn refused(
        &mut self,
        asked: transmission::Request,
        refusal: Refusal,
        left: u32,
    ) -> Result<bool, Broken> {
        if left == 0 {
            let head = transmission::failed(self.style, asked.cookie, refusal);
            self.reply(head, None, 0);
            self.input = Input::Head([0; REQUEST_BYTES], 0);
            return Ok(true);
        }
        let mut dropped = [0; 4096];
        let most = dropped.len().min(left as usize);
        let n = match dropped.get_mut(..most) {
            Some(bytes) => self.stream.try_read(bytes)?,
            None => None,
        };
        let got = match n {
            Some(0) => return Err(LEFT),
            Some(n) => n,
            None => 0,
        };
        let left = left.saturating_sub(u32::try_from(got).unwrap_or(u32::MAX));
        self.input = Input::Refused(asked, refusal, left);
        Ok(got > 0)
    }

    fn data(&mut self, work: Work, got: u32) -> Result<bool, Broken> {
        let length = work.asked().length;
        if self.lost.is_some() {
            self.input = Input::Refused(*work.asked(), Refusal::Shutdown, length - got);
            return Ok(true);
        }
        let at = work.place().unwrap_or(0).saturating_add(got) as usize;
        let rest = (length - got) as usize;
        match self.stream.try_read_to(&self.memory, at, rest)? {
            None => {
                self.input = Input::Data(work, got);
                Ok(false)
            }
            Some(0) => Err(LEFT),
            Some(n) => {
                let got = got.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
                self.input = if got < length {
                    Input::Data(work, got)
                } else {
                    self.start(work);
                    Input::Head([0; REQUEST_BYTES], 0)
                };
                Ok(true)
            }
        }
    }

    /// Puts a request into a slot; there is one, as [`Transmission::is_full`] said.
    fn start(&mut self, work: Work) {
        if let Some(slot) = self.works.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(work);
        }
    }

    /// Gives the disk what it has room for.
    fn give(&mut self) -> bool {
        let mut gave = false;
        'slots: for slot in 0..self.works.len() {
            while self.lost.is_none()
                && let Some(work) = self.works.get_mut(slot).and_then(Option::as_mut)
                && let Some(piece) = work.next_piece(&self.longest)
            {
                let request = request(&piece, work.place(), self.buffer, self.longest.block);
                match self.session.submit(&request, slot as u64) {
                    Ok(()) => work.gave(&piece),
                    Err(SessionError::Full) => break 'slots,
                    Err(error) => self.lose(error),
                }
                gave = true;
            }
        }
        if gave
            && self.lost.is_none()
            && let Err(error) = self.session.kick()
        {
            self.lose(error);
        }
        gave
    }
}

const LEFT: Broken = Broken::Protocol("the client left in the middle of a write");

/// What the disk's driver is asked for a piece.
fn request(piece: &Piece, place: Option<u32>, buffer: Buffer, block: u32) -> Request {
    let lba = piece.offset / u64::from(block.max(1));
    let at = u64::from(place.unwrap_or(0)) + u64::from(piece.at);
    let request = match piece.operation {
        Operation::Read => Request::read(buffer, at, piece.length, lba),
        Operation::Write => Request::write(buffer, at, piece.length, lba),
        Operation::Discard => Request::discard(lba, piece.length),
        Operation::WriteZeroes => Request::write_zeroes(lba, piece.length),
        _ => Request::flush(),
    };
    match piece.durability {
        transmission::Durability::Immediate => request.durable(),
        transmission::Durability::Flushed => request,
    }
}

/// What a client is told of a failure.
fn refusal(error: SessionError) -> Refusal {
    match error {
        SessionError::Refused(Status::READ_ONLY) => Refusal::Permission,
        SessionError::Refused(Status::UNSUPPORTED) => Refusal::Unsupported,
        SessionError::Refused(Status::OUT_OF_RANGE | Status::INVALID) => Refusal::Invalid,
        SessionError::Refused(Status::GONE) | SessionError::Closed => Refusal::Shutdown,
        _ => Refusal::Io,
    }
}
