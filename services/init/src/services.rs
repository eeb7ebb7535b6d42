//! The services: program, priority, and exactly the handles that each is given.
//!
//! What is not in a service's list it cannot reach. Schemes are channels that init makes before anything
//! runs and keeps: each incarnation of the provider gets the server's end as `serve:NAME`, a user a client's end
//! as `NAME`. Calls to a provider that does not run yet, or not at present, wait in the channel, so the order of
//! starting does not matter.

use bulkhead_abi::{PRIORITY_DEFAULT, PRIORITY_DRIVER, PRIORITY_MANAGER, ResourceKind};
use proto::devmgr::RestartRules;
use supervision::heartbeat::{DEFAULT_RHYTHM, Rhythm};
use supervision::restart;

/// A handle that a service is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// The log, as `log`: append.
    Log,
    /// The server's end of a scheme, as `serve:NAME`.
    Serve(&'static str),
    /// A client's end of a scheme, as `NAME`.
    Use(&'static str),
    /// The boot archive, read-only and executable, as `archive`.
    Archive,
    /// The firmware's tables, as `table:SIGNATURE:NUMBER`.
    FirmwareTables,
    /// A resource under that name.
    Resource(&'static str, ResourceKind, u64, u64),
}

/// What init does when the service ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExit {
    /// It is started again by these rules, unless `boot.cfg` has others.
    Restart(RestartRules),
    /// The system ends with the service's status.
    PowerOff,
}

/// A word on a service's command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// `interactive` or `headless`.
    Session,
    /// Name of the serial port that the configuration calls `control`.
    ControlPort,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Name, as in `boot.cfg` and in reports.
    pub name: &'static str,
    /// Member of the boot archive.
    pub program: &'static str,
    /// Priority of its first thread, and the highest that it may use.
    pub priority: u8,
    /// Its arguments.
    pub arguments: &'static [Argument],
    /// Its handles.
    pub grants: &'static [Grant],
    /// How often it is asked for a sign of life; `None` for one whose loop may be away for long.
    pub rhythm: Option<Rhythm>,
    /// What its end means.
    pub on_exit: OnExit,
}

/// Schemes that init itself serves.
pub const OWN_SCHEMES: &[&str] = &["proc", "power", "crash-reports", "services"];

/// What other services start: the VFS its file systems, the device manager its bus drivers. `restart.NAME` holds
/// for all of a kind.
pub const RESTARTED_BY_OTHERS: &[&str] = &["volumes", "buses"];

/// For services that may wait for a driver meanwhile.
const PATIENT: Rhythm = Rhythm {
    silence_ms: 60_000,
    ..DEFAULT_RHYTHM
};
const AGAIN: OnExit = OnExit::Restart(restart::DEFAULT_RULES);

const WHOLE: u64 = u64::MAX;
const PORTS: u64 = 1 << 16;

