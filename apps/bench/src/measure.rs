//! Passes, markers and what is printed of them.

use alloc::string::String;
use core::fmt;

use rt::println;

/// Each row is measured this often, after one pass that is not counted.
const PASSES: u32 = 5;

/// A row could not be measured; says why.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    /// `what` went wrong in this way.
    pub fn new(what: &str, error: impl fmt::Debug) -> Self {
        Self(alloc::format!("{what}: {error:?}"))
    }
}

/// A measured section: its number, and its markers, which are instructions with the
/// number inside.
#[derive(Clone, Copy)]
pub struct Section {
    pub number: u32,
    pub start: fn(),
    pub stop: fn(),
}

/// The section with this number, a literal.
macro_rules! section {
    ($number:literal) => {
        $crate::measure::Section {
            number: $number,
            start: rt::marker::section_start::<$number>,
            stop: rt::marker::section_end::<$number>,
        }
    };
}
pub(crate) use section;

/// Runs `operation`, which does `operations` operations, once uncounted and then
/// [`PASSES`] times between markers. `prepare` runs before each pass and is not measured.
///
/// # Errors
///
/// The first failure of either.
pub fn measure<T>(
    row: &str,
    section: Section,
    operations: u32,
    mut prepare: impl FnMut() -> Result<T, Failure>,
    mut operation: impl FnMut(&mut T) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    operation(&mut prepare()?)?;
    for _ in 0..PASSES {
        let mut prepared = prepare()?;
        let start_ns = rt::time::now_ns();
        (section.start)();
        let result = operation(&mut prepared);
        (section.stop)();
        let ns = rt::time::now_ns().saturating_sub(start_ns);
        result?;
        report(row, section.number, operations, ns);
    }
    Ok(true)
}

/// [`measure`] for rows that need no preparation.
///
/// # Errors
///
/// The first failure of the operation.
pub fn measure_plain(
    row: &str,
    section: Section,
    operations: u32,
    mut operation: impl FnMut() -> Result<(), Failure>,
) -> Result<bool, Failure> {
    measure(row, section, operations, || Ok(()), |()| operation())
}

/// Prints the result of one pass, at once: the line of the row `boot` is timed outside.
pub fn report(row: &str, section: u32, operations: u32, ns: u64) {
    println!("bench {row} id={section} n={operations} ns={ns}");
    // Nobody is left to tell when the output is gone.
    let _ = rt::io::flush();
}
