//! Transfers over a wire that loses, doubles, delays and damages frames: a short share of `cargo xtask judge lossy`. The wire is set first by
//! the configuration, then by hand.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::fetch::{CAPTURED_BYTES, fetch, sha256};
use crate::guest::disk::{Access, Disk};
use crate::{build, image, setup, tool};

/// `PORT` is the judge's; QEMU's user network leads 10.0.2.2 to the host.
const SCRIPT: &str = "\
ip wait 60 > /dev/null
nbd virtio1 > /dev/null &
while ! netstat | grep -q 10809; do sleep 0.1; done
echo '== expected'; head -c 262144 /big.bin | sha256sum | cut -c 1-64
echo '== configured'; drv policy eth0 | grep -o 'wire=[^;]*'
echo '== all'; nc 10.0.2.2 PORT
drv policy eth0 wire=loss:2,duplicate:2,reorder:2,corrupt:2,seed:3 > /dev/null; drv restart eth0
echo '== by hand'; nc 10.0.2.2 PORT
drv policy eth0 wire=off > /dev/null; drv restart eth0
echo '== off'; nc 10.0.2.2 PORT
echo '== nonsense'; drv policy eth0 wire=loss:101 2> /dev/null; echo $?
ps | grep nbd | { read pid rest; kill -9 $pid; }
true
";

const WIRE: &str = "loss:5,seed:7";

/// Some of a file from the guest, a little to its disk and back; the hash of what came. Each frame that is lost after its retransmission costs
/// a second at least, the shortest that TCP waits (RFC 6298, 2.4), so there are few.
fn judge(web: u16, nbd: u16, capture: &Path) -> anyhow::Result<String> {
    let url = format!("http://127.0.0.1:{web}/files/big.bin");
    let part = fetch(&["--range", "0-262143", &url], 60, Some(capture))?;
    let mut writer = tool::command("qemu-io");
    writer.args(["-f", "raw"]);
    for command in ["write -P 90 100M 64k", "flush", "read -P 90 100M 64k"] {
        writer.args(["-c", command]);
    }
    let said = tool::read(writer.arg(format!("nbd://127.0.0.1:{nbd}")))?;
    let said = String::from_utf8_lossy(&said);
    ensure!(!said.contains("failed"), "qemu-io: {said}");
    Ok(format!("{}\n", sha256(&part)?))
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    setup::ensure(&[&[
        setup::needed("curl", "curl"),
        setup::needed("qemu-io", "qemu-utils"),
    ]])?;
    let models = [("virtio-net", "virtio-net-pci"), ("e1000", "e1000")];
    models.into_iter().map(test).collect()
}

fn test((driver, device): (&str, &str)) -> anyhow::Result<SystemTest> {
    // Free now; QEMU takes them a little later.
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let [web, nbd] = &listeners;
    let (web, nbd) = (web.local_addr()?.port(), nbd.local_addr()?.port());
    drop(listeners);
    let calls = TcpListener::bind("127.0.0.1:0").context("a port for the judge")?;
    let port = calls.local_addr()?.port();
    let capture = build::target_folder("system")?.join(format!("bad-wire-{driver}.pcap"));
    let dump = format!(
        "filter-dump,id=dump,netdev=net0,file={},maxlen={CAPTURED_BYTES}",
        capture.display()
    );
    // Gone with this process.
    thread::spawn(move || {
        for mut call in calls.incoming().flatten() {
            let verdict = judge(web, nbd, &capture).unwrap_or_else(|error| format!("{error:#}\n"));
            // The guest that called may be gone: its test tells.
            let _ = call.write_all(verdict.as_bytes());
        }
    });
    let network =
        format!("user,id=net0,hostfwd=tcp:127.0.0.1:{web}-:80,hostfwd=tcp:127.0.0.1:{nbd}-:10809");
    let device = format!("{device},netdev=net0");
    let disk = || -> anyhow::Result<Disk> { Ok(Disk::new(image::demo()?, Access::Snapshot)) };
    let script = SCRIPT.replace("PORT", &port.to_string());
    let test = SystemTest::new(format!("bad-wire-{driver}"), script, check)
        .cpus(2)
        .command_line(&format!("root=disk:/virtio0p1 wire={driver}={WIRE}"))
        .disks([disk()?, disk()?])
        .devices(&["-netdev", &network, "-device", &device, "-object", &dump])
        .time_limit(240)
        .mostly_waits();
    Ok(test)
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let expected = report.section("expected")?;
    compare(
        "configured",
        report.section("configured")?,
        &format!("wire={WIRE}\n"),
    )?;
    for section in ["all", "by hand", "off"] {
        compare(section, report.section(section)?, expected)?;
    }
    compare("nonsense", report.section("nonsense")?, "1\n")?;
    let told = report
        .log
        .lines()
        .filter(|line| line.contains("bad wire: rx "));
    let all = told.clone().find(|line| {
        ["0 doubled", "0 delayed", "0 damaged"]
            .iter()
            .all(|none| !line.contains(&format!(" {none}")))
    });
    ensure!(
        all.is_some(),
        "the log does not tell of faults of all kinds"
    );
    Ok(())
}
