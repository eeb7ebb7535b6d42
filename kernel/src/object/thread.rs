//! Threads: registers, what they wait for, and what the scheduler needs to know.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::cell::UnsafeCell;

use bulkhead_abi::{
    CallArgs, Error, FOREVER, NAME_MAX, ObjectKind, PRIORITY_DEFAULT, Packet, Result, Rights,
    Syscall, ThreadInfo, thread_state,
};

use crate::arch::{Frame, ThreadState};
use crate::ipc::channel::{Channel, Message, Taken};
use crate::ipc::futex;
use crate::ipc::port::Port;
use crate::lock::{Cell, Locked};
use crate::memory::space::Space;
use crate::memory::user;
use crate::object::process::Process;
use crate::object::{Base, Handle};

/// Where a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// In a run queue.
    Ready,
    /// On a CPU.
    Running,
    /// Waits; see [`Wait`].
    Blocked,
    /// Stopped by `debug`.
    Suspended,
    /// Over.
    Ended,
}

/// What a blocked thread waits for, and how its system call ends then.
pub enum Wait {
    /// For nothing: the result is in its registers.
    Done,
    /// For packets: port, user buffer, room in packets.
    Port {
        port: Arc<Port>,
        buffer: usize,
        count: usize,
    },
    /// For a message.
    Read {
        channel: Arc<Channel>,
        side: usize,
        buffers: ReadBuffers,
    },
    /// For the reply to a call.
    Call {
        channel: Arc<Channel>,
        side: usize,
        buffers: ReadBuffers,
    },
    /// For a wake of a word.
    Futex { word: u64 },
}

/// Where a message goes in user memory.
#[derive(Clone, Copy)]
pub struct ReadBuffers {
    pub bytes: usize,
    pub bytes_cap: usize,
    pub handles: usize,
    pub handles_cap: usize,
}

impl ReadBuffers {
    /// The reply's buffers of a call.
    pub fn of_call(args: &CallArgs) -> ReadBuffers {
        ReadBuffers {
            bytes: args.reply_bytes as usize,
            bytes_cap: args.reply_bytes_cap as usize,
            handles: args.reply_handles as usize,
            handles_cap: args.reply_handles_cap as usize,
        }
    }

    /// Whether a message fits.
    pub fn fits(&self, bytes: usize, handles: usize) -> bool {
        bytes <= self.bytes_cap && handles <= self.handles_cap
    }
}

/// Default CPU budget of a thread above the default priority, in each period.
pub const BUDGET_DEFAULT_NS: u64 = 8_000_000;
/// Period of budgets.
pub const BUDGET_PERIOD_NS: u64 = 10_000_000;

/// A thread.
pub struct Thread {
    pub base: Base,
    process: Arc<Process>,
    name: Cell<[u8; NAME_MAX]>,
    frame: UnsafeCell<Frame>,
    arch: UnsafeCell<ThreadState>,
    pub state: Cell<RunState>,
    priority: Cell<u8>,
    pub affinity: Cell<u64>,
    /// CPU where it runs, is queued, or ran last.
    pub cpu: Cell<usize>,
    pub wait: Locked<Wait>,
    reply: Locked<Option<Box<Message>>>,
    /// When its present wait ends.
    pub deadline: Cell<u64>,
    /// Time of its entry in the queue of time-outs; `FOREVER`: none. Entries are left there when a wait ends early, since
    /// most deadlines never come.
    pub queued_deadline: Cell<u64>,
    pub timed_out: Cell<bool>,
    /// It ends before its next user instruction.
    pub dying: Cell<bool>,
    /// It stops before its next user instruction.
    pub suspended: Cell<bool>,
    pub cpu_time: Cell<u64>,
    pub budget: Cell<u64>,
    pub budget_used: Cell<u64>,
    pub budget_since: Cell<u64>,
    /// Used up its budget: runs at the lowest priority until the period ends.
    pub demoted: Cell<bool>,
    blocked_in: Cell<u32>,
    this: Weak<Thread>,
}

