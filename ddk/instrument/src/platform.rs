//! A platform with a probe in front of it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use ddk::{
    Bus, Deadline, DmaMemory, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, Platform,
    PlatformError, PortBus, PortIo, Width, Work,
};

use spin::Mutex;

use crate::probe::{Access, Place, Probe, Waiting, Wanted};
use crate::record::{Outcome, Record};

/// Puts `probe` between a driver and `platform`.
pub fn instrument<P: Probe>(platform: Arc<dyn Platform>, probe: Arc<P>) -> Arc<dyn Platform> {
    Arc::new(Instrumented {
        platform,
        shared: Arc::new(Shared {
            probe,
            queues: Mutex::default(),
        }),
        interrupts: Mutex::default(),
        next_queue: AtomicU32::new(0),
        next_region: AtomicU32::new(0),
        next_thread: AtomicU16::new(1),
    })
}

struct Shared {
    probe: Arc<dyn Probe>,
    /// Numbers of the queues that live, by the address of the backend's own.
    queues: Mutex<BTreeMap<usize, u32>>,
}

struct Instrumented {
    platform: Arc<dyn Platform>,
    shared: Arc<Shared>,
    /// One wrapper for each interrupt: its last owner unbinds it.
    interrupts: Mutex<BTreeMap<u16, Weak<ProbedInterrupt>>>,
    next_queue: AtomicU32,
    next_region: AtomicU32,
    next_thread: AtomicU16,
}

fn outcome<T>(result: &Result<T, PlatformError>) -> Outcome<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err((*error).into()),
    }
}

/// A queue is known to its backend's sources by this object, and so it is here.
fn identity(queue: &dyn EventQueue) -> usize {
    core::ptr::from_ref(queue.as_any()).cast::<()>().addr()
}

impl Platform for Instrumented {
    fn now_ns(&self) -> u64 {
        self.shared.probe.now_ns(&|| self.platform.now_ns())
    }

    fn log(&self, level: LogLevel, text: core::fmt::Arguments<'_>) {
        self.shared.probe.note(Record::Log {
            level: level as u8,
            text: text.to_string(),
        });
        self.platform.log(level, text);
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        let made = match self.shared.probe.want(Wanted::Queue) {
            Ok(()) => self.platform.event_queue(),
            Err(error) => Err(error),
        };
        let number = self.next_queue.fetch_add(1, Ordering::Relaxed);
        let answer = outcome(&made).map(|()| number);
        self.shared.probe.note(Record::Queue(answer));
        let inner = made?;
        let mut queues = self.shared.queues.lock();
        queues.insert(identity(&*inner), number);
        Ok(Box::new(ProbedQueue {
            inner,
            number,
            shared: self.shared.clone(),
            platform: self.platform.clone(),
        }))
    }

    fn cpu_count(&self) -> usize {
        let count = self.platform.cpu_count();
        self.shared.probe.note(Record::Cpus(count as u32));
        count
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        let thread = self.next_thread.fetch_add(1, Ordering::Relaxed);
        let probe = self.shared.probe.clone();
        let work = Box::new(move || {
            probe.began(thread);
            work();
        });
        let done = match self.shared.probe.want(Wanted::Thread) {
            Ok(()) => self.platform.spawn(name, cpu, work),
            Err(error) => Err(error),
        };
        self.shared.probe.note(Record::Spawn {
            thread,
            name: name.into(),
            cpu: cpu.map(|cpu| cpu as u32),
            outcome: outcome(&done),
        });
        done
    }

    fn epoch(&self) -> u32 {
        let epoch = self.platform.epoch();
        self.shared.probe.note(Record::Epoch(epoch));
        epoch
    }

