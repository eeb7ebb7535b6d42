//! The scheduler: a run queue for each CPU, fixed priorities with round robin inside one, work stealing, affinity, CPU
//! budgets, and direct hand-off from a caller to its server.
//!
//! The kernel does not switch stacks: a hook decides which thread the CPU returns to by changing its current frame. So
//! a thread that blocks is simply not returned to, and its system call is completed when it is chosen again
//! ([`Thread::finish_wait`]).

pub mod timeouts;

use alloc::sync::Arc;
use alloc::vec::Vec;

use bulkhead_abi::{CpuInfo, FOREVER, PRIORITY_DEFAULT, Signals};
use kernel_core::run_queue::RunQueue;

use crate::arch::{self, Frame, MAX_CPUS, ThreadState};
use crate::lock::{Cell, Locked};
use crate::memory::space::Space;
use crate::object::Handle;
use crate::object::process::Process;
use crate::object::thread::{BUDGET_PERIOD_NS, RunState, Thread};

/// How long a thread runs before others of its priority have their turn.
const SLICE_NS: u64 = 4_000_000;

struct Cpu {
    current: Locked<Option<Arc<Thread>>>,
    queue: Locked<RunQueue<Arc<Thread>>>,
    /// A server that the current thread called: it runs next, before any queue.
    handoff: Locked<Option<Arc<Thread>>>,
    /// The current thread is about to block in a call: the thread that it wakes may be handed the CPU.
    calling: Cell<bool>,
    resched: Cell<bool>,
    /// A reschedule interrupt is on its way.
    kicked: Cell<bool>,
    online: Cell<bool>,
    idle_frame: Locked<Option<(Frame, ThreadState)>>,
    /// The address space that stays loaded while the CPU idles; else it is that of the current thread.
    idle_space: Locked<Option<Arc<Space>>>,
    /// Translations of that address space went while the CPU idled.
    stale: Cell<bool>,
    slice_end: Cell<u64>,
    armed: Cell<u64>,
    switched_at: Cell<u64>,
    idle_ns: Cell<u64>,
    switches: Cell<u64>,
    interrupts: Cell<u64>,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu {
        current: Locked::new(None),
        queue: Locked::new(RunQueue::new()),
        handoff: Locked::new(None),
        calling: Cell::new(false),
        resched: Cell::new(false),
        kicked: Cell::new(false),
        online: Cell::new(false),
        idle_frame: Locked::new(None),
        idle_space: Locked::new(None),
        stale: Cell::new(false),
        slice_end: Cell::new(0),
        armed: Cell::new(FOREVER),
        switched_at: Cell::new(0),
        idle_ns: Cell::new(0),
        switches: Cell::new(0),
        interrupts: Cell::new(0),
    }
}; MAX_CPUS];

static ONLINE: Cell<u64> = Cell::new(0);
static LATER: Locked<Vec<Handle>> = Locked::new(Vec::new());

#[inline]
fn this() -> &'static Cpu {
    &CPUS[arch::cpu_id()]
}

/// Prepares this CPU: it idles until there is a thread.
pub fn init_cpu(cpu: usize) {
    let own = &CPUS[cpu];
    own.online.set(true);
    ONLINE.set(ONLINE.get() | 1 << cpu);
    *own.idle_frame.borrow_mut() = Some((Frame::idle(cpu), ThreadState::default()));
    own.switched_at.set(arch::now_ns());
    enter_idle(own, None);
}

/// Mask of the CPUs that schedule.
pub fn online() -> u64 {
    ONLINE.get()
}

/// Mask of the CPUs that the machine has and that user space is told of. A slow one may not schedule yet; its threads
/// run elsewhere until it does.
pub fn cpus() -> u64 {
    u64::MAX >> (64 - arch::cpu_count().clamp(1, 64))
}

/// The thread that this CPU runs.
#[inline]
pub fn current() -> Option<Arc<Thread>> {
    this().current.borrow().clone()
}

