//! A home for drivers on the host, with models of devices: the driver as it stands, in `cargo test` and a debugger.
//!
//! A [`Sim`] is a world with a virtual clock, memory and any number of devices; a [`SimPlatform`] in it is a
//! home for one driver ([`ddk::Platform`]). Everything that a specification leaves open (how long a request takes, in which
//! order requests complete, when an interrupt comes, which thread goes on) is chosen by a generator
//! with a seed, so that a run repeats exactly, and another seed is another run. The environment variable
//! [`SEED_VARIABLE`] gives the seed where a test does not; a violation names it.
//!
//! # Parts
//!
//! - [`Schedule`]: the clock and the events to come. Time passes when the driver waits, and a little with each
//!   access, so that a device acts between any two accesses of its driver.
//! - [`DeviceMemory`]: pages at scattered device addresses. A device that reaches for anything else is told so, and
//!   its model notes a violation of the driver's. [`Payload`] is a client's buffer.
//! - [`SimInterrupt`]: messages, and level-triggered lines.
//! - Threads: what a driver spawns runs on threads of the host, one at a time, and the seed decides whose turn it
//!   is at each wait ([`Sim::join`] runs them to their end).
//! - [`Timing`]: how long a modelled device takes.
//!
//! # A model
//!
//! A model is a [`ddk::Bus`] (or [`ddk::PortBus`]). It checks what the driver does, as no hardware would, and
//! notes what is against the rules with [`Sim::violation`]; [`Sim::check`] ends a test. What takes time it
//! puts on the schedule. Models of real devices are in `models/`: `model-virtio-blk` shows a whole one.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use ddk::{Bus, Deadline, DeviceContext, PlatformError, Width, block_on};
//! use ddk_backend_sim::{Sim, SimInterrupt};
//!
//! /// Squares the number written at 0, shows it at 8 and interrupts; takes its time.
//! struct Squarer {
//!     sim: Sim,
//!     result: Arc<Mutex<Option<u64>>>,
//!     done: Arc<SimInterrupt>,
//! }
//!
//! impl Bus for Squarer {
//!     fn read(&self, offset: usize, width: Width) -> u64 {
//!         match (offset, *self.result.lock().unwrap()) {
//!             (8, Some(result)) => result,
//!             (8, None) => {
//!                 self.sim.violation("result read before it is there");
//!                 0
//!             }
//!             _ => width.all_ones(),
//!         }
//!     }
//!     fn write(&self, _: usize, _: Width, value: u64) {
//!         let (result, done) = (self.result.clone(), self.done.clone());
//!         self.sim.schedule().after(1_000..=1_000_000, move || {
//!             *result.lock().unwrap() = Some(value * value);
//!             done.fire();
//!         });
//!     }
//! }
//!
//! /// What stands for a driver: writes a number and waits for its square.
//! async fn square(cx: &DeviceContext, number: u32, limit_ms: u32) -> Result<u32, PlatformError> {
//!     let (_, registers) = cx.platform().bar(0)?.remove(0);
//!     let mut done = cx.interrupt(0).map_err(|_| PlatformError::NotGranted)?;
//!     registers.write(0, number);
//!     let waited = done.wait(cx.deadline_in_ms(limit_ms)).await;
//!     // Wrong: it looks also when the time is over.
//!     waited.map_or(Ok(registers.read(8)), |_| Ok(registers.read(8)))
//! }
//!
//! let run = |seed, limit_ms| {
//!     let sim = Sim::new(seed);
//!     let done = Arc::new(SimInterrupt::default());
//!     let model = Squarer { sim: sim.clone(), result: Arc::default(), done: done.clone() };
//!     let platform = sim.platform().bar(0, Arc::new(model), 16).interrupts(vec![done]).build();
//!     let cx = DeviceContext::new(platform).unwrap();
//!     let result = block_on(&cx, square(&cx, 12, limit_ms)).unwrap();
//!     (result, sim.violations().len())
//! };
//! assert_eq!(run(1, 5), (Ok(144), 0));
//! // With no time at all the model finds the fault in the driver.
//! assert_eq!(run(1, 0), (Ok(0), 1));
//! ```
//!
//! # What it is not
//!
//! The processor's memory ordering is not simulated: a missing barrier is found by the order of accesses in a
//! trace (`ddk-instrument`) and by the ring's own tests, not here. Nor is speed: the virtual clock says how long a
//! device lets one wait, not what code costs.

mod memory;
mod platform;
mod queue;
mod schedule;
mod sim;
mod threads;

pub use memory::{DeviceMemory, MemoryError, Payload};
pub use platform::{SimPlatform, SimPlatformBuilder};
pub use queue::{SimInterrupt, SimQueue};
pub use schedule::Schedule;
pub use sim::{SEED_VARIABLE, Sim, Timing};
