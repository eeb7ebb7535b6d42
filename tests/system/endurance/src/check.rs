//! Checks a disk against the journal of `test-endurance`, which it reads from its standard input and passes
//! on. It speaks the block protocol itself, one request at a time: nothing of the client library that was
//! tested can hide its own mistakes here.
//!
//! `test-endurance ... | test-endurance-check DISK`
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod stamp;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proto::block::{BlockEndpointClient, BlockSessionClient, BufferAccess, Completion, Submission};
use proto::devmgr::EndpointsClient;
use ring::{Consumer, Layout, Producer};
use rt::io::Read;
use rt::{
    AsHandle, Channel, MapAccess, Mapping, Rights, SharedMapping, Vmo, println, startup, time,
};

use stamp::BLOCK;

rt::entry!(main);

const READ: u8 = 1;
const ROUNDS_MAX: u32 = 100_000;

fn main() -> i32 {
    let Some(disk) = startup::args().get(1) else {
        println!("usage: test-endurance ... | test-endurance-check DISK");
        return 2;
    };
    match run(disk) {
        Ok(blocks) => {
            println!("checked {blocks} blocks: all as the journal says");
            0
        }
        Err(why) => {
            println!("FAILED check: {why}");
            1
        }
    }
}

/// Everything from the standard input.
fn input() -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 4096];
    loop {
        match rt::io::stdin().read(&mut piece) {
            Ok(0) => return String::from_utf8(bytes).map_err(|e| e.to_string()),
            Ok(n) => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(error) => return Err(format!("input: {error}")),
        }
    }
}

fn run(disk: &str) -> Result<usize, String> {
    let text = input()?;
    rt::print!("{text}");
    let mut journal: Vec<u64> = Vec::new();
    let mut end = None;
    for line in text.lines() {
        if let Some(numbers) = line.strip_prefix("journal ") {
            let mut numbers = numbers.split(' ').map(str::parse::<u64>);
            let first = numbers.next().and_then(Result::ok);
            if first != Some(journal.len() as u64) {
                return Err(format!("the journal has a gap at {}", journal.len()));
            }
            for number in numbers {
                journal.push(number.map_err(|e| e.to_string())?);
            }
        } else if let Some(count) = line.strip_prefix("journal-end ") {
            end = count.parse::<usize>().ok();
        }
    }
    if end != Some(journal.len()) || journal.is_empty() {
        return Err("the journal is not whole".to_string());
    }
    let mut reader = Reader::open(disk)?;
    for (number, expected) in journal.iter().enumerate() {
        let block = reader.read(number as u64)?;
        let found = stamp::generation(&block, number as u64);
        if found != Some(*expected) {
            return Err(format!(
                "block {number}: expected generation {expected}, found {found:?}"
            ));
        }
    }
    Ok(journal.len())
}

/// A session of one request at a time, on the protocol's bare words.
struct Reader {
    submissions: Producer<Submission, SharedMapping>,
    completions: Consumer<Completion, SharedMapping>,
    submitted: rt::Event,
    memory: Mapping,
    blocks_per: u64,
    next: u64,
    // The session lives as long as its channel.
    _session: BlockSessionClient,
}

impl Reader {
    fn open(disk: &str) -> Result<Reader, String> {
        let scheme = startup::handle::<Channel>("disk").ok_or("no access to \"disk\"")?;
        let disks = EndpointsClient::new(scheme.duplicate().map_err(|e| e.to_string())?);
        let (_, endpoint, _) = disks.open(disk).map_err(|e| format!("{disk}: {e}"))?;
        let endpoint = BlockEndpointClient::new(endpoint);
        let block_size = endpoint.info().map_err(|e| e.to_string())?.block_size;
        let opened = endpoint.open_session(1, u32::MAX);
        let (info, session, rings, submitted, _) = opened.map_err(|e| e.to_string())?;
        let session = BlockSessionClient::new(session);
        let at = info.completion_offset as usize;
        let layout = Layout::of::<Completion>(info.depth.into()).map_err(|e| format!("{e:?}"))?;
        let len = at + layout.size_bytes();
        let rings =
            Mapping::map(&rings, 0, len, MapAccess::ReadWrite).map_err(|e| e.to_string())?;
        let rings = SharedMapping::new(rings);
        let (vmo, memory) = Mapping::create(BLOCK).map_err(|e| e.to_string())?;
        let granted: Vmo = vmo
            .duplicate_with(Rights::PIN | Rights::TRANSFER | Rights::WRITE)
            .map_err(|e| e.to_string())?;
        session
            .register_buffer(0, BufferAccess::DeviceWrites, 0, BLOCK as u64, granted)
            .map_err(|e| e.to_string())?;
        let ring = |e| format!("ring: {e:?}");
        Ok(Reader {
            submissions: Producer::new(rings.clone(), 0, info.depth.into()).map_err(ring)?,
            completions: Consumer::new(rings, at, info.depth.into()).map_err(ring)?,
            submitted,
            memory,
            blocks_per: BLOCK as u64 / u64::from(block_size),
            next: 0,
            _session: session,
        })
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, String> {
        self.next += 1;
        let submission = Submission {
            id: self.next,
            lba: number * self.blocks_per,
            length: BLOCK as u32,
            operation: READ,
            ..Submission::default()
        };
        self.submissions
            .push(&submission)
            .map_err(|e| format!("push: {e:?}"))?;
        if self.submissions.publish() {
            self.submitted.ring().map_err(|e| e.to_string())?;
        }
        for round in 0..ROUNDS_MAX {
            if let Some(done) = self.completions.pop().map_err(|e| format!("pop: {e:?}"))? {
                if (done.id, done.status, done.length) != (self.next, 0, BLOCK as u32) {
                    return Err(format!("block {number}: answer {done:?}"));
                }
                let mut block = vec![0; BLOCK];
                self.memory.read(0, &mut block).map_err(|e| e.to_string())?;
                return Ok(block);
            }
            if round > 100 {
                time::sleep(Duration::from_micros(100));
            }
        }
        Err(format!("block {number}: no answer"))
    }
}
