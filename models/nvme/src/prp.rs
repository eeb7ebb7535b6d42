//! Walking PRP entries (4.3) and moving data through them.

use ddk_backend_sim::DeviceMemory;

/// Bytes of a memory page: the one size that the model's controller is configured for.
pub(crate) const PAGE: u64 = 4096;

/// Pieces of memory that the entries of a command describe, `len` bytes in all.
///
/// # Errors
/// Which rule the driver broke.
pub(crate) fn walk(
    memory: &DeviceMemory,
    prp1: u64,
    prp2: u64,
    len: u64,
) -> Result<Vec<(u64, u64)>, String> {
    if !prp1.is_multiple_of(4) {
        return Err(format!("PRP1 {prp1:#x} is not a multiple of 4"));
    }
    let first = len.min(PAGE - prp1 % PAGE);
    let mut pieces = vec![(prp1, first)];
    let mut left = len - first;
    if left == 0 {
        if prp2 != 0 {
            return Err(format!("PRP2 {prp2:#x} without data for it"));
        }
        return Ok(pieces);
    }
    let mut page = |entry: u64, left: &mut u64| {
        if !entry.is_multiple_of(PAGE) {
            return Err(format!("PRP entry {entry:#x} has an offset"));
        }
        let here = (*left).min(PAGE);
        pieces.push((entry, here));
        *left -= here;
        Ok(())
    };
    if left <= PAGE {
        page(prp2, &mut left)?;
        return Ok(pieces);
    }
    let mut list = prp2;
    if !list.is_multiple_of(8) {
        return Err(format!("PRP list {list:#x} is not a multiple of 8"));
    }
    while left > 0 {
        let mut bytes = [0; 8];
        memory
            .read(list, &mut bytes)
            .map_err(|e| format!("PRP list at {:#x}, which is not mapped", e.address))?;
        let entry = u64::from_le_bytes(bytes);
        // The last entry of a page leads to the next page of the list if there is more than it can describe.
        if list % PAGE == PAGE - 8 && left > PAGE {
            if !entry.is_multiple_of(8) {
                return Err(format!("PRP list {entry:#x} is not a multiple of 8"));
            }
            list = entry;
            continue;
        }
        page(entry, &mut left)?;
        list += 8;
    }
    Ok(pieces)
}

/// The controller reads data of the host.
///
/// # Errors
/// Which rule the driver broke.
pub(crate) fn read(memory: &DeviceMemory, prps: (u64, u64), len: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len];
    let mut rest = &mut bytes[..];
    for (address, len) in walk(memory, prps.0, prps.1, len as u64)? {
        let (now, later) = rest.split_at_mut(len as usize);
        memory
            .read(address, now)
            .map_err(|e| format!("read of {:#x}, which is not mapped for it", e.address))?;
        rest = later;
    }
    Ok(bytes)
}

/// The controller writes data of the host.
///
/// # Errors
/// Which rule the driver broke.
pub(crate) fn write(memory: &DeviceMemory, prps: (u64, u64), bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    for (address, len) in walk(memory, prps.0, prps.1, bytes.len() as u64)? {
        let (now, later) = rest.split_at(len as usize);
        memory
            .write(address, now)
            .map_err(|e| format!("write of {:#x}, which is not mapped for it", e.address))?;
        rest = later;
    }
    Ok(())
}
