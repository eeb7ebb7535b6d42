//! A driver that crashes, one that gives up, one that is killed, and one that hangs: each device is
//! fenced, each end is told with its reason, and what they held comes back,
//! except from a device that cannot be fenced.

use anyhow::ensure;

use super::{Report, SystemTest, compare};

/// QEMU's devices that `test-faulty-driver` matches. Those behind a root port can be
/// reset through it; the last one has no way to be reset.
const DEVICES: [&str; 14] = [
    "-device",
    "pcie-root-port,id=rp0,chassis=1,addr=8",
    "-device",
    "pci-testdev,bus=rp0",
    "-device",
    "pcie-root-port,id=rp1,chassis=2,addr=9",
    "-device",
    "edu,bus=rp1",
    "-device",
    "pcie-root-port,id=rp2,chassis=3,addr=10",
    "-device",
    "bochs-display,bus=rp2",
    "-device",
    "edu,addr=11",
];

/// One that hangs, on a machine with a single CPU: everybody else goes on meanwhile, and the missed
/// heartbeat ends it. Beside it one whose interrupt storms.
const HANG: [&str; 6] = [
    "-device",
    "virtio-balloon-pci,disable-legacy=on,addr=12",
    "-device",
    "pcie-root-port,id=rp0,chassis=1,addr=8",
    "-device",
    "edu,bus=rp0",
];

const HANG_SCRIPT: &str = "\
echo '== before'; lsdev | grep 00:12.0
drv policy /pci/01:00.0 probation-ms=100 budget=8
drv reload /pci/01:00.0 /boot/bin/test-storm-driver
echo '== meanwhile'; for i in 1 2 3 4 5 6 7 8 9 10; do echo $i | cat; done | wc -l
sleep 13
echo '== after'; lsdev | grep 00:12.0
echo '== storm'; lsdev | grep 01:00.0; drv info /pci/01:00.0
";

fn check_hang(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    let (before, after) = (report.section("before")?, report.section("after")?);
    ensure!(before.contains("running"), "not in service: {before:?}");
    compare("meanwhile", report.section("meanwhile")?, "10\n")?;
    ensure!(after.contains("failed"), "still there: {after:?}");
    report.log_line(&[
        "00:12.0",
        "no heartbeat for 10 s",
        "device reset, ",
        "quarantine released",
    ])?;
    let storm = report.section("storm")?;
    ensure!(
        storm.contains("running")
            && storm.contains("faulty 0.2.0")
            && storm.contains("interrupt storm"),
        "after the storm: {storm:?}"
    );
    report.log_line(&[
        "01:00.0",
        "interrupt storm: ",
        "interrupts masked, ",
        "device reset, ",
    ])?;
    Ok(())
}

const SCRIPT: &str = "\
while ! lsdev | grep 02:00.0 | grep -q failed; do sleep 0.1; done
while ! lsdev | grep 03:00.0 | grep -q failed; do sleep 0.1; done
while ! lsdev | grep 00:11.0 | grep -q quarantined; do sleep 0.1; done
echo '== before'; lsdev | grep faulty; free
echo '== kill'
ps | grep faulty | { read pid rest; kill $pid; echo $?; }
while ! lsdev | grep 01:00.0 | grep -q failed; do sleep 0.1; done
echo '== after'; lsdev | grep faulty
echo '== memory'; free | tail -n 1
echo '== crashes'; crashes
echo '== why'; why /pci/02:00.0
";

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let hang = SystemTest::new("driver-hangs", HANG_SCRIPT, check_hang).devices(&HANG);
    let faults = SystemTest::new("driver-faults", SCRIPT, |report| {
        check(report)?;
        // The panic: message, fault, and the function by name.
        report.log_line(&["faulty", "panicked", "out of order at 4584"])?;
        report.log_line(&["faulty", "invalid instruction"])?;
        report.log_line(&["devmgr", "lose_its_head"])?;
        Ok(())
    });
    let faults = faults.devices(&DEVICES);
    let contained = SystemTest::new("driver-faults-iommu-cpus-4", SCRIPT, |report| {
        check(report)?;
        report.log_line(&["IOMMU", "was refused to read 0x0"])?;
        report.log_line(&["02:00.0", "refused memory", "device reset, "])?;
        Ok(())
    });
    let contained = contained.cpus(4).devices(&DEVICES).iommu();
    Ok(vec![faults, contained, hang])
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare("kill", report.section("kill")?, "0\n")?;
    let states = |section: &str, state: &str| -> anyhow::Result<usize> {
        let text = report.section(section)?;
        let lines = text.lines().filter(|line| line.contains("faulty"));
        Ok(lines.filter(|line| line.contains(state)).count())
    };
    let before = states("before", "running")?;
    ensure!(
        before == 1,
        "{before} in service, not the one that nobody killed yet"
    );
    ensure!(states("after", "failed")? == 3, "not three failed");
    ensure!(
        states("after", "quarantined")? == 1,
        "the device that cannot be reset is not in quarantine"
    );

    ensure!(
        report.section("crashes")?.contains("faulty"),
        "the crash is not listed"
    );
    report.log_line(&["03:00.0", "smells of smoke", "device reset, "])?;
    report.log_line(&["01:00.0", "killed", "device reset, ", "quarantine released"])?;
    report.log_line(&["00:11.0", "device reset: failed"])?;

    // There is no disk. Pages of the device that was not fenced stay where they are; those of
    // the others, 16 each, come back.
    let memory = report.section("memory")?;
    ensure!(
        memory.split_whitespace().last() == Some("64"),
        "KiB in quarantine, expected 64: {memory:?}"
    );
    ensure!(
        report.section("why")?.contains("pci:1234:11e8"),
        "why does not name the rule"
    );
    Ok(())
}
