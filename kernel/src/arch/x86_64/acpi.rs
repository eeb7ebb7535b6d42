//! Finds the ACPI tables and reads the few that the kernel needs: MADT, HPET, FADT
//! and DMAR. Everything else is for user space. Pure: memory is a function.
//!
//! Sections are of the ACPI specification, version 6.5.

/// Physical memory: `read(address, length)`, if all of it is readable.
pub trait Memory<'m>: Fn(u64, usize) -> Option<&'m [u8]> {}
impl<'m, F: Fn(u64, usize) -> Option<&'m [u8]>> Memory<'m> for F {}

const HEADER_LEN: usize = 36;
/// A longer table is taken for garbage.
const TABLE_MAX: usize = 16 << 20;
/// Entries of the XSDT that are followed.
const TABLES_MAX: usize = 256;

/// A table whose length and checksum were verified.
#[derive(Clone, Copy, Debug)]
pub struct Table<'m> {
    /// Its signature; `RSD ` stands for the root pointer's `RSD PTR `.
    pub signature: [u8; 4],
    /// Its physical address.
    pub address: u64,
    /// All of it, with its header.
    pub bytes: &'m [u8],
}

/// The root pointer's address: `hint` if a valid one is there, else the first in the
/// BIOS' areas (5.2.5.1).
pub fn find_root<'m>(hint: u64, read: &impl Memory<'m>) -> Option<u64> {
    if hint != 0 && root_len(hint, read).is_some() {
        return Some(hint);
    }
    let ebda = u64::from(read(0x40e, 2).map_or(0, |bytes| word16(bytes, 0))) << 4;
    let areas = [(ebda, ebda + 1024), (0xe_0000, 0x10_0000)];
    let areas = areas.into_iter().filter(|area| area.0 >= 0x400);
    areas
        .flat_map(|area| (area.0..area.1).step_by(16))
        .find(|&at| root_len(at, read).is_some())
}

/// The length of the root pointer at `address` if it is valid (5.2.5.3).
fn root_len<'m>(address: u64, read: &impl Memory<'m>) -> Option<usize> {
    let first = read(address, 20)?;
    if !first.starts_with(b"RSD PTR ") || sum(first) != 0 {
        return None;
    }
    if first.get(15).copied()? < 2 {
        return Some(20);
    }
    let len = word32(read(address, 36)?, 20) as usize;
    (36..=4096).contains(&len).then_some(())?;
    (sum(read(address, len)?) == 0).then_some(len)
}

/// Calls `f` with every valid table: the root pointer at `root`, the root tables,
/// what they list, and the FADT's DSDT and FACS.
pub fn for_each_table<'m>(root: u64, read: &impl Memory<'m>, mut f: impl FnMut(Table<'m>)) {
    let Some(bytes) = root_len(root, read).and_then(|len| read(root, len)) else {
        return;
    };
    f(Table {
        signature: *b"RSD ",
        address: root,
        bytes,
    });
    let rsdt = table_at(u64::from(word32(bytes, 16)), read);
    let xsdt = (bytes.len() >= 36)
        .then(|| table_at(word64(bytes, 24), read))
        .flatten();
    rsdt.into_iter().chain(xsdt).for_each(&mut f);
    // The XSDT wins; an entry of the RSDT has 4 bytes, one of the XSDT 8 (5.2.7, 5.2.8).
    let (list, width) = match (xsdt, rsdt) {
        (Some(list), _) if list.signature == *b"XSDT" => (list, 8),
        (_, Some(list)) if list.signature == *b"RSDT" => (list, 4),
        _ => return,
    };
    let entries = list
        .bytes
        .get(HEADER_LEN..)
        .unwrap_or(&[])
        .chunks_exact(width);
    for entry in entries.take(TABLES_MAX) {
        let address = if width == 8 {
            word64(entry, 0)
        } else {
            word32(entry, 0).into()
        };
        let Some(table) = table_at(address, read) else {
            continue;
        };
        f(table);
        if table.signature == *b"FACP" {
            // 5.2.9: the 64-bit field wins if it is not zero.
            let pick = |wide, narrow| match word64(table.bytes, wide) {
                0 => word32(table.bytes, narrow).into(),
                address => address,
            };
            table_at(pick(140, 40), read).into_iter().for_each(&mut f);
            facs_at(pick(132, 36), read).into_iter().for_each(&mut f);
        }
    }
}

fn table_at<'m>(address: u64, read: &impl Memory<'m>) -> Option<Table<'m>> {
    if address == 0 {
        return None;
    }
    let header = read(address, HEADER_LEN)?;
    let len = word32(header, 4) as usize;
    (HEADER_LEN..=TABLE_MAX).contains(&len).then_some(())?;
    let bytes = read(address, len)?;
    (sum(bytes) == 0).then_some(Table {
        signature: *header.first_chunk()?,
        address,
        bytes,
    })
}

