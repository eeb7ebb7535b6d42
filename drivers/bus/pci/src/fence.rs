//! The fence around a function: after it the function neither interrupts nor writes to memory, and has
//! forgotten what its last driver told it.
//!
//! The order of the steps is devmgr's; each step here reads back that it holds. A function that is gone
//! (all ones) is fenced by that.

use proto::bus::{BusError, FenceStep, PciAddress, PciFunctionInfo, ResetMethod};

use crate::bar;
use crate::capability;
use crate::config::{
    Clock, ConfigSpace, DeviceMemory, Width, bridge_control, command, id, register,
};
use crate::msix;

/// After a function-level reset (PCI Express Base, 6.6.2) and before it is given up.
const FLR_SETTLE_MS: u32 = 100;
const RESET_LIMIT_MS: u64 = 1000;
/// D3hot to D0 (PCI Bus Power Management 1.2, 5.6.1).
const POWER_SETTLE_MS: u32 = 10;

/// Takes one step.
///
/// # Errors
/// [`BusError::NotVerified`] when the function does not obey, [`BusError::NotSupported`] when it has no
/// way to be reset. [`BusError::Gone`] never: that is success here.
pub fn step(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    clock: &impl Clock,
    info: &PciFunctionInfo,
    bridge: Option<PciAddress>,
    step: FenceStep,
) -> Result<(), BusError> {
    let address = info.address;
    if config.read16(address, register::VENDOR) == 0xffff {
        return Ok(());
    }
    let result = match step {
        FenceStep::MaskInterrupts => msix::mask(config, address, info),
        FenceStep::BusMasterOff => bus_master_off(config, address),
        FenceStep::Reset => reset(config, memory, clock, info, bridge),
    };
    match result {
        Err(BusError::Gone) => Ok(()),
        other => other,
    }
}

/// Clears bus mastering and reads it back. The read also flushes writes of the function that are on
/// their way: its completion may not pass them (PCI Express Base, 2.4).
pub fn bus_master_off(config: &impl ConfigSpace, address: PciAddress) -> Result<(), BusError> {
    let held = config.read16(address, register::COMMAND);
    config.write16(address, register::COMMAND, held & !command::BUS_MASTER);
    msix::verify(
        config,
        address,
        register::COMMAND,
        command::BUS_MASTER,
        0,
        "bus master enable",
    )
}

/// Resets the function by its method, restores BARs, and leaves decoding, bus mastering and interrupts
/// off.
///
/// # Errors
/// As for [`step`]; also [`BusError::Gone`].
pub fn reset(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    clock: &impl Clock,
    info: &PciFunctionInfo,
    bridge: Option<PciAddress>,
) -> Result<(), BusError> {
    const EXPRESS_INITIATE_FLR: u16 = 1 << 15;
    const AF_INITIATE_FLR: u8 = 1;
    let address = info.address;
    match info.reset {
        ResetMethod::FunctionLevel => {
            let at = need(info, id::EXPRESS)?.saturating_add(8);
            let control = config.read16(address, at);
            config.write16(address, at, control | EXPRESS_INITIATE_FLR);
            clock.sleep_ms(FLR_SETTLE_MS);
        }
        ResetMethod::AdvancedFeatures => {
            let at = need(info, id::ADVANCED_FEATURES)?.saturating_add(4);
            config.write8(address, at, AF_INITIATE_FLR);
            clock.sleep_ms(FLR_SETTLE_MS);
        }
        ResetMethod::Virtio => virtio(config, memory, clock, info)?,
        ResetMethod::Intel8254x => intel_8254x(config, memory, clock, info)?,
        ResetMethod::PowerManagement => {
            let at = need(info, id::POWER)?.saturating_add(4);
            let control = config.read16(address, at) & !3;
            config.write16(address, at, control | 3);
            clock.sleep_ms(POWER_SETTLE_MS);
            config.write16(address, at, control);
            clock.sleep_ms(POWER_SETTLE_MS);
        }
        ResetMethod::SecondaryBus => {
            let bridge = bridge.ok_or(BusError::NotSupported)?;
            let held = config.read16(bridge, register::BRIDGE_CONTROL);
            let asserted = held | bridge_control::SECONDARY_RESET;
            config.write16(bridge, register::BRIDGE_CONTROL, asserted);
            clock.sleep_ms(2);
            config.write16(bridge, register::BRIDGE_CONTROL, held);
            clock.sleep_ms(FLR_SETTLE_MS);
        }
        ResetMethod::None => return Err(BusError::NotSupported),
    }
    wait_present(config, clock, address)?;
    for bar in info.bars.iter().filter(|b| b.base != 0) {
        bar::write_base(config, address, bar);
    }
    let held = config.read16(address, register::COMMAND);
    let off = command::IO | command::MEMORY | command::BUS_MASTER;
    config.write16(
        address,
        register::COMMAND,
        held & !off | command::INTX_DISABLE,
    );
    msix::verify(
        config,
        address,
        register::COMMAND,
        off,
        0,
        "command after reset",
    )?;
    msix::turn_off(config, address, info)
}

