//! The texts of `lspci`.

use alloc::format;
use alloc::string::String;

use rt::proto::bus::{Bar, BarKind, PciFunctionInfo, ResetMethod};
use rt::proto::devmgr::NodeInfo;

/// The line of a function: `00:04.0 DESCRIPTION (rev 01)`.
pub fn line(info: &PciFunctionInfo, description: &str) -> String {
    let revision = match info.revision {
        0 => String::new(),
        n => format!(" (rev {n:02x})"),
    };
    format!("{} {description}{revision}\n", info.address)
}

/// The same with numbers: `00:04.0 0100: 1af4:1042 (rev 01)`.
pub fn numeric_line(info: &PciFunctionInfo) -> String {
    let text = format!(
        "{:02x}{:02x}: {:04x}:{:04x}",
        info.class, info.subclass, info.vendor, info.device
    );
    line(info, &text)
}

fn bar(bar: &Bar) -> String {
    let size = unix::size::human(bar.len);
    let size = size.replace(".0", "");
    match bar.kind {
        BarKind::Io => format!(
            "\tRegion {}: I/O ports at {:04x} [size={size}]\n",
            bar.index, bar.base
        ),
        kind => format!(
            "\tRegion {}: Memory at {:08x} ({}-bit, {}prefetchable) [size={size}]\n",
            bar.index,
            bar.base,
            if kind == BarKind::Memory64 { 64 } else { 32 },
            if bar.prefetchable { "" } else { "non-" },
        ),
    }
}

/// Names of capabilities (PCI Code and ID Assignment Specification, 2 and 3).
const fn capability_name(id: u16, extended: bool) -> &'static str {
    match (extended, id) {
        (false, 0x01) => "Power Management",
        (false, 0x02) => "AGP",
        (false, 0x03) => "Vital Product Data",
        (false, 0x04) => "Slot ID",
        (false, 0x05) => "MSI",
        (false, 0x07) => "PCI-X",
        (false, 0x08) => "HyperTransport",
        (false, 0x09) => "Vendor Specific Information",
        (false, 0x0a) => "Debug port",
        (false, 0x0c) => "Hot-plug capable",
        (false, 0x0d) => "Subsystem",
        (false, 0x10) => "Express",
        (false, 0x11) => "MSI-X",
        (false, 0x12) => "SATA HBA",
        (false, 0x13) => "PCI Advanced Features",
        (true, 0x0001) => "Advanced Error Reporting",
        (true, 0x0002) => "Virtual Channel",
        (true, 0x0003) => "Device Serial Number",
        (true, 0x000b) => "Vendor Specific Information",
        (true, 0x000d) => "Access Control Services",
        (true, 0x000e) => "Alternative Routing-ID Interpretation",
        (true, 0x000f) => "Address Translation Service",
        (true, 0x0010) => "Single Root I/O Virtualization",
        (true, 0x0013) => "Page Request Interface",
        (true, 0x0018) => "Latency Tolerance Reporting",
        (true, 0x0019) => "Secondary PCI Express",
        (true, 0x001b) => "Process Address Space ID",
        (true, 0x001e) => "L1 PM Substates",
        _ => "Unknown capability",
    }
}

/// What `-v` adds: BARs, capabilities, interrupts, driver.
pub fn details(node: &NodeInfo, info: &PciFunctionInfo) -> String {
    let mut out = String::new();
    if info.subsystem_vendor != 0 {
        out.push_str(&format!(
            "\tSubsystem: {:04x}:{:04x}\n",
            info.subsystem_vendor, info.subsystem
        ));
    }
    if let Some((secondary, subordinate)) = info.buses {
        out.push_str(&format!(
            "\tBus: secondary={secondary:02x}, subordinate={subordinate:02x}\n"
        ));
    }
    if info.interrupt_pin != 0 {
        let pin = char::from(b'A' + info.interrupt_pin.saturating_sub(1) % 4);
        out.push_str(&format!(
            "\tInterrupt: pin {pin} routed to IRQ {}\n",
            info.interrupt_line
        ));
    }
    for b in &info.bars {
        out.push_str(&bar(b));
    }
    for c in &info.capabilities {
        let offset = if c.extended {
            format!("{:03x} v{}", c.offset, c.version)
        } else {
            format!("{:02x}", c.offset)
        };
        out.push_str(&format!(
            "\tCapabilities: [{offset}] {}",
            capability_name(c.id, c.extended)
        ));
        match (&info.msix, c.id, c.extended) {
            (Some(m), 0x11, false) => out.push_str(&format!(
                ": Count={} Table: BAR={} offset={:08x} PBA: BAR={} offset={:08x}",
                m.vectors, m.table_bar, m.table_offset, m.pba_bar, m.pba_offset
            )),
            (_, 0x05, false) if info.msi_vectors > 0 => {
                out.push_str(&format!(": Count={}", info.msi_vectors));
            }
            _ => {}
        }
        out.push('\n');
    }
    let reset = match info.reset {
        ResetMethod::FunctionLevel => "function level",
        ResetMethod::AdvancedFeatures => "advanced features",
        ResetMethod::PowerManagement => "power management",
        ResetMethod::Virtio => "virtio device status",
        ResetMethod::Intel8254x => "Intel 8254x",
        ResetMethod::SecondaryBus => "secondary bus",
        ResetMethod::None => "none",
    };
    out.push_str(&format!("\tReset: {reset}\n"));
    for fault in &info.faults {
        out.push_str(&format!("\tFault: {fault}\n"));
    }
    if let Some(driver) = &node.summary.driver {
        let version = node
            .driver_version
            .as_deref()
            .map(|v| format!(" {v}"))
            .unwrap_or_default();
        out.push_str(&format!(
            "\tDriver in use: {driver}{version} ({})\n",
            node.summary.state.text()
        ));
    }
    out.push('\n');
    out
}
