//! What a driver is granted: its manifest's needs against what the device has.
//!
//! The plan is made before anything is created, so that a need that cannot be met costs nothing and is
//! told by `why`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ddk_manifest::{Manifest, Need, NeedKind};
use proto::bus::{Bar, BarKind, PciFunctionInfo};

use crate::node::{Device, PlatformDevice};

const PAGE: u64 = 4096;

/// A part of a BAR that the driver may map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The BAR.
    pub bar: u8,
    /// Where it starts in the BAR, a multiple of the page size.
    pub offset: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Physical address.
    pub physical: u64,
}

impl Window {
    /// Name of the handle in the driver's start-up message.
    pub fn handle_name(&self) -> String {
        if self.offset == 0 {
            format!("bar{}", self.bar)
        } else {
            format!("bar{}@{:x}", self.bar, self.offset)
        }
    }
}

/// What to create for a driver.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grants {
    /// Windows of BARs.
    pub windows: Vec<Window>,
    /// Message-signalled interrupts: MSI-X vectors, or 1 by MSI.
    pub vectors: u16,
    /// Whether it gets a DMA domain.
    pub dma: bool,
    /// Ranges of I/O ports: number, first port, count.
    pub ports: Vec<(u8, u16, u16)>,
    /// Interrupt lines: ISA numbers.
    pub lines: Vec<u8>,
}

impl Grants {
    /// For people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let windows = self.windows.iter().map(|w| {
            let (bar, offset, len) = (w.bar, w.offset, w.len);
            format!(
                "BAR {bar} from {offset:#x}: {len:#x} bytes at {:#x}",
                w.physical
            )
        });
        let ports = self
            .ports
            .iter()
            .map(|(number, first, count)| format!("I/O ports {number}: {count} from {first:#x}"));
        let lines = self
            .lines
            .iter()
            .map(|line| format!("interrupt line {line}"));
        let vectors = (self.vectors > 0).then(|| format!("{} message interrupts", self.vectors));
        let dma = self.dma.then(|| String::from("DMA"));
        windows
            .chain(ports)
            .chain(lines)
            .chain(vectors)
            .chain(dma)
            .collect()
    }
}

/// Plans the grants.
///
/// # Errors
/// The first need that the device cannot meet, with what was expected and seen.
pub fn plan(manifest: &Manifest, device: &Device) -> Result<Grants, String> {
    let mut grants = Grants::default();
    for need in manifest.needs() {
        match device {
            Device::Pci(info) => pci(&mut grants, need, info),
            Device::Platform(device) => platform(&mut grants, need, device),
            Device::Bus { .. } => Err(String::from("a bus grants nothing")),
        }
        .map_err(|seen| format!("needs {need}: {seen}"))?;
    }
    Ok(grants)
}

fn pci(grants: &mut Grants, need: &Need, info: &PciFunctionInfo) -> Result<(), String> {
    match need.kind() {
        NeedKind::Bar { index } => {
            let bar = info
                .bars
                .iter()
                .find(|b| b.index == index)
                .ok_or("the device does not have it")?;
            if bar.kind == BarKind::Io {
                return Err(String::from("it is a range of I/O ports"));
            }
            add_bar(grants, info, bar)
        }
        NeedKind::MemoryBars => {
            let mut any = false;
            // One without an address is left out: a driver that wants it finds it missing.
            for bar in info
                .bars
                .iter()
                .filter(|b| b.kind != BarKind::Io && b.base != 0)
            {
                add_bar(grants, info, bar)?;
                any = true;
            }
            if any {
                Ok(())
            } else {
                Err(String::from("the device has none"))
            }
        }
        NeedKind::Msix { min, max } => {
            let offered = info.msix.map_or(0, |m| m.vectors);
            if offered < min {
                return Err(format!("the device offers {offered}"));
            }
            grants.vectors = offered.min(max);
            Ok(())
        }
        NeedKind::MessageInterrupt => {
            if info.msix.is_none() && info.msi_vectors == 0 {
                return Err(String::from("the device has neither MSI-X nor MSI"));
            }
            grants.vectors = grants.vectors.max(1);
            Ok(())
        }
        NeedKind::Dma { .. } => {
            grants.dma = true;
            Ok(())
        }
        NeedKind::IoPorts { index } => {
            let bar = info
                .bars
                .iter()
                .filter(|b| b.kind == BarKind::Io && b.base != 0)
                .nth(usize::from(index))
                .ok_or("the device does not have it")?;
            let first = u16::try_from(bar.base).map_err(|_| "it lies beyond the ports")?;
            let count = u16::try_from(bar.len).map_err(|_| "it is too long")?;
            grants.ports.push((index, first, count));
            Ok(())
        }
        NeedKind::InterruptLine { .. } => Err(String::from("PCI functions use messages here")),
        NeedKind::Unknown(kind) => Err(format!("kind {kind} is unknown")),
    }
}

