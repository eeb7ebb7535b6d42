//! What the conformance suites of all classes share: why a step did not succeed, how a case ended, what is to run,
//! and what can go wrong with a device. The tests and what a home offers for them are each class's own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;

/// Longest that an answer may take, in milliseconds of the device's time: beyond what a class layer allows a device
/// before it is reset, and the reset.
pub const ANSWER_LIMIT_MS: u32 = 60_000;

/// Fails a test unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            return Err($crate::Problem::failed(alloc::format!($($arg)*)));
        }
    };
}

/// Why a step of a test did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The home lacks what the test needs.
    NotOffered(String),
    /// The driver, or the home under it, did wrong.
    Failed(String),
}

impl Problem {
    /// The home lacks something.
    pub fn not_offered(reason: impl Into<String>) -> Problem {
        Problem::NotOffered(reason.into())
    }

    /// Something went wrong.
    pub fn failed(what: impl Into<String>) -> Problem {
        Problem::Failed(what.into())
    }

    /// The same, with what it is about in front of what went wrong.
    #[must_use]
    pub fn about(self, subject: &str) -> Problem {
        match self {
            Problem::Failed(text) => Problem::Failed(format!("{subject}: {text}")),
            not_offered => not_offered,
        }
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Problem::NotOffered(text) | Problem::Failed(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Problem {}

/// Why a client's waiting came to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// There is an answer to poll.
    Answer,
    /// The limit passed.
    Limit,
    /// The driver gave the device up: no further answer comes.
    Gone,
}

/// What goes wrong with a device from now on, until [`Fault::None`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// The device takes requests and answers none, until it is reset.
    Silent,
    /// It breaks the rules in way number N of those that the home knows.
    Lie(usize),
    /// It answers nothing and cannot be reset. Nothing ends that.
    Dead,
    /// It is unplugged. Nothing ends that.
    Gone,
}

impl Fault {
    /// What a home says that cannot make this happen.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], but for [`Fault::None`].
    pub fn unless_offered(self) -> Result<(), Problem> {
        match self {
            Fault::None => Ok(()),
            Fault::Silent => Err(Problem::not_offered("no way to silence the device")),
            Fault::Lie(_) => Err(Problem::not_offered("no way to make the device lie")),
            Fault::Dead => Err(Problem::not_offered("no way to make a reset fail")),
            Fault::Gone => Err(Problem::not_offered("no way to unplug the device")),
        }
    }
}

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The driver does what the class promises.
    Passed,
    /// It does not.
    Failed(String),
    /// The home cannot run the test.
    NotRun(String),
}

impl From<Result<(), Problem>> for Outcome {
    fn from(result: Result<(), Problem>) -> Outcome {
        match result {
            Ok(()) => Outcome::Passed,
            Err(Problem::NotOffered(reason)) => Outcome::NotRun(reason),
            Err(Problem::Failed(what)) => Outcome::Failed(what),
        }
    }
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seed of everything that is random.
    pub seed: u64,
    /// Only cases whose name has this in it.
    pub filter: Option<String>,
}

impl Options {
    /// Whether the case of this name is to run.
    pub fn wants(&self, case: &str) -> bool {
        let filter = self.filter.as_deref();
        filter.is_none_or(|filter| case.contains(filter))
    }

    /// The seed of a case: each has numbers of its own, so that one is the same alone and among the others.
    pub fn seed_of(&self, case: &str) -> u64 {
        case.bytes().fold(self.seed, |seed, byte| {
            seed.rotate_left(7) ^ u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }
}

/// The result of a test that ended so on a device whose closing ended so.
///
/// # Errors
/// What went wrong. What the home saw the driver do is told as well: it is the cause more often than not.
pub fn ended(test: Result<(), Problem>, closed: Result<(), Problem>) -> Result<(), Problem> {
    match (test, closed) {
        (Err(Problem::Failed(what)), Err(Problem::Failed(seen))) => {
            Err(Problem::Failed(format!("{what}; {seen}")))
        }
        (Err(Problem::NotOffered(_)), Err(failed @ Problem::Failed(_))) => Err(failed),
        (Err(problem), _) | (Ok(()), Err(problem)) => Err(problem),
        (Ok(()), Ok(())) => Ok(()),
    }
}