fn need(info: &PciFunctionInfo, id: u16) -> Result<u16, BusError> {
    capability::find(&info.capabilities, id).ok_or(BusError::NotSupported)
}

/// A function in reset may answer with all ones or not at all for up to a second.
fn wait_present(
    config: &impl ConfigSpace,
    clock: &impl Clock,
    address: PciAddress,
) -> Result<(), BusError> {
    let limit = clock.now_ns().saturating_add(RESET_LIMIT_MS * 1_000_000);
    loop {
        let vendor = config.read16(address, register::VENDOR);
        if vendor != 0xffff && vendor != 1 {
            return Ok(());
        }
        if clock.now_ns() >= limit {
            return Err(BusError::Gone);
        }
        clock.sleep_ms(POWER_SETTLE_MS);
    }
}

/// Device status = 0, then wait until it reads 0 (virtio 1.2, 2.4.1).
fn virtio(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    clock: &impl Clock,
    info: &PciFunctionInfo,
) -> Result<(), BusError> {
    let address = info.address;
    let (index, offset) =
        capability::virtio_status(config, address, &info.capabilities, &info.bars)
            .ok_or(BusError::NotSupported)?;
    let base = base_of(info, index)?;
    let at = base.checked_add(offset.into()).ok_or(BusError::BadAccess)?;
    decode_memory(config, address);
    memory
        .write(at, Width::Byte, 0)
        .ok_or(BusError::NotSupported)?;
    wait_clear(
        memory,
        clock,
        (at, Width::Byte, u32::MAX),
        "virtio device status",
    )
}

/// No interrupts, receiver and transmitter off, then the reset bit, which clears itself (8254x Software Developer's Manual, 14.5).
fn intel_8254x(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    clock: &impl Clock,
    info: &PciFunctionInfo,
) -> Result<(), BusError> {
    const CTRL: u64 = 0;
    const IMC: u64 = 0xd8;
    const RCTL: u64 = 0x100;
    const TCTL: u64 = 0x400;
    let base = base_of(info, 0)?;
    decode_memory(config, info.address);
    let write = |register: u64, value| {
        let at = base.checked_add(register).ok_or(BusError::BadAccess)?;
        let written = memory.write(at, Width::Dword, value);
        written.ok_or(BusError::NotSupported)
    };
    write(IMC, u32::MAX)?;
    write(RCTL, 0)?;
    write(TCTL, 0)?;
    let control = memory.read(base, Width::Dword);
    let control = control.ok_or(BusError::NotSupported)?;
    write(CTRL, control | spec_e1000::ctrl::RST)?;
    wait_clear(
        memory,
        clock,
        (base, Width::Dword, spec_e1000::ctrl::RST),
        "reset bit of the Ethernet controller",
    )?;
    // The EEPROM is loaded (14.6).
    clock.sleep_ms(POWER_SETTLE_MS);
    Ok(())
}

/// Where a memory BAR is.
fn base_of(info: &PciFunctionInfo, index: u8) -> Result<u64, BusError> {
    let bar = info.bars.iter().find(|b| b.index == index && b.base != 0);
    bar.map(|b| b.base).ok_or(BusError::NotSupported)
}

fn decode_memory(config: &impl ConfigSpace, address: PciAddress) {
    let held = config.read16(address, register::COMMAND);
    config.write16(address, register::COMMAND, held | command::MEMORY);
}

/// Waits until these bits of a register are clear.
fn wait_clear(
    memory: &impl DeviceMemory,
    clock: &impl Clock,
    (at, width, bits): (u64, Width, u32),
    what: &str,
) -> Result<(), BusError> {
    let limit = clock.now_ns().saturating_add(RESET_LIMIT_MS * 1_000_000);
    loop {
        let found = memory.read(at, width).ok_or(BusError::NotSupported)? & bits;
        if found == 0 {
            return Ok(());
        }
        if clock.now_ns() >= limit {
            return Err(BusError::NotVerified {
                what: what.into(),
                expected: 0,
                found,
            });
        }
        clock.sleep_ms(1);
    }
}
