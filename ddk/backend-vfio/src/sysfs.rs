//! Which driver of Linux has a device, and taking it from that one (Linux, Documentation/ABI/testing/
//! sysfs-bus-pci).

use std::fs;
use std::path::{Path, PathBuf};

use crate::OpenError;

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVER: &str = "vfio-pci";

/// The folder of a device: `0000:00:04.0`, or without the segment.
pub(crate) fn folder(address: &str) -> Result<PathBuf, OpenError> {
    let full = match address.matches(':').count() {
        1 => format!("0000:{address}"),
        _ => address.to_owned(),
    };
    let path = Path::new(DEVICES).join(&full);
    if path.is_dir() {
        Ok(path)
    } else {
        Err(OpenError::NotFound(full))
    }
}

/// The name of the driver of Linux that has the device.
pub(crate) fn driver(folder: &Path) -> Option<String> {
    let link = fs::read_link(folder.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Checks that the device can be opened.
pub(crate) fn check(folder: &Path, address: &str) -> Result<(), OpenError> {
    let seen = driver(folder);
    if seen.as_deref() != Some(DRIVER) {
        return Err(OpenError::NotBound {
            address: address.to_owned(),
            driver: seen,
        });
    }
    if !folder.join("iommu_group").exists() {
        return Err(OpenError::NoIommu(address.to_owned()));
    }
    Ok(())
}

/// Takes a device from the driver of Linux that has it, and gives it to `vfio-pci`, whose module has to be
/// loaded. Needs the rights of the administrator. What uses the device loses it.
///
/// # Errors
/// [`OpenError::NotFound`], and [`OpenError::System`] when Linux refuses.
pub fn bind_to_vfio(address: &str) -> Result<(), OpenError> {
    let folder = folder(address)?;
    let write = |path: PathBuf, text: &str| {
        fs::write(&path, text)
            .map_err(|error| OpenError::System(format!("{}: {error}", path.display())))
    };
    write(folder.join("driver_override"), DRIVER)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match driver(&folder) {
        Some(driver) if driver == DRIVER => return Ok(()),
        Some(_) => write(folder.join("driver/unbind"), &name)?,
        None => {}
    }
    write(PathBuf::from("/sys/bus/pci/drivers_probe"), &name)?;
    check(&folder, address)
}
