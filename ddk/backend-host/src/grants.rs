//! What a driver is given of a PCI function, and why not.

use std::fmt;

use ddk::PlatformError;
use ddk::manifest::{Class, Manifest, Need, dma, memory_bars, message_interrupt, msix};
use proto::bus::{BarKind, BusError, PciFunctionInfo};

/// Vectors that a driver without a manifest is given at most.
const VECTORS_MAX: u16 = 64;

/// A manifest that asks for everything that a function has: memory BARs, messages, DMA.
pub fn everything(info: &PciFunctionInfo) -> Manifest {
    let memory = info
        .bars
        .iter()
        .any(|b| b.kind != BarKind::Io && b.base != 0);
    let messages = match info.msix {
        Some(_) => Some(msix(1, VECTORS_MAX)),
        None => (info.msi_vectors > 0).then(message_interrupt),
    };
    let needs = [memory.then(memory_bars), messages, Some(dma(64))];
    let needs: Vec<Need> = needs.into_iter().flatten().collect();
    Manifest::new("everything", Class::OTHER, [0; 3], &[], &needs)
}

/// Why there is no platform for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BindError {
    /// No device has this name; those that there are.
    NotFound(String),
    /// Another platform has it; drop that first.
    InUse,
    /// The device does not have what the manifest needs.
    Needs(String),
    /// The device does not do what was asked of it.
    Device(PlatformError),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::NotFound(known) => write!(f, "no such device; there are {known}"),
            BindError::InUse => f.write_str("the device has a platform already; drop that first"),
            BindError::Needs(text) => f.write_str(text),
            BindError::Device(error) => write!(f, "the device cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

/// The bus driver's refusals in the DDK's terms.
pub fn bus_refused(error: BusError) -> PlatformError {
    match error {
        BusError::Protected => PlatformError::NotGranted,
        BusError::BadAccess => PlatformError::Invalid,
        BusError::NotSupported => PlatformError::Unsupported,
        BusError::Kernel(code) => PlatformError::Code(code),
        _ => PlatformError::Closed,
    }
}
