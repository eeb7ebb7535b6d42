//! One fault after the other: what it did to the driver and to the load, and how long it took until both were well.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use proto::devmgr::{DeviceTreeClient, DriverAdminClient, NodeState, NodeSummary};
use proto::proc::ProcessesClient;
use rt::{Deadline, time};

use crate::mailbox::{Mailbox, Order};

/// A line for the host, at once.
macro_rules! tell {
    ($($text:tt)*) => {{
        rt::println!($($text)*);
        rt::io::flush().map_err(|e| format!("output: {e}"))?;
    }};
}

/// Between two looks at the device tree.
const LOOK: Duration = Duration::from_micros(500);
/// A load that gets no answer for this long is stalled.
const STALL_NS: u64 = 60_000_000;
/// Shorter pauses are ordinary.
const PAUSE_NS: u64 = 10_000_000;
/// The longest that a stalled load is watched: somebody has to notice before.
const STALLED_LIMIT_S: u64 = 8;
/// A driver that is not back after this time, with the load going on, will not come back by itself.
const BACK_LIMIT_S: u64 = 30;
/// Turns of the load, of up to as many answers as it has requests in flight, that show that it goes on.
const TURNS: u64 = 8;

/// Between the load and the injector.
#[derive(Default)]
pub struct Shared {
    /// Turns of the load.
    pub completed: AtomicU64,
    /// Requests that failed.
    pub failed: AtomicU64,
    /// Blocks that were wrong.
    pub wrong: AtomicU64,
    /// Sessions that failed for good.
    pub lost: AtomicU64,
    /// The load is to look at every block; it clears this when it has.
    pub check: AtomicBool,
    /// The load is to end.
    pub over: AtomicBool,
}

/// What was seen of a fault.
#[derive(Default)]
struct Seen {
    /// The driver ended.
    died: bool,
    /// Nanoseconds from the fault to when that was seen.
    latency_ns: u64,
    /// Why it ended, as the device manager has it.
    reason: String,
    /// The load got no answers for a while.
    stalled: bool,
}

/// The injector's thread.
pub struct Injector {
    /// The device tree.
    pub tree: DeviceTreeClient,
    /// Authority over drivers, for those that do not come back.
    pub admin: DriverAdminClient,
    /// Authority to kill.
    pub processes: ProcessesClient,
    /// The host.
    pub mailbox: Mailbox,
    /// Node of the driver.
    pub node: String,
    /// The load.
    pub shared: Arc<Shared>,
}

impl Injector {
    /// Serves the host until it has enough.
    ///
    /// # Errors
    /// When something that is not under test fails.
    pub fn run(mut self) -> Result<(), String> {
        let result = self.serve();
        self.shared.over.store(true, Ordering::Release);
        result
    }

    fn serve(&mut self) -> Result<(), String> {
        loop {
            let Some(node) = self.back(0) else {
                tell!("result stuck=1 reason={}", self.summary()?.state.text());
                return Err("the driver is not in service".to_string());
            };
            tell!("ready epoch={}", node.epoch);
            let before = self.counts();
            let (mut seen, mut under, mut trapped) = (Seen::default(), node.epoch, false);
            loop {
                let order = self.mailbox.next()?;
                match order {
                    Order::Probe(us) => {
                        let reached = self.watch(node.epoch, Duration::from_micros(us))?;
                        trapped = reached.died;
                        tell!("seen died={}", u8::from(trapped));
                        continue;
                    }
                    Order::Quit => return Ok(()),
                    Order::Recover => break,
                    Order::Kill(times) => {
                        self.kill(node.epoch, times)?;
                        seen = self.watch(node.epoch, Duration::from_secs(1))?;
                    }
                    Order::Watch(us) => seen = self.watch(node.epoch, Duration::from_micros(us))?,
                    Order::Restart(us) => {
                        self.kill(node.epoch, 1)?;
                        self.started_after(node.epoch)?;
                        seen = self.watch(node.epoch + 1, Duration::from_micros(us))?;
                        under = node.epoch + 1;
                    }
                }
                tell!("seen died={}", u8::from(seen.died));
            }
            // What starts from now on has nothing of the fault.
            let (healed, recovering) = (self.summary()?, time::now_ns());
            let back = self.back(if seen.died || trapped { under } else { 0 });
            let recovered_ns = time::now_ns() - recovering;
            let (mut recovered, mut back) = (u8::from(back.is_some()), back);
            if back.is_none() {
                // A person would try this.
                let _ = match healed.state {
                    NodeState::Running => self.admin.restart(self.node.as_str()),
                    _ => self.admin.start(self.node.as_str()),
                };
                back = self.back(0);
                recovered = 0;
            }
            // What a fault left behind in the driver must not be taken for the next one's doing.
            let fresh = back.and_then(|node| {
                if node.epoch > healed.epoch {
                    return Some(node);
                }
                self.processes.kill(node.pid?, 9).ok();
                self.back(node.epoch)
            });
            let checked = fresh.is_some() && self.check();
            let after = self.counts();
            tell!(
                "result died={} latency-us={} stalled={} recovered={recovered} recover-us={} stuck={} failed={} wrong={} lost={} reason={}",
                u8::from(seen.died),
                seen.latency_ns / 1000,
                u8::from(seen.stalled),
                recovered_ns / 1000,
                u8::from(!checked),
                after[0] - before[0],
                after[1] - before[1],
                after[2] - before[2],
                seen.reason.lines().next().unwrap_or_default(),
            );
            if !checked {
                return Err("the driver or the load did not come back".to_string());
            }
        }
    }

