//! Interrupts: lines, messages, virtual ones.

use crate::abi::{
    IRQ_ACK_ON_DEQUEUE, IRQ_LINE, IRQ_MESSAGE, IRQ_VIRTUAL, InterruptInfo, Result, Syscall, Topic,
};
use crate::handle::{AsHandle, handle_type, new_handle, object_info};
use crate::port::Port;
use crate::raw::syscall;
use crate::resource::Resource;

/// How a line signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Trigger {
    /// Edge, active high.
    EdgeHigh = crate::abi::TRIGGER_EDGE_HIGH,
    /// Edge, active low.
    EdgeLow = crate::abi::TRIGGER_EDGE_LOW,
    /// Level, active high.
    LevelHigh = crate::abi::TRIGGER_LEVEL_HIGH,
    /// Level, active low.
    LevelLow = crate::abi::TRIGGER_LEVEL_LOW,
    /// As the firmware's tables say of this ISA interrupt; the number is then the ISA number.
    Isa = crate::abi::TRIGGER_ISA,
}

/// Who acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckMode {
    /// [`Interrupt::ack`] allows the next packet.
    Explicit,
    /// Taking the packet from the port acknowledges it (not for level lines): saves a call.
    OnDequeue,
}

handle_type! {
    /// A source of interrupts, bound to a port.
    Interrupt
}

impl Interrupt {
    /// An I/O APIC input, by its global system interrupt number (or ISA number with
    /// [`Trigger::Isa`]), covered by an `Irq` resource.
    pub fn line(irq: &Resource, gsi: u32, trigger: Trigger) -> Result<Interrupt> {
        Self::create(irq.arg(), IRQ_LINE, gsi as usize, trigger as usize)
    }

    /// A message-signalled interrupt on one of the CPUs of the mask (0: any), by an `Msi` resource.
    /// [`Interrupt::interrupt_info`] tells the address and data to program.
    pub fn message(msi: &Resource, cpus: u64) -> Result<Interrupt> {
        Self::create(msi.arg(), IRQ_MESSAGE, cpus as usize, 0)
    }

    /// One that [`Interrupt::trigger`] fires.
    pub fn virtual_interrupt() -> Result<Interrupt> {
        Self::create(0, IRQ_VIRTUAL, 0, 0)
    }

    fn create(resource: usize, kind: usize, number: usize, trigger: usize) -> Result<Interrupt> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::IrqCreate, [resource, kind, number, trigger]) };
        Ok(new_handle(raw.result()?))
    }

    /// Delivers to `port` with `key` from now on. One port at a time: `BadState` when bound.
    pub fn bind(&self, port: &Port, key: u64, ack: AckMode) -> Result<()> {
        let flags = match ack {
            AckMode::Explicit => 0,
            AckMode::OnDequeue => IRQ_ACK_ON_DEQUEUE,
        };
        // SAFETY: no memory is passed.
        unsafe {
            syscall(
                Syscall::IrqBind,
                [self.arg(), port.arg(), key as usize, flags],
            )
        }
        .unit()
    }

    /// Unbinds and masks.
    pub fn unbind(&self) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::IrqBind, [self.arg(), 0, 0, 0]) }.unit()
    }

    /// Allows the next packet; a line that is still asserted fires again at once.
    #[inline]
    pub fn ack(&self) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::IrqAck, [self.arg()]) }.unit()
    }

    /// Fires a virtual interrupt.
    pub fn trigger(&self) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::IrqTrigger, [self.arg()]) }.unit()
    }

    /// Kind, CPU, message address and data, count.
    pub fn interrupt_info(&self) -> Result<InterruptInfo> {
        object_info(self.as_handle(), Topic::Interrupt)
    }
}