// SAFETY: `frame` and `arch` are used under the kernel lock only, like every `Locked`; the trap entry writes the frame
// of the thread that runs on its CPU without the lock, while no other CPU touches a running thread's frame.
unsafe impl Sync for Thread {}
// SAFETY: as above.
unsafe impl Send for Thread {}

impl Thread {
    /// A thread that does not run yet.
    pub fn new(
        process: Arc<Process>,
        name: [u8; NAME_MAX],
        priority: u8,
        affinity: u64,
        frame: Frame,
        state: ThreadState,
    ) -> Arc<Thread> {
        Arc::new_cyclic(|this| Thread {
            base: Base::new(ObjectKind::Thread),
            process,
            name: Cell::new(name),
            frame: UnsafeCell::new(frame),
            arch: UnsafeCell::new(state),
            state: Cell::new(RunState::Blocked),
            priority: Cell::new(priority),
            affinity: Cell::new(affinity),
            cpu: Cell::new(0),
            wait: Locked::new(Wait::Done),
            reply: Locked::new(None),
            deadline: Cell::new(FOREVER),
            queued_deadline: Cell::new(FOREVER),
            timed_out: Cell::new(false),
            dying: Cell::new(false),
            suspended: Cell::new(false),
            cpu_time: Cell::new(0),
            budget: Cell::new(BUDGET_DEFAULT_NS),
            budget_used: Cell::new(0),
            budget_since: Cell::new(0),
            demoted: Cell::new(false),
            blocked_in: Cell::new(u32::MAX),
            this: this.clone(),
        })
    }

    /// A counted reference to itself.
    pub fn arc(&self) -> Arc<Thread> {
        self.this
            .upgrade()
            .expect("a thread that is used has an owner")
    }

    /// Its process.
    #[inline]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Its saved registers, for the trap code.
    #[inline]
    pub fn frame(&self) -> *mut Frame {
        self.frame.get()
    }

    /// Its other processor state, for the trap code.
    #[inline]
    pub fn arch(&self) -> *mut ThreadState {
        self.arch.get()
    }

    /// Sets the name.
    pub fn set_name(&self, name: [u8; NAME_MAX]) {
        self.name.set(name);
    }

    /// The priority at which it runs now.
    #[inline]
    pub fn priority(&self) -> u8 {
        if self.demoted.get() {
            0
        } else {
            self.priority.get()
        }
    }

    /// The priority that was set.
    pub fn base_priority(&self) -> u8 {
        self.priority.get()
    }

    /// Sets the priority; the caller takes care of the queue that it may be in.
    pub fn set_priority(&self, priority: u8) {
        self.priority.set(priority);
    }

    /// Whether it has a CPU budget.
    #[inline]
    pub fn has_budget(&self) -> bool {
        self.priority.get() > PRIORITY_DEFAULT
    }

    /// The number of the system call that it is in.
    #[inline]
    pub fn syscall_number(&self) -> usize {
        // SAFETY: under the kernel lock; the thread is in the kernel, so nobody else uses its frame.
        unsafe { (*self.frame.get()).syscall_number() }
    }

    /// An argument of that system call.
    #[inline(always)]
    pub fn syscall_argument(&self, n: usize) -> usize {
        // SAFETY: as above.
        unsafe { (*self.frame.get()).syscall_argument(n) }
    }

    /// Sets the result of the system call that it is in.
    #[inline]
    pub fn set_result(&self, result: Result<usize>, second: usize) {
        let value = match result {
            Ok(value) => value as isize,
            Err(error) => error as i32 as isize,
        };
        // SAFETY: under the kernel lock; the thread is in the kernel or not on a CPU, so nobody else uses its frame.
        unsafe { (*self.frame.get()).set_result(value, second) };
    }

    /// Ends its wait with a result; the caller wakes it.
    pub fn complete(&self, result: Result<usize>) {
        self.complete_with(result, 0);
    }

