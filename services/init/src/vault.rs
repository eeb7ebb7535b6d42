//! What services keep in init beyond their own death: bytes and handles by key, bounded.
//!
//! Generic over the handle, so that it is tested without a kernel. It does not look into what it keeps.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most keys of a service, most bytes of one, of all its keys and values together, and most handles.
pub const KEYS_MAX: usize = 8192;
/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Bytes of all keys and values of a service.
pub const BYTES_MAX: usize = 2 << 20;
/// Handles of a service.
pub const HANDLES_MAX: usize = 16384;
/// Bytes of keys in one answer.
const PAGE_BYTES: usize = 16 * 1024;

struct Entry<H> {
    bytes: Vec<u8>,
    handles: Vec<H>,
}

/// What is kept for one service.
pub struct Vault<H> {
    entries: BTreeMap<String, Entry<H>>,
    bytes: usize,
    handles: usize,
}

impl<H> Default for Vault<H> {
    fn default() -> Vault<H> {
        Vault {
            entries: BTreeMap::new(),
            bytes: 0,
            handles: 0,
        }
    }
}

/// It would be too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl<H> Vault<H> {
    /// Keeps something in place of what is there under the key. If it is too much nothing changes.
    ///
    /// # Errors
    /// [`Full`].
    pub fn put(&mut self, key: &str, bytes: Vec<u8>, handles: Vec<H>) -> Result<(), Full> {
        let old = self.entries.get(key);
        let (old_bytes, old_handles) = old.map_or((0, 0), |old| {
            (key.len().saturating_add(old.bytes.len()), old.handles.len())
        });
        let new_bytes = key.len().saturating_add(bytes.len());
        let all_bytes = self
            .bytes
            .saturating_sub(old_bytes)
            .saturating_add(new_bytes);
        let all_handles = self
            .handles
            .saturating_sub(old_handles)
            .saturating_add(handles.len());
        let is_new = old.is_none();
        if key.len() > KEY_BYTES_MAX
            || (is_new && self.entries.len() >= KEYS_MAX)
            || all_bytes > BYTES_MAX
            || all_handles > HANDLES_MAX
        {
            return Err(Full);
        }
        self.entries
            .insert(key.to_string(), Entry { bytes, handles });
        (self.bytes, self.handles) = (all_bytes, all_handles);
        Ok(())
    }

    /// What is kept under a key.
    pub fn get(&self, key: &str) -> Option<(&[u8], &[H])> {
        let entry = self.entries.get(key)?;
        Some((&entry.bytes, &entry.handles))
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key) {
            let bytes = key.len().saturating_add(old.bytes.len());
            self.bytes = self.bytes.saturating_sub(bytes);
            self.handles = self.handles.saturating_sub(old.handles.len());
        }
    }

    /// Keys that begin with `prefix`, above `after`, in their order, as many as fit an answer.
    pub fn keys(&self, prefix: &str, after: &str) -> Vec<String> {
        let mut room = PAGE_BYTES;
        let all = self.entries.keys();
        all.skip_while(|key| key.as_str() <= after || key.as_str() < prefix)
            .take_while(|key| key.starts_with(prefix))
            .take_while(|key| {
                let rest = room.checked_sub(key.len().saturating_add(8));
                room = rest.unwrap_or(0);
                rest.is_some()
            })
            .cloned()
            .collect()
    }

    /// Bytes and handles that are kept.
    pub const fn size(&self) -> (usize, usize) {
        (self.bytes, self.handles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_come_in_pages_and_by_prefix() {
        let mut vault: Vault<u8> = Vault::default();
        for number in 0..2000 {
            vault
                .put(&format!("node:{number:05}"), vec![1], vec![])
                .unwrap();
        }
        vault.put("name:1", vec![], vec![]).unwrap();
        vault.put("other", vec![], vec![]).unwrap();
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = vault.keys("node:", seen.last().map_or("", String::as_str));
            if page.is_empty() {
                break;
            }
            pages += 1;
            seen.extend(page);
        }
        assert_eq!(seen.len(), 2000);
        assert!(pages > 1 && seen.is_sorted());
        assert_eq!(vault.keys("na", ""), ["name:1"]);
        assert!(vault.keys("x", "").is_empty());
    }

    #[test]
    fn too_much_changes_nothing() {
        let mut vault: Vault<u8> = Vault::default();
        vault.put("a", vec![7; 10], vec![1, 2]).unwrap();
        assert_eq!(vault.put("a", vec![0; BYTES_MAX], vec![]), Err(Full));
        assert_eq!(vault.put("b", vec![], vec![0; HANDLES_MAX - 1]), Err(Full));
        assert_eq!(
            vault.put(&"k".repeat(KEY_BYTES_MAX + 1), vec![], vec![]),
            Err(Full)
        );
        assert_eq!(vault.get("a"), Some((&[7; 10][..], &[1, 2][..])));
        assert_eq!(vault.size(), (11, 2));
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_what_is_kept(
            steps in prop::collection::vec((0u8..6, 0usize..40, 0usize..5, any::<bool>()), 0..200)
        ) {
            let mut vault: Vault<u8> = Vault::default();
            for (key, bytes, handles, remove) in steps {
                let key = "k".repeat(usize::from(key) + 1);
                if remove {
                    vault.remove(&key);
                } else {
                    vault.put(&key, vec![0; bytes], vec![0; handles]).unwrap();
                }
                let kept = vault.entries.iter();
                let sums = kept.fold((0, 0), |(b, h), (k, e)| {
                    (b + k.len() + e.bytes.len(), h + e.handles.len())
                });
                prop_assert_eq!(vault.size(), sums);
            }
        }
    }
}
