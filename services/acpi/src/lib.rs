//! ACPI without the machine: static tables, the definitions in the AML tables, and the register writes
//! that switch the machine off.
//!
//! AML is read, not run: [`aml`] walks definitions (scopes, devices, names with constant values), which is
//! what `_S5` and the host bridge's `_CRS` are. The existing interpreter crates need a nightly compiler or
//! hand out raw pointers into the tables.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod aml;
pub mod power;
pub mod resources;
pub mod tables;
