//! The PCI bus without the machine: enumeration, BARs, capabilities, MSI-X and the fence, over a
//! [`config::ConfigSpace`].
//!
//! The process `pci` (src/main.rs) puts real configuration space below it and the protocol
//! [`proto::bus`] on top. Nothing here knows which driver serves a function.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arguments;
pub mod assign;
pub mod bar;
pub mod capability;
pub mod config;
pub mod enumerate;
pub mod fence;
pub mod filter;
pub mod hotplug;
pub mod message;
pub mod msi;
pub mod msix;
pub mod ranges;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
