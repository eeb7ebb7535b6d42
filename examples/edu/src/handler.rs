//! Interrupts on request, raised by one thread and served by another: what `cargo xtask bench` measures.

use alloc::boxed::Box;

use ddk::{Deadline, DriverError, Event, EventQueue, Irq};

use crate::Edu;
use crate::registers::{INTERRUPT_FACTORIAL, Registers};

/// The bit that stands for an interrupt here.
const RAISED: u32 = INTERRUPT_FACTORIAL;
const KEY: u64 = 1;

/// Raises interrupts.
#[derive(Clone, Debug)]
pub struct Raiser(Registers);

impl Raiser {
    /// Raises one.
    #[inline]
    pub fn raise(&self) {
        self.0.interrupt_raise().write(RAISED);
    }
}

/// Waits for interrupts and quiets the device.
pub struct Handler {
    registers: Registers,
    irq: Irq,
    events: Box<dyn EventQueue>,
}

impl Handler {
    /// Waits for an interrupt and acknowledges it at the device.
    ///
    /// # Errors
    /// When the system refuses to wait.
    #[inline]
    pub fn serve(&self) -> Result<(), DriverError> {
        let mut events = [Event::default(); 1];
        loop {
            let taken = self.events.wait(&mut events, Deadline::NEVER);
            if taken.map_err(|error| DriverError::platform("events", error))? > 0 {
                break;
            }
        }
        self.registers.interrupt_acknowledge().write(RAISED);
        self.irq.acknowledge();
        Ok(())
    }
}

impl Edu {
    /// What raises interrupts.
    pub fn raiser(&self) -> Raiser {
        Raiser(self.registers.clone())
    }

    /// What serves them: one at a time. From now on the interrupt is delivered there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn handler(&self) -> Result<Handler, DriverError> {
        let events = self.cx.event_queue()?;
        let mut irq = self.irq.clone();
        irq.bind(&*events, KEY)
            .map_err(|error| DriverError::platform("interrupt", error))?;
        Ok(Handler {
            registers: self.registers.clone(),
            irq,
            events,
        })
    }
}
