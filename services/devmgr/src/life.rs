//! The life of a node's driver as a state machine: what happens goes in as an [`Event`], what is to be done
//! comes out as [`Action`]s, in the order in which they are to be done.
//!
//! It waits for nothing and touches nothing. Whatever takes time is a phase with a limit, and its end an event.
//! One way leads down from every phase with a driver, for a crash, a stop, a reload and an unplugging alike:
//! endpoints withdrawn, process ended, device fenced, grants released. Tests explore every order of events.

#[cfg(test)]
mod explore;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use proto::bus::FenceStep;
use proto::devmgr::{DriverPolicy, NodeState};
use serde::{Deserialize, Serialize};

use crate::restart::{History, Verdict};

/// A killed process ends as soon as its threads are off their CPUs.
const END_LIMIT_MS: u32 = 5_000;
/// A step of the fence may wait for a reset of the hardware.
const FENCE_LIMIT_MS: u32 = 20_000;

/// A driver's program, by a number that is never given to another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Program(pub u32);

/// Where a node is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// No driver was found for it.
    Unbound,
    /// Grants and process are being made.
    Launching,
    /// The process runs and has not said that it serves.
    Starting,
    /// In service.
    Running,
    /// Asked to pause.
    Suspending,
    /// Pauses.
    Suspended,
    /// Asked to go on.
    Resuming,
    /// Asked to stop.
    Stopping,
    /// The process was killed and is not yet over.
    Ending,
    /// The process is over; this step of the fence is under way.
    Fencing(FenceStep),
    /// Between two incarnations.
    Waiting,
    /// Stopped in good order.
    Stopped,
    /// Died, and is not to be restarted.
    Failed,
    /// Given up, or not fenced.
    Quarantined,
    /// The device is not there.
    Absent,
}

/// What happens to a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// It is to be served: by this program if none was chosen before.
    Start(Program),
    /// It is to have no driver.
    Stop,
    /// Its driver is to stop and to start again.
    Restart,
    /// This program is to take over.
    Reload(Program),
    /// It forgets its programs: they are no longer there.
    Unbind,
    /// Its driver is to pause.
    Suspend,
    /// Its driver is to go on.
    Resume,
    /// The process of [`Action::Launch`] runs.
    Launched,
    /// It does not.
    LaunchFailed,
    /// The driver says that it serves.
    Running,
    /// The driver says that it pauses.
    Paused,
    /// The driver says that it cannot pause.
    PauseRefused,
    /// The driver says that it goes on.
    WentOn,
    /// The driver cannot go on, or does not answer its heartbeat.
    Broken,
    /// The process is over.
    Ended,
    /// A step of the fence holds.
    Fenced(FenceStep),
    /// It does not.
    FenceFailed(FenceStep),
    /// A timer that was armed ran out.
    Timer(Timer),
    /// Somebody wants to take the device out.
    RemovalAsked,
    /// The device is gone.
    Unplugged,
    /// A device is there (again).
    Plugged,
}

/// A node's timers; arming one that is armed sets it anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// The present phase takes too long, or is over.
    Limit,
    /// The program has proven itself.
    Probation,
}

/// What a driver is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Stop.
    Stop,
    /// Leave the state for another version, and stop.
    Replace,
    /// Stop, since the device is taken out.
    Remove,
    /// Pause.
    Suspend,
    /// Go on.
    Resume,
}

/// Whether the device can still reach memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Safety {
    /// Every step of the fence held.
    Fenced,
    /// One did not: its pages must never be used again, nor the device.
    Unfenced,
}

/// How a reload ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Reloaded {
    /// The new program serves.
    Done,
    /// The old one serves again.
    FellBack,
    /// None serves.
    Failed,
    /// Another reload came.
    Superseded,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Start this program. [`Event::Launched`] or [`Event::LaunchFailed`] follows.
    Launch(Program),
    /// Ask the driver.
    Ask(Order),
    /// Take its endpoints away.
    Withdraw,
    /// End the process.
    Kill,
    /// Take a step of the fence. [`Event::Fenced`] or [`Event::FenceFailed`] follows.
    Fence(FenceStep),
    /// Give back what the driver was granted, except pages that an unfenced device may reach.
    Release(Safety),
    /// Set a timer to this many milliseconds from now.
    Arm(Timer, u32),
    /// Stop a timer.
    Disarm(Timer),
    /// The first of these died on trial or too often; the second one takes over.
    FellBack(Program, Program),
    /// The program served its probation.
    Proven(Program),
    /// The budget of restarts is spent.
    GaveUp,
    /// Answer who asked for the reload.
    Reloaded(Reloaded),
    /// The device is out of service and may be taken out.
    MayRemove,
    /// The node leaves the tree.
    Removed,
}

