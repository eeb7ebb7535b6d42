//! The life of a driver.

use alloc::vec::Vec;

use ddk_manifest::Manifest;

use crate::{DeviceContext, DriverError};

/// Why a driver is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The system goes down.
    Shutdown,
    /// Another version takes over.
    Replaced,
    /// The device is being removed.
    Removed,
    /// An operator asked for it.
    Requested,
}

/// State that outlives a driver: numbered fields under a version of the schema.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SavedState {
    /// Version of the schema; [`Manifest::state_schema`] says which one a driver writes.
    pub schema: u32,
    /// Field numbers and contents.
    pub fields: Vec<(u32, Vec<u8>)>,
}

impl SavedState {
    /// No fields yet.
    pub const fn new(schema: u32) -> SavedState {
        SavedState {
            schema,
            fields: Vec::new(),
        }
    }

    /// The same with a number in a field.
    #[must_use]
    pub fn with_u64(mut self, field: u32, value: u64) -> SavedState {
        self.fields.push((field, value.to_le_bytes().to_vec()));
        self
    }

    /// The contents of a field.
    pub fn field(&self, number: u32) -> Option<&[u8]> {
        let field = self.fields.iter().find(|(n, _)| *n == number);
        field.map(|(_, contents)| contents.as_slice())
    }

    /// The number in a field; `None` if there is none, or it is something else.
    pub fn u64(&self, number: u32) -> Option<u64> {
        Some(u64::from_le_bytes(self.field(number)?.try_into().ok()?))
    }
}

/// A driver of one device.
#[expect(
    async_fn_in_trait,
    reason = "a driver's control path runs on one thread"
)]
pub trait Driver: Described + Sized {
    /// Takes the device into service. The device may be in any state: fresh from reset, or left behind by a
    /// driver that crashed.
    async fn start(cx: DeviceContext) -> Result<Self, DriverError>;

    /// Quiesces the device for a pause.
    async fn suspend(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    /// Takes it up again.
    async fn resume(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    /// Leaves the device quiet: no DMA, no interrupts.
    async fn stop(self, why: StopReason);

    /// What the next version should know: asked for right before [`stop`](Driver::stop) with
    /// [`StopReason::Replaced`], found there by [`DeviceContext::restored`].
    fn save(&self) -> Option<SavedState> {
        None
    }
}

/// A driver with its manifest; written by [`driver!`](crate::driver).
pub trait Described {
    /// The manifest.
    const MANIFEST: Manifest;
}

/// The manifest of a driver, as the constant that its program carries.
#[doc(hidden)]
pub const fn manifest_of<D: Described>() -> Manifest {
    D::MANIFEST
}

/// Says what a driver is, which devices it matches and what it needs:
///
/// ```
/// struct Nvme;
/// ddk::driver! {
///     driver: Nvme,
///     name: "nvme",
///     class: BLOCK,
///     version: [0, 1, 0],
///     matches: [pci_class(0x01, 0x08, 0x02)],
///     needs: [bar(0), msix(1, 16), dma(64)],
/// }
/// assert_eq!(<Nvme as ddk::Described>::MANIFEST.name(), "nvme");
/// ```
///
/// A last line `priority: N` decides between drivers whose rules are equally specific. The program's entry (see the backend) puts the manifest into its ELF section.
#[macro_export]
macro_rules! driver {
    (
        driver: $driver:ty,
        name: $name:literal,
        class: $class:ident,
        version: $version:expr,
        matches: [$($rule:expr),* $(,)?],
        needs: [$($need:expr),* $(,)?]
        $(, priority: $priority:expr)? $(,)?
    ) => {
        impl $crate::Described for $driver {
            const MANIFEST: $crate::manifest::Manifest = {
                #[expect(clippy::wildcard_imports, reason = "the vocabulary of manifests")]
                #[expect(unused_imports, reason = "each driver uses a part of it")]
                use $crate::matches::*;
                $crate::manifest::Manifest::new(
                    $name,
                    $crate::manifest::Class::$class,
                    $version,
                    &[$($rule),*],
                    &[$($need),*],
                )
                $(.with_priority($priority))?
            };
        }
    };
}
