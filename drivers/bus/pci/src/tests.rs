//! Enumeration, sizing, assignment, MSI-X and fence over the fake machine, and over hostile ones.

use proptest::prelude::*;
use proto::bus::{
    Aperture, BarKind, BusError, FenceStep, Message, PciAddress, ResetMethod, VectorState,
};

use crate::assign::assign;
use crate::config::{ConfigSpace, DeviceMemory, Width, command, id, register};
use crate::enumerate::{self, FUNCTIONS_MAX, enumerate, take_over};
use crate::fake::{FakeFunction, Machine, at, start};
use crate::{fence, filter, hotplug, message, msi, msix};

fn aperture(base: u64, len: u64) -> Aperture {
    Aperture {
        kind: BarKind::Memory32,
        base,
        len,
    }
}

#[test]
fn walks_bridges_and_functions() {
    let machine = Machine::with([
        (at(0, 0, 0), FakeFunction::device(0x8086, 0x29c0, [6, 0, 0])),
        (at(0, 1, 0), FakeFunction::bridge(1, 2)),
        (at(1, 0, 0), FakeFunction::bridge(2, 2)),
        (at(2, 3, 0), FakeFunction::device(1, 2, [1, 8, 2])),
        (
            at(0, 31, 0),
            FakeFunction::device(0x8086, 0x2918, [6, 1, 0]).multi(),
        ),
        (
            at(0, 31, 2),
            FakeFunction::device(0x8086, 0x2922, [1, 6, 1]),
        ),
        // Not multi-function: a ghost that must not be seen.
        (at(0, 0, 3), FakeFunction::device(5, 5, [0, 0, 0])),
        // A second root bus, which no bridge leads to.
        (at(0x40, 0, 0), FakeFunction::device(7, 7, [2, 0, 0])),
    ]);
    let topology = enumerate(&machine, 0, &[0, 0x40]);
    let found: Vec<String> = topology
        .functions
        .iter()
        .map(|f| f.info.address.to_string())
        .collect();
    assert_eq!(
        found,
        [
            "00:00.0", "00:01.0", "00:1f.0", "00:1f.2", "01:00.0", "02:03.0", "40:00.0"
        ]
    );
    assert_eq!(
        topology.bridges_above(at(2, 3, 0)),
        [at(1, 0, 0), at(0, 1, 0)]
    );
    assert_eq!(topology.find(at(0x40, 0, 0)).unwrap().bridge, None);
    assert!(topology.functions.iter().all(|f| f.info.faults.is_empty()));
}

#[test]
fn sizes_bars_of_every_kind_with_decoding_off_and_restores_them() {
    let f = FakeFunction::device(1, 2, [1, 8, 2])
        .bar(0, 0x4000, 0x4, 0x12_3456_4000)
        .bar(2, 0x20, 0x1, 0xc040)
        .bar(3, 0x1000, 0x8, 0xfeb0_0000);
    let machine = Machine::with([(at(0, 4, 0), f)]);
    start(&machine, at(0, 4, 0));
    machine.trace.borrow_mut().clear();
    let topology = enumerate(&machine, 0, &[]);
    let bars = &topology.functions[0].info.bars;
    let seen: Vec<_> = bars
        .iter()
        .map(|b| (b.index, b.kind, b.prefetchable, b.base, b.len))
        .collect();
    assert_eq!(
        seen,
        [
            (0, BarKind::Memory64, false, 0x12_3456_4000, 0x4000),
            (2, BarKind::Io, false, 0xc040, 0x20),
            (3, BarKind::Memory32, true, 0xfeb0_0000, 0x1000),
        ]
    );
    assert_eq!(machine.read32(at(0, 4, 0), 0x10), 0x3456_4004);
    assert_eq!(machine.read32(at(0, 4, 0), 0x14), 0x12);
    // Decoding comes back, bus mastering does not.
    assert_eq!(
        machine.get16(at(0, 4, 0), register::COMMAND),
        command::MEMORY
    );
    let trace = machine.trace.borrow();
    let ones = trace
        .iter()
        .position(|t| t.contains("= 0xffffffff"))
        .unwrap();
    let off = trace.iter().position(|t| t == "00:04.0 0x4 = 0x0").unwrap();
    assert!(off < ones, "{trace:?}");
}

