//! Threads of a driver, one at a time: which one goes on is the seed's choice.
//!
//! Each is a thread of the host, but runs only while it has the turn, which it hands on when it waits on an
//! event queue. So a run with several threads repeats exactly.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::Schedule;

/// Something that a thread waits for. Asked while no thread runs.
pub(crate) type Ready = Box<dyn Fn() -> bool + Send>;

enum Thread {
    /// It has the turn.
    Running,
    /// It could go on.
    Ready,
    Waiting(Ready, u64),
    /// It waits for the end of all others.
    Joining,
    Ended,
}

struct State {
    threads: Vec<Thread>,
    turn: usize,
    /// Nothing can happen any more: waits fail until a thread got around to doing something else.
    stuck: Vec<bool>,
}

pub(crate) struct Threads {
    shared: Arc<Shared>,
    schedule: Schedule,
}

struct Shared {
    state: Mutex<State>,
    handed_on: Condvar,
}

thread_local! {
    /// Which of its simulation's threads this one is; whoever made the simulation is the first.
    static ME: Cell<usize> = const { Cell::new(0) };
}

/// The end of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// Something is there, or the deadline is over.
    Yes,
    /// Nothing will ever come.
    Never,
}

impl Threads {
    pub(crate) fn new(schedule: Schedule) -> Threads {
        let state = State {
            threads: vec![Thread::Running],
            turn: 0,
            stuck: vec![false],
        };
        Threads {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                handed_on: Condvar::new(),
            }),
            schedule,
        }
    }

    /// Another thread, which begins when it is given the turn. `panicked` is called if it panics.
    pub(crate) fn spawn(
        &self,
        name: &str,
        work: ddk::Work,
        panicked: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let mut state = self.shared.state.lock().unwrap();
        let number = state.threads.len();
        let (shared, schedule) = (self.shared.clone(), self.schedule.clone());
        let body = move || {
            let threads = Threads { shared, schedule };
            ME.set(number);
            drop(threads.await_turn(threads.shared.state.lock().unwrap(), number));
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            if done.is_err() {
                panicked();
            }
            threads.end(number);
        };
        std::thread::Builder::new().name(name.into()).spawn(body)?;
        state.threads.push(Thread::Ready);
        state.stuck.push(false);
        Ok(())
    }

    fn await_turn<'a>(&'a self, state: MutexGuard<'a, State>, me: usize) -> MutexGuard<'a, State> {
        let handed_on = &self.shared.handed_on;
        handed_on.wait_while(state, |s| s.turn != me).unwrap()
    }

    /// Waits until `ready` says so or the clock says `deadline_ns`; meanwhile the others run and time passes.
    pub(crate) fn wait(&self, ready: Ready, deadline_ns: u64) -> Woken {
        let me = ME.get();
        let mut state = self.shared.state.lock().unwrap();
        state.threads[me] = Thread::Waiting(ready, deadline_ns);
        if !self.hand_on(state, Some(me)) {
            state = self.await_turn(self.shared.state.lock().unwrap(), me);
        } else {
            state = self.shared.state.lock().unwrap();
        }
        match std::mem::take(&mut state.stuck[me]) {
            true => Woken::Never,
            false => Woken::Yes,
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.shared.state.lock().unwrap();
        state.threads[me] = Thread::Ended;
        self.hand_on(state, None);
    }

    /// Gives the turn to a thread that can go on, letting time pass until there is one. `true`: it is `me`.
    fn hand_on<'a>(&'a self, mut state: MutexGuard<'a, State>, me: Option<usize>) -> bool {
        loop {
            let now_ns = self.schedule.now_ns();
            let others_ended = |me: usize| {
                let mut others = state.threads.iter().enumerate();
                others.all(|(n, t)| n == me || matches!(t, Thread::Ended))
            };
            let can_go_on = |n: usize| match &state.threads[n] {
                Thread::Ready => true,
                Thread::Waiting(ready, deadline_ns) => *deadline_ns <= now_ns || ready(),
                Thread::Joining => others_ended(n),
                Thread::Running | Thread::Ended => false,
            };
            let able: Vec<usize> = (0..state.threads.len()).filter(|n| can_go_on(*n)).collect();
            if !able.is_empty() {
                // With one there is nothing to choose, and the choices of others stay as they were.
                let choice = if able.len() > 1 {
                    self.schedule.choose(able.len())
                } else {
                    0
                };
                let next = able[choice];
                state.threads[next] = Thread::Running;
                state.turn = next;
                self.shared.handed_on.notify_all();
                return me == Some(next);
            }
            let deadlines = state.threads.iter().filter_map(|thread| match thread {
                Thread::Waiting(_, deadline_ns) if *deadline_ns != u64::MAX => Some(*deadline_ns),
                _ => None,
            });
            let next_ns = deadlines.chain(self.schedule.next_due()).min();
            match next_ns {
                Some(at_ns) => {
                    // The models run without the lock: they wake threads.
                    drop(state);
                    self.schedule.advance_to(at_ns);
                    state = self.shared.state.lock().unwrap();
                }
                None => {
                    let State { threads, stuck, .. } = &mut *state;
                    let mut waiting = false;
                    for (thread, stuck) in threads.iter_mut().zip(stuck) {
                        if let Thread::Waiting(..) = thread {
                            (*thread, *stuck) = (Thread::Ready, true);
                            waiting = true;
                        }
                    }
                    if !waiting {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits for the end of all spawned threads.
    pub(crate) fn join(&self) {
        let me = ME.get();
        let mut state = self.shared.state.lock().unwrap();
        state.threads[me] = Thread::Joining;
        if !self.hand_on(state, Some(me)) {
            drop(self.await_turn(self.shared.state.lock().unwrap(), me));
        }
    }
}

#[cfg(test)]
mod tests {
    use ddk::{Deadline, Event, Platform, PlatformError};
    use std::sync::{Arc, Mutex};

    use crate::Sim;

    /// Three threads that each sleep now and then note their turn.
    fn turns(seed: u64) -> Vec<(usize, u64)> {
        let sim = Sim::new(seed);
        let platform = sim.platform().cpus(3).build();
        let turns = Arc::new(Mutex::new(Vec::new()));
        for n in 0..3 {
            let (queue, turns) = (platform.event_queue().unwrap(), turns.clone());
            let sim = sim.clone();
            let work = move || {
                for step in 1..5 {
                    let until = Deadline::at_ns(step * 1000);
                    assert_eq!(queue.wait(&mut [Event::default()], until), Ok(0));
                    turns.lock().unwrap().push((n, sim.now_ns()));
                }
            };
            platform.spawn("sleeper", Some(n), Box::new(work)).unwrap();
        }
        assert_eq!(turns.lock().unwrap().len(), 0, "not before its turn");
        sim.join();
        sim.check();
        turns.lock().unwrap().clone()
    }

    #[test]
    fn the_seed_decides_whose_turn_it_is() {
        let first = turns(1);
        assert_eq!(first.len(), 12);
        assert!(first.is_sorted_by_key(|(_, now_ns)| *now_ns));
        assert_eq!(turns(1), first);
        assert!((2..10).any(|seed| turns(seed) != first));
    }

    #[test]
    fn threads_that_wait_for_nothing_are_told() {
        let sim = Sim::new(1);
        let platform = sim.platform().build();
        for _ in 0..2 {
            let queue = platform.event_queue().unwrap();
            let work = move || {
                let woken = queue.wait(&mut [Event::default()], Deadline::NEVER);
                assert_eq!(woken, Err(PlatformError::Closed));
            };
            platform.spawn("waiter", None, Box::new(work)).unwrap();
        }
        sim.join();
        sim.check();
        let nobody = platform.spawn("x", Some(1), Box::new(|| ()));
        assert_eq!(nobody, Err(PlatformError::Invalid), "there is one CPU");
    }

    #[test]
    fn one_thread_wakes_another() {
        let sim = Sim::new(3);
        let platform = sim.platform().build();
        let queue: Arc<dyn ddk::EventQueue> = platform.event_queue().unwrap().into();
        let waker = queue.clone();
        let work = move || waker.post(9).unwrap();
        platform.spawn("waker", None, Box::new(work)).unwrap();
        let mut events = [Event::default(); 2];
        assert_eq!(queue.wait(&mut events, Deadline::NEVER), Ok(1));
        assert_eq!(events[0], Event { key: 9, count: 1 });
    }

    #[test]
    fn a_thread_that_panics_is_a_violation_and_stops_nobody() {
        let sim = Sim::new(1);
        let platform = sim.platform().build();
        let work = || std::panic::resume_unwind(Box::new("broken"));
        platform.spawn("unlucky", None, Box::new(work)).unwrap();
        sim.join();
        assert_eq!(sim.take_violations(), ["thread unlucky panicked"]);
    }
}
