//! Names of PCI classes, vendors and devices.
//!
//! A small table covers what QEMU offers and what is common; a file in the format of the PCI ID
//! Repository (`/boot/etc/pci.ids`), if there is one, goes before it.

use alloc::format;
use alloc::string::{String, ToString};

/// The table and, if present, the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct PciNames<'a> {
    file: Option<&'a str>,
}

impl<'a> PciNames<'a> {
    /// With the text of a `pci.ids` file.
    pub const fn new(file: Option<&'a str>) -> Self {
        PciNames { file }
    }

    /// Name of a class.
    pub fn class(&self, class: u8, subclass: u8) -> &'static str {
        CLASSES
            .iter()
            .find(|(c, s, _)| *c == class && *s == subclass)
            .or_else(|| CLASSES.iter().find(|(c, s, _)| *c == class && *s == 0x80))
            .map_or("Unknown class", |(_, _, name)| name)
    }

    /// Name of a vendor, or its number.
    pub fn vendor(&self, vendor: u16) -> String {
        self.look_up(vendor, None)
            .or_else(|| {
                let found = VENDORS.iter().find(|(v, _)| *v == vendor);
                found.map(|(_, name)| (*name).to_string())
            })
            .unwrap_or_else(|| format!("Vendor {vendor:04x}"))
    }

    /// Names of vendor and device, with numbers for what has no name.
    pub fn device(&self, vendor: u16, device: u16) -> String {
        let name = self.look_up(vendor, Some(device)).or_else(|| {
            let found = DEVICES
                .iter()
                .find(|(v, d, _)| (*v, *d) == (vendor, device));
            found.map(|(_, _, name)| (*name).to_string())
        });
        match name {
            Some(name) => format!("{} {name}", self.vendor(vendor)),
            None => format!("{} Device {device:04x}", self.vendor(vendor)),
        }
    }

    /// Looks in the file: lines `VVVV  name`, below each lines TAB `DDDD  name`.
    fn look_up(&self, vendor: u16, device: Option<u16>) -> Option<String> {
        let head = format!("{vendor:04x}  ");
        let mut lines = self.file?.lines();
        let found = lines.find_map(|line| line.strip_prefix(&head))?;
        let Some(device) = device else {
            return Some(found.trim().to_string());
        };
        let head = format!("\t{device:04x}  ");
        lines
            .take_while(|line| line.starts_with(['\t', '#']))
            .find_map(|line| line.strip_prefix(&head))
            .map(|name| name.trim().to_string())
    }
}

/// Class, subclass, name (PCI Code and ID Assignment specification, chapter 1); 0x80 is "other".
const CLASSES: &[(u8, u8, &str)] = &[
    (0x00, 0x80, "Unclassified device"),
    (0x01, 0x00, "SCSI storage controller"),
    (0x01, 0x01, "IDE interface"),
    (0x01, 0x06, "SATA controller"),
    (0x01, 0x07, "Serial Attached SCSI controller"),
    (0x01, 0x08, "Non-Volatile memory controller"),
    (0x01, 0x80, "Mass storage controller"),
    (0x02, 0x00, "Ethernet controller"),
    (0x02, 0x80, "Network controller"),
    (0x03, 0x00, "VGA compatible controller"),
    (0x03, 0x80, "Display controller"),
    (0x04, 0x01, "Multimedia audio controller"),
    (0x04, 0x03, "Audio device"),
    (0x04, 0x80, "Multimedia controller"),
    (0x05, 0x00, "RAM memory"),
    (0x05, 0x80, "Memory controller"),
    (0x06, 0x00, "Host bridge"),
    (0x06, 0x01, "ISA bridge"),
    (0x06, 0x04, "PCI bridge"),
    (0x06, 0x80, "Bridge"),
    (0x07, 0x00, "Serial controller"),
    (0x07, 0x80, "Communication controller"),
    (0x08, 0x06, "IOMMU"),
    (0x08, 0x80, "System peripheral"),
    (0x09, 0x80, "Input device controller"),
    (0x0c, 0x03, "USB controller"),
    (0x0c, 0x05, "SMBus"),
    (0x0c, 0x80, "Serial bus controller"),
    (0x0d, 0x80, "Wireless controller"),
    (0x10, 0x80, "Encryption controller"),
    (0x11, 0x80, "Signal processing controller"),
    (0x12, 0x80, "Processing accelerators"),
    (0xff, 0x80, "Unassigned class"),
];