    fn counts(&self) -> [u64; 3] {
        let shared = &self.shared;
        [&shared.failed, &shared.wrong, &shared.lost].map(|count| count.load(Ordering::Relaxed))
    }

    fn summary(&self) -> Result<NodeSummary, String> {
        let info = self.tree.node(self.node.as_str());
        Ok(info.map_err(|e| format!("devmgr: {e}"))?.summary)
    }

    /// Waits until an incarnation after `epoch` is under way.
    fn started_after(&self, epoch: u32) -> Result<(), String> {
        let limit = Deadline::after_secs(BACK_LIMIT_S);
        while self.summary()?.epoch <= epoch && !limit.has_passed() {
            time::sleep(LOOK);
        }
        Ok(())
    }

    /// Watches until the window is over, or the driver has ended, or a stalled load has been for too long.
    fn watch(&self, epoch: u32, window: Duration) -> Result<Seen, String> {
        let started = time::now_ns();
        let mut end = Deadline::after(window);
        let stalled_end = Deadline::after_secs(STALLED_LIMIT_S);
        let mut seen = Seen::default();
        let mut last = (self.shared.completed.load(Ordering::Relaxed), started);
        loop {
            let node = self.summary()?;
            let now = time::now_ns();
            let alive = matches!(
                node.state,
                NodeState::Loaded | NodeState::Starting | NodeState::Running
            );
            if node.epoch != epoch || !alive {
                seen.died = true;
                seen.latency_ns = now - started;
                seen.reason = node.reason.unwrap_or_default();
                return Ok(seen);
            }
            let completed = self.shared.completed.load(Ordering::Relaxed);
            if completed != last.0 {
                last = (completed, now);
            } else if now - last.1 > STALL_NS {
                // Until somebody notices, or it goes on.
                seen.stalled = true;
                end = Deadline::after(window);
            }
            // A load that has just fallen silent may be about to stall.
            if (end.has_passed() && now - last.1 < PAUSE_NS) || stalled_end.has_passed() {
                return Ok(seen);
            }
            time::sleep(LOOK);
        }
    }

    /// Ends the driver of that incarnation, and its successors while they start.
    fn kill(&self, mut epoch: u32, times: u64) -> Result<(), String> {
        let limit = Deadline::after_secs(BACK_LIMIT_S);
        for _ in 0..times.max(1) {
            loop {
                let node = self.summary()?;
                if node.epoch >= epoch
                    && let Some(pid) = node.pid
                    && self.processes.kill(pid, 9).is_ok()
                {
                    epoch = node.epoch + 1;
                    break;
                }
                if limit.has_passed() {
                    return Ok(());
                }
                time::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    /// Waits until an incarnation after `epoch` serves and the load goes on; `None` when it does not.
    fn back(&self, epoch: u32) -> Option<NodeSummary> {
        let limit = Deadline::after_secs(BACK_LIMIT_S);
        let mut seen: Option<(u32, u64)> = None;
        while !limit.has_passed() {
            let node = self.summary().ok()?;
            let completed = self.shared.completed.load(Ordering::Relaxed);
            if node.state == NodeState::Quarantined || node.state == NodeState::Failed {
                return None;
            }
            if node.state == NodeState::Running && node.epoch > epoch {
                match seen {
                    Some((epoch, since)) if epoch == node.epoch => {
                        if completed.saturating_sub(since) >= TURNS {
                            return Some(node);
                        }
                    }
                    _ => seen = Some((node.epoch, completed)),
                }
            }
            time::sleep(LOOK);
        }
        None
    }

    /// Has the load look at every block.
    fn check(&self) -> bool {
        let limit = Deadline::after_secs(BACK_LIMIT_S);
        self.shared.check.store(true, Ordering::Release);
        while self.shared.check.load(Ordering::Acquire) {
            if limit.has_passed() {
                return false;
            }
            time::sleep(LOOK);
        }
        true
    }
}
