//! Driver for 16550-compatible serial ports: a range of eight I/O ports and an interrupt line.
//!
//! Interrupt driven in both directions, with the FIFOs where they work. It moves bytes with port
//! instructions, so payload passes through this process.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod registers;
#[cfg(test)]
mod tests;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, PortIo, StopReason, info,
};
use ddk_class_serial::{Receiving, SendInterrupt, SerialDevice};

use registers as reg;

ddk::driver! {
    driver: Uart,
    name: "uart16550",
    class: SERIAL,
    version: [0, 1, 0],
    matches: [platform("uart16550")],
    needs: [io_ports(0), interrupt_line(0)],
}

/// Causes that are served before the device is said not to release its line.
const CAUSES_MAX: u32 = 4096;
/// Rate until somebody asks for another.
const FIRST_RATE: u32 = 115_200;

/// The driver of one port.
pub struct Uart {
    ports: PortIo,
    irq: Irq,
    rate: u32,
    fifo: u16,
    /// Interrupts that are enabled.
    enabled: u8,
}

impl Uart {
    fn write(&self, register: u16, value: u8) {
        self.ports.write8(register, value);
    }

    fn read(&self, register: u16) -> u8 {
        self.ports.read8(register)
    }

    /// Line status. All ones says that nothing is there: break, framing, parity and overrun at once.
    fn line_status(&self) -> Result<u8, DriverError> {
        ddk::alive("UART line status", self.read(reg::LSR))
    }

    fn enable(&mut self, interrupts: u8) {
        if self.enabled != interrupts {
            self.enabled = interrupts;
            self.write(reg::IER, interrupts);
        }
    }
}

impl Driver for Uart {
    async fn start(cx: DeviceContext) -> Result<Uart, DriverError> {
        let ports = cx.io_ports(0, reg::COUNT)?;
        let irq = cx.interrupt(0)?;
        let mut uart = Uart {
            ports,
            irq,
            rate: 0,
            fifo: 1,
            enabled: 0,
        };
        uart.write(reg::IER, 0);
        for pattern in [0x5a, 0xa5] {
            uart.write(reg::SCRATCH, pattern);
            let seen = uart.read(reg::SCRATCH);
            if seen != pattern {
                let what = "UART scratch register";
                return Err(DriverError::Protocol {
                    what,
                    expected: pattern.into(),
                    seen: seen.into(),
                });
            }
        }
        uart.set_rate(FIRST_RATE)?;
        uart.write(reg::IIR_FCR, reg::FCR_ON);
        if uart.read(reg::IIR_FCR) & reg::IIR_FIFO == reg::IIR_FIFO {
            uart.fifo = reg::FIFO_BYTES;
        } else {
            uart.write(reg::IIR_FCR, reg::FCR_OFF);
        }
        uart.write(reg::MCR, reg::MCR_ON);
        // What came before is stale; reading it clears the causes of an interrupt.
        uart.line_status()?;
        uart.read(reg::DATA);
        uart.read(reg::MSR);
        info!(cx, "UART with {} bytes of FIFO", uart.fifo);
        Ok(uart)
    }

    async fn stop(self, _: StopReason) {
        self.write(reg::IER, 0);
        self.write(reg::IIR_FCR, reg::FCR_OFF);
    }
}

impl SerialDevice for Uart {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn set_rate(&mut self, rate: u32) -> Result<(), DriverError> {
        let divisor = reg::BASE_RATE.checked_div(rate).unwrap_or(0);
        let exact = divisor.checked_mul(rate) == Some(reg::BASE_RATE);
        let Some(divisor) = u16::try_from(divisor).ok().filter(|_| exact) else {
            return Err(DriverError::Unsupported { what: "this rate" });
        };
        let [low, high] = divisor.to_le_bytes();
        self.write(reg::LCR, reg::LCR_DLAB | reg::LCR_8N1);
        self.write(reg::DATA, low);
        self.write(reg::IER, high);
        self.write(reg::LCR, reg::LCR_8N1);
        self.rate = rate;
        Ok(())
    }

    fn fifo(&self) -> u16 {
        self.fifo
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        let mut count = 0;
        for place in into.iter_mut() {
            if self.line_status()? & reg::LSR_DATA == 0 {
                break;
            }
            *place = self.read(reg::DATA);
            count += 1;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        let mut sent = 0;
        for part in bytes.chunks(usize::from(self.fifo)) {
            // Empty means room for a whole FIFO.
            if self.line_status()? & reg::LSR_EMPTY == 0 {
                break;
            }
            self.ports.write8_all(reg::DATA, part);
            sent += part.len();
        }
        Ok(sent)
    }

    fn set_send_interrupt(&mut self, on: SendInterrupt) {
        match on {
            SendInterrupt::On => self.enable(self.enabled | reg::IER_EMPTY),
            SendInterrupt::Off => self.enable(self.enabled & !reg::IER_EMPTY),
        }
    }

    fn is_idle(&mut self) -> Result<bool, DriverError> {
        Ok(self.line_status()? & reg::LSR_IDLE != 0)
    }

    fn set_receiving(&mut self, receiving: Receiving) {
        match receiving {
            Receiving::On => self.enable(self.enabled | reg::IER_RECEIVED),
            Receiving::Paused => self.enable(self.enabled & !reg::IER_RECEIVED),
        }
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.irq.bind(events, key)?;
        self.enable(self.enabled | reg::IER_RECEIVED);
        Ok(())
    }

    fn interrupt(&mut self, into: &mut [u8]) -> Result<usize, DriverError> {
        let mut count = 0;
        // The line is an edge on a PC: every cause has to go before the next one shows.
        for _ in 0..CAUSES_MAX {
            let cause = ddk::alive("UART interrupt identification", self.read(reg::IIR_FCR))?;
            if cause & reg::IIR_NONE != 0 {
                self.irq.acknowledge();
                return Ok(count);
            }
            match cause & reg::IIR_ID {
                reg::ID_RECEIVED | reg::ID_TIMEOUT => match into.get_mut(count..) {
                    Some(room) if !room.is_empty() => {
                        let received = self.receive(room)?;
                        // A time-out without data is cleared by reading the buffer.
                        if received == 0 {
                            self.read(reg::DATA);
                        }
                        count += received;
                    }
                    // No room: what is more is lost, as the FIFO would lose it.
                    _ => {
                        self.read(reg::DATA);
                    }
                },
                reg::ID_LINE => {
                    self.line_status()?;
                }
                reg::ID_MODEM => {
                    self.read(reg::MSR);
                }
                // Reading the identification has cleared it.
                reg::ID_EMPTY => {}
                other => {
                    let what = "cause of a UART interrupt";
                    return Err(DriverError::Protocol {
                        what,
                        expected: 0,
                        seen: other.into(),
                    });
                }
            }
        }
        let what = "UART interrupt that ends";
        Err(DriverError::Protocol {
            what,
            expected: 0,
            seen: CAUSES_MAX.into(),
        })
    }
}
