//! Connections and listeners for an executor's tasks.

use core::net::SocketAddr;
use core::time::Duration;

use executor::{Caller, Either, Executor, Source, select};
use proto::inet::{
    Connection, Delay, NetworkError, TcpClient, TcpListenerAsyncClient, TcpSocketAsyncClient,
};
use sys::{Channel, Deadline, Error, Mapping, Signals};

use crate::listener::GRACE;
use crate::pipe::{End, Handles, Pipe};
use crate::stream::failure;

/// A connection that tasks of one executor use, one task at a time.
pub struct AsyncTcpStream {
    connection: Connection,
    // Sources before what they watch.
    doorbell: Source,
    closed: Source,
    pipe: Pipe,
    control: TcpSocketAsyncClient<Caller>,
    gone: bool,
}

impl AsyncTcpStream {
    pub(crate) fn new(
        executor: &Executor,
        connection: Connection,
        socket: Channel,
        handles: Handles,
    ) -> Result<AsyncTcpStream, NetworkError> {
        let pipe = Pipe::open(handles)?;
        let limit = |_: Error| NetworkError::LimitReached;
        Ok(AsyncTcpStream {
            connection,
            doorbell: executor
                .watch(&pipe.doorbell, Signals::SIGNALED)
                .map_err(limit)?,
            closed: executor
                .watch(&socket, Signals::PEER_CLOSED)
                .map_err(limit)?,
            pipe,
            control: TcpSocketAsyncClient::new(executor.caller(socket).map_err(limit)?),
            gone: false,
        })
    }

    /// Both ends.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// When small segments go out.
    pub async fn set_delay(&self, delay: Delay) -> Result<(), NetworkError> {
        self.control.set_delay(delay).await.map_err(failure)
    }

    /// Resets it.
    pub async fn abort(&self) -> Result<(), NetworkError> {
        self.control.abort().await.map_err(failure)
    }

    async fn wait(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        if self.gone {
            return Err(NetworkError::Gone);
        }
        match select(
            self.doorbell.next(deadline),
            self.closed.next(Deadline::FOREVER),
        )
        .await
        {
            Either::First(Ok(_)) => Ok(()),
            Either::First(Err(_)) => Err(NetworkError::TimedOut),
            // What the stack wrote before it went counts.
            Either::Second(_) => {
                self.gone = true;
                Ok(())
            }
        }
    }

    /// Bytes that can be read without waiting.
    pub fn available(&mut self) -> Result<usize, NetworkError> {
        Ok(self.pipe.reader.available()?)
    }

    /// Reads up to `buffer.len()` bytes, waiting for the first; 0 is the end.
    pub async fn read(
        &mut self,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, NetworkError> {
        loop {
            let n = self.pipe.reader.read(buffer)?;
            if n > 0 || self.finished()? {
                self.pipe.reader.release()?;
                return Ok(n);
            }
            if !self.pipe.reader.arm()? {
                self.wait(deadline).await?;
            }
        }
    }

    /// Fills the buffer; tells how much there was before the end.
    pub async fn read_full(
        &mut self,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, NetworkError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            match self.read(rest, deadline).await? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Reads exactly `len` bytes straight into shared memory; fewer only at the end.
    pub async fn read_to(
        &mut self,
        target: &Mapping,
        offset: usize,
        len: usize,
        deadline: Deadline,
    ) -> Result<usize, NetworkError> {
        let mut done = 0;
        while done < len {
            let n = self
                .pipe
                .reader
                .read_to(target, offset + done, len - done)?;
            done += n;
            self.pipe.reader.release()?;
            if n == 0 {
                if self.finished()? {
                    break;
                }
                if !self.pipe.reader.arm()? {
                    self.wait(deadline).await?;
                }
            }
        }
        Ok(done)
    }

    fn finished(&self) -> Result<bool, NetworkError> {
        match self.pipe.reader.end() {
            Some(End::Finished) => Ok(true),
            Some(End::Reset) => Err(NetworkError::Reset),
            None => Ok(false),
        }
    }

    /// Writes all bytes.
    pub async fn write_all(
        &mut self,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), NetworkError> {
        let mut rest = bytes;
        loop {
            let n = self.pipe.writer.write(rest)?;
            rest = rest.get(n..).unwrap_or(&[]);
            if self.pipe.writer.flush()? && rest.is_empty() {
                return Ok(());
            }
            self.wait_for_room(deadline).await?;
        }
    }

    /// Writes `len` bytes straight from shared memory.
    pub async fn write_from(
        &mut self,
        source: &Mapping,
        offset: usize,
        len: usize,
        deadline: Deadline,
    ) -> Result<(), NetworkError> {
        let mut done = 0;
        loop {
            done += self
                .pipe
                .writer
                .write_from(source, offset + done, len - done)?;
            if self.pipe.writer.flush()? && done == len {
                return Ok(());
            }
            self.wait_for_room(deadline).await?;
        }
    }

    async fn wait_for_room(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        if !self.pipe.writer.arm()? {
            self.wait(deadline).await?;
        }
        Ok(())
    }

    /// Ends the own direction: the peer reads its end after what was written.
    pub async fn finish(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        self.pipe.writer.finish(End::Finished);
        while !self.pipe.writer.flush()? {
            self.wait_for_room(deadline).await?;
        }
        Ok(())
    }
}

/// Takes connections in for an executor's tasks.
pub struct AsyncTcpListener {
    executor: Executor,
    local: SocketAddr,
    client: TcpListenerAsyncClient<Caller>,
}

/// One wait for a connection; the next one follows at once.
const ACCEPT_MS: u32 = 60_000;

impl AsyncTcpListener {
    /// Listens at an address; see [`TcpClient::listen`]. This call blocks shortly.
    pub fn bind(
        executor: &Executor,
        tcp: &TcpClient,
        local: SocketAddr,
        backlog: u16,
    ) -> Result<AsyncTcpListener, NetworkError> {
        let (local, listener) = tcp.listen(local, backlog).map_err(failure)?;
        let caller = executor
            .caller(listener)
            .map_err(|_| NetworkError::LimitReached)?;
        let limit = Duration::from_millis(ACCEPT_MS.into()) + GRACE;
        Ok(AsyncTcpListener {
            executor: executor.clone(),
            local,
            client: TcpListenerAsyncClient::with_timeout(caller, limit),
        })
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection, however long it takes.
    pub async fn accept(&self) -> Result<AsyncTcpStream, NetworkError> {
        loop {
            match self.client.accept(ACCEPT_MS).await.map_err(failure) {
                Ok((connection, shape, socket, memory, to_program, to_stack)) => {
                    let handles = Handles {
                        shape,
                        memory,
                        to_program,
                        to_stack,
                    };
                    return AsyncTcpStream::new(&self.executor, connection, socket, handles);
                }
                Err(NetworkError::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
