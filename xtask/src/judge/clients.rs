//! Judges that use a service of the system: each returns what it saw, or what is wrong.

use std::thread;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Court, Large, output};
use crate::fetch::{fetch, sha256, sha256_of};
use crate::setup::{Needed, needed};
use crate::tool;

/// Parts of a file that are fetched at a time.
const PARALLEL: usize = 64;
/// Longest time of one program, in seconds, as `timeout` takes it.
const LIMIT_S: &str = "600";
/// Limit of a large file, in seconds.
const FILE_LIMIT_S: u32 = 900;

/// A judge.
pub(super) struct Client {
    pub name: &'static str,
    pub needs: &'static [Needed],
    pub judge: fn(&Court) -> anyhow::Result<String>,
}

pub(super) const ALL: &[Client] = &[
    Client {
        name: "ping",
        needs: &[],
        judge: echoes,
    },
    Client {
        name: "curl",
        needs: &[needed("curl", "curl")],
        judge: whole_file,
    },
    Client {
        name: "curl-64",
        needs: &[needed("curl", "curl")],
        judge: parts_at_a_time,
    },
    Client {
        name: "wrk",
        needs: &[needed("wrk", "wrk")],
        judge: requests,
    },
    Client {
        name: "iperf3",
        needs: &[needed("iperf3", "iperf3")],
        judge: to_the_guest,
    },
    Client {
        name: "iperf3-reverse",
        needs: &[needed("iperf3", "iperf3")],
        judge: from_the_guest,
    },
    Client {
        name: "nbdinfo",
        needs: &[needed("nbdinfo", "libnbd-bin")],
        judge: export,
    },
    Client {
        name: "qemu-img",
        needs: &[needed("qemu-img", "qemu-utils")],
        judge: images,
    },
    Client {
        name: "nbdcopy",
        needs: &[needed("nbdcopy", "libnbd-bin")],
        judge: copies,
    },
    Client {
        name: "fio",
        needs: &[needed("fio", "fio")],
        judge: verified,
    },
];

/// Runs a program of the host with a limit and returns what it printed.
fn printed(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = tool::command("timeout");
    command.args([LIMIT_S, program]).args(arguments);
    Ok(String::from_utf8_lossy(&tool::read(&mut command)?).into_owned())
}

fn curl(court: &Court, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    fetch(arguments, 60, Some(court.capture))
}

/// The guest's ping and its gateway's answers. QEMU's user network passes no echo request into the guest. Nobody sends one again that
/// was under way when the driver died.
fn echoes(court: &Court) -> anyhow::Result<String> {
    const SENT: u64 = 20;
    let mut seen = Vec::new();
    for gateway in ["10.0.2.2", "fec0::2"] {
        let command = format!("ping --json -c {SENT} -W 2 -i 0.2 {gateway}");
        let answer: Value = serde_json::from_str(&output(court.system, &command)?)?;
        let received = answer["received"].as_u64().context("received")?;
        ensure!(
            received <= SENT && received * 2 > SENT,
            "{gateway}: {received} answers to {SENT}"
        );
        seen.push(format!("{received} answers to {SENT} of {gateway}"));
    }
    Ok(seen.join(", "))
}

fn files(court: &Court) -> String {
    format!("http://127.0.0.1:{}/files", court.web)
}

fn whole_file(court: &Court) -> anyhow::Result<String> {
    let Large { name, bytes, hash } = court.large;
    let (url, copy) = (
        format!("{}/{name}", files(court)),
        court.folder.join("copy"),
    );
    let output = copy.display().to_string();
    fetch(
        &["--output", &output, &url],
        FILE_LIMIT_S,
        Some(court.capture),
    )?;
    let got = sha256_of(&copy)?;
    std::fs::remove_file(&copy)?;
    ensure!(got == *hash, "{name}: {got}, expected {hash}");
    Ok(format!("a file of {} MiB with the right hash", bytes >> 20))
}

fn parts_at_a_time(court: &Court) -> anyhow::Result<String> {
    let url = format!("{}/big.bin", files(court));
    let whole = curl(court, &[&url])?;
    let part = whole.len() / PARALLEL;
    let fetched = thread::scope(|scope| {
        let client = |n| {
            let range = format!("{}-{}", n * part, (n + 1) * part - 1);
            let url = &url;
            scope.spawn(move || curl(court, &["--range", &range, url]))
        };
        let clients: Vec<_> = (0..PARALLEL).map(client).collect();
        clients.into_iter().map(|c| c.join()).collect::<Vec<_>>()
    });
    for (n, fetched) in fetched.into_iter().enumerate() {
        let Ok(fetched) = fetched else {
            bail!("a client panicked");
        };
        let fetched = fetched.with_context(|| format!("client {n}"))?;
        ensure!(
            whole.get(n * part..(n + 1) * part) == Some(&fetched),
            "client {n} got another part"
        );
    }
    Ok(format!(
        "{PARALLEL} clients at a time, {} KiB each, as they should be",
        part >> 10
    ))
}