/// Why an event that somebody asked for is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// The device is not there.
    Absent,
    /// The device could not be fenced.
    Unfenced,
    /// There is no driver in a state for it.
    NotRunning,
    /// There is one that is to be stopped first.
    Busy,
}

/// Whether a bus driver can fence the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Fence {
    /// By the three steps.
    Bus,
    /// A platform device: it has no DMA, and its handles are all that there is to take.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
enum Wanted {
    Serving,
    /// Serving, by another incarnation than the present one.
    Again,
    Stopped,
    Gone,
}

/// Why the present teardown began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
enum Cause {
    Died,
    Asked,
    Replaced,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Life {
    phase: Phase,
    fence: Fence,
    wanted: Wanted,
    cause: Cause,
    safety: Safety,
    /// Runs, or ran last.
    current: Option<Program>,
    /// Takes over at the next launch.
    next: Option<Program>,
    /// Ran before the reload to the current one.
    previous: Option<Program>,
    /// The last one that served its probation, and the one before it.
    good: Option<Program>,
    older: Option<Program>,
    /// A reload is to be answered; so far like this.
    reload: Option<Reloaded>,
    /// Somebody waits to take the device out.
    removal: Option<Removal>,
    history: History,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Removal;

/// What a step may look at, and what it gives.
struct Step<'a> {
    policy: &'a DriverPolicy,
    now_ms: u64,
    actions: Vec<Action>,
}

impl Step<'_> {
    fn act(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.actions.extend(actions);
    }
}

impl Life {
    /// A device without a driver.
    pub fn new(fence: Fence) -> Life {
        Life {
            phase: Phase::Unbound,
            fence,
            wanted: Wanted::Serving,
            cause: Cause::Asked,
            safety: Safety::Fenced,
            current: None,
            next: None,
            previous: None,
            good: None,
            older: None,
            reload: None,
            removal: None,
            history: History::default(),
        }
    }

    /// Where the node is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The program that runs, or ran last.
    pub const fn current(&self) -> Option<Program> {
        self.current
    }

    /// The last program that served its probation.
    pub const fn last_known_good(&self) -> Option<Program> {
        self.good
    }

    /// Whether this program may be started again: it is to be kept.
    pub fn needs(&self, program: Program) -> bool {
        let kept = [
            self.current,
            self.next,
            self.previous,
            self.good,
            self.older,
        ];
        kept.contains(&Some(program))
    }

    /// Whether the current program is not proven.
    pub fn in_probation(&self) -> bool {
        self.current != self.good
    }

    /// Whether the device could not be fenced.
    pub fn is_unfenced(&self) -> bool {
        self.safety == Safety::Unfenced
    }

    /// The deaths so far.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The state as others see it.
    pub const fn state(&self) -> NodeState {
        match self.phase {
            Phase::Unbound | Phase::Absent => NodeState::Unbound,
            Phase::Launching => NodeState::Loaded,
            Phase::Starting => NodeState::Starting,
            Phase::Running | Phase::Suspending => NodeState::Running,
            Phase::Suspended | Phase::Resuming => NodeState::Suspended,
            Phase::Stopping | Phase::Ending | Phase::Fencing(_) => NodeState::Stopping,
            Phase::Waiting => NodeState::Restarting,
            Phase::Stopped => NodeState::Stopped,
            Phase::Failed => NodeState::Failed,
            Phase::Quarantined => NodeState::Quarantined,
        }
    }

    /// Takes an event. Events of processes and of the fence that come too late are without effect; packets of
    /// earlier incarnations are not to be given here at all.
    ///
    /// # Errors
    /// [`Refused`], for what somebody asked and cannot have; the node is as before.
    pub fn step(
        &mut self,
        event: Event,
        policy: &DriverPolicy,
        now_ms: u64,
    ) -> Result<Vec<Action>, Refused> {
        let mut step = Step {
            policy,
            now_ms,
            actions: Vec::new(),
        };
        let step_ref = &mut step;
        match event {
            Event::Start(program) => self.start(program, step_ref)?,
            Event::Stop => self.stop(Order::Stop, step_ref)?,
            Event::Restart => self.restart(step_ref)?,
            Event::Reload(program) => self.reload(program, step_ref)?,
            Event::Unbind => self.unbind()?,
            Event::Suspend => self.suspend(step_ref)?,
            Event::Resume => self.resume(step_ref)?,
            Event::RemovalAsked => self.removal(step_ref)?,
            Event::Plugged => self.plugged()?,
            Event::Unplugged => self.unplugged(step_ref),
            Event::Launched => self.launched(step_ref),
            Event::LaunchFailed => self.launch_failed(step_ref),
            Event::Running => self.running(step_ref),
            Event::Paused => self.answered(Phase::Suspending, Phase::Suspended, step_ref),
            Event::PauseRefused => self.answered(Phase::Suspending, Phase::Running, step_ref),
            Event::WentOn => self.answered(Phase::Resuming, Phase::Running, step_ref),
            Event::Broken => self.broken(step_ref),
            Event::Ended => self.ended(step_ref),
            Event::Fenced(done) => self.fenced(done, Safety::Fenced, step_ref),
            Event::FenceFailed(failed) => self.fenced(failed, Safety::Unfenced, step_ref),
            Event::Timer(Timer::Limit) => self.limit(step_ref),
            Event::Timer(Timer::Probation) => self.proven(step_ref),
        }
        Ok(step.actions)
    }

