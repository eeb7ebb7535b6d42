//! The serial line: frames in, frames out.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use control::Window;
use control_link::{Decoder, FrameError, FromSystem, ToSystem, encode};
use rt::abi::Signals;
use rt::proto::devmgr::EndpointsClient;
use rt::proto::serial::SerialEndpointClient;
use rt::proto::stream::CHUNK_MAX;
use rt::time::now_ns;
use rt::{AsHandle, Channel, Deadline, Error, HandleList, Port, Watch};

/// Bits per second that are set; a virtual port has no rate.
const RATE: u32 = 115_200;
/// Bytes that wait here to be sent before nothing more is produced.
const OUTBOX_BYTES: usize = 64 * 1024;
/// Messages that are read from the port before something else is done.
const READS_MAX: usize = 64;

/// The open line.
pub struct Line {
    stream: Channel,
    decoder: Decoder,
    /// Frames that wait for the window.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    window: Window,
    /// Bytes that wait for the port.
    outbox: VecDeque<u8>,
    buffer: Vec<u8>,
}

impl Line {
    /// Opens the port of that name, waiting for it if it is not there; its signals come to `port` with `key`.
    ///
    /// # Errors
    /// When the device manager is gone.
    pub fn open(ports: &EndpointsClient, name: &str, port: &Port, key: u64) -> Result<Line, Error> {
        let changes = ports.watch().map_err(|_| Error::PeerClosed)?;
        let mut message = Vec::new();
        let mut told = String::new();
        loop {
            if let Ok((_, channel, _)) = ports.open(name) {
                match SerialEndpointClient::new(channel).open(RATE) {
                    Ok(stream) => {
                        let wanted = Signals::READABLE | Signals::WRITABLE | Signals::PEER_CLOSED;
                        stream.wait_async(port, key, wanted, Watch::Persistent)?;
                        return Ok(Line {
                            stream,
                            decoder: Decoder::new(),
                            waiting: VecDeque::new(),
                            waiting_bytes: 0,
                            window: Window::default(),
                            outbox: VecDeque::new(),
                            buffer: Vec::new(),
                        });
                    }
                    Err(error) => {
                        let text = alloc::format!("serial port {name}: {error}");
                        if text != told {
                            rt::warn!("{text}");
                            told = text;
                        }
                    }
                }
            }
            // Whatever changed, the port may be there now, or free.
            let deadline = Deadline::after_secs(1);
            match changes.read_vec(&mut message, &mut HandleList::new(), deadline) {
                Ok(_) | Err(Error::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what has come. Tells whether there may be more.
    ///
    /// # Errors
    /// `PeerClosed` when the port is gone.
    pub fn receive(
        &mut self,
        mut each: impl FnMut(Result<ToSystem, FrameError>),
    ) -> Result<bool, Error> {
        let mut handles = HandleList::new();
        for _ in 0..READS_MAX {
            let read = self
                .stream
                .read_vec(&mut self.buffer, &mut handles, Deadline::NOW);
            match read {
                Ok(_) => self.decoder.push(&self.buffer, &mut each),
                Err(Error::ShouldWait | Error::TimedOut) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether output may be produced now: what waits to be sent is bounded.
    pub fn has_room(&self) -> bool {
        self.outbox.len().saturating_add(self.waiting_bytes) < OUTBOX_BYTES
    }

    /// Puts a message behind those that wait.
    pub fn send(&mut self, message: &FromSystem) {
        match encode(message) {
            Ok(frame) => {
                self.waiting_bytes = self.waiting_bytes.saturating_add(frame.len());
                self.waiting.push_back(frame);
            }
            // Messages are made within their limits.
            Err(error) => rt::error!("not sent: {error}"),
        }
    }

    /// The host has received so many frames.
    pub fn received(&mut self, frames: u32) {
        self.window.received(frames, now_ns());
    }

    /// Nothing is on the line any more: a host begins.
    pub fn begin(&mut self) {
        self.window.clear();
    }

    /// Hands over what window and port take. Gives the time to try again, although nothing was heard.
    ///
    /// # Errors
    /// `PeerClosed` when the port is gone.
    pub fn flush(&mut self) -> Result<Deadline, Error> {
        loop {
            while let Some(frame) = self.waiting.front() {
                if !self.window.has_room(frame.len(), now_ns()) {
                    break;
                }
                self.window.sent(frame.len());
                self.waiting_bytes = self.waiting_bytes.saturating_sub(frame.len());
                self.outbox.extend(frame);
                self.waiting.pop_front();
            }
            if self.outbox.is_empty() {
                return Ok(match self.waiting.is_empty() {
                    true => Deadline::FOREVER,
                    false => Deadline::from_ns(self.window.retry_at_ns()),
                });
            }
            let (front, _) = self.outbox.as_slices();
            let chunk = front.get(..front.len().min(CHUNK_MAX)).unwrap_or(front);
            let taken = chunk.len();
            match self.stream.write(chunk, &mut HandleList::new()) {
                Ok(()) => {
                    self.outbox.drain(..taken);
                }
                Err(Error::ShouldWait) => return Ok(Deadline::FOREVER),
                Err(error) => return Err(error),
            }
        }
    }
}
