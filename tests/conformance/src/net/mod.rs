//! Network interfaces at the homes of a host.

mod device;
mod host_nic;
mod sim;

pub use sim::VirtioNetSim;
