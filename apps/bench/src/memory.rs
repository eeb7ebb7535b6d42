//! Page fault: the first write to a page of private memory.

use rt::PrivateMemory;

use crate::measure::{Failure, Section, measure};
use crate::section;

const PAGE_FAULT: Section = section!(5);

const PAGE: usize = 4096;
const PAGES: usize = 4096;
/// Every so many pages one is touched before, so that page tables are there: they are
/// not what is measured.
const PREPARED_EVERY: usize = 256;

fn touch(memory: &mut PrivateMemory, wanted: fn(usize) -> bool) {
    for (number, page) in memory.as_mut_slice().chunks_exact_mut(PAGE).enumerate() {
        if wanted(number)
            && let Some(byte) = page.first_mut()
        {
            // Without `black_box` the compiler may leave the write out.
            *core::hint::black_box(byte) = 1;
        }
    }
}

/// The row `page-fault`.
///
/// # Errors
///
/// When memory is short.
pub fn page_fault(row: &str) -> Result<bool, Failure> {
    let prepare = || {
        let mut memory =
            PrivateMemory::new(PAGES * PAGE).map_err(|error| Failure::new("memory", error))?;
        touch(&mut memory, |page| page % PREPARED_EVERY == 0);
        Ok(memory)
    };
    measure(
        row,
        PAGE_FAULT,
        (PAGES - PAGES / PREPARED_EVERY) as u32,
        prepare,
        |memory| {
            touch(memory, |page| page % PREPARED_EVERY != 0);
            Ok(())
        },
    )
}