fn platform(grants: &mut Grants, need: &Need, device: &PlatformDevice) -> Result<(), String> {
    match need.kind() {
        NeedKind::IoPorts { index } => {
            let (first, count) = device
                .ports
                .get(usize::from(index))
                .ok_or("the device does not have it")?;
            grants.ports.push((index, *first, *count));
            Ok(())
        }
        NeedKind::InterruptLine { index } => {
            let line = device
                .interrupts
                .get(usize::from(index))
                .ok_or("the device does not have it")?;
            grants.lines.push(*line);
            Ok(())
        }
        _ => Err(String::from("a platform device does not have it")),
    }
}

fn add_bar(grants: &mut Grants, info: &PciFunctionInfo, bar: &Bar) -> Result<(), String> {
    if bar.base == 0 {
        return Err(format!("BAR {} has no address", bar.index));
    }
    // A BAR below a page shares its page with others: it cannot be given out alone.
    if bar.len < PAGE || !bar.base.is_multiple_of(PAGE) {
        return Err(format!(
            "BAR {} of {:#x} bytes shares a page",
            bar.index, bar.len
        ));
    }
    if grants.windows.iter().any(|w| w.bar == bar.index) {
        return Ok(());
    }
    let mut at = 0;
    for (first, end) in hidden(info, bar) {
        push(grants, bar, at, first.min(bar.len));
        at = at.max(end);
    }
    push(grants, bar, at, bar.len);
    Ok(())
}

fn push(grants: &mut Grants, bar: &Bar, from: u64, to: u64) {
    if from < to {
        grants.windows.push(Window {
            bar: bar.index,
            offset: from,
            len: to.saturating_sub(from),
            physical: bar.base.saturating_add(from),
        });
    }
}

