//! The qtest protocol (QEMU, softmmu/qtest.c): lines of text over a socket, one answer to each command, and
//! in between what an intercepted interrupt controller's inputs do.
//!
//! There is no thread of its own: who sends a command reads the answer, and a thread that waits for an
//! interrupt reads what has come. Commands are not overlapped, so accesses stay in the driver's order.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddk::Width;
use ddk_backend_host::now_ns;
use rustix::net::{RecvFlags, recv};

/// QEMU answers within microseconds. One that does not is taken for gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Inputs of the I/O APIC.
pub(crate) const LINES: usize = 24;

/// What goes wrong on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WireError {
    /// QEMU has ended, or does not answer.
    Closed,
    /// QEMU does not do this.
    Refused(String),
}

/// Who moves the virtual time of the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Time {
    /// QEMU does, with the host's.
    Host,
    /// We do (`-accel qtest`): it follows the host's clock whenever something is waited for.
    Stepped,
}

struct Stream {
    socket: UnixStream,
    /// What was read and is not yet a whole line.
    input: Vec<u8>,
    stepped_ns: u64,
}

/// The connection. All accesses of all devices of a machine go over it.
pub(crate) struct Wire {
    stream: Mutex<Stream>,
    time: Time,
    closed: AtomicBool,
    /// Bit `n`: input `n` is asserted.
    asserted: AtomicU64,
    intercepted: Mutex<bool>,
}

