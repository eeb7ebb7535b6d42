//! Reason codes: why a process is no more.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Why an incarnation of a driver or service ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// It ended by itself, which nobody had asked for.
    Exited,
    /// A defect that it noticed itself.
    Panicked,
    /// A fault of the processor.
    Faulted,
    /// Somebody killed it.
    Killed,
    /// It did not answer its heartbeat and was ended.
    NoHeartbeat,
    /// It could not be started.
    CannotStart,
    /// It was stopped, restarted or replaced by hand.
    Asked,
    /// A driver that said that it cannot serve its device.
    GaveUp,
    /// It was not in service, or not stopped, in time and was ended.
    TooLate,
    /// A client's request stayed without an answer.
    NoAnswer,
    /// It broke the protocol with a client.
    BrokeProtocol,
    /// Its device interrupted on and on, and it did not serve that.
    InterruptStorm,
    /// It sent its device to memory that was not granted, which the IOMMU refused.
    DmaRefused,
    /// Its device was taken out.
    DeviceGone,
}

impl EndReason {
    /// The code that tools and files have.
    pub const fn code(self) -> &'static str {
        match self {
            EndReason::Exited => "exited",
            EndReason::Panicked => "panicked",
            EndReason::Faulted => "faulted",
            EndReason::Killed => "killed",
            EndReason::NoHeartbeat => "no-heartbeat",
            EndReason::CannotStart => "cannot-start",
            EndReason::Asked => "asked",
            EndReason::GaveUp => "gave-up",
            EndReason::TooLate => "too-late",
            EndReason::NoAnswer => "no-answer",
            EndReason::BrokeProtocol => "broke-protocol",
            EndReason::InterruptStorm => "interrupt-storm",
            EndReason::DmaRefused => "dma-refused",
            EndReason::DeviceGone => "device-gone",
        }
    }

    /// Whether somebody should look into it: nobody had wanted the end.
    pub const fn is_defect(self) -> bool {
        !matches!(
            self,
            EndReason::Asked | EndReason::Killed | EndReason::DeviceGone
        )
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