/// A hook on behalf of the thread that this CPU runs: calls `f` with it, then does what [`finish_hook`] does.
#[inline(always)]
pub fn serve_current(f: impl FnOnce(&Arc<Thread>)) {
    let own = this();
    if let Some(thread) = &*own.current.borrow() {
        f(thread);
    }
    finish(own);
}

/// When this CPU last read the clock: at its last switch or tick.
#[inline]
pub fn recent_ns() -> u64 {
    this().switched_at.get()
}

/// Calls `f` with the thread that this CPU runs. `f` does not change threads.
#[inline(always)]
pub fn with_current(f: impl FnOnce(&Arc<Thread>)) {
    if let Some(thread) = &*this().current.borrow() {
        f(thread);
    }
}

/// Its process.
pub fn current_process() -> Option<Arc<Process>> {
    this()
        .current
        .borrow()
        .as_ref()
        .map(|t| t.process().clone())
}

/// Drops a handle at the end of the hook, when nothing is borrowed.
pub fn drop_later(handle: Handle) {
    LATER.borrow_mut().push(handle);
    put_aside();
}

/// What a hook does last: drops what was put aside, and changes threads if it must. Call it without borrows.
#[inline]
pub fn finish_hook() {
    finish(this());
}

#[inline(always)]
fn finish(own: &'static Cpu) {
    while own.resched.get() || PUT_ASIDE.get() {
        finish_work(own);
    }
}

fn finish_work(own: &Cpu) {
    if PUT_ASIDE.replace(false) {
        crate::ipc::channel::empty_grave();
        loop {
            let Some(handle) = LATER.borrow_mut().pop() else {
                break;
            };
            drop(handle);
        }
    }
    if own.resched.replace(false) {
        reschedule();
    }
}

/// Something waits to be dropped at the end of the hook.
static PUT_ASIDE: Cell<bool> = Cell::new(false);

/// Asks for what was put aside to be dropped.
pub fn put_aside() {
    PUT_ASIDE.set(true);
}

/// Asks for a new decision at the end of the hook.
#[inline]
pub fn request() {
    this().resched.set(true);
}

/// Gives the others of its priority their turn.
pub fn yield_now() {
    let own = this();
    own.slice_end.set(0);
    own.resched.set(true);
}

/// Between these two calls the first thread that wakes may take over the CPU, since the current one blocks.
#[inline]
pub fn set_calling(calling: bool) {
    this().calling.set(calling);
}

/// A blocked thread may go on.
#[inline]
pub fn wake(thread: Arc<Thread>) {
    if thread.state.get() != RunState::Blocked {
        return;
    }
    if this().calling.replace(false) {
        hand_off(thread);
    } else {
        let cpu = choose_cpu(&thread);
        make_ready(thread, cpu);
    }
}

/// A blocked thread may go on, at once if it may on this CPU: the current one is about to block in a call to it.
#[inline]
pub fn hand_off(thread: Arc<Thread>) {
    if !thread.suspended.get() && thread.affinity.get() & 1 << arch::cpu_id() != 0 {
        thread.state.set(RunState::Ready);
        *this().handoff.borrow_mut() = Some(thread);
    } else {
        let cpu = choose_cpu(&thread);
        make_ready(thread, cpu);
    }
}

/// A blocked thread may go on, on this CPU if it may: who woke it is likely to block soon.
#[inline]
pub fn wake_near(thread: Arc<Thread>) {
    if thread.state.get() != RunState::Blocked {
        return;
    }
    let mut cpu = arch::cpu_id();
    if thread.affinity.get() & 1 << cpu == 0 {
        cpu = choose_cpu(&thread);
    }
    make_ready(thread, cpu);
}

/// Puts a new thread into a queue.
pub fn start(thread: &Arc<Thread>) {
    wake(thread.clone());
}