#[test]
fn numbers_bridges_that_the_firmware_left_alone() {
    let machine = Machine::with([
        (at(0, 1, 0), FakeFunction::bridge(0, 0)),
        (at(0, 2, 0), FakeFunction::bridge(0, 0)),
        (at(1, 0, 0), FakeFunction::bridge(0, 0)),
        (at(2, 0, 0), FakeFunction::virtio(0, 0)),
        (at(3, 0, 0), FakeFunction::virtio(0, 0)),
    ]);
    let mut topology = enumerate(&machine, 0, &[]);
    let buses = |a: PciAddress| topology.find(a).unwrap().info.buses;
    assert_eq!(buses(at(0, 1, 0)), Some((1, 2)));
    assert_eq!(buses(at(1, 0, 0)), Some((2, 2)));
    assert_eq!(buses(at(0, 2, 0)), Some((3, 3)));
    assert_eq!(machine.read8(at(0, 1, 0), register::SUBORDINATE_BUS), 2);
    assign(
        &machine,
        &mut topology,
        &[aperture(0xc000_0000, 0x1000_0000)],
    );
    let mut taken = Vec::new();
    for f in &topology.functions {
        assert!(f.info.faults.is_empty(), "{:?}", f.info.faults);
        for bar in &f.info.bars {
            assert_ne!(bar.base, 0);
            assert_eq!(bar.base % bar.len, 0);
            let held = machine.read32(f.info.address, crate::bar::offset(bar.index));
            assert_eq!(u64::from(held & !0xf), bar.base);
            // Every bridge above passes it on.
            for bridge in topology.bridges_above(f.info.address) {
                let base = u64::from(machine.get16(bridge, register::MEMORY_BASE)) << 16;
                let end =
                    (u64::from(machine.get16(bridge, register::MEMORY_LIMIT)) << 16) + 0x10_0000;
                assert!(base <= bar.base && bar.base + bar.len <= end, "{bridge}");
            }
            taken.push((bar.base, bar.base + bar.len));
        }
    }
    taken.sort_unstable();
    assert_eq!(taken.len(), 4);
    assert!(taken.windows(2).all(|w| w[0].1 <= w[1].0));
}

#[test]
fn a_successor_takes_over_and_writes_nothing() {
    let machine = Machine::with([
        (at(0, 0, 0), FakeFunction::device(0x8086, 0x29c0, [6, 0, 0])),
        (at(0, 1, 0), FakeFunction::bridge(1, 2)),
        (at(1, 0, 0), FakeFunction::bridge(2, 2)),
        (at(2, 3, 0), FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000)),
        (at(0, 4, 0), FakeFunction::virtio(0xfeb1_0000, 0xfe10_0000)),
    ]);
    let mut topology = enumerate(&machine, 0, &[]);
    assign(
        &machine,
        &mut topology,
        &[aperture(0xfe00_0000, 0x100_0000)],
    );
    let infos = || topology.functions.iter().map(|f| f.info.clone()).collect();
    machine.trace.borrow_mut().clear();
    assert_eq!(take_over(&machine, infos()).functions, topology.functions);
    assert!(machine.trace.borrow().is_empty());
    // One was taken out, and another card is in the place of a second one.
    machine.functions.borrow_mut().remove(&at(2, 3, 0));
    let other = FakeFunction::device(7, 8, [2, 0, 0]);
    machine.functions.borrow_mut().insert(at(0, 4, 0), other);
    let left = take_over(&machine, infos()).functions;
    let left: Vec<_> = left.iter().map(|f| f.info.address).collect();
    assert_eq!(left, [at(0, 0, 0), at(0, 1, 0), at(1, 0, 0)]);
}

