//! The loop: start, watch, report, serve.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use boot::archive::Archive;
use init::config::Config;
use init::records::{self, Crashes};
use init::services::{self, Grant, OWN_SCHEMES, OnExit, SHELL, Service};
use proto::power::{PowerError, PowerRequest, PowerServer};
use proto::proc::{
    CrashReportsRequest, CrashReportsServer, CrashSummary, ProcError, ProcessesRequest,
    ProcessesServer,
};
use rt::abi::{Quota, ResourceKind};
use rt::ipc::Server;
use rt::process::{Child, Command, Exited, Stdio};
use rt::startup::{AcpiTableVmo, InitStart};
use rt::{
    AsHandle, Channel, Deadline, Error, MapAccess, Mapping, Packet, Port, Resource, Rights,
    Signals, Vmo, Watch, symbols,
};

use crate::ending::{Ending, Way};
use crate::shell;

/// Keys of the port: own schemes, then the shell's starter, then services from this number on.
const KEY_PROC: u64 = 1;
const KEY_POWER: u64 = 2;
const KEY_CRASHES: u64 = 3;
/// Queued by the thread that starts the shell.
pub const KEY_SHELL: u64 = 4;
const KEY_SERVICES: u64 = 0x100;
/// Requests served before the port is asked again, so that no client keeps the others waiting.
const BATCH: usize = 32;

struct Running {
    service: &'static Service,
    child: Child,
}

/// Init's state.
pub struct Supervisor {
    root: Resource,
    system: Resource,
    archive: Vmo,
    /// The archive's bytes, mapped for good.
    bytes: Vec<u8>,
    tables: Vec<AcpiTableVmo>,
    config: Config,
    own_pid: u64,
    port: Port,
    schemes: BTreeMap<&'static str, Scheme>,
    running: Vec<Option<Running>>,
    crashes: Crashes,
    shell: shell::Starter,
    ending: Option<Ending>,
}

