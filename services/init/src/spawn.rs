//! Starting a service: its program, its priority, exactly its handles.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use init::services::{self, Argument, Grant, Service};
use rt::abi::{Quota, ResourceKind};
use rt::process::{Child, Command, Stdio};
use rt::{AsHandle, Channel, Error, Rights};

use supervision::environment_name;

use crate::supervisor::Supervisor;

impl Supervisor {
    /// Starts a service's program with its handles; `supervisor` is its end of the channel to init.
    pub fn spawn(
        &self,
        service: &'static Service,
        [stdin, stdout, stderr]: [Stdio; 3],
        args: &[&str],
        supervisor: Channel,
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
            .stderr(stderr)
            .handle("supervisor", supervisor);
        for grant in service.grants {
            command = self
                .grant(command, *grant)
                .map_err(|e| format!("{grant:?}: {e}"))?;
        }
        command.spawn().map_err(|e| e.to_string())
    }

    fn grant<'a>(&self, command: Command<'a>, grant: Grant) -> Result<Command<'a>, Error> {
        let shared = Rights::DUPLICATE | Rights::TRANSFER | Rights::INSPECT;
        Ok(match grant {
            Grant::Log => {
                let log = self.log.duplicate_with(shared | Rights::WRITE)?;
                command.handle("log", log)
            }
            Grant::Serve(name) => {
                let server = self.providers.get(name).ok_or(Error::NotFound)?;
                command.handle(&format!("serve:{name}"), server.duplicate()?)
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
    pub fn is_wanted(&self, name: &str) -> bool {
        match name {
            "control" => self.config.get("control").is_some(),
            "console" => self.has_console(),
            _ => true,
        }
    }

    /// Whether there is a console, with a shell at it.
    pub fn has_console(&self) -> bool {
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
        let token = self.config.get("dashboard-token");
        let token = token.map(|token| ("BULKHEAD_DASHBOARD_TOKEN", token));
        let crash = self.config.get("crash");
        let crash = crash.map(|disk| ("BULKHEAD_CRASH", disk));
        let drivers = self.config.get("drivers");
        let drivers = drivers.map(|folder| ("BULKHEAD_DRIVERS", folder));
        let trace = self.config.get("trace");
        let trace = trace.map(|drivers| ("BULKHEAD_TRACE", drivers));
        let wire = self.config.get("wire");
        let wire = wire.map(|wires| ("BULKHEAD_WIRE", wires));
        let restart = services::RESTARTED_BY_OTHERS.iter().filter_map(|name| {
            let words = self.config.get(&format!("restart.{name}"))?;
            Some((environment_name(name), words.to_string()))
        });
        [
            ("PATH", "/bin:/boot/bin"),
            ("HOME", "/"),
            ("TERM", "vt100"),
            ("BULKHEAD_SESSION", self.session()),
        ]
        .into_iter()
        .chain(root)
        .chain(crash)
        .chain(drivers)
        .chain(trace)
        .chain(wire)
        .chain(token)
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .chain(restart)
        .collect()
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
