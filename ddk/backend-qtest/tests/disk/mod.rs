//! Machines, images, and disks that are driven request by request.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ddk::{Described, PinnedBuffer};
use ddk_backend_qtest::{QtestMachine, QtestMachineBuilder, StartError};
use ddk_class_block::{Access, BlockDevice, DirectDisks, Operation, Status};

/// An answer may take that long; a test that waits for it in vain has failed.
pub const ANSWER_LIMIT_MS: u32 = 20_000;

/// The machine, or `None` after saying that nothing was run.
pub fn machine(builder: QtestMachineBuilder) -> Option<QtestMachine> {
    match builder.start() {
        Ok(machine) => Some(machine),
        Err(error @ StartError::NoQemu) => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A raw image in a temporary file.
pub struct Image(tempfile::NamedTempFile);

impl Image {
    pub fn new(contents: &[u8]) -> Image {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        Image(file)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file: &File = self.0.as_file();
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        bytes
    }
}

/// What no two blocks have in common.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add((n / 256) as u8) ^ seed)
        .collect()
}

pub fn start<D: BlockDevice + Described>(machine: &QtestMachine, device: &str) -> DirectDisks<D> {
    let platform = machine.platform_for(device, &D::MANIFEST).unwrap();
    DirectDisks::start(platform).unwrap()
}

pub fn access(
    operation: Operation,
    lba: u64,
    length: u32,
    data: Option<(&PinnedBuffer, u64)>,
) -> Access<'_> {
    Access {
        operation,
        lba,
        length,
        data,
        flags: 0,
    }
}

/// A request of the first disk by the first queue, and its answer.
pub fn one<D: BlockDevice>(disks: &mut DirectDisks<D>, access: Access<'_>) -> Status {
    let limit = disks.deadline_in_ms(ANSWER_LIMIT_MS);
    disks.run(0, access, limit).unwrap().expect("an answer")
}
