//! Answers to administrators (`drv:`): starting, stopping and restarting drivers, and the rules for it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::life::{Event, Phase, Program, Refused};
use devmgr::node;
use proto::devmgr::{
    DevError, DriverAdminRequest, DriverAdminRestartReply, DriverAdminResumeReply,
    DriverAdminStartReply, DriverAdminStopReply, DriverAdminSuspendReply, DriverAdminUnloadReply,
    DriverPolicy,
};
use rt::ipc::Server;
use rt::time::now_ns;

use crate::manager::{BATCH, KEY_DRV, Manager, Node, program_of};
use crate::serve::WAITING_MAX;

/// An administrator who waits for a node to get where it was sent.
pub enum AdminReply {
    Start(DriverAdminStartReply),
    Stop(DriverAdminStopReply),
    Restart(DriverAdminRestartReply),
    Suspend(DriverAdminSuspendReply),
    Resume(DriverAdminResumeReply),
}

impl AdminReply {
    fn send(self, result: Result<(), DevError>) {
        // Who asked may be gone.
        let _ = match self {
            AdminReply::Start(reply) => reply.send(result),
            AdminReply::Stop(reply) => reply.send(result),
            AdminReply::Restart(reply) => reply.send(result),
            AdminReply::Suspend(reply) => reply.send(result),
            AdminReply::Resume(reply) => reply.send(result),
        };
    }

    /// What to answer for a node like this; `None` while it is on its way.
    fn outcome(&self, node: &Node) -> Option<Result<(), DevError>> {
        let reason = || {
            let why = node.pause_problem.clone().or_else(|| node.reason.clone());
            Err(DevError::Failed(why.unwrap_or_default()))
        };
        let (phase, over) = (node.life.phase(), node::is_over(node.state()));
        match self {
            AdminReply::Stop(_) => over.then_some(Ok(())),
            AdminReply::Start(_) | AdminReply::Restart(_) => match phase {
                Phase::Running => Some(Ok(())),
                _ => over.then(reason),
            },
            AdminReply::Suspend(_) => match phase {
                Phase::Suspending => None,
                Phase::Suspended => Some(Ok(())),
                _ => Some(reason()),
            },
            AdminReply::Resume(_) => match phase {
                Phase::Resuming => None,
                Phase::Running => Some(Ok(())),
                _ => Some(reason()),
            },
        }
    }
}

/// Somebody who waits for a program to be unloaded.
pub struct Unloading {
    program: Program,
    nodes: Vec<usize>,
    reply: DriverAdminUnloadReply,
}

fn not_a_device() -> DevError {
    DevError::Invalid(String::from("node: no driver can be bound to it"))
}

/// Why a node does not do what was asked, for people.
pub fn refusal(refused: Refused) -> DevError {
    let why = match refused {
        Refused::Absent => return DevError::NotFound,
        Refused::Unfenced => {
            "the device could not be fenced: only a reset of the machine makes it safe"
        }
        Refused::NotRunning => return DevError::NotRunning,
        Refused::Busy => "it has a driver, which is to be stopped first",
    };
    DevError::Failed(why.to_string())
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
                    let asked = self.ask(&path, Event::Stop);
                    self.wait_for(asked, AdminReply::Stop(reply));
                }
                DriverAdminRequest::Restart { path, reply } => {
                    let asked = self.ask_restart(&path);
                    self.wait_for(asked, AdminReply::Restart(reply));
                }
                DriverAdminRequest::Suspend { path, reply } => {
                    let asked = self.ask(&path, Event::Suspend);
                    self.wait_for(asked, AdminReply::Suspend(reply));
                }
                DriverAdminRequest::Resume { path, reply } => {
                    let asked = self.ask(&path, Event::Resume);
                    self.wait_for(asked, AdminReply::Resume(reply));
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
                DriverAdminRequest::Reload {
                    path,
                    length,
                    program,
                    reply,
                } => {
                    let program = program.map(|vmo| (length, vmo));
                    self.reload(&path, program, reply);
                }
                DriverAdminRequest::Load {
                    name,
                    length,
                    program,
                    reply,
                } => {
                    let _ = match self.load(&name, length, &program) {
                        Ok(info) => reply.ok(&info),
                        Err(error) => reply.error(&error),
                    };
                }
                DriverAdminRequest::Unload { name, reply } => match self.begin_unload(&name) {
                    Ok((program, nodes)) => self.unloadings.push(Unloading {
                        program,
                        nodes,
                        reply,
                    }),
                    Err(error) => {
                        let _ = reply.error(&error);
                    }
                },
                DriverAdminRequest::Programs { reply } => {
                    let _ = reply.ok(self.programs());
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
    pub fn device_at(&self, path: &str) -> Result<usize, DevError> {
        let index = self.place(path).ok_or(DevError::NotFound)?;
        match self.nodes.get(index) {
            Some(node) if node.served_by_bus.is_none() && node.device.identity().is_some() => {
                Ok(index)
            }
            _ => Err(not_a_device()),
        }
    }

    fn ask(&mut self, path: &str, event: Event) -> Result<usize, DevError> {
        let index = self.device_at(path)?;
        self.event(index, event).map_err(refusal)?;
        Ok(index)
    }

    fn ask_start(&mut self, path: &str) -> Result<usize, DevError> {
        let index = self.device_at(path)?;
        let node = self.nodes.get(index).ok_or(DevError::NotFound)?;
        let none = || DevError::Failed(String::from("no driver matches; see `why`"));
        let program = match node.life.current() {
            Some(program) => program,
            None => {
                let choice = devmgr::binding::candidates(&self.drivers, &node.device).1;
                program_of(choice.ok_or_else(none)?.driver)
            }
        };
        self.ask(path, Event::Start(program))
    }

    fn ask_restart(&mut self, path: &str) -> Result<usize, DevError> {
        match self.ask(path, Event::Restart) {
            Err(DevError::NotRunning) => self.ask_start(path),
            other => other,
        }
    }

    fn policy(&self, path: &str) -> Result<(DriverPolicy, u32), DevError> {
        let node = self.nodes.get(self.device_at(path)?);
        let node = node.ok_or(DevError::NotFound)?;
        let policy = node.policy(&self.drivers);
        let deaths = node
            .life
            .history()
            .deaths(&policy.restart, now_ns() / 1_000_000);
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
            let outcome = match self.nodes.get(*index) {
                Some(node) => reply.outcome(node),
                None => Some(Err(DevError::NotFound)),
            };
            match outcome {
                Some(outcome) => self.admin_replies.swap_remove(at).1.send(outcome),
                None => at = at.saturating_add(1),
            }
        }
        for unloading in core::mem::take(&mut self.unloadings) {
            if self.unloaded(unloading.program, &unloading.nodes) {
                let _ = unloading.reply.ok();
            } else {
                self.unloadings.push(unloading);
            }
        }
    }
}
