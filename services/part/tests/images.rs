//! Tables made by sgdisk and sfdisk.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use part::{GptCopy, GptError, Note, PartitionKind, Scheme, Table, TableError, read_table};
use proptest::prelude::*;
use tempfile::TempDir;
use volume::host::run_ready;

#[expect(
    clippy::result_large_err,
    reason = "a test; the error has both copies' reasons"
)]
fn table(bytes: &[u8]) -> Result<Table, TableError> {
    run_ready(read_table(&bytes.to_vec(), 512))
}

fn image(size: u64, make: impl FnOnce(&Path)) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("image");
    fs::File::create(&path).unwrap().set_len(size).unwrap();
    make(&path);
    fs::read(path).unwrap()
}

fn gpt() -> Vec<u8> {
    image(8 << 20, |path| {
        let output = Command::new("sgdisk")
            .args(["-n", "1:2048:4095", "-c", "1:boot", "-t", "1:EF00"])
            .args(["-n", "2:4096:0", "-c", "2:räksmörgås", "-n", "7:40:2047"])
            .arg(path)
            .output()
            .expect("sgdisk (package gdisk) is needed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    })
}

fn sfdisk(size: u64, script: &str) -> Vec<u8> {
    image(size, |path| {
        let mut child = Command::new("sfdisk")
            .arg("-q")
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk (package fdisk) is needed");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    })
}

fn ranges(table: &Table) -> Vec<(u32, u64, u64)> {
    table
        .partitions
        .iter()
        .map(|p| (p.number, p.first_lba, p.blocks))
        .collect()
}

#[test]
fn gpt_of_sgdisk() {
    let table = table(&gpt()).unwrap();
    assert_eq!(table.scheme, Scheme::Gpt(GptCopy::Primary));
    assert_eq!(table.notes, []);
    assert_eq!(
        ranges(&table),
        [
            (1, 2048, 2048),
            (2, 4096, 16384 - 34 - 4096 + 1),
            (7, 40, 2008)
        ]
    );
    assert_eq!(table.partitions[0].name, "boot");
    assert_eq!(table.partitions[1].name, "räksmörgås");
    let PartitionKind::Gpt(guid) = table.partitions[0].kind else {
        panic!()
    };
    assert_eq!(guid.to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
}

#[test]
fn a_bad_copy_is_named_and_the_other_is_used() {
    let good = gpt();
    let last = good.len() - 512;
    let expected = ranges(&table(&good).unwrap());
    // A bit in the primary's entries, then in its header.
    let mut bytes = good.clone();
    bytes[1024 + 56] ^= 1;
    let read = table(&bytes).unwrap();
    assert_eq!(read.scheme, Scheme::Gpt(GptCopy::Backup));
    assert!(matches!(
        read.notes[..],
        [Note::PrimaryGptBad(GptError::EntriesCrc { .. })]
    ));
    assert_eq!(ranges(&read), expected);
    bytes[512 + 40] ^= 1;
    let read = table(&bytes).unwrap();
    assert!(matches!(
        read.notes[..],
        [Note::PrimaryGptBad(GptError::HeaderCrc { .. })]
    ));
    assert!(read.notes[0].to_string().contains("bad header CRC"));
    assert_eq!(ranges(&read), expected);
    // Both.
    bytes[last + 20 + 12] ^= 1;
    let error = table(&bytes).unwrap_err();
    assert!(matches!(
        error,
        TableError::BothGptBad {
            primary: GptError::HeaderCrc { .. },
            backup: GptError::HeaderCrc { .. },
        }
    ));
    assert!(
        error
            .to_string()
            .contains("no usable GPT: primary: bad header CRC")
    );
    // The backup alone, and cut off.
    let mut bytes = good.clone();
    bytes[last] = 0;
    let read = table(&bytes).unwrap();
    assert_eq!(read.notes, [Note::BackupGptBad(GptError::Signature)]);
    assert_eq!(ranges(&read), expected);
}

#[test]
fn a_truncated_disk_with_gpt_is_refused() {
    let mut bytes = gpt();
    bytes.truncate(4 << 20);
    let error = table(&bytes).unwrap_err().to_string();
    assert!(error.contains("partition 2 has blocks 4096 to"), "{error}");
}

#[test]
fn mbr_of_sfdisk_with_logical_partitions() {
    let bytes = sfdisk(
        16 << 20,
        "label: dos\n\
         start=2048, size=4096, type=83\n\
         start=8192, size=2048, type=c\n\
         start=10240, size=20480, type=5\n\
         start=12288, size=2048, type=83\n\
         start=16384, size=4096, type=83\n\
         start=22528, size=1024, type=83\n",
    );
    let read = table(&bytes).unwrap();
    assert_eq!(read.scheme, Scheme::Mbr);
    assert_eq!(read.notes, []);
    assert_eq!(
        ranges(&read),
        [
            (1, 2048, 4096),
            (2, 8192, 2048),
            (5, 12288, 2048),
            (6, 16384, 4096),
            (7, 22528, 1024)
        ]
    );
    assert_eq!(read.partitions[1].kind, PartitionKind::Mbr(0xC));
    // The second logical record leads back to the first.
    let record = 10240 * 512;
    let second = record
        + usize::try_from(u32::from_le_bytes(
            bytes[record + 446 + 16 + 8..][..4].try_into().unwrap(),
        ))
        .unwrap()
            * 512;
    let mut looped = bytes.clone();
    looped[second + 446 + 16 + 8..][..4].copy_from_slice(&[0; 4]);
    let read = table(&looped).unwrap();
    assert_eq!(read.partitions.len(), 4);
    assert!(
        read.notes[0].to_string().contains("the chain loops"),
        "{:?}",
        read.notes
    );
    // A primary partition beyond the end.
    let mut outside = bytes.clone();
    outside[446 + 8..][..4].copy_from_slice(&30_000u32.to_le_bytes());
    let read = table(&outside).unwrap();
    assert_eq!(read.partitions[0].number, 2);
    assert_eq!(
        read.notes,
        [Note::OutsideDevice {
            number: 1,
            end: 34_096,
            blocks: 32_768
        }]
    );
}

#[test]
fn bare_file_systems_have_no_partitions() {
    for command in [
        &["mkfs.vfat"][..],
        &["mkfs.vfat", "-F", "32", "-s", "1"],
        &["mke2fs", "-q", "-F"],
    ] {
        let bytes = image(40 << 20, |path| {
            let output = Command::new(command[0])
                .args(&command[1..])
                .arg(path)
                .output()
                .unwrap();
            assert!(output.status.success());
        });
        let read = table(&bytes).unwrap();
        assert_eq!((read.scheme, read.partitions.len()), (Scheme::None, 0));
    }
    assert_eq!(table(&[0; 512]).unwrap().scheme, Scheme::None);
    assert_eq!(table(&[]).unwrap().scheme, Scheme::None);
}

proptest! {
    #[test]
    fn no_bytes_do_harm(
        which in any::<bool>(),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<bool>()), 0..20),
        len in any::<usize>(),
    ) {
        static IMAGES: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
        let images = IMAGES.get_or_init(|| {
            [gpt(), sfdisk(2 << 20, "label: dos\nstart=64, size=64\nstart=128, type=5\nstart=192, size=64\nstart=320,size=64\n")]
        });
        let mut bytes = images[usize::from(which)].clone();
        bytes.truncate(1024 + len % (bytes.len() - 1023));
        for (at, value, near) in damage {
            let range = if near { 1024 } else { bytes.len() };
            bytes[446 + at % (range - 446)] = value;
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        if let Ok(table) = table(&bytes) {
            let blocks = bytes.len() as u64 / 512;
            for partition in table.partitions {
                prop_assert!(partition.first_lba + partition.blocks <= blocks);
            }
        }
    }
}
