//! The one single-producer single-consumer ring in shared memory: the data plane between a
//! client and a driver.
//!
//! What it is not: a queue between threads that trust each other (use a channel or a mutex), and
//! not a byte stream. Entries are plain data of a fixed size.
//!
//! # Use
//!
//! Both sides agree on the entry type and on a capacity (a power of two) in a control message and
//! map the same memory, which starts out as zeroes: that is an empty ring. One side makes a
//! [`Producer`], the other a [`Consumer`].
//!
//! ```
//! # use ring::{Producer, Consumer, HeapMemory, Layout};
//! let memory = HeapMemory::new(Layout::of::<u64>(8).unwrap().size_bytes());
//! let mut producer = Producer::<u64, _>::new(memory.clone(), 0, 8).unwrap();
//! let mut consumer = Consumer::<u64, _>::new(memory, 0, 8).unwrap();
//!
//! producer.push(&7).unwrap();
//! if producer.publish() { /* ring the consumer's doorbell */ }
//!
//! loop {
//!     while let Some(entry) = consumer.pop().unwrap() { assert_eq!(entry, 7); }
//!     if !consumer.arm().unwrap() { break /* sleep until the doorbell rings */ }
//! }
//! ```
//!
//! # Rules that the types hold
//!
//! - Indices run free and stand in a cache line each. Capacity and the own index are private
//!   copies; whatever the peer writes to shared memory cannot change them.
//! - The peer's index is checked on every read. One that is out of range gives
//!   [`RingError::Corrupt`], from then on for every call.
//! - An entry is copied once, word by word, and only the copy is looked at. A peer that changes it
//!   during the copy gives itself a torn entry and nobody undefined behaviour.
//! - A doorbell is due only when [`Producer::publish`] says so: once for each time that the
//!   consumer armed.
#![cfg_attr(not(any(test, loom)), no_std)]

#[cfg(not(loom))]
extern crate alloc;

mod layout;
mod memory;
#[cfg(all(test, loom))]
mod model;
mod ring;
#[cfg(all(test, not(loom)))]
mod tests;

pub use layout::{Layout, LayoutError};
#[cfg(not(loom))]
pub use memory::HeapMemory;
pub use memory::Memory;
#[cfg(loom)]
pub use memory::ModelMemory;
pub use ring::{Consumer, Entry, Producer, PushError, RingError};