    /// Copies bytes of another process straight to where this thread waits for a message, and ends its wait; the caller wakes
    /// it. `false`: it does not fit or a buffer is bad, and nothing happened; the message takes the way through the queue, where
    /// whoever is to blame hears of it.
    #[inline(always)]
    pub fn receive_directly(&self, from: &Space, bytes: usize, len: usize, txid: u64) -> bool {
        let buffers = match &*self.wait.borrow() {
            Wait::Read { buffers, .. } | Wait::Call { buffers, .. } => *buffers,
            _ => return false,
        };
        if len > buffers.bytes_cap
            || user::copy((from, bytes), (self.process.space(), buffers.bytes), len).is_err()
        {
            return false;
        }
        self.complete_with(Ok(len), txid as usize);
        true
    }

    /// Puts a packet straight to where this thread waits for packets, and ends its wait; the caller wakes it. `false`: the
    /// buffer is bad, and nothing happened.
    #[inline]
    pub fn receive_packet(&self, packet: &Packet) -> bool {
        let Wait::Port { buffer, .. } = *self.wait.borrow() else {
            return false;
        };
        if user::write_record(self.process.space(), buffer, packet).is_err() {
            return false;
        }
        self.complete(Ok(1));
        true
    }

    /// Ends its wait with a result and a second value.
    #[inline]
    pub fn complete_with(&self, result: Result<usize>, second: usize) {
        *self.wait.borrow_mut() = Wait::Done;
        self.set_result(result, second);
    }

    /// Hands it the reply to its call; the caller wakes it.
    #[inline]
    pub fn deliver(&self, reply: Box<Message>) {
        *self.reply.borrow_mut() = Some(reply);
    }

    /// Begins a wait; the scheduler takes the CPU away afterwards.
    #[inline]
    pub fn block(&self, wait: Wait, deadline: u64, call: Syscall) {
        *self.wait.borrow_mut() = wait;
        self.deadline.set(deadline);
        self.timed_out.set(false);
        self.blocked_in.set(call as u32);
        self.state.set(RunState::Blocked);
    }

    /// Takes it off the list of whatever it waits for.
    pub fn unlink(&self) {
        match &*self.wait.borrow() {
            Wait::Done => {}
            Wait::Port { port, .. } => port.remove_waiter(self),
            Wait::Read { channel, side, .. } | Wait::Call { channel, side, .. } => {
                channel.remove_waiter(*side, self);
            }
            Wait::Futex { word } => futex::remove(*word, self),
        }
    }

    /// The thread is about to run: ends its wait, now in full. Returns `false` if there was nothing for it (somebody else
    /// took the packet, say) and it waits again.
    #[inline]
    pub fn finish_wait(&self) -> bool {
        if matches!(*self.wait.borrow(), Wait::Done) {
            return true;
        }
        let wait = core::mem::replace(&mut *self.wait.borrow_mut(), Wait::Done);
        let outcome = match &wait {
            Wait::Done => return true,
            Wait::Port {
                port,
                buffer,
                count,
            } => receive_packets(self, port, *buffer, *count).map(|n| (n, 0)),
            Wait::Read {
                channel,
                side,
                buffers,
            } => receive_message(self, channel, *side, buffers),
            Wait::Call { buffers, .. } => {
                let reply = self.reply.borrow_mut().take();
                match reply {
                    Some(reply) => hand_over(self, reply, buffers),
                    None => Err(Error::ShouldWait),
                }
            }
            Wait::Futex { .. } => Err(Error::ShouldWait),
        };
        match outcome {
            Ok((value, second)) => self.set_result(Ok(value), second),
            Err(Error::ShouldWait) if self.timed_out.get() => {
                self.set_result(Err(Error::TimedOut), 0)
            }
            Err(Error::ShouldWait) => {
                match &wait {
                    Wait::Port { port, .. } => port.add_waiter(self.arc()),
                    Wait::Read { channel, side, .. } => channel.add_reader(*side, self.arc()),
                    // Calls and futexes are woken only when they are over, or by time.
                    _ => {}
                }
                *self.wait.borrow_mut() = wait;
                self.state.set(RunState::Blocked);
                return false;
            }
            Err(error) => self.set_result(Err(error), 0),
        }
        self.blocked_in.set(u32::MAX);
        true
    }

