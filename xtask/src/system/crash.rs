//! A driver faults while its disk is read: what it leaves behind is told in the system, is on another disk after power-off, and is
//! read on the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use crash_report::{EndReason, Report as Crash, area};
use elf::ElfStream;
use elf::endian::AnyEndian;

use super::host_side::xtask;
use super::{Report, SystemTest, compare};
use crate::build::{self, Built, Profile};
use crate::guest::disk::{Access, Bus, Disk};
use crate::image;

/// A read of address 0: `xor eax, eax; mov rax, [rax]`.
const FAULT: [u8; 5] = [0x31, 0xc0, 0x48, 0x8b, 0x00];
/// Function of the class layer that answers a request, as its symbol has it.
const ANSWER: [&str; 2] = ["worker::Worker", "::answer"];

const SCRIPT: &str = "\
echo '== reading'
( for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -v -c ': OK'; done ) &
drv reload virtio0 /boot/faulty/virtio-blk >/dev/null
wait
echo '== json'; drv --json crash virtio0
echo '== list'; drv crash
echo '== nobody'; drv crash nobody; echo $?
ps | grep part | { read pid rest; kill $pid; }
while ! drv crash part 2>/dev/null; do sleep 0.1; done | grep reason
while ! log | grep -q 'crash report 1 is saved'; do sleep 0.1; done
";

/// The driver with a fault where it answers its first request.
fn faulty(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut elf = ElfStream::<AnyEndian, _>::open_stream(fs::File::open(file)?)?;
    let segments = elf.segments().to_vec();
    let (symbols, names) = elf.symbol_table()?.context("no symbols")?;
    let mut addresses = Vec::new();
    for symbol in symbols.iter() {
        let name = format!(
            "{:#}",
            rustc_demangle::demangle(names.get(symbol.st_name as usize)?)
        );
        if name.contains(ANSWER[0]) && name.ends_with(ANSWER[1]) {
            addresses.push(symbol.st_value);
        }
    }
    // With and without a trace are two.
    ensure!(!addresses.is_empty(), "no function {ANSWER:?}");
    let mut bytes = fs::read(file)?;
    for address in addresses {
        let segment = segments
            .iter()
            .find(|s| (s.p_vaddr..s.p_vaddr + s.p_filesz).contains(&address));
        let segment = segment.context("the function is in no segment")?;
        let at = usize::try_from(segment.p_offset + (address - segment.p_vaddr))?;
        let code = bytes.get_mut(at..at + FAULT.len());
        code.context("the function's place")?
            .copy_from_slice(&FAULT);
    }
    Ok(bytes)
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let area = build::target_folder("system")?.join("crash-report.img");
    fs::File::create(&area)?.set_len(1 << 20)?;
    let image = area.clone();
    let test = SystemTest::new("crash-report", SCRIPT, move |report| check(report, &image));
    let files = |built: &Built| {
        let program = built.programs.iter().find(|p| p.name == "virtio-blk");
        let program = faulty(&program.context("no virtio-blk")?.stripped)?;
        Ok(vec![("faulty/virtio-blk".to_owned(), program)])
    };
    let disks = [
        Disk::new(image::demo()?, Access::Snapshot),
        Disk::new(&area, Access::ReadWrite),
    ];
    let test = test.command_line("crash=disk:/virtio1");
    Ok(vec![
        test.files(files).disks(disks),
        traced("virtio-blk", "virtio0", Bus::Virtio)?,
        traced("nvme", "nvme0n1", Bus::Nvme)?,
    ])
}

/// A driver records. It is killed after its device manager was, and its successor faults. `DISK` and `DRIVER` stand for names.
const TRACED: &str = "\
drv policy DISK trace=on
drv reload DISK /boot/traced/DRIVER >/dev/null
echo '== read'; sha256sum -c /SHA256SUMS | grep -v -c ': OK'
kill -9 devmgr
while ! drv list >/dev/null 2>&1; do sleep 0.1; done
kill -9 DRIVER
while ! drv crash DISK 2>/dev/null | grep -q 'records are kept'; do sleep 0.1; done
echo '== killed'; drv crash DISK
( sha256sum -c /SHA256SUMS | grep -v -c ': OK' ) &
drv reload DISK /boot/faulty/DRIVER >/dev/null
wait
echo '== policy'; drv policy DISK
while ! log | grep -q 'is saved: DRIVER'; do sleep 0.1; done
echo '== crash'; drv crash DISK
";

/// What is left of a driver that records is followed on the host by the driver as it is.
fn traced(driver: &'static str, disk: &str, bus: Bus) -> anyhow::Result<SystemTest> {
    let name = format!("crash-trace-{driver}");
    let area = build::target_folder("system")?.join(format!("{name}.img"));
    fs::File::create(&area)?.set_len(4 << 20)?;
    let image = area.clone();
    let script = TRACED.replace("DISK", disk).replace("DRIVER", driver);
    let test = SystemTest::new(name, script, move |report| {
        check_traced(report, driver, &image)
    });
    let files = move |_: &Built| {
        let traced = build::build_program_with(Profile::Release, driver, build::TRACE)?.stripped;
        Ok(vec![
            (format!("traced/{driver}"), fs::read(&traced)?),
            (format!("faulty/{driver}"), faulty(&traced)?),
        ])
    };
    let disks = [
        Disk {
            bus,
            ..Disk::new(image::demo()?, Access::Snapshot)
        },
        Disk::new(&area, Access::ReadWrite),
    ];
    let saves_to = match bus {
        Bus::Virtio => "crash=disk:/virtio1",
        _ => "crash=disk:/virtio0",
    };
    Ok(test.command_line(saves_to).files(files).disks(disks))
}

