//! Watching over drivers in service: heartbeats, interrupts that storm, devices that go astray.

use alloc::format;
use alloc::string::String;

use devmgr::binding;
use devmgr::life::Event;
use devmgr::restart;
use proto::crash_report::EndReason;
use proto::devmgr::DriverPolicy;
use proto::wire::Wire;
use rt::{AsHandle, Deadline, DmaDomain, Error, Interrupt, Port, Signals, Watch};

use crate::manager::{Manager, Node};

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

    /// It is to stop, or is gone: no more of them.
    pub fn end(&mut self) {
        *self = Heartbeat::default();
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
        let manifest = self
            .life
            .current()
            .and_then(|p| drivers.get(p.0 as usize))
            .map(|d| d.manifest);
        let restart = match manifest {
            Some(m) if m.restart == ddk_manifest::RestartPolicy::NEVER => restart::NEVER,
            _ => restart::DEFAULT_RULES,
        };
        let is_called =
            |name: &str| name == self.path || manifest.is_some_and(|m| m.name() == name);
        self.policy.unwrap_or_else(|| DriverPolicy {
            restart,
            trace: rt::startup::env("BULKHEAD_TRACE")
                .is_some_and(|names| names.split(',').any(is_called)),
            wire: rt::startup::env("BULKHEAD_WIRE").and_then(|text| wire_of(text, is_called)),
            ..restart::DEFAULT_POLICY
        })
    }
}

/// The wire of a driver in a list of the form `NAME=WIRE;...`.
fn wire_of(list: &str, is_called: impl Fn(&str) -> bool) -> Option<Wire> {
    let mut entries = list.split(';').filter_map(|entry| entry.split_once('='));
    let (name, text) = entries.find(|(name, _)| is_called(name))?;
    Wire::parse(text).unwrap_or_else(|error| {
        rt::warn!("wire={name}={error}");
        None
    })
}

/// Has the port tell of interrupts that fire on and on while the driver serves none.
///
/// # Errors
/// When the port has no room.
pub fn watch_interrupts(interrupts: &[Interrupt], port: &Port, key: u64) -> Result<(), Error> {
    let mut all = interrupts.iter();
    all.try_for_each(|i| i.wait_async(port, key, Signals::SIGNALED, Watch::Once))
}

/// Has the port tell when the device is refused memory.
///
/// # Errors
/// When the port has no room.
pub fn watch_domain(domain: Option<&DmaDomain>, port: &Port, key: u64) -> Result<(), Error> {
    domain.map_or(Ok(()), |domain| {
        domain.wait_async(port, key, Signals::SIGNALED, Watch::Once)
    })
}

impl Manager {
    /// The IOMMU refused the device memory: its driver has sent it astray, and what it answers from now on is worth nothing.
    pub fn dma_refused(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            let why = String::from("its device was refused memory that the driver did not pin");
            node.ending = Some((EndReason::DmaRefused, why));
            self.happened(index, Event::Broken);
        }
    }

    /// An interrupt storms: the driver does not serve its device. The fence masks it.
    pub fn interrupt_storms(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let held = node.held.iter().flat_map(|held| &held.interrupts);
        let counts = held.filter_map(|interrupt| Some(interrupt.interrupt_info().ok()?.count));
        let most = counts.max().unwrap_or(0);
        let why = format!("interrupt storm: {most} interrupts, not served");
        node.ending = Some((EndReason::InterruptStorm, why));
        self.happened(index, Event::Broken);
    }

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
                let why = format!("no heartbeat for {} s", f64::from(silence_ms) / 1000.0);
                node.ending = Some((EndReason::NoHeartbeat, why));
                self.happened(index, Event::Broken);
                continue;
            }
            heartbeat.beat = heartbeat.beat.wrapping_add(1);
            heartbeat.awaited = true;
            heartbeat.next = Some(Deadline::after_ms(silence_ms.into()));
            // A driver that is gone is told of by its process.
            let _ = held.control.ping(heartbeat.beat);
        }
    }
}
