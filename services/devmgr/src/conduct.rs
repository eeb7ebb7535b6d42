//! Carries out what the state machine of a node ([`devmgr::life`]) wants, and tells it what happened.
//!
//! Nothing here waits: a process, a driver and a bus driver answer with packets of the port.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};

use devmgr::life::{Action, Event, Order, Phase, Program, Refused, Safety, Timer};
use devmgr::node::Device;
use proto::bus::FenceStep;
use proto::crash_report::EndReason;
use proto::devmgr::Change;
use rt::Deadline;
use rt::time::now_ns;

use crate::manager::{Held, Manager};

impl Manager {
    /// Gives an event to a node and does what follows from it.
    ///
    /// # Errors
    /// [`Refused`], for what somebody asked.
    pub fn event(&mut self, index: usize, event: Event) -> Result<(), Refused> {
        let mut events = VecDeque::from([event]);
        let before = self.nodes.get(index).map(|n| n.state());
        while let Some(event) = events.pop_front() {
            let Some(node) = self.nodes.get_mut(index) else {
                break;
            };
            let policy = node.policy(&self.drivers);
            let (now, phase) = (now_ns(), node.life.phase());
            let actions = node.life.step(event, &policy, now / 1_000_000)?;
            let then = node.life.phase();
            node.events
                .push(now, format!("{event:?}: {phase:?} -> {then:?}"));
            for action in actions {
                events.extend(self.act(index, action));
            }
        }
        if let Some(node) = self.nodes.get(index)
            && before != Some(node.state())
        {
            let name = node.path.clone();
            self.tell(None, &Change::Changed { name });
        }
        self.check_settled();
        Ok(())
    }

    /// An event that cannot be refused.
    pub fn happened(&mut self, index: usize, event: Event) {
        if let Err(refused) = self.event(index, event) {
            rt::error!("node {index}: {event:?} is refused: {refused:?}");
        }
    }

    /// Does it; gives the event that follows at once, if one does.
    fn act(&mut self, index: usize, action: Action) -> Option<Event> {
        match action {
            Action::Launch(program) => return Some(self.launch(index, program)),
            Action::Ask(order) => self.order(index, order),
            Action::Withdraw => self.withdraw(index),
            Action::Kill => {
                let held = self.nodes.get(index)?.held.as_ref()?;
                if let Some(Err(error)) = held.child.as_ref().map(|c| c.kill()) {
                    self.log_step(index, "process killed", Err(error.to_string()));
                }
            }
            Action::Fence(step) => {
                if let Err(why) = self.begin_fence(index, step) {
                    self.log_step(index, step.text(), Err(why));
                    return Some(Event::FenceFailed(step));
                }
            }
            Action::Release(safety) => self.release(index, safety),
            Action::Arm(timer, ms) => self.set_timer(index, timer, Some(ms)),
            Action::Disarm(timer) => self.set_timer(index, timer, None),
            Action::FellBack(from, to) => self.fell_back(index, from, to),
            Action::Proven(program) => {
                rt::debug!("{} is proven", self.version_text(program));
                self.drop_unneeded();
            }
            Action::GaveUp => self.gave_up(index),
            Action::Reloaded(outcome) => self.answer_reload(index, outcome),
            Action::MayRemove => {
                let node = self.nodes.get(index)?;
                if let (Device::Pci(info), Some(bus)) = (&node.device, self.bus_of(index)) {
                    // A bus driver that is gone has nothing to switch off.
                    let _ = bus.client.release(info.address);
                }
            }
            Action::Removed => return self.removed(index),
        }
        None
    }

