//! Asynchronous events (5.2) and the log pages that tell more (5.14.1).

/// What completes an Asynchronous Event Request: dword 0 of its completion (5.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(pub u32);

impl Event {
    /// Type of the event, 0 to 7.
    pub const fn kind(self) -> u8 {
        self.0 as u8 & 7
    }
    /// What happened, by type.
    pub const fn information(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// Log page that tells more; reading it allows the next event of the type.
    pub const fn log_page(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// Types of events.
pub mod kind {
    /// Error status.
    pub const ERROR: u8 = 0;
    /// Health status.
    pub const HEALTH: u8 = 1;
    /// Notice.
    pub const NOTICE: u8 = 2;
}

/// Notice: namespace attribute changed.
pub const NOTICE_NAMESPACES: u8 = 0;

/// Asynchronous event configuration, and what Identify Controller says can be configured (5.21.1.11): namespace
/// attribute notices.
pub const CONFIGURE_NAMESPACES: u32 = 1 << 8;

/// Log pages (5.14.1).
pub mod log_page {
    /// Error information: entries of 64 bytes, the newest first.
    pub const ERROR: u8 = 0x01;
    /// Health information, 512 bytes.
    pub const HEALTH: u8 = 0x02;
    /// Changed namespaces: up to 1024 identifiers.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
}
