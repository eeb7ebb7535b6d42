//! Kills the driver of a disk again and again, at random moments of its life.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use proto::devmgr::{DeviceTreeClient, NodeState};
use proto::proc::ProcessesClient;
use rt::{Deadline, time};

use test_endurance::random::Random;

/// A driver that is not back after this time will not come back.
const BACK_LIMIT_S: u64 = 60;
/// Between two looks at the device tree.
const LOOK: Duration = Duration::from_micros(500);

/// What it does.
pub struct Killer {
    /// The device tree.
    pub tree: DeviceTreeClient,
    /// Authority to kill.
    pub processes: ProcessesClient,
    /// Node of the driver.
    pub node: String,
    /// Deaths.
    pub kills: u32,
    /// Longest life of an incarnation before it is killed.
    pub longest_life: Duration,
    /// One death in so many comes while the driver starts.
    pub early_one_in: u32,
    /// Where chance comes from.
    pub random: Random,
}

impl Killer {
    /// Does it; gives the number of processes that it ended.
    ///
    /// # Errors
    /// When the driver does not come back.
    pub fn run(mut self) -> Result<u32, String> {
        let (mut last, mut ended) = (0, 0);
        for death in 0..self.kills {
            let early = self.random.below(u64::from(self.early_one_in)) == 0;
            let (epoch, pid) = self
                .next_incarnation(last, early)
                .map_err(|why| format!("after {death} deaths: {why}"))?;
            last = epoch;
            let longest = self.longest_life.as_micros() as u64;
            let life = if early { longest / 16 } else { longest };
            time::sleep(Duration::from_micros(self.random.below(life.max(1))));
            // One that ended by itself meanwhile was not killed.
            if self.processes.kill(pid, 9).is_ok() {
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Waits for an incarnation after `last` that serves, or only runs if `early`.
    fn next_incarnation(&self, last: u32, early: bool) -> Result<(u32, u64), String> {
        let limit = Deadline::after_secs(BACK_LIMIT_S);
        loop {
            let node = self
                .tree
                .node(&self.node)
                .map_err(|e| format!("{e}"))?
                .summary;
            let up =
                node.state == NodeState::Running || (early && node.state == NodeState::Starting);
            if let (true, true, Some(pid)) = (node.epoch > last, up, node.pid) {
                return Ok((node.epoch, pid));
            }
            if node.state == NodeState::Quarantined || limit.has_passed() {
                let reason = node.reason.unwrap_or_default();
                return Err(format!("the driver is {}: {reason}", node.state.text()));
            }
            time::sleep(LOOK);
        }
    }
}
