//! Everything that is in an image comes out as it went in: names, sizes, times,
//! links and every byte; on one to eight processors, over virtio and NVMe, and from
//! several disks at once.

use anyhow::{Context, ensure};

use super::truth::{host_shell, sorted};
use super::{Report, SystemTest, compare};
use crate::guest::disk::{Access, Bus, Disk};
use crate::image::tree::{Capability, HASH_LIST, HUGE_FILE, HUGE_PIECE_LEN, Tree};
use crate::image::{Layout, TestImage};

/// Hashes every file but the huge one; `find` without `!`, so that a small
/// `find` is enough.
const HASH_ALL: &str = "find ./README.txt ./empty ./big.bin ./names ./sizes ./small ./many \
                        ./deep ./sparse/holes.bin -type f -print0 | xargs -0 sha256sum";

/// Commands whose answers depend on the files alone.
const COMPARED: &str = "\
ls | grep -v lost+found
ls -a names
ls -1 many | wc -l
ls many | head -n 3
ls 'small/folder 07'
find deep -type f | wc -l
find deep -type d | sort | tail -n 1
find sizes -type f -size -2 | sort
wc -c sizes/65537.bin README.txt
wc names/.hidden
cat README.txt deep/level0/here.txt
head -c 100 big.bin | sha256sum
tail -c 100 big.bin | sha256sum
tail -n 2 SHA256SUMS
grep -c sizes/ SHA256SUMS
grep 4097 SHA256SUMS
hexdump -C sizes/513.bin | tail -n 3
cmp sizes/4096.bin sizes/4097.bin; echo $?
cmp big.bin big.bin; echo $?
stat -c '%n %s' big.bin empty sparse/holes.bin sparse/huge.bin
dd if=big.bin bs=1000 skip=7 count=3 2>/dev/null | sha256sum
cat 'names/two words.txt' | sha256sum
cat names/MiXeD*.TxT | sha256sum
tail -c 5000 sparse/huge.bin | sha256sum
";

/// The same, where there are links, modes and owners.
const COMPARED_UNIX: &str = "\
find links | sort
find links -type l | wc -l
cat links/relative | sha256sum
cat links/chain | sha256sum
cat links/through-folder | sha256sum
cat links/slow | sha256sum
ls links/folder/ | wc -l
stat -c '%n %s %F %a' big.bin links/slow; stat -c '%n %F %a' links
find 'names/trailing space ' names/back* | sort
";

/// A disk of a test.
#[derive(Clone, Copy)]
struct Volume {
    layout: Layout,
    place: Place,
}

/// What a disk of a test hangs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Virtio,
    /// NVMe, a controller of its own.
    Nvme,
    /// NVMe, a namespace of the controller that the test's disks share.
    Shared,
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    use Layout::{BareExt2, Gpt4096Ext4, GptExt4, MbrFat32};
    use Place::{Nvme, Shared, Virtio};
    // The root is the first disk by name, so NVMe disks stand before virtio disks.
    let runs: [(&[(Place, Layout)], u32); 11] = [
        (&[(Virtio, GptExt4)], 1),
        (&[(Virtio, MbrFat32)], 1),
        (&[(Virtio, BareExt2)], 1),
        (&[(Virtio, GptExt4)], 2),
        (&[(Virtio, MbrFat32)], 4),
        (&[(Virtio, BareExt2)], 8),
        (&[(Virtio, MbrFat32), (Virtio, GptExt4)], 2),
        (
            &[(Virtio, GptExt4), (Virtio, MbrFat32), (Virtio, BareExt2)],
            8,
        ),
        (&[(Nvme, GptExt4)], 1),
        (&[(Shared, Gpt4096Ext4), (Shared, BareExt2)], 2),
        (&[(Nvme, MbrFat32), (Nvme, GptExt4), (Virtio, BareExt2)], 4),
    ];
    runs.into_iter()
        .map(|(volumes, cpus)| {
            let volumes: Vec<Volume> = volumes
                .iter()
                .map(|&(place, layout)| Volume { layout, place })
                .collect();
            test(&volumes, cpus)
        })
        .collect()
}

impl Volume {
    /// What it is called in the test's name.
    fn label(self) -> String {
        let bus = match self.place {
            Place::Virtio => "",
            Place::Nvme => "nvme-",
            Place::Shared => "nvme-shared-",
        };
        format!("{bus}{}", self.layout.name())
    }