struct Scheme {
    client: Channel,
    /// Until the provider gets it.
    server: Option<Channel>,
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
        let len = usize::try_from(start.archive_len).map_err(|e| e.to_string())?;
        let index = read_index(&start.archive, len)?;
        let file = member_text(&start.archive, &index, "etc/boot.cfg")?.unwrap_or_default();
        let config = Config::parse(&file, &start.command_line);
        for problem in config.problems() {
            rt::warn!("{problem}");
        }
        let headless = find(&index, "etc/exec").is_some();
        let derive = |kind| start.root.derive(kind, 0, 1).map_err(text("derive"));
        let system = derive(ResourceKind::System)?;
        let own_pid = start.process.info().map_err(text("own process"))?.koid;
        let port = Port::create().map_err(text("port"))?;
        let shell = shell::Starter::new(headless);
        Ok(Supervisor {
            root: start.root,
            system,
            archive: start.archive,
            bytes: index,
            tables: start.acpi,
            config,
            own_pid,
            port,
            schemes: BTreeMap::new(),
            running: Vec::new(),
            crashes: Crashes::default(),
            shell,
            ending: None,
        })
    }

    /// Runs the system until it ends.
    pub fn run(mut self) {
        if let Err(why) = self.make_schemes() {
            rt::error!("cannot make the schemes: {why}");
            return;
        }
        let names: Vec<String> = match self.config.words("services") {
            Some(words) => words.into_iter().map(String::from).collect(),
            None => services::SERVICES.iter().map(|s| s.name.into()).collect(),
        };
        for name in &names {
            match services::find(name) {
                Some(service) => self.start(service),
                None => rt::error!("boot.cfg names an unknown service: {name:?}"),
            }
        }
        if let Err(why) = self.start_shell() {
            rt::error!("cannot start the shell: {why}");
            self.end(Way::PowerOff(127));
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

    fn make_schemes(&mut self) -> Result<(), Error> {
        let served = services::SERVICES.iter().flat_map(|s| s.grants);
        let names = served.filter_map(|g| match g {
            Grant::Serve(name) => Some(*name),
            _ => None,
        });
        for name in names.chain(OWN_SCHEMES.iter().copied()) {
            let (client, server) = Channel::create()?;
            let server = Some(server);
            self.schemes.insert(name, Scheme { client, server });
        }
        for (name, key) in [
            ("proc", KEY_PROC),
            ("power", KEY_POWER),
            ("crash-reports", KEY_CRASHES),
        ] {
            if let Some(Scheme {
                server: Some(server),
                ..
            }) = self.schemes.get(name)
            {
                server.wait_async(&self.port, key, Signals::READABLE, Watch::Persistent)?;
            }
        }
        Ok(())
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
        let watched =
            child
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
        args: &[String],
    ) -> Result<Child, String> {
        let program = self.program(service.program)?;
        let mut command = Command::new(&program, service.name)
            .args(args)
            .env(self.environment())
            .cwd("/")
            .priority(service.priority)
            .quota(quota(service.priority))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        for grant in service.grants {
            command = self.grant(command, *grant).map_err(text("handles"))?;
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
                let scheme = self.schemes.get_mut(name).ok_or(Error::NotFound)?;
                let server = scheme.server.take().ok_or(Error::AlreadyExists)?;
                command.handle(&format!("serve:{name}"), server)
            }
            Grant::Use(name) => {
                let scheme = self.schemes.get(name).ok_or(Error::NotFound)?;
                command.handle(name, scheme.client.duplicate()?)
            }
            Grant::Archive => {
                let rights = shared | Rights::READ | Rights::MAP | Rights::EXECUTE;
                command.handle("archive", self.archive.duplicate_with(rights)?)
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
            Grant::Resource("log-reader", kind, base, len) => {
                let log = self.root.derive(kind, base, len)?;
                command.handle("log-reader", log.duplicate_with(shared | Rights::READ)?)
            }
            Grant::Resource("system", kind, base, len) => {
                // Looking, not killing: that goes through `proc:`.
                let system = self.root.derive(kind, base, len)?;
                command.handle("system", system.duplicate_with(shared)?)
            }
            Grant::Resource(name, kind, base, len) => {
                command.handle(name, self.root.derive(kind, base, len)?)
            }
        })
    }

    /// What every process finds in its environment.
    fn environment(&self) -> Vec<(String, String)> {
        let session = if self.shell.is_headless() {
            "headless"
        } else {
            "interactive"
        };
        let mut env: Vec<(String, String)> = [
            ("PATH", "/bin:/boot/bin"),
            ("HOME", "/"),
            ("TERM", "vt100"),
            ("BULKHEAD_SESSION", session),
        ]
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .to_vec();
        if let Some(root) = self.config.get("root") {
            env.push(("BULKHEAD_ROOT".into(), root.into()));
        }
        env
    }

    /// A program of the archive: a window on it, so that text is mapped and not copied.
    fn program(&self, name: &str) -> Result<Vmo, String> {
        let (offset, len) =
            find(&self.bytes, name).ok_or_else(|| format!("the boot archive has no {name}"))?;
        let pages = len.next_multiple_of(boot::archive::PAGE_SIZE);
        self.archive
            .slice(offset as u64, pages)
            .map_err(text("boot archive"))
    }

    fn start_shell(&mut self) -> Result<(), String> {
        let scheme = self.schemes.get("console").ok_or("no console")?;
        let console = scheme.client.duplicate().map_err(text("console"))?;
        let port = self.port.duplicate().map_err(text("port"))?;
        self.shell.open_console(console, port)
    }

    fn dispatch(&mut self, key: u64) {
        match key {
            KEY_PROC => self.serve("proc", key, |s, channel| {
                let server = ProcessesServer::new(channel);
                let more = s.drain(&server, Self::serve_proc);
                (server.channel().duplicate(), more)
            }),
            KEY_POWER => self.serve("power", key, |s, channel| {
                let server = PowerServer::new(channel);
                let more = s.drain(&server, Self::serve_power);
                (server.channel().duplicate(), more)
            }),
            KEY_CRASHES => self.serve("crash-reports", key, |s, channel| {
                let server = CrashReportsServer::new(channel);
                let more = s.drain(&server, |s, request| {
                    let CrashReportsRequest::Report { crash } = request;
                    s.crashes.add(crash);
                });
                (server.channel().duplicate(), more)
            }),
            KEY_SHELL => self.console_is_open(),
            key => {
                let index = key.checked_sub(KEY_SERVICES).and_then(|i| usize::try_from(i).ok());
                let ended = index.and_then(|i| self.running.get_mut(i)).and_then(Option::take);
                if let Some(ended) = ended {
                    self.ended(ended);
                }
            }
        }
    }
}