/// The FACS has no checksum and a header of its own (5.2.10).
fn facs_at<'m>(address: u64, read: &impl Memory<'m>) -> Option<Table<'m>> {
    if address == 0 {
        return None;
    }
    let header = read(address, 64)?;
    let len = word32(header, 4) as usize;
    (header.starts_with(b"FACS") && (64..=4096).contains(&len)).then_some(())?;
    Some(Table {
        signature: *b"FACS",
        address,
        bytes: read(address, len)?,
    })
}

/// One entry of the MADT (5.2.12) that the kernel uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MadtEntry {
    /// A processor that is or can be enabled.
    Cpu { apic_id: u32 },
    /// An I/O APIC whose first input is `gsi_base`.
    IoApic { address: u64, gsi_base: u32 },
    /// An ISA interrupt is wired to another input, or in another way. The flags are
    /// those of table 5.26: polarity in bits 0-1, trigger mode in bits 2-3.
    Override { irq: u8, gsi: u32, flags: u16 },
    /// The local APICs' address, if it is above 4 GiB.
    LocalApic { address: u64 },
}

/// The MADT's entries; stops at the first malformed one.
pub fn madt_entries(table: &[u8]) -> impl Iterator<Item = MadtEntry> + '_ {
    let header = (table.len() >= 44).then(|| MadtEntry::LocalApic {
        address: word32(table, 36).into(),
    });
    let mut rest = table.get(44..).unwrap_or(&[]);
    let entries = core::iter::from_fn(move || {
        loop {
            let len = usize::from(*rest.get(1)?);
            let entry = rest.get(..len).filter(|_| len >= 2)?;
            rest = rest.get(len..)?;
            if let Some(known) = madt_entry(entry) {
                return Some(known);
            }
        }
    });
    header.into_iter().chain(entries)
}

fn madt_entry(entry: &[u8]) -> Option<MadtEntry> {
    let usable = |flags: u32| flags & 1 != 0;
    match (entry.first()?, entry.len()) {
        (0, 8..) if usable(word32(entry, 4)) => Some(MadtEntry::Cpu {
            apic_id: (*entry.get(3)?).into(),
        }),
        (1, 12..) => Some(MadtEntry::IoApic {
            address: word32(entry, 4).into(),
            gsi_base: word32(entry, 8),
        }),
        (2, 10..) => {
            let irq = *entry.get(3)?;
            Some(MadtEntry::Override {
                irq,
                gsi: word32(entry, 4),
                flags: word16(entry, 8),
            })
        }
        (5, 12..) => Some(MadtEntry::LocalApic {
            address: word64(entry, 4),
        }),
        (9, 16..) if usable(word32(entry, 8)) => Some(MadtEntry::Cpu {
            apic_id: word32(entry, 4),
        }),
        _ => None,
    }
}

/// The HPET's physical address (IA-PC HPET specification 1.0a, 3.2.4).
pub fn hpet_address(table: &[u8]) -> Option<u64> {
    // The address is a generic address structure (5.2.3.2); space 0 is memory.
    (table.get(40) == Some(&0))
        .then(|| word64(table, 44))
        .filter(|&address| address != 0)
}

/// What the kernel needs of the FADT (5.2.9).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fadt {
    /// Port of the power-management timer.
    pub pm_timer_port: Option<u16>,
    /// That timer has 32 bits, not 24.
    pub pm_timer_is_32_bit: bool,
    /// Index of the century in the real-time clock, or 0.
    pub century: u8,
}

/// Reads the FADT.
pub fn fadt(table: &[u8]) -> Fadt {
    // X_PM_TMR_BLK is a generic address structure; space 1 is port I/O.
    let wide = (table.get(208) == Some(&1))
        .then(|| word64(table, 212))
        .filter(|&port| port != 0);
    let port = wide.unwrap_or(word32(table, 76).into());
    Fadt {
        pm_timer_port: u16::try_from(port).ok().filter(|&port| port != 0),
        pm_timer_is_32_bit: word32(table, 112) & 1 << 8 != 0,
        century: table.get(108).copied().unwrap_or(0),
    }
}

/// What the DMAR table tells of DMA remapping (Intel Virtualization Technology for Directed I/O 4.1, chapter 8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DmarEntry {
    /// A remapping unit of a PCI segment (8.3).
    Unit { segment: u16, address: u64 },
    /// Memory that firmware uses with a device of segment 0: requester ID, first and last byte (8.4).
    Reserved { device: u16, range: (u64, u64) },
}

