//! What the tests are written with: a disk, and clients that keep account of their requests.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use fastrand::Rng;
use proto::block::{BlockInfo, Operation, Status};

use crate::home::{Access, Disk, Problem, Request, SessionNumber, Shape, Woken};
use crate::stamp;

pub(crate) use ddk_conformance_core::{ANSWER_LIMIT_MS, ensure};

/// What a test has in front of it.
pub(crate) struct Bench<'d> {
    pub(crate) disk: &'d mut dyn Disk,
    pub(crate) rng: Rng,
    pub(crate) shape: Shape,
}

impl Bench<'_> {
    /// A client with room for `depth` requests and a buffer of so many bytes for both directions.
    pub(crate) fn client(&mut self, depth: u16, buffer_len: usize) -> Result<Client, Problem> {
        let session = self.disk.open_session(depth)?;
        let slot = self.disk.register(session, buffer_len, Access::Both)?;
        Ok(Client {
            session,
            slot,
            buffer_len,
            block_size: self.disk.info().block_size,
            next_token: 1,
            outstanding: BTreeMap::new(),
        })
    }

    pub(crate) fn info(&self) -> BlockInfo {
        self.disk.info()
    }

    pub(crate) fn block(&self) -> u32 {
        self.disk.info().block_size
    }

    /// `blocks` blocks from `lba` on with their stamps of a generation.
    pub(crate) fn stamped(&self, lba: u64, blocks: u64, generation: u64) -> Vec<u8> {
        let size = self.block() as usize;
        let mut bytes = vec![0; blocks as usize * size];
        for (n, block) in bytes.chunks_mut(size).enumerate() {
            stamp::write(block, lba + n as u64, generation);
        }
        bytes
    }

    /// Checks what the device itself holds, where the home can look.
    pub(crate) fn expect_medium(
        &mut self,
        lba: u64,
        blocks: u64,
        generation: u64,
    ) -> Result<(), Problem> {
        let size = self.block() as usize;
        let mut bytes = vec![0; blocks as usize * size];
        match self.disk.medium(lba, &mut bytes) {
            Ok(()) => check_stamps(&bytes, size, lba, generation)
                .map_err(|what| Problem::Failed(format!("on the medium: {what}"))),
            // Reading through the driver has to do.
            Err(Problem::NotOffered(_)) => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    /// Checks what a power cut would leave.
    pub(crate) fn expect_durable(
        &mut self,
        lba: u64,
        blocks: u64,
        generation: u64,
    ) -> Result<(), Problem> {
        let size = self.block() as usize;
        let mut bytes = vec![0; blocks as usize * size];
        self.disk.durable(lba, &mut bytes)?;
        check_stamps(&bytes, size, lba, generation)
            .map_err(|what| Problem::Failed(format!("after a power cut: {what}")))
    }
}

/// Checks blocks against their stamps.
pub(crate) fn check_stamps(
    bytes: &[u8],
    block_size: usize,
    lba: u64,
    generation: u64,
) -> Result<(), String> {
    let mut blocks = bytes.chunks_exact(block_size).enumerate();
    blocks.try_for_each(|(n, block)| stamp::check(block, lba + n as u64, generation))
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) token: u64,
    pub(crate) request: Request,
    pub(crate) status: Status,
}

/// What [`Client::next`] brings.
pub(crate) enum Next {
    Done(Done),
    /// The device is gone, and with it what was outstanding.
    Gone,
}

/// A session with a buffer, and what is outstanding in it.
pub(crate) struct Client {
    pub(crate) session: SessionNumber,
    pub(crate) slot: u16,
    pub(crate) buffer_len: usize,
    block_size: u32,
    next_token: u64,
    outstanding: BTreeMap<u64, Request>,
}

impl Client {
    pub(crate) fn request(&self, operation: Operation, lba: u64, blocks: u32) -> Request {
        Request {
            operation,
            lba,
            length: blocks * self.block_size,
            slot: self.slot,
            offset: 0,
            flags: 0,
        }
    }

