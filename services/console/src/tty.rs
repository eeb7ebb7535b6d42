//! The line discipline: what is typed becomes lines (or stays bytes, in raw mode) and an echo; what
//! programs write becomes what the terminal needs.

use alloc::vec::Vec;

/// How input is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Line by line, with echo and editing.
    Cooked,
    /// Byte by byte, as typed.
    Raw,
}

/// What a typed byte led to, besides its echo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Nothing yet.
    None,
    /// Data for whoever reads.
    Data(Vec<u8>),
    /// Ctrl-D at the beginning of a line.
    EndOfInput,
    /// Ctrl-C.
    Interrupt,
    /// The terminal told its size: columns and rows.
    Size(u16, u16),
}

/// Longest line in cooked mode, in bytes; more is refused with a bell.
pub const LINE_MAX: usize = 4096;
/// Longest report of the cursor's position that is waited for.
const REPORT_MAX: usize = 16;

/// Asks the terminal where its last row and column are: saves the cursor, moves it far away, asks
/// for its position, puts it back (ECMA-48 CUP and DSR; DEC save and restore).
pub const SIZE_QUERY: &[u8] = b"\x1b7\x1b[999;999H\x1b[6n\x1b8";

/// State of a terminal.
#[derive(Clone, Debug)]
pub struct Tty {
    mode: Mode,
    line: Vec<u8>,
    /// A report that was asked for, as far as it has come.
    report: Option<Vec<u8>>,
    last_was_carriage_return: bool,
}

impl Default for Tty {
    fn default() -> Tty {
        Tty::new()
    }
}

impl Tty {
    /// In cooked mode, nothing typed.
    pub const fn new() -> Tty {
        Tty {
            mode: Mode::Cooked,
            line: Vec::new(),
            report: None,
            last_was_carriage_return: false,
        }
    }

    /// In this mode, with this typed of a line (nothing in raw mode).
    pub fn with_line(mode: Mode, line: Vec<u8>) -> Tty {
        Tty {
            mode,
            line,
            ..Tty::new()
        }
    }

    /// What is typed of a line.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets the mode; what was typed of a line goes on as it is when the mode becomes raw.
    pub fn set_mode(&mut self, mode: Mode) -> Option<Vec<u8>> {
        let waiting = (self.mode == Mode::Cooked && mode == Mode::Raw && !self.line.is_empty())
            .then(|| core::mem::take(&mut self.line));
        self.mode = mode;
        waiting
    }

    /// A report of the cursor's position will come among what is typed.
    pub fn expect_report(&mut self) {
        self.report.get_or_insert_with(Vec::new);
    }

    /// Whether a report was asked for that has not come.
    pub const fn expects_report(&self) -> bool {
        self.report.is_some()
    }

    /// Takes a byte; what the terminal shall show is added to `echo`.
    pub fn input(&mut self, byte: u8, echo: &mut Vec<u8>) -> Input {
        if let Some(report) = &mut self.report {
            match report_byte(report, byte) {
                ReportByte::Part => return Input::None,
                ReportByte::Size(columns, rows) => {
                    self.report = None;
                    return Input::Size(columns, rows);
                }
                ReportByte::Other(held) if held.is_empty() => {}
                ReportByte::Other(mut held) => {
                    held.push(byte);
                    return self.several(&held, echo);
                }
            }
        }
        self.plain(byte, echo)
    }

    /// Bytes that were held back and turned out to be typed.
    fn several(&mut self, bytes: &[u8], echo: &mut Vec<u8>) -> Input {
        if self.mode == Mode::Raw {
            return Input::Data(bytes.to_vec());
        }
        let mut last = Input::None;
        for byte in bytes {
            last = self.plain(*byte, echo);
        }
        last
    }

    fn plain(&mut self, byte: u8, echo: &mut Vec<u8>) -> Input {
        let after_carriage_return = core::mem::take(&mut self.last_was_carriage_return);
        if self.mode == Mode::Raw {
            return Input::Data(alloc::vec![byte]);
        }
        match byte {
            // CR LF is one Enter.
            b'\n' if after_carriage_return => Input::None,
            b'\r' | b'\n' => {
                self.last_was_carriage_return = byte == b'\r';
                echo.extend_from_slice(b"\r\n");
                self.line.push(b'\n');
                Input::Data(core::mem::take(&mut self.line))
            }
            0x03 => {
                echo.extend_from_slice(b"^C\r\n");
                self.line.clear();
                Input::Interrupt
            }
            0x04 if self.line.is_empty() => Input::EndOfInput,
            0x04 => Input::Data(core::mem::take(&mut self.line)),
            0x08 | 0x7f => {
                self.erase(echo);
                Input::None
            }
            0x15 => {
                while !self.line.is_empty() {
                    self.erase(echo);
                }
                Input::None
            }
            0x17 => {
                while self.line.last().is_some_and(u8::is_ascii_whitespace) {
                    self.erase(echo);
                }
                while self.line.last().is_some_and(|b| !b.is_ascii_whitespace()) {
                    self.erase(echo);
                }
                Input::None
            }
            _ if self.line.len() >= LINE_MAX => {
                echo.push(0x07);
                Input::None
            }
            b'\t' | 0x20.. => {
                self.line.push(byte);
                echo.push(byte);
                Input::None
            }
            // Other control characters show as ^X.
            _ => {
                self.line.push(byte);
                echo.extend_from_slice(&[b'^', byte | 0x40]);
                Input::None
            }
        }
    }

