//! Devices that are plugged in and taken out while the system runs, over QEMU's control channel: they are
//! bound, their disks come and go, who uses one meanwhile gets a clean error, and it comes back under its name.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Report, SystemTest};
use crate::build;
use crate::guest::disk::{Access, Disk};
use crate::guest::qmp::Qmp;
use crate::image::{self, Layout};

/// Longest wait for the guest's next word.
const LIMIT: Duration = Duration::from_secs(60);

/// The disk comes three times and goes twice: idle, and while it is read.
const SCRIPT: &str = "\
appear() { for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  lsblk | grep -q $1 && return 0; sleep 0.2; done; return 1; }
vanish() { for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  lsblk | grep -q $1 || return 0; sleep 0.2; done; return 1; }
sums() { for i in 1 2 3 4 5; do mount disk:/virtio1 $1 && break; sleep 0.2; done
  ( cd $1 && sha256sum -c --quiet SHA256SUMS && echo whole ); }
echo '== plug'; appear virtio1; echo $?; lsdev | grep 01:00.0; sums /mnt/plug; umount /mnt/plug
echo '== unplug'; vanish virtio1; echo $?; lsdev | grep -c 01:00.0
echo '== again'; appear virtio1; echo $?; sums /mnt/plug
( sleep 1000 ) < /mnt/plug/SHA256SUMS &
( while ( cd /mnt/plug; sha256sum -c --status SHA256SUMS 2> /dev/null ); do true; done; echo reader ended ) &
sleep 1
echo '== under load'; vanish virtio1; echo $?; sleep 2; lsdev | grep -c 01:00.0
umount /mnt/plug; echo umount $?; umount /mnt/plug; echo again $?; kill -9 sleep
echo '== third'; appear virtio1; echo $?; lsdev | grep -c '01:00.0 running'; sums /mnt/plug
echo '== root'; sha256sum -c --quiet /SHA256SUMS && echo whole
echo '== list'; drv list
true
";

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let lines =
        |name: &str| -> anyhow::Result<Vec<&str>> { Ok(report.section(name)?.lines().collect()) };
    let (first, again, third) = (lines("plug")?, lines("again")?, lines("third")?);
    ensure!(first.first() == Some(&"0"), "not bound: {first:?}");
    for (name, section, last) in [
        ("plug", &first, "whole"),
        ("again", &again, "whole"),
        ("third", &third, "1"),
    ] {
        ensure!(
            section.first() == Some(&"0") && section.contains(&last),
            "{name}: {section:?}"
        );
    }
    for name in ["unplug", "under load"] {
        let section = lines(name)?;
        ensure!(
            section.first() == Some(&"0") && section.contains(&"0"),
            "{name}: {section:?}"
        );
    }
    ensure!(
        report.console.contains("reader ended"),
        "who read the disk that was taken out waits for ever"
    );
    let under_load = lines("under load")?;
    ensure!(
        under_load.contains(&"umount 0") && under_load.contains(&"again 32"),
        "what is mounted on a disk that is gone is not taken off: {under_load:?}"
    );
    ensure!(
        third.contains(&"whole"),
        "the disk that came back is not mounted again: {third:?}"
    );
    report.log_line(&["umount", "/mnt/plug", "the disk is gone", "lost: 1"])?;
    super::compare("root", report.section("root")?, "whole\n")?;
    report.log_line(&["01:00.0", "is plugged in"])?;
    report.log_line(&["01:00.0", "is gone"])?;
    Ok(())
}

/// Waits until the console has said this.
fn hear(heard: &mut Receiver<Vec<u8>>, so_far: &mut String, word: &str) -> anyhow::Result<()> {
    while !so_far.contains(word) {
        let bytes = heard
            .recv_timeout(LIMIT)
            .with_context(|| format!("the guest never said {word:?}"))?;
        so_far.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(())
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let socket = build::target_folder("system")?.join("hotplug.qmp");
    let listen = format!("unix:{},server=on,wait=off", socket.display());
    let image = Layout::BareExt2.image()?.file;
    let plugged = format!(
        "driver=raw,node-name=plugged,read-only=on,file.driver=file,file.filename={}",
        image.display()
    );
    let arguments = [
        // Slots by their own registers, not by ACPI's.
        "-global",
        "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        "-device",
        "pcie-root-port,id=slot0,chassis=1,addr=8",
        "-blockdev",
        &plugged,
        "-qmp",
        &listen,
    ];
    let work = move |heard: &mut Receiver<Vec<u8>>| {
        let mut so_far = String::new();
        hear(heard, &mut so_far, "== plug")?;
        let mut qmp = Qmp::open(&socket)?;
        let device = json!({
            "driver": "virtio-blk-pci", "id": "disk1", "bus": "slot0", "drive": "plugged",
            "serial": "plugged", "disable-legacy": "on",
        });
        for (word, command, arguments) in [
            ("== plug", "device_add", &device),
            ("== unplug", "device_del", &json!({ "id": "disk1" })),
            ("== again", "device_add", &device),
            ("== under load", "device_del", &json!({ "id": "disk1" })),
            ("== third", "device_add", &device),
        ] {
            hear(heard, &mut so_far, word)?;
            qmp.execute(command, arguments)?;
            if command == "device_del" {
                qmp.wait_deleted("disk1")?;
            }
        }
        Ok(())
    };
    let test = SystemTest::new("hotplug", SCRIPT, check)
        .cpus(2)
        .time_limit(150)
        .disks([Disk::new(image::demo()?, Access::Snapshot)])
        .devices(&arguments)
        .meanwhile(work);
    Ok(vec![test])
}
