//! Single courses of events, and the exploration of all of them.

use proto::bus::FenceStep;
use proto::devmgr::{NodeState, RestartRules};

use super::explore::{Flaw, explore};
use super::*;
use crate::restart::DEFAULT_POLICY;

const OLD: Program = Program(1);
const NEW: Program = Program(2);

struct Node(Life, DriverPolicy);

impl Node {
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.0.step(event, &self.1, 0).unwrap()
    }

    /// The rest of a teardown, and what comes after it.
    fn fence(&mut self) -> Vec<Action> {
        self.step(Event::Fenced(FenceStep::MaskInterrupts));
        self.step(Event::Fenced(FenceStep::BusMasterOff));
        self.step(Event::Fenced(FenceStep::Reset))
    }

    fn start(&mut self) {
        self.step(Event::Launched);
        self.step(Event::Running);
    }

    fn serving(program: Program) -> Node {
        let mut node = Node(Life::new(Fence::Bus), DEFAULT_POLICY);
        node.step(Event::Start(program));
        node.start();
        node
    }

    fn proven(program: Program) -> Node {
        let mut node = Node::serving(program);
        let actions = node.step(Event::Timer(Timer::Probation));
        assert_eq!(actions, [Action::Proven(program)]);
        node
    }
}

#[test]
fn a_death_goes_down_in_order_and_up_again() {
    let mut node = Node::serving(OLD);
    assert_eq!(
        node.step(Event::Ended)[..3],
        [
            Action::Disarm(Timer::Probation),
            Action::Withdraw,
            Action::Fence(FenceStep::MaskInterrupts)
        ]
    );
    assert_eq!(node.0.state(), NodeState::Stopping);
    let actions = node.fence();
    assert!(actions.contains(&Action::Release(Safety::Fenced)));
    assert!(actions.contains(&Action::Arm(Timer::Limit, 0)));
    assert_eq!(node.0.state(), NodeState::Restarting);
    let actions = node.step(Event::Timer(Timer::Limit));
    assert!(actions.contains(&Action::Launch(OLD)));
}

#[test]
fn a_reload_asks_the_old_one_for_its_state_first() {
    let mut node = Node::proven(OLD);
    let actions = node.step(Event::Reload(NEW));
    assert!(actions.contains(&Action::Ask(Order::Replace)));
    node.step(Event::Ended);
    assert!(node.fence().contains(&Action::Launch(NEW)));
    node.step(Event::Launched);
    let actions = node.step(Event::Running);
    assert!(actions.contains(&Action::Reloaded(Reloaded::Done)));
    assert!(node.0.in_probation());
    node.step(Event::Timer(Timer::Probation));
    assert_eq!(node.0.last_known_good(), Some(NEW));
    assert!(!node.0.in_probation());
}

#[test]
fn a_new_version_that_does_not_start_makes_room_for_the_old_one() {
    let mut node = Node::proven(OLD);
    node.step(Event::Reload(NEW));
    node.step(Event::Ended);
    node.fence();
    node.step(Event::Launched);
    node.step(Event::Ended);
    let actions = node.fence();
    assert!(actions.contains(&Action::FellBack(NEW, OLD)));
    assert!(actions.contains(&Action::Launch(OLD)));
    node.step(Event::Launched);
    let actions = node.step(Event::Running);
    assert!(actions.contains(&Action::Reloaded(Reloaded::FellBack)));
    assert_eq!(node.0.history().deaths(&node.1.restart, 0), 0);
}

#[test]
fn a_new_version_that_dies_within_its_probation_does_too() {
    // The old one was not proven itself: it served, which is more.
    let mut node = Node::serving(OLD);
    node.step(Event::Reload(NEW));
    node.step(Event::Ended);
    node.fence();
    node.start();
    node.step(Event::Ended);
    assert!(node.fence().contains(&Action::Launch(OLD)));
}

#[test]
fn a_version_that_is_spent_later_makes_room_for_the_one_before() {
    let mut node = Node::proven(OLD);
    node.step(Event::Reload(NEW));
    node.step(Event::Ended);
    node.fence();
    node.start();
    node.step(Event::Timer(Timer::Probation));
    node.1.restart.budget = 2;
    for _ in 0..2 {
        node.step(Event::Ended);
        node.fence();
        assert_eq!(node.0.phase(), Phase::Waiting);
        node.step(Event::Timer(Timer::Limit));
        node.start();
    }
    node.step(Event::Ended);
    assert!(node.fence().contains(&Action::FellBack(NEW, OLD)));
    for _ in 0..2 {
        node.start();
        node.step(Event::Ended);
        node.fence();
        node.step(Event::Timer(Timer::Limit));
    }
    node.start();
    node.step(Event::Ended);
    assert!(node.fence().contains(&Action::GaveUp));
    assert_eq!(node.0.state(), NodeState::Quarantined);
}

#[test]
fn a_device_that_cannot_be_fenced_is_not_used_again() {
    let mut node = Node::serving(OLD);
    node.step(Event::Ended);
    node.step(Event::Fenced(FenceStep::MaskInterrupts));
    node.step(Event::Fenced(FenceStep::BusMasterOff));
    let actions = node.step(Event::FenceFailed(FenceStep::Reset));
    assert!(actions.contains(&Action::Release(Safety::Unfenced)));
    assert_eq!(node.0.state(), NodeState::Quarantined);
    let start = node.0.step(Event::Start(OLD), &DEFAULT_POLICY, 0);
    assert_eq!(start, Err(Refused::Unfenced));
}

#[test]
fn without_a_budget_it_fails_and_may_be_started() {
    let mut node = Node::serving(OLD);
    node.1.restart = RestartRules {
        budget: 0,
        ..node.1.restart
    };
    node.step(Event::Ended);
    node.fence();
    assert_eq!(node.0.state(), NodeState::Failed);
    assert!(node.step(Event::Start(NEW)).contains(&Action::Launch(OLD)));
}

#[test]
fn no_order_of_events_breaks_a_rule() {
    // Two versions to the very end; three as far as three reloads with a death each go.
    for (fence, programs, depth) in [
        (Fence::Bus, 2, usize::MAX),
        (Fence::None, 2, usize::MAX),
        (Fence::None, 3, 14),
    ] {
        let explored = explore(fence, programs, depth, Flaw::None).unwrap();
        println!("{fence:?}, {programs} programs: {explored:?}");
        assert!(explored.states > 10_000, "{explored:?}");
    }
}

#[test]
fn a_broken_machine_is_found() {
    for flaw in [
        Flaw::ReleasesBeforeTheFence,
        Flaw::TakesAFailedFenceForOne,
        Flaw::LaunchesBeforeTheEnd,
        Flaw::SkipsTheReset,
        Flaw::ForgetsToArm,
        Flaw::IgnoresStop,
        Flaw::IgnoresUnplug,
        Flaw::ForgetsDeaths,
        Flaw::TrustsAtOnce,
        Flaw::KeepsEndpoints,
        Flaw::LosesReloads,
    ] {
        let found = explore(Fence::Bus, 2, usize::MAX, flaw);
        println!("{flaw:?}: {found:?}");
        assert!(found.is_err(), "{flaw:?} is not found");
    }
}