    const fn may_serve(&self) -> Result<(), Refused> {
        match (self.phase, self.wanted, self.safety) {
            (Phase::Absent, ..) | (_, Wanted::Gone, _) => Err(Refused::Absent),
            (_, _, Safety::Unfenced) => Err(Refused::Unfenced),
            _ => Ok(()),
        }
    }

    // What people ask.

    fn start(&mut self, program: Program, step: &mut Step<'_>) -> Result<(), Refused> {
        self.may_serve()?;
        self.history.forget();
        self.removal = None;
        self.wanted = match self.phase {
            Phase::Stopping | Phase::Ending | Phase::Fencing(_) => Wanted::Again,
            _ => Wanted::Serving,
        };
        self.current.get_or_insert(program);
        if self.rests() {
            self.launch(step);
        }
        Ok(())
    }

    fn restart(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        self.may_serve()?;
        let Some(program) = self.current else {
            return Err(Refused::NotRunning);
        };
        if self.rests() || self.phase == Phase::Launching {
            return self.start(program, step);
        }
        self.removal = None;
        self.wanted = Wanted::Again;
        self.ask_to_stop(Order::Stop, Cause::Asked, step);
        Ok(())
    }

    fn stop(&mut self, order: Order, step: &mut Step<'_>) -> Result<(), Refused> {
        if self.phase == Phase::Absent || self.wanted == Wanted::Gone {
            return Err(Refused::Absent);
        }
        self.wanted = Wanted::Stopped;
        if self.phase == Phase::Waiting {
            step.act([Action::Disarm(Timer::Limit)]);
            self.rest(Phase::Stopped, step);
        } else {
            self.ask_to_stop(order, Cause::Asked, step);
        }
        Ok(())
    }

    fn reload(&mut self, program: Program, step: &mut Step<'_>) -> Result<(), Refused> {
        self.may_serve()?;
        if self.reload.replace(Reloaded::Done).is_some() {
            step.act([Action::Reloaded(Reloaded::Superseded)]);
        }
        self.history.forget();
        self.removal = None;
        self.wanted = Wanted::Serving;
        self.next = Some(program);
        match self.phase {
            Phase::Launching => {}
            Phase::Starting => self.end(Cause::Replaced, step),
            Phase::Stopping | Phase::Ending | Phase::Fencing(_) => self.cause = Cause::Replaced,
            _ if self.rests() => self.launch(step),
            _ => self.ask_to_stop(Order::Replace, Cause::Replaced, step),
        }
        Ok(())
    }

    fn unbind(&mut self) -> Result<(), Refused> {
        self.may_serve()?;
        if !self.rests() || self.phase == Phase::Waiting {
            return Err(Refused::Busy);
        }
        *self = Life::new(self.fence);
        Ok(())
    }

    fn suspend(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        if self.phase != Phase::Running {
            return Err(Refused::NotRunning);
        }
        self.phase = Phase::Suspending;
        let limit = Action::Arm(Timer::Limit, step.policy.stop_ms);
        step.act([Action::Ask(Order::Suspend), limit]);
        Ok(())
    }

    fn resume(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        if self.phase != Phase::Suspended {
            return Err(Refused::NotRunning);
        }
        self.phase = Phase::Resuming;
        let limit = Action::Arm(Timer::Limit, step.policy.start_ms);
        step.act([Action::Ask(Order::Resume), limit]);
        Ok(())
    }

    fn removal(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        if self.phase == Phase::Absent || self.wanted == Wanted::Gone {
            return Err(Refused::Absent);
        }
        self.removal = Some(Removal);
        self.stop(Order::Remove, step)?;
        if self.rests() {
            self.rest(self.phase, step);
        }
        Ok(())
    }

    // What the bus says.

