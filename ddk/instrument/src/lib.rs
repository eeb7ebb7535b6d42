//! Wrappers around a driver's home, whichever it is: what passes between a driver and its machine is recorded, replayed,
//! disturbed or checked, and the driver knows nothing of it.
//!
//! - [`Trace`]: every access to registers, ports and shared memory, every wait, interrupt and answer of the
//!   system; as text, as compact bytes, or only the last of them.
//! - [`Replay`]: a home without a device that answers from such a record, and tells the first deviation.
//! - [`Faults`]: wrong values, lost and extra interrupts, corrupted memory, a device that is gone or slow, by a
//!   plan and a seed.
//! - [`Deadlines`]: waits that last too long and loops that never wait.
//!
//! The first, third and fourth are [`Probe`]s; [`instrument`] puts one between a driver and any
//! [`ddk::Platform`], and they stack. A payload is not seen: it is neither mapped for the driver nor its concern.
//!
//! ```
//! use ddk::{DeviceContext, Platform, Width};
//! use ddk_backend_sim::Sim;
//! use ddk_instrument::{Replay, Trace, instrument};
//!
//! /// What stands for a driver here.
//! fn vendor(platform: std::sync::Arc<dyn Platform>) -> u32 {
//!     let cx = DeviceContext::new(platform).unwrap();
//!     cx.pci().config_read(0, Width::U16).unwrap()
//! }
//!
//! let machine = Sim::new(1).platform().config(vec![0xf4, 0x1a, 0x42, 0x10]).build();
//! let trace = Trace::new();
//! assert_eq!(vendor(instrument(machine, trace.clone())), 0x1af4);
//! let recording = trace.recording();
//! assert_eq!(recording.to_string().lines().last(), Some("1: read16 config+0x0 -> 0x1af4"));
//!
//! // The same again, with no device.
//! let replay = Replay::new(recording);
//! assert_eq!(vendor(replay.clone()), 0x1af4);
//! replay.finish().unwrap();
//! ```
//!
//! In a driver process of the running system faults and traces are at hand: [`Live`] takes its plan from outside while it runs, and
//! [`Trace::to`] sends records to a [`Sink`] that outlives the process. What the class layer asks of a driver is noted and
//! replayed by `ddk-trace-block`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(not(target_os = "none"))]
mod deadlines;
mod faults;
mod live;
mod platform;
mod probe;
mod record;
#[cfg(not(target_os = "none"))]
mod replay;
#[cfg(not(target_os = "none"))]
mod thread;
mod trace;

#[cfg(not(target_os = "none"))]
pub use deadlines::{Deadlines, Finding};
pub use faults::{Change, Faults, Rule, When};
pub use live::{Live, Plan, PlanReader};
pub use platform::instrument;
pub use probe::{Access, Place, Probe, Waiting, Wanted};
pub use record::{BadRecording, Entry, Outcome, Record, Recording, Refusal, Restored};
#[cfg(not(target_os = "none"))]
pub use replay::{Deviation, Replay, Step};
pub use trace::{Sink, Trace};
