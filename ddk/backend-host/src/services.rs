//! Clock, log and threads of the host.

use std::fmt::Arguments;

use ddk::{EventQueue, LogLevel, PlatformError, Work};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

use crate::HostQueue;

/// Nanoseconds of the host's monotonic clock, which every platform on this crate has for its own.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let ns = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(ns)
}

/// Where lines of the log go.
type Sink = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

/// What a platform takes from the host.
pub struct Services {
    sink: Sink,
    cpu_count: usize,
}

impl Services {
    /// The CPUs of the host; lines of the log go to standard error, those for the driver's author left out.
    pub fn new() -> Services {
        let cpu_count = std::thread::available_parallelism().map_or(1, usize::from);
        Services {
            sink: Box::new(|level, text| {
                if level < LogLevel::Debug {
                    eprintln!("{level:?}: {text}");
                }
            }),
            cpu_count,
        }
    }

    /// Gives the log to `sink`.
    #[must_use]
    pub fn with_log(mut self, sink: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Services {
        self.sink = Box::new(sink);
        self
    }

    /// Tells drivers of so many CPUs, at least 1.
    #[must_use]
    pub fn with_cpus(mut self, cpus: usize) -> Services {
        self.cpu_count = cpus.max(1);
        self
    }

    /// See [`ddk::Platform::log`].
    pub fn log(&self, level: LogLevel, text: Arguments<'_>) {
        (self.sink)(level, &text.to_string());
    }

    /// See [`ddk::Platform::event_queue`].
    ///
    /// # Errors
    /// Those of [`HostQueue::new`].
    pub fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(HostQueue::new()?))
    }

    /// See [`ddk::Platform::cpu_count`].
    pub fn cpu_count(&self) -> usize {
        self.cpu_count
    }

    /// See [`ddk::Platform::spawn`]. A CPU that the process may not use is no reason to fail.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        let run = move || {
            if let Some(cpu) = cpu.filter(|cpu| *cpu < CpuSet::MAX_CPU) {
                let mut set = CpuSet::new();
                set.set(cpu);
                let _ = rustix::thread::sched_setaffinity(None, &set);
            }
            work();
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(run);
        started.map(drop).map_err(|_| PlatformError::NoMemory)
    }
}

impl Default for Services {
    fn default() -> Services {
        Services::new()
    }
}

/// The system's errors in the DDK's terms.
pub(crate) fn refused(error: rustix::io::Errno) -> PlatformError {
    use rustix::io::Errno;
    match error {
        Errno::NOMEM | Errno::MFILE | Errno::NFILE => PlatformError::NoMemory,
        Errno::PERM | Errno::ACCESS => PlatformError::NotGranted,
        other => PlatformError::Code(other.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn work_runs_on_a_thread_of_that_name() {
        let (sender, receiver) = mpsc::channel();
        let work = move || {
            let name = std::thread::current().name().map(str::to_owned);
            sender.send(name).unwrap();
        };
        let services = Services::new();
        services.spawn("queue 0", Some(0), Box::new(work)).unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("queue 0"));
    }

    #[test]
    fn lines_of_the_log_reach_the_sink() {
        let (sender, receiver) = mpsc::channel();
        let services = Services::new().with_log(move |level, text| {
            let _ = sender.send((level, text.to_owned()));
        });
        services.log(LogLevel::Debug, format_args!("{} queues", 2));
        assert_eq!(
            receiver.recv().unwrap(),
            (LogLevel::Debug, "2 queues".to_owned())
        );
    }
}
