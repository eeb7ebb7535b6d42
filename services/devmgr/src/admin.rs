//! Answers to administrators (`drv:`): starting, stopping and restarting drivers, and the rules for it.

use alloc::string::{String, ToString};

use devmgr::node::{self, Device, NodeEvent};
use proto::devmgr::{
    DevError, DriverAdminRequest, DriverAdminRestartReply, DriverAdminStartReply,
    DriverAdminStopReply, DriverPolicy, NodeState,
};
use rt::Deadline;
use rt::ipc::Server;
use rt::time::now_ns;

use crate::manager::{BATCH, KEY_DRV, Manager, STOP_LIMIT_S, Wanted};
use crate::serve::WAITING_MAX;

/// An administrator who waits for a node to get where it was sent.
pub enum AdminReply {
    Start(DriverAdminStartReply),
    Stop(DriverAdminStopReply),
    Restart(DriverAdminRestartReply),
}

impl AdminReply {
    fn send(self, result: Result<(), DevError>) {
        // Who asked may be gone.
        let _ = match self {
            AdminReply::Start(reply) => reply.send(result),
            AdminReply::Stop(reply) => reply.send(result),
            AdminReply::Restart(reply) => reply.send(result),
        };
    }
}

fn not_yet() -> DevError {
    DevError::Failed(String::from("not supported yet"))
}

fn not_a_device() -> DevError {
    DevError::Invalid(String::from("node: no driver can be bound to it"))
}

impl Manager {
    /// Serves a batch of `drv:`.
    pub fn serve_admin(&mut self) {
        let server = self.admin_server.clone();
        for _ in 0..BATCH {
            let Ok(Some(request)) = server.try_next() else {
                return;
            };
            match request {
                DriverAdminRequest::Start { path, reply } => {
                    let asked = self.ask_start(&path);
                    self.wait_for(asked, AdminReply::Start(reply));
                }
                DriverAdminRequest::Stop { path, reply } => {
                    let asked = self.ask_stop(&path, Wanted::Stopped);
                    self.wait_for(asked, AdminReply::Stop(reply));
                }
                DriverAdminRequest::Restart { path, reply } => {
                    let asked = self.ask_restart(&path);
                    self.wait_for(asked, AdminReply::Restart(reply));
                }
                DriverAdminRequest::Policy { path, reply } => {
                    let _ = match self.policy(&path) {
                        Ok((policy, deaths)) => reply.ok(policy, deaths),
                        Err(error) => reply.error(&error),
                    };
                }
                DriverAdminRequest::SetPolicy {
                    path,
                    policy,
                    reply,
                } => {
                    let _ = reply.send(self.set_policy(&path, policy));
                }
                DriverAdminRequest::Reload { reply, .. } => {
                    let _ = reply.error(not_yet());
                }
                DriverAdminRequest::Suspend { reply, .. } => {
                    let _ = reply.error(not_yet());
                }
                DriverAdminRequest::Resume { reply, .. } => {
                    let _ = reply.error(not_yet());
                }
                DriverAdminRequest::Load { reply, .. } => {
                    let _ = reply.error(not_yet());
                }
                DriverAdminRequest::Unload { reply, .. } => {
                    let _ = reply.error(not_yet());
                }
                DriverAdminRequest::Programs { reply } => {
                    let _ = reply.error(not_yet());
                }
            }
        }
        self.again(KEY_DRV);
    }

