//! A driver in somebody else's kernel.
//!
//! This file is all that a kernel writes to use the drivers of the DDK: an implementation of [`ddk::Platform`].
//! The kernel here has one CPU, one device and no processes. Its drivers run on the kernel's own thread; where
//! nothing is left to do it halts until the next interrupt. The driver is `virtio-blk` as it stands, and
//! [`ddk_class_block::DirectDisks`] drives it without sessions.
//!
//! The hardware is a model, so that the example runs as a test. What would be different on a real machine
//! stands at each place, marked "On hardware".
#![forbid(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ddk::{
    Deadline, DeviceAccess, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, PinnedBuffer,
    Platform, PlatformError, PortIo, Width, Work,
};
use ddk_backend_sim::{Payload, Sim};
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions};

/// The machine: clock, memory and one disk on its PCI bus.
struct Hardware {
    world: Sim,
    disk: Arc<VirtioPci<BlockModel>>,
    /// PCI configuration space of the disk.
    config: Vec<u8>,
}

/// Most MSI-X vectors that this kernel has.
const VECTORS: u16 = 2;

/// The kernel, with the one device that it knows.
pub struct ToyKernel {
    hardware: Hardware,
    /// What the kernel printed.
    console: Mutex<Vec<String>>,
    /// Interrupts of the device, by vector: where they go.
    vectors: Vec<Arc<Vector>>,
}

impl ToyKernel {
    /// Switches the machine on.
    pub fn boot() -> Arc<ToyKernel> {
        let world = Sim::default();
        let disk = VirtioPci::new(
            &world,
            BlockModel::new(BlockModelOptions::default()),
            VECTORS,
        );
        let vectors: Vec<Arc<Vector>> = (0..VECTORS).map(|_| Arc::default()).collect();
        for (vector, wire) in vectors.iter().zip(disk.interrupts()) {
            // On hardware: the handler of this vector in the interrupt table.
            let vector = vector.clone();
            wire.wire(move || vector.handle());
        }
        let config = VirtioPci::<BlockModel>::config_space();
        Arc::new(ToyKernel {
            hardware: Hardware {
                world,
                disk,
                config,
            },
            console: Mutex::default(),
            vectors,
        })
    }

    /// Memory of an application, pinned for the device, and the application's view of it.
    pub fn application_memory(&self, pages: usize) -> (PinnedBuffer, Payload) {
        // On hardware: physical addresses of the pages (or what the IOMMU maps them to), and a guard that
        // unpins them.
        let memory = self.hardware.world.memory();
        memory.payload(pages, DeviceAccess::Both)
    }

    /// What the kernel printed.
    pub fn console(&self) -> Vec<String> {
        self.console.lock().unwrap().clone()
    }

    /// Rules of the hardware that were broken. Real hardware does not tell.
    pub fn broken_rules(&self) -> Vec<String> {
        self.hardware.world.violations()
    }
}

/// A queue of events. The kernel has one CPU, so whoever waits may halt it.
#[derive(Clone)]
struct Queue {
    events: Arc<Mutex<VecDeque<Event>>>,
    world: Sim,
}

impl EventQueue for Queue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        loop {
            let mut arrived = self.events.lock().unwrap();
            let count = arrived.len().min(events.len());
            for (slot, event) in events.iter_mut().zip(arrived.drain(..count)) {
                *slot = event;
            }
            drop(arrived);
            let clock = self.world.schedule();
            if count > 0 || deadline.is_over(clock.now_ns()) {
                return Ok(count);
            }
            // On hardware: set the timer to the deadline, `sti; hlt`.
            match clock.next_due() {
                Some(due_ns) => clock.advance_to(due_ns.min(deadline.as_ns())),
                None if deadline == Deadline::NEVER => return Err(PlatformError::Closed),
                None => clock.advance_to(deadline.as_ns()),
            }
        }
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        let event = Event { key, count: 1 };
        self.events.lock().unwrap().push_back(event);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An interrupt vector.
#[derive(Default)]
struct Vector {
    bound: Mutex<Option<(Queue, u64)>>,
}

impl Vector {
    fn handle(&self) {
        if let Some((queue, key)) = &*self.bound.lock().unwrap() {
            // There is always room.
            let _ = queue.post(*key);
        }
    }
}

