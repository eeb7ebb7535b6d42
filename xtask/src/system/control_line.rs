//! The guest's control service, spoken to without the switch in between: garbage, and requests against the rules.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use control_link::{CREDIT_BYTES, Decoder, Ending, FromSystem, Input, ToSystem, encode};

use crate::build::{self, ArchiveExtras, Profile};
use crate::guest::disk::{Access, Disk};
use crate::guest::machine::{ControlPort, Transport};
use crate::guest::{self, Machine, Outcome, Streams};
use crate::image;

/// How often half a second without a word is waited for.
const SILENCES_MAX: u32 = 60;

/// Whatever comes over the line, the service goes on.
pub(super) fn garbage_on_the_line() -> anyhow::Result<()> {
    let built = build::build(Profile::Release)?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("boot.archive");
    build::write_archive(&built, &ArchiveExtras::default(), &archive)?;
    for transport in [Transport::Virtio, Transport::Uart] {
        let mut machine = Machine::new(&built.kernel, Some(archive.clone()));
        machine
            .disks
            .push(Disk::new(image::demo()?, Access::Snapshot));
        machine.command_line = format!("{} console=off", transport.word());
        let (opened, line) = mpsc::channel();
        machine.control = Some(ControlPort { transport, opened });
        let host = thread::spawn(move || {
            let line: UnixStream = line.recv()?;
            drive(&line, transport)?;
            // Open for as long as the guest runs: QEMU drops what it has not read when it is closed.
            anyhow::Ok(line)
        });
        let (mut console, mut log) = (Vec::new(), Vec::new());
        let outcome = guest::run(
            &machine,
            Some(Duration::from_secs(120)),
            &mut Streams {
                console: &mut console,
                log: &mut log,
                input: None,
            },
        )?;
        drop(machine);
        let driven = host.join().ok().context("the host's side panicked")?;
        let log = String::from_utf8_lossy(&log);
        driven.with_context(|| format!("{transport:?}, log: {log}"))?;
        ensure!(
            outcome == Outcome::Exit(0),
            "{transport:?}: {outcome:?}, log: {log}"
        );
    }
    Ok(())
}

/// The host's end: greeting, garbage, and a command that still runs.
fn drive(line: &UnixStream, transport: Transport) -> anyhow::Result<()> {
    let mut decoder = Decoder::new();
    line.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut until = |wanted: &dyn Fn(&FromSystem) -> bool, call: Option<&ToSystem>| {
        let mut buffer = vec![0; 64 * 1024];
        let mut silences = 0;
        while silences < SILENCES_MAX {
            let read = (&*line).read(&mut buffer);
            let bytes = match read {
                Ok(0) => bail!("the line ended"),
                Ok(len) => buffer.get(..len).unwrap_or_default(),
                Err(_) => {
                    silences += 1;
                    // Nobody is there yet, or what was sent came before its time.
                    if let Some(message) = call {
                        (&*line).write_all(&encode(message)?)?;
                    }
                    continue;
                }
            };
            let mut found = false;
            let mut frames = 0;
            decoder.push(bytes, |message| {
                frames += 1;
                found |= message.is_ok_and(|message| wanted(&message));
            });
            (&*line).write_all(&encode(&ToSystem::Received { frames })?)?;
            if found {
                return Ok(());
            }
        }
        bail!("no answer after {SILENCES_MAX} silences")
    };
    until(
        &|message| matches!(message, FromSystem::Hello { .. }),
        Some(&ToSystem::Hello),
    )?;
    // A UART is slow, and as easily confused.
    let bytes = match transport {
        Transport::Virtio => 2 << 20,
        Transport::Uart => 20_000,
    };
    let mut random = 7u64;
    let garbage: Vec<u8> = (0..bytes)
        .map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 56) as u8
        })
        .collect();
    (&*line).write_all(&garbage)?;
    until(
        &|message| matches!(message, FromSystem::Damaged { .. }),
        None,
    )?;
    let execute = |id, command: &str| ToSystem::Execute {
        id,
        command: command.to_owned(),
        input: Input::Empty,
        credit: CREDIT_BYTES,
    };
    // Requests against the rules of requests.
    let refused = |id| move |message: &FromSystem| matches!(message, FromSystem::Ended { id: ended, ending: Ending::Failed { .. } } if *ended == id);
    let too_long = ToSystem::Replace {
        id: 5,
        driver: "x".to_owned(),
        length: u64::MAX,
    };
    (&*line).write_all(&encode(&too_long)?)?;
    until(&refused(5), None).context("five")?;
    for message in [
        ToSystem::Replace {
            id: 6,
            driver: "x".to_owned(),
            length: 10,
        },
        ToSystem::Data {
            id: 6,
            offset: 3,
            bytes: vec![1; 4],
        },
    ] {
        (&*line).write_all(&encode(&message)?)?;
    }
    until(&refused(6), None).context("six")?;
    (&*line).write_all(&encode(&execute(9, "echo still here; exit 4"))?)?;
    until(
        &|message| {
            *message
                == FromSystem::Ended {
                    id: 9,
                    ending: Ending::Exited { status: 4 },
                }
        },
        None,
    )?;
    (&*line).write_all(&encode(&execute(10, "poweroff"))?)?;
    Ok(())
}
