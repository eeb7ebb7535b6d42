//! A request that is under way, whatever it is.

use alloc::string::String;
use alloc::vec::Vec;

use control_link::Ending;
use rt::Port;
use rt::proto::proc::ProcessesClient;

use crate::execute::Execution;
use crate::line::Line;
use crate::replace::Replacement;

/// A request.
pub enum Request {
    /// A command line.
    Execution(Execution),
    /// A driver's new program.
    Replacement(Replacement),
}

impl Request {
    /// Takes bytes.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn input(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), String> {
        match self {
            Request::Execution(execution) => execution.input(offset, bytes),
            Request::Replacement(replacement) => replacement.input(offset, &bytes),
        }
    }

    /// There are no more bytes. What comes of it later comes to `port` with `key`.
    ///
    /// # Errors
    /// Why they are of no use, for people.
    pub fn end_input(&mut self, port: &Port, key: u64) -> Result<(), String> {
        match self {
            Request::Execution(execution) => {
                execution.end_input();
                Ok(())
            }
            Request::Replacement(replacement) => replacement.finish(port, key),
        }
    }

    /// More output is wanted.
    pub fn grant(&mut self, bytes: u32) {
        match self {
            Request::Execution(execution) => execution.grant(bytes),
            // It has none.
            Request::Replacement(_) => {}
        }
    }

    /// Nobody wants it any more.
    pub fn cancel(&mut self, processes: Option<&ProcessesClient>) {
        match self {
            Request::Execution(execution) => execution.cancel(processes),
            Request::Replacement(replacement) => replacement.cancel(),
        }
    }

    /// Moves what can be moved. Gives the end when there is one.
    pub fn pump(&mut self, line: &mut Line) -> Option<Ending> {
        match self {
            Request::Execution(execution) => execution.pump(line),
            Request::Replacement(replacement) => replacement.pump(line),
        }
    }
}
