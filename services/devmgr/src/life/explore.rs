//! Every order of events, to the end: a world around one node, in which whatever can happen happens next, and
//! rules that hold at every step.
//!
//! The world is as hostile as the real one may be: a driver says anything at any time, steps of the fence fail,
//! timers run out before answers, devices go and come back.

use std::collections::{HashMap, VecDeque};

use proto::bus::FenceStep;
use proto::devmgr::{DriverPolicy, RestartRules};

use super::{Action, Event, Fence, Life, Order, Phase, Program, Refused, Reloaded, Safety, Timer};

const FIRST: Program = Program(1);
const PROGRAMS: [Program; 3] = [FIRST, Program(2), Program(3)];
const STEPS: [FenceStep; 3] = [
    FenceStep::MaskInterrupts,
    FenceStep::BusMasterOff,
    FenceStep::Reset,
];
const POLICY: DriverPolicy = DriverPolicy {
    restart: RestartRules {
        budget: 2,
        window_ms: 1000,
        pause_min_ms: 10,
        pause_max_ms: 20,
    },
    ..crate::restart::DEFAULT_POLICY
};

/// A way to break the machine, to see that the rules catch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    None,
    ReleasesBeforeTheFence,
    TakesAFailedFenceForOne,
    LaunchesBeforeTheEnd,
    SkipsTheReset,
    ForgetsToArm,
    IgnoresStop,
    IgnoresUnplug,
    ForgetsDeaths,
    TrustsAtOnce,
    KeepsEndpoints,
    LosesReloads,
}

/// What the machine's actions did to the world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    life: Life,
    /// The process, and whether it was killed.
    process: Option<Program>,
    launching: Option<Program>,
    granted: bool,
    published: bool,
    /// Steps of the fence that held since the process ended.
    fenced: u8,
    fencing: Option<FenceStep>,
    limit: bool,
    probation: bool,
    present: bool,
    dangerous: bool,
    /// The kernel did not end the process in time.
    undead: bool,
    stopped: bool,
    /// A launch that somebody asked for is due.
    asked: bool,
    /// Launches that nobody asked for, since the history began.
    unasked: u32,
    reload: bool,
    removal: bool,
    /// The window of the restarts is full of deaths.
    deaths: u32,
}

/// Events of the world itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening {
    To(Event),
    /// So much time that no death counts any more.
    WindowPasses,
}

impl World {
    fn new(fence: Fence) -> World {
        World {
            life: Life::new(fence),
            process: None,
            launching: None,
            granted: false,
            published: false,
            fenced: 0,
            fencing: None,
            limit: false,
            probation: false,
            present: true,
            dangerous: false,
            undead: false,
            stopped: false,
            asked: false,
            unasked: 0,
            reload: false,
            removal: false,
            deaths: 0,
        }
    }

    /// All that can happen now.
    fn happenings(&self, programs: usize) -> Vec<Happening> {
        let mut list = vec![
            Event::Stop,
            Event::Restart,
            Event::Suspend,
            Event::Resume,
            Event::Unbind,
            Event::Start(FIRST),
        ];
        list.extend(PROGRAMS.map(Event::Reload).into_iter().take(programs));
        if self.present {
            list.extend([Event::Unplugged, Event::RemovalAsked]);
        } else if self.life.phase() == Phase::Absent {
            list.push(Event::Plugged);
        }
        if self.launching.is_some() {
            list.extend([Event::Launched, Event::LaunchFailed]);
        }
        if self.process.is_some() {
            list.extend([
                Event::Running,
                Event::Paused,
                Event::PauseRefused,
                Event::WentOn,
                Event::Broken,
                Event::Ended,
            ]);
        }
        list.extend(self.fencing.map(Event::Fenced));
        list.extend(self.fencing.map(Event::FenceFailed));
        if self.limit {
            list.push(Event::Timer(Timer::Limit));
        }
        if self.probation {
            list.push(Event::Timer(Timer::Probation));
        }
        let mut list: Vec<_> = list.into_iter().map(Happening::To).collect();
        if self.deaths > 0 {
            list.push(Happening::WindowPasses);
        }
        list
    }

    /// One that leads on without anybody's help, if a machine that is right has not come to rest.
    fn progress(&self) -> Option<Happening> {
        let event = if self.launching.is_some() {
            Event::Launched
        } else if self.limit {
            Event::Timer(Timer::Limit)
        } else {
            return None;
        };
        Some(Happening::To(event))
    }

