//! Starting, watching and ending processes.

use alloc::string::String;
use alloc::vec::Vec;

use rt::abi::Quota;
use rt::io::{Read, Write};
use rt::process::image::ImageError;
use rt::process::{ExitReason, Exited, SpawnError, Stdio};
use rt::stream::{StreamReader, StreamWriter};
use rt::symbols::{Symbols, write_crash_report};
use rt::{AsHandle, Channel, Deadline, Event, Signals, Vmo, thread};

use crate::child::{command, program, spawn};
use crate::{Check, Failure, at, ensure, ensure_eq};

fn soon() -> Deadline {
    Deadline::after_secs(60)
}

fn ended(role: &str) -> Result<Exited, Failure> {
    spawn(role)?.wait(soon()).map_err(at("wait"))
}

pub fn startup_data() -> Check {
    let program = program()?;
    let event = Event::create().map_err(at("event"))?;
    let child = command(&program, "startup")
        .args(["two words", "", "ünï"])
        .env(alloc::vec![
            (String::from("A"), String::from("1")),
            (String::from("B"), String::new())
        ])
        .cwd("/somewhere")
        .handle("event", event.duplicate().map_err(at("duplicate"))?)
        .spawn()
        .map_err(at("spawn"))?;
    let ended = child.wait(soon()).map_err(at("wait"))?;
    ensure_eq!(ended.reason, ExitReason::Exited(0));
    let signals = event
        .wait_one(Signals::SIGNALED, Deadline::NOW)
        .map_err(at("event"))?;
    ensure_eq!(signals, Signals::SIGNALED);
    Ok(())
}

pub fn exit_codes() -> Check {
    let seven = ended("exit")?;
    ensure_eq!(seven.reason, ExitReason::Exited(7));
    ensure_eq!((seven.status(), seven.success()), (7, false));
    ensure_eq!(ended("negative")?.reason, ExitReason::Exited(-3));
    Ok(())
}

pub fn pipeline() -> Check {
    let program = program()?;
    let (near_in, far_in) = Channel::create().map_err(at("pipe"))?;
    let (near_out, far_out) = Channel::create().map_err(at("pipe"))?;
    let child = command(&program, "upper")
        .stdin(Stdio::Pipe(far_in))
        .stdout(Stdio::Pipe(far_out))
        .spawn()
        .map_err(at("spawn"))?;
    const LEN: usize = 1 << 20;
    let mut writing = thread::builder("writer")
        .spawn(move || {
            let mut writer = StreamWriter::new(near_in);
            let text: Vec<u8> = (0..LEN).map(|i| b'a' + (i % 26) as u8).collect();
            text.chunks(7_777)
                .try_for_each(|chunk| writer.write_all(chunk))
        })
        .map_err(at("thread"))?;
    let mut text = Vec::new();
    StreamReader::new(near_out)
        .read_to_end(&mut text)
        .map_err(at("read"))?;
    ensure_eq!(text.len(), LEN);
    ensure!(
        text.iter()
            .enumerate()
            .all(|(i, b)| *b == b'A' + (i % 26) as u8)
    );
    writing
        .join(soon())
        .map_err(at("join"))?
        .map_err(at("write"))?;
    ensure!(child.wait(soon()).map_err(at("wait"))?.success());
    Ok(())
}

fn symbols() -> Result<Symbols, Failure> {
    let program = program()?;
    let len = program.size().map_err(at("size"))? as usize;
    let mut file = alloc::vec![0; len];
    program.read(0, &mut file).map_err(at("read"))?;
    Ok(Symbols::parse(&file))
}

pub fn faults() -> Check {
    let overflow = ended("overflow")?;
    ensure_eq!(overflow.reason, ExitReason::Faulted);
    ensure_eq!(overflow.status(), 139);
    let crash = overflow.crash.ok_or("no crash report")?;
    // The guard page below the stack, just under the stack pointer.
    ensure_eq!(crash.vector, 14);
    ensure!(
        crash.registers[7].abs_diff(crash.address) < 8192,
        "not at the stack pointer"
    );
    let mut text = String::new();
    write_crash_report(&crash, &symbols()?, &mut text).map_err(at("report"))?;
    ensure!(text.starts_with("test-child (process "), "{text}");
    ensure!(text.contains("page fault: write to"), "{text}");
    ensure!(text.matches("recurse").count() > 8, "{text}");
    Ok(())
}

pub fn panics() -> Check {
    let program = program()?;
    let (near, far) = Channel::create().map_err(at("pipe"))?;
    // An argument is asked for first, so the message has the name.
    let child = command(&program, "panic")
        .stderr(Stdio::Pipe(far))
        .spawn()
        .map_err(at("spawn"))?;
    let mut text = Vec::new();
    StreamReader::new(near)
        .read_to_end(&mut text)
        .map_err(at("read"))?;
    let text = String::from_utf8_lossy(&text);
    ensure!(text.starts_with("test-child: panicked at "), "{text}");
    ensure!(text.ends_with(": division by nothing\n"), "{text}");
    let ended = child.wait(soon()).map_err(at("wait"))?;
    ensure_eq!(ended.reason, ExitReason::Faulted);
    let crash = ended.crash.ok_or("no crash report")?;
    ensure_eq!(crash.vector, 6);
    let mut text = String::new();
    write_crash_report(&crash, &symbols()?, &mut text).map_err(at("report"))?;
    ensure!(text.contains("divide"), "{text}");
    Ok(())
}

pub fn kill() -> Check {
    let child = spawn("sleep")?;
    ensure!(child.try_wait().map_err(at("try_wait"))?.is_none());
    let waited = child.wait(Deadline::after_ms(20));
    ensure_eq!(waited.err(), Some(rt::Error::TimedOut));
    child.kill().map_err(at("kill"))?;
    let ended = child.wait(soon()).map_err(at("wait"))?;
    ensure!(
        matches!(ended.reason, ExitReason::Killed(_)),
        "{:?}",
        ended.reason
    );
    ensure_eq!(ended.status(), 137);
    Ok(())
}

pub fn quota() -> Check {
    let program = program()?;
    let quota = Quota {
        pages: 2048,
        handles: 64,
        threads: 2,
        processes: 0,
        max_priority: 16,
    };
    let child = command(&program, "hog")
        .quota(quota)
        .spawn()
        .map_err(at("spawn"))?;
    let ended = child.wait(soon()).map_err(at("wait"))?;
    let ExitReason::Exited(mebibytes) = ended.reason else {
        return Err(alloc::format!("{ended}"));
    };
    // 8 MiB in all, of which the program itself takes a little.
    ensure!((5..8).contains(&mebibytes), "{mebibytes} MiB");
    Ok(())
}

pub fn not_a_program() -> Check {
    let vmo = Vmo::create(4096).map_err(at("vmo"))?;
    let error = command(&vmo, "x").spawn().err();
    ensure_eq!(error, Some(SpawnError::Image(ImageError::NotElf)));
    vmo.write(0, b"\x7fELF\x02\x01\x01").map_err(at("write"))?;
    let error = command(&vmo, "x").spawn().err();
    ensure!(matches!(
        error,
        Some(SpawnError::Image(ImageError::NotForThisMachine { .. }))
    ));
    Ok(())
}
