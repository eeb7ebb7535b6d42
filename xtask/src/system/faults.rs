//! Damaged disks: the log names the fault, nothing hangs, nothing panics, and a
//! whole disk beside the damaged one works on.

use anyhow::ensure;

use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Disk};
use crate::image;
use crate::image::damage::{Fault, VICTIM};

/// What is expected of a fault.
struct Expected {
    fault: Fault,
    /// Words that one line of the log has.
    named: &'static [&'static str],
    /// Whether the whole volume is refused, or only a file.
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Nothing is mounted from this disk.
    Volume,
    /// The volume is mounted; the victim cannot be read, the other files can.
    Victim,
    /// All files can be read.
    Nothing,
}

const EXPECTED: [Expected; 9] = [
    Expected {
        fault: Fault::Truncated,
        named: &["gpt", "outside"],
        scope: Scope::Volume,
    },
    Expected {
        fault: Fault::Superblock,
        named: &["superblock", "block_size"],
        scope: Scope::Volume,
    },
    Expected {
        fault: Fault::SuperblockChecksum,
        named: &["superblock", "checksum"],
        scope: Scope::Volume,
    },
    Expected {
        fault: Fault::FatLoop,
        named: &["loop"],
        scope: Scope::Victim,
    },
    Expected {
        fault: Fault::OverlappingExtents,
        named: &["extent"],
        scope: Scope::Victim,
    },
    Expected {
        fault: Fault::ExtentOutside,
        named: &["inode", "outside the volume"],
        scope: Scope::Victim,
    },
    Expected {
        fault: Fault::GptPrimary,
        named: &["gpt", "backup"],
        scope: Scope::Nothing,
    },
    Expected {
        fault: Fault::GptBoth,
        named: &["gpt", "crc"],
        scope: Scope::Volume,
    },
    Expected {
        fault: Fault::GptEntries,
        named: &["gpt", "crc"],
        scope: Scope::Volume,
    },
];

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    EXPECTED.into_iter().map(test).collect()
}

fn test(expected: Expected) -> anyhow::Result<SystemTest> {
    let name = expected.fault.name();
    // The whole disk is the first, and so the root.
    let disks = [
        Disk::new(image::demo()?, Access::Snapshot),
        Disk::new(expected.fault.image()?, Access::ReadOnly),
    ];
    let script = format!(
        "echo '== mounts'; mount | wc -l\n\
         echo '== whole'; sha256sum /big.bin | head -c 10; echo\n\
         cd /mnt/* && {{\n\
         echo '== good'; cat GOOD.TXT\n\
         echo '== victim'; cat {VICTIM} | wc -c\n\
         sha256sum {VICTIM}; echo $?\n\
         }}\n\
         true\n"
    );
    let check = move |report: &Report| {
        report.expect_status(0)?;
        report.log_line(expected.named)?;
        let whole = report.section("whole")?;
        ensure!(
            whole.trim_end().len() == 10,
            "the whole disk gave {whole:?}"
        );
        match expected.scope {
            Scope::Volume => ensure!(
                report.section("good").is_err(),
                "a damaged volume was mounted"
            ),
            Scope::Nothing => {
                compare("GOOD.TXT", report.section("good")?, "this file is whole\n")?;
                let victim = report.section("victim")?;
                ensure!(
                    victim.starts_with("200000\n") && victim.ends_with("\n0\n"),
                    "{VICTIM} was not read: {victim:?}"
                );
            }
            Scope::Victim => {
                compare("GOOD.TXT", report.section("good")?, "this file is whole\n")?;
                let victim = report.section("victim")?;
                ensure!(
                    !victim.starts_with("200000\n") && !victim.ends_with("\n0\n"),
                    "{VICTIM} was read as if it were whole: {victim:?}"
                );
            }
        }
        Ok(())
    };
    Ok(SystemTest::new(name, script, check).disks(disks))
}
