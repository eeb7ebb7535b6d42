//! The bad wire that an administrator may put between a network driver and its clients: what it does to frames, and how that is
//! written. What carries it out is `ddk-wire-net`.

use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// What becomes of frames of one direction, in per cent of them; at most 100 together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// They are not delivered.
    pub loss: u8,
    /// They are delivered twice.
    pub duplicate: u8,
    /// They are delivered after some that follow them.
    pub reorder: u8,
    /// A bit of them is another one.
    pub corrupt: u8,
}

impl Rates {
    /// Frames with any fault, in per cent.
    pub fn sum(&self) -> u32 {
        [self.loss, self.duplicate, self.reorder, self.corrupt]
            .map(u32::from)
            .iter()
            .sum()
    }
}

/// A wire with its faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Wire {
    /// Of frames to this system.
    pub receive: Rates,
    /// Of frames from it.
    pub transmit: Rates,
    /// Where chance begins.
    pub seed: u32,
}

/// How a wire is written.
pub const SYNTAX: &str = "off, or FAULT:PERCENT,... of loss, duplicate, reorder, corrupt (rx-FAULT or tx-FAULT for one direction) and seed:N";

impl Wire {
    /// Reads what [`SYNTAX`] shows; `None` for `off`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(text: &str) -> Result<Option<Wire>, String> {
        if text == "off" {
            return Ok(None);
        }
        let mut wire = Wire::default();
        for word in text.split(',') {
            wire.set(word)
                .ok_or_else(|| format!("{word:?}: a wire is {SYNTAX}"))?;
        }
        for (way, rates) in [("rx", wire.receive), ("tx", wire.transmit)] {
            if rates.sum() > 100 {
                let sum = rates.sum();
                return Err(format!(
                    "{text:?}: {sum} per cent of the frames of {way}, there are 100"
                ));
            }
        }
        Ok(Some(wire))
    }

    fn set(&mut self, word: &str) -> Option<()> {
        let (name, number) = word.split_once(':')?;
        if name == "seed" {
            self.seed = number.parse().ok()?;
            return Some(());
        }
        let (fault, ways) = match name.split_once('-') {
            Some(("rx", fault)) => (fault, [Some(&mut self.receive), None]),
            Some(("tx", fault)) => (fault, [None, Some(&mut self.transmit)]),
            Some(_) => return None,
            None => (name, [Some(&mut self.receive), Some(&mut self.transmit)]),
        };
        let percent = number.parse().ok()?;
        for rates in ways.into_iter().flatten() {
            *match fault {
                "loss" => &mut rates.loss,
                "duplicate" => &mut rates.duplicate,
                "reorder" => &mut rates.reorder,
                "corrupt" => &mut rates.corrupt,
                _ => return None,
            } = percent;
        }
        Some(())
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = |rates: &Rates| {
            [
                ("loss", rates.loss),
                ("duplicate", rates.duplicate),
                ("reorder", rates.reorder),
                ("corrupt", rates.corrupt),
            ]
        };
        for ((name, receive), (_, transmit)) in faults(&self.receive)
            .into_iter()
            .zip(faults(&self.transmit))
        {
            if receive == transmit {
                if receive > 0 {
                    write!(f, "{name}:{receive},")?;
                }
                continue;
            }
            for (way, percent) in [("rx", receive), ("tx", transmit)] {
                if percent > 0 {
                    write!(f, "{way}-{name}:{percent},")?;
                }
            }
        }
        write!(f, "seed:{}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "seed:0",
            "loss:5,duplicate:2,reorder:3,seed:7",
            "rx-loss:20,tx-loss:1,corrupt:5,seed:4294967295",
            "tx-reorder:100,seed:1",
        ] {
            let wire = Wire::parse(text).unwrap().unwrap();
            assert_eq!(wire.to_string(), text);
        }
        assert_eq!(Wire::parse("off"), Ok(None));
        let wire = Wire::parse("loss:5,rx-loss:1").unwrap().unwrap();
        assert_eq!((wire.receive.loss, wire.transmit.loss), (1, 5));
    }

    #[test]
    fn what_is_no_wire() {
        for text in [
            "",
            "on",
            "loss",
            "loss:",
            "loss:x",
            "loss:256",
            "lost:1",
            "up-loss:1",
            "loss:5,",
            "loss:60,corrupt:41",
            "rx-loss:101",
            "seed:-1",
        ] {
            assert!(Wire::parse(text).is_err(), "{text:?}");
        }
    }
}
