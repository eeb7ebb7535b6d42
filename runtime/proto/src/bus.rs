//! Bus drivers and what stands on a bus: the protocol between devmgr and a bus driver, the device channel
//! of a driver, and the firmware's description of the machine.
//!
//! Configuration space is reached through here only, and only by the bus driver.
//!
//! # What a driver process finds in its start-up message
//!
//! | handle | what |
//! |---|---|
//! | `device` | channel, [`PciDevice`](PciDeviceClient) (PCI functions only) |
//! | `devmgr` | channel, [`DriverHost`](crate::devmgr::DriverHostClient) |
//! | `control` | channel, server end of [`DriverControl`](crate::devmgr::DriverControlClient) |
//! | `log` | the log |
//! | `bar0` ... `bar5` | VMO of device memory, for each memory BAR that the manifest needs |
//! | `ioport0` ... | `IoPort` resource, for each port range that the manifest needs |
//! | `irq0` ... | interrupts, unbound: MSI-X vectors from 0 on, or the line of a platform device |
//! | `dma` | DMA domain, if the manifest needs one |
//!
//! The environment variable `BULKHEAD_NODE` holds the node's path. A BAR's VMO starts at the BAR's first
//! byte and has the BAR's length. If the MSI-X table or pending-bit array lies in it, it is cut into
//! windows without those pages: `bar4` then covers what precedes them, and `bar4@OFFSET` (hexadecimal,
//! relative to the BAR) each window that follows.

use alloc::string::String;
use alloc::vec::Vec;

use ipc::Channel;
use serde::{Deserialize, Serialize};

/// Address of a PCI function.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct PciAddress {
    /// Segment group, 0 on most machines.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl PciAddress {
    /// Device ID for DMA: segment in bits 16..32, bus, device and function below (the requester ID).
    pub const fn device_id(self) -> u64 {
        (self.segment as u64) << 16
            | (self.bus as u64) << 8
            | ((self.device & 31) as u64) << 3
            | (self.function & 7) as u64
    }
}

impl core::fmt::Display for PciAddress {
    /// `00:04.0`, with the segment in front if it is not 0.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.segment != 0 {
            write!(f, "{:04x}:", self.segment)?;
        }
        write!(
            f,
            "{:02x}:{:02x}.{:x}",
            self.bus, self.device, self.function
        )
    }
}

/// Kind of a base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes the next register too.
    Memory64,
}

/// A base address register that is implemented.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bar {
    /// Register, 0 to 5.
    pub index: u8,
    /// Kind.
    pub kind: BarKind,
    /// Prefetchable memory.
    pub prefetchable: bool,
    /// First physical address or port; 0 when none could be assigned.
    pub base: u64,
    /// Length in bytes, a power of two.
    pub len: u64,
}

/// A capability in configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Capability {
    /// Capability ID (PCI Code and ID Assignment specification).
    pub id: u16,
    /// Where it starts in configuration space.
    pub offset: u16,
    /// Version of an extended capability, 0 of a plain one.
    pub version: u8,
    /// Whether it is an extended capability (offset 0x100 and up).
    pub extended: bool,
}

/// MSI-X of a function (PCI Express Base 7.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MsixInfo {
    /// Table entries, 1 to 2048.
    pub vectors: u16,
    /// BAR that holds the table.
    pub table_bar: u8,
    /// Where the table starts in it, in bytes.
    pub table_offset: u32,
    /// BAR that holds the pending-bit array.
    pub pba_bar: u8,
    /// Where the pending-bit array starts in it, in bytes.
    pub pba_offset: u32,
}

/// How a function can be reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ResetMethod {
    /// PCI Express function-level reset.
    FunctionLevel,
    /// Advanced Features capability function-level reset (conventional PCI).
    AdvancedFeatures,
    /// D3hot and back, on a function without No_Soft_Reset.
    PowerManagement,
    /// Write of 0 to the device status of virtio (virtio 1.2, 2.4).
    Virtio,
    /// The reset bit of Intel's 8254x Ethernet controllers, which have no other way.
    Intel8254x,
    /// Secondary bus reset of the bridge above, when nothing else is on that bus.
    SecondaryBus,
    /// Nothing: the function is only cut off from memory.
    None,
}

