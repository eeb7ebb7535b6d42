//! The loop: start, watch, report, serve.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_archive::BootArchive;
use init::config::Config;
use init::records::{self, Crashes};
use init::services::{self, Grant, OWN_SCHEMES, SHELL};
use proto::crash_report::Report;
use proto::power::{PowerRequest, PowerServer};
use proto::proc::{
    CrashReportsRequest, CrashReportsServer, ProcError, ProcessesNextCrashReply, ProcessesRequest,
    ProcessesServer,
};
use proto::services::ServicesServer;
use rt::abi::ResourceKind;
use rt::ipc::Server;
use rt::process::Stdio;
use rt::startup::{AcpiTableVmo, InitStart};
use rt::{
    AsHandle, Channel, Deadline, Error, Packet, Port, Resource, Rights, Signals, Vmo, Watch, thread,
};

use crate::ending::{self, Way};
use crate::shell;
use crate::slots::{KEY_SLOTS, Slot};

/// Keys of the port: own schemes, then threads, then services from [`KEY_SLOTS`] on.
const KEY_PROC: u64 = 1;
const KEY_POWER: u64 = 2;
const KEY_CRASHES: u64 = 3;
/// Queued by the thread that opened the console for the shell.
const KEY_CONSOLE: u64 = 4;
const KEY_SERVICES: u64 = 5;
/// Requests served before the port is asked again, so that no client keeps the others waiting.
const BATCH: usize = 32;
/// Most who wait for a crash report.
const WAITING_MAX: usize = 16;
/// Lines of a process's log in its report.
const LOG_LINES: usize = 16;
/// The system's status when the shell could not be started.
const STATUS_NO_SHELL: i32 = 126;

/// Init's state.
pub struct Supervisor {
    pub root: Resource,
    system: Resource,
    /// The one that everybody appends to. Services pass it on to what they start, which may outlive them: one for
    /// each incarnation would stay for as long as anything of its time runs.
    pub log: Resource,
    pub archive: BootArchive,
    pub tables: Vec<AcpiTableVmo>,
    pub config: Config,
    pub headless: bool,
    own_pid: u64,
    pub port: Port,
    /// Clients' ends of all schemes.
    pub schemes: BTreeMap<&'static str, Channel>,
    /// Servers' ends: every incarnation of a provider gets a duplicate, so that the scheme outlives it.
    pub providers: BTreeMap<&'static str, Channel>,
    processes: ProcessesServer,
    power: PowerServer,
    crash_reports: CrashReportsServer,
    services: ServicesServer,
    pub slots: Vec<Slot>,
    crashes: Crashes,
    /// Areas of traces, by the numbers of their reports.
    traces: VecDeque<(u64, Vmo)>,
    /// Who waits for a report above a number.
    crash_waiters: VecDeque<(u64, ProcessesNextCrashReply)>,
    console: Option<thread::JoinHandle<Result<shell::Streams, String>>>,
    ending: bool,
}

