//! The device's side of a split virtqueue (virtio 1.2, 2.7), which checks the driver's.

use spec_virtio::queue::{Descriptor, SIZE_MAX, avail, descriptor, need_event, used};
use zerocopy::{FromBytes, IntoBytes};

use ddk_backend_sim::DeviceMemory;

/// A chain that the driver made available.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceChain {
    /// Its first descriptor.
    pub head: u16,
    /// Address and length of what the device reads.
    pub readable: Vec<(u64, u32)>,
    /// Address and length of what the device writes.
    pub writable: Vec<(u64, u32)>,
}

impl DeviceChain {
    /// Everything that is readable.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, memory: &DeviceMemory) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for &(address, len) in &self.readable {
            let start = bytes.len();
            bytes.resize(start + len as usize, 0);
            memory.read(address, &mut bytes[start..]).map_err(|e| {
                format!(
                    "device read of {:#x}, which is not mapped for it",
                    e.address
                )
            })?;
        }
        Ok(bytes)
    }

    /// Bytes that the device can write.
    pub fn writable_len(&self) -> u32 {
        self.writable.iter().map(|(_, len)| len).sum()
    }

    /// Writes bytes from `skip` on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn write(
        &self,
        memory: &DeviceMemory,
        mut skip: u32,
        mut bytes: &[u8],
    ) -> Result<(), String> {
        for &(address, len) in &self.writable {
            let here = skip.min(len);
            skip -= here;
            let (now, later) = bytes.split_at(bytes.len().min((len - here) as usize));
            memory.write(address + u64::from(here), now).map_err(|e| {
                format!(
                    "device write of {:#x}, which is not mapped for it",
                    e.address
                )
            })?;
            bytes = later;
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            Err("chain too short for the answer".into())
        }
    }
}

/// The device's side of a queue.
pub struct DeviceQueue {
    memory: DeviceMemory,
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
    event_idx: bool,
    indirect: bool,
    next_avail: u16,
    used_index: u16,
    in_flight: Vec<u16>,
}

impl DeviceQueue {
    /// A queue at the addresses that the driver gave.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        memory: DeviceMemory,
        size: u16,
        [desc, avail, used]: [u64; 3],
        features: u64,
    ) -> Result<DeviceQueue, String> {
        if !size.is_power_of_two() || size > SIZE_MAX {
            return Err(format!("queue size {size} is no power of two"));
        }
        // 2.7: alignment of the three parts.
        if desc % 16 != 0 || avail % 2 != 0 || used % 4 != 0 {
            return Err("queue parts are misaligned".into());
        }
        Ok(DeviceQueue {
            memory,
            size,
            desc,
            avail,
            used,
            event_idx: features & spec_virtio::feature::RING_EVENT_IDX != 0,
            indirect: features & spec_virtio::feature::RING_INDIRECT_DESC != 0,
            next_avail: 0,
            used_index: 0,
            in_flight: Vec::new(),
        })
    }

    fn u16_at(&self, address: u64) -> Result<u16, String> {
        self.memory
            .read_u16(address)
            .map_err(|e| format!("queue memory at {:#x}", e.address))
    }

    fn put(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory
            .write(address, bytes)
            .map_err(|e| format!("queue memory at {:#x}", e.address))
    }

    fn descriptor(&self, table: u64, index: u16) -> Result<Descriptor, String> {
        let mut bytes = [0; 16];
        self.memory
            .read(table + 16 * u64::from(index), &mut bytes)
            .map_err(|e| format!("descriptor at {:#x} is not mapped", e.address))?;
        Ok(Descriptor::read_from_bytes(&bytes).expect("16 bytes"))
    }

    /// The next chain that the driver made available.
    ///
    /// # Errors
    /// Which rule the driver broke.
    pub fn pop(&mut self) -> Result<Option<DeviceChain>, String> {
        let index = self.u16_at(self.avail + avail::INDEX as u64)?;
        if index.wrapping_sub(self.next_avail) > self.size {
            return Err(format!(
                "available index {index} is too far from {}",
                self.next_avail
            ));
        }
        if self.event_idx {
            let at = self.used + used::avail_event(self.size) as u64;
            self.put(at, &self.next_avail.to_le_bytes())?;
        }
        if index == self.next_avail {
            return Ok(None);
        }
        let entry = avail::RING as u64 + 2 * u64::from(self.next_avail % self.size);
        let head = self.u16_at(self.avail + entry)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        if self.in_flight.contains(&head) {
            return Err(format!("chain {head} is available twice"));
        }
        let chain = self.walk(head)?;
        self.in_flight.push(head);
        Ok(Some(chain))
    }

    fn walk(&self, head: u16) -> Result<DeviceChain, String> {
        let mut chain = DeviceChain {
            head,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let (mut table, mut limit, mut at, mut seen) = (self.desc, self.size, head, 0);
        loop {
            if at >= limit {
                return Err(format!("descriptor {at} of {limit}"));
            }
            let d = self.descriptor(table, at)?;
            if d.flags & descriptor::INDIRECT != 0 {
                let nested = table != self.desc;
                if !self.indirect || nested || d.flags != descriptor::INDIRECT {
                    return Err("indirect descriptor where none may be".into());
                }
                if d.len == 0 || d.len % 16 != 0 {
                    return Err(format!("indirect table of {} bytes", d.len));
                }
                (table, limit, at) = (d.address, (d.len / 16) as u16, 0);
                continue;
            }
            seen += 1;
            if seen > limit {
                return Err("the chain is a loop".into());
            }
            if d.len == 0 {
                return Err("descriptor of no bytes".into());
            }
            if d.flags & descriptor::WRITE != 0 {
                chain.writable.push((d.address, d.len));
            } else if chain.writable.is_empty() {
                chain.readable.push((d.address, d.len));
            } else {
                return Err("readable descriptor after a writable one".into());
            }
            if d.flags & descriptor::NEXT == 0 {
                return Ok(chain);
            }
            at = d.next;
        }
    }

    /// Completes a chain. `true`: the driver wants an interrupt.
    ///
    /// # Errors
    /// When the queue's memory is not mapped.
    pub fn complete(&mut self, head: u16, written: u32) -> Result<bool, String> {
        self.in_flight.retain(|h| *h != head);
        self.complete_raw(u32::from(head), written)
    }

    /// Writes a used entry, whatever it says: for hostile devices.
    ///
    /// # Errors
    /// When the queue's memory is not mapped.
    pub fn complete_raw(&mut self, id: u32, written: u32) -> Result<bool, String> {
        let entry = self.used + used::RING as u64 + 8 * u64::from(self.used_index % self.size);
        self.put(entry, [id, written].as_bytes())?;
        let old = self.used_index;
        self.used_index = old.wrapping_add(1);
        self.set_used_index(self.used_index)?;
        if self.event_idx {
            let event = self.u16_at(self.avail + avail::used_event(self.size) as u64)?;
            return Ok(need_event(event, self.used_index, old));
        }
        let flags = self.u16_at(self.avail + avail::FLAGS as u64)?;
        Ok(flags & spec_virtio::queue::AVAIL_NO_INTERRUPT == 0)
    }

    /// Writes the used index, whatever it says.
    ///
    /// # Errors
    /// When the queue's memory is not mapped.
    pub fn set_used_index(&mut self, index: u16) -> Result<(), String> {
        self.used_index = index;
        self.put(self.used + used::INDEX as u64, &index.to_le_bytes())
    }

    /// Heads of the chains that the device has.
    pub fn in_flight(&self) -> &[u16] {
        &self.in_flight
    }
}
