//! The network from outside: a judge on the host (curl, and the host's own TCP) reads files from the system's web
//! server while the driver of the network interface is killed, and compares them with what was put into the image; QEMU's own
//! tools read, write and zero a disk over NBD.
//!
//! The guest calls the judge when it is ready: it connects to a port of the host, the judge does its work and answers with
//! its findings, and the guest prints them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail, ensure};

use super::{Report, SystemTest, compare};
use crate::fetch::{CAPTURED_BYTES, fetch, sha256};
use crate::guest::disk::{Access, Disk};
use crate::{build, image, setup, tool};

/// `PORT` is the judge's; QEMU's user network leads 10.0.2.2 to the host.
const SCRIPT: &str = "\
echo '== address'; ip wait 30
echo '== ping'; ping -c 2 -i 0.1 10.0.2.2 | grep -c 'bytes from 10.0.2.2'
echo '== refused'; wget -q http://10.0.2.15:81/; echo $?
echo '== loopback'; wget -q -O - http://127.0.0.1/files/big.bin | sha256sum | cut -c 1-64
grep big.bin /SHA256SUMS | cut -c 1-64
nbd virtio1 > /dev/null &
while ! netstat | grep -q 10809; do sleep 0.1; done
echo '== judge'; nc 10.0.2.2 PORT
drv policy eth0 budget=1000 pause-min-ms=1 pause-max-ms=1 > /dev/null
( for i in 1 2 3 4 5 6; do ps | grep virtio-net | { read pid rest; kill -9 $pid; }; sleep 0.4; done ) &
echo '== judge during deaths'; nc 10.0.2.2 PORT
ps | grep nbd | { read pid rest; kill -9 $pid; }
wait
echo '== recoveries'; ifconfig eth0 | grep -c 'replaced 0 times'
true
";

/// What the judge says when nothing is wrong.
const VERDICT: &str = "files as they were put there: 4\n\
                       pages for 32 clients at once: 32\n\
                       a part of a file: 100 bytes, as it should be\n\
                       garbage: refused with 400\n\
                       without the token: 401\n\
                       a disk over NBD: as it should be, also what was written\n";

/// Reads the disk at a port of the host, which has what is in `image`, and writes to its end.
fn judge_disk(nbd: u16, image: &Path) -> anyhow::Result<()> {
    let uri = format!("nbd://127.0.0.1:{nbd}");
    let folder = tempfile::tempdir()?;
    let part = folder.path().join("part");
    let [input, output] = [format!("if={uri}"), format!("of={}", part.display())];
    let raw = ["dd", "-f", "raw", "-O", "raw", "bs=256k", "count=24"];
    tool::read(tool::command("qemu-img").args(raw).args([input, output]))?;
    let read = std::fs::read(&part)?;
    let mut expected = vec![0; 6 << 20];
    File::open(image)?.read_exact(&mut expected)?;
    ensure!(
        read == expected,
        "what NBD gave is not what is in the image"
    );
    let commands = [
        "write -P 90 100M 1M",
        "write -f -P 91 101M 64k",
        "flush",
        "write -z 100M 64k",
        "discard 102M 64k",
        "read -P 0 100M 64k",
        "read -P 90 102464k 960k",
        "read -P 91 101M 64k",
    ];
    let mut writer = tool::command("qemu-io");
    writer.args(["-f", "raw"]);
    for command in commands {
        writer.args(["-c", command]);
    }
    let said = tool::read(writer.arg(&uri))?;
    let said = String::from_utf8_lossy(&said);
    ensure!(!said.contains("failed"), "qemu-io: {said}");
    Ok(())
}

