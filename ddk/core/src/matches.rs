//! What a manifest is written with: match rules and needs, under the names that read well in [`driver!`].
//!
//! [`driver!`]: crate::driver

pub use ddk_manifest::{
    Class, bar, dma, interrupt_line, io_ports, memory_bars, message_interrupt, msix, pci_class,
    pci_device, platform,
};
