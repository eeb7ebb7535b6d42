//! Partition tables and file systems.
//!
//! The input is a list of changes to an image: `offset (3 bytes), length (1 byte), bytes`, after a first byte
//! that chooses the image. So a small input damages a volume that is otherwise whole.

use std::ops::ControlFlow;

use volume::host::run_ready;
use volume::{DirectoryEntry, FileSystem, FsError, NodeId, Volume};

use crate::input::Input;

/// Most bytes of a volume.
const VOLUME_BYTES: usize = 256 << 10;
/// Objects that are looked at.
const OBJECTS_MAX: usize = 64;
/// Extents and entries of each.
const STEPS_MAX: usize = 64;
/// Reads of the volume, after which it fails: what needs more for so little does not end.
const READS_MAX: u32 = 200_000;

/// An image whose reads are counted.
struct Image {
    bytes: Vec<u8>,
    reads: std::cell::Cell<u32>,
}

impl Image {
    fn new(bytes: Vec<u8>) -> Image {
        Image {
            bytes,
            reads: std::cell::Cell::new(0),
        }
    }
}

impl Volume for Image {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError> {
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() < READS_MAX, "reading does not end");
        self.bytes.read_at(offset, into).await
    }
}

fn image(bytes: &[u8], seeds: &[&[u8]]) -> Vec<u8> {
    let mut input = Input::new(bytes);
    let choice = usize::from(input.byte());
    let mut image = vec![0; VOLUME_BYTES];
    let seed = seeds
        .get(choice % (seeds.len() + 1))
        .copied()
        .unwrap_or(&[]);
    for run in seed.chunks(RUN_BYTES) {
        let Some((head, data)) = run.split_first_chunk::<4>() else {
            break;
        };
        let at = u32::from_le_bytes(*head) as usize;
        if let Some(place) = image.get_mut(at..at + data.len()) {
            place.copy_from_slice(data);
        }
    }
    while !input.is_over() {
        let at = input.number(3) as usize % VOLUME_BYTES;
        let len = usize::from(input.byte()).min(VOLUME_BYTES - at);
        let data = input.take(len);
        if let Some(place) = image.get_mut(at..at + len) {
            place.copy_from_slice(&data);
        }
    }
    image
}

/// A stored image is a list of these: offset (4 bytes) and what is not zero there.
const RUN_BYTES: usize = 4 + 512;

pub fn partitions(bytes: &[u8]) {
    let device = Image::new(image(
        bytes,
        &[
            include_bytes!("../seeds/gpt.sparse"),
            include_bytes!("../seeds/mbr.sparse"),
        ],
    ));
    for block_bytes in [512, 4096] {
        if let Ok(table) = run_ready(part::read_table(&device, block_bytes)) {
            let blocks = device.size_bytes() / u64::from(block_bytes);
            for p in &table.partitions {
                let end = p.first_lba.checked_add(p.blocks);
                assert!(
                    end.is_some_and(|end| end <= blocks),
                    "{p:?} is outside of the disk"
                );
            }
            for note in &table.notes {
                let _ = format!("{note}");
            }
        }
    }
}

pub fn ext(bytes: &[u8]) {
    let image = Image::new(image(
        bytes,
        &[
            include_bytes!("../seeds/ext4.sparse"),
            include_bytes!("../seeds/ext2.sparse"),
        ],
    ));
    if let Ok(filesystem) = run_ready(ext::Ext::mount(image)) {
        let _ = filesystem.warnings();
        explore(&filesystem);
    }
}

pub fn fat(bytes: &[u8]) {
    let image = Image::new(image(bytes, &[include_bytes!("../seeds/fat12.sparse")]));
    if let Ok(filesystem) = run_ready(fat::Fat::mount(image)) {
        explore(&filesystem);
    }
}

/// Looks at directories, links and extents, breadth first, as far as the limits go.
fn explore<F: FileSystem>(filesystem: &F) {
    let _ = filesystem.statistics();
    let mut todo: Vec<NodeId> = vec![filesystem.root()];
    let mut next = 0;
    while let Some(node) = todo.get(next).copied().filter(|_| next < OBJECTS_MAX) {
        next += 1;
        let Ok(file) = run_ready(filesystem.open(node)) else {
            continue;
        };
        let attributes = filesystem.attributes(&file);
        let _ = run_ready(filesystem.read_link(&file));
        let _ = filesystem.inline_data(&file);
        let mut at = 0u64;
        for _ in 0..STEPS_MAX {
            match run_ready(filesystem.extent(&file, at)) {
                Ok(extent) if extent.len_bytes > 0 => at = at.saturating_add(extent.len_bytes),
                _ => break,
            }
        }
        let _ = run_ready(filesystem.extent(&file, attributes.size_bytes.wrapping_sub(1)));
        let mut position = Some(0);
        for _ in 0..STEPS_MAX {
            let Some(from) = position else { break };
            let mut room = 16;
            let mut sink = |entry: DirectoryEntry<'_>| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                let _ = filesystem.fold_name(entry.name);
                if !todo.contains(&entry.node) {
                    todo.push(entry.node);
                }
                ControlFlow::Continue(())
            };
            let read = filesystem.read_directory(&file, from, &mut sink);
            position = run_ready(read).unwrap_or_default();
        }
    }
}