#[test]
fn keeps_what_is_assigned_and_moves_what_overlaps() {
    let machine = Machine::with([
        (at(0, 3, 0), FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000)),
        (at(0, 4, 0), FakeFunction::virtio(0xfeb0_0000, 0)),
    ]);
    let mut topology = enumerate(&machine, 0, &[]);
    assign(
        &machine,
        &mut topology,
        &[aperture(0xfe00_0000, 0x100_0000)],
    );
    let bases: Vec<u64> = topology
        .functions
        .iter()
        .flat_map(|f| f.info.bars.iter().map(|b| b.base))
        .collect();
    assert_eq!(bases, [0xfeb0_0000, 0xfe00_0000, 0xfe00_8000, 0xfe00_4000]);
}

#[test]
fn a_full_aperture_is_a_fault_and_no_address() {
    let machine = Machine::with([(at(0, 3, 0), FakeFunction::virtio(0, 0))]);
    let mut topology = enumerate(&machine, 0, &[]);
    assign(&machine, &mut topology, &[aperture(0xfe00_0000, 0x4000)]);
    let info = &topology.functions[0].info;
    assert_eq!(info.bars[1].base, 0xfe00_0000);
    assert_eq!(info.bars[0].base, 0);
    assert_eq!(info.faults, ["no room for BAR 1 of 0x1000 bytes"]);
}

#[test]
fn loops_and_nonsense_in_config_space_are_told() {
    let looping = FakeFunction::device(1, 2, [0, 0, 0])
        .capability(0x60, 0x42, &[])
        .capability(0x50, 0x43, &[])
        .writable_at(0, &[]);
    let machine = Machine::with([
        (at(0, 1, 0), looping),
        (at(0, 2, 0), FakeFunction::bridge(0, 3)),
        (at(0, 3, 0), FakeFunction::bridge(5, 4)),
        (at(0, 4, 0), FakeFunction::bridge(7, 7)),
        (at(7, 0, 0), FakeFunction::bridge(7, 7)),
        (at(0, 5, 0), FakeFunction::bridge(7, 9)),
    ]);
    machine
        .functions
        .borrow_mut()
        .get_mut(&at(0, 1, 0))
        .unwrap()
        .bytes[0x61] = 0x50;
    let topology = enumerate(&machine, 0, &[]);
    let faults = |a| topology.find(a).unwrap().info.faults.join("; ");
    assert_eq!(faults(at(0, 1, 0)), "capability list loops at 0x50");
    assert!(faults(at(0, 3, 0)).contains("buses 0x05 to 0x04"));
    assert!(faults(at(7, 0, 0)).contains("buses 0x07 to 0x07"));
    assert!(faults(at(0, 5, 0)).contains("buses 0x07 to 0x09"));
}

fn one(f: FakeFunction) -> (Machine, proto::bus::PciFunctionInfo) {
    let machine = Machine::with([(at(0, 4, 0), f)]);
    let topology = enumerate(&machine, 0, &[]);
    let info = topology.functions[0].info.clone();
    machine.trace.borrow_mut().clear();
    (machine, info)
}

#[test]
fn programs_vectors_behind_the_function_mask() {
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    let message = Message {
        address: 0xfee0_1000,
        data: 0x4041,
    };
    msix::program(&machine, &machine, &info, &[message]).unwrap();
    assert_eq!(
        machine.get16(at(0, 4, 0), 0x9a),
        msix::ENABLE | msix::FUNCTION_MASK | 4
    );
    let entry = |i: u64| DeviceMemory::read(&machine, 0xfeb0_0000 + i, Width::Dword).unwrap();
    assert_eq!(
        (entry(0), entry(4), entry(8), entry(12)),
        (0xfee0_1000, 0, 0x4041, 0)
    );
    // The other four vectors are masked.
    assert_eq!(entry(16 + 12), 1);
    assert_eq!(entry(4 * 16 + 12), 1);
    msix::set_function(&machine, &info, VectorState::Unmasked).unwrap();
    assert_eq!(machine.get16(at(0, 4, 0), 0x9a), msix::ENABLE | 4);
    assert_eq!(
        msix::program(&machine, &machine, &info, &[message; 6]),
        Err(BusError::BadAccess)
    );
    assert_eq!(
        msix::set_vector(&machine, &info, 5, VectorState::Masked),
        Err(BusError::BadAccess)
    );
}

