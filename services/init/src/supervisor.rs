//! The loop: start, watch, report, serve.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use boot_archive::BootArchive;
use init::config::Config;
use init::records::{self, Crashes};
use init::services::{self, Argument, Grant, OWN_SCHEMES, OnExit, SHELL, Service};
use proto::power::{PowerRequest, PowerServer};
use proto::proc::{
    CrashReportsRequest, CrashReportsServer, CrashSummary, ProcError, ProcessesRequest,
    ProcessesServer,
};
use rt::abi::{Quota, ResourceKind};
use rt::ipc::Server;
use rt::process::{Child, Command, ExitReason, Stdio};
use rt::startup::{AcpiTableVmo, InitStart};
use rt::{
    AsHandle, Channel, Deadline, Error, Packet, Port, Resource, Rights, Signals, Watch, symbols,
    thread,
};

use crate::ending::{self, Way};
use crate::shell;

/// Keys of the port: own schemes, then threads, then services from [`KEY_SERVICES`] on.
const KEY_PROC: u64 = 1;
const KEY_POWER: u64 = 2;
const KEY_CRASHES: u64 = 3;
/// Queued by the thread that opened the console for the shell.
const KEY_CONSOLE: u64 = 4;
const KEY_SERVICES: u64 = 0x100;
/// Requests served before the port is asked again, so that no client keeps the others waiting.
const BATCH: usize = 32;
/// The system's status when the shell could not be started.
const STATUS_NO_SHELL: i32 = 126;

struct Running {
    service: &'static Service,
    child: Child,
}