    fn disk(self, image: &TestImage) -> Disk {
        let (bus, controller) = match self.place {
            Place::Virtio => (Bus::Virtio, None),
            Place::Nvme => (Bus::Nvme, None),
            Place::Shared => (Bus::Nvme, Some("shared".to_owned())),
        };
        Disk {
            bus,
            controller,
            block_size: Some(self.layout.block_size()),
            ..Disk::new(&image.file, Access::ReadOnly)
        }
    }
}

/// The names that the disks have in the system, in the order of `volumes`.
fn disk_names(volumes: &[Volume]) -> Vec<String> {
    let count = |until: usize, place: Place| {
        let before = volumes.iter().take(until);
        before.filter(|volume| volume.place == place).count()
    };
    // Controllers come in the order of the first disk that needs them; no test has
    // a shared one beside others.
    let name = |(index, volume): (usize, &Volume)| match volume.place {
        Place::Virtio => format!("virtio{}", count(index, Place::Virtio)),
        Place::Nvme => format!("nvme{}n1", count(index, Place::Nvme)),
        Place::Shared => format!("nvme0n{}", count(index, Place::Shared) + 1),
    };
    volumes.iter().enumerate().map(name).collect()
}

/// How many PCI functions the disks are.
fn functions(volumes: &[Volume]) -> usize {
    let own = |volume: &&Volume| volume.place != Place::Shared;
    let shared = volumes.iter().any(|volume| volume.place == Place::Shared);
    volumes.iter().filter(own).count() + usize::from(shared)
}

fn test(volumes: &[Volume], cpus: u32) -> anyhow::Result<SystemTest> {
    let images = volumes
        .iter()
        .map(|volume| volume.layout.image())
        .collect::<anyhow::Result<Vec<TestImage>>>()?;
    let disks: Vec<Disk> = volumes
        .iter()
        .zip(&images)
        .map(|(volume, image)| volume.disk(image))
        .collect();
    let names = disk_names(volumes);
    let labels: Vec<String> = volumes.iter().map(|volume| volume.label()).collect();
    let name = format!("read-{}-cpus-{cpus}", labels.join("-and-"));

    let mut script = "\
        echo '== lspci'; lspci\n\
        echo '== lsdev'; lsdev\n\
        echo '== lsblk'; lsblk -b\n\
        echo '== mount'; mount\n\
        echo '== root'; ls -l /\n\
        echo '== big'; sha256sum /big.bin\n"
        .to_owned();
    for (index, ((image, volume), name)) in images.iter().zip(volumes).zip(&names).enumerate() {
        let folder = match index {
            0 => "/".to_owned(),
            _ => format!("/mnt/{name}{}", partition_suffix(volume.layout)),
        };
        script.push_str(&volume_script(index, &folder, &image.tree));
    }
    // Nothing may follow the status of the last comparison.
    script.push_str("true\n");
    let count = images.len();
    let volumes = volumes.to_vec();
    let check = move |report: &Report| {
        report.expect_status(0)?;
        let pci = report.section("lspci")?;
        let found = pci.lines().filter(|line| is_disk(line)).count();
        let expected = functions(&volumes);
        ensure!(
            found == expected,
            "lspci shows {found} functions with disks of {expected}: {pci}"
        );
        let nodes = report.section("lsdev")?;
        for ((name, volume), image) in names.iter().zip(&volumes).zip(&images) {
            ensure!(nodes.contains(name), "lsdev lacks {name}: {nodes:?}");
            check_listed(report.section("lsblk")?, name, *volume, image)?;
        }
        let mounts = report.section("mount")?;
        ensure!(
            mounts.lines().any(|line| line.contains(" on / ")),
            "nothing is mounted on /: {mounts:?}"
        );
        for (index, (image, volume)) in images.iter().zip(&volumes).enumerate() {
            check_volume(report, index, &image.tree)
                .with_context(|| format!("volume {} ({})", index + 1, volume.label()))?;
        }
        let first = images.first().context("a test without disks")?;
        check_long_list(report.section("root")?, &first.tree)?;
        let truth = host_shell(&first.tree.folder, "sha256sum big.bin")?;
        compare(
            "sha256sum /big.bin",
            report.section("big")?,
            &truth.replace("big.bin", "/big.bin"),
        )
    };
    Ok(SystemTest::new(name, script, check)
        .cpus(cpus)
        .disks(disks)
        .time_limit(300 + 240 * count as u64))
}