fn check_traced(report: &Report, driver: &str, disk: &Path) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("read", report.section("read")?, "0\n")?;
    let killed = report.section("killed")?;
    ensure!(
        killed.contains("reason   killed") && killed.contains("records are kept, the last:"),
        "after the device manager's death: {killed}"
    );
    ensure!(
        report.section("policy")?.contains(" trace=on "),
        "the policy has no trace"
    );
    let told = report.section("crash")?;
    ensure!(told.contains("records are kept, the last:"), "{told}");
    let bytes = fs::read(disk)?;
    let saved = area::reports(&bytes);
    let [(crash, Some(recording))] = saved.as_slice() else {
        anyhow::bail!("not one report with a trace");
    };
    let crash: Crash = serde_json::from_slice(crash)?;
    let note = crash.trace.context("no trace in the report")?;
    ensure!(
        note.bytes == recording.len() as u64 && note.records == note.recorded,
        "{} bytes of {note:?}",
        recording.len()
    );
    // A queue is asked on the thread of its worker.
    let told = |text: &str| note.last.iter().any(|line| line.contains(text));
    ensure!(
        told(": Reap") && !told(" thread 0: call queue "),
        "{:#?}",
        note.last
    );

    let out = disk.with_extension("recording");
    let mut writes = xtask(&["crash"])?;
    let written = writes.arg(disk).arg("--trace").arg(&out).output()?;
    ensure!(written.status.success(), "xtask crash: {}", written.status);
    ensure!(fs::read(&out)? == *recording, "another recording");
    let followed = xtask(&["replay"])?.arg(&out).output()?;
    let text = String::from_utf8_lossy(&followed.stdout);
    let expected = format!("{driver} followed to the end: {} records, ", note.recorded);
    ensure!(
        followed.status.success() && text.starts_with(&expected),
        "xtask replay: {}: {text}, {}",
        followed.status,
        String::from_utf8_lossy(&followed.stderr)
    );
    // Another block that was asked for is another access. A request is the record Call (25) of some length, in it the call Queue
    // (11), the queue's number, Push (1), token, disk (below 2), operation, two flags, and the block, its lowest bits first.
    let is_request =
        |bytes: &[u8]| matches!(bytes, [25, _, 11, 0..8, 1, _, 0..2, 1..=5, 0..2, 0..2, _]);
    let place = recording.windows(11).rposition(is_request);
    let mut other = recording.clone();
    let place = place.context("no request in the recording")?;
    other[place + 10] ^= 1;
    fs::write(&out, other)?;
    let followed = xtask(&["replay"])?.arg(&out).output()?;
    let text = String::from_utf8_lossy(&followed.stderr);
    ensure!(
        followed.status.code() == Some(1) && text.contains("deviated: expected store region"),
        "xtask replay of another request: {}: {text}",
        followed.status
    );
    fs::remove_file(&out)?;
    fs::remove_file(disk)?;
    Ok(())
}

fn check(report: &Report, disk: &Path) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("reading", report.section("reading")?, &"0\n".repeat(3))?;
    let told: Vec<Crash> = serde_json::from_str(report.section("json")?)?;
    let [told] = told.as_slice() else {
        anyhow::bail!("{} reports of one fault", told.len());
    };
    judge(told)?;
    ensure!(
        report.section("list")?.contains("faulted"),
        "the list has no fault"
    );
    let nobody = report.section("nobody")?;
    ensure!(
        nobody.starts_with("1\n") && nobody.contains("reason   killed"),
        "nobody and part: {nobody:?}"
    );
    // A kill is told of and is no crash.
    let bytes = fs::read(disk)?;
    let slots: Vec<_> = bytes.chunks(area::SLOT_BYTES).map(area::decode).collect();
    let [Some((1, saved)), None, None, None] = slots.as_slice() else {
        anyhow::bail!("the disk has not one report");
    };
    ensure!(
        serde_json::from_slice::<Crash>(saved)? == *told,
        "another report"
    );

    let output = xtask(&["crash"])?.arg(disk).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success()
            && text.contains("page fault: read of 0x0")
            && text.contains("worker.rs:"),
        "xtask crash: {}: {text}, {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_file(disk)?;
    Ok(())
}

/// What a report of that fault has to have.
fn judge(crash: &Crash) -> anyhow::Result<()> {
    let subject = &crash.subject;
    ensure!(crash.reason == EndReason::Faulted, "{}", crash.reason);
    ensure!(
        subject.name == "virtio-blk" && subject.epoch == 2,
        "{subject:?}"
    );
    ensure!(
        subject.known_as.iter().any(|n| n == "disk:/virtio0"),
        "{subject:?}"
    );
    let fault = crash.fault.as_ref().context("no fault")?;
    ensure!((fault.vector, fault.address) == (14, 0), "{fault}");
    ensure!(
        fault.registers.iter().any(|(name, _)| name == "rip"),
        "{fault}"
    );
    let named = |text: &str| {
        let mut names = fault.backtrace.iter().filter_map(|f| f.function.as_deref());
        names.any(|name| name.contains(text))
    };
    ensure!(
        named(ANSWER[1]) && named("rt::thread") && fault.backtrace.len() > 2,
        "{fault}"
    );
    ensure!(
        crash.grants.iter().any(|g| g.contains("BAR")),
        "{:?}",
        crash.grants
    );
    ensure!(
        crash
            .events
            .iter()
            .any(|e| e.text.contains("Starting -> Running")),
        "{:?}",
        crash.events
    );
    ensure!(
        crash.log.iter().any(|line| line.contains(" blocks of ")),
        "{:?}",
        crash.log
    );
    Ok(())
}
