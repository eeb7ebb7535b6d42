//! Clients of the web server that mean harm: a short share of `cargo xtask judge http`.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::hostile::clients::{self, Crowd, Server};
use crate::image;

/// `PORT` is the judge's; QEMU's user network leads 10.0.2.2 to the host.
const SCRIPT: &str = "\
ip wait 60 > /dev/null
while ! netstat | grep -q ':80 '; do sleep 0.1; done
echo '== judge'; nc 10.0.2.2 PORT
true
";

/// A few more than the server has places.
const CROWD: Crowd = Crowd {
    clients: 136,
    time: Duration::from_secs(1),
    dropped: 100,
};

fn judge(web: u16) -> anyhow::Result<()> {
    let server = Server::new(web)?;
    for (name, judge) in clients::ALL {
        judge(&server, CROWD).context(name)?;
    }
    Ok(())
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    // Free now; QEMU takes it a little later.
    let web = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let calls = TcpListener::bind("127.0.0.1:0").context("a port for the judge")?;
    let port = calls.local_addr()?.port();
    // Gone with this process.
    std::thread::spawn(move || {
        for mut call in calls.incoming().flatten() {
            let verdict = match judge(web) {
                Ok(()) => "served\n".to_owned(),
                Err(error) => format!("{error:#}\n"),
            };
            // The guest that called may be gone: its test tells.
            let _ = std::io::Write::write_all(&mut call, verdict.as_bytes());
        }
    });
    let network = format!("user,id=net0,hostfwd=tcp:127.0.0.1:{web}-:80");
    let script = SCRIPT.replace("PORT", &port.to_string());
    let test = SystemTest::new("bad-clients", script, check)
        .cpus(2)
        .command_line("root=disk:/virtio0p1")
        .disks([Disk::new(image::demo()?, Access::Snapshot)])
        .devices(&["-netdev", &network, "-device", "virtio-net-pci,netdev=net0"])
        .time_limit(240)
        .mostly_waits();
    Ok(vec![test])
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("judge", report.section("judge")?, "served\n")?;
    if let Some(line) = report.log.lines().find(|line| line.contains("panic")) {
        anyhow::bail!("in the log: {line}");
    }
    Ok(())
}
