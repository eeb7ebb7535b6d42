//! Which fault is the Nth of a campaign. A fault is a function of driver, class, seed and number, so each can be had again.

use fastrand::Rng;

use super::Class;
use super::mutation::{Code, Patch, Where};

/// What the guest is asked to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Watch the driver, which serves.
    Watch,
    /// Restart the driver, so that it has the fault from its start.
    Restart,
    /// Kill it, so many times.
    Kill(u64),
}

/// A fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is, for reports.
    pub text: String,
    /// Bytes of the driver's program that become others.
    pub patch: Option<Patch>,
    /// Kind, parameter and seed for a driver with faults built in (`ddk-instrument`, `Plan`).
    pub plan: Option<[u64; 3]>,
    /// What the guest does.
    pub order: Order,
    /// Whether it can be asked afterwards if the place was reached: by a trap there.
    pub probe: bool,
}

/// Fault `number` of a class.
pub fn fault(class: Class, code: &Code, seed: u64, number: u64) -> Fault {
    let mut random =
        Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number ^ (class as u64) << 48);
    // Some code runs only when a driver starts.
    let order = if random.u8(..4) == 0 {
        Order::Restart
    } else {
        Order::Watch
    };
    // A fifth of the faults lies anywhere, the others where the driver comes along.
    let place = match order {
        _ if random.u8(..5) == 0 => Where::Anywhere,
        Order::Restart => Where::Rare,
        _ => Where::Often,
    };
    let patched = |patch: Patch, probe: bool| Fault {
        text: match order {
            Order::Restart => format!("{}, from the start", patch.text),
            _ => patch.text.clone(),
        },
        patch: Some(patch),
        plan: None,
        order,
        probe,
    };
    match class {
        Class::Code => patched(code.mutate(place, &mut random), true),
        Class::Hang => patched(code.hang(place, &mut random), true),
        Class::KillStep => patched(code.stop(place, &mut random), false),
        Class::Kill | Class::KillRecovery | Class::Services => {
            let times = match class {
                Class::KillRecovery => random.u64(2..5),
                // `services` is a campaign of its own, not one of trials.
                _ => 1,
            };
            Fault {
                text: format!("killed {times} times"),
                patch: None,
                plan: None,
                order: Order::Kill(times),
                probe: false,
            }
        }
        Class::Mmio
        | Class::Dma
        | Class::Astray
        | Class::Interrupt
        | Class::Ipc
        | Class::Oom
        | Class::Grant => built_in(class, &mut random),
    }
}

/// A fault of a driver that has them built in. The kinds are those of `ddk-instrument`, `live.rs`, and of `ddk-backend-os`,
/// `faults.rs`.
fn built_in(class: Class, random: &mut Rng) -> Fault {
    // Registers are read when a driver starts, memory to share is wanted then.
    let restarts_of_four = match class {
        Class::Mmio | Class::Oom => 3,
        _ => 1,
    };
    let order = if random.u8(..4) < restarts_of_four {
        Order::Restart
    } else {
        Order::Watch
    };
    let seed = random.u64(..);
    let (text, kind, parameter, seed) = match class {
        Class::Mmio => match random.u8(..4) {
            0 => (
                "registers: bits inverted, one read in",
                1,
                random.u64(1..50),
                seed,
            ),
            1 => {
                let value = [0, u64::MAX, seed][random.usize(..3)];
                (
                    "registers: another answer, one read in",
                    2,
                    random.u64(1..50),
                    value,
                )
            }
            2 => ("the device is gone from access", 3, random.u64(..40), seed),
            _ => (
                "registers: each access takes nanoseconds",
                11,
                1 << random.u64(10..30),
                seed,
            ),
        },
        Class::Dma => (
            "shared memory: a bit inverted, one load in",
            4,
            random.u64(1..300),
            seed,
        ),
        Class::Astray => (
            "device addresses outside of the grant, one in",
            12,
            random.u64(1..300),
            seed,
        ),
        Class::Interrupt => match random.u8(..3) {
            0 => ("interrupts lost, one in", 5, random.u64(1..20), seed),
            1 => (
                "an interrupt that nobody raised, one wait in",
                6,
                random.u64(1..10),
                seed,
            ),
            _ => ("a storm of interrupts", 7, 1 << random.u64(4..20), seed),
        },
        Class::Ipc => (
            "rubbish to manager and bus, messages",
            110,
            random.u64(1..64),
            seed,
        ),
        Class::Oom => match random.u8(..4) {
            0 => ("all memory eaten", 100, 0, seed),
            1 => ("all handles eaten", 101, 0, seed),
            _ => ("the system refuses, one wish in", 8, random.u64(1..6), seed),
        },
        _ => ("attempts beyond the grants", 120, 0, seed),
    };
    let from = match order {
        Order::Restart => ", from the start",
        _ => "",
    };
    Fault {
        text: format!("{text} {parameter}{from}"),
        patch: None,
        plan: Some([kind, parameter, seed]),
        order,
        probe: false,
    }
}
