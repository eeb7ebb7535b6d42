//! Registers of the 16550 (National Semiconductor PC16550D data sheet, section 8), as offsets from the first
//! port.

/// Receiver buffer (read) and transmitter holding register (write); divisor low byte with `DLAB` (8.0).
pub(crate) const DATA: u16 = 0;
/// Interrupt enable; divisor high byte with `DLAB` (8.7).
pub(crate) const IER: u16 = 1;
/// Interrupt identification (read, 8.6) and FIFO control (write, 8.5).
pub(crate) const IIR_FCR: u16 = 2;
/// Line control (8.1).
pub(crate) const LCR: u16 = 3;
/// Modem control (8.8).
pub(crate) const MCR: u16 = 4;
/// Line status (8.4).
pub(crate) const LSR: u16 = 5;
/// Modem status (8.9).
pub(crate) const MSR: u16 = 6;
/// Scratch (8.10).
pub(crate) const SCRATCH: u16 = 7;
/// Ports.
pub(crate) const COUNT: u16 = 8;

/// [`IER`]: received data, and the time-out of the FIFO.
pub(crate) const IER_RECEIVED: u8 = 1 << 0;
/// [`IER`]: transmitter holding register empty.
pub(crate) const IER_EMPTY: u8 = 1 << 1;

/// [`IIR_FCR`], read: no interrupt is pending.
pub(crate) const IIR_NONE: u8 = 1 << 0;
/// [`IIR_FCR`], read: identification.
pub(crate) const IIR_ID: u8 = 0x0e;
/// Modem status changed.
pub(crate) const ID_MODEM: u8 = 0x00;
/// Transmitter holding register empty; reading the identification clears it.
pub(crate) const ID_EMPTY: u8 = 0x02;
/// Received data.
pub(crate) const ID_RECEIVED: u8 = 0x04;
/// Line status: overrun, parity, framing, break.
pub(crate) const ID_LINE: u8 = 0x06;
/// Data waits in the FIFO for longer than four characters.
pub(crate) const ID_TIMEOUT: u8 = 0x0c;
/// [`IIR_FCR`], read: the FIFOs work.
pub(crate) const IIR_FIFO: u8 = 0xc0;

/// [`IIR_FCR`], written: FIFOs on and empty, receiver interrupt at 8 bytes.
pub(crate) const FCR_ON: u8 = 0x01 | 0x02 | 0x04 | 0x80;
/// [`IIR_FCR`], written: FIFOs off.
pub(crate) const FCR_OFF: u8 = 0;

/// [`LCR`]: 8 data bits, no parity, one stop bit.
pub(crate) const LCR_8N1: u8 = 0x03;
/// [`LCR`]: the first two registers are the divisor.
pub(crate) const LCR_DLAB: u8 = 0x80;

/// [`MCR`]: data terminal ready, request to send, and OUT2, which lets the interrupt out on a PC.
pub(crate) const MCR_ON: u8 = 0x01 | 0x02 | 0x08;

/// [`LSR`]: data to read.
pub(crate) const LSR_DATA: u8 = 1 << 0;
/// [`LSR`]: the transmitter FIFO is empty.
pub(crate) const LSR_EMPTY: u8 = 1 << 5;
/// [`LSR`]: and everything has left.
pub(crate) const LSR_IDLE: u8 = 1 << 6;

/// Bytes of the FIFOs.
pub(crate) const FIFO_BYTES: u16 = 16;
/// Bits per second with a divisor of 1, from the usual 1.8432 MHz crystal.
pub(crate) const BASE_RATE: u32 = 115_200;