impl Wire {
    pub(crate) fn new(socket: UnixStream, time: Time) -> std::io::Result<Wire> {
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Wire {
            stream: Mutex::new(Stream {
                socket,
                input: Vec::new(),
                stepped_ns: now_ns(),
            }),
            time,
            closed: AtomicBool::new(false),
            asserted: AtomicU64::new(0),
            intercepted: Mutex::new(false),
        })
    }

    /// Whether QEMU has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sends a command; gives what stands behind `OK`.
    pub(crate) fn command(&self, text: &str) -> Result<String, WireError> {
        self.exchange(&mut lock(&self.stream), text)
    }

    fn exchange(&self, stream: &mut Stream, text: &str) -> Result<String, WireError> {
        if self.is_closed() {
            return Err(WireError::Closed);
        }
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        if stream.socket.write_all(line.as_bytes()).is_err() {
            return Err(self.close());
        }
        loop {
            while let Some(line) = next_line(&mut stream.input) {
                if let Some(value) = line.strip_prefix("OK") {
                    return Ok(value.trim().to_owned());
                }
                if line.starts_with("FAIL") || line.starts_with("ERR") {
                    return Err(WireError::Refused(format!("{text}: {line}")));
                }
                self.event(&line);
            }
            self.receive(stream, RecvFlags::empty())?;
        }
    }

    /// Reads what has come. With `DONTWAIT` nothing may have.
    fn receive(&self, stream: &mut Stream, flags: RecvFlags) -> Result<(), WireError> {
        let mut buffer = [0; 4096];
        match recv(&stream.socket, &mut buffer, flags) {
            Ok((0, _)) => Err(self.close()),
            Ok((len, _)) => {
                stream.input.extend_from_slice(&buffer[..len]);
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(rustix::io::Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => Ok(()),
            Err(_) => Err(self.close()),
        }
    }

    fn close(&self) -> WireError {
        self.closed.store(true, Ordering::Relaxed);
        WireError::Closed
    }

    /// `IRQ raise N` and `IRQ lower N`.
    fn event(&self, line: &str) {
        let mut words = line.split_whitespace();
        let (kind, what, number) = (words.next(), words.next(), words.next());
        let number = number.and_then(|n| n.parse::<usize>().ok());
        if let (Some("IRQ"), Some(what), Some(number)) = (kind, what, number)
            && number < LINES
        {
            let bit = 1 << number;
            match what {
                "raise" => self.asserted.fetch_or(bit, Ordering::Relaxed),
                "lower" => self.asserted.fetch_and(!bit, Ordering::Relaxed),
                _ => 0,
            };
        }
    }

    /// Takes in what has come by itself and lets time pass. Does nothing while another thread has a command
    /// under way: that one does it.
    pub(crate) fn pump(&self) {
        let Ok(mut stream) = self.stream.try_lock() else {
            return;
        };
        if self.is_closed() {
            return;
        }
        if self.time == Time::Stepped {
            let now = now_ns();
            let passed = now.saturating_sub(stream.stepped_ns);
            stream.stepped_ns = now;
            if passed > 0 {
                let _ = self.exchange(&mut stream, &format!("clock_step {passed}"));
            }
        }
        if self.receive(&mut stream, RecvFlags::DONTWAIT).is_ok() {
            while let Some(line) = next_line(&mut stream.input) {
                self.event(&line);
            }
        }
    }

    /// From now on the inputs of the I/O APIC are told here instead of to it.
    pub(crate) fn intercept_lines(&self) -> Result<(), WireError> {
        let mut intercepted = lock(&self.intercepted);
        if !*intercepted {
            self.command("irq_intercept_in ioapic")?;
            *intercepted = true;
        }
        Ok(())
    }

    /// Whether an input of the I/O APIC is asserted, as far as was read.
    pub(crate) fn is_asserted(&self, line: usize) -> bool {
        line < LINES && self.asserted.load(Ordering::Relaxed) & 1 << line != 0
    }

    /// Reads device memory at a physical address.
    pub(crate) fn read(&self, physical: u64, width: Width) -> Result<u64, WireError> {
        let answer = self.command(&format!("read{} {physical:#x}", letter(width)))?;
        number(&answer)
    }

    /// Writes device memory at a physical address.
    pub(crate) fn write(&self, physical: u64, width: Width, value: u64) -> Result<(), WireError> {
        let value = value & width.all_ones();
        self.command(&format!("write{} {physical:#x} {value:#x}", letter(width)))?;
        Ok(())
    }

    /// Reads a port.
    pub(crate) fn port_in(&self, port: u16, width: Width) -> Result<u32, WireError> {
        let answer = self.command(&format!("in{} {port:#x}", letter(width)))?;
        Ok(number(&answer)? as u32)
    }

    /// Writes a port.
    pub(crate) fn port_out(&self, port: u16, width: Width, value: u32) -> Result<(), WireError> {
        self.command(&format!("out{} {port:#x} {value:#x}", letter(width)))?;
        Ok(())
    }
}

const fn letter(width: Width) -> char {
    match width {
        Width::U8 => 'b',
        Width::U16 => 'w',
        Width::U32 => 'l',
        Width::U64 => 'q',
    }
}

fn number(text: &str) -> Result<u64, WireError> {
    let digits = text.trim_start_matches("0x");
    u64::from_str_radix(digits, 16)
        .map_err(|_| WireError::Refused(format!("a number was expected, {text:?} came")))
}

fn next_line(input: &mut Vec<u8>) -> Option<String> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let line: Vec<u8> = input.drain(..=end).collect();
    Some(String::from_utf8_lossy(&line).trim().to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// Answers each command with the next of `answers`, and notes the commands.
    fn peer(answers: &'static [&'static str]) -> (Wire, std::thread::JoinHandle<Vec<String>>) {
        peer_with(Time::Host, answers)
    }

    fn peer_with(
        time: Time,
        answers: &'static [&'static str],
    ) -> (Wire, std::thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            for answer in answers {
                seen.push(lines.next().unwrap().unwrap());
                (&theirs).write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        (Wire::new(ours, time).unwrap(), thread)
    }

    #[test]
    fn commands_and_answers() {
        let (wire, thread) = peer(&["OK 0x00000000010000ed\n", "OK\n", "FAIL no\n"]);
        assert_eq!(wire.read(0xfe00_0000, Width::U32), Ok(0x0100_00ed));
        wire.write(0x1000, Width::U16, 0x1_2345).unwrap();
        assert!(
            matches!(wire.port_in(0xcf8, Width::U8), Err(WireError::Refused(text)) if text.contains("FAIL no"))
        );
        assert_eq!(
            thread.join().unwrap(),
            ["readl 0xfe000000", "writew 0x1000 0x2345", "inb 0xcf8"]
        );
    }

    #[test]
    fn interrupts_come_between_answers_and_by_themselves() {
        let (wire, thread) = peer(&[
            "IRQ raise 22\nIRQ lower 0\nOK\nIRQ lo",
            "wer 22\nIRQ raise 99\nOK\n",
        ]);
        wire.write(0, Width::U8, 1).unwrap();
        assert!(wire.is_asserted(22) && !wire.is_asserted(0));
        wire.write(0, Width::U8, 1).unwrap();
        assert!(!wire.is_asserted(22) && !wire.is_asserted(99));
        thread.join().unwrap();
    }

    #[test]
    fn the_end_of_qemu_is_an_error_for_good() {
        let (wire, thread) = peer(&["IRQ raise 1\n"]);
        assert_eq!(wire.command("inb 0"), Err(WireError::Closed));
        thread.join().unwrap();
        assert!(wire.is_closed());
        wire.pump();
        assert_eq!(wire.command("inb 0"), Err(WireError::Closed));
    }

    #[test]
    fn time_that_is_ours_moves_while_something_is_waited_for() {
        let answers = &["OK 1000\n", "IRQ raise 20\nOK 2000\n"];
        let (wire, thread) = peer_with(Time::Stepped, answers);
        wire.pump();
        assert!(!wire.is_asserted(20));
        wire.pump();
        assert!(wire.is_asserted(20));
        for command in thread.join().unwrap() {
            let ns = command.strip_prefix("clock_step ");
            assert!(
                ns.is_some_and(|ns| ns.parse::<u64>().unwrap() > 0),
                "{command}"
            );
        }
    }
}