    fn order(&mut self, index: usize, order: Order) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let Some(held) = &mut node.held else { return };
        // One that is gone is told of by its process, one that hangs by the limit.
        let _ = match order {
            Order::Stop => held.control.stop(),
            Order::Replace => held.control.replace(),
            Order::Remove => held.control.remove(),
            Order::Suspend => held.control.suspend(),
            Order::Resume => held.control.resume(),
        };
        let why = match order {
            Order::Stop => "stopped",
            Order::Replace => "replaced",
            Order::Remove => "to be removed",
            Order::Suspend | Order::Resume => return,
        };
        node.ending = Some((EndReason::Asked, why.to_string()));
        held.heartbeat.end();
    }

    fn withdraw(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        if let Some(held) = &mut node.held {
            held.heartbeat.end();
        }
        let path = node.path.clone();
        for gone in self.endpoints.withdraw(&path) {
            let name = gone.name;
            self.tell(Some(gone.class), &Change::Removed { name });
        }
        self.log_step(index, "endpoints withdrawn", Ok(()));
    }

    /// Does it, and what follows from it.
    pub fn again_now(&mut self, index: usize, action: Action) {
        if let Some(event) = self.act(index, action) {
            self.happened(index, event);
        }
    }

    /// One more step of the present teardown.
    pub fn log_step(&mut self, index: usize, step: &str, outcome: Result<(), String>) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.teardown.push(match outcome {
                Ok(()) => step.to_string(),
                Err(why) => format!("{step}: FAILED: {why}"),
            });
        }
    }

    fn begin_fence(&mut self, index: usize, step: FenceStep) -> Result<(), String> {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let bus = self.bus_of(index).ok_or("no bus driver")?;
        let node = self.nodes.get(index).ok_or("no such node")?;
        let Device::Pci(info) = &node.device else {
            return Err(String::from("not on a bus"));
        };
        bus.client
            .fence(ticket, info.address, step)
            .map_err(|error| error.to_string())?;
        if let Some(node) = self.nodes.get_mut(index) {
            node.fence = Some((ticket, step));
        }
        Ok(())
    }

    /// The bus driver's word on a step of the fence.
    pub fn fence_done(&mut self, ticket: u64, outcome: Result<(), String>) {
        let asked = |n: &crate::manager::Node| n.fence.filter(|(t, _)| *t == ticket);
        // One that comes too late is a step that failed.
        let Some(index) = self.nodes.iter().position(|n| asked(n).is_some()) else {
            return;
        };
        let Some((_, step)) = self.nodes.get_mut(index).and_then(|n| n.fence.take()) else {
            return;
        };
        let event = match &outcome {
            Ok(()) => Event::Fenced(step),
            Err(_) => Event::FenceFailed(step),
        };
        self.log_step(index, step.text(), outcome);
        self.happened(index, event);
    }

    /// Gives back what was granted, in an order in which nothing can be used that is not fenced.
    pub fn release(&mut self, index: usize, safety: Safety) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        node.fence = None;
        let Some(held) = &mut node.held else { return };
        let interrupts = core::mem::take(&mut held.interrupts);
        if !interrupts.is_empty() {
            // The vault keeps none of them open.
            self.keep_node(index);
            drop(interrupts);
            self.log_step(index, "interrupts closed", Ok(()));
        }
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let Some(held) = node.held.take() else { return };
        let Held {
            resources,
            domain,
            child,
            ..
        } = held;
        // With them goes every mapping.
        let mut revoked = Ok(());
        for resource in resources {
            revoked = revoked.and(resource.revoke().map_err(|e| e.to_string()));
        }
        self.log_step(index, "resources revoked", revoked);
        match (safety, domain) {
            (Safety::Fenced, Some(domain)) => {
                let recovered = domain.recover().map(|_| ()).map_err(|e| e.to_string());
                self.log_step(index, "DMA quarantine released", recovered);
            }
            // Without the fence the pages of the domain must never come back: it is kept, quarantine and all.
            (Safety::Unfenced, domain) => {
                self.quarantine.extend(domain);
                self.keep_quarantine();
            }
            (Safety::Fenced, None) => {}
        }
        drop(child);
        // Nor does the vault keep anything of it alive.
        self.keep_node(index);
        self.log_step(index, "handles closed", Ok(()));
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let ended = node.ending.take().map(|(_, text)| text);
        let ended = ended.unwrap_or_else(|| String::from("stopped"));
        let reason = match safety {
            Safety::Fenced => ended,
            Safety::Unfenced => format!("{ended}; the device could not be fenced"),
        };
        rt::info!("{}: {reason}; {}", node.path, node.teardown.join(", "));
        node.reason = Some(reason);
    }

    fn gave_up(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let rules = node.policy(&self.drivers).restart;
        let why = format!(
            "{}; given up after {} restarts in {} s",
            node.reason.take().unwrap_or_default(),
            rules.budget,
            rules.window_ms / 1000
        );
        rt::error!("{}: {why}", node.path);
        node.reason = Some(why);
    }

    fn fell_back(&mut self, index: usize, from: Program, to: Program) {
        let (from, to) = (self.version_text(from), self.version_text(to));
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let reason = node.reason.as_deref().unwrap_or("it failed");
        let why = format!("{from} failed ({reason}); back to {to}");
        rt::error!("{}: {why}", node.path);
        node.fell_back = Some(why);
    }

    // Timers.

    fn set_timer(&mut self, index: usize, timer: Timer, ms: Option<u32>) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let place = match timer {
            Timer::Limit => &mut node.limit,
            Timer::Probation => &mut node.probation,
        };
        *place = ms.map(|ms| Deadline::after_ms(ms.into()));
    }

    /// When the next timer of a node runs out.
    pub fn next_timer(&self) -> Deadline {
        let timers = self.nodes.iter().flat_map(|n| [n.limit, n.probation]);
        timers.flatten().fold(Deadline::FOREVER, Deadline::min)
    }

    /// Tells nodes of timers that ran out.
    pub fn check_timers(&mut self) {
        for index in 0..self.nodes.len() {
            let passed = |timer: &mut Option<Deadline>| timer.take_if(|t| t.has_passed()).is_some();
            let Some(node) = self.nodes.get_mut(index) else {
                continue;
            };
            let (limit, probation) = (passed(&mut node.limit), passed(&mut node.probation));
            if limit {
                self.limit_passed(index);
            }
            if probation {
                self.happened(index, Event::Timer(Timer::Probation));
            }
        }
    }

    fn limit_passed(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let policy = node.policy(&self.drivers);
        let seconds = |ms: u32| f64::from(ms) / 1000.0;
        let text = match node.life.phase() {
            Phase::Starting => format!("not in service after {} s", seconds(policy.start_ms)),
            Phase::Stopping => format!(
                "did not stop within {} s and was ended",
                seconds(policy.stop_ms)
            ),
            Phase::Suspending => format!("did not pause within {} s", seconds(policy.stop_ms)),
            Phase::Resuming => format!("did not go on within {} s", seconds(policy.start_ms)),
            _ => String::new(),
        };
        let late = match node.life.phase() {
            Phase::Ending => Some("process ended"),
            Phase::Fencing(step) => Some(step.text()),
            _ => None,
        };
        if !text.is_empty() {
            node.ending = Some((EndReason::TooLate, text));
        }
        node.fence = None;
        if let Some(step) = late {
            self.log_step(index, step, Err(String::from("no answer in time")));
        }
        self.happened(index, Event::Timer(Timer::Limit));
    }

    // The process.

    /// A driver's process ended, by itself or by another's hand.
    pub fn driver_ended(&mut self, index: usize, key: u64) {
        // What it said last comes first.
        self.serve_driver(index, key);
        let Some(node) = self.nodes.get(index) else {
            return;
        };
        let Some(child) = node.held.as_ref().and_then(|h| h.child.as_ref()) else {
            return;
        };
        let ended = self.report_end(node, child);
        // A driver that said why it gives up has the better words.
        if let Some(node) = self.nodes.get_mut(index) {
            node.ending.get_or_insert(ended);
        }
        self.log_step(index, "process ended", Ok(()));
        self.happened(index, Event::Ended);
    }
}