/// What a bus driver says of a PCI function.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PciFunctionInfo {
    /// Address.
    pub address: PciAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID; 0 for a bridge.
    pub subsystem_vendor: u16,
    /// Subsystem ID; 0 for a bridge.
    pub subsystem: u16,
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
    /// Revision.
    pub revision: u8,
    /// Header type without the multi-function bit: 0 device, 1 PCI-to-PCI bridge.
    pub header: u8,
    /// Interrupt pin, 1 (INTA) to 4; 0 for none.
    pub interrupt_pin: u8,
    /// Interrupt line as the firmware left it.
    pub interrupt_line: u8,
    /// For a bridge: secondary and subordinate bus.
    pub buses: Option<(u8, u8)>,
    /// Implemented BARs.
    pub bars: Vec<Bar>,
    /// Capabilities, plain ones first, in the order of the lists.
    pub capabilities: Vec<Capability>,
    /// MSI-X, if offered.
    pub msix: Option<MsixInfo>,
    /// MSI vectors offered, 0 for none.
    pub msi_vectors: u8,
    /// How it will be reset.
    pub reset: ResetMethod,
    /// What is wrong with its configuration space, if anything (a looping list, an impossible BAR).
    pub faults: Vec<String>,
}

/// Address and data of a message-signalled interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Address that the device writes to.
    pub address: u64,
    /// Value that it writes.
    pub data: u32,
}

/// A step of the fence around a device; they are taken in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum FenceStep {
    /// MSI-X function mask and INTx disable set, MSI disabled.
    MaskInterrupts,
    /// Bus mastering off.
    BusMasterOff,
    /// Device reset with [`PciFunctionInfo::reset`].
    Reset,
}

impl FenceStep {
    /// What the step does, for reports.
    pub const fn text(self) -> &'static str {
        match self {
            FenceStep::MaskInterrupts => "interrupts masked",
            FenceStep::BusMasterOff => "bus mastering off",
            FenceStep::Reset => "device reset",
        }
    }
}

/// Why a bus driver or the firmware service refuses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BusError {
    /// No such function.
    NotFound,
    /// The function answers with all ones: it is gone.
    Gone,
    /// Offset or width outside of configuration space, or misaligned.
    BadAccess,
    /// The register may not be written through a device channel.
    Protected,
    /// The function does not have it.
    NotSupported,
    /// The step was taken and read back: it did not hold.
    NotVerified {
        /// Which register.
        what: String,
        /// Value that was expected there.
        expected: u32,
        /// Value that was read.
        found: u32,
    },
    /// The function is attached or fenced already.
    BadState,
    /// The kernel refused.
    Kernel(i32),
}

impl core::fmt::Display for BusError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BusError::NotFound => f.write_str("no such function"),
            BusError::Gone => f.write_str("the device is gone"),
            BusError::BadAccess => f.write_str("access outside of configuration space"),
            BusError::Protected => f.write_str("the register is protected"),
            BusError::NotSupported => f.write_str("not supported by the device"),
            BusError::NotVerified {
                what,
                expected,
                found,
            } => {
                write!(f, "{what} reads {found:#x}, expected {expected:#x}")
            }
            BusError::BadState => f.write_str("the device is in another state"),
            BusError::Kernel(code) => write!(f, "the kernel refused ({code})"),
        }
    }
}