    /// Lets something happen; the rule that it broke, if it did.
    fn happen(&mut self, happening: Happening, flaw: Flaw) -> Result<(), String> {
        let Happening::To(event) = happening else {
            self.life.history.forget();
            (self.deaths, self.unasked) = (0, 0);
            return Ok(());
        };
        let before = self.clone();
        self.before(event);
        let given = match (flaw, event) {
            (Flaw::IgnoresStop, Event::Stop) => Ok(Vec::new()),
            (Flaw::IgnoresUnplug, Event::Unplugged) => Ok(Vec::new()),
            (Flaw::TakesAFailedFenceForOne, Event::FenceFailed(step)) => {
                self.life.step(Event::Fenced(step), &POLICY, 0)
            }
            _ => self.life.step(event, &POLICY, 0),
        };
        let actions = match given {
            Ok(actions) => actions,
            Err(refused) => {
                if self.life != before.life {
                    return Err(format!("refused {event:?} ({refused:?}) and changed"));
                }
                return self.may_refuse(event, refused);
            }
        };
        self.accepted(event);
        for action in flawed(flaw, event, actions, &mut self.life) {
            self.act(action, event)?;
        }
        self.deaths = self.life.history().deaths(&POLICY.restart, 0);
        self.at_rest()
    }

    /// What an event means for the world, whatever the machine makes of it.
    fn before(&mut self, event: Event) {
        match event {
            Event::Launched => self.process = self.launching.take(),
            Event::LaunchFailed => self.launching = None,
            Event::Ended => {
                self.process = None;
                self.fenced = 0;
            }
            // Endpoints come before; those of one that was killed are refused.
            Event::Running if self.life.has_driver() => self.published = true,
            Event::Fenced(_) => {
                self.fencing = None;
                self.fenced += 1;
            }
            Event::FenceFailed(_) => self.fencing = None,
            Event::Timer(Timer::Limit) => {
                self.limit = false;
                if self.life.phase() == Phase::Ending {
                    self.undead = true;
                }
            }
            Event::Timer(Timer::Probation) => self.probation = false,
            Event::Unplugged => {
                self.present = false;
                self.removal = false;
            }
            Event::Plugged => {
                self.present = true;
                self.dangerous = false;
                self.undead = false;
                self.process = None;
                (self.stopped, self.asked, self.unasked) = (false, false, 0);
            }
            _ => {}
        }
    }

    fn accepted(&mut self, event: Event) {
        match event {
            Event::Stop => self.stopped = true,
            Event::Unbind => (self.stopped, self.unasked) = (false, 0),
            Event::RemovalAsked => (self.stopped, self.removal) = (true, true),
            Event::Start(_) | Event::Reload(_) | Event::Restart => {
                self.stopped = false;
                self.asked = true;
                self.removal = false;
                self.unasked = 0;
                self.reload |= matches!(event, Event::Reload(_));
            }
            _ => {}
        }
    }

    fn may_refuse(&self, event: Event, refused: Refused) -> Result<(), String> {
        let right = match (event, refused) {
            (Event::Suspend | Event::Resume | Event::Plugged, Refused::NotRunning) => true,
            (Event::Unbind, Refused::Busy) => true,
            (Event::Restart, Refused::NotRunning) => self.life.current().is_none(),
            (_, Refused::Absent) => !self.present,
            (
                Event::Start(_) | Event::Reload(_) | Event::Restart | Event::Unbind,
                Refused::Unfenced,
            ) => self.life.is_unfenced(),
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(format!("{event:?} was refused: {refused:?}"))
        }
    }