/// Checks that `lsblk -b` shows the disk with its size and the size of its blocks.
fn check_listed(text: &str, name: &str, volume: Volume, image: &TestImage) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(&image.file)?.len().to_string();
    let block = volume.layout.block_size().to_string();
    // QEMU's NVMe does not tell the guest that a namespace is read-only.
    let read_only = match volume.place {
        Place::Virtio => "1",
        Place::Nvme | Place::Shared => "0",
    };
    // NAME, SIZE, RO, TYPE, BLOCK.
    let expected = [name, &bytes, read_only, "disk", &block];
    let line = text.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name)
    });
    let line = line.with_context(|| format!("lsblk lacks {name}: {text:?}"))?;
    let words: Vec<&str> = line.split_whitespace().take(5).collect();
    ensure!(words == expected, "lsblk: {line:?}, expected {expected:?}");
    Ok(())
}

/// QEMU's virtio-blk or NVMe controller, by the identity that lspci prints or by its name.
fn is_disk(line: &str) -> bool {
    let line = line.to_lowercase();
    line.contains("1af4:1042")
        || line.contains("non-volatile memory")
        || (line.contains("virtio") && line.contains("block"))
}

/// What a disk's name has behind it where the file system is in a partition.
fn partition_suffix(layout: Layout) -> &'static str {
    match layout {
        Layout::GptExt4 | Layout::Gpt4096Ext4 | Layout::MbrFat32 => "p1",
        Layout::BareExt2 => "",
    }
}

/// The commands for volume number `index`, which is mounted at `folder`.
fn volume_script(index: usize, folder: &str, tree: &Tree) -> String {
    format!(
        "cd {folder}\n\
         echo '== compared {index}'\n{}\
         echo '== sizes {index}'\nls -l sizes\n\
         echo '== pieces {index}'\n{}\
         echo '== broken {index}'\ncat no/such/file; echo $?\n\
         echo '== hashes {index}'\n{HASH_ALL}\n",
        compared(tree),
        pieces(tree),
    )
}

fn compared(tree: &Tree) -> String {
    match tree.capability {
        Capability::Unix => format!("{COMPARED}{COMPARED_UNIX}"),
        Capability::Fat => COMPARED.to_owned(),
    }
}

/// Hashes of the huge file's pieces of data, and of the hole before each.
fn pieces(tree: &Tree) -> String {
    let block = HUGE_PIECE_LEN / 2;
    let mut script = String::new();
    for offset in tree.huge_pieces() {
        let skip = (offset / block).saturating_sub(2);
        script.push_str(&format!(
            "dd if={HUGE_FILE} bs={block} skip={skip} count=4 2>/dev/null | sha256sum\n"
        ));
    }
    script
}

fn check_volume(report: &Report, index: usize, tree: &Tree) -> anyhow::Result<()> {
    let section = |name: &str| report.section(&format!("{name} {index}"));
    for (name, script) in [("compared", compared(tree)), ("pieces", pieces(tree))] {
        compare(name, section(name)?, &host_shell(&tree.folder, &script)?)?;
    }
    compare("a missing file", section("broken")?, "1\n")?;
    check_sizes(section("sizes")?, tree)?;
    let truth = std::fs::read_to_string(tree.folder.join(HASH_LIST))?;
    ensure!(
        truth.lines().count() > 3000,
        "the host's list of hashes is short"
    );
    compare(
        "hashes, sorted",
        &sorted(section("hashes")?),
        &sorted(&truth),
    )
}

/// Compares `ls -l` of files with the host's, without the columns that an image
/// need not keep: owner and group, and on FAT the mode and the count of links.
fn check_sizes(found: &str, tree: &Tree) -> anyhow::Result<()> {
    let truth = host_shell(&tree.folder, "ls -l sizes")?;
    let columns = |text: &str| -> String {
        text.lines()
            .filter(|line| line.starts_with('-'))
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let kept = words.iter().enumerate().filter(|(column, _)| {
                    let fat = tree.capability == Capability::Fat;
                    !(matches!(column, 2 | 3) || (fat && *column < 2))
                });
                let kept: Vec<&str> = kept.map(|(_, word)| *word).collect();
                kept.join(" ") + "\n"
            })
            .collect()
    };
    compare("ls -l sizes", &columns(found), &columns(&truth))
}

/// Checks that `ls -l /` names what is in the image's root folder.
fn check_long_list(found: &str, tree: &Tree) -> anyhow::Result<()> {
    let truth = host_shell(&tree.folder, "ls")?;
    for name in truth.lines() {
        ensure!(
            found
                .lines()
                .any(|line| line.ends_with(&format!(" {name}"))),
            "ls -l / does not show {name}"
        );
    }
    Ok(())
}
