//! What every boot entry tells the kernel about the machine: memory, boot
//! archive, command line, firmware tables, framebuffer.
//!
//! An entry (PVH, UEFI, a device tree on Arm) fills one [`BootInfo`] and calls
//! the kernel's `main`; nothing after that depends on how the machine booted.
//! [`MemoryMap`] turns a firmware's list of ranges, which may be unsorted,
//! overlapping and unaligned, into the list that [`BootInfo::memory`] promises.
//! This module reads no firmware structure itself.

/// Granularity of [`BootInfo::memory`], in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// What the boot entry found. All addresses are physical.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// The machine's memory: sorted by address, not overlapping, and page
    /// aligned. Addresses in no region are not RAM.
    pub memory: &'static [MemoryRegion],
    /// Address and length in bytes of the boot archive; `(0, 0)` if there is
    /// none. Its pages are in `memory` as [`MemoryKind::Archive`].
    pub archive: (u64, u64),
    /// The kernel's command line, without a leading program name.
    pub command_line: &'static str,
    /// Address of the ACPI root pointer (RSDP), or 0 if the loader gave none.
    pub rsdp: u64,
    /// The screen that the loader set up, if any.
    pub framebuffer: Option<Framebuffer>,
    /// Who loaded the kernel.
    pub source: BootSource,
}

impl BootInfo {
    /// The first address behind the highest usable RAM, in bytes.
    pub fn usable_end(&self) -> u64 {
        self.memory
            .iter()
            .filter(|region| region.kind == MemoryKind::Usable)
            .map(MemoryRegion::end)
            .max()
            .unwrap_or(0)
    }
}

/// One range of physical memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryRegion {
    /// First address, a multiple of [`PAGE_SIZE`].
    pub start: u64,
    /// Length in bytes, a multiple of [`PAGE_SIZE`], not 0.
    pub len: u64,
    /// What the range may be used for.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// The first address behind the range.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What a range of physical memory may be used for. Where ranges overlap, the
/// kind that stands later in this list wins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum MemoryKind {
    /// Free RAM.
    Usable,
    /// The boot archive.
    Archive,
    /// The kernel's image, and what its boot entry allocated.
    Kernel,
    /// ACPI tables; RAM that could be reclaimed after they were read.
    AcpiTables,
    /// ACPI non-volatile storage; never to be written.
    AcpiNvs,
    /// Used by firmware or devices.
    Reserved,
    /// RAM that the firmware found to be defective.
    Defective,
}

/// A linear framebuffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Framebuffer {
    /// Physical address of the top left pixel.
    pub address: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Distance of two lines, in bytes.
    pub stride_bytes: u32,
    /// How a pixel is stored.
    pub format: PixelFormat,
}

/// The order of the bytes of a 32-bit pixel in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PixelFormat {
    /// Blue, green, red, unused.
    Bgrx,
    /// Red, green, blue, unused.
    Rgbx,
}

/// Who loaded the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BootSource {
    /// Xen's PVH boot protocol, as QEMU's `-kernel` speaks it.
    Pvh,
    /// UEFI.
    Uefi,
    /// The Linux boot protocol for Arm with a device tree.
    LinuxImage,
}

/// A memory map had more ranges than its array holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapFull {
    /// How many regions the map can hold.
    pub capacity: usize,
}

/// Builds [`BootInfo::memory`] in a fixed array of `N` regions.
#[derive(Clone, Debug)]
pub struct MemoryMap<const N: usize> {
    regions: [MemoryRegion; N],
    count: usize,
}

impl<const N: usize> MemoryMap<N> {
    /// A map without regions.
    pub const fn new() -> Self {
        let empty = MemoryRegion {
            start: 0,
            len: 0,
            kind: MemoryKind::Reserved,
        };
        MemoryMap {
            regions: [empty; N],
            count: 0,
        }
    }

    /// The regions so far, as [`BootInfo::memory`] wants them.
    pub fn regions(&self) -> &[MemoryRegion] {
        self.regions.get(..self.count).unwrap_or(&[])
    }

    /// Adds `len` bytes from `start`. Usable memory shrinks to whole pages,
    /// everything else grows to them. Where the range overlaps what is there
    /// already, each part gets the [`MemoryKind`] that wins.
    ///
    /// # Errors
    /// [`MapFull`], and the map is as it was, if the result does not fit.
    pub fn add(&mut self, start: u64, len: u64, kind: MemoryKind) -> Result<(), MapFull> {
        let mask = PAGE_SIZE - 1;
        let last_page = !mask;
        let end = start.saturating_add(len);
        let (start, end) = match kind {
            MemoryKind::Usable => (start.saturating_add(mask) & !mask, end & !mask),
            _ => (
                start & !mask,
                end.checked_add(mask).map_or(last_page, |end| end & !mask),
            ),
        };
        if start >= end || len == 0 {
            return Ok(());
        }
        // Pieces are appended in address order: each boundary of an old region
        // or of the new range ends a piece, and equal neighbours are joined.
        let mut result = MemoryMap::<N>::new();
        let mut at = 0;
        while let Some(from) = self.next_covered(at, start, end) {
            let to = self.next_boundary(from, start, end);
            let old = self.kind_at(from);
            let new = (start <= from && from < end).then_some(kind);
            if let Some(winner) = old.max(new) {
                result.append(MemoryRegion {
                    start: from,
                    len: to - from,
                    kind: winner,
                })?;
            }
            at = to;
        }
        *self = result;
        Ok(())
    }

