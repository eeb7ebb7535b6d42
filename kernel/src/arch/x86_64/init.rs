//! The second part of the start, when frames and heap are available: firmware
//! tables, interrupt controllers, clock.

use core::fmt::Write;

use boot::info::BootInfo;

use super::acpi::{self, Fadt, MadtEntry};
use super::boot::{Log, boot_info, physical_memory};
use super::features::cpu_features;
use super::port::out8;
use super::{apic, cpu, io_apic, smp, time, vtd};

/// Where the local APIC is if no MADT says otherwise.
const LOCAL_APIC: u64 = 0xfee0_0000;

/// Calls `f(signature, physical address, length)` for every valid ACPI table: the
/// root pointer (as `RSD `), the root tables, what they list, DSDT and FACS.
pub fn acpi_tables(mut f: impl FnMut([u8; 4], u64, usize)) {
    for_each_table(|table| f(table.signature, table.address, table.bytes.len()));
}

fn for_each_table(f: impl FnMut(acpi::Table<'static>)) {
    let read = |address, len| physical_memory(address, len);
    if let Some(root) = acpi::find_root(boot_info().rsdp, &read) {
        acpi::for_each_table(root, &read, f);
    }
}

/// Takes over interrupt controllers and clock, and gives the boot processor its
/// stacks. Panics if memory runs out: there is no system without.
pub fn init(info: &'static BootInfo) {
    let mut local_apic = LOCAL_APIC;
    let mut hpet = None;
    let mut fadt = Fadt::default();
    let mut dmar: &[u8] = &[];
    for_each_table(|table| match &table.signature {
        b"APIC" => {
            for entry in acpi::madt_entries(table.bytes) {
                match entry {
                    MadtEntry::LocalApic { address } => local_apic = address,
                    MadtEntry::Cpu { apic_id } => smp::add_processor(apic_id),
                    MadtEntry::IoApic { address, gsi_base } => {
                        let added = io_apic::add_controller(address, gsi_base);
                        assert!(added.is_ok(), "no memory for an I/O APIC");
                    }
                    MadtEntry::Override { irq, gsi, flags } => {
                        io_apic::add_override(irq, gsi, flags)
                    }
                }
            }
        }
        b"HPET" => hpet = acpi::hpet_address(table.bytes),
        b"DMAR" => dmar = table.bytes,
        b"FACP" => fadt = acpi::fadt(table.bytes),
        _ => {}
    });
    mask_old_controllers();
    assert!(
        apic::init(local_apic).is_ok(),
        "no memory for the local APIC"
    );
    apic::enable();
    let Ok(stack) = smp::allocate_stacks(cpu::this()) else {
        panic!("no memory for stacks")
    };
    cpu::this().kernel_stack.set(stack);
    let calibration = time::calibrate(hpet, &fadt);
    log_processor();
    // Writing to the serial port cannot fail.
    let _ = writeln!(
        Log,
        "clock: {} Hz{}, APIC timer {} Hz, measured with the {}",
        time::clock_parameters().tsc_hz,
        if cpu_features().invariant_tsc {
            ""
        } else {
            " (not declared invariant)"
        },
        calibration.apic_timer_hz,
        calibration.reference
    );
    let is_off = |word| word == "iommu=off";
    if !info.command_line.split_whitespace().any(is_off) {
        vtd::init(dmar);
    }
}

/// What protects and speeds up the kernel on this processor.
fn log_processor() {
    let features = cpu_features();
    let _ = write!(Log, "processor: {}", features.vendor());
    let list = [
        (features.smep, "SMEP"),
        (features.smap, "SMAP"),
        (features.umip, "UMIP"),
        (features.fsgsbase, "FSGSBASE"),
        (features.pcid, "PCID"),
        (features.x2apic, "x2APIC"),
        (features.tsc_deadline, "TSC-deadline"),
        (features.xsave, "XSAVE"),
    ];
    for (_, name) in list.iter().filter(|(has, _)| *has) {
        let _ = write!(Log, " {name}");
    }
    let _ = writeln!(Log);
}

/// Moves the 8259s' vectors away from the exceptions and masks everything (Intel
/// 8259A data sheet). Their spurious interrupts end at vectors that are ignored.
fn mask_old_controllers() {
    let sequence = [(0, 0x11), (1, 0x20), (1, 0x04), (1, 0x01), (1, 0xff)];
    let second = [(0, 0x11), (1, 0x28), (1, 0x02), (1, 0x01), (1, 0xff)];
    for (base, sequence) in [(0x20, sequence), (0xa0, second)] {
        for (offset, value) in sequence {
            // SAFETY: the controllers are the kernel's; they do not touch memory.
            unsafe { out8(base + offset, value) };
        }
    }
}