    fn act(&mut self, action: Action, event: Event) -> Result<(), String> {
        let rule = |holds: bool, text: &str| {
            if holds {
                Ok(())
            } else {
                Err(format!("{action:?} at {event:?}: {text}"))
            }
        };
        match action {
            Action::Launch(program) => {
                rule(self.process.is_none(), "two drivers on a device")?;
                rule(!self.granted, "grants of the one before are not released")?;
                rule(!self.published, "endpoints of the one before are there")?;
                rule(!self.dangerous, "the device is not fenced")?;
                rule(self.present, "the device is not there")?;
                rule(!self.stopped, "a stop does not win")?;
                if core::mem::take(&mut self.asked) {
                    self.unasked = 0;
                } else {
                    self.unasked += 1;
                    // The budget, and each fall back.
                    let most = POLICY.restart.budget + 2;
                    rule(self.unasked <= most, "the budget is not respected")?;
                }
                self.launching = Some(program);
                self.granted = true;
                self.fenced = 0;
            }
            Action::Ask(order) => {
                rule(self.process.is_some(), "nobody is there")?;
                let fits = match order {
                    Order::Suspend => self.life.phase() == Phase::Suspending,
                    Order::Resume => self.life.phase() == Phase::Resuming,
                    _ => self.life.phase() == Phase::Stopping,
                };
                rule(fits, "the phase is another one")?;
            }
            Action::Withdraw => self.published = false,
            Action::Kill => rule(self.process.is_some(), "nobody is there")?,
            Action::Fence(step) => {
                rule(
                    self.process.is_none() || self.undead,
                    "the driver may undo it",
                )?;
                rule(self.granted, "no driver had the device")?;
                rule(
                    self.fencing.is_none() || event == Event::Timer(Timer::Limit),
                    "two at once",
                )?;
                self.fencing = Some(step);
            }
            Action::Release(safety) => {
                rule(self.granted, "nothing was granted")?;
                self.granted = false;
                self.fencing = None;
                let held =
                    self.life.fence == Fence::None || usize::from(self.fenced) == STEPS.len();
                if safety == Safety::Fenced {
                    rule(held, "pages are given back before the fence")?;
                    rule(self.process.is_none(), "the process has them still")?;
                } else {
                    self.dangerous = true;
                }
            }
            Action::Arm(Timer::Limit, _) => self.limit = true,
            Action::Arm(Timer::Probation, _) => self.probation = true,
            Action::Disarm(Timer::Limit) => self.limit = false,
            Action::Disarm(Timer::Probation) => self.probation = false,
            Action::FellBack(from, to) => {
                rule(from != to, "it falls back to itself")?;
                // A version that has spent its budget leaves the other one a budget of its own.
                if self.deaths >= POLICY.restart.budget {
                    self.unasked = 0;
                }
            }
            Action::Proven(program) => {
                rule(
                    event == Event::Timer(Timer::Probation) && self.process == Some(program),
                    "it did not serve its probation",
                )?;
            }
            Action::GaveUp => {}
            Action::Reloaded(outcome) => {
                rule(self.reload, "nobody asked")?;
                self.reload = outcome == Reloaded::Superseded;
                let serves = self.life.phase() == Phase::Running;
                rule(
                    serves == matches!(outcome, Reloaded::Done | Reloaded::FellBack),
                    "it is not so",
                )?;
            }
            Action::MayRemove => {
                rule(self.process.is_none() || self.undead, "a driver is there")?;
                rule(!self.granted, "grants are out")?;
                self.removal = false;
            }
            Action::Removed => rule(!self.present, "it is there")?,
        }
        Ok(())
    }

    /// What holds after each event.
    fn at_rest(&self) -> Result<(), String> {
        let phase = self.life.phase();
        let rule = |holds: bool, text: &str| {
            if holds {
                Ok(())
            } else {
                Err(format!("in {phase:?}: {text}"))
            }
        };
        let stable = match phase {
            Phase::Launching => {
                rule(self.launching.is_some(), "no launch is under way")?;
                false
            }
            Phase::Starting
            | Phase::Suspending
            | Phase::Resuming
            | Phase::Stopping
            | Phase::Ending
            | Phase::Fencing(_)
            | Phase::Waiting => {
                rule(self.limit, "no way out: no limit is set")?;
                false
            }
            _ => true,
        };
        if matches!(phase, Phase::Fencing(_)) {
            rule(self.fencing.is_some(), "no step is under way")?;
        }
        if stable {
            rule(!self.limit, "a limit is left over")?;
            rule(!self.reload, "a reload is not answered")?;
            rule(!self.removal, "a removal is not answered")?;
            let serves = matches!(phase, Phase::Running | Phase::Suspended);
            rule(self.granted == serves, "grants and phase do not fit")?;
            rule(
                self.process.is_some() == serves || self.undead,
                "process and phase do not fit",
            )?;
            rule(
                !serves || !self.stopped,
                "stopped, and it serves all the same",
            )?;
            rule(
                self.present || phase == Phase::Absent,
                "the device is gone and the node is not",
            )?;
            rule(serves || !self.probation, "a probation of nobody")?;
        }
        rule(
            self.life.is_unfenced() == self.dangerous || !stable || !self.present,
            "the machine does not know what the device can do",
        )?;
        let good = self.life.last_known_good();
        rule(
            good.is_none_or(|good| self.life.needs(good)),
            "the last known good one is not kept",
        )
    }
}