fn text(what: &'static str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

impl Supervisor {
    /// Takes over what the kernel gave.
    ///
    /// # Errors
    /// A text that says what is missing.
    pub fn new(start: InitStart) -> Result<Supervisor, String> {
        let archive = BootArchive::open(start.archive).map_err(|e| format!("boot archive: {e}"))?;
        let file = match archive.read("etc/boot.cfg") {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        };
        let config = Config::parse(&file, &start.command_line);
        for problem in config.problems() {
            rt::warn!("{problem}");
        }
        let system = start
            .root
            .derive(ResourceKind::System, 0, 1)
            .map_err(text("kernel statistics"))?;
        let log = start
            .root
            .derive(ResourceKind::Log, 0, 1)
            .map_err(text("log"))?;
        let mut schemes = BTreeMap::new();
        let mut providers = BTreeMap::new();
        let served = services::SERVICES.iter().flat_map(|s| s.grants);
        let served = served.filter_map(|g| match g {
            Grant::Serve(name) => Some(*name),
            _ => None,
        });
        for name in served.chain(OWN_SCHEMES.iter().copied()) {
            let (client, server) = Channel::create().map_err(text("channel"))?;
            schemes.insert(name, client);
            providers.insert(name, server);
        }
        let port = Port::create().map_err(text("port"))?;
        let mut own = |name, key| {
            let server: Channel = providers.remove(name).ok_or("no such scheme")?;
            server
                .wait_async(&port, key, Signals::READABLE, Watch::Persistent)
                .map_err(text("port"))?;
            Ok::<Channel, String>(server)
        };
        Ok(Supervisor {
            own_pid: start.process.info().map_err(text("own process"))?.koid,
            headless: archive.find("etc/exec").is_ok(),
            processes: ProcessesServer::new(own("proc", KEY_PROC)?),
            power: PowerServer::new(own("power", KEY_POWER)?),
            crash_reports: CrashReportsServer::new(own("crash-reports", KEY_CRASHES)?),
            services: ServicesServer::new(own("services", KEY_SERVICES)?),
            root: start.root,
            system,
            log,
            archive,
            tables: start.acpi,
            slots: Slot::all(&config),
            config,
            port,
            schemes,
            providers,
            crashes: Crashes::default(),
            traces: VecDeque::new(),
            crash_waiters: VecDeque::new(),
            console: None,
            ending: false,
        })
    }

    /// Runs the system until it ends.
    pub fn run(mut self) {
        let names: Vec<String> = match self.config.words("services") {
            Some(words) => words.into_iter().map(String::from).collect(),
            None => services::SERVICES.iter().map(|s| s.name.into()).collect(),
        };
        for name in &names {
            match self.slot(name) {
                Some(_) if !self.is_wanted(name) => {}
                Some(index) => self.start(index),
                None => rt::error!("boot.cfg names an unknown service: {name:?}"),
            }
        }
        if self.has_console()
            && let Err(why) = self.open_console()
        {
            self.no_shell(&why);
        }
        let mut packets = [Packet::default(); 8];
        loop {
            let count = match self.port.wait(&mut packets, self.next_due()) {
                Ok(count) => count,
                Err(Error::TimedOut) => 0,
                Err(error) => {
                    rt::error!("waiting failed: {error}");
                    return;
                }
            };
            for packet in packets.iter().take(count) {
                self.dispatch(packet.key);
            }
            self.do_due();
        }
    }

    fn dispatch(&mut self, key: u64) {
        match key {
            KEY_PROC => self.drain(self.processes.clone(), key, Self::serve_process),
            KEY_POWER => self.drain(self.power.clone(), key, Self::serve_power),
            KEY_SERVICES => self.drain(self.services.clone(), key, Self::serve_services),
            KEY_CRASHES => self.drain(
                self.crash_reports.clone(),
                key,
                |init, request| match request {
                    CrashReportsRequest::Report { crash } => drop(init.keep_report(crash)),
                    CrashReportsRequest::ReportTraced { crash, area } => {
                        let number = init.keep_report(crash);
                        init.keep_trace(number, area);
                    }
                },
            ),
            KEY_CONSOLE => {
                if let Err(why) = self.start_shell() {
                    self.no_shell(&why);
                }
            }
            key if key >= KEY_SLOTS => self.dispatch_slot(key),
            _ => {}
        }
    }

    pub fn drain<S: Server>(&mut self, server: S, key: u64, serve: impl Fn(&mut Self, S::Request)) {
        for _ in 0..BATCH {
            match server.try_next() {
                Ok(Some(request)) => serve(self, request),
                // Nothing more, or nobody left to ask.
                Ok(None) | Err(_) => return,
            }
        }
        // The watch tells edges only: what is left must be asked for.
        if let Err(error) = self.port.queue(key, 0) {
            rt::error!("port: {error}");
        }
    }

    /// Asks the console for its streams, in a thread that may wait for it.
    fn open_console(&mut self) -> Result<(), String> {
        let console = self.scheme("console")?;
        let port = self.port.duplicate().map_err(text("port"))?;
        let thread = thread::builder("console").spawn(move || {
            let streams = shell::open(console);
            // If this fails the supervisor is gone.
            let _ = port.queue(KEY_CONSOLE, 0);
            streams
        });
        self.console = Some(thread.map_err(text("thread"))?);
        Ok(())
    }

    fn scheme(&self, name: &str) -> Result<Channel, String> {
        let client = self.schemes.get(name).ok_or("no such scheme")?;
        client.duplicate().map_err(text("scheme"))
    }

    fn start_shell(&mut self) -> Result<(), String> {
        let mut thread = self.console.take().ok_or("the console is open already")?;
        let streams = thread
            .join(Deadline::after_secs(1))
            .map_err(text("console"))??;
        let errors = if self.headless {
            Stdio::Log
        } else {
            Stdio::Terminal(streams.output.duplicate().map_err(text("console"))?)
        };
        let (input, output, args): (_, _, &[&str]) = if self.headless {
            let input = Stdio::Pipe(streams.input);
            (input, Stdio::Pipe(streams.output), &["/boot/etc/exec"])
        } else {
            let input = Stdio::Terminal(streams.input);
            (input, Stdio::Terminal(streams.output), &[])
        };
        let index = self.slot(SHELL.name).ok_or("it is not in the table")?;
        self.start_with(index, [input, output, errors], args)
    }

    fn no_shell(&mut self, why: &str) {
        rt::error!("cannot start the shell: {why}");
        self.end(Way::PowerOff(STATUS_NO_SHELL));
    }

    /// Ends the system in a thread, since it waits for console and firmware.
    pub fn end(&mut self, way: Way) -> bool {
        if core::mem::replace(&mut self.ending, true) {
            return false;
        }
        let handles = ending::Handles {
            console: self
                .has_console()
                .then(|| self.scheme("console").ok())
                .flatten(),
            firmware: self.scheme("firmware").ok(),
            log: self.root.derive(ResourceKind::Log, 0, 1).ok(),
            ports: self.root.derive(ResourceKind::IoPort, 0, 1 << 16).ok(),
        };
        let thread = thread::builder("ending").spawn(move || ending::run(&handles, way));
        if let Err(error) = thread {
            rt::error!("cannot end the system: {error}");
            self.ending = false;
        }
        self.ending
    }

    fn serve_power(&mut self, request: PowerRequest) {
        use proto::power::PowerError;
        // A client that is gone does not wait for its answer.
        let _ = match request {
            PowerRequest::PowerOff { status, reply } => match self.end(Way::PowerOff(status)) {
                true => reply.ok(),
                false => reply.error(&PowerError::InProgress),
            },
            PowerRequest::Reboot { reply } => match self.end(Way::Reboot) {
                true => reply.ok(),
                false => reply.error(&PowerError::InProgress),
            },
        };
    }

    /// Adds the process's last words to a report, keeps it, and tells those who wait for one. Gives its number.
    pub fn keep_report(&mut self, mut report: Report) -> u64 {
        report.log =
            rt::log::last_lines(&self.log, report.subject.pid, LOG_LINES).unwrap_or_default();
        let number = self.crashes.add(report);
        for (after, reply) in core::mem::take(&mut self.crash_waiters) {
            match self.crashes.next(after) {
                // Who waited may be gone.
                Some(report) => drop(reply.ok(report)),
                None => self.crash_waiters.push_back((after, reply)),
            }
        }
        number
    }

    /// Keeps the trace of a report; the oldest goes.
    fn keep_trace(&mut self, number: u64, area: Vmo) {
        if self.traces.len() >= records::TRACES_MAX {
            self.traces.pop_front();
        }
        self.traces.push_back((number, area));
    }

    /// The trace of a report, to be read.
    fn trace(&self, number: u64) -> Result<Vmo, ProcError> {
        let found = self.traces.iter().find(|(of, _)| *of == number);
        let (_, area) = found.ok_or(ProcError::NotFound)?;
        let rights = Rights::READ | Rights::TRANSFER | Rights::INSPECT;
        let area = area.duplicate_with(rights);
        area.map_err(|error| ProcError::Kernel(error as i32))
    }

    fn wait_for_crash(&mut self, after: u64, reply: ProcessesNextCrashReply) {
        // The one that waits longest has given up, or asks again.
        if self.crash_waiters.len() >= WAITING_MAX {
            self.crash_waiters.pop_front();
        }
        self.crash_waiters.push_back((after, reply));
    }

    fn serve_process(&mut self, request: ProcessesRequest) {
        let kernel = |error: Error| match error {
            Error::NotFound => ProcError::NotFound,
            error => ProcError::Kernel(error as i32),
        };
        let _ = match request {
            ProcessesRequest::List {
                after,
                limit,
                reply,
            } => match self.system.processes() {
                Ok(all) => reply.ok(records::page(all, after, limit)),
                Err(error) => reply.error(kernel(error)),
            },
            ProcessesRequest::Info { pid, reply } => match self.system.processes() {
                Ok(all) => match all.iter().find(|p| p.koid == pid) {
                    Some(process) => reply.ok(records::process(process)),
                    None => reply.error(&ProcError::NotFound),
                },
                Err(error) => reply.error(kernel(error)),
            },
            ProcessesRequest::Kill { pid, reply, .. } if pid == self.own_pid => {
                reply.error(&ProcError::Protected)
            }
            ProcessesRequest::Kill { pid, code, reply } => match self.system.kill_koid(pid, code) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(kernel(error)),
            },
            ProcessesRequest::Crashes { after, reply } => reply.ok(self.crashes.above(after)),
            ProcessesRequest::NextCrash { after, reply } => match self.crashes.next(after) {
                Some(report) => reply.ok(report),
                None => {
                    self.wait_for_crash(after, reply);
                    Ok(())
                }
            },
            ProcessesRequest::CrashTrace { number, reply } => reply.send(self.trace(number)),
            ProcessesRequest::System { reply } => {
                match (self.system.kernel_stats(), self.system.cpus()) {
                    (Ok(stats), Ok(cpus)) => reply.ok(records::system(&stats, &cpus)),
                    (Err(error), _) | (_, Err(error)) => reply.error(kernel(error)),
                }
            }
        };
    }
}