    fn wait_for(&mut self, asked: Result<usize, DevError>, reply: AdminReply) {
        match asked {
            Ok(_) if self.admin_replies.len() >= WAITING_MAX => {
                reply.send(Err(DevError::NoResources));
            }
            Ok(index) => self.admin_replies.push((index, reply)),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// The place of a node that a driver can be bound to.
    fn device_at(&self, path: &str) -> Result<usize, DevError> {
        let index = self.place(path).ok_or(DevError::NotFound)?;
        match self.nodes.get(index).map(|n| &n.device) {
            None | Some(Device::Bus { .. }) => Err(not_a_device()),
            Some(Device::Pci(info)) if info.buses.is_some() => Err(not_a_device()),
            Some(_) => Ok(index),
        }
    }

    fn ask_start(&mut self, path: &str) -> Result<usize, DevError> {
        let index = self.device_at(path)?;
        let node = self.nodes.get_mut(index).ok_or(DevError::NotFound)?;
        if node.unfenced {
            let why = "the device could not be fenced: only a reset of the machine makes it safe";
            return Err(DevError::Failed(why.to_string()));
        }
        node.wanted = Wanted::Serving;
        node.history.forget();
        match node.state {
            NodeState::Unbound => {
                let choice = devmgr::binding::candidates(&self.drivers, &node.device).1;
                let none = || DevError::Failed(String::from("no driver matches; see `why`"));
                self.start(index, choice.ok_or_else(none)?);
            }
            NodeState::Quarantined => {
                self.transition(index, NodeEvent::Readmitted);
                self.start_now(index);
            }
            NodeState::Stopped | NodeState::Failed => self.start_now(index),
            // Its pause is cut short.
            NodeState::Restarting => node.restart_at = Some(Deadline::after_ms(0)),
            NodeState::Stopping => node.wanted = Wanted::Again,
            _ => {}
        }
        Ok(index)
    }

    fn start_now(&mut self, index: usize) {
        self.transition(index, NodeEvent::Restart);
        if let Some(node) = self.nodes.get_mut(index) {
            node.restart_at = Some(Deadline::after_ms(0));
        }
    }

    fn ask_stop(&mut self, path: &str, wanted: Wanted) -> Result<usize, DevError> {
        let index = self.device_at(path)?;
        let node = self.nodes.get_mut(index).ok_or(DevError::NotFound)?;
        node.wanted = wanted;
        if node.state == NodeState::Restarting {
            node.restart_at = None;
            self.transition(index, NodeEvent::Stopped);
        } else if node::has_process(node.state) && node.state != NodeState::Stopping {
            if let Some(held) = &mut node.held {
                node.ending = Some(String::from("stopped"));
                held.limit = Some(Deadline::after_secs(STOP_LIMIT_S));
                // One that is gone is told of by its process, one that hangs by the limit.
                let _ = held.control.stop();
            }
            self.transition(index, NodeEvent::StopAsked);
        }
        Ok(index)
    }

    fn ask_restart(&mut self, path: &str) -> Result<usize, DevError> {
        let index = self.device_at(path)?;
        let running = self
            .nodes
            .get(index)
            .is_some_and(|n| node::has_process(n.state));
        if running {
            self.ask_stop(path, Wanted::Again)
        } else {
            self.ask_start(path)
        }
    }

    fn policy(&self, path: &str) -> Result<(DriverPolicy, u32), DevError> {
        let node = self.nodes.get(self.device_at(path)?);
        let node = node.ok_or(DevError::NotFound)?;
        let policy = node.policy(&self.drivers);
        let deaths = node.history.deaths(&policy.restart, now_ns() / 1_000_000);
        Ok((policy, deaths))
    }

    fn set_policy(&mut self, path: &str, policy: DriverPolicy) -> Result<(), DevError> {
        let index = self.device_at(path)?;
        if policy.restart.pause_min_ms > policy.restart.pause_max_ms {
            let what = "rules: the shortest pause is longer than the longest";
            return Err(DevError::Invalid(what.to_string()));
        }
        if let Some(node) = self.nodes.get_mut(index) {
            node.policy = Some(policy);
        }
        Ok(())
    }

    /// Answers administrators whose nodes are where they were sent.
    pub fn answer_admin(&mut self) {
        let mut at = 0;
        while let Some((index, reply)) = self.admin_replies.get(at) {
            let node = self.nodes.get(*index);
            let state = node.map_or(NodeState::Unbound, |n| n.state);
            let result = match reply {
                AdminReply::Stop(_) if node::is_over(state) => Some(Ok(())),
                AdminReply::Start(_) | AdminReply::Restart(_) if state == NodeState::Running => {
                    Some(Ok(()))
                }
                AdminReply::Start(_) | AdminReply::Restart(_) if node::is_over(state) => {
                    let reason = node.and_then(|n| n.reason.clone());
                    Some(Err(DevError::Failed(reason.unwrap_or_default())))
                }
                _ => None,
            };
            match result {
                Some(result) => self.admin_replies.swap_remove(at).1.send(result),
                None => at = at.saturating_add(1),
            }
        }
    }
}
