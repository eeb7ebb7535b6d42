//! A TCP connection for one thread, or for two that share it.

use core::net::SocketAddr;

use ipc::CallError;
use proto::inet::{Connection, Delay, NetworkError, TcpClient, TcpSocketClient, TcpState};
use sys::{
    AsHandle, Channel, Deadline, Error, Event, Handle, HandleType, Mapping, Packet, Port, Signals,
    Watch,
};

use crate::pipe::{End, Handles, Pipe, PipeError, Reader, Writer};

/// What a call's failure means for a socket.
pub fn failure(error: CallError<NetworkError>) -> NetworkError {
    error.remote_or(|error| match error {
        CallError::Transport(Error::TimedOut) => NetworkError::TimedOut,
        _ => NetworkError::Gone,
    })
}

impl From<PipeError> for NetworkError {
    fn from(error: PipeError) -> NetworkError {
        match error {
            PipeError::Closed => NetworkError::Reset,
            PipeError::Corrupt | PipeError::System(_) => NetworkError::Gone,
        }
    }
}

const KEY_DOORBELL: u64 = 1;
const KEY_CLOSED: u64 = 2;

/// Waits for a pipe's doorbell or the end of its channel.
pub(crate) struct Waiter {
    port: Port,
    /// Packets of these keys say what happened.
    closed: bool,
}

impl Waiter {
    pub(crate) fn new(doorbell: &Event, channel: &Channel) -> Result<Waiter, NetworkError> {
        let create = || {
            let port = Port::create()?;
            doorbell.wait_async(&port, KEY_DOORBELL, Signals::SIGNALED, Watch::Persistent)?;
            channel.wait_async(&port, KEY_CLOSED, Signals::PEER_CLOSED, Watch::Persistent)?;
            Ok::<Port, Error>(port)
        };
        Ok(Waiter {
            port: create().map_err(|_| NetworkError::LimitReached)?,
            closed: false,
        })
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        if self.closed {
            return Err(NetworkError::Gone);
        }
        let mut packets = [Packet::default(); 2];
        match self.port.wait(&mut packets, deadline) {
            Ok(count) => {
                self.closed = packets.iter().take(count).any(|p| p.key == KEY_CLOSED);
                Ok(())
            }
            Err(Error::TimedOut | Error::ShouldWait) => Err(NetworkError::TimedOut),
            Err(_) => Err(NetworkError::Gone),
        }
    }
}

/// Resets a connection that somebody else reads and writes.
pub struct TcpAborter(TcpSocketClient);

impl TcpAborter {
    /// Resets it: whoever waits for it hears of its end.
    pub fn abort(&self) -> Result<(), NetworkError> {
        self.0.abort().map_err(failure)
    }
}

/// A connection. Dropped, it is closed: what was written is still sent.
pub struct TcpStream {
    connection: Connection,
    control: TcpSocketClient,
    pipe: Pipe,
    waiter: Waiter,
}

impl TcpStream {
    /// Connects.
    pub fn connect(
        tcp: &TcpClient,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        timeout_ms: u32,
    ) -> Result<TcpStream, NetworkError> {
        let (connection, shape, socket, memory, to_program, to_stack) =
            tcp.connect(remote, local, timeout_ms).map_err(failure)?;
        let handles = Handles {
            shape,
            memory,
            to_program,
            to_stack,
        };
        TcpStream::new(connection, socket, handles)
    }

    pub(crate) fn new(
        connection: Connection,
        socket: Channel,
        handles: Handles,
    ) -> Result<TcpStream, NetworkError> {
        let pipe = Pipe::open(handles)?;
        let waiter = Waiter::new(&pipe.doorbell, &socket)?;
        Ok(TcpStream {
            connection,
            control: TcpSocketClient::new(socket),
            pipe,
            waiter,
        })
    }

    /// Both ends.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// State now.
    pub fn state(&self) -> Result<TcpState, NetworkError> {
        self.control.state().map_err(failure)
    }

    /// When small segments go out.
    pub fn set_delay(&self, delay: Delay) -> Result<(), NetworkError> {
        self.control.set_delay(delay).map_err(failure)
    }

    /// Resets it.
    pub fn abort(&self) -> Result<(), NetworkError> {
        self.control.abort().map_err(failure)
    }