#[test]
fn without_msix_the_message_goes_into_msi() {
    // 64-bit address, four messages offered; address and data can be written.
    let f = FakeFunction::device(0x1234, 0x11e8, [0, 0xff, 0])
        .capability(0x40, id::MSI, &[0x84, 0])
        .writable_at(0x42, &[0xff; 12]);
    let (machine, info) = one(f);
    assert_eq!((info.msix, info.msi_vectors), (None, 4));
    let address = at(0, 4, 0);
    let sent = Message {
        address: 0xfee0_1000,
        data: 0x4041,
    };
    message::program(&machine, &machine, &info, &[sent]).unwrap();
    assert_eq!(machine.get16(address, 0x42) & (msi::ENABLE | 7 << 4), 0);
    let registers = [0x44, 0x48, 0x4c].map(|offset| machine.read32(address, offset));
    assert_eq!(registers, [0xfee0_1000, 0, 0x4041]);
    let command = machine.get16(address, register::COMMAND);
    assert_ne!(command & command::INTX_DISABLE, 0);
    message::set_function(&machine, &info, VectorState::Unmasked).unwrap();
    assert_eq!(machine.get16(address, 0x42) & msi::ENABLE, msi::ENABLE);
    message::set_vector(&machine, &machine, &info, 0, VectorState::Masked).unwrap();
    assert_eq!(machine.get16(address, 0x42) & msi::ENABLE, 0);
    assert_eq!(
        message::program(&machine, &machine, &info, &[sent; 2]),
        Err(BusError::BadAccess)
    );
    let wide = Message {
        data: 1 << 16,
        ..sent
    };
    assert_eq!(
        message::program(&machine, &machine, &info, &[wide]),
        Err(BusError::NotSupported)
    );
}

#[test]
fn msix_tables_outside_of_their_bar_are_refused() {
    let mut f = FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000);
    f.set32(0x98 + 4, 0xfc1);
    let (_, info) = one(f);
    assert_eq!(info.msix, None);
    assert!(
        info.faults[0].contains("MSI-X table at 0xfc0 of BAR 1"),
        "{:?}",
        info.faults
    );
}

fn run_fence(machine: &Machine, info: &proto::bus::PciFunctionInfo) -> Vec<Result<(), BusError>> {
    [
        FenceStep::MaskInterrupts,
        FenceStep::BusMasterOff,
        FenceStep::Reset,
    ]
    .map(|step| fence::step(machine, machine, machine, info, None, step))
    .to_vec()
}

#[test]
fn the_fence_of_a_virtio_function_holds() {
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    assert_eq!(info.reset, ResetMethod::Virtio);
    start(&machine, at(0, 4, 0));
    DeviceMemory::write(&machine, 0xfe00_0000 + 0x1000 + 20, Width::Byte, 0xf).unwrap();
    assert_eq!(run_fence(&machine, &info), [Ok(()), Ok(()), Ok(())]);
    let off = machine.get16(at(0, 4, 0), register::COMMAND);
    assert_eq!(off & (command::BUS_MASTER | command::MEMORY), 0);
    assert_eq!(machine.get16(at(0, 4, 0), 0x9a) & msix::ENABLE, 0);
    assert_eq!(
        DeviceMemory::read(&machine, 0xfe00_1014, Width::Byte),
        Some(0)
    );
}

#[test]
fn a_device_that_does_not_reset_is_not_fenced() {
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    DeviceMemory::write(&machine, 0xfe00_1014, Width::Byte, 0xf).unwrap();
    machine.stuck.set(true);
    let results = run_fence(&machine, &info);
    assert_eq!(results[..2], [Ok(()), Ok(())]);
    assert!(
        matches!(&results[2], Err(BusError::NotVerified { found: 0xf, .. })),
        "{results:?}"
    );
}

