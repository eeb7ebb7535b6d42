//! A service that dies takes nothing else with it: init starts it again, its scheme lives on, and those who
//! use it see a pause. One that dies too often is given up with a clean error.

use std::collections::BTreeMap;

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
echo '== hung'; svc --json info httpd
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
    let hung = report.section("hung")?;
    let words = ["\"state\":\"running\"", "\"epoch\":2", "no-heartbeat"];
    ensure!(
        words.iter().all(|word| hung.contains(word)),
        "a service that hung: {hung:?}"
    );
    Ok(())
}

/// The device manager dies while its drivers serve, alone and together with one of them.
const DEVMGR: &str = "\
echo '== fresh'; kernstat -l | grep objects-Resource
echo '== warm'; sha256sum -c /SHA256SUMS | grep -c ': OK'
kill -9 devmgr; sleep 0.2; kill -9 pci; sleep 0.2; kill -9 virtio-blk; sleep 0.3
lsdev > /dev/null; lsblk > /dev/null
echo '== counts before'; kernstat -l
echo '== drivers before'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
echo '== alone'
( for i in 1 2 3 4 5; do kill -9 devmgr; sleep 0.1; done ) &
for i in 1 2; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== drivers after'; ps | grep -e virtio-blk -e uart16550 | { while read pid rest; do echo $pid; done; }
lsblk; drv list
echo '== together'
( for i in 1 2; do kill -9 virtio-blk devmgr; sleep 0.2; kill -9 devmgr virtio-blk; sleep 0.2; done ) &
for i in 1 2; do sha256sum -c /SHA256SUMS | grep -c ': OK'; done
wait
echo '== bus'
ps | grep virtio-blk | { read pid rest; echo $pid; }
( for i in 1 2; do kill -9 pci; sleep 0.2; done ) &
sha256sum -c /SHA256SUMS | grep -c ': OK'
wait
ps | grep virtio-blk | { read pid rest; echo $pid; }
kill -9 virtio-blk pci; sleep 0.2; kill -9 pci devmgr virtio-blk; sleep 0.2
sha256sum -c /SHA256SUMS | grep -c ': OK'
lsdev | head -n 3
echo '== away'
svc stop devmgr
kill -9 virtio-blk
/boot/bin/svc start devmgr
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
    let alone = report.section("alone")?;
    compare(
        "reading while the device manager dies",
        alone,
        &whole.repeat(2),
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
    compare("both die", together, &whole.repeat(2))?;
    let bus: Vec<&str> = report.section("bus")?.lines().collect();
    ensure!(
        bus.len() == 7 && bus[0] == bus[2] && [bus[1], bus[3]] == [whole.trim(); 2],
        "the bus driver dies: {bus:?}"
    );
    ensure!(bus[5].contains("running"), "the bus afterwards: {bus:?}");
    compare("a driver dies alone", report.section("away")?, &whole)?;
    let list = report.section("list")?;
    ensure!(
        list.lines().filter(|line| line.contains("running")).count() >= 10,
        "not everything runs: {list:?}"
    );
    // Also against the start: what is made for an incarnation goes with it, whoever still runs of its time.
    let fresh = report.section("fresh")?.trim();
    ensure!(
        report
            .section("counts after")?
            .lines()
            .any(|line| line == fresh),
        "at the start {fresh}"
    );
    super::endurance::check_counts(report)
}

/// Who may die in [`Trial`]. (The console is left out: it carries what the test reads.)
const MORTALS: [&str; 10] = [
    "acpi",
    "devmgr",
    "part",
    "bootfs",
    "vfs",
    "ext",
    "netstack",
    "httpd",
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

/// What a trial showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Deaths by service.
    pub killed: BTreeMap<&'static str, u32>,
    /// Rounds of reading every file of the disk, all right.
    pub rounds: usize,
    /// Files of a round.
    pub files: u32,
}

impl Trial {
    /// Who dies, and how long after the one before, in milliseconds.
    fn deaths(&self) -> Vec<(u64, &'static str)> {
        let mut random = Random::named(&format!("services {}", self.seed));
        let death = |_| {
            let pause_ms = 20 + random.below(250);
            let who = random.below(MORTALS.len() as u64) as usize;
            (pause_ms, MORTALS.get(who).copied().unwrap_or("devmgr"))
        };
        (0..self.kills).map(death).collect()
    }

    /// A death takes 150 ms on average, a round of reading some 700.
    fn rounds(&self) -> usize {
        self.kills as usize / 4 + 1
    }

