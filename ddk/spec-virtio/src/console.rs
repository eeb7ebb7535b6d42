//! The console device (5.3).

/// Device type (5).
pub const DEVICE_TYPE: u16 = 3;

/// Numbers of the first port's queues (5.3.2).
pub mod queue {
    /// What the port receives.
    pub const RECEIVE: u16 = 0;
    /// What it sends.
    pub const TRANSMIT: u16 = 1;
}

/// Feature bits (5.3.3).
pub mod feature {
    /// `cols` and `rows` are valid.
    pub const SIZE: u64 = 1 << 0;
    /// Several ports, and queues to control them.
    pub const MULTIPORT: u64 = 1 << 1;
    /// A byte can be written without queues.
    pub const EMERG_WRITE: u64 = 1 << 2;
}