    fn kind_at(&self, address: u64) -> Option<MemoryKind> {
        let holds = |region: &&MemoryRegion| region.start <= address && address < region.end();
        self.regions().iter().find(holds).map(|region| region.kind)
    }

    /// The lowest covered address at or behind `at`.
    fn next_covered(&self, at: u64, start: u64, end: u64) -> Option<u64> {
        let ranges = self
            .regions()
            .iter()
            .map(|region| (region.start, region.end()));
        ranges
            .chain([(start, end)])
            .filter(|range| range.1 > at)
            .map(|range| range.0.max(at))
            .min()
    }

    /// The lowest boundary of any range behind `at`.
    fn next_boundary(&self, at: u64, start: u64, end: u64) -> u64 {
        let bounds = self
            .regions()
            .iter()
            .flat_map(|region| [region.start, region.end()]);
        bounds
            .chain([start, end])
            .filter(|&bound| bound > at)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn append(&mut self, region: MemoryRegion) -> Result<(), MapFull> {
        if let Some(last) = self
            .count
            .checked_sub(1)
            .and_then(|last| self.regions.get_mut(last))
            && last.kind == region.kind
            && last.end() == region.start
        {
            last.len += region.len;
            return Ok(());
        }
        *self
            .regions
            .get_mut(self.count)
            .ok_or(MapFull { capacity: N })? = region;
        self.count += 1;
        Ok(())
    }
}

impl<const N: usize> Default for MemoryMap<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u64, u64, MemoryKind)]) -> Vec<(u64, u64, MemoryKind)> {
        let mut map = MemoryMap::<16>::new();
        for &(start, end, kind) in ranges {
            map.add(start, end - start, kind).unwrap();
        }
        map.regions()
            .iter()
            .map(|region| (region.start, region.end(), region.kind))
            .collect()
    }

    #[test]
    fn a_kernel_inside_ram_splits_it() {
        use MemoryKind::*;
        let regions = map(&[
            (0x10_0000, 0x800_0000, Usable),
            (0x20_0000, 0x30_0800, Kernel),
        ]);
        assert_eq!(
            regions,
            [
                (0x10_0000, 0x20_0000, Usable),
                (0x20_0000, 0x30_1000, Kernel),
                (0x30_1000, 0x800_0000, Usable)
            ]
        );
    }

    #[test]
    fn usable_memory_shrinks_and_reserved_memory_grows_to_pages() {
        use MemoryKind::*;
        assert_eq!(
            map(&[(0x100, 0x9_fc00, Usable)]),
            [(0x1000, 0x9_f000, Usable)]
        );
        assert_eq!(
            map(&[(0x9_fc00, 0xa_0000, Reserved)]),
            [(0x9_f000, 0xa_0000, Reserved)]
        );
        assert_eq!(map(&[(0x1001, 0x1fff, Usable)]), []);
    }

    #[test]
    fn the_order_of_the_ranges_does_not_matter() {
        use MemoryKind::*;
        let ranges = [
            (0x0, 0x10_000, Usable),
            (0x8_000, 0x20_000, Reserved),
            (0x4_000, 0x9_000, AcpiTables),
            (0x1f_000, 0x40_000, Usable),
        ];
        let forward = map(&ranges);
        let mut reversed = ranges;
        reversed.reverse();
        assert_eq!(forward, map(&reversed));
        assert_eq!(
            forward,
            [
                (0x0, 0x4_000, Usable),
                (0x4_000, 0x8_000, AcpiTables),
                (0x8_000, 0x20_000, Reserved),
                (0x20_000, 0x40_000, Usable)
            ]
        );
    }

    #[test]
    fn neighbours_of_one_kind_are_joined() {
        use MemoryKind::*;
        let regions = map(&[
            (0, 0x1000, Usable),
            (0x2000, 0x3000, Usable),
            (0x1000, 0x2000, Usable),
        ]);
        assert_eq!(regions, [(0, 0x3000, Usable)]);
    }

    #[test]
    fn a_range_at_the_end_of_the_address_space_does_not_overflow() {
        let mut map = MemoryMap::<4>::new();
        map.add(u64::MAX - 10, u64::MAX, MemoryKind::Reserved)
            .unwrap();
        map.add(u64::MAX - 10, u64::MAX, MemoryKind::Usable)
            .unwrap();
        assert!(
            map.regions()
                .iter()
                .all(|region| region.start.checked_add(region.len).is_some())
        );
    }

    #[test]
    fn a_full_map_is_an_error_and_keeps_its_regions() {
        let mut map = MemoryMap::<1>::new();
        map.add(0, 0x1000, MemoryKind::Usable).unwrap();
        let error = map.add(0x5000, 0x1000, MemoryKind::Usable).unwrap_err();
        assert_eq!(error, MapFull { capacity: 1 });
        assert_eq!(map.regions().len(), 1);
    }
}
