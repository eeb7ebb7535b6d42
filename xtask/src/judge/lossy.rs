//! `cargo xtask judge lossy`: a file from the guest's web server and one to its disk over NBD, over a wire that loses, doubles, delays and
//! damages frames; both arrive as they are, and the times are told.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context, ensure};

use super::{Nics, Running, Verdict, hear};
use crate::fetch::{fetch, sha256};
use crate::setup::needed;
use crate::system::headless::System;
use crate::{build, image, tool};

/// What `cargo xtask judge lossy` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LossyArgs {
    #[command(flatten)]
    pub nics: Nics,
    /// Where chance begins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
    /// Bytes of each transfer, in KiB; less over wires that lose frames: divided by the percentage.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    kib: u64,
    /// Only wires whose description contains this, for example loss:5.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// A wire, and the part of its frames that do not arrive as they were sent, in percent. A retransmission takes a second and more
/// (RFC 6298, 2.4; 1.6 s for QEMU's user network), and nearly each such frame costs one.
struct Wire {
    description: String,
    lost: u64,
}

impl Wire {
    fn new(description: impl Into<String>, lost: u64) -> Wire {
        Wire {
            description: description.into(),
            lost,
        }
    }

    /// Bytes of a transfer over it: a multiple of a disk's block.
    fn length(&self, kib: u64) -> usize {
        (kib / self.lost.max(1)).max(4) as usize * 1024
    }
}

/// The wires: each fault alone at each rate, and all together.
fn wires() -> Vec<Wire> {
    let mut all = vec![Wire::new("off", 0)];
    for (fault, loses) in [
        ("loss", true),
        ("duplicate", false),
        ("reorder", false),
        ("corrupt", true),
    ] {
        all.extend([1, 5, 10, 20].map(|percent| {
            Wire::new(
                format!("{fault}:{percent}"),
                if loses { percent } else { 0 },
            )
        }));
    }
    all.push(Wire::new("loss:5,duplicate:5,reorder:5,corrupt:5", 10));
    all
}

pub(super) fn judge(
    args: &LossyArgs,
    nic: &str,
    tell: &mut dyn FnMut(Verdict),
) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("lossy-")
        .tempdir_in(build::target_folder("judge")?)?;
    let demo = folder.path().join("demo.img");
    std::fs::copy(image::demo()?, &demo).context("a copy of the demo image")?;
    let scratch = folder.path().join("scratch.img");
    File::create(&scratch)?.set_len((args.kib << 10).max(1 << 20) * 2)?;
    let capture = folder.path().join("frames.pcap");
    let paths = [&demo, &scratch, &capture].map(|path| path.display().to_string());
    let [disks @ .., pcap] = &paths;
    let mut arguments = vec!["--cpus", "2", "--nic", nic, "--capture", pcap];
    for disk in disks {
        arguments.extend(["--disk", disk]);
    }
    arguments.extend(["--forward", "0:80", "--forward", "0:10809"]);
    let mut system = System::start(&arguments)?;
    let (web, nbd) = (system.port(80)?, system.port(10_809)?);
    system.sh("ip wait 30 >/dev/null", 0)?;
    let _exporter = Running::start(&system, "nbd virtio1")?;
    let file = folder.path().join("out.bin");
    let mut random = vec![0; (args.kib << 10) as usize];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let served = system.sh("cat /big.bin", 0)?.stdout;
    let needs = [needed("curl", "curl"), needed("qemu-img", "qemu-utils")];
    for wire in wires() {
        let name = &wire.description;
        if args.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let described = match name.as_str() {
            "off" => name.clone(),
            _ => format!("{name},seed:{}", args.seed),
        };
        let sent = &random[..wire.length(args.kib).min(random.len())];
        let fetched = &served[..wire.length(args.kib).min(served.len())];
        let (outcome, seen) = hear(&needs, || {
            system.sh(
                &format!("drv policy eth0 wire={described} >/dev/null && drv restart eth0 && ip wait 60 >/dev/null"),
                0,
            )?;
            let start = Instant::now();
            let range = format!("0-{}", fetched.len() - 1);
            let url = format!("http://127.0.0.1:{web}/files/big.bin");
            let arguments = ["--range", &range, &url];
            let hash = sha256(&fetch(&arguments, 900, Some(&capture))?)?;
            let expected = sha256(fetched)?;
            ensure!(hash == expected, "big.bin: {hash}, expected {expected}");
            let down = start.elapsed().as_secs_f64();
            std::fs::write(&file, sent)?;
            let start = Instant::now();
            let uri = format!("nbd://127.0.0.1:{nbd}");
            let source = file.display().to_string();
            let convert = ["900", "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw"];
            tool::read(tool::command("timeout").args(convert).args([&source, &uri]))?;
            let up = start.elapsed().as_secs_f64();
            // Read where no wire was: the disk's file.
            let hash = sha256(&read_front(&scratch, sent.len())?)?;
            let expected = sha256(sent)?;
            ensure!(hash == expected, "the disk has {hash}, expected {expected}");
            Ok(format!(
                "{} KiB from the guest in {down:.1} s, {} KiB to its disk in {up:.1} s",
                fetched.len() >> 10,
                sent.len() >> 10
            ))
        });
        tell(Verdict {
            nic: nic.to_owned(),
            judge: wire.description.clone(),
            outcome,
            seen,
        });
        // So that the next one writes all of it.
        let blank = vec![0; random.len()];
        std::fs::OpenOptions::new()
            .write(true)
            .open(&scratch)
            .and_then(|mut disk| std::io::Write::write_all(&mut disk, &blank))?;
    }
    system.sh("poweroff", 0)?;
    system.ended()
}

fn read_front(path: &std::path::Path, length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    std::io::Read::read_exact(&mut File::open(path)?, &mut bytes)?;
    Ok(bytes)
}