/// Calls `f` with the DMAR's entries; stops at the first malformed one. Reservations for devices behind bridges are left
/// out: their bus is known only to who has configured the bridge.
pub fn for_each_dmar_entry(table: &[u8], mut f: impl FnMut(DmarEntry)) {
    let mut rest = table.get(48..).unwrap_or(&[]);
    while rest.len() >= 4 {
        let len = usize::from(word16(rest, 2));
        let Some(entry) = rest.get(..len).filter(|_| len >= 4) else {
            return;
        };
        rest = rest.get(len..).unwrap_or(&[]);
        match (word16(entry, 0), len) {
            (0, 16..) => f(DmarEntry::Unit {
                segment: word16(entry, 6),
                address: word64(entry, 8),
            }),
            (1, 24..) if word16(entry, 6) == 0 => {
                let range = (word64(entry, 8), word64(entry, 16));
                for device in direct_devices(entry.get(24..).unwrap_or(&[])) {
                    f(DmarEntry::Reserved { device, range });
                }
            }
            _ => {}
        }
    }
}

/// Requester IDs of the endpoints in a device scope whose path is a single step (8.3.1).
fn direct_devices(mut scope: &[u8]) -> impl Iterator<Item = u16> + '_ {
    core::iter::from_fn(move || {
        loop {
            let len = usize::from(*scope.get(1)?);
            let entry = scope.get(..len).filter(|_| len >= 6)?;
            scope = scope.get(len..)?;
            if let [1, 8, _, _, _, bus, device, function] = *entry {
                let low = device & 0x1f;
                return Some(u16::from(bus) << 8 | u16::from(low << 3 | function & 7));
            }
        }
    })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word16(bytes: &[u8], offset: usize) -> u16 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u16::from_le_bytes(*word))
}

fn word32(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u32::from_le_bytes(*word))
}

