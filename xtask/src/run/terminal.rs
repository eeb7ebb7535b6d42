//! The terminal's raw mode while a guest has it.

use std::io;

use anyhow::Context;
use rustix::stdio::stdin;
use rustix::termios::{self, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// Raw input until this is dropped. Output stays as it is, so that a line feed
/// of the guest starts a new line.
pub(super) struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    /// Does nothing when standard input is not a terminal.
    pub(super) fn enter() -> anyhow::Result<Self> {
        if !io::IsTerminal::is_terminal(&io::stdin()) {
            return Ok(Self { before: None });
        }
        let before = termios::tcgetattr(stdin()).context("the terminal's mode")?;
        let mut raw = before.clone();
        raw.local_modes -=
            LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::IXON
            | InputModes::ICRNL
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ISTRIP
            | InputModes::BRKINT;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw).context("the terminal's mode")?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nobody to tell.
            let _ = termios::tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