/// The services that init knows, in the order in which they start unless `boot.cfg` says otherwise.
pub const SERVICES: &[Service] = &[
    Service {
        name: "acpi",
        program: "bin/acpi",
        priority: PRIORITY_MANAGER,
        arguments: &[],
        grants: &[
            Grant::Log,
            Grant::Serve("firmware"),
            Grant::FirmwareTables,
            Grant::Resource("ports", ResourceKind::IoPort, 0, PORTS),
            Grant::Resource("mmio", ResourceKind::Mmio, 0, WHOLE),
        ],
        rhythm: Some(DEFAULT_RHYTHM),
        on_exit: AGAIN,
    },
    Service {
        name: "devmgr",
        program: "bin/devmgr",
        priority: PRIORITY_MANAGER,
        arguments: &[],
        grants: &[
            Grant::Log,
            Grant::Archive,
            Grant::Use("firmware"),
            Grant::Use("crash-reports"),
            Grant::Serve("dev"),
            Grant::Serve("drv"),
            Grant::Serve("disk"),
            Grant::Serve("serial"),
            Grant::Serve("net"),
            Grant::Serve("other"),
            Grant::Serve("partitions"),
            Grant::Resource("ports", ResourceKind::IoPort, 0, PORTS),
            Grant::Resource("mmio", ResourceKind::Mmio, 0, WHOLE),
            Grant::Resource("irq", ResourceKind::Irq, 0, 1 << 32),
            Grant::Resource("msi", ResourceKind::Msi, 0, 1 << 16),
            Grant::Resource("dma", ResourceKind::DmaDevice, 0, 1 << 32),
        ],
        rhythm: Some(PATIENT),
        on_exit: AGAIN,
    },
    Service {
        name: "console",
        program: "bin/console",
        priority: PRIORITY_DRIVER,
        arguments: &[Argument::Session, Argument::ControlPort],
        grants: &[Grant::Log, Grant::Use("serial"), Grant::Serve("console")],
        rhythm: Some(PATIENT),
        on_exit: AGAIN,
    },
    Service {
        name: "part",
        program: "bin/part",
        priority: PRIORITY_DRIVER,
        arguments: &[],
        grants: &[Grant::Log, Grant::Use("partitions")],
        rhythm: Some(PATIENT),
        on_exit: AGAIN,
    },
    Service {
        name: "bootfs",
        program: "bin/bootfs",
        priority: PRIORITY_DRIVER,
        arguments: &[],
        grants: &[Grant::Log, Grant::Archive, Grant::Serve("bootfs")],
        rhythm: Some(DEFAULT_RHYTHM),
        on_exit: AGAIN,
    },
    Service {
        name: "vfs",
        program: "bin/vfs",
        priority: PRIORITY_DRIVER,
        arguments: &[],
        grants: &[
            Grant::Log,
            // File-system services are programs of the archive.
            Grant::Archive,
            Grant::Use("bootfs"),
            Grant::Use("disk"),
            Grant::Use("crash-reports"),
            Grant::Serve("file"),
        ],
        rhythm: Some(DEFAULT_RHYTHM),
        on_exit: AGAIN,
    },
    Service {
        name: "depot",
        program: "bin/depot",
        priority: PRIORITY_DEFAULT,
        arguments: &[],
        grants: &[
            Grant::Log,
            Grant::Use("disk"),
            Grant::Use("proc"),
            Grant::Use("file"),
            Grant::Use("dev"),
            Grant::Use("drv"),
        ],
        rhythm: None,
        on_exit: AGAIN,
    },
    Service {
        name: "netstack",
        program: "bin/netstack",
        priority: PRIORITY_DRIVER,
        arguments: &[],
        grants: &[
            Grant::Log,
            Grant::Use("net"),
            Grant::Serve("tcp"),
            Grant::Serve("udp"),
            Grant::Serve("dns"),
            Grant::Serve("ip"),
        ],
        rhythm: Some(DEFAULT_RHYTHM),
        on_exit: AGAIN,
    },
    Service {
        name: "httpd",
        program: "bin/httpd",
        priority: PRIORITY_DEFAULT,
        arguments: &[],
        grants: &[
            Grant::Log,
            Grant::Use("tcp"),
            Grant::Use("ip"),
            Grant::Use("file"),
            Grant::Use("dev"),
            Grant::Use("drv"),
            Grant::Use("proc"),
            Grant::Resource("log-reader", ResourceKind::Log, 0, 1),
        ],
        rhythm: Some(PATIENT),
        on_exit: AGAIN,
    },
    // Only where the configuration names a port for it. It passes on what the shell has.
    Service {
        name: "control",
        program: "bin/control",
        priority: PRIORITY_DRIVER,
        arguments: &[Argument::ControlPort],
        grants: &[
            Grant::Log,
            Grant::Archive,
            Grant::Use("serial"),
            Grant::Use("file"),
            Grant::Use("disk"),
            Grant::Use("other"),
            Grant::Use("net"),
            Grant::Use("dev"),
            Grant::Use("drv"),
            Grant::Use("proc"),
            Grant::Use("services"),
            Grant::Use("power"),
            Grant::Use("tcp"),
            Grant::Use("udp"),
            Grant::Use("dns"),
            Grant::Use("ip"),
            Grant::Resource("log-reader", ResourceKind::Log, 0, 1),
            Grant::Resource("system", ResourceKind::System, 0, 1),
        ],
        rhythm: None,
        on_exit: AGAIN,
    },
];

/// The shell: started when the console is there, with the console's streams.
pub const SHELL: Service = Service {
    name: "sh",
    program: "bin/sh",
    priority: PRIORITY_DEFAULT,
    arguments: &[],
    grants: &[
        Grant::Log,
        Grant::Use("file"),
        Grant::Use("disk"),
        Grant::Use("net"),
        Grant::Use("other"),
        Grant::Use("dev"),
        Grant::Use("drv"),
        Grant::Use("proc"),
        Grant::Use("services"),
        Grant::Use("power"),
        Grant::Use("console"),
        Grant::Use("tcp"),
        Grant::Use("udp"),
        Grant::Use("dns"),
        Grant::Use("ip"),
        // For `log` and `bench`: reading the log and the kernel's counts.
        Grant::Resource("log-reader", ResourceKind::Log, 0, 1),
        Grant::Resource("system", ResourceKind::System, 0, 1),
    ],
    rhythm: None,
    on_exit: OnExit::PowerOff,
};

/// The service of that name.
pub fn find(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Service> {
        SERVICES.iter().chain([&SHELL])
    }

    #[test]
    fn every_scheme_has_one_provider() {
        for service in all() {
            for grant in service.grants {
                if let Grant::Use(name) = grant {
                    let providers = all()
                        .flat_map(|s| s.grants)
                        .filter(|g| **g == Grant::Serve(name))
                        .count();
                    let own = usize::from(OWN_SCHEMES.contains(name));
                    assert_eq!(providers + own, 1, "{name}");
                }
            }
        }
    }

    #[test]
    fn hardware_is_for_two_services_only() {
        for service in all() {
            let hardware = service.grants.iter().any(|g| {
                matches!(g, Grant::Resource(_, kind, ..)
                    if !matches!(kind, ResourceKind::Log | ResourceKind::System))
            });
            assert_eq!(
                hardware,
                ["acpi", "devmgr"].contains(&service.name),
                "{}",
                service.name
            );
        }
    }

    #[test]
    fn a_command_from_a_host_may_what_one_at_the_console_may() {
        let control = find("control").unwrap();
        for grant in SHELL.grants {
            let at_the_console = *grant == Grant::Use("console");
            assert!(
                at_the_console || control.grants.contains(grant),
                "{grant:?}"
            );
        }
    }

    #[test]
    fn nobody_runs_above_the_managers() {
        assert!(all().all(|s| s.priority <= PRIORITY_MANAGER));
        assert!(all().all(|s| s.program.starts_with("bin/")));
    }
}
