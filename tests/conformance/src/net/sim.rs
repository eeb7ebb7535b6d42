//! The simulator's home: drivers over models of their devices, whose wire the test holds.

mod e1000;
mod virtio_net;

pub use e1000::E1000Sim;
pub use virtio_net::VirtioNetSim;

use std::collections::VecDeque;

/// Address of the modelled devices.
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// CPUs of the machine.
const CPUS: usize = 4;

/// Frames that were sent and that nobody has looked at yet.
#[derive(Default)]
struct OnWire(VecDeque<Vec<u8>>);

impl OnWire {
    /// The next one, after those that have just been sent were added.
    fn next(&mut self, sent: impl IntoIterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
        self.0.extend(sent);
        self.0.pop_front()
    }
}
