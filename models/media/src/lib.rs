//! The medium of a modelled disk, whatever its interface: blocks, a volatile write cache in front of them, errors
//! injected per block. No timing and no protocol; those are the models'.
//!
//! A write goes into the cache unless it is [`Durability::Forced`], and [`Media::flush`] makes all of it
//! durable. [`Media::durable`] shows what a power cut would leave at the worst, and [`Media::power_cut`]
//! is one: each unflushed block survives or not, as the generator says.
//!
//! ```
//! use model_media::{Durability, Media};
//!
//! let mut media = Media::new(512, 8);
//! media.write(3, &[7; 512], Durability::Cached)?;
//! assert_eq!(media.read(3, 1)?, [7; 512]);
//! assert_eq!(media.durable()[3 * 512], 0, "only in the cache");
//! media.flush();
//! assert_eq!(media.durable()[3 * 512], 7);
//! # Ok::<(), model_media::MediaError>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// Whether a write may stay in the volatile cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Until the next flush.
    Cached,
    /// No: forced unit access.
    Forced,
}

/// Why the medium refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaError {
    /// Not all of the blocks exist.
    OutOfRange {
        /// First block asked for.
        lba: u64,
        /// Blocks asked for.
        count: u64,
    },
    /// The data is not whole blocks.
    NotWholeBlocks {
        /// Its length in bytes.
        len: usize,
    },
    /// An injected error.
    Unreadable {
        /// First block that has one.
        lba: u64,
    },
    /// An injected error.
    Unwritable {
        /// First block that has one.
        lba: u64,
    },
    /// The medium is write-protected.
    ReadOnly,
}

impl std::fmt::Display for MediaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MediaError::OutOfRange { lba, count } => {
                write!(f, "{count} blocks from {lba} on are outside of the medium")
            }
            MediaError::NotWholeBlocks { len } => write!(f, "{len} bytes are not whole blocks"),
            MediaError::Unreadable { lba } => write!(f, "block {lba} cannot be read"),
            MediaError::Unwritable { lba } => write!(f, "block {lba} cannot be written"),
            MediaError::ReadOnly => f.write_str("the medium is write-protected"),
        }
    }
}

impl std::error::Error for MediaError {}

/// A medium of equal blocks.
#[derive(Clone, Debug)]
pub struct Media {
    block_bytes: usize,
    /// What survives a power cut for certain.
    durable: Vec<u8>,
    /// Blocks written since, by number.
    cache: BTreeMap<u64, Box<[u8]>>,
    unreadable: BTreeSet<u64>,
    unwritable: BTreeSet<u64>,
    read_only: bool,
}

