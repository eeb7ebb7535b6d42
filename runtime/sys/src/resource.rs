//! Resources: authority over ranges of addresses, ports, interrupts and device IDs.

use crate::abi::{
    CpuInfo, KernelStats, ProcessInfo, Property, ResourceInfo, ResourceKind, Result, Syscall, Topic,
};
use crate::handle::{AsHandle, handle_type, new_handle, object_info, object_info_all, object_set};
use crate::raw::syscall;

handle_type! {
    /// Authority over a range of something; see [`ResourceKind`].
    Resource
}

impl Resource {
    /// A resource for a part of this one. `AccessDenied` if it is not a subset.
    pub fn derive(&self, kind: ResourceKind, base: u64, len: u64) -> Result<Resource> {
        // SAFETY: no memory is passed.
        let raw = unsafe {
            syscall(
                Syscall::ResourceDerive,
                [self.arg(), kind as usize, base as usize, len as usize],
            )
        };
        Ok(new_handle(raw.result()?))
    }

    /// Kind and range.
    pub fn resource_info(&self) -> Result<ResourceInfo> {
        object_info(self.as_handle(), Topic::Resource)
    }

    /// Revokes it and everything made from it. Needs `DESTROY`.
    pub fn revoke(&self) -> Result<()> {
        object_set(self.raw(), Property::Revoke, 0)
    }

    /// With a `System` resource: the kernel's counts.
    pub fn kernel_stats(&self) -> Result<KernelStats> {
        object_info(self.as_handle(), Topic::Kernel)
    }

    /// With a `System` resource: every process.
    pub fn processes(&self) -> Result<alloc::vec::Vec<ProcessInfo>> {
        object_info_all(self.as_handle(), Topic::Processes)
    }

    /// With a `System` resource: every CPU.
    pub fn cpus(&self) -> Result<alloc::vec::Vec<CpuInfo>> {
        object_info_all(self.as_handle(), Topic::Cpus)
    }

    /// With a `System` resource: ends the process with this koid. `NotFound` if there is none.
    pub fn kill_koid(&self, koid: u64, code: i32) -> Result<()> {
        // SAFETY: no memory is passed; the process named ends as a whole, and if it is this one
        // nothing of it runs on.
        unsafe {
            syscall(
                Syscall::Kill,
                [self.arg(), koid as usize, code as u32 as usize],
            )
        }
        .unit()
    }
}