    fn restored(&self) -> Option<ddk::SavedState> {
        let state = self.platform.restored();
        let fields = state.as_ref().map(|s| (s.schema, s.fields.clone()));
        self.shared.probe.note(Record::Restored(fields));
        state
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let windows = self.platform.bar(index);
        let answer = windows.as_ref().map_err(|error| (*error).into());
        self.shared.probe.note(Record::Bar {
            index,
            outcome: answer.map(|windows| {
                let lens = windows.iter().map(|(at, mmio)| (*at, mmio.len() as u64));
                lens.collect()
            }),
        });
        let wrap = |(window, (at, inner)): (usize, (u64, Mmio))| {
            let len = inner.len();
            let bus = ProbedBus {
                place: Place::Bar {
                    index,
                    window: window as u8,
                },
                inner,
                shared: self.shared.clone(),
            };
            (at, Mmio::from_bus(Arc::new(bus), len))
        };
        Ok(windows?.into_iter().enumerate().map(wrap).collect())
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let refused = Cell::new(None);
        let value = self.shared.probe.read(config(offset, width), &|| match self
            .platform
            .config_read(offset, width)
        {
            Ok(value) => value.into(),
            Err(error) => {
                refused.set(Some(error));
                width.all_ones()
            }
        });
        match refused.get() {
            Some(error) => {
                self.shared.probe.note(Record::Refused(error.into()));
                Err(error)
            }
            None => Ok(value as u32),
        }
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        let refused = Cell::new(None);
        let write = |value: u64| {
            let done = self.platform.config_write(offset, width, value as u32);
            refused.set(done.err());
        };
        let probe = &self.shared.probe;
        probe.write(config(offset, width), value.into(), &write);
        match refused.get() {
            Some(error) => {
                probe.note(Record::Refused(error.into()));
                Err(error)
            }
            None => Ok(()),
        }
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        let done = self.platform.enable_device();
        self.shared.probe.note(Record::Enable(outcome(&done)));
        done
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        let done = self.platform.disable_device();
        self.shared.probe.note(Record::Disable(outcome(&done)));
        done
    }

    fn interrupt_count(&self) -> u16 {
        let count = self.platform.interrupt_count();
        self.shared.probe.note(Record::Interrupts(count));
        count
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        let source = self.platform.interrupt(index);
        self.shared.probe.note(Record::Interrupt {
            index,
            outcome: outcome(&source),
        });
        let inner = source?;
        let mut interrupts = self.interrupts.lock();
        if let Some(known) = interrupts.get(&index).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let probed = Arc::new(ProbedInterrupt {
            index,
            inner,
            shared: self.shared.clone(),
        });
        interrupts.insert(index, Arc::downgrade(&probed));
        Ok(probed)
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        let range = self.platform.io_ports(index);
        let len = range.as_ref().map(PortIo::len);
        self.shared.probe.note(Record::Ports {
            index,
            outcome: len.map_err(|error| (*error).into()),
        });
        let inner = range?;
        let len = inner.len();
        let ports = ProbedPorts {
            index,
            inner,
            shared: self.shared.clone(),
        };
        Ok(PortIo::new(Arc::new(ports), len))
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        let inner = match self.shared.probe.want(Wanted::Memory) {
            Ok(()) => self.platform.dma_region(len),
            Err(error) => Err(error),
        };
        let region = self.next_region.fetch_add(1, Ordering::Relaxed);
        let pages = inner.as_ref().map(|inner| inner.pages().to_vec());
        self.shared.probe.note(Record::Region {
            region,
            len: len as u64,
            outcome: pages.map_err(|error| (*error).into()),
        });
        let inner = inner?;
        let pages = inner.pages().into();
        let memory = ProbedMemory {
            region,
            inner,
            shared: self.shared.clone(),
        };
        Ok(DmaRegion::from_memory(Arc::new(memory), pages))
    }
}

fn config(offset: u16, width: Width) -> Access {
    Access {
        place: Place::Config,
        offset: offset.into(),
        width,
    }
}

struct ProbedBus {
    place: Place,
    inner: Mmio,
    shared: Arc<Shared>,
}

impl ProbedBus {
    fn access(&self, offset: usize, width: Width) -> Access {
        Access {
            place: self.place,
            offset: offset as u32,
            width,
        }
    }
}

