//! The partition service: takes each whole disk from devmgr, reads its table, and
//! publishes the partitions as endpoints that the disk's own driver serves, so
//! that a partition costs no hop.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    cell::RefCell,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use block_client::{Disk, DiskReader, SessionError, Status};
use ipc::{CallError, Channel, Error, Refusal};
use part::{Partition, PartitionKind, Scheme, read_table};
use proto::devmgr::{EndpointInfo, PartitionsClient};
use supervision::Supervised;
use volume::{BlockError, FsError, Volume};

/// Between two calls to a device manager that is not there.
const PAUSE: Duration = Duration::from_millis(200);

rt::entry!(main);

fn main() {
    let Some(channel) = rt::startup::take::<Channel>("partitions") else {
        rt::error!("started without the handle \"partitions\"");
        rt::exit(1);
    };
    let devmgr = PartitionsClient::new(channel).repeating();
    let supervised = Supervised::from_startup();
    loop {
        // A call lasts half as long as init waits for an answer.
        if let Some(own) = &supervised {
            own.answer();
        }
        match devmgr.next_disk() {
            Ok((disk, endpoint)) => {
                let problem = publish(&devmgr, &disk, endpoint).err();
                if let Some(problem) = &problem {
                    rt::error!("{}: {problem}", disk.name);
                }
                let _ = devmgr.done(disk.name.as_str(), disk.epoch, problem);
            }
            // No disk for as long as a call lasts.
            Err(CallError::Transport(Error::TimedOut)) => {}
            // The device manager died; its successor takes the next call.
            Err(CallError::ServerDied { .. }) => {}
            // It was stopped, or given up: somebody may start it again.
            Err(CallError::Refused(Refusal::Unavailable)) => rt::time::sleep(PAUSE),
            Err(error) => {
                rt::error!("{error}");
                rt::exit(1);
            }
        }
    }
}

/// Reads a disk's table and publishes what is in it.
fn publish(
    devmgr: &PartitionsClient,
    info: &EndpointInfo,
    endpoint: Channel,
) -> Result<(), String> {
    let disk = Disk::new(endpoint).map_err(|error| error.to_string())?;
    let reader = DiskReader::new(&disk).map_err(|error| error.to_string())?;
    let block_bytes = disk.info().block_size;
    let device = Device {
        len_bytes: reader.len_bytes(),
        reader: RefCell::new(reader),
    };
    let table = read_now(read_table(&device, block_bytes)).map_err(|error| error.to_string())?;
    for note in &table.notes {
        rt::warn!("{}: {note}", info.name);
    }
    for partition in &table.partitions {
        let access = disk.info().access;
        let published = disk
            .derive(partition.first_lba, partition.blocks, access)
            .map_err(|error| error.to_string())
            .and_then(|endpoint| {
                let properties = properties(partition, table.scheme);
                let (disk, number) = (info.name.as_str(), partition.number);
                let published = devmgr.publish(disk, info.epoch, number, properties, endpoint);
                published.map_err(|error| error.to_string())
            });
        // One that cannot be had does not take the others along.
        if let Err(error) = published {
            rt::error!(
                "part: {}: partition {}: {error}",
                info.name,
                partition.number
            );
        }
    }
    Ok(())
}

/// What `lsblk` shows of a partition.
fn properties(partition: &Partition, scheme: Scheme) -> Vec<(String, String)> {
    let table = match scheme {
        Scheme::Gpt(_) => "gpt",
        Scheme::Mbr | Scheme::None => "mbr",
    };
    let kind = match partition.kind {
        PartitionKind::Gpt(guid) => guid.to_string(),
        PartitionKind::Mbr(kind) => format!("{kind:#04x}"),
    };
    let mut properties: Vec<(String, String)> = Vec::from([
        ("table".into(), table.into()),
        ("type".into(), kind),
        ("first-lba".into(), partition.first_lba.to_string()),
        ("blocks".into(), partition.blocks.to_string()),
    ]);
    if !partition.name.is_empty() {
        properties.push(("name".into(), partition.name.clone()));
    }
    properties
}

/// A disk that is read in place, one request at a time.
struct Device {
    reader: RefCell<DiskReader>,
    len_bytes: u64,
}

impl Volume for Device {
    fn size_bytes(&self) -> u64 {
        self.len_bytes
    }

    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError> {
        let len_bytes = into.len() as u64;
        let error = match self.reader.borrow_mut().read_at(offset, into) {
            Ok(()) => return Ok(()),
            Err(SessionError::Refused(Status::OUT_OF_RANGE)) => {
                let volume_bytes = self.len_bytes;
                return Err(FsError::OutsideVolume {
                    offset,
                    len_bytes,
                    volume_bytes,
                });
            }
            Err(SessionError::TimedOut | SessionError::Refused(Status::TIMED_OUT)) => {
                BlockError::TimedOut
            }
            Err(SessionError::Closed) => BlockError::Gone,
            Err(_) => BlockError::Device,
        };
        Err(FsError::Device { offset, error })
    }
}

/// The value of a future that never waits: [`Device`] reads in place.
fn read_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}