    /// For `object_info`.
    pub fn info(&self) -> ThreadInfo {
        let state = match self.state.get() {
            RunState::Ready => thread_state::READY,
            RunState::Running => thread_state::RUNNING,
            RunState::Blocked => thread_state::BLOCKED,
            RunState::Suspended => thread_state::SUSPENDED,
            RunState::Ended => thread_state::ENDED,
        };
        ThreadInfo {
            koid: self.base.koid(),
            process_koid: self.process.base.koid(),
            name: self.name.get(),
            state,
            priority: u32::from(self.priority.get()),
            cpu: self.cpu.get() as u32,
            blocked_in: if state == thread_state::BLOCKED {
                self.blocked_in.get()
            } else {
                u32::MAX
            },
            affinity: self.affinity.get(),
            cpu_time_ns: self.cpu_time.get(),
        }
    }
}

/// Value and second value of a system call.
pub type Values = (usize, usize);

/// Moves packets from a port to a thread's buffer.
#[inline]
pub fn receive_packets(thread: &Thread, port: &Port, buffer: usize, count: usize) -> Result<usize> {
    let space = thread.process.space();
    if port.base.handles() == 0 {
        return Err(Error::Cancelled);
    }
    if !port.has_packet() {
        return Err(Error::ShouldWait);
    }
    let mut n = 0;
    while n < count {
        let at = buffer + n * size_of::<Packet>();
        // Before the packet is taken: it must not be lost to a bad address.
        space.translate(at, true)?;
        space.translate(at + size_of::<Packet>() - 1, true)?;
        let Some(packet) = port.pop() else { break };
        user::write_record(space, at, &packet)?;
        n += 1;
    }
    Ok(n)
}

/// Moves a message from a channel to a thread's buffers.
#[inline]
pub fn receive_message(
    thread: &Thread,
    channel: &Channel,
    side: usize,
    buffers: &ReadBuffers,
) -> Result<Values> {
    let taken = channel.read(side, |bytes, handles| buffers.fits(bytes, handles))?;
    accept(thread, taken, buffers)
}

/// Gives a thread what was read from a channel.
#[inline]
pub fn accept(thread: &Thread, taken: Taken, buffers: &ReadBuffers) -> Result<Values> {
    match taken {
        Taken::Message(message) => hand_over(thread, message, buffers),
        Taken::TooBig(bytes, handles) => {
            thread.set_result(Err(Error::BufferTooSmall), bytes | handles << 32);
            Err(Error::BufferTooSmall)
        }
    }
}

/// Gives a message to a thread: bytes to its memory, handles to its process's table.
#[inline]
fn hand_over(thread: &Thread, mut message: Box<Message>, buffers: &ReadBuffers) -> Result<Values> {
    let space = thread.process.space();
    let bytes = message.bytes();
    let (len, count) = (bytes.len(), message.handles.len());
    if !buffers.fits(len, count) {
        return Err(Error::BufferTooSmall);
    }
    user::write(space, buffers.bytes, bytes)?;
    let txid = message.txid;
    for (n, handle) in core::mem::take(&mut message.handles)
        .into_iter()
        .enumerate()
    {
        // A table that is full gets the invalid handle; the object's handle is dropped.
        let value = thread.process.add_handle(handle).unwrap_or(0);
        user::write_record(space, buffers.handles + n * size_of::<u32>(), &value)?;
    }
    Ok((len | count << 32, txid as usize))
}

/// Rights of the handle that a creator gets to a new thread.
pub const THREAD_RIGHTS: Rights = Rights::ALL;

/// A handle with all rights to a thread.
pub fn handle_to(thread: &Arc<Thread>) -> Handle {
    Handle::new(crate::object::Object::Thread(thread.clone()), THREAD_RIGHTS)
}