impl Bus for ProbedBus {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let inner = || match width {
            Width::U8 => self.inner.read::<u8>(offset).into(),
            Width::U16 => self.inner.read::<u16>(offset).into(),
            Width::U32 => self.inner.read::<u32>(offset).into(),
            Width::U64 => self.inner.read::<u64>(offset),
        };
        let probe = &self.shared.probe;
        probe.read(self.access(offset, width), &inner)
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let inner = |value: u64| match width {
            Width::U8 => self.inner.write(offset, value as u8),
            Width::U16 => self.inner.write(offset, value as u16),
            Width::U32 => self.inner.write(offset, value as u32),
            Width::U64 => self.inner.write(offset, value),
        };
        let probe = &self.shared.probe;
        probe.write(self.access(offset, width), value, &inner);
    }
}

struct ProbedPorts {
    index: u8,
    inner: PortIo,
    shared: Arc<Shared>,
}

macro_rules! probed_ports {
    ($($read:ident $write:ident $word:ident $width:ident),*) => {
        impl PortBus for ProbedPorts {
            $(
                fn $read(&self, offset: u16) -> $word {
                    let inner = || self.inner.$read(offset).into();
                    self.shared.probe.read(self.access(offset, Width::$width), &inner) as $word
                }
                fn $write(&self, offset: u16, value: $word) {
                    let inner = |value| self.inner.$write(offset, value as $word);
                    let access = self.access(offset, Width::$width);
                    self.shared.probe.write(access, value.into(), &inner);
                }
            )*
        }
    };
}
probed_ports!(read8 write8 u8 U8, read16 write16 u16 U16, read32 write32 u32 U32);

impl ProbedPorts {
    fn access(&self, offset: u16, width: Width) -> Access {
        Access {
            place: Place::Ports(self.index),
            offset: offset.into(),
            width,
        }
    }
}

struct ProbedMemory {
    region: u32,
    inner: DmaRegion,
    shared: Arc<Shared>,
}

impl DmaMemory for ProbedMemory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.inner.read_bytes(offset, into);
        self.shared.probe.dma_read(self.region, offset, into);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let probe = &self.shared.probe;
        probe.dma_write(self.region, offset, &mut bytes);
        self.inner.write_bytes(offset, &bytes);
    }
}

impl Drop for ProbedMemory {
    fn drop(&mut self) {
        self.shared.probe.note(Record::Free(self.region));
    }
}

struct ProbedInterrupt {
    index: u16,
    inner: Arc<dyn Interrupt>,
    shared: Arc<Shared>,
}

impl Interrupt for ProbedInterrupt {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let done = self.inner.bind(queue, key);
        let number = {
            let queues = self.shared.queues.lock();
            queues.get(&identity(queue)).copied()
        };
        self.shared.probe.note(Record::Bind {
            index: self.index,
            queue: number,
            key,
            outcome: outcome(&done),
        });
        done
    }

    fn unbind(&self) {
        self.shared.probe.note(Record::Unbind(self.index));
        self.inner.unbind();
    }

    fn acknowledge(&self) {
        self.shared.probe.note(Record::Acknowledge(self.index));
        self.inner.acknowledge();
    }
}

struct ProbedQueue {
    inner: Box<dyn EventQueue>,
    number: u32,
    shared: Arc<Shared>,
    platform: Arc<dyn Platform>,
}

impl EventQueue for ProbedQueue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let waiting = Waiting {
            queue: self.number,
            deadline,
            inner: &*self.inner,
            clock: &|| self.platform.now_ns(),
        };
        self.shared.probe.wait(&waiting, events)
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        let done = self.inner.post(key);
        self.shared.probe.note(Record::Post {
            queue: self.number,
            key,
            outcome: outcome(&done),
        });
        done
    }

    /// The backend's own: its sources bind to it, and what they send comes out here.
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

impl Drop for ProbedQueue {
    fn drop(&mut self) {
        let mut queues = self.shared.queues.lock();
        queues.remove(&identity(&*self.inner));
    }
}
