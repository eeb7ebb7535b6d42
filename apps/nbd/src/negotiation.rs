//! Fixed newstyle negotiation: the client says which export it wants and how.

use alloc::string::String;
use alloc::vec::Vec;

/// The server's greeting: `NBDMAGIC`, `IHAVEOPT`, and flags FIXED_NEWSTYLE and NO_ZEROES.
pub const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\x00\x03";
/// What an option starts with.
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What a reply to an option starts with.
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Bytes of an option before its data.
pub const OPTION_HEAD: usize = 16;
/// Longest data of an option.
pub const OPTION_DATA_MAX: u32 = 8 * 1024;
/// Longest name of an export.
const NAME_MAX: usize = 4096;

/// Client flags.
pub mod client_flags {
    /// Fixed newstyle.
    pub const FIXED_NEWSTYLE: u32 = 1;
    /// Without 124 zeroes after EXPORT_NAME.
    pub const NO_ZEROES: u32 = 2;
}

/// Types of replies.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export of a list.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// The option is not known.
    pub const ERR_UNSUP: u32 = 1 << 31 | 1;
    /// The option's data is malformed.
    pub const ERR_INVALID: u32 = 1 << 31 | 3;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = 1 << 31 | 6;
    /// The data is too long.
    pub const ERR_TOO_BIG: u32 = 1 << 31 | 9;
}

/// Kinds of information about an export.
pub mod info {
    /// Size and flags.
    pub const EXPORT: u16 = 0;
    /// Name.
    pub const NAME: u16 = 1;
    /// Text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Sizes of requests.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Head of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its number.
    pub option: u32,
    /// Bytes of data behind it.
    pub length: u32,
}

/// The head in these bytes; `None`: this is no option, and the connection ends.
pub fn head(bytes: &[u8; OPTION_HEAD]) -> Option<Head> {
    let [magic @ .., o0, o1, o2, o3, l0, l1, l2, l3] = bytes;
    (u64::from_be_bytes(*magic) == OPTION_MAGIC).then_some(Head {
        option: u32::from_be_bytes([*o0, *o1, *o2, *o3]),
        length: u32::from_be_bytes([*l0, *l1, *l2, *l3]),
    })
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The export of that name, in the old way: no reply but the export itself.
    ExportName(String),
    /// The end.
    Abort,
    /// All exports.
    List,
    /// About the export of that name, and about it what.
    Info(String, Vec<u16>),
    /// The same, and transmission from then on.
    Go(String, Vec<u16>),
    /// Replies in parts.
    StructuredReply,
    /// Something else.
    Unknown,
    /// The data is not what the option has.
    Malformed,
}

/// The option with its data.
pub fn choice(option: u32, data: &[u8]) -> Choice {
    let text = |bytes: &[u8]| {
        let short = bytes.len() <= NAME_MAX;
        core::str::from_utf8(bytes)
            .ok()
            .filter(|_| short)
            .map(String::from)
    };
    match option {
        1 => text(data).map_or(Choice::Malformed, Choice::ExportName),
        2 => Choice::Abort,
        3 if data.is_empty() => Choice::List,
        8 if data.is_empty() => Choice::StructuredReply,
        3 | 8 => Choice::Malformed,
        6 | 7 => match named(data).and_then(|(name, kinds)| Some((text(name)?, kinds))) {
            Some((name, kinds)) if option == 6 => Choice::Info(name, kinds),
            Some((name, kinds)) => Choice::Go(name, kinds),
            None => Choice::Malformed,
        },
        _ => Choice::Unknown,
    }
}

/// Name and kinds of information.
fn named(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    if rest.len() != usize::from(u16::from_be_bytes(*count)) * 2 {
        return None;
    }
    let kinds = rest.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
    Some((name, kinds.map(u16::from_be_bytes).collect()))
}

/// A reply to an option.
pub fn reply_to(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + data.len());
    bytes.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Data of a reply of type SERVER.
pub fn listed(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data
}

/// What an export is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// [`flags`](crate::transmission::flags).
    pub flags: u16,
    /// Smallest request, and what they are multiples of.
    pub block: u32,
    /// Request size that is served well.
    pub preferred: u32,
    /// Longest request.
    pub longest: u32,
}

/// Data of replies of type INFO: size and flags, block sizes, and of the rest what was asked for.
pub fn about(export: &Export, name: &str, kinds: &[u16]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut data = info::EXPORT.to_be_bytes().to_vec();
    data.extend_from_slice(&export.size.to_be_bytes());
    data.extend_from_slice(&export.flags.to_be_bytes());
    all.push(data);
    let mut data = info::BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [export.block, export.preferred, export.longest] {
        data.extend_from_slice(&size.to_be_bytes());
    }
    all.push(data);
    for kind in kinds {
        if matches!(*kind, info::NAME | info::DESCRIPTION) {
            let mut data = kind.to_be_bytes().to_vec();
            data.extend_from_slice(name.as_bytes());
            all.push(data);
        }
    }
    all
}

/// The answer to EXPORT_NAME.
pub fn export(export: &Export, client: u32) -> Vec<u8> {
    let mut bytes = export.size.to_be_bytes().to_vec();
    bytes.extend_from_slice(&export.flags.to_be_bytes());
    if client & client_flags::NO_ZEROES == 0 {
        bytes.resize(bytes.len() + 124, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options() {
        let mut go = alloc::vec![0, 0, 0, 2];
        go.extend_from_slice(b"d0\x00\x01\x00\x03");
        assert_eq!(choice(7, &go), Choice::Go("d0".into(), alloc::vec![3]));
        assert_eq!(choice(6, &go), Choice::Info("d0".into(), alloc::vec![3]));
        assert_eq!(choice(7, &go[..go.len() - 1]), Choice::Malformed);
        go.push(0);
        assert_eq!(choice(7, &go), Choice::Malformed);
        assert_eq!(choice(1, b"x"), Choice::ExportName("x".into()));
        assert_eq!(choice(1, b"\xff"), Choice::Malformed);
        assert_eq!(choice(3, b"x"), Choice::Malformed);
        assert_eq!(choice(99, b""), Choice::Unknown);
        let bytes = *b"IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x05";
        assert_eq!(
            head(&bytes),
            Some(Head {
                option: 3,
                length: 5
            })
        );
        assert_eq!(head(&[0; 16]), None);
    }

    proptest! {
        #[test]
        fn any_option_is_survived(option in 0u32..12, data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = choice(option, &data);
        }
    }
}
