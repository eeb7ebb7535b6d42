//! A service that dies takes nothing else with it: init starts it again, its scheme lives on, and those who
//! use it see a pause. One that dies too often is given up with a clean error.

use anyhow::{Context, ensure};

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::image;
use crate::image::random::Random;

/// Kills the VFS between and in the middle of reads, then too often.
const VFS: &str = "\
kill_service() { ps | grep \" $1\\$\" | { read pid rest; kill -9 $pid; }; }
svc policy vfs budget=1000 pause-min-ms=1 pause-max-ms=1
echo '== before'; sha256sum -c /SHA256SUMS | grep -c ': OK'
kill_service vfs
echo '== after'; sha256sum -c /SHA256SUMS | grep -c ': OK'
( for i in 1 2 3 4 5; do kill_service vfs; sleep 0.3; done ) &
echo '== under load'; for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== list'; svc list
echo '== given up'
svc policy acpi budget=0
kill_service acpi
sleep 0.3
svc list | grep acpi
svc start acpi; echo status $?
svc --json info acpi
echo '== file system'
kill_service ext
sha256sum -c /SHA256SUMS | grep -c ': OK'
( for i in 1 2 3 4 5; do kill_service ext; sleep 0.3; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
mount
true
";

/// The line that says how many files are right, if they are as many as there must be.
fn whole(section: &str) -> anyhow::Result<String> {
    let first = section.lines().next().unwrap_or_default();
    let count: u32 = first
        .parse()
        .with_context(|| format!("no count: {section:?}"))?;
    ensure!(count > 100, "only {count} files are right at the start");
    Ok(format!("{first}\n"))
}

fn check_vfs(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let whole = whole(report.section("before")?)?;
    compare("after", report.section("after")?, &whole)?;
    compare(
        "under load",
        report.section("under load")?,
        &whole.repeat(3),
    )?;
    let list = report.section("list")?;
    let vfs = list.lines().find(|line| line.starts_with("vfs"));
    let words: Vec<&str> = vfs.unwrap_or_default().split_whitespace().collect();
    ensure!(
        words.get(1) == Some(&"running") && words.get(3) == Some(&"7"),
        "svc list: {list:?}"
    );
    let given_up = report.section("given up")?;
    ensure!(
        given_up.contains("quarantined") && given_up.contains("killed"),
        "not given up: {given_up:?}"
    );
    ensure!(
        given_up.contains("status 0") && given_up.contains("\"state\":\"running\""),
        "not started again: {given_up:?}"
    );
    let files = report.section("file system")?;
    ensure!(
        files.starts_with(&whole.repeat(4)) && files.contains("ext4"),
        "a file system died: {files:?}"
    );
    Ok(())
}

/// The device manager dies while its drivers serve, alone and together with one of them.
const DEVMGR: &str = "\
echo '== warm'; sha256sum -c /SHA256SUMS | grep -c ': OK'
kill -9 devmgr; sleep 0.3; kill -9 pci; sleep 0.3; kill -9 devmgr; sleep 0.3
kill -9 virtio-blk; sleep 0.5
lsdev > /dev/null; lsblk > /dev/null
sha256sum -c /SHA256SUMS | grep -c ': OK'
echo '== counts before'; kernstat -l
echo '== drivers before'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
echo '== alone'
( for i in 1 2 3 4 5 6 7 8; do kill -9 devmgr; sleep 0.2; done ) &
for i in 1 2 3; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== drivers after'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
lsblk; drv list
echo '== together'
( for i in 1 2 3 4 5 6; do kill -9 virtio-blk devmgr; sleep 0.2; kill -9 devmgr virtio-blk; sleep 0.3; done ) &
for i in 1 2 3 4; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== bus'
ps | grep virtio-blk | { read pid rest; echo $pid; }
( for i in 1 2 3; do kill -9 pci; sleep 0.3; done ) &
sha256sum -c /SHA256SUMS | grep -c ': OK'
wait
ps | grep virtio-blk | { read pid rest; echo $pid; }
for i in 1 2 3; do kill -9 virtio-blk pci; sleep 0.3; done
sha256sum -c /SHA256SUMS | grep -c ': OK'
for i in 1 2 3; do kill -9 pci devmgr virtio-blk; sleep 0.3; done
sha256sum -c /SHA256SUMS | grep -c ': OK'
lsdev | head -n 3
echo '== away'
svc stop devmgr
kill -9 virtio-blk
svc start devmgr
sha256sum -c /SHA256SUMS | grep -c ': OK'
sleep 0.5
echo '== counts after'; kernstat -l
echo '== list'; drv list; svc list
true
";

fn check_devmgr(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let warm = report.section("warm")?;
    let whole = whole(warm)?;
    compare("warm", warm, &whole.repeat(2))?;
    let alone = report.section("alone")?;
    compare(
        "reading while the device manager dies",
        alone,
        &whole.repeat(3),
    )?;
    let drivers = report.section("drivers before")?;
    ensure!(drivers.lines().count() == 2, "drivers: {drivers:?}");
    let after = report.section("drivers after")?;
    ensure!(
        after.starts_with(drivers),
        "drivers were restarted: {drivers:?}, then {after:?}"
    );
    ensure!(
        after.contains("virtio0p1") && after.contains("running"),
        "what the tree shows afterwards: {after:?}"
    );
    let together = report.section("together")?;
    compare("both die", together, &whole.repeat(4))?;
    let bus: Vec<&str> = report.section("bus")?.lines().collect();
    ensure!(
        bus.len() == 8 && bus[0] == bus[2] && [bus[1], bus[3], bus[4]] == [whole.trim(); 3],
        "the bus driver dies: {bus:?}"
    );
    ensure!(bus[6].contains("running"), "the bus afterwards: {bus:?}");
    compare("a driver dies alone", report.section("away")?, &whole)?;
    let list = report.section("list")?;
    ensure!(
        list.lines().filter(|line| line.contains("running")).count() >= 10,
        "not everything runs: {list:?}"
    );
    super::endurance::check_counts(report)
}

/// Who may die in [`Trial`]. (The console is left out: it carries what the test reads.)
const MORTALS: [&str; 8] = [
    "acpi",
    "devmgr",
    "part",
    "bootfs",
    "vfs",
    "ext",
    "pci",
    "virtio-blk",
];

/// Everything dies at seeded random moments while files are read.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Processors.
    pub cpus: u32,
    /// Deaths.
    pub kills: u32,
    /// Seed of who dies when.
    pub seed: u64,
}

