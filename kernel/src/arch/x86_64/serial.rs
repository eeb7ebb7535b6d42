//! The log on COM1, and the outcome port of the test machine. Polled and without
//! buffers: it must work in a panic. It is not the driver for serial consoles.

use core::sync::atomic::{AtomicBool, Ordering};

use super::port::{in8, out8};

/// COM1 (16550, registers as in its data sheet).
const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const FIFO_LEN: usize = 16;
/// QEMU's debug console; on other machines nobody listens there.
const OUTCOME: u16 = 0xe9;
/// Polls before a transmitter counts as dead. At 115200 baud a full FIFO takes
/// 1.4 ms.
const POLLS_MAX: u32 = 100_000;

static BUSY: AtomicBool = AtomicBool::new(false);

/// 115200 baud, 8 data bits, no parity, 1 stop bit, FIFOs on, no interrupts.
pub fn init() {
    let sequence = [
        (1, 0x00),
        (3, 0x80),
        (0, 0x01),
        (1, 0x00),
        (3, 0x03),
        (2, 0xc7),
        (4, 0x03),
    ];
    for (register, value) in sequence {
        // SAFETY: COM1 is the kernel's; a UART does not touch memory.
        unsafe { out8(COM1 + register, value) };
    }
}

/// Writes `bytes` as they are to the log.
pub fn serial_write(bytes: &[u8]) {
    // A processor that was stopped in the middle must not silence a panic: after a
    // while the text goes out without the lock.
    let mut waited = 0;
    let owner = loop {
        if !BUSY.swap(true, Ordering::Acquire) {
            break true;
        }
        if waited == POLLS_MAX {
            break false;
        }
        waited += 1;
        core::hint::spin_loop();
    };
    for chunk in bytes.chunks(FIFO_LEN) {
        // SAFETY: as in `init`.
        let empty = || unsafe { in8(LINE_STATUS) } & TRANSMITTER_EMPTY != 0;
        let mut polls = 0;
        while !empty() && polls < POLLS_MAX {
            polls += 1;
            core::hint::spin_loop();
        }
        for byte in chunk {
            // SAFETY: as in `init`.
            unsafe { out8(COM1, *byte) };
        }
    }
    if owner {
        BUSY.store(false, Ordering::Release);
    }
}

/// Writes `line` and a line end to the outcome port.
pub fn outcome(line: &str) {
    for byte in line.bytes().chain([b'\n']) {
        // SAFETY: the port belongs to the debug console or to nothing.
        unsafe { out8(OUTCOME, byte) };
    }
}
