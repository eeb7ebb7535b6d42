//! A driver that is not in the boot archive: found in `/drivers` of the root file system, unloaded, and loaded again.

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::build::{self, Built};
use crate::guest::disk::{Access, Disk};
use crate::image;

/// A network card of the driver.
const DEVICES: [&str; 4] = [
    "-netdev",
    "user,id=n0,restrict=on",
    "-device",
    "e1000e,netdev=n0,addr=9",
];

/// The driver is waited for: nobody else does.
const SCRIPT: &str = "\
served() { drv list | grep -c 'running.*e1000'; }
while test $(served) = 0; do sleep 0.1; done
echo '== found'; drv list | grep e1000; drv programs | grep e1000
echo '== unload'; drv unload e1000; served; drv programs | grep -c e1000; sleep 6; served
echo '== load'; drv load e1000; while test $(served) = 0; do sleep 0.1; done; drv list | grep e1000
echo '== reload'; drv reload 00:09.0 /drivers/e1000 >/dev/null; echo $?; served
echo '== others'; drv load no-driver
true
";

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let file = build::target_folder("system")?.join("drivers.img");
    let disk = Disk::new(&file, Access::Snapshot);
    // The disk is of this build: its driver is.
    let make = move |built: &Built| {
        let program = built.programs.iter().find(|p| p.name == "e1000");
        let program = std::fs::read(&program.context("no e1000")?.stripped)?;
        let files: [(&str, &[u8]); 2] = [
            ("drivers/e1000", &program),
            ("drivers/no-driver", b"#!/bin/sh\n"),
        ];
        image::with_files(&file, &files)?;
        Ok(Vec::new())
    };
    let test = SystemTest::new("drivers-folder", SCRIPT, check);
    Ok(vec![
        test.devices(&DEVICES)
            .disks([disk])
            .without("e1000")
            .files(make),
    ])
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let (found, loaded) = (report.section("found")?, report.section("load")?);
    for text in [found, loaded] {
        ensure!(
            text.contains("/pci/00:09.0") && text.contains("net:/eth0"),
            "not in service: {text:?}"
        );
    }
    ensure!(found.contains("/drivers/e1000"), "{found:?}");
    ensure!(loaded.contains("/drivers/e1000: e1000"), "{loaded:?}");
    // Unloaded by hand, and not offered again.
    compare("unload", report.section("unload")?, "0\n0\n0\n")?;
    compare("reload", report.section("reload")?, "0\n1\n")?;
    report.log_line(&["depot", "/drivers/e1000", "for /pci/00:09.0"])?;
    report.log_line(&["drv", "no-driver", "cannot load"])?;
    Ok(())
}