    /// Takes the last character off the line and off the screen.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        let Some(mut byte) = self.line.pop() else {
            return;
        };
        // Continuation bytes of UTF-8 belong to one character.
        while byte & 0xc0 == 0x80 {
            match self.line.pop() {
                Some(before) => byte = before,
                None => break,
            }
        }
        let width = if byte < 0x20 && byte != b'\t' { 2 } else { 1 };
        for _ in 0..width {
            echo.extend_from_slice(b"\x08 \x08");
        }
    }
}

enum ReportByte {
    Part,
    Size(u16, u16),
    Other(Vec<u8>),
}

/// Follows `ESC [ rows ; columns R`; gives back what was held when it turns out to be something else.
fn report_byte(report: &mut Vec<u8>, byte: u8) -> ReportByte {
    let fits = match report.as_slice() {
        [] => byte == 0x1b,
        [_] => byte == b'[',
        [_, _] => byte.is_ascii_digit(),
        more => byte.is_ascii_digit() || byte == b';' || (byte == b'R' && more.contains(&b';')),
    };
    if !fits || report.len() >= REPORT_MAX {
        return ReportByte::Other(core::mem::take(report));
    }
    if byte != b'R' {
        report.push(byte);
        return ReportByte::Part;
    }
    let numbers = report
        .get(2..)
        .and_then(|digits| core::str::from_utf8(digits).ok());
    let size = numbers.and_then(|text| {
        let (rows, columns) = text.split_once(';')?;
        Some((columns.parse().ok()?, rows.parse().ok()?))
    });
    match size {
        Some((columns, rows)) if columns > 0 && rows > 0 => ReportByte::Size(columns, rows),
        _ => ReportByte::Other(core::mem::take(report)),
    }
}

/// Output for a terminal: a newline becomes carriage return and newline.
pub fn output(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(tty: &mut Tty, bytes: &[u8]) -> (Vec<Input>, Vec<u8>) {
        let mut echo = Vec::new();
        let events = bytes
            .iter()
            .map(|b| tty.input(*b, &mut echo))
            .filter(|e| *e != Input::None)
            .collect();
        (events, echo)
    }

    #[test]
    fn cooked_lines() {
        let mut tty = Tty::new();
        let (events, echo) = type_in(&mut tty, b"lx\x7fs -l\r\n");
        assert_eq!(events, [Input::Data(b"ls -l\n".to_vec())]);
        assert_eq!(echo, b"lx\x08 \x08s -l\r\n");
        let (events, _) = type_in(&mut tty, b"a b c\x17\x17z\n");
        assert_eq!(events, [Input::Data(b"a z\n".to_vec())]);
        let (events, _) = type_in(&mut tty, b"abc\x15def\n");
        assert_eq!(events, [Input::Data(b"def\n".to_vec())]);
        let (events, _) = type_in(&mut tty, "aä\x7f\n".as_bytes());
        assert_eq!(events, [Input::Data(b"a\n".to_vec())]);
    }

    #[test]
    fn ends_and_interrupts() {
        let mut tty = Tty::new();
        assert_eq!(type_in(&mut tty, b"\x04").0, [Input::EndOfInput]);
        assert_eq!(
            type_in(&mut tty, b"abc\x04").0,
            [Input::Data(b"abc".to_vec())]
        );
        assert_eq!(
            type_in(&mut tty, b"abc\x03x\n").0,
            [Input::Interrupt, Input::Data(b"x\n".to_vec())]
        );
    }

    #[test]
    fn raw_bytes() {
        let mut tty = Tty::new();
        type_in(&mut tty, b"typed ahead");
        assert_eq!(tty.set_mode(Mode::Raw), Some(b"typed ahead".to_vec()));
        let (events, echo) = type_in(&mut tty, b"\x03\r");
        assert_eq!(events, [Input::Data(vec![3]), Input::Data(vec![13])]);
        assert!(echo.is_empty());
    }

    #[test]
    fn size_reports_are_taken_out() {
        let mut tty = Tty::new();
        tty.set_mode(Mode::Raw);
        tty.expect_report();
        let (events, _) = type_in(&mut tty, b"a\x1b[A\x1b[50;132Rb");
        assert_eq!(
            events,
            [
                Input::Data(b"a".to_vec()),
                Input::Data(b"\x1b[A".to_vec()),
                Input::Size(132, 50),
                Input::Data(b"b".to_vec()),
            ]
        );
        tty.expect_report();
        let (events, _) = type_in(&mut tty, b"\x1b[99999999999999999999R");
        assert!(events.iter().all(|e| matches!(e, Input::Data(_))));
    }

    #[test]
    fn long_lines_are_bounded() {
        let mut tty = Tty::new();
        let (events, echo) = type_in(&mut tty, &[b'x'; LINE_MAX + 10]);
        assert!(events.is_empty());
        assert!(echo.ends_with(b"\x07"));
        let (events, _) = type_in(&mut tty, b"\n");
        assert!(matches!(&events[..], [Input::Data(line)] if line.len() == LINE_MAX + 1));
    }

    #[test]
    fn newlines_on_output() {
        let mut out = Vec::new();
        output(b"a\nb\r\n", &mut out);
        assert_eq!(out, b"a\r\nb\r\r\n");
    }
}
