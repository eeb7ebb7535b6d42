//! Processes as `ps`, `top` and `kill` see them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::proc::{ProcessState, ProcessSummary, ProcessesClient};
use unix::{Stop, Tool};

use crate::service;

/// All processes, in the order of their IDs.
pub fn list(tool: &mut Tool, client: &ProcessesClient) -> Result<Vec<ProcessSummary>, Stop> {
    /// As many as fit a message with long names.
    const BATCH: u32 = 256;
    let mut all: Vec<ProcessSummary> = Vec::new();
    loop {
        let after = all.last().map_or(0, |p| p.pid);
        let batch = service::answer(tool, "cannot list processes", client.list(after, BATCH))?;
        // A server that does not get on must not be asked for ever.
        if batch.last().is_none_or(|last| last.pid <= after) {
            return Ok(all);
        }
        all.extend(batch);
    }
}

/// The letter of `ps`.
pub const fn state_letter(state: ProcessState) -> char {
    match state {
        ProcessState::Running => 'R',
        ProcessState::Blocked => 'S',
        ProcessState::Suspended => 'T',
        ProcessState::Ended => 'Z',
    }
}

/// CPU time as `ps` shows it: `HH:MM:SS`.
pub fn cpu_time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Processes that an operand of `kill` means: a number, or every process of a name.
pub fn matching(processes: &[ProcessSummary], operand: &str) -> Vec<u64> {
    match operand.parse() {
        Ok(pid) => alloc::vec![pid],
        Err(_) => processes
            .iter()
            .filter(|p| p.name == operand && p.state != ProcessState::Ended)
            .map(|p| p.pid)
            .collect(),
    }
}
