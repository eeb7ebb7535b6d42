//! Reads the definitions of an AML table (ACPI 6.5, chapter 20): scopes, devices and named constants.
//!
//! Nothing is executed. What has a length and is not needed (methods, fields, conditions) is skipped by
//! it; where a scope holds something without a length that this reader does not know, the rest of that
//! scope is left out. Every loop consumes bytes and nesting is bounded, whatever the table holds.

use alloc::string::String;
use alloc::vec::Vec;

/// Deepest nesting of scopes that is followed; firmware stays below ten.
const DEPTH_MAX: usize = 24;

/// A named value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// An integer.
    Integer(u64),
    /// A string, without its NUL.
    Text(&'a [u8]),
    /// The initial contents of a buffer.
    Buffer(&'a [u8]),
    /// A package: see [`Value::integers`].
    Package(&'a [u8]),
    /// A reference to another name.
    Reference,
}

impl Value<'_> {
    /// The leading elements of a package that are integers.
    pub fn integers(&self) -> Vec<u64> {
        let Value::Package(body) = self else {
            return Vec::new();
        };
        let mut reader = Reader { rest: body };
        let mut list = Vec::new();
        while let Some(Value::Integer(value)) = reader.value() {
            list.push(value);
        }
        list
    }
}

/// Calls `found` with the path (`\_SB_.PCI0._CRS`) and value of every named constant. `aml` is the table
/// without its header.
pub fn names<'a>(aml: &'a [u8], mut found: impl FnMut(&str, Value<'a>)) {
    let mut stack: Vec<(Reader<'a>, Vec<[u8; 4]>)> =
        alloc::vec![(Reader { rest: aml }, Vec::new())];
    while let Some((reader, path)) = stack.last_mut() {
        if reader.rest.is_empty() {
            stack.pop();
            continue;
        }
        match reader.definition() {
            Some(Definition::Name(name, value)) => found(&text(&name.resolve(path)), value),
            Some(Definition::Scope(name, body)) => {
                let inner = name.resolve(path);
                if stack.len() < DEPTH_MAX {
                    stack.push((Reader { rest: body }, inner));
                }
            }
            Some(Definition::Skipped) => {}
            None => {
                stack.pop();
            }
        }
    }
}

fn text(path: &[[u8; 4]]) -> String {
    let mut out = String::from("\\");
    for (i, segment) in path.iter().enumerate() {
        if i > 0 {
            out.push('.');
        }
        out.extend(segment.iter().map(|b| char::from(*b)));
    }
    out
}

enum Definition<'a> {
    Name(Name, Value<'a>),
    Scope(Name, &'a [u8]),
    Skipped,
}

/// A name as it stands in the table.
struct Name {
    absolute: bool,
    /// Scopes to go up.
    up: usize,
    segments: Vec<[u8; 4]>,
}

impl Name {
    fn resolve(self, scope: &[[u8; 4]]) -> Vec<[u8; 4]> {
        let keep = if self.absolute {
            0
        } else {
            scope.len().saturating_sub(self.up)
        };
        let mut path = scope.get(..keep).unwrap_or(&[]).to_vec();
        path.extend(self.segments);
        path
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn integer(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, b| value << 8 | u64::from(*b)),
        )
    }

    /// A package with its length (20.2.4): gives what is inside.
    fn package(&mut self) -> Option<Reader<'a>> {
        let lead = self.byte()?;
        let more = usize::from(lead >> 6);
        let mut len = if more == 0 {
            usize::from(lead & 0x3f)
        } else {
            usize::from(lead & 0x0f)
        };
        for i in 0..more {
            // At most 4 + 3 * 8 = 28 bits.
            len |= usize::from(self.byte()?) << (4 + 8 * i);
        }
        let inside = len.checked_sub(1 + more)?;
        self.take(inside).map(|rest| Reader { rest })
    }

    /// A name string (20.2.2).
    fn name(&mut self) -> Option<Name> {
        let mut name = Name {
            absolute: false,
            up: 0,
            segments: Vec::new(),
        };
        loop {
            match self.rest.first()? {
                b'\\' => {
                    name.absolute = true;
                    self.byte()?;
                }
                b'^' => {
                    name.up = name.up.saturating_add(1);
                    self.byte()?;
                }
                _ => break,
            }
        }
        let count = match self.rest.first()? {
            0 => {
                self.byte()?;
                0
            }
            0x2e => {
                self.byte()?;
                2
            }
            0x2f => {
                self.byte()?;
                self.byte()?
            }
            _ => 1,
        };
        for _ in 0..count {
            let segment: [u8; 4] = self.take(4)?.try_into().ok()?;
            let valid = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_';
            if !segment.iter().all(valid) {
                return None;
            }
            name.segments.push(segment);
        }
        Some(name)
    }

    /// A constant (20.2.3), package, buffer or name.
    fn value(&mut self) -> Option<Value<'a>> {
        let first = *self.rest.first()?;
        if matches!(first, b'\\' | b'^' | 0x2e | 0x2f | b'A'..=b'Z' | b'_') {
            self.name()?;
            return Some(Value::Reference);
        }
        self.byte()?;
        Some(match first {
            0x00 => Value::Integer(0),
            0x01 => Value::Integer(1),
            0xff => Value::Integer(u64::MAX),
            0x0a => Value::Integer(self.integer(1)?),
            0x0b => Value::Integer(self.integer(2)?),
            0x0c => Value::Integer(self.integer(4)?),
            0x0e => Value::Integer(self.integer(8)?),
            0x0d => {
                let len = self.rest.iter().position(|b| *b == 0)?;
                let text = self.take(len)?;
                self.byte()?;
                Value::Text(text)
            }
            0x11 => {
                let mut inside = self.package()?;
                match inside.value()? {
                    Value::Integer(_) => Value::Buffer(inside.rest),
                    _ => return None,
                }
            }
            0x12 => {
                let mut inside = self.package()?;
                inside.byte()?;
                Value::Package(inside.rest)
            }
            0x13 => {
                let mut inside = self.package()?;
                inside.value()?;
                Value::Package(inside.rest)
            }
            // Revision.
            0x5b if self.rest.first() == Some(&0x30) => {
                self.byte()?;
                Value::Integer(0)
            }
            _ => return None,
        })
    }

    fn definition(&mut self) -> Option<Definition<'a>> {
        match self.byte()? {
            0x06 => {
                self.name()?;
                self.name()?;
            }
            0x08 => {
                let name = self.name()?;
                return Some(Definition::Name(name, self.value()?));
            }
            0x10 => {
                let mut body = self.package()?;
                let name = body.name()?;
                return Some(Definition::Scope(name, body.rest));
            }
            // Method, If, Else, While.
            0x14 | 0xa0 | 0xa1 | 0xa2 => {
                self.package()?;
            }
            0x15 => {
                self.name()?;
                self.take(2)?;
            }
            // CreateDWordField and its like: source, index, name; CreateField has a length too.
            0x8a..=0x8d | 0x8f => {
                self.value()?;
                self.value()?;
                self.name()?;
            }
            0xa3 => {}
            0x5b => match self.byte()? {
                0x01 => {
                    self.name()?;
                    self.byte()?;
                }
                0x02 => {
                    self.name()?;
                }
                0x13 => {
                    self.value()?;
                    self.value()?;
                    self.value()?;
                    self.name()?;
                }
                0x80 => {
                    self.name()?;
                    self.byte()?;
                    self.value()?;
                    self.value()?;
                }
                // Field, IndexField, BankField, Processor, PowerResource.
                0x81 | 0x83 | 0x84 | 0x86 | 0x87 => {
                    self.package()?;
                }
                // Device, ThermalZone.
                0x82 | 0x85 => {
                    let mut body = self.package()?;
                    let name = body.name()?;
                    return Some(Definition::Scope(name, body.rest));
                }
                0x88 => {
                    self.name()?;
                    self.value()?;
                    self.value()?;
                    self.value()?;
                }
                _ => return None,
            },
            _ => return None,
        }
        Some(Definition::Skipped)
    }
}