    pub(crate) fn read(&self, lba: u64, blocks: u32, offset: u64) -> Request {
        Request {
            offset,
            ..self.request(Operation::Read, lba, blocks)
        }
    }

    pub(crate) fn write(&self, lba: u64, blocks: u32, offset: u64) -> Request {
        Request {
            offset,
            ..self.request(Operation::Write, lba, blocks)
        }
    }

    pub(crate) fn flush(&self) -> Request {
        self.request(Operation::Flush, 0, 0)
    }

    /// Requests that were not answered yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Queues a request; `None` when the session is full.
    pub(crate) fn try_submit(
        &mut self,
        bench: &mut Bench<'_>,
        request: Request,
    ) -> Result<Option<u64>, Problem> {
        let token = self.next_token;
        if !bench.disk.submit(self.session, &request, token)? {
            return Ok(None);
        }
        self.next_token += 1;
        self.outstanding.insert(token, request);
        Ok(Some(token))
    }

    /// Queues a request for which there is room.
    pub(crate) fn submit(
        &mut self,
        bench: &mut Bench<'_>,
        request: Request,
    ) -> Result<u64, Problem> {
        let count = self.outstanding.len();
        let token = self.try_submit(bench, request)?;
        token.ok_or_else(|| Problem::Failed(format!("no room with {count} outstanding")))
    }

    pub(crate) fn kick(&self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        bench.disk.kick(self.session)
    }

    /// Takes an answer if there is one.
    pub(crate) fn poll(&mut self, bench: &mut Bench<'_>) -> Result<Option<Done>, Problem> {
        let Some(answer) = bench.disk.poll(self.session)? else {
            return Ok(None);
        };
        let token = answer.token;
        let request = self.outstanding.remove(&token).ok_or_else(|| {
            Problem::Failed(format!(
                "an answer to request {token}, which is not outstanding"
            ))
        })?;
        Ok(Some(Done {
            token,
            request,
            status: answer.status,
        }))
    }

    /// Waits for the next answer. Without one within the limit the test fails.
    pub(crate) fn next(&mut self, bench: &mut Bench<'_>) -> Result<Next, Problem> {
        loop {
            if let Some(done) = self.poll(bench)? {
                return Ok(Next::Done(done));
            }
            match bench.disk.wait(self.session, ANSWER_LIMIT_MS)? {
                Woken::Answer => {}
                Woken::Gone => {
                    self.outstanding.clear();
                    return Ok(Next::Gone);
                }
                Woken::Limit => {
                    let text = format!(
                        "no answer to {} requests within {ANSWER_LIMIT_MS} ms",
                        self.outstanding.len()
                    );
                    return Err(Problem::Failed(text));
                }
            }
        }
    }

    /// Waits for the next answer; the device must not be gone.
    pub(crate) fn answer(&mut self, bench: &mut Bench<'_>) -> Result<Done, Problem> {
        match self.next(bench)? {
            Next::Done(done) => Ok(done),
            Next::Gone => Err(Problem::failed("the driver gave the device up")),
        }
    }

    /// Takes answers until nothing is outstanding. Then no further answer may come.
    pub(crate) fn drain(&mut self, bench: &mut Bench<'_>) -> Result<Vec<Done>, Problem> {
        let mut all = Vec::new();
        while !self.outstanding.is_empty() {
            all.push(self.answer(bench)?);
        }
        self.expect_silence(bench)?;
        Ok(all)
    }

    /// Nothing is outstanding, so nothing may come.
    pub(crate) fn expect_silence(&mut self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        // Long enough for an interrupt that is under way.
        const MOMENT_MS: u32 = 20;
        if let Woken::Answer = bench.disk.wait(self.session, MOMENT_MS)? {
            while self.poll(bench)?.is_some() {}
        }
        Ok(())
    }

    /// Runs one request with nothing else outstanding.
    pub(crate) fn one(
        &mut self,
        bench: &mut Bench<'_>,
        request: Request,
    ) -> Result<Status, Problem> {
        let token = self.submit(bench, request)?;
        self.kick(bench)?;
        let done = self.answer(bench)?;
        ensure!(done.token == token, "answer to {}, not {token}", done.token);
        Ok(done.status)
    }

