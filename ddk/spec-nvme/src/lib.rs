//! Definitions of NVM Express: registers, queue entries, commands, data structures and status codes.
//!
//! Section numbers are those of the base specification, revision 1.4, which still holds the NVM command set; 2.0
//! moved that to a document of its own and kept every layout used here. All structures are little-endian. This
//! crate holds numbers and layouts only: no access to devices, no policy.
#![no_std]
#![forbid(unsafe_code)]

pub mod command;
pub mod entry;
pub mod event;
pub mod identify;
pub mod register;
pub mod status;

/// PCI class, subclass and programming interface of a controller with the NVM I/O command set (2.1.4).
pub const PCI_CLASS: [u8; 3] = [0x01, 0x08, 0x02];

/// Identifier of the admin queue pair (4.1.3).
pub const ADMIN_QUEUE: u16 = 0;

/// A namespace identifier that names all namespaces (6.1.2).
pub const NSID_ALL: u32 = 0xffff_ffff;

/// Bytes of the structures that Identify answers with (5.15).
pub const IDENTIFY_BYTES: usize = 4096;