#[inline]
fn is_idle(cpu: usize) -> bool {
    let cpu = &CPUS[cpu];
    cpu.current.borrow().is_none() && cpu.queue.borrow().is_empty()
}

fn choose_cpu(thread: &Thread) -> usize {
    let online = ONLINE.get();
    let own = arch::cpu_id();
    if online == 1 {
        return own;
    }
    let allowed = match thread.affinity.get() & online {
        // Its CPUs do not exist: better anywhere than nowhere.
        0 => online,
        mask => mask,
    };
    let last = thread.cpu.get();
    if allowed & 1 << last != 0 && is_idle(last) {
        return last;
    }
    let mut left = allowed;
    while left != 0 {
        let cpu = left.trailing_zeros() as usize;
        left &= left - 1;
        if is_idle(cpu) {
            return cpu;
        }
    }
    if allowed & 1 << last != 0 {
        last
    } else if allowed & 1 << own != 0 {
        own
    } else {
        allowed.trailing_zeros() as usize
    }
}

#[inline]
fn make_ready(thread: Arc<Thread>, cpu: usize) {
    if thread.suspended.get() {
        thread.state.set(RunState::Suspended);
        return;
    }
    thread.state.set(RunState::Ready);
    thread.cpu.set(cpu);
    let target = &CPUS[cpu];
    let priority = thread.priority();
    target.queue.borrow_mut().push(priority, thread);
    let running = target.current.borrow().as_ref().map(|t| t.priority());
    if running.is_none_or(|p| priority > p) {
        if cpu == arch::cpu_id() {
            target.resched.set(true);
        } else {
            kick(cpu);
        }
    }
}

/// Makes another CPU decide anew.
fn kick(cpu: usize) {
    if !CPUS[cpu].kicked.replace(true) {
        arch::send_reschedule(cpu);
    }
}

/// Makes other CPUs of a mask decide anew.
pub fn interrupt_cpus(mask: u64) {
    let others = mask & ONLINE.get() & !(1 << arch::cpu_id());
    (0..MAX_CPUS)
        .filter(|cpu| others & 1 << cpu != 0)
        .for_each(kick);
}

/// A reschedule interrupt arrived.
pub fn kicked() {
    let own = this();
    own.kicked.set(false);
    own.resched.set(true);
    // The I/O ports of its process may have changed.
    with_current(|thread| thread.process().load_ports());
}

/// A device interrupt arrived here.
pub fn count_interrupt() {
    let own = this();
    own.interrupts.set(own.interrupts.get() + 1);
}

/// Makes sure that this CPU's timer fires at `deadline` or before.
#[inline]
pub fn arm(deadline: u64) {
    let own = this();
    if deadline < own.armed.get() {
        own.armed.set(deadline);
        arch::arm_timer(Some(deadline));
    }
}

/// The timer fired.
pub fn tick() {
    let own = this();
    own.armed.set(FOREVER);
    let now = arch::now_ns();
    timeouts::expire(now);
    let current = own.current.borrow().clone();
    if let Some(thread) = current {
        charge(&thread, own, now);
        if now >= own.slice_end.get() {
            own.slice_end.set(now + SLICE_NS);
            let rival = own.queue.borrow().highest();
            if rival.is_some_and(|p| p >= thread.priority()) {
                own.resched.set(true);
            } else if !own.queue.borrow().is_empty() {
                share_with_idle();
            }
        }
        arm(own.slice_end.get());
    }
    if timeouts::earliest() != FOREVER {
        arm(timeouts::earliest());
    }
}

/// This CPU has more than it can run: wakes an idle one, which steals.
fn share_with_idle() {
    if let Some(cpu) = (0..MAX_CPUS).find(|&cpu| CPUS[cpu].online.get() && is_idle(cpu)) {
        kick(cpu);
    }
}