/// What a machine with this flaw would have given.
fn flawed(flaw: Flaw, event: Event, actions: Vec<Action>, life: &mut Life) -> Vec<Action> {
    let mut given = Vec::new();
    for action in actions {
        match (flaw, action) {
            (Flaw::ReleasesBeforeTheFence, Action::Fence(FenceStep::MaskInterrupts)) => {
                given.push(Action::Release(Safety::Fenced));
            }
            (Flaw::SkipsTheReset, Action::Fence(FenceStep::Reset)) => {
                given.extend(
                    life.step(Event::Fenced(FenceStep::Reset), &POLICY, 0)
                        .unwrap(),
                );
                continue;
            }
            (Flaw::LaunchesBeforeTheEnd, Action::Kill) => given.push(Action::Launch(FIRST)),
            (Flaw::ForgetsToArm, Action::Arm(Timer::Limit, _)) if event == Event::Ended => continue,
            (Flaw::KeepsEndpoints, Action::Withdraw) => continue,
            (Flaw::LosesReloads, Action::Reloaded(Reloaded::FellBack)) => continue,
            (Flaw::TrustsAtOnce, Action::Arm(Timer::Probation, _)) => {
                given.extend(
                    life.step(Event::Timer(Timer::Probation), &POLICY, 0)
                        .unwrap(),
                );
            }
            _ => {}
        }
        given.push(action);
    }
    if flaw == Flaw::ForgetsDeaths && life.phase() == Phase::Waiting {
        life.history.forget();
    }
    given
}

/// What was seen.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
}

/// Explores every state that can be reached, breadth first, up to `depth` events from the start,
/// with so many programs to reload.
///
/// # Errors
/// The shortest way to a state in which a rule is broken.
pub fn explore(
    fence: Fence,
    programs: usize,
    depth: usize,
    flaw: Flaw,
) -> Result<Explored, String> {
    let start = World::new(fence);
    let mut places: HashMap<World, usize> = HashMap::from([(start.clone(), 0)]);
    // For each state: what led to it, and from where.
    let mut ways: Vec<Option<(usize, Happening)>> = vec![None];
    let mut next: Vec<Option<usize>> = Vec::new();
    let mut todo = VecDeque::from([(start, 0, 0)]);
    let (mut steps, mut reached) = (0, 0);
    let way = |ways: &[Option<(usize, Happening)>], mut at: usize| {
        let mut way = Vec::new();
        while let Some((from, happening)) = ways[at] {
            way.push(format!("{happening:?}"));
            at = from;
        }
        way.reverse();
        way.join(", ")
    };
    while let Some((world, place, deep)) = todo.pop_front() {
        reached = reached.max(deep);
        let mut on = None;
        if deep < depth {
            for happening in world.happenings(programs) {
                steps += 1;
                let mut after = world.clone();
                after
                    .happen(happening, flaw)
                    .map_err(|rule| format!("{}, {happening:?}: {rule}", way(&ways, place)))?;
                let fresh = ways.len();
                let known = *places.entry(after.clone()).or_insert(fresh);
                if known == fresh {
                    ways.push(Some((place, happening)));
                    todo.push_back((after, fresh, deep + 1));
                }
                if world.progress() == Some(happening) {
                    on = Some(known);
                }
            }
        }
        next.resize(next.len().max(place + 1), None);
        next[place] = on;
    }
    // Left alone, each comes to rest: limits and launches lead on, and never in a circle.
    next.resize(ways.len(), None);
    let mut rests = vec![false; ways.len()];
    for start in 0..ways.len() {
        let mut path = Vec::new();
        let mut at = start;
        while !rests[at] {
            if path.len() > 200 {
                return Err(format!("{}: it never comes to rest", way(&ways, start)));
            }
            path.push(at);
            match next[at] {
                Some(on) => at = on,
                None => break,
            }
        }
        for at in path {
            rests[at] = true;
        }
    }
    Ok(Explored {
        states: ways.len(),
        steps,
        depth: reached,
    })
}
