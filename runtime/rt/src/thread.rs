//! Threads of the own process.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use sys::{Deadline, Mutex, Result};

pub use sys::time::{sleep, sleep_until, yield_now};

/// Stack of a thread unless it is told otherwise; pages are allocated at first use.
pub const STACK_BYTES_DEFAULT: usize = 256 * 1024;

/// How a thread is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    priority: Option<u8>,
    affinity: u64,
    stack_bytes: usize,
}

/// Starts a thread: `thread::builder("reader").priority(20).spawn(|| ...)`.
pub fn builder(name: &str) -> Builder {
    Builder {
        name: String::from(name),
        priority: None,
        affinity: 0,
        stack_bytes: STACK_BYTES_DEFAULT,
    }
}

impl Builder {
    /// Priority 0 to 31, at most the process's limit; the process's default else.
    pub fn priority(mut self, priority: u8) -> Builder {
        self.priority = Some(priority);
        self
    }
    /// CPUs that it may run on, a bit each; all else.
    pub fn affinity(mut self, cpus: u64) -> Builder {
        self.affinity = cpus;
        self
    }
    /// Size of its stack, which has a guard page below.
    pub fn stack_bytes(mut self, bytes: usize) -> Builder {
        self.stack_bytes = bytes;
        self
    }
    /// Starts it.
    pub fn spawn<T, F>(self, run: F) -> Result<JoinHandle<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let value = Arc::new(Mutex::new(None));
        let result = value.clone();
        let body = Box::new(move || {
            let value = run();
            *result.lock() = Some(value);
        });
        Ok(JoinHandle {
            running: Some(start::start(self, body)?),
            value,
        })
    }
}

/// A number that no other living thread of this process has.
pub fn own() -> usize {
    start::own()
}

/// A thread that was started. Dropped, it goes on by itself.
pub struct JoinHandle<T> {
    running: Option<start::Running>,
    value: Arc<Mutex<Option<T>>>,
}

impl<T> JoinHandle<T> {
    /// Waits until it has ended; gives what it returned. `TimedOut`, and one can try again;
    /// `BadState` if it has been joined before or gave nothing because it was killed.
    pub fn join(&mut self, deadline: Deadline) -> Result<T> {
        let running = self.running.take().ok_or(sys::Error::BadState)?;
        match running.wait(deadline) {
            Ok(()) => self.value.lock().take().ok_or(sys::Error::BadState),
            Err((running, error)) => {
                self.running = Some(running);
                Err(error)
            }
        }
    }

    /// The kernel's thread.
    #[cfg(target_os = "none")]
    pub fn thread(&self) -> Option<&sys::Thread> {
        self.running.as_ref().map(start::Running::thread)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.detach();
        }
    }
}

#[cfg(target_os = "none")]
mod start {
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::ops::Range;

    use sys::{AsHandle, Deadline, Error, Mutex, PrivateMemory, Result, Signals, Thread};

    use super::Builder;

    type Body = Box<dyn FnOnce() + Send>;

    pub(super) struct Running {
        thread: Thread,
        /// Unmapped only after the thread has ended.
        stack: PrivateMemory,
    }

    /// Threads that nobody joins; their stacks are freed when the next thread starts.
    static DETACHED: Mutex<Vec<Running>> = Mutex::new(Vec::new());

    /// Where the stacks of the threads are that were started.
    static STACKS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

    /// The end of the stack that the caller runs on: that of the first thread is not in the list.
    pub(super) fn own() -> usize {
        let on_stack = 0u8;
        let here = core::ptr::from_ref(core::hint::black_box(&on_stack)).addr();
        let stacks = STACKS.lock();
        let stack = stacks.iter().find(|stack| stack.contains(&here));
        stack.map_or(0, |stack| stack.end)
    }

    extern "C" fn run(_handle: u64, arg: usize) -> ! {
        // SAFETY: `start` passes a box of a body, to this thread alone.
        let body = unsafe { Box::from_raw(arg as *mut Body) };
        (*body)();
        Thread::exit_own()
    }

    pub(super) fn start(builder: Builder, body: Body) -> Result<Running> {
        DETACHED.lock().retain(|running| !running.has_ended());
        let mut stack = PrivateMemory::new(builder.stack_bytes)?;
        // As after a call: 8 below a multiple of 16.
        let range = stack.as_mut_slice().as_mut_ptr_range();
        let range = range.start.addr()..range.end.addr();
        let top = range.end - 8;
        STACKS.lock().push(range.clone());
        let arg = Box::into_raw(Box::new(body));
        let entry = run as extern "C" fn(u64, usize) -> ! as usize;
        let Builder {
            name,
            priority,
            affinity,
            ..
        } = builder;
        // SAFETY: `run` never returns and expects this argument; the stack is this thread's alone and
        // `Running` keeps it until the thread has ended.
        match unsafe { Thread::start_own(&name, entry, top, arg as usize, priority, affinity) } {
            Ok(thread) => Ok(Running { thread, stack }),
            Err(error) => {
                // SAFETY: no thread was started, so the box is still ours.
                drop(unsafe { Box::from_raw(arg) });
                STACKS.lock().retain(|stack| *stack != range);
                Err(error)
            }
        }
    }

    impl Running {
        pub(super) fn thread(&self) -> &Thread {
            &self.thread
        }

        fn has_ended(&self) -> bool {
            self.thread
                .info()
                .is_ok_and(|info| Signals(info.signals).intersects(Signals::TERMINATED))
        }

        pub(super) fn wait(self, deadline: Deadline) -> core::result::Result<(), (Running, Error)> {
            match self.thread.wait_one(Signals::TERMINATED, deadline) {
                Ok(_) => Ok(()),
                Err(error) => Err((self, error)),
            }
        }

        pub(super) fn detach(self) {
            DETACHED.lock().push(self);
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            debug_assert!(self.has_ended(), "a stack is freed after its thread");
            let end = self.stack.as_mut_slice().as_mut_ptr_range().end.addr();
            STACKS.lock().retain(|stack| stack.end != end);
        }
    }
}

#[cfg(not(target_os = "none"))]
mod start {
    use alloc::boxed::Box;

    use sys::{Deadline, Error, Result};

    use super::Builder;

    pub(super) struct Running(std::thread::JoinHandle<()>);

    std::thread_local! {
        static PLACE: u8 = const { 0 };
    }

    /// The place of a variable that each thread has.
    pub(super) fn own() -> usize {
        PLACE.with(|place| core::ptr::from_ref(place).addr())
    }

    pub(super) fn start(builder: Builder, body: Box<dyn FnOnce() + Send>) -> Result<Running> {
        std::thread::Builder::new()
            .name(builder.name)
            .spawn(body)
            .map(Running)
            .map_err(|_| Error::LimitReached)
    }

    impl Running {
        pub(super) fn wait(self, deadline: Deadline) -> core::result::Result<(), (Running, Error)> {
            while !self.0.is_finished() {
                if deadline.has_passed() {
                    return Err((self, Error::TimedOut));
                }
                std::thread::sleep(core::time::Duration::from_millis(1));
            }
            self.0
                .join()
                .map_err(|cause| std::panic::resume_unwind(cause))
        }
        pub(super) fn detach(self) {}
    }
}