/// Init's state.
pub struct Supervisor {
    root: Resource,
    system: Resource,
    archive: BootArchive,
    tables: Vec<AcpiTableVmo>,
    config: Config,
    headless: bool,
    own_pid: u64,
    port: Port,
    /// Clients' ends of all schemes.
    schemes: BTreeMap<&'static str, Channel>,
    /// Servers' ends that wait for their provider.
    providers: BTreeMap<&'static str, Channel>,
    processes: ProcessesServer,
    power: PowerServer,
    crash_reports: CrashReportsServer,
    running: Vec<Option<Running>>,
    crashes: Crashes,
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
            root: start.root,
            system,
            archive,
            tables: start.acpi,
            config,
            port,
            schemes,
            providers,
            running: Vec::new(),
            crashes: Crashes::default(),
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
            match services::find(name) {
                Some(service) if !self.is_wanted(service) => {}
                Some(service) => self.start(service),
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
            let count = match self.port.wait(&mut packets, Deadline::FOREVER) {
                Ok(count) => count,
                Err(error) => {
                    rt::error!("waiting failed: {error}");
                    return;
                }
            };
            for packet in packets.iter().take(count) {
                self.dispatch(packet.key);
            }
        }
    }

    fn dispatch(&mut self, key: u64) {
        match key {
            KEY_PROC => self.drain(self.processes.clone(), key, Self::serve_process),
            KEY_POWER => self.drain(self.power.clone(), key, Self::serve_power),
            KEY_CRASHES => self.drain(self.crash_reports.clone(), key, |init, request| {
                let CrashReportsRequest::Report { crash } = request;
                init.crashes.add(crash);
            }),
            KEY_CONSOLE => {
                if let Err(why) = self.start_shell() {
                    self.no_shell(&why);
                }
            }
            key => {
                let index = key.checked_sub(KEY_SERVICES);
                let slot = index
                    .and_then(|i| usize::try_from(i).ok())
                    .and_then(|i| self.running.get_mut(i));
                if let Some(ended) = slot.and_then(Option::take) {
                    self.ended(&ended);
                }
            }
        }
    }

    fn drain<S: Server>(&mut self, server: S, key: u64, serve: fn(&mut Self, S::Request)) {
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

    /// Starts a service; a failure is reported and the system goes on without it.
    fn start(&mut self, service: &'static Service) {
        match self.spawn(service, [Stdio::Null, Stdio::Log, Stdio::Log], &[]) {
            Ok(child) => self.watch(service, child),
            Err(why) => rt::error!("cannot start {}: {why}", service.name),
        }
    }

    fn watch(&mut self, service: &'static Service, child: Child) {
        let key = KEY_SERVICES.saturating_add(self.running.len() as u64);
        let watched = child
            .process()
            .wait_async(&self.port, key, Signals::TERMINATED, Watch::Once);
        if let Err(error) = watched {
            rt::error!("cannot watch {}: {error}", service.name);
        }
        self.running.push(Some(Running { service, child }));
    }

    fn spawn(
        &mut self,
        service: &'static Service,
        [stdin, stdout, stderr]: [Stdio; 3],
        args: &[&str],
    ) -> Result<Child, String> {
        let program = self
            .archive
            .window(service.program)
            .map_err(|e| format!("{}: {e}", service.program))?;
        let own = service.arguments.iter().map(|argument| match argument {
            Argument::Session => self.session(),
            Argument::ControlPort => self.config.get("control").unwrap_or(""),
        });
        let mut command = Command::new(&program, service.name)
            .args(own.chain(args.iter().copied()))
            .env(self.environment())
            .cwd("/")
            .priority(service.priority)
            .quota(quota(service))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        for grant in service.grants {
            command = self
                .grant(command, *grant)
                .map_err(|e| format!("{grant:?}: {e}"))?;
        }
        command.spawn().map_err(|e| e.to_string())
    }

    fn grant<'a>(&mut self, command: Command<'a>, grant: Grant) -> Result<Command<'a>, Error> {
        let shared = Rights::DUPLICATE | Rights::TRANSFER | Rights::INSPECT;
        Ok(match grant {
            Grant::Log => {
                let log = self.root.derive(ResourceKind::Log, 0, 1)?;
                command.handle("log", log.duplicate_with(shared | Rights::WRITE)?)
            }
            Grant::Serve(name) => {
                let server = self.providers.remove(name).ok_or(Error::NotFound)?;
                command.handle(&format!("serve:{name}"), server)
            }
            Grant::Use(name) => {
                let client = self.schemes.get(name).ok_or(Error::NotFound)?;
                command.handle(name, client.duplicate()?)
            }
            Grant::Archive => {
                let rights = shared | Rights::READ | Rights::MAP | Rights::EXECUTE;
                command.handle("archive", self.archive.vmo().duplicate_with(rights)?)
            }
            Grant::FirmwareTables => {
                let mut command = command;
                for (number, table) in self.tables.iter().enumerate() {
                    let signature = String::from_utf8_lossy(&table.signature);
                    let name = format!("table:{signature}:{number}");
                    command = command.handle(&name, table.vmo.duplicate()?);
                }
                command
            }
            Grant::Resource(name, kind, base, len) => {
                let resource = self.root.derive(kind, base, len)?;
                match kind {
                    // Reading and looking; killing goes through `proc:`.
                    ResourceKind::Log => {
                        command.handle(name, resource.duplicate_with(shared | Rights::READ)?)
                    }
                    ResourceKind::System => command.handle(name, resource.duplicate_with(shared)?),
                    _ => command.handle(name, resource),
                }
            }
        })
    }

    /// Whether the configuration has a use for the service.
    fn is_wanted(&self, service: &Service) -> bool {
        match service.name {
            "control" => self.config.get("control").is_some(),
            "console" => self.has_console(),
            _ => true,
        }
    }

    /// Whether there is a console, with a shell at it.
    fn has_console(&self) -> bool {
        self.config.get("console") != Some("off")
    }

    fn session(&self) -> &'static str {
        if self.headless {
            "headless"
        } else {
            "interactive"
        }
    }

    /// What every process finds in its environment.
    fn environment(&self) -> Vec<(String, String)> {
        let root = self.config.get("root").map(|root| ("BULKHEAD_ROOT", root));
        [
            ("PATH", "/bin:/boot/bin"),
            ("HOME", "/"),
            ("TERM", "vt100"),
            ("BULKHEAD_SESSION", self.session()),
        ]
        .into_iter()
        .chain(root)
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
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
        let child = self.spawn(&SHELL, [input, output, errors], args)?;
        self.watch(&SHELL, child);
        Ok(())
    }

    fn no_shell(&mut self, why: &str) {
        rt::error!("cannot start the shell: {why}");
        self.end(Way::PowerOff(STATUS_NO_SHELL));
    }

    /// Reports how a service ended. A policy that restarts it would decide here.
    fn ended(&mut self, ended: &Running) {
        let Running { service, child } = ended;
        let exited = match child.try_wait() {
            Ok(Some(exited)) => exited,
            other => {
                rt::error!("{}: no exit record ({other:?})", service.name);
                return;
            }
        };
        let name = service.name;
        if exited.reason == ExitReason::Exited(0) {
            rt::info!("{name} ended");
        } else {
            rt::error!("{name} (process {}): {exited}", exited.info.koid);
        }
        if let Some(crash) = &exited.crash {
            let program = self.archive.read(service.program).unwrap_or_default();
            let mut report = String::new();
            let symbols = symbols::Symbols::parse(&program);
            // Writing to a string does not fail.
            let _ = symbols::write_crash_report(crash, &symbols, &mut report);
            for line in report.lines() {
                rt::error!("{line}");
            }
            self.crashes.add(CrashSummary {
                pid: crash.process_koid,
                name: name.to_string(),
                time_ns: crash.time_ns,
                reason: records::first_line(&report),
                text: report,
            });
        }
        if service.on_exit == OnExit::PowerOff {
            self.end(Way::PowerOff(exited.status()));
        }
    }

    /// Ends the system in a thread, since it waits for console and firmware.
    fn end(&mut self, way: Way) -> bool {
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
            ProcessesRequest::Crashes { reply } => reply.ok(self.crashes.recent()),
            ProcessesRequest::System { reply } => {
                match (self.system.kernel_stats(), self.system.cpus()) {
                    (Ok(stats), Ok(cpus)) => reply.ok(records::system(&stats, &cpus)),
                    (Err(error), _) | (_, Err(error)) => reply.error(kernel(error)),
                }
            }
        };
    }
}

/// A service may use what the machine has, but not a higher priority than its own.
fn quota(service: &Service) -> Quota {
    Quota {
        pages: u64::MAX,
        handles: 65_536,
        threads: 1_024,
        processes: 1_024,
        max_priority: u32::from(service.priority),
    }
}
