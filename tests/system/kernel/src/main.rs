//! Tests of the kernel from user space. Runs in place of init, with everything that init has, and ends the machine with
//! `exit 0` on the outcome port if all tests passed.
//!
//! Kernel command line: `calls=N` random system calls (default 100,000), `seed=S`, `only=TEXT` tests whose name contains it.
#![no_std]
#![no_main]

extern crate alloc;

mod hardware;
mod messages;
mod processes;
mod waiting;

use alloc::string::String;
use core::time::Duration;

use boot::archive::Archive;
use rt::abi::{KernelStats, Quota, ResourceKind};
use rt::process::{Child, Command, Stdio};
use rt::{AsHandle, Deadline, IoPorts, MapAccess, Mapping, Resource, Result, Vmo, startup, time};

rt::entry!(main);

/// What a test works with.
pub struct Kit {
    /// Authority over everything.
    pub root: Resource,
    /// Counts, and the list of processes.
    pub system: Resource,
    child_program: Vmo,
    /// Random system calls to make.
    pub calls: u64,
    /// Seed of the first process that makes them.
    pub seed: u64,
}

/// Why a test failed.
pub type Failure = String;
type Test = fn(&Kit) -> core::result::Result<(), Failure>;

/// Fails the test with a text unless a condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(alloc::format!($($text)*));
        }
    };
}

/// The value of a result, or a failure that names what was done.
pub fn must<T, E: core::fmt::Display>(
    what: &str,
    result: core::result::Result<T, E>,
) -> core::result::Result<T, Failure> {
    result.map_err(|e| alloc::format!("{what}: {e}"))
}

impl Kit {
    /// Starts the child program in a mode.
    pub fn child(
        &self,
        mode: &str,
        seed: u64,
        quota: Quota,
    ) -> core::result::Result<Child, Failure> {
        self.child_with(mode, seed, quota, None)
    }

    /// The same, with a VMO in which it counts.
    pub fn child_with(
        &self,
        mode: &str,
        seed: u64,
        quota: Quota,
        counter: Option<&Vmo>,
    ) -> core::result::Result<Child, Failure> {
        let mut command = Command::new(&self.child_program, "kernel-test-child")
            .arg(mode)
            .arg(&alloc::format!("{seed}"))
            .stdin(Stdio::Null)
            .stdout(Stdio::Null)
            .stderr(Stdio::Null)
            .quota(quota);
        if let Some(counter) = counter {
            command = command.handle("counter", must("duplicate", counter.duplicate())?);
        }
        must("spawn", command.spawn())
    }

    /// Counts of the kernel once everything that is on its way out is gone.
    pub fn settled(&self) -> core::result::Result<KernelStats, Failure> {
        let mut last = must("stats", self.system.kernel_stats())?;
        for _ in 0..200 {
            time::sleep(Duration::from_millis(2));
            let now = must("stats", self.system.kernel_stats())?;
            if counts(&now) == counts(&last) {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }
}

/// The counts that must come back to their baseline.
fn counts(s: &KernelStats) -> (u64, u64, u64, u64, [u64; rt::abi::OBJECT_KINDS], u64) {
    (
        s.free_pages + s.heap_pages,
        s.handles,
        s.pins,
        s.quarantined_pages,
        s.objects,
        s.vectors,
    )
}

/// A quota for a child that is up to no good.
pub const SMALL: Quota = Quota {
    pages: 4096,
    handles: 1024,
    threads: 16,
    processes: 4,
    max_priority: 16,
};

fn main() -> i32 {
    let start = match startup::take_init() {
        Ok(start) => start,
        Err(error) => {
            rt::error!("not started by the kernel: {error}");
            return 2;
        }
    };
    let option = |name: &str| {
        start
            .command_line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name, default| option(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let kit = match prepare(start.root, &start.archive, start.archive_len) {
        Ok((root, system, child_program)) => Kit {
            root,
            system,
            child_program,
            calls: number("calls", 100_000),
            seed: number("seed", 1),
        },
        Err(error) => {
            rt::error!("cannot prepare: {error}");
            return 2;
        }
    };
    // What the runtime makes once, at its first use, is not a leak.
    if let Ok(mut thread) = rt::thread::builder("first").spawn(|| ()) {
        let _ = thread.join(Deadline::after_secs(10));
    }
    let (mut passed, mut failed) = (0, 0);
    let lists = [
        messages::TESTS,
        waiting::TESTS,
        hardware::TESTS,
        processes::TESTS,
    ];
    for (name, test) in lists.into_iter().flatten() {
        if option("only").is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let before = kit.settled();
        let outcome = test(&kit).and_then(|()| {
            let (before, after) = (before?, kit.settled()?);
            let (b, a) = (counts(&before), counts(&after));
            // The heap's and the page tables' own pages may have settled elsewhere; a leak of objects shows in the rest.
            check!(
                (b.1, b.2, b.3, b.4, b.5) == (a.1, a.2, a.3, a.4, a.5),
                "counts {b:?} before, {a:?} after"
            );
            check!(b.0 <= a.0 + 64, "{} pages before, {} after", b.0, a.0);
            Ok(())
        });
        match outcome {
            Ok(()) => {
                passed += 1;
                rt::info!("ok      {name}");
            }
            Err(why) => {
                failed += 1;
                rt::info!("FAILED  {name}: {why}");
            }
        }
    }
    rt::info!("{passed} passed, {failed} failed");
    finish(&kit.root, i32::from(failed > 0))
}

fn prepare(
    root: Resource,
    archive: &Vmo,
    len: u64,
) -> core::result::Result<(Resource, Resource, Vmo), Failure> {
    let system = must("derive", root.derive(ResourceKind::System, 0, 1))?;
    let mapping = must(
        "map the archive",
        Mapping::map(archive, 0, len as usize, MapAccess::Read),
    )?;
    let mut bytes = alloc::vec![0; len as usize];
    must("read the archive", mapping.read(0, &mut bytes))?;
    let index = must("the archive", Archive::parse(&bytes))?;
    let member = index
        .find("bin/kernel-test-child")
        .ok_or("the archive has no bin/kernel-test-child")?;
    let program = must(
        "slice",
        archive.slice(member.offset as u64, member.data.len()),
    )?;
    Ok((root, system, program))
}

/// Tells the outside, and stops the machine.
fn finish(root: &Resource, status: i32) -> i32 {
    let ports = |base, len| -> Result<IoPorts> {
        IoPorts::grant(
            &root.derive(ResourceKind::IoPort, base, len)?,
            base as u16,
            len as u16,
        )
    };
    let outcome = ports(0xe9, 1).and_then(|port| {
        alloc::format!("exit {status}\n")
            .bytes()
            .try_for_each(|byte| port.write8(0, byte))
    });
    if let Err(error) = outcome {
        rt::error!("outcome port: {error}");
    }
    // The PC's reset control register (the chipset's, as in QEMU's q35): a machine started with `-no-reboot` ends.
    if let Err(error) = ports(0xcf9, 1).and_then(|port| port.write8(0, 0x06)) {
        rt::error!("reset: {error}");
    }
    // Init must not end.
    loop {
        time::sleep_until(Deadline::after_secs(3600));
    }
}
