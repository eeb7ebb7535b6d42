//! A device that was opened.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ddk::manifest::Manifest;
use ddk::{DeviceAccess, PinnedBuffer, Platform, PlatformError};
use ddk_backend_host::{BindError, Payload, everything};
use devmgr::grants::{self, Grants};
use devmgr::node::Device;
use proto::bus::{PciAddress, PciFunctionInfo};

use crate::opened::{Opened, describe};
use crate::platform::{Delivery, VfioPlatform};
use crate::sysfs;

/// Why a device cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// There is no PCI function with this address.
    NotFound(String),
    /// Another driver of Linux has it, or none; [`bind_to_vfio`](crate::bind_to_vfio) takes it.
    NotBound {
        /// The function.
        address: String,
        /// Who has it.
        driver: Option<String>,
    },
    /// The machine has no IOMMU for it, or Linux does not use it.
    NoIommu(String),
    /// Linux refuses.
    System(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotFound(address) => write!(f, "there is no PCI function {address}"),
            OpenError::NotBound { address, driver } => {
                let driver = driver.as_deref().unwrap_or("none");
                write!(f, "{address}: its driver is {driver}, vfio-pci is needed")
            }
            OpenError::NoIommu(address) => write!(
                f,
                "{address}: no IOMMU stands before it (is it on, and intel_iommu=on or the like given?)"
            ),
            OpenError::System(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpenError {}

/// A PCI function that `vfio-pci` has, opened. It is closed with its last platform and memory.
pub struct VfioDevice {
    opened: Arc<Opened>,
    info: PciFunctionInfo,
}

/// `0000:00:04.0`, the segment may be missing.
fn parse(address: &str) -> Option<PciAddress> {
    let mut parts = address.rsplitn(3, ':');
    let (device, function) = parts.next()?.split_once('.')?;
    let hexadecimal = |text: &str| u8::from_str_radix(text, 16).ok();
    Some(PciAddress {
        bus: hexadecimal(parts.next()?)?,
        segment: match parts.next() {
            Some(segment) => u16::from_str_radix(segment, 16).ok()?,
            None => 0,
        },
        device: hexadecimal(device).filter(|device| *device < 32)?,
        function: hexadecimal(function).filter(|function| *function < 8)?,
    })
}

impl VfioDevice {
    /// Opens the function at an address (`0000:00:04.0`; the segment may be missing), which `vfio-pci` has.
    /// Functions of one IOMMU group can only be opened one at a time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(address: &str) -> Result<VfioDevice, OpenError> {
        let parsed = parse(address).ok_or_else(|| OpenError::NotFound(address.to_owned()))?;
        let folder = sysfs::folder(address)?;
        sysfs::check(&folder, address)?;
        let opened = Opened::new(&folder)?;
        let info = describe(&opened, parsed)?;
        Ok(VfioDevice {
            opened: Arc::new(opened),
            info,
        })
    }

    /// What its configuration space says.
    pub fn info(&self) -> &PciFunctionInfo {
        &self.info
    }

    /// A platform with everything that the device has: memory BARs, messages, DMA.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn platform(&self) -> Result<Arc<dyn Platform>, BindError> {
        self.platform_for(&everything(&self.info))
    }

    /// A platform with what a driver's manifest asks for, as the device manager would grant it.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn platform_for(&self, manifest: &Manifest) -> Result<Arc<dyn Platform>, BindError> {
        self.bind(self.plan(manifest)?, Delivery::Messages)
    }

    /// A platform whose one interrupt is the device's INTx line. The manifest asks for no interrupts.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn platform_by_line(&self, manifest: &Manifest) -> Result<Arc<dyn Platform>, BindError> {
        if self.info.interrupt_pin == 0 {
            return Err(BindError::Needs("the device has no line".to_owned()));
        }
        self.bind(self.plan(manifest)?, Delivery::Line)
    }

    fn plan(&self, manifest: &Manifest) -> Result<Grants, BindError> {
        let device = Device::Pci(self.info.clone());
        grants::plan(manifest, &device).map_err(BindError::Needs)
    }

    fn bind(&self, grants: Grants, delivery: Delivery) -> Result<Arc<dyn Platform>, BindError> {
        if self.opened.bound.swap(true, Ordering::Acquire) {
            return Err(BindError::InUse);
        }
        let (opened, info) = (self.opened.clone(), self.info.clone());
        let platform = VfioPlatform::new(opened, info, grants, delivery);
        Ok(Arc::new(platform.map_err(BindError::Device)?))
    }

    /// Memory for a client's payload, at least `bytes` in whole pages: the driver's view, and the client's.
    /// The IOMMU lets the device do `access` and nothing else.
    ///
    /// # Errors
    /// [`PlatformError::NoMemory`], also when the process may not lock so much memory (`ulimit -l`).
    pub fn payload(
        &self,
        bytes: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Payload), PlatformError> {
        Ok(self.opened.allocate(bytes, access)?.into_payload(access))
    }

    /// Device pages that nobody has; the same before and after when nothing is leaked.
    pub fn free_pages(&self) -> usize {
        self.opened.free_pages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = parse("0000:3a:1f.7").unwrap();
        assert_eq!(
            (address.bus, address.device, address.function),
            (0x3a, 31, 7)
        );
        assert_eq!(parse("00:04.0"), parse("0000:00:04.0"));
        assert_eq!(parse("0001:00:04.0").map(|a| a.segment), Some(1));
        for wrong in [
            "",
            "04.0",
            "00:04",
            "00:20.0",
            "00:04.8",
            "x:00:04.0",
            "0:0:0:0.0",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = VfioDevice::open("ffff:ff:1f.7").err();
        assert_eq!(error, Some(OpenError::NotFound("ffff:ff:1f.7".to_owned())));
    }
}
