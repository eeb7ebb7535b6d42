//! Device addresses, page by page, in an order that no driver should count on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddk::{PAGE, PlatformError};

/// Distance of what follows each other, a prime: pages that are contiguous for the driver are not for the
/// device (but for a pair now and then), and a driver that takes them to be reaches what belongs to others.
const STRIDE: usize = 61;

/// Pages of a device's address space that are handed out scattered. Clones are the same.
#[derive(Clone)]
pub struct ScatteredPages(Arc<Mutex<Vec<u64>>>);

/// Pages that are in use, given back when dropped.
pub struct TakenPages {
    from: ScatteredPages,
    addresses: Box<[u64]>,
}

impl ScatteredPages {
    /// The pages from `base` to `end`, multiples of the page size.
    pub fn new(base: u64, end: u64) -> ScatteredPages {
        let all: Vec<u64> = (base..end).step_by(PAGE).collect();
        // Two of four pages keep together, so that neighbours occur too.
        let units: Vec<&[u64]> = all
            .chunks(4)
            .flat_map(|four| {
                let (alone, pair) = four.split_at(2.min(four.len()));
                alone.chunks(1).chain(pair.chunks(2))
            })
            .collect();
        let mut free = Vec::with_capacity(all.len());
        for start in 0..STRIDE {
            let scattered = units.iter().skip(start).step_by(STRIDE);
            free.extend(scattered.flat_map(|unit| unit.iter()));
        }
        ScatteredPages(Arc::new(Mutex::new(free)))
    }

    /// Pages for at least `len` bytes, and one at least.
    ///
    /// # Errors
    /// [`PlatformError::NoMemory`] when there are not so many.
    pub fn take(&self, len: usize) -> Result<TakenPages, PlatformError> {
        let count = len.div_ceil(PAGE).max(1);
        let mut free = self.lock();
        let rest = free
            .len()
            .checked_sub(count)
            .ok_or(PlatformError::NoMemory)?;
        Ok(TakenPages {
            from: self.clone(),
            addresses: free.split_off(rest).into_boxed_slice(),
        })
    }

    /// Pages that can be taken.
    pub fn available(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenPages {
    /// The device address of each page.
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

impl Drop for TakenPages {
    fn drop(&mut self) {
        self.from.lock().extend_from_slice(&self.addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_scattered_with_neighbours_now_and_then() {
        let pages = ScatteredPages::new(0x10_0000, 0x80_0000);
        let all = pages.available();
        assert_eq!(all, 0x700);
        let taken = pages.take(64 * PAGE - 1).unwrap();
        assert_eq!((taken.addresses().len(), pages.available()), (64, all - 64));
        let neighbours = taken.addresses().windows(2).filter(|w| w[0] + 4096 == w[1]);
        assert!((1..32).contains(&neighbours.count()));
        drop(taken);
        let whole = pages.take(all * PAGE).unwrap();
        let mut sorted = whole.addresses().to_vec();
        sorted.sort_unstable();
        assert!(
            sorted
                .iter()
                .copied()
                .eq((0x10_0000..0x80_0000).step_by(PAGE))
        );
        assert!(pages.take(1).is_err());
    }
}