impl Interrupt for Vector {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let queue = queue.as_any().downcast_ref::<Queue>();
        let queue = queue.ok_or(PlatformError::Invalid)?.clone();
        *self.bound.lock().unwrap() = Some((queue, key));
        Ok(())
    }

    fn unbind(&self) {
        *self.bound.lock().unwrap() = None;
    }

    // A message needs no acknowledgement; a level-triggered line would be unmasked here.
    fn acknowledge(&self) {}
}

impl Platform for ToyKernel {
    fn now_ns(&self) -> u64 {
        self.hardware.world.now_ns()
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        let line = format!("{level:?}: {text}");
        self.console.lock().unwrap().push(line);
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(Queue {
            events: Arc::default(),
            world: self.hardware.world.clone(),
        }))
    }

    fn cpu_count(&self) -> usize {
        1
    }

    fn spawn(&self, _: &str, _: Option<usize>, _: Work) -> Result<(), PlatformError> {
        // Drivers ask for threads only through the class layer's sessions, which this kernel has none of.
        Err(PlatformError::Unsupported)
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        if index != 4 {
            return Err(PlatformError::NotGranted);
        }
        // On hardware: map the BAR uncached and hand it out with `Mmio::from_mapping`.
        let len = VirtioPci::<BlockModel>::BAR_BYTES;
        Ok(vec![(0, Mmio::from_bus(self.hardware.disk.clone(), len))])
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let bytes = self.hardware.config.get(offset.into()..);
        let bytes = bytes.and_then(|bytes| bytes.get(..width.bytes()));
        let bytes = bytes.ok_or(PlatformError::Invalid)?.iter().rev();
        Ok(bytes.fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn config_write(&self, _: u16, _: Width, _: u32) -> Result<(), PlatformError> {
        // The kernel owns configuration space; no driver here needs a register of it.
        Err(PlatformError::NotGranted)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        // On hardware: memory space and bus master in the command register, the MSI-X table filled.
        Ok(())
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        Ok(())
    }

    fn interrupt_count(&self) -> u16 {
        VECTORS
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        let vector = self.vectors.get(usize::from(index));
        Ok(vector.ok_or(PlatformError::NotGranted)?.clone())
    }

    fn io_ports(&self, _: u8) -> Result<PortIo, PlatformError> {
        Err(PlatformError::NotGranted)
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        // On hardware: frames of the kernel's allocator, handed out with `DmaRegion::from_mapping`.
        Ok(self.hardware.world.memory().region(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddk_class_block::{Access, DirectDisks, Operation, Status};
    use virtio_blk::VirtioBlk;

    #[test]
    fn the_kernel_reads_what_it_wrote() {
        let kernel = ToyKernel::boot();
        let mut disks = DirectDisks::<VirtioBlk>::start(kernel.clone()).unwrap();
        assert_eq!(disks.disks()[0].block_count, 4096);
        let (buffer, memory) = kernel.application_memory(2);
        memory.write(0, b"written by a toy");
        for (operation, offset) in [(Operation::Write, 0), (Operation::Read, 4096)] {
            let access = Access {
                operation,
                lba: 7,
                length: 512,
                data: Some((&buffer, offset)),
                flags: 0,
            };
            let deadline = disks.deadline_in_ms(100);
            assert_eq!(disks.run(0, access, deadline), Ok(Some(Status::OK)));
        }
        assert_eq!(memory.read(4096, 16), b"written by a toy");
        disks.stop().unwrap();
        let console = kernel.console().join("\n");
        assert!(console.contains("4096 blocks of 512 bytes"), "{console}");
        assert_eq!(kernel.broken_rules(), [""; 0]);
    }

    #[test]
    fn a_disk_that_says_nothing_is_given_up_at_the_deadline() {
        use model_virtio_blk::Misbehaviour;
        let kernel = ToyKernel::boot();
        let mut disks = DirectDisks::<VirtioBlk>::start(kernel.clone()).unwrap();
        let silent = |disk: &mut BlockModel, _: &mut [_]| disk.misbehaviour = Misbehaviour::Silent;
        kernel.hardware.disk.with(silent);
        let access = Access {
            operation: Operation::Flush,
            lba: 0,
            length: 0,
            data: None,
            flags: 0,
        };
        let deadline = disks.deadline_in_ms(100);
        assert_eq!(disks.run(0, access, deadline), Ok(None));
        assert!(deadline.is_over(kernel.now_ns()));
    }
}
