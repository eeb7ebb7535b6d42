//! Network interfaces at the homes of a host.

mod device;
mod host_nic;
mod qtest;
mod sim;

pub use qtest::{Model, NicQtest};
pub use sim::{E1000Sim, VirtioNetSim};

use ddk_conformance_net::{Cutting, Offloads};

/// QEMU's virtio device. What it offers depends on what the wire can, which for datagrams is nothing.
pub const VIRTIO_NET: Model = Model {
    plain: "virtio-net-pci,disable-legacy=on",
    bare: Some(
        "virtio-net-pci,mrg_rxbuf=off,ctrl_vq=off,ctrl_rx=off,ctrl_mac_addr=off,\
         ctrl_guest_offloads=off,event_idx=off,indirect_desc=off,vectors=1",
    ),
    offloads: None,
    checks_sums: false,
    cutting: Cutting::Right,
};

/// QEMU's 82540EM, which does not look at received checksums.
pub const I82540EM: Model = Model {
    plain: "e1000",
    bare: None,
    offloads: Some(I82540EM_OFFLOADS),
    checks_sums: false,
    cutting: Cutting::EmptyLast,
};

/// QEMU's 82574L: without help of the wire, versions before 8.0 cut into fragments.
pub const I82574L: Model = Model {
    plain: "e1000e",
    bare: None,
    offloads: Some(I82574L_OFFLOADS),
    checks_sums: true,
    cutting: Cutting::Fragments,
};

/// What the driver has the 82540EM do.
const I82540EM_OFFLOADS: Offloads = Offloads::TX_CHECKSUM
    .union(Offloads::TX_TCP4)
    .union(Offloads::RX_CHECKSUM);
/// What it has the 82574L do.
const I82574L_OFFLOADS: Offloads = I82540EM_OFFLOADS.union(Offloads::TX_TCP6);
