//! `lsblk`: lists disks and partitions.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::block::{Access, BlockEndpointClient};
use rt::proto::devmgr::{EndpointInfo, EndpointsClient};
use tools::service;
use unix::fs::Mount;
use unix::{Arg, Args, Stop, Tool};
unix::program!("lsblk", HELP, run);

const HELP: &str = "\
Usage: lsblk [-b]
List every disk with its partitions: size, whether it is read-only, driver, where it is mounted.

  -b  sizes in bytes
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut bytes = false;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('b') => bytes = true,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: EndpointsClient = service::connect(tool, "disk")?;
    service::answer(tool, "cannot list disks", client.wait_settled())?;
    let list = service::answer(tool, "cannot list disks", client.list())?;
    // Without volumes the column stays empty.
    let mounts = unix::fs::mounts().unwrap_or_default();
    let head = [
        "NAME",
        "SIZE",
        "RO",
        "TYPE",
        "BLOCK",
        "DRIVER",
        "MOUNTPOINTS",
    ];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    let parts: Vec<&EndpointInfo> = list.iter().filter(|e| e.parent.is_some()).collect();
    for disk in list.iter().filter(|e| e.parent.is_none()) {
        rows.push(row(&client, disk, &mounts, "", bytes));
        let mut own = parts
            .iter()
            .filter(|p| p.parent.as_deref() == Some(&disk.name))
            .peekable();
        while let Some(part) = own.next() {
            let branch = if own.peek().is_some() { "|-" } else { "`-" };
            rows.push(row(&client, part, &mounts, branch, bytes));
        }
    }
    tool.out
        .bytes(tools::table::render(&rows, &[0, 3, 5, 6]).as_bytes())
}

fn row(
    client: &EndpointsClient,
    e: &EndpointInfo,
    mounts: &[Mount],
    branch: &str,
    bytes: bool,
) -> Vec<String> {
    let info = client
        .open(&e.name)
        .ok()
        .and_then(|(_, channel, _)| BlockEndpointClient::new(channel).info().ok());
    let (size, read_only, block) = match &info {
        Some(info) => {
            let size = info.block_count.saturating_mul(u64::from(info.block_size));
            let size = if bytes {
                format!("{size}")
            } else {
                unix::size::human(size)
            };
            (
                size,
                if info.access == Access::ReadOnly {
                    "1"
                } else {
                    "0"
                },
                format!("{}", info.block_size),
            )
        }
        None => (String::from("?"), "?", String::from("?")),
    };
    let source = format!("disk:/{}", e.name);
    let targets: Vec<&str> = mounts
        .iter()
        .filter(|m| m.source == source)
        .map(|m| m.target.as_str())
        .collect();
    alloc::vec![
        format!("{branch}{}", e.name),
        size,
        String::from(read_only),
        String::from(if e.parent.is_some() { "part" } else { "disk" }),
        block,
        e.driver.clone(),
        targets.join(","),
    ]
}
