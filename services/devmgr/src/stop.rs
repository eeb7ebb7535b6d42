//! Taking a device from its driver, in the order of [`devmgr::teardown`].

use alloc::format;
use alloc::string::{String, ToString};

use devmgr::node::{Device, NodeEvent};
use devmgr::teardown::{Step, Teardown};
use proto::devmgr::{Change, NodeState};
use rt::Deadline;

use crate::manager::{Held, Manager};

/// A killed process ends as soon as its threads are off their CPUs.
const END_LIMIT_S: u64 = 5;

impl Manager {
    /// A driver's process ended by itself or by another's hand.
    pub fn driver_ended(&mut self, index: usize) {
        let Some(node) = self.nodes.get(index) else {
            return;
        };
        let driver = node.driver.and_then(|d| self.drivers.get(d));
        let child = node.held.as_ref().and_then(|h| h.child.as_ref());
        let (Some(driver), Some(child)) = (driver, child) else {
            return;
        };
        let event = if node.state == NodeState::Stopping {
            NodeEvent::Stopped
        } else {
            NodeEvent::Failed
        };
        let ended = self.report_end(child, driver.manifest.name(), &driver.program);
        // A driver that said why it gives up has the better words.
        if let Some(node) = self.nodes.get_mut(index) {
            node.ending.get_or_insert(ended);
        }
        self.teardown(index, event);
    }

    /// Runs the teardown and moves the node to its end state.
    pub fn teardown(&mut self, index: usize, event: NodeEvent) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let Some(mut held) = node.held.take() else {
            self.transition(index, event);
            self.after_end(index);
            return;
        };
        let mut teardown = Teardown::new(&node.device, &held.grants);
        while let Some(step) = teardown.current() {
            let outcome = self.step(index, &mut held, step);
            teardown.finished(outcome);
        }
        // Without the fence the pages of the domain must never come back: it is kept, quarantine and all.
        if !teardown.is_fenced() {
            self.quarantine.extend(held.domain.take());
        }
        drop(held);
        let event = if teardown.is_fenced() {
            event
        } else {
            NodeEvent::GivenUp
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.teardown = teardown.log().to_vec();
            node.unfenced = !teardown.is_fenced();
            let ended = node
                .ending
                .take()
                .unwrap_or_else(|| String::from("stopped"));
            let reason = if teardown.is_fenced() {
                ended
            } else {
                format!("{ended}; the device could not be fenced")
            };
            rt::info!("{}: {reason}; {}", node.path, teardown.log().join(", "));
            node.reason = Some(reason);
        }
        self.transition(index, event);
        self.after_end(index);
        self.check_settled();
    }

    fn step(&mut self, index: usize, held: &mut Held, step: Step) -> Result<(), String> {
        let node = self.nodes.get(index).ok_or("no such node")?;
        match step {
            Step::WithdrawEndpoints => {
                let path = node.path.clone();
                for gone in self.endpoints.withdraw(&path) {
                    let name = gone.name;
                    self.tell(Some(gone.class), &Change::Removed { name });
                }
                Ok(())
            }
            Step::EndProcess => {
                let Some(child) = &held.child else {
                    return Ok(());
                };
                let running = child.try_wait().map_err(|e| e.to_string())?.is_none();
                if running {
                    child.kill().map_err(|e| e.to_string())?;
                    let limit = Deadline::after_secs(END_LIMIT_S);
                    child.wait(limit).map_err(|e| format!("kill: {e}"))?;
                }
                Ok(())
            }
            Step::Fence(step) => {
                let Device::Pci(info) = &node.device else {
                    return Ok(());
                };
                let bus = node.bus.and_then(|b| self.buses.get(b));
                let bus = bus.ok_or("no bus driver")?;
                bus.client
                    .fence(info.address, step)
                    .map_err(|e| e.to_string())
            }
            Step::CloseInterrupts => {
                held.interrupts.clear();
                Ok(())
            }
            Step::RevokeResources => {
                for resource in held.resources.drain(..) {
                    resource.revoke().map_err(|e| e.to_string())?;
                }
                Ok(())
            }
            Step::RecoverDma => match &held.domain {
                Some(domain) => domain.recover().map(|_| ()).map_err(|e| e.to_string()),
                None => Ok(()),
            },
            Step::CloseHandles => {
                held.child = None;
                Ok(())
            }
        }
    }
}
