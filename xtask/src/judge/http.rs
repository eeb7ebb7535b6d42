//! `cargo xtask judge http`: clients that mean harm use the web server; honest ones are served meanwhile.

use std::time::Duration;

use super::{Nics, Verdict, hear, memory, outcome, wire};
use crate::hostile::clients::{self, Crowd, Server};
use crate::system::headless::System;

/// What `cargo xtask judge http` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HttpArgs {
    #[command(flatten)]
    pub nics: Nics,
    /// Clients at a time.
    #[arg(long, value_name = "N", default_value_t = 300)]
    clients: usize,
    /// How long slow ones go on, in seconds.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Connections that are opened and dropped.
    #[arg(long, value_name = "N", default_value_t = 3000)]
    dropped: usize,
    /// Only judges whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

pub(super) fn judge(
    args: &HttpArgs,
    nic: &str,
    tell: &mut dyn FnMut(Verdict),
) -> anyhow::Result<()> {
    let arguments = ["--cpus", "2", "--nic", nic, "--forward", "0:80"];
    let mut system = System::start(&arguments)?;
    let port = system.port(80)?;
    system.sh("ip wait 30 >/dev/null", 0)?;
    let server = Server::new(port)?;
    let crowd = Crowd {
        clients: args.clients,
        time: Duration::from_secs(args.seconds),
        dropped: args.dropped,
    };
    let mut say = |judge: &str, (outcome, seen)| {
        tell(Verdict {
            nic: nic.to_owned(),
            judge: judge.to_owned(),
            outcome,
            seen,
        });
    };
    let before = memory(&system)?;
    let wanted = |name: &str| args.only.as_ref().is_none_or(|part| name.contains(part));
    for (name, judge) in clients::ALL.iter().filter(|(name, _)| wanted(name)) {
        let (outcome, mut seen) = hear(&[], || judge(&server, crowd));
        seen.push_str(&format!("; memory {} MiB", memory(&system)? >> 20));
        say(name, (outcome, seen));
    }
    say("alive", outcome(wire::alive(&system)));
    let after = memory(&system)?;
    let seen = format!("{} MiB before, {} MiB after", before >> 20, after >> 20);
    say("memory", (super::Outcome::Passed, seen));
    system.sh("poweroff", 0)?;
    system.ended()
}
