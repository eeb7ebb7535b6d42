//! What devmgr tells the bus driver on its command line: words `ecam=BASE,SEGMENT,FIRST,LAST`,
//! `aperture=KIND,BASE,LEN` and `root=BUS`, numbers in hexadecimal. Both sides stand here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::bus::{Aperture, BarKind, EcamRegion};

/// The host bridge that a bus driver is started for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Memory-mapped configuration space; `None`: ports.
    pub ecam: Option<EcamRegion>,
    /// Address ranges that reach the bus.
    pub apertures: Vec<Aperture>,
    /// Root buses besides the first.
    pub roots: Vec<u8>,
}

impl Host {
    /// As words of a command line.
    pub fn to_words(&self) -> Vec<String> {
        let ecam = self.ecam.iter().map(|e| {
            format!(
                "ecam={:x},{:x},{:x},{:x}",
                e.base, e.segment, e.first_bus, e.last_bus
            )
        });
        let apertures = self.apertures.iter().map(|a| {
            let kind = match a.kind {
                BarKind::Io => "io",
                BarKind::Memory32 => "mem32",
                BarKind::Memory64 => "mem64",
            };
            format!("aperture={kind},{:x},{:x}", a.base, a.len)
        });
        let roots = self.roots.iter().map(|r| format!("root={r:x}"));
        ecam.chain(apertures).chain(roots).collect()
    }

    /// From words of a command line.
    ///
    /// # Errors
    /// The first word that is not understood.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Host, String> {
        let mut host = Host::default();
        for word in words {
            host.add(word)
                .ok_or_else(|| format!("cannot understand {word:?}"))?;
        }
        Ok(host)
    }

    fn add(&mut self, word: &str) -> Option<()> {
        let (key, value) = word.split_once('=')?;
        let mut fields = value.split(',');
        let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
        match key {
            "ecam" => {
                self.ecam = Some(EcamRegion {
                    base: number()?,
                    segment: u16::try_from(number()?).ok()?,
                    first_bus: u8::try_from(number()?).ok()?,
                    last_bus: u8::try_from(number()?).ok()?,
                });
            }
            "aperture" => {
                let (kind, rest) = value.split_once(',')?;
                let (base, len) = rest.split_once(',')?;
                self.apertures.push(Aperture {
                    kind: match kind {
                        "io" => BarKind::Io,
                        "mem32" => BarKind::Memory32,
                        "mem64" => BarKind::Memory64,
                        _ => return None,
                    },
                    base: u64::from_str_radix(base, 16).ok()?,
                    len: u64::from_str_radix(len, 16).ok()?,
                });
            }
            "root" => self.roots.push(u8::try_from(number()?).ok()?),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        let host = Host {
            ecam: Some(EcamRegion {
                base: 0xb000_0000,
                segment: 1,
                first_bus: 0,
                last_bus: 255,
            }),
            apertures: vec![
                Aperture {
                    kind: BarKind::Io,
                    base: 0xd00,
                    len: 0xf300,
                },
                Aperture {
                    kind: BarKind::Memory64,
                    base: 1 << 32,
                    len: 1 << 40,
                },
            ],
            roots: vec![0, 0x40],
        };
        let words = host.to_words();
        assert_eq!(Host::from_words(words.iter().map(String::as_str)), Ok(host));
        assert!(Host::from_words(["ecam=1,2"]).is_err());
        assert!(Host::from_words(["root=100"]).is_err());
    }
}
