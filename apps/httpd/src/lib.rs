//! What the web server does without a network: requests, ranges, heads of answers, the system's state as JSON and as
//! metrics.
//!
//! The process (src/main.rs) has a thread for each connection, with bounds on their number, on the size of a request and
//! on the time that each part may take.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod answer;
pub mod metrics;
pub mod places;
pub mod range;
pub mod request;
pub mod state;

/// The dashboard: one page without outside resources.
pub const DASHBOARD: &str = include_str!("dashboard.html");