const VENDORS: &[(u16, &str)] = &[
    (0x1000, "Broadcom / LSI"),
    (0x1002, "AMD/ATI"),
    (0x1022, "AMD"),
    (0x1033, "NEC Corporation"),
    (0x104c, "Texas Instruments"),
    (0x106b, "Apple Inc."),
    (0x10de, "NVIDIA Corporation"),
    (0x10ec, "Realtek Semiconductor Co., Ltd."),
    (0x1106, "VIA Technologies, Inc."),
    (0x1234, "QEMU (unofficial)"),
    (0x1274, "Ensoniq"),
    (0x144d, "Samsung Electronics Co Ltd"),
    (0x14e4, "Broadcom Inc."),
    (0x15ad, "VMware"),
    (0x15b3, "Mellanox Technologies"),
    (0x1912, "Renesas Technology Corp."),
    (0x1969, "Qualcomm Atheros"),
    (0x1af4, "Red Hat, Inc."),
    (0x1b21, "ASMedia Technology Inc."),
    (0x1b36, "Red Hat, Inc."),
    (0x1b73, "Fresco Logic"),
    (0x1b96, "Western Digital"),
    (0x1c5c, "SK hynix"),
    (0x1cc1, "ADATA Technology Co., Ltd."),
    (0x1d6c, "Google"),
    (0x1e0f, "KIOXIA Corporation"),
    (0x8086, "Intel Corporation"),
];

