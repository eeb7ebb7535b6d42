//! Which fault is the Nth of a campaign. A fault is a function of driver, class, seed and number, so each can be had again.

use fastrand::Rng;

use super::Class;
use super::mutation::{Code, Patch};

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
    let patched = |patch: Patch, probe: bool| Fault {
        text: match order {
            Order::Restart => format!("{}, from the start", patch.text),
            _ => patch.text.clone(),
        },
        patch: Some(patch),
        order,
        probe,
    };
    match class {
        Class::Code => patched(code.mutate(&mut random), true),
        Class::Hang => patched(code.hang(&mut random), true),
        Class::KillStep => patched(code.stop(&mut random), false),
        Class::Kill | Class::KillRecovery => {
            let times = match class {
                Class::Kill => 1,
                _ => random.u64(2..5),
            };
            Fault {
                text: format!("killed {times} times"),
                patch: None,
                order: Order::Kill(times),
                probe: false,
            }
        }
    }
}
