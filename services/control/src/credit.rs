//! Credit: how many bytes of a request may be under way.

use control_link::{CREDIT_BYTES, DATA_BYTES_MAX};

/// Bytes that the other side allows to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    granted: u32,
}

impl Sending {
    /// With what was granted at the start.
    pub fn new(granted: u32) -> Sending {
        Sending {
            granted: granted.min(CREDIT_BYTES),
        }
    }

    /// More is allowed; never more than a whole grant at a time.
    pub fn grant(&mut self, bytes: u32) {
        self.granted = self.granted.saturating_add(bytes).min(CREDIT_BYTES);
    }

    /// How many of `bytes` go into the next message.
    pub fn next(&self, bytes: usize) -> usize {
        let granted = usize::try_from(self.granted).unwrap_or(usize::MAX);
        bytes.min(granted).min(DATA_BYTES_MAX)
    }

    /// So many were sent.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.granted = self.granted.saturating_sub(bytes);
    }

    /// Whether nothing may be sent now.
    pub fn is_used_up(&self) -> bool {
        self.granted == 0
    }
}

/// Why bytes are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More than was granted.
    NotGranted,
    /// Bytes in between are missing, or come again.
    Offset {
        /// Where the next bytes belong.
        expected: u64,
        /// Where these say they do.
        seen: u64,
    },
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refused::NotGranted => f.write_str("more bytes were sent than were granted"),
            Refused::Offset { expected, seen } => {
                write!(
                    f,
                    "bytes from {seen} on were sent, expected from {expected} on"
                )
            }
        }
    }
}

/// Bytes that the other side may send to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiving {
    granted: u32,
    received: u64,
    /// Used up here, and not granted again yet.
    used: u32,
}

impl Default for Receiving {
    fn default() -> Receiving {
        Receiving::new()
    }
}

impl Receiving {
    /// A whole grant, which the caller tells the other side.
    pub fn new() -> Receiving {
        Receiving {
            granted: CREDIT_BYTES,
            received: 0,
            used: 0,
        }
    }

    /// Takes `len` bytes that say they come after `offset` others.
    ///
    /// # Errors
    /// When they are not what has to come next.
    pub fn take(&mut self, offset: u64, len: usize) -> Result<(), Refused> {
        if offset != self.received {
            return Err(Refused::Offset {
                expected: self.received,
                seen: offset,
            });
        }
        let granted = u32::try_from(len)
            .ok()
            .and_then(|len| self.granted.checked_sub(len));
        self.granted = granted.ok_or(Refused::NotGranted)?;
        self.received = self.received.saturating_add(len as u64);
        Ok(())
    }

    /// Bytes that were taken so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// `len` bytes were used up. What to grant now, when it is worth a message.
    pub fn used(&mut self, len: usize) -> Option<u32> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.used = self.used.saturating_add(len);
        if self.used < CREDIT_BYTES / 4 {
            return None;
        }
        let grant = core::mem::take(&mut self.used);
        self.granted = self.granted.saturating_add(grant);
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_sent_than_was_granted() {
        let mut sending = Sending::new(10);
        assert_eq!(sending.next(100), 10);
        sending.sent(10);
        assert!(sending.is_used_up());
        assert_eq!(sending.next(100), 0);
        sending.grant(u32::MAX);
        assert_eq!(sending.next(usize::MAX), DATA_BYTES_MAX);
        for _ in 0..CREDIT_BYTES as usize / DATA_BYTES_MAX {
            sending.sent(DATA_BYTES_MAX);
        }
        assert!(sending.is_used_up());
    }

    #[test]
    fn what_is_used_up_is_granted_again_in_large_steps() {
        let mut receiving = Receiving::new();
        let step = 1000;
        let (mut sent, mut credit) = (0u64, u64::from(CREDIT_BYTES));
        for _ in 0..10_000 {
            assert!(credit >= step, "stuck after {sent} bytes");
            receiving.take(sent, step as usize).unwrap();
            sent += step;
            credit -= step;
            if let Some(grant) = receiving.used(step as usize) {
                assert!(grant >= CREDIT_BYTES / 4);
                credit += u64::from(grant);
            }
        }
        assert_eq!(receiving.received(), sent);
    }

    #[test]
    fn what_does_not_come_next_is_refused() {
        let mut receiving = Receiving::new();
        receiving.take(0, 5).unwrap();
        let seen = receiving.take(4, 1);
        assert_eq!(
            seen,
            Err(Refused::Offset {
                expected: 5,
                seen: 4
            })
        );
        let seen = receiving.take(5, CREDIT_BYTES as usize);
        assert_eq!(seen, Err(Refused::NotGranted));
    }
}
