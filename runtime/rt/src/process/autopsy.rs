//! The report of a process that is over, for whoever watched it.

use alloc::string::ToString;
use alloc::vec::Vec;

use crash_report::{EndReason, Report, Subject};

use super::child::{ExitReason, Exited};
use crate::symbols::{self, Symbols};

/// Vector of the exception with which a panic ends (Intel SDM volume 3, table 6-1: invalid opcode).
const INVALID_OPCODE: u32 = 6;

impl Exited {
    /// The reason code of this end, as far as the kernel knows.
    pub fn end_reason(&self) -> EndReason {
        match (self.reason, &self.crash) {
            (ExitReason::Exited(_) | ExitReason::NoThreads, _) => EndReason::Exited,
            (ExitReason::Killed(_), _) => EndReason::Killed,
            (ExitReason::Faulted, Some(crash)) if crash.vector == INVALID_OPCODE => {
                EndReason::Panicked
            }
            (ExitReason::Faulted, _) => EndReason::Faulted,
        }
    }

    /// A report with what the kernel recorded. For a fault `program` gives the program's file, which has the symbols.
    pub fn report(&self, mut subject: Subject, program: impl FnOnce() -> Vec<u8>) -> Report {
        subject.pid = self.info.koid;
        let reason = self.end_reason();
        let Some(crash) = &self.crash else {
            let text = self.to_string();
            return Report::new(subject, sys::Instant::now().as_ns(), reason, &text);
        };
        let program = program();
        let crc32 = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
        subject.crc32 = Some(crc32.checksum(&program));
        let symbols = Symbols::parse(&program);
        let text = symbols::crash_text(crash, &symbols);
        Report {
            fault: Some(symbols::fault(crash, &symbols)),
            ..Report::new(subject, crash.time_ns, reason, &text)
        }
    }
}
