//! The widths of register access.

/// Width of an access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    U8 = 1,
    /// 16 bits.
    U16 = 2,
    /// 32 bits.
    U32 = 4,
    /// 64 bits.
    U64 = 8,
}

impl Width {
    /// Bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }
    /// The value of a register of a device that is gone.
    pub const fn all_ones(self) -> u64 {
        match self {
            Width::U8 => 0xff,
            Width::U16 => 0xffff,
            Width::U32 => 0xffff_ffff,
            Width::U64 => u64::MAX,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An integer that registers and DMA structures are accessed with: `u8`, `u16`, `u32` or `u64`.
pub trait Word:
    sealed::Sealed
    + Copy
    + Eq
    + core::fmt::Debug
    + core::fmt::LowerHex
    + zerocopy::FromBytes
    + zerocopy::IntoBytes
    + zerocopy::Immutable
    + 'static
{
    /// Its width.
    const WIDTH: Width;
    /// Zero-extends it.
    fn to_u64(self) -> u64;
    /// The low bits of `value`.
    fn truncate(value: u64) -> Self;
    /// From little-endian to the machine's order, or back.
    fn little_endian(self) -> Self;
}

macro_rules! words {
    ($($ty:ident $width:ident),*) => {$(
        impl sealed::Sealed for $ty {}
        impl Word for $ty {
            const WIDTH: Width = Width::$width;
            #[inline]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline]
            fn truncate(value: u64) -> Self {
                value as $ty
            }
            #[inline]
            fn little_endian(self) -> Self {
                <$ty>::from_le(self)
            }
        }
    )*};
}
words!(u8 U8, u16 U16, u32 U32, u64 U64);
