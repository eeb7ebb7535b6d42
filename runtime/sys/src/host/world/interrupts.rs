//! Virtual interrupts.

use super::World;
use crate::abi::{IRQ_ACK_ON_DEQUEUE, IRQ_VIRTUAL, Rights};
use crate::host::objects::{Binding, Body, Queued};
use crate::host::{Error, Result};

impl World {
    pub(super) fn binding(&mut self, koid: u64) -> Result<&mut Binding> {
        match &mut self.object(koid)?.body {
            Body::Interrupt(binding) => Ok(binding),
            _ => Err(Error::WrongType),
        }
    }

    pub(in crate::host) fn create_interrupt(&mut self, kind: usize) -> Result<u32> {
        match kind {
            IRQ_VIRTUAL => Ok(self.create(Body::Interrupt(Binding::default()))),
            _ => Err(Error::NotSupported),
        }
    }

    pub(in crate::host) fn irq_bind(
        &mut self,
        handle: u32,
        port: u32,
        key: u64,
        flags: usize,
    ) -> Result<()> {
        let koid = self.entry(handle, Rights::MANAGE)?.koid;
        let port = match port {
            0 => None,
            port => Some(self.port(port, Rights::WRITE)?),
        };
        let binding = self.binding(koid)?;
        if port.is_some() && binding.port.is_some() {
            return Err(Error::BadState);
        }
        binding.port = port;
        binding.key = key;
        binding.ack_on_dequeue = flags & IRQ_ACK_ON_DEQUEUE != 0;
        binding.masked = false;
        self.irq_deliver(koid)
    }

    pub(super) fn irq_deliver(&mut self, koid: u64) -> Result<()> {
        let binding = self.binding(koid)?;
        if let Some(port) = binding.port
            && binding.pending > 0
            && !binding.masked
            && !std::mem::replace(&mut binding.queued, true)
        {
            self.enqueue(port, Queued::Interrupt(koid));
        }
        Ok(())
    }

    pub(in crate::host) fn irq_ack(&mut self, handle: u32) -> Result<()> {
        let koid = self.entry(handle, Rights::MANAGE)?.koid;
        self.binding(koid)?.masked = false;
        self.irq_deliver(koid)
    }

    pub(in crate::host) fn irq_trigger(&mut self, handle: u32) -> Result<()> {
        let koid = self.entry(handle, Rights::SIGNAL)?.koid;
        let binding = self.binding(koid)?;
        binding.pending += 1;
        binding.total += 1;
        self.irq_deliver(koid)
    }
}