ipc::protocol! {
    /// From devmgr to the PCI bus driver.
    pub protocol PciBus("pci-bus", version = 1, error = BusError) {
        /// Functions found, in the order of their addresses, from number `from` on; an empty answer ends
        /// the list. The first call waits for the enumeration.
        1 = functions(from: u32) -> (functions: Vec<PciFunctionInfo>);
        /// Opens the device channel of a function and programs its MSI-X vectors 0, 1, ... (masked until
        /// the driver enables the device). Whatever fails closes the channel and is told as `attached`.
        6 = attach(ticket: u64, address: PciAddress, vectors: Vec<Message>; device: Channel);
        /// Takes one step of the fence and reads back that it holds; told as `fenced`. `MaskInterrupts` also
        /// closes the device channel.
        7 = fence(ticket: u64, address: PciAddress, step: FenceStep);
        /// The first 256 bytes of configuration space, or 4096 where extended space is reachable; told as
        /// `config`.
        8 = config(ticket: u64, address: PciAddress);
        /// The function is out of service, as `removal_asked` wanted: its slot may be switched off.
        9 = release(address: PciAddress);
    }
}

ipc::protocol! {
    /// From the PCI bus driver to devmgr; messages without an answer. Tickets are those of the requests.
    pub protocol PciBusEvents("pci-bus-events", version = 1, error = BusError) {
        /// An attach failed or was done.
        1 = attached(ticket: u64, problem: Option<BusError>);
        /// A step of the fence holds, or not.
        2 = fenced(ticket: u64, problem: Option<BusError>);
        /// Configuration space, empty for a function that is not there.
        3 = config(ticket: u64, bytes: Vec<u8>);
        /// A function was plugged in.
        4 = added(info: PciFunctionInfo);
        /// Somebody pressed the slot's button or wants the device back: `release` is to follow.
        5 = removal_asked(address: PciAddress);
        /// The function is gone.
        6 = removed(address: PciAddress);
    }
}

ipc::protocol! {
    /// The device channel of a driver, served by the bus driver.
    pub protocol PciDevice("pci-device", version = 1, error = BusError) {
        /// Description of the function.
        1 = info() -> (info: PciFunctionInfo);
        /// Reads 1, 2 or 4 aligned bytes of configuration space.
        2 = config_read(offset: u16, width: u8) -> (value: u32);
        /// Writes 1, 2 or 4 aligned bytes. BARs, command, MSI, MSI-X, power, PCI Express control and bridge
        /// registers are protected.
        3 = config_write(offset: u16, width: u8, value: u32) -> ();
        /// Memory and port decoding on, bus mastering on, MSI-X on with vectors unmasked.
        4 = enable() -> ();
        /// Bus mastering off and vectors masked.
        5 = disable() -> ();
        /// Masks or unmasks one MSI-X vector.
        6 = set_vector(vector: u16, state: VectorState) -> ();
        /// Resets the function with its method and restores BARs and MSI-X; bus mastering is off afterwards.
        7 = reset() -> ();
    }
}

/// Whether an MSI-X vector may fire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VectorState {
    /// It stays pending.
    Masked,
    /// It fires.
    Unmasked,
}

/// An entry of the ACPI MCFG table (PCI Firmware Specification 4.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EcamRegion {
    /// Physical address of bus 0's configuration space.
    pub base: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus decoded.
    pub first_bus: u8,
    /// Last bus decoded.
    pub last_bus: u8,
}

/// An address range that a host bridge passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Aperture {
    /// Kind: [`BarKind::Memory32`] below 4 GiB, [`BarKind::Memory64`] above.
    pub kind: BarKind,
    /// First address or port.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

ipc::protocol! {
    /// Served by the `acpi` service: what the firmware says of the machine, and its power switch.
    pub protocol Firmware("firmware", version = 1, error = BusError) {
        /// ECAM regions of the MCFG table.
        1 = ecam_regions() -> (regions: Vec<EcamRegion>);
        /// Address ranges of the PCI host bridge, from its `_CRS`; empty if it does not say.
        2 = apertures() -> (apertures: Vec<Aperture>);
        /// Switches the machine off. Answers only if that failed.
        3 = power_off() -> ();
        /// Resets the machine. Answers only if that failed.
        4 = reboot() -> ();
        /// Signature and length of every table.
        5 = tables() -> (tables: Vec<(String, u32)>);
        /// Root buses of the PCI host bridges (`_BBN`), sorted.
        6 = root_buses() -> (buses: Vec<u8>);
    }
}
