//! What the program does when it starts itself, by its first argument.

use alloc::string::String;
use alloc::vec::Vec;
use core::hint::black_box;

use rt::io::{Read, Write};
use rt::process::{Child, Command, SpawnError, Stdio};
use rt::{AsHandle, Channel, Deadline, Event, Mapping, SharedMapping, Vmo};

use crate::data_plane;
use crate::protocol::{CalculatorServer, serve};

/// This program's file.
pub fn program() -> Result<Vmo, String> {
    if let Some(program) = rt::startup::handle::<Vmo>("program") {
        return program.duplicate().map_err(crate::at("program"));
    }
    let files = rt::startup::handle::<Channel>(rt::startup::name::FILE).ok_or("no file scheme")?;
    let files = proto::fs::FilesClient::new(files.duplicate().map_err(crate::at("file scheme"))?);
    let path = proto::fs::Bytes::from("/boot/bin/test-runtime");
    let (_, file) = files
        .open(path, proto::fs::OpenFlags::READ)
        .map_err(|e| alloc::format!("open: {e:?}"))?;
    let (_, vmo) = file.vmo().map_err(|e| alloc::format!("vmo: {e:?}"))?;
    Ok(vmo)
}

/// A command that starts this program in a role, with nothing but the log.
pub fn command<'a>(program: &'a Vmo, role: &str) -> Command<'a> {
    Command::new(program, "test-child")
        .arg(role)
        .inherit(["log"])
        .stdin(Stdio::Null)
        .stdout(Stdio::Log)
        .stderr(Stdio::Null)
}

/// Starts this program in a role.
pub fn spawn(role: &str) -> Result<Child, String> {
    let program = program()?;
    command(&program, role)
        .spawn()
        .map_err(crate::at::<SpawnError>("spawn"))
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX {
        0
    } else {
        recurse(depth + 1).wrapping_add(frame[7])
    }
}

#[inline(never)]
fn divide(by: u64) -> u64 {
    match by {
        0 => panic!("division by nothing"),
        by => 1 / by,
    }
}

/// Plays a role; gives the exit code.
pub fn run(role: &str) -> i32 {
    match role {
        "startup" => startup(),
        "exit" => 7,
        "negative" => -3,
        "upper" => upper(),
        "overflow" => (recurse(black_box(0)) & 1) as i32,
        "panic" => divide(black_box(0)) as i32,
        "sleep" => {
            rt::thread::sleep_until(Deadline::FOREVER);
            0
        }
        "hog" => hog(),
        "serve" => match rt::startup::take::<Channel>("serve") {
            Some(channel) => serve(CalculatorServer::new(channel)),
            None => 2,
        },
        "consume" => consume().unwrap_or(1),
        _ => 64,
    }
}

fn startup() -> i32 {
    let args: Vec<&str> = rt::startup::args().iter().map(String::as_str).collect();
    let env = (
        rt::startup::env("A"),
        rt::startup::env("B"),
        rt::startup::env("C"),
    );
    let checks = [
        args == ["test-child", "startup", "two words", "", "ünï"],
        env == (Some("1"), Some(""), None),
        rt::startup::cwd() == "/somewhere",
        rt::startup::program_name() == "test-child",
        rt::startup::handle::<Event>("event").is_some_and(|event| event.set().is_ok()),
        rt::startup::take::<Event>("event").is_some(),
        rt::startup::handle::<Event>("event").is_none(),
        rt::startup::take::<Event>("nothing").is_none(),
    ];
    // The number of the first that fails.
    checks
        .iter()
        .position(|ok| !ok)
        .map_or(0, |at| at as i32 + 1)
}

fn upper() -> i32 {
    let mut buffer = alloc::vec![0; 10_000];
    loop {
        match rt::io::stdin().read(&mut buffer) {
            Ok(0) => return 0,
            Ok(n) => {
                let text = &mut buffer[..n];
                text.make_ascii_uppercase();
                if rt::io::stdout().write_all(text).is_err() {
                    return 1;
                }
            }
            Err(_) => return 2,
        }
    }
}

/// Uses memory until there is no more; says how many mebibytes there were.
fn hog() -> i32 {
    let mut kept = Vec::new();
    for mebibytes in 0..200 {
        let Ok(mut memory) = rt::PrivateMemory::new(1 << 20) else {
            return mebibytes;
        };
        let Ok(vmo) = Vmo::create(1 << 20) else {
            return mebibytes;
        };
        // Committing fails with an error, where touching would be a fault.
        if vmo.commit(0, 1 << 20).is_err() {
            return mebibytes;
        }
        memory.as_mut_slice()[0] = 1;
        kept.push((memory, vmo));
    }
    200
}

fn consume() -> Option<i32> {
    let vmo: Vmo = rt::startup::take("memory")?;
    let doorbell: Event = rt::startup::take("doorbell")?;
    let len = usize::try_from(vmo.size().ok()?).ok()?;
    let mapping = Mapping::map(&vmo, 0, len, rt::MapAccess::ReadWrite).ok()?;
    data_plane::consume(SharedMapping::new(mapping), &doorbell)
}