#[test]
fn a_bus_master_bit_that_stays_set_is_not_fenced() {
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    start(&machine, at(0, 4, 0));
    machine
        .functions
        .borrow_mut()
        .get_mut(&at(0, 4, 0))
        .unwrap()
        .writable[4] = 0x03;
    let results = run_fence(&machine, &info);
    assert!(
        matches!(&results[1], Err(BusError::NotVerified { .. })),
        "{results:?}"
    );
}

#[test]
fn function_level_reset_restores_bars() {
    let mut f = FakeFunction::virtio(0xfeb0_0000, 0x8_fe00_0000).capability(
        0xb0,
        id::EXPRESS,
        &[2, 0, 0, 0, 0, 0x10],
    );
    f.on_flr = true;
    let (machine, info) = one(f);
    assert_eq!(info.reset, ResetMethod::FunctionLevel);
    start(&machine, at(0, 4, 0));
    assert_eq!(run_fence(&machine, &info), [Ok(()), Ok(()), Ok(())]);
    assert!(machine.trace.borrow().iter().any(|t| t.contains("(FLR)")));
    assert_eq!(machine.read32(at(0, 4, 0), 0x14), 0xfeb0_0000);
    assert_eq!(machine.read32(at(0, 4, 0), 0x24), 8);
    assert!(machine.now_ms.get() >= 100);
}

