//! Why an operation failed, with the texts of the C library's `strerror`, which the output of
//! every Unix tool has taught people to read.

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident $number:literal $text:literal;)*) => {
        /// A cause of failure, in POSIX's terms.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(i32)]
        pub enum Errno { $($(#[$doc])* $name = $number,)* }

        impl Errno {
            /// The text of `strerror` in the C locale.
            pub const fn text(self) -> &'static str {
                match self { $(Errno::$name => $text,)* }
            }
            /// The cause with this Linux number; [`Errno::Io`] for one without a name here.
            pub const fn from_number(number: i32) -> Errno {
                match number { $($number => Errno::$name,)* _ => Errno::Io }
            }
        }
    };
}

errnos! {
    /// EPERM.
    NotPermitted 1 "Operation not permitted";
    /// ENOENT.
    NoEntry 2 "No such file or directory";
    /// ESRCH.
    NoProcess 3 "No such process";
    /// EINTR.
    Interrupted 4 "Interrupted system call";
    /// EIO.
    Io 5 "Input/output error";
    /// ENXIO.
    NoDevice 6 "No such device or address";
    /// E2BIG.
    TooBig 7 "Argument list too long";
    /// ENOEXEC.
    NotExecutable 8 "Exec format error";
    /// EBADF.
    BadDescriptor 9 "Bad file descriptor";
    /// EAGAIN.
    Again 11 "Resource temporarily unavailable";
    /// ENOMEM.
    NoMemory 12 "Cannot allocate memory";
    /// EACCES.
    Access 13 "Permission denied";
    /// EBUSY.
    Busy 16 "Device or resource busy";
    /// EEXIST.
    Exists 17 "File exists";
    /// EXDEV.
    CrossDevice 18 "Invalid cross-device link";
    /// ENODEV.
    WrongDevice 19 "No such device";
    /// ENOTDIR.
    NotDirectory 20 "Not a directory";
    /// EISDIR.
    IsDirectory 21 "Is a directory";
    /// EINVAL.
    Invalid 22 "Invalid argument";
    /// EMFILE.
    TooManyFiles 24 "Too many open files";
    /// ENOTTY.
    NotTerminal 25 "Inappropriate ioctl for device";
    /// EFBIG.
    FileTooLarge 27 "File too large";
    /// ENOSPC.
    NoSpace 28 "No space left on device";
    /// ESPIPE.
    NotSeekable 29 "Illegal seek";
    /// EROFS.
    ReadOnly 30 "Read-only file system";
    /// EPIPE.
    BrokenPipe 32 "Broken pipe";
    /// ERANGE.
    Range 34 "Numerical result out of range";
    /// ENAMETOOLONG.
    NameTooLong 36 "File name too long";
    /// ENOSYS.
    NotImplemented 38 "Function not implemented";
    /// ENOTEMPTY.
    NotEmpty 39 "Directory not empty";
    /// ELOOP.
    Loop 40 "Too many levels of symbolic links";
    /// EPROTO.
    Protocol 71 "Protocol error";
    /// EOVERFLOW.
    Overflow 75 "Value too large for defined data type";
    /// EOPNOTSUPP.
    NotSupported 95 "Operation not supported";
    /// ETIMEDOUT.
    TimedOut 110 "Connection timed out";
    /// EUCLEAN: the volume is damaged.
    Corrupt 117 "Structure needs cleaning";
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Errno {}

/// Result of an operation on files, streams or processes.
pub type Result<T> = core::result::Result<T, Errno>;
