//! Address ranges of the PCI host bridge, from its `_CRS` (ACPI 6.5, 6.4.3.5).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proto::bus::{Aperture, BarKind};

use crate::aml::{self, Value};

/// Compressed EISA IDs of `PNP0A03` and `PNP0A08` (ACPI 6.5, 19.3.4).
const HOST_BRIDGES: [u64; 2] = [0x030a_d041, 0x080a_d041];

/// What the definition blocks say of the PCI host bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBridges {
    /// Address ranges that they pass on.
    pub apertures: Vec<Aperture>,
    /// Their root buses, sorted.
    pub buses: Vec<u8>,
}

/// Reads the tables (without headers). A bridge without a constant `_BBN` has bus 0.
pub fn host_bridges<'a>(tables: impl IntoIterator<Item = &'a [u8]>) -> HostBridges {
    let mut bridges: Vec<String> = Vec::new();
    let mut resources: BTreeMap<String, Vec<&'a [u8]>> = BTreeMap::new();
    let mut numbers: BTreeMap<String, u8> = BTreeMap::new();
    for table in tables {
        aml::names(table, |path, value| {
            let Some((device, name)) = path.rsplit_once('.') else {
                return;
            };
            match (name, value) {
                ("_HID" | "_CID", value) if is_host_bridge(value) => {
                    bridges.push(device.to_string());
                }
                ("_CRS", Value::Buffer(bytes)) => {
                    resources.entry(device.to_string()).or_default().push(bytes);
                }
                ("_BBN", Value::Integer(number)) => {
                    if let Ok(number) = u8::try_from(number) {
                        numbers.insert(device.to_string(), number);
                    }
                }
                _ => {}
            }
        });
    }
    bridges.sort();
    bridges.dedup();
    let apertures = bridges
        .iter()
        .filter_map(|bridge| resources.get(bridge))
        .flatten()
        .flat_map(|bytes| ranges(bytes))
        .collect();
    let mut buses: Vec<u8> = bridges
        .iter()
        .map(|bridge| numbers.get(bridge).copied().unwrap_or(0))
        .collect();
    buses.sort_unstable();
    buses.dedup();
    HostBridges { apertures, buses }
}

fn is_host_bridge(value: Value<'_>) -> bool {
    match value {
        Value::Integer(id) => HOST_BRIDGES.contains(&id),
        Value::Text(text) => text == b"PNP0A03" || text == b"PNP0A08",
        _ => false,
    }
}

/// Memory and port ranges of a resource template.
pub fn ranges(template: &[u8]) -> Vec<Aperture> {
    let mut list = Vec::new();
    let mut rest = template;
    while let [tag, tail @ ..] = rest {
        let (len, body_at) = if tag & 0x80 == 0 {
            (usize::from(tag & 7), 0)
        } else {
            match tail {
                [low, high, ..] => (usize::from(u16::from_le_bytes([*low, *high])), 2),
                _ => break,
            }
        };
        let Some(body) = tail.get(body_at..).and_then(|t| t.get(..len)) else {
            break;
        };
        match tag {
            // End tag.
            0x78..=0x7f => break,
            0x88 => list.extend(address_space(body, 2)),
            0x87 => list.extend(address_space(body, 4)),
            0x8a => list.extend(address_space(body, 8)),
            _ => {}
        }
        rest = tail.get(body_at.saturating_add(len)..).unwrap_or(&[]);
    }
    list
}

/// A word, double-word or quad-word address space descriptor, behind its tag and length: type, two bytes of
/// flags, then granularity, minimum, maximum, translation and length of `width` bytes each.
fn address_space(body: &[u8], width: usize) -> Option<Aperture> {
    let field = |index: usize| {
        let at = width.checked_mul(index)?.checked_add(3)?;
        let bytes = body.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b)))
    };
    let (minimum, maximum, len) = (field(1)?, field(2)?, field(4)?);
    if len == 0 || maximum < minimum {
        return None;
    }
    let kind = match body.first()? {
        0 if minimum >= 1 << 32 => BarKind::Memory64,
        0 => BarKind::Memory32,
        1 => BarKind::Io,
        _ => return None,
    };
    Some(Aperture {
        kind,
        base: minimum,
        len: (maximum - minimum).checked_add(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dword(kind: u8, min: u32, max: u32) -> Vec<u8> {
        let mut d = vec![0x87, 23, 0, kind, 0x0c, 1];
        let len = max.wrapping_sub(min).wrapping_add(1);
        for v in [0, min, max, 0, len] {
            d.extend(v.to_le_bytes());
        }
        d
    }

    #[test]
    fn reads_the_ranges_of_a_template() {
        let mut template = vec![0x47, 1, 0xf8, 0xc, 0xf8, 0xc, 1, 8];
        template.extend([
            0x88, 13, 0, 1, 0xc, 3, 0, 0, 0, 0xd, 0xff, 0xff, 0, 0, 0, 0xf3,
        ]);
        template.extend(dword(0, 0xc000_0000, 0xfebf_ffff));
        template.extend(dword(0, 0x8000_0000, 0x7fff_ffff));
        template.extend([0x8a, 43, 0, 0, 0xc, 1]);
        for v in [0u64, 0x1_0000_0000, 0x1_7fff_ffff, 0, 0x8000_0000] {
            template.extend(v.to_le_bytes());
        }
        template.extend([0x79, 0]);
        template.extend(dword(0, 1, 2));
        let found: Vec<_> = ranges(&template)
            .iter()
            .map(|a| (a.kind, a.base, a.len))
            .collect();
        assert_eq!(
            found,
            [
                (BarKind::Io, 0xd00, 0xf300),
                (BarKind::Memory32, 0xc000_0000, 0x3ec0_0000),
                (BarKind::Memory64, 0x1_0000_0000, 0x8000_0000),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(template in prop::collection::vec(any::<u8>(), 0..300)) {
            for a in ranges(&template) {
                prop_assert!(a.base.checked_add(a.len - 1).is_some());
            }
        }
    }
}