#[test]
fn a_function_that_is_gone_is_fenced() {
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    machine.functions.borrow_mut().clear();
    assert_eq!(run_fence(&machine, &info), [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn a_driver_writes_only_what_is_allowed() {
    let f = FakeFunction::device(0x8086, 1, [2, 0, 0])
        .capability(0x60, id::MSIX, &[0; 10])
        .capability(0x50, id::VENDOR, &[0xff]);
    let (machine, info) = one(f);
    let len = |at: u16| machine.read8(at2(), at + 2).into();
    fn at2() -> PciAddress {
        at(0, 4, 0)
    }
    let check = |offset, width| filter::check_write(&info, offset, width, 4096, len);
    assert!(check(register::INTERRUPT_LINE, 1).is_ok());
    assert!(check(0x54, 4).is_ok());
    for offset in [0x04, 0x10, 0x24, 0x34, 0x50, 0x60, 0x64, 0x100] {
        assert_eq!(check(offset, 4), Err(BusError::Protected), "{offset:#x}");
    }
    assert_eq!(check(0x55, 2), Err(BusError::BadAccess));
    assert_eq!(check(0xffff, 4), Err(BusError::BadAccess));
    assert_eq!(
        filter::check_access(4096, 4, 4096),
        Err(BusError::BadAccess)
    );
    let (machine, info) = one(FakeFunction::virtio(0xfeb0_0000, 0xfe00_0000));
    let len = |at: u16| machine.read8(at2(), at + 2).into();
    // virtio's window into BARs.
    assert_eq!(
        filter::check_write(&info, 0x94, 4, 4096, len),
        Err(BusError::Protected)
    );
}

/// Every function everywhere has the same bytes, and writes change nothing or everything.
struct Hostile {
    bytes: Vec<u8>,
    takes_writes: bool,
    written: std::cell::RefCell<std::collections::HashMap<(PciAddress, u16), u8>>,
}

impl ConfigSpace for Hostile {
    fn read(&self, address: PciAddress, offset: u16, width: Width) -> u32 {
        let written = self.written.borrow();
        (0..width.bytes()).rev().fold(0, |value, i| {
            let byte = written
                .get(&(address, offset + i))
                .unwrap_or(&self.bytes[usize::from(offset + i) % self.bytes.len()]);
            value << 8 | u32::from(*byte)
        })
    }
    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32) {
        if self.takes_writes {
            let mut written = self.written.borrow_mut();
            for (i, byte) in value
                .to_le_bytes()
                .iter()
                .take(width.bytes().into())
                .enumerate()
            {
                written.insert((address, offset + i as u16), *byte);
            }
        }
    }
    fn size(&self) -> u16 {
        4096
    }
    fn buses(&self) -> (u8, u8) {
        (0, 7)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_configuration_space_ends_and_stays_inside(
        mut bytes in prop::collection::vec(any::<u8>(), 512),
        header in prop_oneof![Just(0u8), Just(1), Just(0x81), any::<u8>()],
        buses in (0u8..9, 0u8..9),
        takes_writes: bool,
        list in any::<bool>(),
    ) {
        bytes[0x0e] = header;
        if header & 0x7f == 1 { bytes[0x19] = buses.0; bytes[0x1a] = buses.1; }
        if list { bytes[6] |= 0x10; }
        let config = Hostile { bytes, takes_writes, written: Default::default() };
        let mut topology = enumerate(&config, 0, &[3, 9]);
        prop_assert!(topology.functions.len() <= FUNCTIONS_MAX);
        let window = aperture(0xe000_0000, 0x1000_0000);
        let before: Vec<Vec<u64>> = topology.functions.iter()
            .map(|f| f.info.bars.iter().map(|b| b.base).collect()).collect();
        assign(&config, &mut topology, &[window]);
        for (f, before) in topology.functions.iter().zip(before) {
            prop_assert!(f.info.capabilities.len() <= 64 + 1024);
            for (bar, before) in f.info.bars.iter().zip(before) {
                prop_assert!(bar.len.is_power_of_two());
                // What was given out comes from the aperture.
                if bar.base != before && bar.base != 0 && bar.kind != BarKind::Io && f.bridge.is_none() {
                    prop_assert!(bar.base >= window.base && bar.base + bar.len <= window.base + window.len);
                }
            }
            if let Some(msix) = f.info.msix {
                prop_assert!(f.info.bars.iter().any(|b| b.index == msix.table_bar));
            }
        }
    }
}

#[test]
fn an_8254x_is_reset_by_its_own_bit() {
    const BASE: u64 = 0xfe00_0000;
    let function = FakeFunction::device(0x8086, 0x100e, [2, 0, 0]).bar(0, 0x2_0000, 0, BASE);
    let (machine, info) = one(function);
    assert_eq!(info.reset, ResetMethod::Intel8254x);
    start(&machine, at(0, 4, 0));
    // A bit that stays is noticed.
    let results = run_fence(&machine, &info);
    assert_eq!(results[..2], [Ok(()), Ok(())]);
    assert!(
        matches!(
            &results[2],
            Err(BusError::NotVerified {
                found: 0x400_0000,
                ..
            })
        ),
        "{results:?}"
    );
    let trace: Vec<String> = machine.trace.borrow().clone();
    let written: Vec<&str> = trace.iter().map(String::as_str).collect();
    let registers = [
        "[0xfe0000d8] = 0xffffffff",
        "[0xfe000100] = 0x0",
        "[0xfe000400] = 0x0",
        "[0xfe000000] = 0x4000000",
    ];
    let found = written.iter().filter(|line| line.starts_with("[0xfe00"));
    assert_eq!(found.copied().collect::<Vec<_>>(), registers);
    // One that clears itself is a reset; afterwards the function is cut off.
    DeviceMemory::write(&machine, BASE, Width::Dword, 0).unwrap();
    machine.stuck.set(true);
    assert_eq!(run_fence(&machine, &info), [Ok(()), Ok(()), Ok(())]);
    let off = machine.get16(at(0, 4, 0), register::COMMAND);
    assert_eq!(off & (command::BUS_MASTER | command::MEMORY), 0);
}

/// A root port with a slot: PCI Express capability at 0x50.
fn port(slot_capabilities: u32) -> FakeFunction {
    let mut f = FakeFunction::bridge(1, 1)
        .capability(0x50, id::EXPRESS, &[0x42, 0x01])
        .writable_at(0x50 + 0x18, &[0xff, 0x1f]);
    f.set32(0x50 + 0x14, slot_capabilities);
    f
}

#[test]
fn slots_are_those_that_can_change() {
    let machine = Machine::with([
        (at(0, 1, 0), port(0x43)),
        (at(0, 2, 0), FakeFunction::bridge(2, 2)),
    ]);
    let topology = enumerate(&machine, 0, &[]);
    let slots = hotplug::slots(&machine, &topology);
    assert_eq!(slots.len(), 1, "{slots:?}");
    assert_eq!((slots[0].port, slots[0].bus), (at(0, 1, 0), 1));
    let fixed = Machine::with([(at(0, 1, 0), port(0x03))]);
    let topology = enumerate(&fixed, 0, &[]);
    assert_eq!(hotplug::slots(&fixed, &topology), []);
}

#[test]
fn what_a_slot_tells() {
    use hotplug::{Occupied, Power, SlotEvent};
    let machine = Machine::with([(at(0, 1, 0), port(0x43))]);
    let topology = enumerate(&machine, 0, &[]);
    let slot = hotplug::slots(&machine, &topology)[0];
    let look = |status: u16, occupied| {
        let mut functions = machine.functions.borrow_mut();
        let function = functions.get_mut(&at(0, 1, 0)).unwrap();
        function.set16(0x50 + 0x1a, status);
        drop(functions);
        slot.look(&machine, occupied)
    };
    let (present, changed, pressed) = (0x40, 0x08, 0x01);
    let all = present | changed | pressed;
    for (status, occupied, expected) in [
        (all, Occupied::No, Some(SlotEvent::Inserted)),
        (present, Occupied::No, Some(SlotEvent::Inserted)),
        (0, Occupied::No, None),
        (pressed, Occupied::No, None),
        (present, Occupied::Yes, None),
        (
            present | pressed,
            Occupied::Yes,
            Some(SlotEvent::RemovalAsked),
        ),
        (changed, Occupied::Yes, Some(SlotEvent::Removed)),
        (present | changed, Occupied::Yes, Some(SlotEvent::Removed)),
        (0xffff, Occupied::Yes, Some(SlotEvent::Removed)),
        (present, Occupied::Off, None),
        (changed, Occupied::Off, Some(SlotEvent::Removed)),
        (present | pressed, Occupied::Off, Some(SlotEvent::Removed)),
        (0xffff, Occupied::No, None),
    ] {
        assert_eq!(
            look(status, occupied),
            expected,
            "{status:#x}, {occupied:?}"
        );
    }
    slot.arm(&machine);
    slot.set_power(&machine, Power::Off);
    assert_eq!(machine.read16(at(0, 1, 0), 0x50 + 0x18), 0x0729);
    assert!(slot.is_off(&machine));
    slot.set_power(&machine, Power::On);
    assert!(!slot.is_off(&machine));
    assert_eq!(machine.read16(at(0, 1, 0), 0x50 + 0x18), 0x0129);
}

#[test]
fn a_device_that_is_plugged_in_gets_addresses_and_goes_again() {
    let machine = Machine::with([(at(0, 1, 0), port(0x43))]);
    let room = [aperture(0xe000_0000, 0x1000_0000)];
    let mut topology = enumerate(&machine, 0, &[]);
    assign(&machine, &mut topology, &room);
    for round in 0..3 {
        let device = FakeFunction::device(1, 2, [1, 8, 2]).bar(0, 0x4000 << round, 0, 0);
        machine.functions.borrow_mut().insert(at(1, 0, 0), device);
        let added = enumerate::add_bus(&machine, &mut topology, at(0, 1, 0), 1);
        assert_eq!(added, [at(1, 0, 0)]);
        assign(&machine, &mut topology, &room);
        let function = topology.find(at(1, 0, 0)).unwrap();
        assert_eq!(function.bridge, Some(at(0, 1, 0)));
        assert!(function.info.bars[0].base >= 0xe000_0000, "{function:?}");
        assert_eq!(function.info.reset, ResetMethod::SecondaryBus);
        assert!(function.info.faults.is_empty());
        machine.functions.borrow_mut().remove(&at(1, 0, 0));
        let gone = enumerate::remove_bus(&mut topology, at(0, 1, 0));
        assert_eq!(gone, [at(1, 0, 0)]);
        hotplug::slots(&machine, &topology)[0].close_windows(&machine);
        assert_eq!(topology.functions.len(), 1);
    }
}
