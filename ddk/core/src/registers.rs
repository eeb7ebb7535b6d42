//! Typed registers: width, access, reset value and section of the specification stand where the register is
//! declared, and a wrong access does not compile.

use core::marker::PhantomData;

use crate::{Mmio, Width, Word};

/// What a register is, for traces and checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterInfo {
    /// Its name.
    pub name: &'static str,
    /// Byte offset in the block.
    pub offset: usize,
    /// Width.
    pub width: Width,
    /// How it may be accessed.
    pub access: Access,
    /// Value after reset, where the specification gives one.
    pub reset: Option<u64>,
    /// Where it is specified.
    pub section: &'static str,
}

/// How a register may be accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read, without a side effect.
    ReadPure,
    /// Read, with a side effect (clears, pops).
    ReadEffect,
    /// Written only.
    WriteOnly,
    /// Read without a side effect, and written.
    ReadWrite,
    /// Read with a side effect, and written.
    ReadEffectWrite,
}

macro_rules! accesses {
    ($($(#[$doc:meta])* $name:ident: $($trait:ident)+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl Declared for $name {
            const ACCESS: Access = Access::$name;
        }
        $(impl $trait for $name {})+
    )*};
}

/// An access mode as a type.
pub trait Declared {
    /// The same as a value.
    const ACCESS: Access;
}
/// Registers that are read without a side effect.
pub trait Readable: Declared {}
/// Registers that change when they are read.
pub trait ReadableWithEffect: Declared {}
/// Registers that are written.
pub trait Writable: Declared {}

accesses! {
    /// Read, without a side effect.
    ReadPure: Readable;
    /// Read, with a side effect.
    ReadEffect: ReadableWithEffect;
    /// Written only.
    WriteOnly: Writable;
    /// Read without a side effect, and written.
    ReadWrite: Readable Writable;
    /// Read with a side effect, and written.
    ReadEffectWrite: ReadableWithEffect Writable;
}

/// One register of a block.
#[derive(Clone, Copy)]
pub struct Reg<'a, T, A> {
    mmio: &'a Mmio,
    offset: usize,
    kind: PhantomData<(T, A)>,
}

impl<'a, T: Word, A> Reg<'a, T, A> {
    /// The register at `offset`; used by [`registers!`](crate::registers).
    #[inline]
    pub fn new(mmio: &'a Mmio, offset: usize) -> Self {
        Reg {
            mmio,
            offset,
            kind: PhantomData,
        }
    }
}

impl<T: Word, A: Readable> Reg<'_, T, A> {
    /// Its value.
    #[inline]
    pub fn read(&self) -> T {
        self.mmio.read(self.offset)
    }
}

impl<T: Word, A: ReadableWithEffect> Reg<'_, T, A> {
    /// Its value; reading changes the device.
    #[inline]
    pub fn read_with_effect(&self) -> T {
        self.mmio.read(self.offset)
    }
}

impl<T: Word, A: Writable> Reg<'_, T, A> {
    /// Writes it.
    #[inline]
    pub fn write(&self, value: T) {
        self.mmio.write(self.offset, value);
    }
}

/// Declares a block of registers: a type that is made from an [`Mmio`] and has a method for each register.
///
/// ```
/// ddk::registers! {
///     /// A counter.
///     pub struct Counter: 0x10 {
///         /// What is counted.
///         0x00 select: u8, ReadWrite, reset 0, "2.1";
///         /// The count; reading it clears it.
///         0x08 count: u64, ReadEffect, "2.2";
///     }
/// }
/// assert_eq!(Counter::REGISTERS[1].name, "count");
/// ```
///
/// The number after the name is the length of the block in bytes. Alignment of the offsets and their being
/// inside the block are checked while compiling.
#[macro_export]
macro_rules! registers {
    (
        $(#[$doc:meta])*
        $vis:vis struct $block:ident: $len:literal {
            $(
                $(#[$reg_doc:meta])*
                $offset:literal $reg:ident: $ty:ident, $access:ident, $(reset $reset:literal,)? $section:literal;
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        $vis struct $block($crate::Mmio);

        impl $block {
            /// Bytes that the registers take.
            pub const LEN: usize = $len;
            /// Every register.
            pub const REGISTERS: &'static [$crate::RegisterInfo] = &[
                $($crate::RegisterInfo {
                    name: stringify!($reg),
                    offset: $offset,
                    width: <$ty as $crate::Word>::WIDTH,
                    access: $crate::Access::$access,
                    reset: $crate::registers!(@reset $($reset)?),
                    section: $section,
                },)*
            ];
            const CHECKED: () = {
                $(
                    assert!($offset % size_of::<$ty>() == 0, "register is misaligned");
                    assert!($offset + size_of::<$ty>() <= $len, "register is outside of its block");
                )*
            };

            /// The registers at the start of `mmio`.
            ///
            /// # Errors
            /// When the region is shorter than the block.
            pub fn new(mmio: $crate::Mmio) -> Result<Self, $crate::RegionError> {
                let () = Self::CHECKED;
                Ok(Self(mmio.window(0, $len)?))
            }

            $(
                $(#[$reg_doc])*
                #[doc = concat!("\n\nSection ", $section, ".")]
                #[inline]
                pub fn $reg(&self) -> $crate::Reg<'_, $ty, $crate::$access> {
                    $crate::Reg::new(&self.0, $offset)
                }
            )*
        }
    };
    (@reset) => { None };
    (@reset $reset:literal) => { Some($reset) };
}
