//! What those who watch over processes share, and what a service needs that is watched over.
//!
//! [`restart`] and [`heartbeat`] are pure: time comes in as a number. [`Supervised`] is a service's end of its
//! channel to init: it answers pings, and keeps in init's vault what is to outlive the service. Starting and
//! ending processes is the supervisor's own.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod heartbeat;
pub mod restart;
mod supervised;

pub use supervised::{Supervised, VaultError};

use proto::devmgr::RestartRules;

/// The rules for what a service starts itself: `restart.NAME` of `boot.cfg`, which init passes on in the
/// environment.
pub fn rules_from_environment(name: &str) -> RestartRules {
    let mut rules = restart::DEFAULT_RULES;
    let words = rt::startup::env(&environment_name(name)).unwrap_or_default();
    for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
        if let Err(why) = restart::change(&mut rules, word) {
            rt::warn!("restart.{name}: {why}");
        }
    }
    rules
}

/// The variable for [`rules_from_environment`].
pub fn environment_name(name: &str) -> alloc::string::String {
    alloc::format!("BULKHEAD_RESTART_{}", name.to_ascii_uppercase())
}