    fn plugged(&mut self) -> Result<(), Refused> {
        if self.phase != Phase::Absent {
            return Err(Refused::NotRunning);
        }
        *self = Life::new(self.fence);
        Ok(())
    }

    fn unplugged(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Absent => {}
            _ if self.rests() => {
                step.act([Action::Disarm(Timer::Limit)]);
                self.leave(step);
            }
            Phase::Launching | Phase::Ending | Phase::Fencing(_) => self.wanted = Wanted::Gone,
            _ => {
                self.wanted = Wanted::Gone;
                self.end(Cause::Died, step);
            }
        }
    }

    // What the process does.

    fn launched(&mut self, step: &mut Step<'_>) {
        if self.phase != Phase::Launching {
            return;
        }
        self.phase = Phase::Starting;
        match self.wanted {
            Wanted::Gone => self.end(Cause::Died, step),
            Wanted::Stopped => self.ask_to_stop(Order::Stop, Cause::Asked, step),
            _ if self.next.is_some() => self.end(Cause::Replaced, step),
            _ => step.act([Action::Arm(Timer::Limit, step.policy.start_ms)]),
        }
    }

    fn launch_failed(&mut self, step: &mut Step<'_>) {
        if self.phase != Phase::Launching {
            return;
        }
        self.cause = if self.next.is_some() {
            Cause::Replaced
        } else {
            Cause::Died
        };
        step.act([Action::Withdraw]);
        self.begin_fence(step);
    }

    fn running(&mut self, step: &mut Step<'_>) {
        if self.phase != Phase::Starting {
            return;
        }
        self.phase = Phase::Running;
        step.act([Action::Disarm(Timer::Limit)]);
        if self.in_probation() {
            step.act([Action::Arm(Timer::Probation, step.policy.probation_ms)]);
        }
        if let Some(outcome) = self.reload.take() {
            step.act([Action::Reloaded(outcome)]);
        }
    }

    fn answered(&mut self, asked: Phase, then: Phase, step: &mut Step<'_>) {
        if self.phase == asked {
            self.phase = then;
            step.act([Action::Disarm(Timer::Limit)]);
        }
    }

    fn broken(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Stopping => self.end(self.cause, step),
            _ if self.has_driver() => self.end(Cause::Died, step),
            _ => {}
        }
    }

    fn ended(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Ending => self.begin_fence(step),
            _ if self.has_driver() => {
                if self.phase != Phase::Stopping {
                    self.cause = Cause::Died;
                }
                step.act([Action::Disarm(Timer::Probation), Action::Withdraw]);
                self.begin_fence(step);
            }
            _ => {}
        }
    }

    fn limit(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Waiting => self.launch(step),
            // Nobody knows what it still does: the device is cut off, and not used again.
            Phase::Ending => {
                self.safety = Safety::Unfenced;
                self.begin_fence(step);
            }
            Phase::Fencing(late) => self.fenced(late, Safety::Unfenced, step),
            _ => self.broken(step),
        }
    }

    fn proven(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Running => {
                if self.good != self.current {
                    self.older = self.good;
                    self.good = self.current;
                }
                self.previous = None;
                step.act(self.current.map(Action::Proven));
            }
            // A pause proves nothing.
            Phase::Suspending | Phase::Suspended | Phase::Resuming => {
                step.act([Action::Arm(Timer::Probation, step.policy.probation_ms)]);
            }
            _ => {}
        }
    }

    // The way up.

    /// Whether there is neither a driver nor anything under way.
    const fn rests(&self) -> bool {
        matches!(
            self.phase,
            Phase::Unbound | Phase::Waiting | Phase::Stopped | Phase::Failed | Phase::Quarantined
        )
    }

    /// Whether a process runs that was not killed: only then does it have a say.
    pub const fn has_driver(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting
                | Phase::Running
                | Phase::Suspending
                | Phase::Suspended
                | Phase::Resuming
                | Phase::Stopping
        )
    }

    fn launch(&mut self, step: &mut Step<'_>) {
        if let Some(next) = self.next.take()
            && self.current != Some(next)
        {
            self.previous = self.current.replace(next);
        }
        let Some(program) = self.current else {
            // Nothing leads here: a node that was never bound has nothing that ends.
            return self.rest(Phase::Stopped, step);
        };
        self.wanted = Wanted::Serving;
        self.phase = Phase::Launching;
        step.act([Action::Disarm(Timer::Limit), Action::Launch(program)]);
    }

    // The way down.

    /// Asks a driver that runs; one that is on its way down goes on, and ends as `wanted` says.
    fn ask_to_stop(&mut self, order: Order, cause: Cause, step: &mut Step<'_>) {
        if self.phase == Phase::Stopping || !self.has_driver() {
            return;
        }
        self.phase = Phase::Stopping;
        self.cause = cause;
        step.act([
            Action::Disarm(Timer::Probation),
            Action::Ask(order),
            Action::Arm(Timer::Limit, step.policy.stop_ms),
        ]);
    }

    fn end(&mut self, cause: Cause, step: &mut Step<'_>) {
        self.phase = Phase::Ending;
        self.cause = cause;
        step.act([
            Action::Disarm(Timer::Probation),
            Action::Withdraw,
            Action::Kill,
            Action::Arm(Timer::Limit, END_LIMIT_MS),
        ]);
    }

    fn begin_fence(&mut self, step: &mut Step<'_>) {
        match self.fence {
            Fence::Bus => self.fence_step(FenceStep::MaskInterrupts, step),
            Fence::None => self.release(step),
        }
    }

    fn fence_step(&mut self, next: FenceStep, step: &mut Step<'_>) {
        self.phase = Phase::Fencing(next);
        let limit = Action::Arm(Timer::Limit, FENCE_LIMIT_MS);
        step.act([Action::Fence(next), limit]);
    }

    fn fenced(&mut self, done: FenceStep, held: Safety, step: &mut Step<'_>) {
        if self.phase != Phase::Fencing(done) {
            return;
        }
        if held == Safety::Unfenced {
            self.safety = Safety::Unfenced;
        }
        match done {
            FenceStep::MaskInterrupts if cfg!(feature = "control-no-fence") => {
                self.fence_step(FenceStep::Reset, step);
            }
            FenceStep::MaskInterrupts => self.fence_step(FenceStep::BusMasterOff, step),
            FenceStep::BusMasterOff => self.fence_step(FenceStep::Reset, step),
            FenceStep::Reset => self.release(step),
        }
    }

    fn release(&mut self, step: &mut Step<'_>) {
        step.act([Action::Disarm(Timer::Limit), Action::Release(self.safety)]);
        match (self.wanted, self.cause) {
            (Wanted::Gone, _) => self.leave(step),
            _ if self.is_unfenced() => self.rest(Phase::Quarantined, step),
            (Wanted::Stopped, _) => self.rest(Phase::Stopped, step),
            (_, Cause::Died) if self.next.is_none() => self.died(step),
            _ => self.launch(step),
        }
    }

    /// It died and is to serve.
    fn died(&mut self, step: &mut Step<'_>) {
        let tried = self.in_probation();
        let fallback = self.previous.take().or(self.good).filter(|_| tried);
        if let (Some(from), Some(to)) = (self.current, fallback)
            && from != to
        {
            return self.fall_back(from, to, step);
        }
        if self.wanted == Wanted::Again {
            return self.launch(step);
        }
        match self.history.died(&step.policy.restart, step.now_ms) {
            Verdict::RestartAt(at) => {
                let pause = u32::try_from(at.saturating_sub(step.now_ms)).unwrap_or(u32::MAX);
                self.phase = Phase::Waiting;
                step.act([Action::Arm(Timer::Limit, pause)]);
            }
            // It has no restarts: it failed, no more.
            Verdict::GiveUp if step.policy.restart.budget == 0 => self.rest(Phase::Failed, step),
            Verdict::GiveUp => match (self.current, self.older.take()) {
                (Some(from), Some(to)) if from != to => {
                    self.history.forget();
                    self.good = Some(to);
                    self.fall_back(from, to, step);
                }
                _ => {
                    step.act([Action::GaveUp]);
                    self.rest(Phase::Quarantined, step);
                }
            },
        }
    }

    fn fall_back(&mut self, from: Program, to: Program, step: &mut Step<'_>) {
        self.current = Some(to);
        if let Some(outcome) = &mut self.reload {
            *outcome = Reloaded::FellBack;
        }
        step.act([Action::FellBack(from, to)]);
        self.launch(step);
    }

    /// Comes to rest without a driver.
    fn rest(&mut self, phase: Phase, step: &mut Step<'_>) {
        self.phase = phase;
        // A program that was not tried is not kept for later.
        self.next = None;
        if self.reload.take().is_some() {
            step.act([Action::Reloaded(Reloaded::Failed)]);
        }
        if self.removal.take().is_some() {
            step.act([Action::MayRemove]);
        }
    }

    fn leave(&mut self, step: &mut Step<'_>) {
        self.removal = None;
        self.rest(Phase::Absent, step);
        *self = Life {
            phase: Phase::Absent,
            ..Life::new(self.fence)
        };
        step.act([Action::Removed]);
    }
}