/// Looks at the web server and the disk at ports of the host.
fn judge(web: u16, nbd: u16, image: &Path, capture: &Path) -> anyhow::Result<String> {
    let curl = |arguments: &[&str]| fetch(arguments, 60, Some(capture));
    let url = format!("http://127.0.0.1:{web}");
    let mut verdict = String::new();
    let list = String::from_utf8(curl(&[&format!("{url}/files/SHA256SUMS")])?)?;
    let expected = list
        .lines()
        .find(|line| line.ends_with("big.bin"))
        .and_then(|line| line.split_whitespace().next())
        .context("no hash of big.bin")?;
    let big = format!("{url}/files/big.bin");
    let mut whole = Vec::new();
    for _ in 0..4 {
        whole = curl(&[&big])?;
        let hash = sha256(&whole)?;
        ensure!(hash == expected, "big.bin: {hash}, expected {expected}");
    }
    verdict.push_str("files as they were put there: 4\n");

    let page = format!("{url}/");
    let pages = thread::scope(|scope| {
        let clients: Vec<_> = (0..32).map(|_| scope.spawn(|| curl(&[&page]))).collect();
        clients.into_iter().map(|c| c.join()).collect::<Vec<_>>()
    });
    let mut good = 0;
    for page in pages {
        match page {
            Ok(Ok(page)) if page.len() > 1000 => good += 1,
            Ok(other) => bail!("a page: {} bytes", other?.len()),
            Err(_) => bail!("a client panicked"),
        }
    }
    verdict.push_str(&format!("pages for 32 clients at once: {good}\n"));

    let part = curl(&["--range", "1000-1099", &big])?;
    ensure!(
        Some(part.as_slice()) == whole.get(1000..1100),
        "a part of a file is wrong"
    );
    verdict.push_str("a part of a file: 100 bytes, as it should be\n");

    let mut garbage = TcpStream::connect(("127.0.0.1", web))?;
    garbage.write_all(b"\x00\xff\x16\x03 garbage\r\n\r\n")?;
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "garbage was answered otherwise"
    );
    verdict.push_str("garbage: refused with 400\n");

    let post = format!("{url}/api/driver?node=/pci&action=stop");
    let refused = Command::new("curl")
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            &post,
        ])
        .output()
        .context("curl")?;
    let status = String::from_utf8_lossy(&refused.stdout).into_owned();
    verdict.push_str(&format!("without the token: {status}\n"));

    judge_disk(nbd, image)?;
    verdict.push_str("a disk over NBD: as it should be, also what was written\n");
    Ok(verdict)
}

/// A judge that waits for calls, and its port. It is gone with this process.
fn start_judge(web: u16, nbd: u16, image: PathBuf, capture: PathBuf) -> anyhow::Result<u16> {
    let calls = TcpListener::bind("127.0.0.1:0").context("a port for the judge")?;
    let port = calls.local_addr()?.port();
    thread::spawn(move || {
        for call in calls.incoming().flatten() {
            let verdict =
                judge(web, nbd, &image, &capture).unwrap_or_else(|error| format!("{error:#}\n"));
            let mut call = call;
            // The guest that called may be gone: its test tells.
            let _ = call.write_all(verdict.as_bytes());
        }
    });
    Ok(port)
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    setup::ensure(&[&[
        setup::needed("curl", "curl"),
        setup::needed("qemu-img", "qemu-utils"),
    ]])?;
    // Free now; QEMU takes them a little later.
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let [web, nbd] = &listeners;
    let (web, nbd) = (web.local_addr()?.port(), nbd.local_addr()?.port());
    drop(listeners);
    let capture = build::target_folder("system")?.join("network-virtio-net.pcap");
    let dump = format!(
        "filter-dump,id=dump,netdev=net0,file={},maxlen={CAPTURED_BYTES}",
        capture.display()
    );
    let judge = start_judge(web, nbd, image::demo()?, capture)?;
    let script = SCRIPT.replace("PORT", &judge.to_string());
    let network =
        format!("user,id=net0,hostfwd=tcp:127.0.0.1:{web}-:80,hostfwd=tcp:127.0.0.1:{nbd}-:10809");
    let test = SystemTest::new("network-virtio-net", script, check)
        .cpus(2)
        .command_line("root=disk:/virtio0p1")
        .disks([
            Disk::new(image::demo()?, Access::Snapshot),
            Disk::new(image::demo()?, Access::Snapshot),
        ])
        .devices(&[
            "-netdev",
            &network,
            "-device",
            "virtio-net-pci,netdev=net0",
            "-object",
            &dump,
        ])
        .iommu()
        .time_limit(180);
    Ok(vec![test])
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("address", report.section("address")?, "10.0.2.15/24\n")?;
    compare("ping", report.section("ping")?, "2\n")?;
    compare("refused", report.section("refused")?, "1\n")?;
    let (found, expected) = report
        .section("loopback")?
        .split_once('\n')
        .context("no two hashes")?;
    compare("loopback", found, expected.trim_end())?;
    compare("judge", report.section("judge")?, VERDICT)?;
    let during = report.section("judge during deaths")?;
    compare("judge during deaths", during, VERDICT)?;
    compare("recoveries", report.section("recoveries")?, "0\n")
}