/// Charges CPU time up to `now`, and takes the priority of who used up its budget.
fn charge(thread: &Arc<Thread>, cpu: &Cpu, now: u64) {
    let used = now.saturating_sub(cpu.switched_at.replace(now));
    thread.cpu_time.set(thread.cpu_time.get() + used);
    if !thread.has_budget() {
        return;
    }
    if now.saturating_sub(thread.budget_since.get()) >= BUDGET_PERIOD_NS {
        thread.budget_since.set(now);
        thread.budget_used.set(0);
    }
    thread.budget_used.set(thread.budget_used.get() + used);
    if thread.budget_used.get() > thread.budget.get() && !thread.demoted.get() {
        thread.demoted.set(true);
        let until = now + BUDGET_PERIOD_NS - thread.budget.get().min(BUDGET_PERIOD_NS);
        timeouts::insert(
            until,
            thread.base.koid(),
            timeouts::Target::Budget(Arc::downgrade(thread)),
        );
        cpu.resched.set(true);
    }
}

/// A thread that used up its budget has a new one.
pub fn refill(thread: &Arc<Thread>) {
    requeue(thread, |t| {
        t.demoted.set(false);
        t.budget_used.set(0);
        t.budget_since.set(arch::now_ns());
    });
}

/// Changes something that decides where a thread stands in its queue.
pub fn requeue(thread: &Arc<Thread>, change: impl FnOnce(&Thread)) {
    let queue = &CPUS[thread.cpu.get()].queue;
    let queued = thread.state.get() == RunState::Ready
        && queue
            .borrow_mut()
            .remove(|t| Arc::ptr_eq(t, thread))
            .is_some();
    change(thread);
    if queued {
        make_ready(thread.clone(), choose_cpu(thread));
    } else if thread.state.get() == RunState::Running {
        if thread.cpu.get() == arch::cpu_id() {
            this().resched.set(true);
        } else {
            kick(thread.cpu.get());
        }
    }
}

/// Ends a thread: at once if it is not on a CPU, else when its CPU enters the kernel, which an interrupt forces.
pub fn kill_thread(thread: &Arc<Thread>) {
    if thread.dying.replace(true) {
        return;
    }
    match thread.state.get() {
        RunState::Running if thread.cpu.get() == arch::cpu_id() => request(),
        RunState::Running => kick(thread.cpu.get()),
        RunState::Ready => {
            let cpu = &CPUS[thread.cpu.get()];
            let queued = cpu
                .queue
                .borrow_mut()
                .remove(|t| Arc::ptr_eq(t, thread))
                .is_some();
            if queued {
                end(thread);
            }
            // Else it is about to be handed the CPU, which looks at `dying`.
        }
        RunState::Blocked => {
            thread.unlink();
            end(thread);
        }
        RunState::Suspended => end(thread),
        RunState::Ended => {}
    }
}

fn end(thread: &Arc<Thread>) {
    thread.state.set(RunState::Ended);
    *thread.wait.borrow_mut() = crate::object::thread::Wait::Done;
    if thread.queued_deadline.get() != FOREVER {
        timeouts::remove(thread.queued_deadline.replace(FOREVER), thread.base.koid());
    }
    thread.base.update(Signals::NONE, Signals::TERMINATED);
    thread.process().thread_ended(thread);
}

/// Stops a thread before its next user instruction.
pub fn suspend(thread: &Arc<Thread>) {
    thread.suspended.set(true);
    match thread.state.get() {
        RunState::Running if thread.cpu.get() == arch::cpu_id() => request(),
        RunState::Running => kick(thread.cpu.get()),
        RunState::Ready => {
            let queue = &CPUS[thread.cpu.get()].queue;
            if queue
                .borrow_mut()
                .remove(|t| Arc::ptr_eq(t, thread))
                .is_some()
            {
                thread.state.set(RunState::Suspended);
            }
        }
        // A blocked thread stops when its wait ends.
        _ => {}
    }
}

/// Lets a suspended thread go on.
pub fn resume(thread: &Arc<Thread>) {
    thread.suspended.set(false);
    if thread.state.get() == RunState::Suspended {
        make_ready(thread.clone(), choose_cpu(thread));
    }
}

