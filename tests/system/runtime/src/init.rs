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
/// The chipset's reset control register (Intel ICH9, 13.7.5); the machine ends, being started with
/// `-no-reboot`.
const RESET_PORT: u16 = 0xcf9;
/// Resets the processor and everything else.
const RESET_ALL: u8 = 0x06;

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
    let ports = |base: u16| {
        let resource = start
            .root
            .derive(ResourceKind::IoPort, u64::from(base), 1)?;
        IoPorts::grant(&resource, base, 1)
    };
    if let Ok(port) = ports(OUTCOME_PORT) {
        for byte in alloc::format!("exit {status}\n").bytes() {
            let _ = port.write8(0, byte);
        }
    }
    if let Ok(port) = ports(RESET_PORT) {
        let _ = port.write8(0, RESET_ALL);
    }
    // Init must not end before the machine does.
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
