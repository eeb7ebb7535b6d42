//! Whether a process still answers.
//!
//! Pure: time comes in as a number of milliseconds of the caller's clock.

/// How often a process is asked, and how long it may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rhythm {
    /// Time between an answer and the next ping.
    pub pause_ms: u64,
    /// A process that does not answer a ping for this long hangs.
    pub silence_ms: u64,
}

/// Every 2 s, 10 s of silence.
pub const DEFAULT_RHYTHM: Rhythm = Rhythm {
    pause_ms: 2_000,
    silence_ms: 10_000,
};

/// Changes a rhythm by a word of the form `heartbeat-ms=2000` or `silence-ms=10000`. `false` for any other word.
pub fn change(rhythm: &mut Rhythm, word: &str) -> bool {
    let Some((name, Ok(value))) = word
        .split_once('=')
        .map(|(name, value)| (name, value.parse()))
    else {
        return false;
    };
    match name {
        "heartbeat-ms" => rhythm.pause_ms = value,
        "silence-ms" => rhythm.silence_ms = value,
        _ => return false,
    }
    true
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pulse {
    /// Nothing is due.
    Wait,
    /// Send the ping of this number.
    Ping(u32),
    /// It did not answer: it hangs.
    Silent,
}

/// The heartbeats of one incarnation.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    rhythm: Rhythm,
    beat: u32,
    awaited: bool,
    next_ms: u64,
}

impl Heartbeat {
    /// Of a process that is in service from now on: the first ping is due after a pause.
    pub fn new(rhythm: Rhythm, now_ms: u64) -> Heartbeat {
        Heartbeat {
            rhythm,
            beat: 0,
            awaited: false,
            next_ms: now_ms.saturating_add(rhythm.pause_ms),
        }
    }

    /// When [`Heartbeat::tick`] has something to do next.
    pub const fn due_ms(&self) -> u64 {
        self.next_ms
    }

    /// Looks what is due.
    pub fn tick(&mut self, now_ms: u64) -> Pulse {
        if now_ms < self.next_ms {
            return Pulse::Wait;
        }
        if self.awaited {
            return Pulse::Silent;
        }
        self.beat = self.beat.wrapping_add(1);
        self.awaited = true;
        self.next_ms = now_ms.saturating_add(self.rhythm.silence_ms);
        Pulse::Ping(self.beat)
    }

    /// An answer came; one to an older ping does not count.
    pub fn answered(&mut self, beat: u32, now_ms: u64) {
        if self.awaited && beat == self.beat {
            self.awaited = false;
            self.next_ms = now_ms.saturating_add(self.rhythm.pause_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm = Rhythm {
        pause_ms: 10,
        silence_ms: 50,
    };

    #[test]
    fn one_that_answers_is_asked_again_after_a_pause() {
        let mut heartbeat = Heartbeat::new(RHYTHM, 100);
        assert_eq!(heartbeat.tick(109), Pulse::Wait);
        assert_eq!(heartbeat.tick(110), Pulse::Ping(1));
        heartbeat.answered(1, 120);
        assert_eq!(heartbeat.due_ms(), 130);
        assert_eq!(heartbeat.tick(130), Pulse::Ping(2));
    }

    #[test]
    fn words_change_a_rhythm() {
        let mut rhythm = RHYTHM;
        assert!(change(&mut rhythm, "heartbeat-ms=7") && change(&mut rhythm, "silence-ms=8"));
        assert_eq!((rhythm.pause_ms, rhythm.silence_ms), (7, 8));
        assert!(!change(&mut rhythm, "silence-ms=x") && !change(&mut rhythm, "budget=1"));
    }

    #[test]
    fn silence_is_noticed_and_late_answers_do_not_help() {
        let mut heartbeat = Heartbeat::new(RHYTHM, 0);
        assert_eq!(heartbeat.tick(10), Pulse::Ping(1));
        heartbeat.answered(0, 20);
        heartbeat.answered(2, 20);
        assert_eq!(heartbeat.tick(59), Pulse::Wait);
        assert_eq!(heartbeat.tick(60), Pulse::Silent);
    }
}