/// Decides which thread this CPU runs, and makes it so.
pub fn reschedule() {
    let own = this();
    let now = arch::now_ns();
    // Its state is in the processor: it stays alive until another's is.
    let previous = own.current.borrow_mut().take();
    match &previous {
        Some(thread) => {
            charge(thread, own, now);
            put_back(own, thread, now);
        }
        None => {
            own.idle_ns
                .set(own.idle_ns.get() + now.saturating_sub(own.switched_at.replace(now)));
        }
    }
    own.calling.set(false);
    loop {
        let Some(next) = pick(own) else {
            own.resched.set(false);
            return enter_idle(own, previous);
        };
        if next.dying.get() {
            end(&next);
            continue;
        }
        next.state.set(RunState::Running);
        next.cpu.set(arch::cpu_id());
        if next.finish_wait() {
            // What it received may have woken somebody more urgent.
            let urgent = own
                .queue
                .borrow()
                .highest()
                .is_some_and(|p| p > next.priority());
            own.resched.set(urgent);
            return run(own, previous, next, now);
        }
        timeouts::watch(&next);
    }
}

/// Deals with the thread that the CPU ran until now.
#[inline]
fn put_back(own: &Cpu, thread: &Arc<Thread>, now: u64) {
    if thread.state.get() != RunState::Running {
        // Blocked: whoever wakes it knows where it is.
        if thread.dying.get() && thread.state.get() == RunState::Blocked {
            thread.unlink();
            end(thread);
        }
        return;
    }
    if thread.dying.get() {
        return end(thread);
    }
    if thread.suspended.get() {
        thread.state.set(RunState::Suspended);
        return;
    }
    thread.state.set(RunState::Ready);
    let priority = thread.priority();
    let cpu = arch::cpu_id();
    if thread.affinity.get() & 1 << cpu == 0 && thread.affinity.get() & ONLINE.get() != 0 {
        make_ready(thread.clone(), choose_cpu(thread));
    } else if now >= own.slice_end.get() {
        own.queue.borrow_mut().push(priority, thread.clone());
    } else {
        own.queue.borrow_mut().push_front(priority, thread.clone());
    }
}

#[inline]
fn pick(own: &Cpu) -> Option<Arc<Thread>> {
    let handed = own.handoff.borrow_mut().take();
    if let Some(thread) = handed {
        let urgent = own.queue.borrow().highest();
        if urgent.is_none_or(|p| p <= thread.priority().max(PRIORITY_DEFAULT)) {
            return Some(thread);
        }
        own.queue.borrow_mut().push_front(thread.priority(), thread);
    }
    let next = own.queue.borrow_mut().pop();
    next.or_else(steal)
}

/// Takes a thread from the longest queue of the others.
fn steal() -> Option<Arc<Thread>> {
    if ONLINE.get() == 1 {
        return None;
    }
    let cpu = arch::cpu_id();
    let victim = CPUS
        .iter()
        .enumerate()
        .filter(|(n, c)| *n != cpu && !c.queue.borrow().is_empty())
        .max_by_key(|(_, c)| c.queue.borrow().len())?
        .1;
    victim
        .queue
        .borrow_mut()
        .steal(|t| t.affinity.get() & 1 << cpu != 0)
}

#[inline]
fn run(own: &'static Cpu, previous: Option<Arc<Thread>>, next: Arc<Thread>, now: u64) {
    own.switched_at.set(now);
    own.slice_end.set(now + SLICE_NS);
    arm(own.slice_end.get().min(timeouts::earliest()));
    match previous {
        Some(previous) if Arc::ptr_eq(&previous, &next) => {}
        Some(previous) => {
            if !core::ptr::eq(&**previous.process(), &**next.process()) {
                load_space(next.process());
                previous.process().space().left();
            }
            switch(own, Some(&previous), &next);
        }
        None => {
            let idle_space = own.idle_space.borrow_mut().take();
            match idle_space {
                Some(space) if Arc::ptr_eq(&space, next.process().space()) => {
                    if own.stale.replace(false) {
                        arch::flush_all();
                    }
                    next.process().load_ports();
                }
                old => {
                    load_space(next.process());
                    if let Some(old) = old {
                        old.left();
                    }
                }
            }
            switch(own, None, &next);
        }
    }
    *own.current.borrow_mut() = Some(next);
}