const DEVICES: &[(u16, u16, &str)] = &[
    (0x1013, 0x00b8, "GD 5446"),
    (0x1022, 0x2000, "79c970 [PCnet32 LANCE]"),
    (0x10ec, 0x8029, "RTL-8029(AS)"),
    (
        0x10ec,
        0x8139,
        "RTL-8100/8101L/8139 PCI Fast Ethernet Adapter",
    ),
    (
        0x10ec,
        0x8168,
        "RTL8111/8168 PCI Express Gigabit Ethernet Controller",
    ),
    (0x1033, 0x0194, "uPD720200 USB 3.0 Host Controller"),
    (0x1000, 0x0012, "53c895a"),
    (0x1000, 0x0060, "MegaRAID SAS 1078"),
    (0x106b, 0x003f, "KeyLargo/Intrepid USB"),
    (0x1234, 0x1111, "Standard VGA"),
    (0x1274, 0x5000, "ES1370 [AudioPCI]"),
    (0x15ad, 0x0405, "SVGA II Adapter"),
    (0x15ad, 0x07b0, "VMXNET3 Ethernet Controller"),
    (0x15ad, 0x07c0, "PVSCSI SCSI Controller"),
    (0x1af4, 0x1000, "Virtio network device"),
    (0x1af4, 0x1001, "Virtio block device"),
    (0x1af4, 0x1002, "Virtio memory balloon"),
    (0x1af4, 0x1003, "Virtio console"),
    (0x1af4, 0x1004, "Virtio SCSI"),
    (0x1af4, 0x1005, "Virtio RNG"),
    (0x1af4, 0x1009, "Virtio filesystem"),
    (0x1af4, 0x1041, "Virtio 1.0 network device"),
    (0x1af4, 0x1042, "Virtio 1.0 block device"),
    (0x1af4, 0x1043, "Virtio 1.0 console"),
    (0x1af4, 0x1044, "Virtio 1.0 RNG"),
    (0x1af4, 0x1045, "Virtio 1.0 balloon"),
    (0x1af4, 0x1048, "Virtio 1.0 SCSI"),
    (0x1af4, 0x1049, "Virtio 1.0 filesystem"),
    (0x1af4, 0x1050, "Virtio 1.0 GPU"),
    (0x1af4, 0x1052, "Virtio 1.0 input"),
    (0x1af4, 0x1053, "Virtio 1.0 socket"),
    (0x1af4, 0x1057, "Virtio 1.0 IOMMU"),
    (0x1af4, 0x1110, "Inter-VM shared memory"),
    (0x1b36, 0x0001, "QEMU PCI-PCI bridge"),
    (0x1b36, 0x0002, "QEMU PCI 16550A Adapter"),
    (0x1b36, 0x0005, "QEMU PCI Test Device"),
    (0x1b36, 0x0007, "QEMU SD Host Controller"),
    (0x1b36, 0x0008, "QEMU PCIe Host bridge"),
    (0x1b36, 0x0009, "QEMU PCI Expander bridge"),
    (0x1b36, 0x000b, "QEMU PCIe Expander bridge"),
    (0x1b36, 0x000c, "QEMU PCIe Root port"),
    (0x1b36, 0x000d, "QEMU XHCI Host Controller"),
    (0x1b36, 0x000e, "QEMU PCIe-to-PCI bridge"),
    (0x1b36, 0x0010, "QEMU NVM Express Controller"),
    (0x1b36, 0x0100, "QXL paravirtual graphic card"),
    (0x8086, 0x100e, "82540EM Gigabit Ethernet Controller"),
    (0x8086, 0x100f, "82545EM Gigabit Ethernet Controller"),
    (0x8086, 0x10c9, "82576 Gigabit Network Connection"),
    (0x8086, 0x10d3, "82574L Gigabit Network Connection"),
    (0x8086, 0x1209, "8255xER/82551IT Fast Ethernet Controller"),
    (0x8086, 0x1237, "440FX - 82441FX PMC [Natoma]"),
    (0x8086, 0x1533, "I210 Gigabit Network Connection"),
    (0x8086, 0x2415, "82801AA AC'97 Audio Controller"),
    (
        0x8086,
        0x2668,
        "82801FB/FBM/FR/FW/FRW (ICH6 Family) High Definition Audio Controller",
    ),
    (0x8086, 0x25ab, "6300ESB Watchdog Timer"),
    (0x8086, 0x2918, "82801IB (ICH9) LPC Interface Controller"),
    (
        0x8086,
        0x2922,
        "82801IR/IO/IH (ICH9R/DO/DH) 6 port SATA Controller [AHCI mode]",
    ),
    (0x8086, 0x2930, "82801I (ICH9 Family) SMBus Controller"),
    (0x8086, 0x2934, "82801I (ICH9 Family) USB UHCI Controller"),
    (0x8086, 0x293a, "82801I (ICH9 Family) USB2 EHCI Controller"),
    (0x8086, 0x293e, "82801I (ICH9 Family) HD Audio Controller"),
    (0x8086, 0x29c0, "82G33/G31/P35/P31 Express DRAM Controller"),
    (0x8086, 0x244e, "82801 PCI Bridge"),
    (
        0x8086,
        0x3420,
        "7500/5520/5500/X58 I/O Hub PCI Express Root Port 0",
    ),
    (0x8086, 0x5845, "QEMU NVM Express Controller"),
    (0x8086, 0x7000, "82371SB PIIX3 ISA [Natoma/Triton II]"),
    (0x8086, 0x7010, "82371SB PIIX3 IDE [Natoma/Triton II]"),
    (0x8086, 0x7113, "82371AB/EB/MB PIIX4 ACPI"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n1af4  Red Hat, Inc. (file)\n\t1042  Virtio block (file)\n\t\t1af4 1100  QEMU\n\
                        \t1044  Virtio RNG (file)\n8086  Intel\n\t1044  Other\nC 01  Mass storage\n";

    #[test]
    fn the_file_goes_before_the_table() {
        let names = PciNames::new(Some(FILE));
        assert_eq!(
            names.device(0x1af4, 0x1044),
            "Red Hat, Inc. (file) Virtio RNG (file)"
        );
        assert_eq!(
            names.device(0x1af4, 0x1041),
            "Red Hat, Inc. (file) Virtio 1.0 network device"
        );
        assert_eq!(
            names.device(0x1af4, 0x9999),
            "Red Hat, Inc. (file) Device 9999"
        );
    }

    #[test]
    fn unknown_things_keep_their_numbers() {
        let names = PciNames::default();
        assert_eq!(names.device(0xabcd, 0x1234), "Vendor abcd Device 1234");
        assert_eq!(names.class(0x01, 0x42), "Mass storage controller");
        assert_eq!(names.class(0x01, 0x00), "SCSI storage controller");
        assert_eq!(names.class(0x77, 0), "Unknown class");
    }
}