    /// What resets it from elsewhere.
    pub fn aborter(&self) -> Result<TcpAborter, NetworkError> {
        let channel = self.control.channel().duplicate();
        let channel = channel.map_err(|_| NetworkError::LimitReached)?;
        Ok(TcpAborter(TcpSocketClient::new(channel)))
    }

    /// Reads up to `buffer.len()` bytes, waiting for the first; 0 is the end. `TimedOut`, `Reset`.
    pub fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, NetworkError> {
        read(
            &mut self.pipe.reader,
            &mut self.waiter,
            deadline,
            |reader| reader.read(buffer),
        )
    }

    /// Reads until the buffer is full; tells how much there was before the end.
    pub fn read_full(
        &mut self,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, NetworkError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            match self.read(rest, deadline)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// As [`TcpStream::read`], straight into shared memory.
    pub fn read_to(
        &mut self,
        target: &Mapping,
        offset: usize,
        len: usize,
        deadline: Deadline,
    ) -> Result<usize, NetworkError> {
        read(
            &mut self.pipe.reader,
            &mut self.waiter,
            deadline,
            |reader| reader.read_to(target, offset, len),
        )
    }

    /// Writes all bytes. `TimedOut` (a part may have been written), `Reset`.
    pub fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), NetworkError> {
        let mut rest = bytes;
        loop {
            let n = self.pipe.writer.write(rest)?;
            rest = rest.get(n..).unwrap_or(&[]);
            let flushed = self.pipe.writer.flush()?;
            if rest.is_empty() && flushed {
                return Ok(());
            }
            if !self.pipe.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
    }

    /// Writes `len` bytes straight from shared memory.
    pub fn write_from(
        &mut self,
        source: &Mapping,
        offset: usize,
        len: usize,
        deadline: Deadline,
    ) -> Result<(), NetworkError> {
        let mut done = 0;
        loop {
            let writer = &mut self.pipe.writer;
            done += writer.write_from(source, offset + done, len - done)?;
            if writer.flush()? && done == len {
                return Ok(());
            }
            if !self.pipe.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
    }

    /// Probes the peer after so much silence, and ends the connection when it does not answer; 0 stops that.
    pub fn set_keep_alive(&self, interval_ms: u32) -> Result<(), NetworkError> {
        self.control.set_keep_alive(interval_ms).map_err(failure)
    }

    /// Reads what is there, without waiting. `None`: nothing now; `Some(0)`: the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, NetworkError> {
        try_read(&mut self.pipe.reader, |reader| reader.read(buffer))
    }

    /// As [`TcpStream::try_read`], straight into shared memory.
    pub fn try_read_to(
        &mut self,
        target: &Mapping,
        offset: usize,
        len: usize,
    ) -> Result<Option<usize>, NetworkError> {
        try_read(&mut self.pipe.reader, |reader| {
            reader.read_to(target, offset, len)
        })
    }

    /// Writes what there is room for, without waiting; it goes out with [`TcpStream::flush`].
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<usize, NetworkError> {
        self.check_open()?;
        Ok(self.pipe.writer.write(bytes)?)
    }

    /// As [`TcpStream::try_write`], straight from shared memory.
    pub fn try_write_from(
        &mut self,
        source: &Mapping,
        offset: usize,
        len: usize,
    ) -> Result<usize, NetworkError> {
        self.check_open()?;
        Ok(self.pipe.writer.write_from(source, offset, len)?)
    }

    /// Sends what [`TcpStream::try_write`] took. `false`: not all of it yet, again after [`TcpStream::arm`].
    pub fn flush(&mut self) -> Result<bool, NetworkError> {
        Ok(self.pipe.writer.flush()?)
    }

    /// Asks to be woken when there is something to read or room to write. `true`: there is already.
    ///
    /// # Errors
    /// `Gone` when the network is.
    pub fn arm(&mut self) -> Result<bool, NetworkError> {
        if self.pipe.arm()? {
            return Ok(true);
        }
        let channel = self.control.channel().info();
        let signals = channel.map_err(|_| NetworkError::Gone)?.signals;
        if Signals(signals).intersects(Signals::PEER_CLOSED) {
            return Err(NetworkError::Gone);
        }
        Ok(false)
    }

    /// What wakes after [`TcpStream::arm`], for one who also waits for other things.
    pub fn wakers(&self) -> Result<[(Handle, Signals); 2], NetworkError> {
        let gone = |_| NetworkError::Gone;
        let doorbell = self.pipe.doorbell.duplicate().map_err(gone)?;
        let channel = self.control.channel().duplicate().map_err(gone)?;
        Ok([
            (doorbell.into_handle(), Signals::SIGNALED),
            (channel.into_handle(), Signals::PEER_CLOSED),
        ])
    }

    /// Waits for what [`TcpStream::arm`] asked for. May return early.
    pub fn wait(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        self.waiter.wait(deadline)
    }

    /// A reset comes over the reading side.
    fn check_open(&mut self) -> Result<(), NetworkError> {
        self.pipe.reader.available()?;
        match self.pipe.reader.end() {
            Some(End::Reset) => Err(NetworkError::Reset),
            _ => Ok(()),
        }
    }

    /// Ends the own direction: the peer reads its end after what was written.
    pub fn finish(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        self.pipe.writer.finish(End::Finished);
        while !self.pipe.writer.flush()? {
            if !self.pipe.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
        Ok(())
    }

    /// Two halves for two threads.
    pub fn split(self) -> Result<(ReadHalf, WriteHalf), NetworkError> {
        let channel = self.control.channel();
        let other = Waiter::new(&self.pipe.doorbell, channel)?;
        let channel = channel.duplicate().map_err(|_| NetworkError::Gone)?;
        let doorbell = self
            .pipe
            .doorbell
            .duplicate()
            .map_err(|_| NetworkError::Gone)?;
        Ok((
            ReadHalf {
                reader: self.pipe.reader,
                waiter: other,
                _doorbell: doorbell,
                _channel: channel,
            },
            WriteHalf {
                writer: self.pipe.writer,
                waiter: self.waiter,
                _doorbell: self.pipe.doorbell,
                _control: self.control,
            },
        ))
    }
}

fn read(
    reader: &mut Reader,
    waiter: &mut Waiter,
    deadline: Deadline,
    mut take: impl FnMut(&mut Reader) -> Result<usize, PipeError>,
) -> Result<usize, NetworkError> {
    loop {
        let n = take(reader)?;
        if n > 0 {
            reader.release()?;
            return Ok(n);
        }
        match reader.end() {
            Some(End::Finished) => return Ok(0),
            Some(End::Reset) => return Err(NetworkError::Reset),
            None => {}
        }
        if !reader.arm()? {
            waiter.wait(deadline)?;
        }
    }
}

fn try_read(
    reader: &mut Reader,
    take: impl FnOnce(&mut Reader) -> Result<usize, PipeError>,
) -> Result<Option<usize>, NetworkError> {
    let n = take(reader)?;
    if n > 0 {
        reader.release()?;
        return Ok(Some(n));
    }
    match reader.end() {
        Some(End::Finished) => Ok(Some(0)),
        Some(End::Reset) => Err(NetworkError::Reset),
        None => Ok(None),
    }
}

/// The reading half of a connection.
pub struct ReadHalf {
    reader: Reader,
    waiter: Waiter,
    _doorbell: Event,
    _channel: Channel,
}

impl ReadHalf {
    /// As [`TcpStream::read`].
    pub fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, NetworkError> {
        read(&mut self.reader, &mut self.waiter, deadline, |reader| {
            reader.read(buffer)
        })
    }
}

/// The writing half of a connection.
pub struct WriteHalf {
    writer: Writer,
    waiter: Waiter,
    _doorbell: Event,
    _control: TcpSocketClient,
}

impl WriteHalf {
    /// As [`TcpStream::write_all`].
    pub fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), NetworkError> {
        let mut rest = bytes;
        loop {
            let n = self.writer.write(rest)?;
            rest = rest.get(n..).unwrap_or(&[]);
            if self.writer.flush()? && rest.is_empty() {
                return Ok(());
            }
            if !self.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
    }

    /// As [`TcpStream::finish`].
    pub fn finish(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        self.writer.finish(End::Finished);
        while !self.writer.flush()? {
            if !self.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
        Ok(())
    }
}
