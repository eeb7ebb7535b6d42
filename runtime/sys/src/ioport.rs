//! I/O ports of a granted range.

use crate::abi::{Error, Result, Syscall};
use crate::raw::syscall;
use crate::resource::Resource;

/// Access to the I/O ports `base .. base + len`. The grant is the process's and lasts as long as it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoPorts {
    base: u16,
    len: u16,
}

impl IoPorts {
    /// Asks for ports that an `IoPort` resource covers.
    pub fn grant(ports: &Resource, base: u16, len: u16) -> Result<IoPorts> {
        if len == 0 || base.checked_add(len - 1).is_none() {
            return Err(Error::OutOfRange);
        }
        // SAFETY: no memory is passed. Ports that reach memory (a device's DMA registers) are only in
        // resources for drivers of such devices.
        unsafe {
            syscall(
                Syscall::IoportGrant,
                [ports.arg(), base as usize, len as usize],
            )
        }
        .unit()?;
        Ok(IoPorts { base, len })
    }

    /// First port.
    pub const fn base(&self) -> u16 {
        self.base
    }

    /// Number of ports.
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Never: a grant has at least one port.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The port at `offset`, if `width` bytes from there on are granted.
    #[inline]
    fn port(&self, offset: u16, width: u16) -> Result<u16> {
        match offset.checked_add(width) {
            Some(end) if end <= self.len => Ok(self.base.wrapping_add(offset)),
            _ => Err(Error::OutOfRange),
        }
    }
}

macro_rules! port_access {
    ($in:ident $out:ident $type:ty, $width:literal, $reg:tt, $bits:literal) => {
        #[doc = concat!("Reads ", $bits, " bits at an offset from the base. `OutOfRange` beyond the grant.")]
        #[inline]
        pub fn $in(&self, offset: u16) -> Result<$type> {
            let port = self.port(offset, $width)?;
            #[cfg(all(target_arch = "x86_64", target_os = "none"))]
            {
                let value: $type;
                // SAFETY: the kernel lets this process use the port; an input writes no memory.
                unsafe {
                    core::arch::asm!(concat!("in ", $reg, ", dx"), in("dx") port, out($reg) value,
                        options(nomem, nostack, preserves_flags))
                };
                Ok(value)
            }
            #[cfg(not(all(target_arch = "x86_64", target_os = "none")))]
            {
                let _ = port;
                Err(Error::NotSupported)
            }
        }

        #[doc = concat!("Writes ", $bits, " bits at an offset from the base. `OutOfRange` beyond the grant.")]
        #[inline]
        pub fn $out(&self, offset: u16, value: $type) -> Result<()> {
            let port = self.port(offset, $width)?;
            #[cfg(all(target_arch = "x86_64", target_os = "none"))]
            {
                // SAFETY: the kernel lets this process use the port. No `nomem`: what was written to
                // memory before must be there when the device sees this.
                unsafe {
                    core::arch::asm!(concat!("out dx, ", $reg), in("dx") port, in($reg) value,
                        options(nostack, preserves_flags))
                };
                Ok(())
            }
            #[cfg(not(all(target_arch = "x86_64", target_os = "none")))]
            {
                let _ = (port, value);
                Err(Error::NotSupported)
            }
        }
    };
}

impl IoPorts {
    port_access!(read8 write8 u8, 1, "al", "8");
    port_access!(read16 write16 u16, 2, "ax", "16");
    port_access!(read32 write32 u32, 4, "eax", "32");
}