fn word64(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FADT: usize = 0x1000;
    const DSDT: usize = 0x2000;
    const FACS: usize = 0x2100;
    const XSDT: usize = 0x3000;
    const RSDT: usize = 0x3100;
    const MADT: usize = 0x4000;

    fn seal(memory: &mut [u8], at: usize, len: usize, checksum: usize) {
        memory[at + checksum] = 0;
        memory[at + checksum] = 0u8.wrapping_sub(sum(&memory[at..at + len]));
    }

    fn put(memory: &mut [u8], at: usize, bytes: &[u8]) {
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn table(memory: &mut [u8], at: usize, signature: &[u8; 4], body: &[u8]) {
        put(memory, at, signature);
        put(
            memory,
            at + 4,
            &((HEADER_LEN + body.len()) as u32).to_le_bytes(),
        );
        put(memory, at + HEADER_LEN, body);
        seal(memory, at, HEADER_LEN + body.len(), 9);
    }

    fn machine() -> Vec<u8> {
        let mut memory = vec![0; 0x10_0000];
        let mut fadt = [0; 208];
        fadt[0..4].copy_from_slice(&(FACS as u32).to_le_bytes());
        fadt[4..8].copy_from_slice(&(DSDT as u32).to_le_bytes());
        fadt[40..44].copy_from_slice(&0x608u32.to_le_bytes());
        fadt[72] = 0x32;
        fadt[77] = 1;
        table(&mut memory, FADT, b"FACP", &fadt);
        table(&mut memory, DSDT, b"DSDT", &[1, 2, 3]);
        put(&mut memory, FACS, b"FACS");
        put(&mut memory, FACS + 4, &64u32.to_le_bytes());
        let mut madt = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
        madt.extend([0, 8, 0, 5, 1, 0, 0, 0]); // enabled processor, APIC 5
        madt.extend([0, 8, 1, 6, 0, 0, 0, 0]); // disabled processor
        madt.extend([77, 3, 0]); // of a kind to come
        madt.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        madt.extend([2, 10, 0, 9, 9, 0, 0, 0, 13, 0]);
        madt.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        table(&mut memory, MADT, b"APIC", &madt);
        let lists = [FADT as u64, 0xff_ffff_ffff, MADT as u64];
        table(
            &mut memory,
            XSDT,
            b"XSDT",
            &lists.map(u64::to_le_bytes).concat(),
        );
        table(&mut memory, RSDT, b"RSDT", &(FADT as u32).to_le_bytes());
        let root = 0xe_0040;
        put(&mut memory, root, b"RSD PTR ");
        memory[root + 15] = 2;
        put(&mut memory, root + 16, &(RSDT as u32).to_le_bytes());
        put(&mut memory, root + 20, &36u32.to_le_bytes());
        put(&mut memory, root + 24, &(XSDT as u64).to_le_bytes());
        seal(&mut memory, root, 20, 8);
        seal(&mut memory, root, 36, 32);
        memory
    }

    #[test]
    fn remapping_units_and_reservations_are_read() {
        let mut dmar = vec![0; 48];
        dmar.extend([0, 0, 24, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0]);
        // A scope of the unit, which is not looked at.
        dmar.extend([3, 8, 0, 0, 0, 0, 2, 0]);
        // Of a kind to come.
        dmar.extend([9, 0, 8, 0, 1, 2, 3, 4]);
        let mut reserved = vec![1, 0, 42, 0, 0, 0, 0, 0];
        reserved.extend(0x8000_0000u64.to_le_bytes());
        reserved.extend(0x8000_ffffu64.to_le_bytes());
        reserved.extend([1, 8, 0, 0, 0, 0, 0x1d, 2]);
        // Behind a bridge.
        reserved.extend([1, 10, 0, 0, 0, 0, 0x1c, 0, 0, 0]);
        dmar.extend(reserved);
        let read = |table: &[u8]| {
            let mut seen = Vec::new();
            for_each_dmar_entry(table, |entry| seen.push(entry));
            seen
        };
        let unit = DmarEntry::Unit {
            segment: 0,
            address: 0xfed9_0000,
        };
        let reservation = DmarEntry::Reserved {
            device: 0x1d << 3 | 2,
            range: (0x8000_0000, 0x8000_ffff),
        };
        assert_eq!(read(&dmar), [unit, reservation]);
        // An entry that ends beyond the table, or has no length, ends the list.
        assert_eq!(read(&dmar[..dmar.len() - 1]), [unit]);
        assert_eq!(read(&[&[0; 48][..], &[0; 16]].concat()), []);
        for len in 0..dmar.len() {
            read(&dmar[..len]);
        }
    }

    fn tables(memory: &[u8], hint: u64) -> Vec<[u8; 4]> {
        let read = |at: u64, len: usize| memory.get(usize::try_from(at).ok()?..)?.get(..len);
        let mut seen = Vec::new();
        if let Some(root) = find_root(hint, &read) {
            for_each_table(root, &read, |table| seen.push(table.signature));
        }
        seen
    }

    #[test]
    fn every_table_is_found_with_and_without_a_hint() {
        let memory = machine();
        let all = [
            b"RSD ", b"RSDT", b"XSDT", b"FACP", b"DSDT", b"FACS", b"APIC",
        ]
        .map(|name| *name);
        assert_eq!(tables(&memory, 0xe_0040), all);
        assert_eq!(tables(&memory, 0), all);
        assert_eq!(tables(&memory, 0x1234), all);
    }

    #[test]
    #[cfg_attr(miri, ignore = "looks through the whole BIOS area")]
    fn a_table_with_a_bad_checksum_or_length_is_left_out() {
        let mut memory = machine();
        memory[DSDT + 36] ^= 1;
        assert!(!tables(&memory, 0).contains(b"DSDT"));
        let mut memory = machine();
        put(&mut memory, MADT + 4, &u32::MAX.to_le_bytes());
        assert!(!tables(&memory, 0).contains(b"APIC"));
        let mut memory = machine();
        memory[0xe_0040 + 30] ^= 1;
        assert_eq!(tables(&memory, 0), [] as [[u8; 4]; 0]);
    }

    #[test]
    fn without_a_valid_xsdt_the_rsdt_is_used() {
        let mut memory = machine();
        memory[XSDT + 20] ^= 1;
        assert_eq!(
            tables(&memory, 0),
            [b"RSD ", b"RSDT", b"FACP", b"DSDT", b"FACS"].map(|name| *name)
        );
    }

    #[test]
    fn the_madt_lists_enabled_processors_io_apics_and_overrides() {
        let memory = machine();
        let len = word32(&memory, MADT + 4) as usize;
        let entries: Vec<_> = madt_entries(&memory[MADT..MADT + len]).collect();
        assert_eq!(
            entries,
            [
                MadtEntry::LocalApic {
                    address: 0xfee0_0000
                },
                MadtEntry::Cpu { apic_id: 5 },
                MadtEntry::IoApic {
                    address: 0xfec0_0000,
                    gsi_base: 0
                },
                MadtEntry::Override {
                    irq: 9,
                    gsi: 9,
                    flags: 13
                },
                MadtEntry::Cpu { apic_id: 256 },
            ]
        );
    }

    #[test]
    fn malformed_madts_end() {
        let memory = machine();
        let len = word32(&memory, MADT + 4) as usize;
        for cut in 0..len {
            assert!(madt_entries(&memory[MADT..MADT + cut]).count() <= 5);
        }
        let mut looping = memory[MADT..MADT + len].to_vec();
        looping[45] = 0;
        assert_eq!(madt_entries(&looping).count(), 1);
    }

    #[test]
    fn the_fadt_names_the_timer_and_the_century() {
        let memory = machine();
        let len = word32(&memory, FADT + 4) as usize;
        let expected = Fadt {
            pm_timer_port: Some(0x608),
            pm_timer_is_32_bit: true,
            century: 0x32,
        };
        assert_eq!(fadt(&memory[FADT..FADT + len]), expected);
        assert_eq!(fadt(&[]), Fadt::default());
    }
}