/// Sleep types of S5 from a definition of `\_S5`, for PM1a and PM1b (ACPI 6.5, 7.4.2).
pub fn soft_off(aml: &[u8]) -> Option<(u8, u8)> {
    let mut found = None;
    names(aml, |path, value| {
        if path == "\\_S5_" && found.is_none() {
            let types = value.integers();
            found = types.first().map(|a| {
                let b = types.get(1).copied().unwrap_or(0);
                ((*a & 7) as u8, (b & 7) as u8)
            });
        }
    });
    found.or_else(|| scan_for_soft_off(aml))
}

/// For tables whose scopes this reader cannot follow: the bytes of `Name (_S5, Package ...)` anywhere.
fn scan_for_soft_off(aml: &[u8]) -> Option<(u8, u8)> {
    let at = aml
        .windows(6)
        .position(|w| w.starts_with(b"\x08_S5_\x12") || w == b"\x08\\_S5_")?;
    let mut reader = Reader {
        rest: aml.get(at.checked_add(1)?..)?,
    };
    reader.name()?;
    let types = reader.value()?.integers();
    let b = types.get(1).copied().unwrap_or(0);
    types.first().map(|a| ((*a & 7) as u8, (b & 7) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `Scope(\) { Name(_S5, Package(4) {5, 3, 0, 0}) }` in a table with other things around.
    fn sample() -> Vec<u8> {
        let s5 = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x03\x00\x00";
        let mut table = Vec::new();
        // Name(FOO, "hi"), OperationRegion(DBG, SystemIO, 0x402, 1), Method(M) {...}
        table.extend(b"\x08FOO_\x0dhi\x00");
        table.extend(b"\x5b\x80DBG_\x01\x0b\x02\x04\x01");
        table.extend(b"\x14\x09MTH_\x00\xa4\x01\x01");
        // Scope(\_SB) { Device(PCI0) { Name(_CRS, Buffer(2){1,2}) } }
        let crs = b"\x08_CRS\x11\x05\x0a\x02\x01\x02";
        let device_len = 1 + 4 + crs.len();
        let mut device = vec![0x5b, 0x82, device_len as u8];
        device.extend(b"PCI0");
        device.extend(crs);
        let scope_len = 1 + 5 + device.len();
        table.extend([0x10, scope_len as u8]);
        table.extend(b"\\_SB_");
        table.extend(&device);
        table.extend(s5);
        table
    }

    #[test]
    fn finds_names_with_their_paths() {
        let table = sample();
        let mut seen = Vec::new();
        names(&table, |path, value| seen.push((path.to_string(), value)));
        assert_eq!(
            seen,
            [
                ("\\FOO_".to_string(), Value::Text(b"hi")),
                ("\\_SB_.PCI0._CRS".to_string(), Value::Buffer(&[1, 2])),
                (
                    "\\_S5_".to_string(),
                    Value::Package(b"\x0a\x05\x0a\x03\x00\x00")
                ),
            ]
        );
        assert_eq!(soft_off(&table), Some((5, 3)));
    }

    #[test]
    fn the_scan_finds_it_behind_what_is_unknown() {
        let mut table = b"\x70\x01\x60".to_vec();
        table.extend(sample());
        let mut seen = 0;
        names(&table, |_, _| seen += 1);
        assert_eq!(seen, 0);
        assert_eq!(soft_off(&table), Some((5, 3)));
        assert_eq!(soft_off(b"\x08_S4_\x12\x04\x01\x0a\x04"), None);
    }

    #[test]
    fn two_and_three_byte_lengths() {
        let mut body = b"BIG_\x0b\x2c\x01".to_vec();
        body.splice(0..4, []);
        let data = [7u8; 300];
        let mut table = b"\x08BIG_\x11".to_vec();
        let len = 2 + body.len() + data.len();
        table.extend([0x40 | (len & 0xf) as u8, (len >> 4) as u8]);
        table.extend(&body);
        table.extend(data);
        let mut seen = 0;
        names(&table, |_, value| {
            assert_eq!(value, Value::Buffer(&data));
            seen += 1;
        });
        assert_eq!(seen, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_end(table in prop::collection::vec(any::<u8>(), 0..600)) {
            names(&table, |_, value| { let _ = value.integers(); });
            let _ = soft_off(&table);
        }

        #[test]
        fn damaged_tables_end(at in 0usize..100, value: u8) {
            let mut table = sample();
            if let Some(b) = table.get_mut(at) { *b = value; }
            names(&table, |_, value| { let _ = value.integers(); });
            let _ = soft_off(&table);
        }

        #[test]
        fn deep_nesting_ends(depth in 1usize..400) {
            let mut table = Vec::new();
            for _ in 0..depth {
                let len = 3 + table.len() + 4;
                let mut outer = vec![0x10, 0x80 | (len & 0xf) as u8, (len >> 4) as u8, (len >> 12) as u8];
                outer.extend(b"AAAA");
                outer.append(&mut table);
                table = outer;
            }
            names(&table, |_, _| {});
        }
    }
}