/// Pages of the BAR that hold the MSI-X table or pending bits, sorted: (first byte, one past the last).
fn hidden(info: &PciFunctionInfo, bar: &Bar) -> Vec<(u64, u64)> {
    let Some(msix) = info.msix else {
        return Vec::new();
    };
    let table = u64::from(msix.vectors).saturating_mul(16);
    let pending = u64::from(msix.vectors).div_ceil(64).saturating_mul(8);
    let mut pages: Vec<(u64, u64)> = [
        (msix.table_bar, msix.table_offset, table),
        (msix.pba_bar, msix.pba_offset, pending),
    ]
    .into_iter()
    .filter(|(index, _, _)| *index == bar.index)
    .map(|(_, offset, len)| {
        let first = u64::from(offset) & !(PAGE - 1);
        let end = u64::from(offset).saturating_add(len).next_multiple_of(PAGE);
        (first, end.min(bar.len))
    })
    .collect();
    pages.sort_unstable();
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddk_manifest::{
        Class, bar, dma, interrupt_line, io_ports, memory_bars, message_interrupt, msix,
    };
    use proptest::prelude::*;
    use proto::bus::{MsixInfo, PciAddress, ResetMethod};

    fn function(bars: Vec<Bar>, msix: Option<MsixInfo>) -> Device {
        Device::Pci(PciFunctionInfo {
            address: PciAddress::default(),
            vendor: 0x1af4,
            device: 0x1042,
            subsystem_vendor: 0,
            subsystem: 0,
            class: 1,
            subclass: 0,
            interface: 0,
            revision: 1,
            header: 0,
            interrupt_pin: 1,
            interrupt_line: 11,
            buses: None,
            bars,
            capabilities: Vec::new(),
            msix,
            msi_vectors: 0,
            reset: ResetMethod::Virtio,
            faults: Vec::new(),
        })
    }

    fn memory(index: u8, base: u64, len: u64) -> Bar {
        Bar {
            index,
            kind: BarKind::Memory64,
            prefetchable: false,
            base,
            len,
        }
    }

    fn table(vectors: u16, bar: u8, table_offset: u32, pba_offset: u32) -> MsixInfo {
        MsixInfo {
            vectors,
            table_bar: bar,
            table_offset,
            pba_bar: bar,
            pba_offset,
        }
    }

    fn manifest(needs: &[Need]) -> Manifest {
        Manifest::new("x", Class::BLOCK, [1, 0, 0], &[], needs)
    }

    #[test]
    fn the_table_is_left_out() {
        let device = function(
            vec![memory(0, 0x10_0000, 0x8000), memory(1, 0x20_0000, 0x1000)],
            Some(table(300, 0, 0x2000, 0x6000)),
        );
        let grants = plan(&manifest(&[memory_bars(), msix(1, 9), dma(64)]), &device).unwrap();
        let windows: Vec<_> = grants
            .windows
            .iter()
            .map(|w| (w.handle_name(), w.len, w.physical))
            .collect();
        assert_eq!(
            windows,
            [
                ("bar0".into(), 0x2000, 0x10_0000),
                ("bar0@4000".into(), 0x2000, 0x10_4000),
                ("bar0@7000".into(), 0x1000, 0x10_7000),
                ("bar1".into(), 0x1000, 0x20_0000),
            ]
        );
        assert_eq!((grants.vectors, grants.dma), (9, true));
    }

    #[test]
    fn what_cannot_be_met_is_named() {
        let device = function(
            vec![memory(0, 0x10_0000, 0x100)],
            Some(table(2, 0, 0, 0x80)),
        );
        let error = |needs: &[Need]| plan(&manifest(needs), &device).unwrap_err();
        assert_eq!(
            error(&[bar(0)]),
            "needs BAR 0: BAR 0 of 0x100 bytes shares a page"
        );
        assert_eq!(error(&[bar(3)]), "needs BAR 3: the device does not have it");
        assert_eq!(
            error(&[msix(4, 8)]),
            "needs 4 to 8 MSI-X vectors: the device offers 2"
        );
        assert_eq!(
            error(&[interrupt_line(0)]),
            "needs interrupt line 0: PCI functions use messages here"
        );
    }

    #[test]
    fn a_message_comes_by_either_capability() {
        let needs = manifest(&[message_interrupt()]);
        let with = |msix, msi_vectors| {
            let mut device = function(Vec::new(), msix);
            if let Device::Pci(info) = &mut device {
                info.msi_vectors = msi_vectors;
            }
            plan(&needs, &device).map(|grants| grants.vectors)
        };
        assert_eq!(with(Some(table(5, 0, 0, 0x800)), 0), Ok(1));
        assert_eq!(with(None, 4), Ok(1));
        assert_eq!(
            with(None, 0).unwrap_err(),
            "needs a message-signalled interrupt: the device has neither MSI-X nor MSI"
        );
    }

    #[test]
    fn platform_devices_grant_ports_and_lines() {
        let device = Device::Platform(PlatformDevice {
            compatible: "uart16550".into(),
            ports: vec![(0x2f8, 8)],
            interrupts: vec![3],
            description: String::new(),
        });
        let grants = plan(&manifest(&[io_ports(0), interrupt_line(0)]), &device).unwrap();
        assert_eq!(grants.ports, [(0, 0x2f8, 8)]);
        assert_eq!(grants.lines, [3]);
        assert!(plan(&manifest(&[io_ports(1)]), &device).is_err());
        assert!(plan(&manifest(&[dma(32)]), &device).is_err());
    }

    proptest! {
        #[test]
        fn windows_never_touch_the_table(
            order in 12u32..20, vectors in 1u16..2049, table_at: u32, pba_at: u32,
        ) {
            let len = 1u64 << order;
            let (table_at, pba_at) = (table_at & !7, pba_at & !7);
            let device = function(vec![memory(0, 1 << 30, len)], Some(table(vectors, 0, table_at, pba_at)));
            let grants = plan(&manifest(&[memory_bars()]), &device).unwrap();
            let hidden = [
                (u64::from(table_at), u64::from(vectors) * 16),
                (u64::from(pba_at), u64::from(vectors).div_ceil(64) * 8),
            ];
            let mut end = 0;
            for w in &grants.windows {
                prop_assert!(w.offset >= end && w.len > 0);
                prop_assert!(w.offset % PAGE == 0 && w.len % PAGE == 0);
                end = w.offset + w.len;
                prop_assert!(end <= len && w.physical == (1 << 30) + w.offset);
                for (at, bytes) in hidden {
                    prop_assert!(end <= at || w.offset >= at + bytes);
                }
            }
        }
    }
}
