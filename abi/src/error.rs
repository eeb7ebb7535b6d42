//! Error codes that system calls return.

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a system call failed.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(i32)]
        pub enum Error { $($(#[$doc])* $name = $code,)* }

        impl Error {
            /// The error of a negative result; codes that this version does not know become
            /// [`Error::Internal`].
            pub const fn from_code(code: i32) -> Error {
                match code { $($code => Error::$name,)* _ => Error::Internal }
            }
            /// A short text for people, lower case, without a full stop.
            pub const fn text(self) -> &'static str {
                match self { $(Error::$name => $text,)* }
            }
        }
    };
}

errors! {
    /// The handle does not exist in this process.
    BadHandle = -1, "bad handle";
    /// The object is of another kind than the call works on.
    WrongType = -2, "wrong object type";
    /// The handle lacks a right, or the resource does not cover the range.
    AccessDenied = -3, "access denied";
    /// An argument is outside of its range.
    InvalidArgument = -4, "invalid argument";
    /// A pointer does not lead to accessible memory of the process.
    BadAddress = -5, "bad address";
    /// The machine or the process's quota has no memory left.
    NoMemory = -6, "out of memory";
    /// A quota other than memory is used up, or a table is full.
    LimitReached = -7, "limit reached";
    /// Nothing to read or no room to write right now.
    ShouldWait = -8, "would have to wait";
    /// The other end of the channel is closed.
    PeerClosed = -9, "peer closed";
    /// The deadline passed.
    TimedOut = -10, "timed out";
    /// The buffer is too small; the sizes that are needed come back with the error.
    BufferTooSmall = -11, "buffer too small";
    /// The object is in a state that does not allow the call.
    BadState = -12, "bad state";
    /// What was asked for exists already or is in use.
    AlreadyExists = -13, "already exists";
    /// What was asked for does not exist.
    NotFound = -14, "not found";
    /// This machine or kernel does not offer it.
    NotSupported = -15, "not supported";
    /// The object was revoked or torn down.
    Cancelled = -16, "cancelled";
    /// No such system call.
    BadSyscall = -17, "no such system call";
    /// The range overflows or lies outside of the object.
    OutOfRange = -18, "out of range";
    /// The futex word did not hold the expected value.
    ValueChanged = -19, "value changed";
    /// An error that this version has no name for.
    Internal = -127, "internal error";
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Error {}

/// Result of a system call.
pub type Result<T> = core::result::Result<T, Error>;