    /// Runs one request that must succeed.
    pub(crate) fn done(&mut self, bench: &mut Bench<'_>, request: Request) -> Result<(), Problem> {
        let status = self.one(bench, request)?;
        ensure!(
            status == Status::OK,
            "{request:?}: {} (status {})",
            status.text(),
            status.0
        );
        Ok(())
    }

    /// Runs one request that must end with this status.
    pub(crate) fn expect(
        &mut self,
        bench: &mut Bench<'_>,
        request: Request,
        expected: Status,
    ) -> Result<(), Problem> {
        let status = self.one(bench, request)?;
        ensure!(
            status == expected,
            "{request:?}: status {} ({}), expected {} ({})",
            status.0,
            status.text(),
            expected.0,
            expected.text()
        );
        Ok(())
    }

    /// Fills the buffer from `offset` on with stamps.
    pub(crate) fn put_stamps(
        &self,
        bench: &mut Bench<'_>,
        offset: u64,
        lba: u64,
        blocks: u32,
        generation: u64,
    ) -> Result<(), Problem> {
        let bytes = bench.stamped(lba, blocks.into(), generation);
        bench
            .disk
            .put(self.session, self.slot, offset as usize, &bytes)
    }

    /// Fills a range of the buffer with one byte.
    pub(crate) fn fill(
        &self,
        bench: &mut Bench<'_>,
        offset: usize,
        len: usize,
        byte: u8,
    ) -> Result<(), Problem> {
        let bytes = vec![byte; len];
        bench.disk.put(self.session, self.slot, offset, &bytes)
    }

    /// A range of the buffer.
    pub(crate) fn bytes(
        &self,
        bench: &Bench<'_>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; len];
        bench
            .disk
            .get(self.session, self.slot, offset as usize, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes blocks with stamps of a generation, alone.
    pub(crate) fn write_stamps(
        &mut self,
        bench: &mut Bench<'_>,
        lba: u64,
        blocks: u32,
        generation: u64,
    ) -> Result<(), Problem> {
        let per_request = self.most_blocks(bench);
        let (mut lba, mut left) = (lba, blocks);
        while left > 0 {
            let now = left.min(per_request);
            self.put_stamps(bench, 0, lba, now, generation)?;
            self.done(bench, self.write(lba, now, 0))?;
            lba += u64::from(now);
            left -= now;
        }
        Ok(())
    }

    /// Reads blocks, which must hold stamps of a generation.
    pub(crate) fn read_stamps(
        &mut self,
        bench: &mut Bench<'_>,
        lba: u64,
        blocks: u32,
        generation: u64,
    ) -> Result<(), Problem> {
        let per_request = self.most_blocks(bench);
        let (mut lba, mut left) = (lba, blocks);
        while left > 0 {
            let now = left.min(per_request);
            self.fill(bench, 0, (now * self.block_size) as usize, 0xee)?;
            self.done(bench, self.read(lba, now, 0))?;
            self.check_stamps(bench, 0, lba, now, generation)?;
            lba += u64::from(now);
            left -= now;
        }
        Ok(())
    }

    /// Checks what a read left in the buffer.
    pub(crate) fn check_stamps(
        &self,
        bench: &Bench<'_>,
        offset: u64,
        lba: u64,
        blocks: u32,
        generation: u64,
    ) -> Result<(), Problem> {
        let size = self.block_size as usize;
        let bytes = self.bytes(bench, offset, blocks as usize * size)?;
        check_stamps(&bytes, size, lba, generation).map_err(Problem::Failed)
    }

    /// Most blocks that fit into a request and into the buffer.
    fn most_blocks(&self, bench: &Bench<'_>) -> u32 {
        let buffer = u32::try_from(self.buffer_len).unwrap_or(u32::MAX);
        bench.info().max_transfer.min(buffer) / self.block_size
    }
}