/// Changes the processor's state from one thread's to another's.
#[inline]
fn switch(own: &Cpu, from: Option<&Arc<Thread>>, to: &Arc<Thread>) {
    own.switches.set(own.switches.get() + 1);
    // SAFETY: the frame and state lie in a thread that `current` keeps alive until another frame is current; the old
    // thread is a different one, so that the two states do not alias.
    unsafe {
        let from = from.map(|t| &mut *t.arch());
        arch::switch_to(from, &mut *to.arch(), to.frame());
    }
}

#[inline]
fn load_space(process: &Process) {
    process.space().activate();
    process.load_ports();
}

/// Nothing to run. The last address space stays loaded, since its thread is likely to be the next.
fn enter_idle(own: &Cpu, last: Option<Arc<Thread>>) {
    own.switched_at.set(arch::now_ns());
    if let Some(last) = &last {
        *own.idle_space.borrow_mut() = Some(last.process().space().clone());
    }
    let dead = own
        .idle_space
        .borrow()
        .as_ref()
        .is_some_and(|s| s.is_dead());
    if dead {
        leave_space(own);
    }
    let mut idle = own.idle_frame.borrow_mut();
    if let Some((frame, state)) = idle.as_mut() {
        // SAFETY: the idle frame lives as long as the CPU; the last thread's state is saved, so that any CPU may run it next.
        unsafe {
            let from = last.as_ref().map(|t| &mut *t.arch());
            arch::switch_to(from, state, frame);
        }
    }
    drop(idle);
    drop(last);
}

fn leave_space(own: &Cpu) {
    arch::activate_kernel();
    arch::load_io_bitmap(None);
    let old = own.idle_space.borrow_mut().take();
    if let Some(old) = old {
        old.left();
    }
}

/// Of a mask of other CPUs that have an address space loaded, those that idle flush it before they use it again; the rest is
/// returned.
pub fn flush_when_busy(cpus: u64) -> u64 {
    let idle = |cpu: &usize| cpus & 1 << cpu != 0 && CPUS[*cpu].current.borrow().is_none();
    (0..MAX_CPUS).filter(idle).fold(cpus, |rest, cpu| {
        CPUS[cpu].stale.set(true);
        rest & !(1 << cpu)
    })
}

/// A process has ended: CPUs that still have its address space loaded give it up.
pub fn forget_space(space: &Arc<Space>) {
    space.set_dead();
    let cpus = space.cpus();
    let own = this();
    if cpus & 1 << arch::cpu_id() != 0 && own.current.borrow().is_none() {
        own.resched.set(true);
    }
    interrupt_cpus(cpus);
}

/// For `object_info`.
pub fn cpu_infos() -> Vec<CpuInfo> {
    let now = arch::now_ns();
    let info = |(n, cpu): (usize, &Cpu)| {
        let idle = cpu.current.borrow().is_none();
        let running = if idle {
            now.saturating_sub(cpu.switched_at.get())
        } else {
            0
        };
        CpuInfo {
            cpu: n as u32,
            online: u32::from(cpu.online.get()),
            idle_ns: cpu.idle_ns.get() + running,
            context_switches: cpu.switches.get(),
            interrupts: cpu.interrupts.get(),
            queued: cpu.queue.borrow().len() as u64,
        }
    };
    CPUS.iter()
        .enumerate()
        .filter(|(_, c)| c.online.get())
        .map(info)
        .collect()
}