impl Trial {
    fn script(&self) -> String {
        let mut random = Random::named(&format!("services {}", self.seed));
        let mut kills = String::new();
        for _ in 0..self.kills {
            let pause_ms = 20 + random.below(250);
            let who = MORTALS[random.below(MORTALS.len() as u64) as usize];
            kills.push_str(&format!("sleep 0.{pause_ms:03}; kill -9 {who}\n"));
        }
        let warm: String = MORTALS
            .iter()
            .map(|who| format!("kill -9 {who}; sleep 0.3\n"))
            .collect();
        let sums = "sha256sum -c /SHA256SUMS | grep -c ': OK'";
        // A death takes 150 ms on average, a round of reading some 700.
        let rounds: String = (0..self.kills / 4 + 1)
            .map(|round| format!("{round} "))
            .collect();
        format!(
            "drv policy virtio0 budget=4294967295 pause-min-ms=1 pause-max-ms=1\n\
             echo '== warm'; {sums}\n{warm}{sums}\n\
             sleep 0.5; echo '== counts before'; kernstat -l\n\
             echo '== reading'\n({kills}) &\n\
             for i in {rounds}; do {sums}; done\nwait; sleep 0.5; {sums}\n\
             sleep 0.5; echo '== counts after'; kernstat -l\n\
             echo '== list'; svc list; drv list\ntrue\n"
        )
    }

    /// The machine, the script and the judge.
    ///
    /// # Errors
    /// When the image cannot be made.
    pub fn test(&self, name: String) -> anyhow::Result<SystemTest> {
        let trial = self.clone();
        let patient = "budget=1000000,pause-min-ms=1,pause-max-ms=1";
        let words: Vec<String> = MORTALS
            .iter()
            .chain(&["volumes", "buses"])
            .map(|name| format!("restart.{name}={patient}"))
            .filter(|word| {
                !["ext", "pci", "virtio-blk"]
                    .iter()
                    .any(|n| word.contains(n))
            })
            .collect();
        let test = SystemTest::new(name, self.script(), move |report| trial.judge(report));
        Ok(test
            .command_line(&words.join(" "))
            .cpus(self.cpus)
            .disks([Disk::new(image::demo()?, Access::Snapshot)])
            .time_limit(240 + 2 * u64::from(self.kills)))
    }

    fn judge(&self, report: &Report) -> anyhow::Result<()> {
        report.expect_status(0)?;
        let warm = report.section("warm")?;
        let whole = whole(warm)?;
        compare("warm", warm, &whole.repeat(2))?;
        let rounds = self.kills as usize / 4 + 2;
        compare("reading", report.section("reading")?, &whole.repeat(rounds))?;
        let list = report.section("list")?;
        ensure!(
            !list.contains("quarantined") && !list.contains("failed"),
            "not everything runs: {list:?}"
        );
        super::endurance::check_counts(report)
    }
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let patient = "budget=10000,pause-min-ms=1,pause-max-ms=1";
    let machine =
        |name: &str, cpus: u32, script: &str, check: fn(&Report) -> anyhow::Result<()>| {
            let disk = Disk::new(image::demo()?, Access::Snapshot);
            let words =
                ["volumes", "devmgr", "buses"].map(|name| format!("restart.{name}={patient}"));
            Ok(
                SystemTest::new(format!("services-{name}-cpus-{cpus}"), script, check)
                    .command_line(&words.join(" "))
                    .cpus(cpus)
                    .disks([disk]),
            )
        };
    let policy = "drv policy virtio0 budget=10000 pause-min-ms=1 pause-max-ms=1\n";
    let devmgr = format!("{policy}{DEVMGR}");
    let seeded = Trial {
        cpus: 2,
        kills: 24,
        seed: 1,
    };
    [
        machine("vfs", 1, VFS, check_vfs),
        machine("vfs", 4, VFS, check_vfs),
        machine("devmgr", 1, &devmgr, check_devmgr),
        machine("devmgr", 4, &devmgr, check_devmgr),
        seeded.test(String::from("services-seeded-cpus-2")),
    ]
    .into_iter()
    .collect()
}
