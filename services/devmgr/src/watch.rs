//! Watching over drivers in service: heartbeats, and what follows a driver's end.

use alloc::format;

use devmgr::binding;
use devmgr::node::NodeEvent;
use devmgr::restart::{self, Verdict};
use proto::devmgr::{DriverPolicy, NodeState};
use rt::Deadline;
use rt::time::now_ns;

use crate::manager::{Manager, Node, Wanted};

/// The heartbeats of one incarnation.
#[derive(Default)]
pub struct Heartbeat {
    beat: u32,
    awaited: bool,
    /// When the next one is sent, or the answer is overdue; `None` until the driver is in service.
    next: Option<Deadline>,
}

impl Heartbeat {
    /// The driver is in service: the first one is due after a pause.
    pub fn due(policy: &DriverPolicy) -> Heartbeat {
        Heartbeat {
            next: Some(Deadline::after_ms(policy.heartbeat_ms.into())),
            ..Heartbeat::default()
        }
    }

    /// An answer came; one to an older beat does not count.
    pub fn answered(&mut self, beat: u32, policy: &DriverPolicy) {
        if self.awaited && beat == self.beat {
            self.awaited = false;
            self.next = Some(Deadline::after_ms(policy.heartbeat_ms.into()));
        }
    }
}

impl Node {
    /// The policy in force: that set by hand, or the manifest's.
    pub fn policy(&self, drivers: &[binding::Driver]) -> DriverPolicy {
        let manifest = self.driver.and_then(|d| drivers.get(d)).map(|d| d.manifest);
        let restart = match manifest {
            Some(m) if m.restart == ddk_manifest::RestartPolicy::NEVER => restart::NEVER,
            _ => restart::DEFAULT_RULES,
        };
        self.policy.unwrap_or(DriverPolicy {
            restart,
            ..restart::DEFAULT_POLICY
        })
    }
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

impl Manager {
    /// When a heartbeat is to be sent or overdue.
    pub fn next_heartbeat(&self) -> Deadline {
        let beats = self
            .nodes
            .iter()
            .filter_map(|n| n.held.as_ref()?.heartbeat.next);
        beats.fold(Deadline::FOREVER, Deadline::min)
    }

    /// Sends heartbeats that are due, and ends drivers that did not answer theirs.
    pub fn check_heartbeats(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(index) else {
                continue;
            };
            let silence_ms = node.policy(&self.drivers).silence_ms;
            let Some(held) = &mut node.held else { continue };
            let heartbeat = &mut held.heartbeat;
            if !heartbeat.next.is_some_and(Deadline::has_passed) {
                continue;
            }
            if heartbeat.awaited {
                node.ending = Some(format!(
                    "no heartbeat for {} s",
                    f64::from(silence_ms) / 1000.0
                ));
                self.teardown(index, NodeEvent::Failed);
                continue;
            }
            heartbeat.beat = heartbeat.beat.wrapping_add(1);
            heartbeat.awaited = true;
            heartbeat.next = Some(Deadline::after_ms(silence_ms.into()));
            // A driver that is gone is told of by its process.
            let _ = held.control.ping(heartbeat.beat);
        }
    }

    /// The node's driver is gone and its device fenced, or not: what comes next.
    pub fn after_end(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        match (node.state, node.wanted) {
            (NodeState::Failed | NodeState::Stopped, Wanted::Again) => {
                node.wanted = Wanted::Serving;
                node.restart_at = Some(Deadline::after_ms(0));
                self.transition(index, NodeEvent::Restart);
            }
            (NodeState::Failed, Wanted::Serving) => {
                let (rules, now) = (node.policy(&self.drivers).restart, now_ms());
                match node.history.died(&rules, now) {
                    Verdict::RestartAt(at) => {
                        node.restart_at = Some(Deadline::after_ms(at.saturating_sub(now)));
                        self.transition(index, NodeEvent::Restart);
                    }
                    // It has no restarts: it failed, no more.
                    Verdict::GiveUp if rules.budget == 0 => {}
                    Verdict::GiveUp => {
                        let why = format!(
                            "{}; given up after {} restarts in {} s",
                            node.reason.take().unwrap_or_default(),
                            rules.budget,
                            rules.window_ms / 1000
                        );
                        rt::error!("{}: {why}", node.path);
                        node.reason = Some(why);
                        self.transition(index, NodeEvent::GivenUp);
                    }
                }
            }
            _ => {}
        }
    }

    /// Starts the drivers whose time has come.
    pub fn start_due(&mut self) {
        for index in 0..self.nodes.len() {
            let due = |node: &&mut Node| node.restart_at.is_some_and(Deadline::has_passed);
            let Some(node) = self.nodes.get_mut(index).filter(due) else {
                continue;
            };
            node.restart_at = None;
            match binding::candidates(&self.drivers, &node.device).1 {
                Some(choice) => self.start(index, choice),
                None => {
                    node.reason = Some("no driver matches any more".into());
                    self.transition(index, NodeEvent::Stopped);
                }
            }
        }
    }
}
