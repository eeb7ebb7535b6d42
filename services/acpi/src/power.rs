//! The register writes that switch a machine off or reset it (ACPI 6.5, 4.8.3.2.1 and 4.8.3.6).

use alloc::vec::Vec;

use crate::tables::{Fadt, Register};

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write a byte.
    Write8(Register, u8),
    /// Keep the bits of `keep`, set those of `set`, in a 16-bit register.
    Change16 {
        /// The register.
        register: Register,
        /// Bits that stay as they are.
        keep: u16,
        /// Bits that are set.
        set: u16,
    },
    /// Wait until bit 0 (SCI_EN) of a 16-bit register is set, for three seconds at most.
    WaitEnabled(Register),
    /// Let that many milliseconds pass.
    Pause(u32),
}

const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// All bits but sleep type and sleep enable.
const PM1_KEEP: u16 = !(7 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);

/// Switches off with the sleep types of `\_S5`.
pub fn off(fadt: &Fadt, types: (u8, u8)) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some(register) = fadt.sleep_control {
        // Hardware-reduced: type in bits 2 to 4, enable in bit 5.
        actions.push(Action::Write8(register, (types.0 & 7) << 2 | 1 << 5));
        return actions;
    }
    if let (Some((port, value)), Some(control)) = (fadt.enable, fadt.pm1a_control) {
        actions.push(Action::Write8(Register::Port(port), value));
        actions.push(Action::WaitEnabled(control));
    }
    let controls = [(fadt.pm1a_control, types.0), (fadt.pm1b_control, types.1)];
    // The type is written first and the enable bit after it, to both blocks.
    for enable in [0, SLEEP_ENABLE] {
        for (register, kind) in controls {
            if let Some(register) = register {
                actions.push(Action::Change16 {
                    register,
                    keep: PM1_KEEP,
                    set: u16::from(kind & 7) << SLEEP_TYPE_SHIFT | enable,
                });
            }
        }
    }
    actions
}

/// Resets: by the reset register, then by port 0xcf9 (ICH reset control), then by the keyboard controller.
pub fn reset(fadt: Option<&Fadt>) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some((register, value)) = fadt.and_then(|f| f.reset) {
        actions.push(Action::Write8(register, value));
        actions.push(Action::Pause(50));
    }
    actions.extend([
        Action::Write8(Register::Port(0xcf9), 2),
        Action::Write8(Register::Port(0xcf9), 6),
        Action::Pause(50),
        Action::Write8(Register::Port(0x64), 0xfe),
        Action::Pause(50),
    ]);
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_on_q35() {
        let fadt = Fadt {
            enable: Some((0xb2, 2)),
            pm1a_control: Some(Register::Port(0x604)),
            ..Fadt::default()
        };
        let control = Register::Port(0x604);
        let change = |set| Action::Change16 {
            register: control,
            keep: 0xc3ff,
            set,
        };
        assert_eq!(
            off(&fadt, (0, 0)),
            [
                Action::Write8(Register::Port(0xb2), 2),
                Action::WaitEnabled(control),
                change(0),
                change(1 << 13),
            ]
        );
        assert!(off(&fadt, (5, 0)).contains(&change(5 << 10 | 1 << 13)));
    }

    #[test]
    fn both_blocks_get_the_type_before_the_enable_bit() {
        let fadt = Fadt {
            pm1a_control: Some(Register::Port(1)),
            pm1b_control: Some(Register::Port(2)),
            ..Fadt::default()
        };
        let order: Vec<_> = off(&fadt, (1, 2))
            .into_iter()
            .map(|a| match a {
                Action::Change16 { register, set, .. } => (register, set),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            order,
            [
                (Register::Port(1), 0x400),
                (Register::Port(2), 0x800),
                (Register::Port(1), 0x2400),
                (Register::Port(2), 0x2800)
            ]
        );
    }

    #[test]
    fn reduced_hardware_and_reset() {
        let fadt = Fadt {
            sleep_control: Some(Register::Memory(0x1000)),
            reset: Some((Register::Port(0xcf9), 0xf)),
            ..Fadt::default()
        };
        assert_eq!(
            off(&fadt, (5, 0)),
            [Action::Write8(Register::Memory(0x1000), 0x34)]
        );
        assert_eq!(
            reset(Some(&fadt))[0],
            Action::Write8(Register::Port(0xcf9), 0xf)
        );
        assert_eq!(reset(None).last(), Some(&Action::Pause(50)));
    }
}
