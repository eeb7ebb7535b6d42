//! What the processor can do, from CPUID (SDM volume 2A, CPUID).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// The boot processor's features; the others are taken to be equal.
#[derive(Clone, Copy, Debug)]
pub struct CpuFeatures {
    vendor: [u8; 12],
    brand: [u8; 48],
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// User-mode instruction prevention.
    pub umip: bool,
    /// Instructions for the FS and GS bases.
    pub fsgsbase: bool,
    /// Process-context identifiers.
    pub pcid: bool,
    /// The x2APIC mode of the local APIC.
    pub x2apic: bool,
    /// The local APIC's timer takes a deadline in cycles.
    pub tsc_deadline: bool,
    /// 1 GiB pages.
    pub gigabyte_pages: bool,
    /// The cycle counter runs at one rate in all power states.
    pub invariant_tsc: bool,
    /// The cycle counter's rate if CPUID tells it, in Hz.
    pub tsc_hz: Option<u64>,
    /// XSAVE and its relatives.
    pub xsave: bool,
    /// XSAVEOPT.
    pub xsaveopt: bool,
    /// The parts of the state that XSAVE can handle (XCR0's bits).
    pub xsave_components: u64,
}

impl CpuFeatures {
    /// The maker, such as `GenuineIntel`.
    pub fn vendor(&self) -> &str {
        text(&self.vendor)
    }

    /// The product's name, or an empty string.
    pub fn brand(&self) -> &str {
        text(&self.brand)
    }
}

fn text(bytes: &[u8]) -> &str {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    core::str::from_utf8(bytes.get(..end).unwrap_or(&[]))
        .unwrap_or("")
        .trim()
}

struct Storage(core::cell::UnsafeCell<CpuFeatures>);
// SAFETY: written once by `detect`, on the boot processor before there are others.
unsafe impl Sync for Storage {}

static FEATURES: Storage = Storage(core::cell::UnsafeCell::new(CpuFeatures {
    vendor: [0; 12],
    brand: [0; 48],
    smep: false,
    smap: false,
    umip: false,
    fsgsbase: false,
    pcid: false,
    x2apic: false,
    tsc_deadline: false,
    gigabyte_pages: false,
    invariant_tsc: false,
    tsc_hz: None,
    xsave: false,
    xsaveopt: false,
    xsave_components: 0,
}));
static DETECTED: AtomicBool = AtomicBool::new(false);

/// The features of this machine's processors.
#[inline]
pub fn cpu_features() -> &'static CpuFeatures {
    // SAFETY: after `detect`, which runs before anything that calls this, nobody
    // writes.
    unsafe { &*FEATURES.0.get() }
}

/// CPUID's eax, ebx, ecx, edx.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: every 64-bit processor has CPUID; it changes only these registers.
    // LLVM keeps rbx for itself, so that it is swapped back.
    unsafe {
        asm!("mov {0}, rbx", "cpuid", "xchg {0}, rbx", out(reg) ebx,
            inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx,
            options(nomem, nostack, preserves_flags));
    }
    [eax, ebx as u32, ecx, edx]
}

/// Fills [`cpu_features`]. Called once, first of all, on the boot processor.
pub fn detect() {
    if DETECTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let max = cpuid(0, 0)[0];
    let max_extended = cpuid(0x8000_0000, 0)[0];
    let leaf = |leaf, subleaf| {
        if leaf <= max {
            cpuid(leaf, subleaf)
        } else {
            [0; 4]
        }
    };
    let extended = |leaf| {
        if leaf <= max_extended {
            cpuid(leaf, 0)
        } else {
            [0; 4]
        }
    };
    let bit = |register: u32, bit: u32| register & 1 << bit != 0;

    let mut vendor = [0; 12];
    let [_, ebx, ecx, edx] = cpuid(0, 0);
    for (part, word) in vendor.chunks_exact_mut(4).zip([ebx, edx, ecx]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    let mut brand = [0; 48];
    let words = (0x8000_0002..=0x8000_0004).flat_map(extended);
    for (part, word) in brand.chunks_exact_mut(4).zip(words) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    let [_, _, ecx1, _] = leaf(1, 0);
    let [_, ebx7, ecx7, _] = leaf(7, 0);
    let xsave = bit(ecx1, 26);
    let components = leaf(0xd, 0);
    // Leaf 0x15: crystal in Hz, and the counter's ratio to it.
    let [denominator, numerator, crystal, _] = leaf(0x15, 0);
    let tsc_hz = (u64::from(crystal) * u64::from(numerator)).checked_div(denominator.into());
    let features = CpuFeatures {
        vendor,
        brand,
        smep: bit(ebx7, 7),
        smap: bit(ebx7, 20),
        umip: bit(ecx7, 2),
        fsgsbase: bit(ebx7, 0),
        pcid: bit(ecx1, 17),
        x2apic: bit(ecx1, 21),
        tsc_deadline: bit(ecx1, 24),
        gigabyte_pages: bit(extended(0x8000_0001)[3], 26),
        invariant_tsc: bit(extended(0x8000_0007)[3], 8),
        tsc_hz: tsc_hz.filter(|&hz| hz != 0),
        xsave,
        xsaveopt: xsave && bit(leaf(0xd, 1)[0], 0),
        xsave_components: if xsave {
            u64::from(components[3]) << 32 | u64::from(components[0])
        } else {
            0
        },
    };
    // SAFETY: the only write, before other processors run and before any reader.
    unsafe { *FEATURES.0.get() = features };
}
