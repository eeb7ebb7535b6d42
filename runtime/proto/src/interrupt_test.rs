//! Interrupts on request: the endpoint of a driver whose device raises an interrupt when it is told to
//! (scheme `other`). It is there to measure and to test the way from a device to its driver.

use serde::{Deserialize, Serialize};

/// Why it did not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum InterruptTestError {
    /// An interrupt was raised and its handler did not run in time.
    Lost {
        /// Interrupts of this request that were handled before.
        handled: u32,
    },
}

impl core::fmt::Display for InterruptTestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            InterruptTestError::Lost { handled } => {
                write!(f, "an interrupt was lost after {handled}")
            }
        }
    }
}

ipc::protocol! {
    /// A device that interrupts on request.
    pub protocol InterruptTest("interrupt-test", version = 1, error = InterruptTestError) {
        /// Raises `count` interrupts, each after the handler of the one before has run.
        1 = raise(count: u32) -> ();
    }
}