impl Media {
    /// A medium of `count` zeroed blocks of `block_bytes` each (not 0).
    ///
    /// # Panics
    /// When it does not fit into memory.
    pub fn new(block_bytes: u32, count: u64) -> Media {
        let block_bytes = block_bytes as usize;
        assert!(block_bytes > 0, "blocks have bytes");
        let len = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(block_bytes))
            .expect("the medium fits into memory");
        Media {
            block_bytes,
            durable: vec![0; len],
            cache: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            unwritable: BTreeSet::new(),
            read_only: false,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Blocks.
    pub fn block_count(&self) -> u64 {
        (self.durable.len() / self.block_bytes) as u64
    }

    /// Makes it longer (with zeroes) or shorter.
    pub fn resize(&mut self, count: u64) {
        let len = usize::try_from(count).map_or(usize::MAX, |c| c * self.block_bytes);
        self.durable.resize(len, 0);
        self.cache.retain(|lba, _| *lba < count);
    }

    /// Write-protects it.
    pub fn protect(&mut self) {
        self.read_only = true;
    }

    /// Whether it is write-protected.
    pub fn is_protected(&self) -> bool {
        self.read_only
    }

    /// Reads of this block fail from now on, until it is written.
    pub fn fail_reads(&mut self, lba: u64) {
        self.unreadable.insert(lba);
    }

    /// Writes of this block fail from now on.
    pub fn fail_writes(&mut self, lba: u64) {
        self.unwritable.insert(lba);
    }

    /// Takes all injected errors back.
    pub fn heal(&mut self) {
        self.unreadable.clear();
        self.unwritable.clear();
    }

    fn range(&self, lba: u64, count: u64) -> Result<std::ops::Range<u64>, MediaError> {
        match lba.checked_add(count) {
            Some(end) if end <= self.block_count() => Ok(lba..end),
            _ => Err(MediaError::OutOfRange { lba, count }),
        }
    }

    fn bytes_of(&self, lba: u64) -> std::ops::Range<usize> {
        let start = lba as usize * self.block_bytes;
        start..start + self.block_bytes
    }

    /// Reads what was written last.
    ///
    /// # Errors
    /// [`MediaError::OutOfRange`], [`MediaError::Unreadable`].
    pub fn read(&self, lba: u64, count: u64) -> Result<Vec<u8>, MediaError> {
        let range = self.range(lba, count)?;
        if let Some(&lba) = self.unreadable.range(range.clone()).next() {
            return Err(MediaError::Unreadable { lba });
        }
        let mut bytes = Vec::with_capacity(count as usize * self.block_bytes);
        for lba in range {
            match self.cache.get(&lba) {
                Some(block) => bytes.extend_from_slice(block),
                None => bytes.extend_from_slice(&self.durable[self.bytes_of(lba)]),
            }
        }
        Ok(bytes)
    }

    fn writable(&self, lba: u64, count: u64) -> Result<std::ops::Range<u64>, MediaError> {
        let range = self.range(lba, count)?;
        if self.read_only {
            return Err(MediaError::ReadOnly);
        }
        if let Some(&lba) = self.unwritable.range(range.clone()).next() {
            return Err(MediaError::Unwritable { lba });
        }
        Ok(range)
    }

    /// Writes whole blocks. When it fails nothing is written.
    ///
    /// # Errors
    /// Any.
    pub fn write(
        &mut self,
        lba: u64,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<(), MediaError> {
        if !bytes.len().is_multiple_of(self.block_bytes) {
            return Err(MediaError::NotWholeBlocks { len: bytes.len() });
        }
        let range = self.writable(lba, (bytes.len() / self.block_bytes) as u64)?;
        for (lba, block) in range.zip(bytes.chunks(self.block_bytes)) {
            self.unreadable.remove(&lba);
            match durability {
                Durability::Cached => {
                    self.cache.insert(lba, block.into());
                }
                Durability::Forced => {
                    self.cache.remove(&lba);
                    let at = self.bytes_of(lba);
                    self.durable[at].copy_from_slice(block);
                }
            }
        }
        Ok(())
    }

    /// Writes zeroes, as a discard or a write-zeroes does here.
    ///
    /// # Errors
    /// As [`Media::write`].
    pub fn zero(&mut self, lba: u64, count: u64, durability: Durability) -> Result<(), MediaError> {
        let range = self.writable(lba, count)?;
        let zeroes = vec![0; self.block_bytes];
        for lba in range {
            self.write(lba, &zeroes, durability)?;
        }
        Ok(())
    }

    /// Makes everything durable that was written before.
    pub fn flush(&mut self) {
        for (lba, block) in std::mem::take(&mut self.cache) {
            let at = self.bytes_of(lba);
            self.durable[at].copy_from_slice(&block);
        }
    }

    /// Blocks in the volatile cache.
    pub fn unflushed(&self) -> usize {
        self.cache.len()
    }

    /// What a power cut leaves at the worst.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// What reads return, without injected errors.
    pub fn contents(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (lba, block) in &self.cache {
            bytes[self.bytes_of(*lba)].copy_from_slice(block);
        }
        bytes
    }

    /// Replaces everything, durably.
    ///
    /// # Panics
    /// When the length is another.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.cache.clear();
        self.durable.copy_from_slice(bytes);
    }

    /// Cuts the power: each block of the cache reached the medium or not, as `random` says.
    pub fn power_cut(&mut self, random: &mut fastrand::Rng) {
        for (lba, block) in std::mem::take(&mut self.cache) {
            if random.bool() {
                let at = self.bytes_of(lba);
                self.durable[at].copy_from_slice(&block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failed_write_changes_nothing() {
        let mut media = Media::new(512, 4);
        media.fail_writes(2);
        let data = [1; 3 * 512];
        assert_eq!(
            media.write(0, &data, Durability::Forced),
            Err(MediaError::Unwritable { lba: 2 })
        );
        assert_eq!(media.contents(), vec![0; 2048]);
        media.heal();
        assert_eq!(
            media.write(2, &data, Durability::Forced),
            Err(MediaError::OutOfRange { lba: 2, count: 3 })
        );
        assert_eq!(
            media.write(0, &data[..100], Durability::Forced),
            Err(MediaError::NotWholeBlocks { len: 100 })
        );
        assert!(media.read(u64::MAX, 2).is_err());
        media.protect();
        assert_eq!(
            media.zero(0, 1, Durability::Cached),
            Err(MediaError::ReadOnly)
        );
    }

    #[test]
    fn an_unreadable_block_is_readable_again_when_written() {
        let mut media = Media::new(512, 4);
        media.fail_reads(1);
        assert_eq!(media.read(0, 4), Err(MediaError::Unreadable { lba: 1 }));
        assert!(media.read(2, 2).is_ok());
        media.write(1, &[9; 512], Durability::Cached).unwrap();
        assert_eq!(media.read(1, 1).unwrap(), [9; 512]);
    }

    #[test]
    fn a_power_cut_takes_some_of_what_was_not_flushed() {
        let mut media = Media::new(512, 64);
        media.write(0, &[1; 64 * 512], Durability::Cached).unwrap();
        media.flush();
        media.write(0, &[2; 64 * 512], Durability::Cached).unwrap();
        media.power_cut(&mut fastrand::Rng::with_seed(1));
        let survived = (0..64)
            .filter(|lba| media.durable()[lba * 512] == 2)
            .count();
        assert!((1..63).contains(&survived), "{survived} of 64");
        assert!(media.contents().iter().all(|byte| matches!(byte, 1 | 2)));
    }

    proptest! {
        /// Reads see the last write; the durable view sees what was forced, or written before the last flush.
        #[test]
        fn two_arrays_say_the_same(
            steps in prop::collection::vec((0u8..4, 0u64..16, 1u64..4, any::<u8>()), 1..60),
        ) {
            let mut media = Media::new(16, 16);
            let (mut seen, mut durable) = (vec![0u8; 256], vec![0u8; 256]);
            for (kind, lba, count, byte) in steps {
                let data = vec![byte; count as usize * 16];
                let inside = lba + count <= 16;
                let range = lba as usize * 16..((lba + count) as usize * 16).min(256);
                let durability = if kind == 0 { Durability::Forced } else { Durability::Cached };
                let done = match kind {
                    0 | 1 => media.write(lba, &data, durability),
                    2 => media.zero(lba, count, durability),
                    _ => { media.flush(); Ok(()) }
                };
                if kind == 3 {
                    durable.copy_from_slice(&seen);
                    prop_assert_eq!(media.unflushed(), 0);
                } else {
                    prop_assert_eq!(done.is_ok(), inside);
                    if inside {
                        seen[range.clone()].fill(if kind == 2 { 0 } else { byte });
                        if kind == 0 {
                            durable[range].fill(byte);
                        }
                    }
                }
                prop_assert_eq!(media.contents(), seen.clone());
                prop_assert_eq!(media.durable(), &durable[..]);
            }
        }
    }
}