fn requests(court: &Court) -> anyhow::Result<String> {
    let seconds = format!("{}s", court.seconds);
    let url = format!("http://127.0.0.1:{}/", court.web);
    // The longest pause is that of a segment that was lost several times.
    let arguments = ["-t", "2", "-c", "16", "-d", &seconds, "--timeout", "30s"];
    let text = printed("wrk", &[&arguments[..], &[&url]].concat())?;
    for sign in ["Socket errors", "Non-2xx"] {
        if let Some(line) = text.lines().find(|line| line.contains(sign)) {
            bail!("{}", line.trim());
        }
    }
    let line = text.lines().find(|line| line.contains(" requests in "));
    Ok(line.context("wrk counted no requests")?.trim().to_owned())
}

fn to_the_guest(court: &Court) -> anyhow::Result<String> {
    throughput(court, &[])
}

fn from_the_guest(court: &Court) -> anyhow::Result<String> {
    throughput(court, &["-R"])
}

fn throughput(court: &Court, direction: &[&str]) -> anyhow::Result<String> {
    let (port, seconds) = (court.iperf.to_string(), court.seconds.to_string());
    let arguments = ["-c", "127.0.0.1", "-p", &port, "-t", &seconds, "--json"];
    let text = printed("iperf3", &[&arguments[..], direction].concat())?;
    let value: Value = serde_json::from_str(&text)?;
    if let Some(error) = value["error"].as_str() {
        bail!("{error}");
    }
    let bytes = value["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
    ensure!(bytes > 0, "nothing was received");
    Ok(format!("{} MiB", bytes >> 20))
}

fn uri(court: &Court) -> String {
    format!("nbd://127.0.0.1:{}", court.nbd)
}

fn export(court: &Court) -> anyhow::Result<String> {
    let text = printed("nbdinfo", &["--json", &uri(court)])?;
    let value: Value = serde_json::from_str(&text)?;
    let export = &value["exports"][0];
    ensure!(
        export["export-size"] == super::SCRATCH_BYTES
            && export["is_read_only"] == false
            && export["can_flush"] == true
            && export["can_fua"] == true
            && export["can_multi_conn"] == true,
        "{export}"
    );
    Ok(format!(
        "{} bytes; flush, FUA, several connections",
        export["export-size"]
    ))
}

fn images(court: &Court) -> anyhow::Result<String> {
    let uri = uri(court);
    let (source, back) = (court.folder.join("in.img"), court.folder.join("out.img"));
    let made = random_image(&source)?;
    let [source, back] = [&source, &back].map(|path| path.display().to_string());
    let raw = ["-f", "raw", "-O", "raw"];
    printed(
        "qemu-img",
        &[&["convert", "-n"], &raw[..], &[&source, &uri]].concat(),
    )?;
    printed(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &source, &uri],
    )?;
    printed(
        "qemu-img",
        &[&["convert"], &raw[..], &[&uri, &back]].concat(),
    )?;
    let read = sha256(&std::fs::read(&back)?)?;
    ensure!(
        read == made,
        "what was read has hash {read}, expected {made}"
    );
    Ok(format!(
        "{} MiB to the disk, compared, and from it",
        super::SCRATCH_BYTES >> 20
    ))
}

/// A file of the disk's length with random bytes in its first half; its hash.
fn random_image(path: &std::path::Path) -> anyhow::Result<String> {
    let mut random = std::fs::File::open("/dev/urandom").context("random numbers")?;
    let mut bytes = vec![0; super::SCRATCH_BYTES as usize];
    let half = bytes.len() / 2;
    std::io::Read::read_exact(&mut random, bytes.split_at_mut(half).0)?;
    std::fs::write(path, &bytes)?;
    sha256(&bytes)
}

fn copies(court: &Court) -> anyhow::Result<String> {
    let source = court.folder.join("copy-in.img");
    let back = court.folder.join("copy-out.img");
    let made = random_image(&source)?;
    let [source, target] = [&source, &back].map(|path| path.display().to_string());
    let several = ["--connections=4", "--requests=16"];
    printed(
        "nbdcopy",
        &[&several[..], &["--flush", &source, &uri(court)]].concat(),
    )?;
    printed("nbdcopy", &[&several[..], &[&uri(court), &target]].concat())?;
    let read = sha256(&std::fs::read(&back)?)?;
    ensure!(
        read == made,
        "what was read has hash {read}, expected {made}"
    );
    Ok("the disk written and read over 4 connections with 16 requests each".to_owned())
}

fn verified(court: &Court) -> anyhow::Result<String> {
    let uri = format!("--uri={}", uri(court));
    let notes = format!("--aux-path={}", court.folder.display());
    let text = printed(
        "fio",
        &[
            "--name=judge",
            "--ioengine=nbd",
            &uri,
            &notes,
            "--rw=randrw",
            "--bsrange=4k-64k",
            "--size=16M",
            "--offset_increment=24M",
            "--numjobs=4",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_backlog=64",
            "--verify_fatal=1",
            "--fsync=64",
            "--group_reporting",
            "--output-format=json",
        ],
    )?;
    // Lines of the engine stand before it.
    let start = text.find('{').context("fio gave no result")?;
    let value: Value = serde_json::from_str(text.get(start..).unwrap_or_default())?;
    let job = &value["jobs"][0];
    ensure!(job["error"] == 0, "fio: error {}", job["error"]);
    Ok(format!(
        "{} reads and {} writes of 4 jobs, verified",
        job["read"]["total_ios"], job["write"]["total_ios"]
    ))
}
