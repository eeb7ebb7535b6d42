//! The rows of the table: what is measured, under which name.
//!
//! Both guests print a row's name with each pass and choose the section number of
//! the marker themselves, so nothing but the name is shared with them.

use super::wire::SEGMENT;
use crate::guest::nic::Model;

/// On which systems a row exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On both.
    Both,
    /// Only the peer has the mechanism; shown for comparison.
    Peer,
}

/// What the host does to a guest that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Datagrams that come back, so many at a time.
    Echo { window: u32, count: u32 },
    /// A stream into the guest.
    ToGuest,
    /// A stream from the guest.
    FromGuest,
    /// Requests of a page over several connections.
    Web,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name on the command line, in the guests' output and in JSON.
    pub name: &'static str,
    /// What one operation is.
    pub label: &'static str,
    /// Bytes that one operation moves; 0 where a rate has no meaning.
    pub bytes: u64,
    /// How far instructions may grow over the baseline, in percent.
    pub tolerance_percent: f64,
    /// On which systems it exists.
    pub on: On,
    /// For a row of the network: the load, and its number for the markers.
    pub load: Option<(Load, u8)>,
    /// The interface of such a row.
    pub nic: Option<Model>,
}

const fn row(name: &'static str, label: &'static str, bytes: u64) -> Row {
    Row {
        name,
        label,
        bytes,
        tolerance_percent: 3.0,
        on: On::Both,
        load: None,
        nic: None,
    }
}

/// How much comes and goes in one wake-up depends on the host's scheduler too.
const fn net(nic: Model, load: Load, number: u8, row: Row) -> Row {
    Row {
        tolerance_percent: 15.0,
        load: Some((load, number)),
        nic: Some(nic),
        ..row
    }
}

/// At depth 1 it depends on the host's scheduler whether the guest has gone idle
/// before the device answers, so counts vary more.
const fn depth_1(row: Row) -> Row {
    Row {
        tolerance_percent: 5.0,
        ..row
    }
}

const fn peer_only(row: Row) -> Row {
    Row {
        on: On::Peer,
        ..row
    }
}

/// The name of the row that ends where the first program of the measurement starts.
pub const BOOT: &str = "boot";

const SMALL: u64 = 4 << 10;
const MEDIUM: u64 = 128 << 10;
const LARGE: u64 = 1 << 20;

const ECHO_1: Load = Load::Echo {
    window: 1,
    count: 1_000,
};
const ECHO_32: Load = Load::Echo {
    window: 32,
    count: 10_000,
};

/// All rows, in the order of the table.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("null-call", "null system call", 0),
    row("call-reply-64", "64-byte call and reply, two processes", 0),
    peer_only(row("call-reply-64-pipe", "the same through pipes", 0)),
    row("thread-switch", "switch to another thread and back", 0),
    row("page-fault", "page fault, anonymous memory", 0),
    row("spawn", "process start and exit, waited for", 0),
    peer_only(row("fork-exit", "fork, exit, wait", 0)),
    row("irq-to-user", "interrupt to user-space handler and back", 0),
    depth_1(row("raw-read-4k-qd1", "4 KiB random read, raw, depth 1", SMALL)),
    row("raw-read-4k-qd32", "4 KiB random read, raw, depth 32", SMALL),
    depth_1(row("raw-write-4k-qd1", "4 KiB random write, raw, depth 1", SMALL)),
    row("raw-write-4k-qd32", "4 KiB random write, raw, depth 32", SMALL),
    depth_1(row("raw-seq-read-128k", "128 KiB sequential read, raw", MEDIUM)),
    depth_1(row("raw-seq-read-1m", "1 MiB sequential read, raw", LARGE)),
    depth_1(row("nvme-read-4k-qd1", "4 KiB random read, NVMe, depth 1", SMALL)),
    row("nvme-read-4k-qd32", "4 KiB random read, NVMe, depth 32", SMALL),
    depth_1(row("nvme-write-4k-qd1", "4 KiB random write, NVMe, depth 1", SMALL)),
    row("nvme-write-4k-qd32", "4 KiB random write, NVMe, depth 32", SMALL),
    depth_1(row("nvme-seq-read-128k", "128 KiB sequential read, NVMe", MEDIUM)),
    depth_1(row("nvme-seq-read-1m", "1 MiB sequential read, NVMe", LARGE)),
    depth_1(row("ext4-read-4k-qd1", "4 KiB random read, ext4, depth 1", SMALL)),
    row("ext4-read-4k-qd32", "4 KiB random read, ext4, depth 32", SMALL),
    depth_1(row("ext4-seq-read-128k", "128 KiB sequential read, ext4", MEDIUM)),
    depth_1(row("ext4-seq-read-1m", "1 MiB sequential read, ext4", LARGE)),
    row("ext4-cached-4k", "4 KiB random read, ext4, cached", SMALL),
    net(Model::Virtio, ECHO_1, 0, row("net-virtio-echo-1", "UDP echo, one at a time, virtio-net", 0)),
    net(Model::Virtio, ECHO_32, 1, row("net-virtio-echo-32", "UDP echo, 32 at a time, virtio-net", 0)),
    net(Model::Virtio, Load::ToGuest, 2, row("net-virtio-tcp-in", "1,460 bytes of TCP into the guest, virtio-net", SEGMENT)),
    net(Model::Virtio, Load::FromGuest, 3, row("net-virtio-tcp-out", "1,460 bytes of TCP from the guest, virtio-net", SEGMENT)),
    net(Model::Virtio, Load::Web, 4, row("net-virtio-http", "HTTP GET of 1 KiB, 8 connections, virtio-net", 0)),
    net(Model::E1000, ECHO_1, 0, row("net-e1000-echo-1", "UDP echo, one at a time, e1000", 0)),
    net(Model::E1000, ECHO_32, 1, row("net-e1000-echo-32", "UDP echo, 32 at a time, e1000", 0)),
    net(Model::E1000, Load::ToGuest, 2, row("net-e1000-tcp-in", "1,460 bytes of TCP into the guest, e1000", SEGMENT)),
    net(Model::E1000, Load::FromGuest, 3, row("net-e1000-tcp-out", "1,460 bytes of TCP from the guest, e1000", SEGMENT)),
    net(Model::E1000, Load::Web, 4, row("net-e1000-http", "HTTP GET of 1 KiB, 8 connections, e1000", 0)),
    row(BOOT, "boot to the first program (ours: of the shell)", 0),
];

/// The rows whose name contains `name`, or all.
pub fn matching(name: Option<&str>) -> Vec<&'static Row> {
    ROWS.iter()
        .filter(|row| name.is_none_or(|part| row.name.contains(part)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_part_selects() {
        for (i, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..i].iter().all(|other| other.name != row.name));
        }
        let names: Vec<_> = matching(Some("seq-read")).iter().map(|r| r.name).collect();
        assert_eq!(
            names,
            [
                "raw-seq-read-128k",
                "raw-seq-read-1m",
                "nvme-seq-read-128k",
                "nvme-seq-read-1m",
                "ext4-seq-read-128k",
                "ext4-seq-read-1m"
            ]
        );
        assert_eq!(matching(None).len(), ROWS.len());
    }
}
