//! Init of a system that has nothing but the runtime's test: starts it, and says on the outcome port
//! how it ended.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use boot_archive::BootArchive;
use rt::abi::{ResourceKind, Rights};
use rt::process::{Command, Stdio};
use rt::{AsHandle, Deadline, IoPorts, Resource};

rt::entry!(main);

/// QEMU's debug console; see the machine contract in ARCHITECTURE.md.
const OUTCOME_PORT: u16 = 0xe9;

fn main() -> i32 {
    let start = match rt::startup::take_init() {
        Ok(start) => start,
        Err(_) => return 1,
    };
    let status = match run(start.archive, &start.root) {
        Ok(status) => status,
        Err(error) => {
            rt::error!("{error}");
            1
        }
    };
    let line = alloc::format!("exit {status}\n");
    if let Ok(ports) = start
        .root
        .derive(ResourceKind::IoPort, u64::from(OUTCOME_PORT), 1)
        .and_then(|resource| IoPorts::grant(&resource, OUTCOME_PORT, 1))
    {
        for byte in line.bytes() {
            let _ = ports.write8(0, byte);
        }
    }
    // Nobody is left to power the machine off.
    rt::thread::sleep_until(Deadline::FOREVER);
    0
}

fn run(
    archive: rt::Vmo,
    root: &Resource,
) -> Result<i32, alloc::boxed::Box<dyn core::error::Error>> {
    let archive = BootArchive::open(archive)?;
    let program = archive.window("bin/test-runtime")?;
    let log = root.derive(ResourceKind::Log, 0, 1)?;
    let system = root.derive(ResourceKind::System, 0, 1)?;
    let child = Command::new(&program, "test-runtime")
        .handle("log", log)
        .handle(
            "system",
            system.duplicate_with(Rights::INSPECT | Rights::TRANSFER)?,
        )
        .handle("program", program.duplicate()?)
        .stdin(Stdio::Null)
        .stdout(Stdio::Log)
        .stderr(Stdio::Log)
        .spawn()?;
    let ended = child.wait(Deadline::after_secs(600))?;
    rt::info!("test-runtime {ended}");
    Ok(ended.status())
}