    fn script(&self) -> String {
        let kills: String = self
            .deaths()
            .iter()
            .map(|(pause_ms, who)| format!("sleep 0.{pause_ms:03}; kill -9 {who}\n"))
            .collect();
        // Before both counts each dies once, in this order: a session that went on with another driver has other objects
        // than a new one, and a connection takes a minute to be forgotten.
        let round: String = MORTALS
            .iter()
            .map(|who| format!("kill -9 {who}; sleep 0.15\n"))
            .collect();
        let sums = "sha256sum -c /SHA256SUMS | grep -c ': OK'";
        let rounds: String = (0..self.rounds())
            .map(|round| format!("{round} "))
            .collect();
        // Connections end with the stack that they were made by: asked until one comes to its end.
        let web = "i=0; until wget -q -O /dev/null http://127.0.0.1/files/SHA256SUMS || [ $i -ge 50 ]; do i=$((i+1)); sleep 0.1; done\n\
                   wget -q -O - http://127.0.0.1/files/SHA256SUMS | sha256sum | cut -c 1-64\n";
        format!(
            "drv policy virtio0 budget=4294967295 pause-min-ms=1 pause-max-ms=1\n\
             echo '== warm'; {sums}\n{round}{sums}\n\
             echo '== counts before'; kernstat -l\n\
             echo '== reading'\n({kills}) &\n\
             for i in {rounds}; do {sums}; done\nwait; sleep 0.3; {sums}\n\
             echo '== network'; {web}sha256sum /SHA256SUMS | cut -c 1-64\n\
             {round}{sums}\necho '== counts after'; kernstat -l\n\
             echo '== list'; svc list; drv list\ntrue\n"
        )
    }

    /// The machine, the script and the judge.
    ///
    /// # Errors
    /// When the image cannot be made.
    pub fn test(&self, name: String) -> anyhow::Result<SystemTest> {
        let trial = self.clone();
        let words = patience(&MORTALS.map(|name| match name {
            "ext" => "volumes",
            "pci" | "virtio-blk" => "buses",
            name => name,
        }));
        let check = move |report: &Report| trial.findings(report).map(drop);
        let test = SystemTest::new(name, self.script(), check);
        Ok(test
            .command_line(&words)
            .cpus(self.cpus)
            .in_turn()
            .disks([Disk::new(image::demo()?, Access::Snapshot)])
            .time_limit(240 + 2 * u64::from(self.kills)))
    }

    /// What a report says, if everything is right.
    ///
    /// # Errors
    /// What is not right.
    pub fn findings(&self, report: &Report) -> anyhow::Result<Findings> {
        report.expect_status(0)?;
        let warm = report.section("warm")?;
        let whole = whole(warm)?;
        ensure!(
            warm.starts_with(&whole.repeat(2)),
            "after one death each: {warm:?}"
        );
        let rounds = self.rounds() + 1;
        compare("reading", report.section("reading")?, &whole.repeat(rounds))?;
        let network: Vec<&str> = report.section("network")?.lines().collect();
        ensure!(
            network.len() == 3 && network[2] == whole.trim() && network[0] == network[1],
            "a file over the network, and over the file system: {network:?}"
        );
        let list = report.section("list")?;
        ensure!(
            !list.contains("quarantined") && !list.contains("failed"),
            "not everything runs: {list:?}"
        );
        super::endurance::check_counts(report)?;
        let mut killed = BTreeMap::new();
        for (_, who) in self.deaths() {
            *killed.entry(who).or_insert(0) += 1;
        }
        Ok(Findings {
            killed,
            rounds,
            files: whole.trim().parse()?,
        })
    }
}

/// Words of the command line: these may die often and come back at once.
fn patience(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let word = |name: &&str| format!("restart.{name}=budget=1000000,pause-min-ms=1,pause-max-ms=1");
    names.iter().map(word).collect::<Vec<_>>().join(" ")
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let machine =
        |name: &str, cpus: u32, script: &str, check: fn(&Report) -> anyhow::Result<()>| {
            let disk = Disk::new(image::demo()?, Access::Snapshot);
            Ok(
                SystemTest::new(format!("services-{name}-cpus-{cpus}"), script, check)
                    .command_line(&patience(&["volumes", "devmgr", "buses"]))
                    .cpus(cpus)
                    .in_turn()
                    .disks([disk]),
            )
        };
    let policy = "drv policy virtio0 budget=10000 pause-min-ms=1 pause-max-ms=1\n";
    let devmgr = format!("{policy}{DEVMGR}");
    let seeded = Trial {
        cpus: 2,
        kills: 16,
        seed: 1,
    };
    let vfs = machine("vfs", 1, VFS, check_vfs)?
        .replace("httpd", "test-hung-service")
        .command_line(&format!(
            "{} restart.httpd=heartbeat-ms=100,silence-ms=3000",
            patience(&["volumes", "devmgr", "buses"])
        ));
    [
        Ok(vfs),
        machine("devmgr", 4, &devmgr, check_devmgr),
        seeded.test(String::from("services-seeded-cpus-2")),
    ]
    .into_iter()
    .collect()
}
