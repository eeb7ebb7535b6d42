//! The line editor: a state machine that takes bytes from a terminal and says what happened. It
//! reads and writes nothing itself; [`Editor::render`] gives the text that shows its state.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What a byte led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing to show yet.
    None,
    /// The line or the cursor changed.
    Changed,
    /// A character was added at the end of the line.
    Appended(char),
    /// Enter: the finished line.
    Line(String),
    /// Ctrl-D on an empty line.
    EndOfFile,
    /// Ctrl-C.
    Interrupt,
    /// Tab: complete the word before the cursor.
    Complete,
    /// Ctrl-L.
    ClearScreen,
}

/// Progress in a sequence of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    None,
    Escape,
    /// `ESC [` or `ESC O` with the parameter so far.
    Control(String),
    /// Bytes of a character in UTF-8 and how many it has.
    Character(Vec<u8>, usize),
}

/// Incremental search through the history.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Search {
    text: String,
    /// Index of the line that is shown.
    found: Option<usize>,
    /// What stood in the line before.
    before: Vec<char>,
}

/// Lines remembered.
const HISTORY_MAX: usize = 500;
/// Longest line in characters.
const LINE_MAX: usize = 16 * 1024;

/// A line that is being edited, with its history.
#[derive(Clone, Debug)]
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown; its length means the new line.
    shown: usize,
    /// The new line while one of the history is shown.
    saved: Vec<char>,
    killed: Vec<char>,
    pending: Pending,
    search: Option<Search>,
    last_was_enter: Option<u8>,
}

impl Default for Editor {
    fn default() -> Editor {
        Editor::new()
    }
}

impl Editor {
    /// With an empty line and history.
    pub fn new() -> Editor {
        Editor {
            line: Vec::new(),
            cursor: 0,
            history: Vec::new(),
            shown: 0,
            saved: Vec::new(),
            killed: Vec::new(),
            pending: Pending::None,
            search: None,
            last_was_enter: None,
        }
    }

    /// The line so far.
    pub fn text(&self) -> String {
        self.line.iter().collect()
    }

    /// The line up to the cursor.
    pub fn before_cursor(&self) -> String {
        self.line.iter().take(self.cursor).collect()
    }

    /// Remembered lines, oldest first.
    pub fn history(&self) -> &[String] {
        &self.history
    }

    /// Remembers a line, unless it is blank or the same as the last one.
    pub fn remember(&mut self, line: &str) {
        if !line.trim().is_empty() && self.history.last().is_none_or(|last| last != line) {
            self.history.push(String::from(line));
            if self.history.len() > HISTORY_MAX {
                self.history.remove(0);
            }
        }
        self.shown = self.history.len();
    }

    /// Begins a new line.
    pub fn reset(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.shown = self.history.len();
        self.saved.clear();
        self.pending = Pending::None;
        self.search = None;
    }

    /// Inserts text at the cursor.
    pub fn insert(&mut self, text: &str) {
        for c in text.chars() {
            if self.line.len() >= LINE_MAX {
                return;
            }
            self.line.insert(self.cursor, c);
            self.cursor += 1;
        }
    }

    /// Takes a byte.
    pub fn feed(&mut self, byte: u8) -> Event {
        // A terminal that sends CR LF for Enter gives one line, not two.
        let previous_enter = self.last_was_enter.take();
        if matches!((previous_enter, byte), (Some(b'\r'), b'\n')) {
            return Event::None;
        }
        match core::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => {}
            Pending::Escape => return self.escape(byte),
            Pending::Control(parameter) => return self.control_sequence(parameter, byte),
            Pending::Character(bytes, length) => {
                if let Some(event) = self.continue_character(bytes, length, byte) {
                    return event;
                }
            }
        }
        if self.search.is_some() {
            return self.search_byte(byte);
        }
        match byte {
            b'\r' | b'\n' => self.enter(byte),
            0x01 => self.move_to(0),
            0x02 => self.move_to(self.cursor.saturating_sub(1)),
            0x03 => {
                self.reset();
                Event::Interrupt
            }
            0x04 if self.line.is_empty() => Event::EndOfFile,
            0x04 => self.delete(self.cursor, self.cursor + 1),
            0x05 => self.move_to(self.line.len()),
            0x06 => self.move_to(self.cursor + 1),
            0x08 | 0x7f => self.delete(self.cursor.saturating_sub(1), self.cursor),
            b'\t' => Event::Complete,
            0x0b => self.kill(self.cursor, self.line.len()),
            0x0c => Event::ClearScreen,
            0x0e => self.show(self.shown + 1),
            0x10 => self.show(self.shown.wrapping_sub(1)),
            0x12 => {
                let before = self.line.clone();
                self.search = Some(Search {
                    text: String::new(),
                    found: None,
                    before,
                });
                Event::Changed
            }
            0x14 => self.transpose(),
            0x15 => self.kill(0, self.cursor),
            0x17 => self.kill(self.blank_word_start(), self.cursor),
            0x19 => {
                let text: String = self.killed.iter().collect();
                self.insert(&text);
                Event::Changed
            }
            0x1b => {
                self.pending = Pending::Escape;
                Event::None
            }
            0x20..=0x7e => {
                let at_end = self.cursor == self.line.len();
                self.insert(char::from(byte).encode_utf8(&mut [0; 4]));
                if at_end {
                    Event::Appended(char::from(byte))
                } else {
                    Event::Changed
                }
            }
            0xc2..=0xf4 => {
                let length = match byte {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                self.pending = Pending::Character(alloc::vec![byte], length);
                Event::None
            }
            _ => Event::None,
        }
    }

    fn enter(&mut self, byte: u8) -> Event {
        self.last_was_enter = Some(byte);
        let line = self.text();
        self.reset();
        Event::Line(line)
    }

    fn continue_character(&mut self, mut bytes: Vec<u8>, length: usize, byte: u8) -> Option<Event> {
        if !(0x80..=0xbf).contains(&byte) {
            return None;
        }
        bytes.push(byte);
        if bytes.len() < length {
            self.pending = Pending::Character(bytes, length);
            return Some(Event::None);
        }
        let Ok(text) = core::str::from_utf8(&bytes) else {
            return Some(Event::None);
        };
        if let Some(search) = &mut self.search {
            search.text.push_str(text);
            self.search_from(self.history.len());
        } else {
            self.insert(text);
        }
        Some(Event::Changed)
    }

    fn escape(&mut self, byte: u8) -> Event {
        match byte {
            b'[' | b'O' => {
                self.pending = Pending::Control(String::new());
                Event::None
            }
            b'b' => self.move_to(self.word_start()),
            b'f' => self.move_to(self.word_end()),
            b'd' => self.kill(self.cursor, self.word_end()),
            0x08 | 0x7f => self.kill(self.word_start(), self.cursor),
            0x1b => {
                self.pending = Pending::Escape;
                Event::None
            }
            _ => Event::None,
        }
    }

    fn control_sequence(&mut self, mut parameter: String, byte: u8) -> Event {
        if (0x20..=0x3f).contains(&byte) {
            if parameter.len() < 16 {
                parameter.push(char::from(byte));
                self.pending = Pending::Control(parameter);
            }
            return Event::None;
        }
        if let Some(search) = self.search.take() {
            self.accept_search(&search);
        }
        match (byte, parameter.as_str()) {
            (b'A', _) => self.show(self.shown.wrapping_sub(1)),
            (b'B', _) => self.show(self.shown + 1),
            (b'C', "1;5" | "1;3") => self.move_to(self.word_end()),
            (b'D', "1;5" | "1;3") => self.move_to(self.word_start()),
            (b'C', _) => self.move_to(self.cursor + 1),
            (b'D', _) => self.move_to(self.cursor.saturating_sub(1)),
            (b'H', _) | (b'~', "1" | "7") => self.move_to(0),
            (b'F', _) | (b'~', "4" | "8") => self.move_to(self.line.len()),
            (b'~', "3") => self.delete(self.cursor, self.cursor + 1),
            _ => Event::None,
        }
    }

    fn move_to(&mut self, position: usize) -> Event {
        self.cursor = position.min(self.line.len());
        Event::Changed
    }

    fn delete(&mut self, from: usize, to: usize) -> Event {
        let to = to.min(self.line.len());
        if from < to {
            self.line.drain(from..to);
            self.cursor = from;
        }
        Event::Changed
    }

    fn kill(&mut self, from: usize, to: usize) -> Event {
        let to = to.min(self.line.len());
        if from < to {
            self.killed = self.line.drain(from..to).collect();
            self.cursor = from;
        }
        Event::Changed
    }

    fn transpose(&mut self) -> Event {
        let right = if self.cursor == self.line.len() {
            self.cursor.wrapping_sub(1)
        } else {
            self.cursor
        };
        if right >= 1 && right < self.line.len() {
            self.line.swap(right - 1, right);
            self.cursor = right + 1;
        }
        Event::Changed
    }

    fn scan_back(&self, is_word: fn(char) -> bool) -> usize {
        let at = |i: usize| self.line.get(i).copied().unwrap_or(' ');
        let mut position = self.cursor;
        while position > 0 && !is_word(at(position - 1)) {
            position -= 1;
        }
        while position > 0 && is_word(at(position - 1)) {
            position -= 1;
        }
        position
    }

    fn blank_word_start(&self) -> usize {
        self.scan_back(|c| !c.is_whitespace())
    }

    fn word_start(&self) -> usize {
        self.scan_back(char::is_alphanumeric)
    }

    fn word_end(&self) -> usize {
        let mut position = self.cursor;
        let at = |i: usize| self.line.get(i).copied();
        while at(position).is_some_and(|c| !c.is_alphanumeric()) {
            position += 1;
        }
        while at(position).is_some_and(char::is_alphanumeric) {
            position += 1;
        }
        position
    }

    fn show(&mut self, index: usize) -> Event {
        if index > self.history.len() {
            return Event::None;
        }
        if self.shown == self.history.len() {
            self.saved = core::mem::take(&mut self.line);
        }
        self.line = match self.history.get(index) {
            Some(text) => text.chars().collect(),
            None => self.saved.clone(),
        };
        self.shown = index;
        self.cursor = self.line.len();
        Event::Changed
    }

    fn search_byte(&mut self, byte: u8) -> Event {
        let Some(mut search) = self.search.take() else {
            return Event::None;
        };
        match byte {
            0x12 => {
                let from = search.found.unwrap_or(self.history.len());
                self.search = Some(search);
                self.search_from(from);
            }
            0x08 | 0x7f => {
                search.text.pop();
                self.search = Some(search);
                self.search_from(self.history.len());
            }
            0x07 | 0x03 => {
                self.line = search.before;
                self.cursor = self.line.len();
            }
            0x20..=0x7e => {
                search.text.push(char::from(byte));
                self.search = Some(search);
                self.search_from(self.history.len());
            }
            0xc2..=0xf4 => {
                self.search = Some(search);
                let length = if byte < 0xe0 {
                    2
                } else if byte < 0xf0 {
                    3
                } else {
                    4
                };
                self.pending = Pending::Character(alloc::vec![byte], length);
                return Event::None;
            }
            // Anything else takes the line and does what it does there.
            other => {
                self.accept_search(&search);
                return self.feed(other);
            }
        }
        Event::Changed
    }

    fn search_from(&mut self, end: usize) {
        let Some(search) = &mut self.search else {
            return;
        };
        let found = self
            .history
            .iter()
            .enumerate()
            .take(end)
            .rev()
            .find(|(_, line)| !search.text.is_empty() && line.contains(&search.text))
            .map(|(index, _)| index);
        if found.is_some() || search.text.is_empty() {
            search.found = found;
        }
    }

    fn accept_search(&mut self, search: &Search) {
        if let Some(index) = search.found
            && let Some(text) = self.history.get(index)
        {
            self.line = text.chars().collect();
            self.shown = index;
        } else {
            self.line = search.before.clone();
        }
        self.cursor = self.line.len();
    }

    /// The text that redraws the line on a terminal of so many columns: one row, which scrolls
    /// sideways when it is too long.
    pub fn render(&self, prompt: &str, columns: usize) -> String {
        let (prompt, line, cursor): (String, Vec<char>, usize) = match &self.search {
            Some(search) => {
                let found = search.found.and_then(|i| self.history.get(i));
                let line: Vec<char> = match found {
                    Some(text) => text.chars().collect(),
                    None => search.before.clone(),
                };
                let cursor = line.len();
                (format!("(search)'{}': ", search.text), line, cursor)
            }
            None => (String::from(prompt), self.line.clone(), self.cursor),
        };
        let room = columns.saturating_sub(prompt.chars().count() + 1).max(8);
        let first = (cursor + 1).saturating_sub(room);
        let visible: String = line.iter().skip(first).take(room).collect();
        let mut out = format!("\r{prompt}{visible}\x1b[K\r");
        let column = prompt.chars().count() + cursor - first;
        if column > 0 {
            out.push_str(&format!("\x1b[{column}C"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_into(editor: &mut Editor, bytes: &[u8]) -> Vec<Event> {
        bytes.iter().map(|b| editor.feed(*b)).collect()
    }

    fn line_after(bytes: &[u8]) -> String {
        let mut editor = Editor::new();
        editor.remember("first line");
        editor.remember("second line");
        type_into(&mut editor, bytes);
        editor.text()
    }

    #[test]
    fn keys() {
        for (bytes, text) in [
            (&b"abc\x01x"[..], "xabc"),
            (b"abc\x02\x02x", "axbc"),
            (b"abc\x7f", "ab"),
            (b"abc\x1b[D\x1b[D\x1b[3~", "ac"),
            (b"a b c\x17", "a b "),
            (b"abc\x01\x06\x0b", "a"),
            (b"abc def\x02\x15", "f"),
            (b"abc\x15x\x19", "xabc"),
            (b"\x1b[A", "second line"),
            (b"\x1b[A\x1b[A", "first line"),
            (b"\x1b[A\x1b[A\x1b[A", "first line"),
            (b"new\x1b[A\x1b[B", "new"),
            (b"\x12fir\x01", "first line"),
            (b"\x12line\x12\x01", "first line"),
            (b"old\x12line\x07", "old"),
            (b"abc\x1b[Hx\x1b[Fy", "xabcy"),
            (b"abc\x1bOHx", "xabc"),
            (b"ab\x14", "ba"),
            (b"foo bar\x1b\x7f", "foo "),
            (b"foo bar\x1bbx", "foo xbar"),
            ("äö\x7f".as_bytes(), "ä"),
            (b"a\xffb\xc3z", "abz"),
            (b"a\x1b[999999999999999999999Zb", "a9999Zb"),
        ] {
            let got = line_after(bytes);
            if bytes.windows(4).any(|w| w == b"9999") {
                // An overlong sequence is dropped somewhere; it must only not be lost in it for ever.
                assert!(got.starts_with('a') && got.ends_with('b'));
            } else {
                assert_eq!(got, text, "{}", String::from_utf8_lossy(bytes));
            }
        }
    }

    #[test]
    fn events() {
        let mut editor = Editor::new();
        assert_eq!(type_into(&mut editor, b"ls\r\n").pop(), Some(Event::None));
        assert_eq!(editor.text(), "");
        assert_eq!(editor.feed(4), Event::EndOfFile);
        editor.feed(b'a');
        assert_eq!(editor.feed(3), Event::Interrupt);
        assert_eq!(editor.text(), "");
        editor.insert("echo");
        assert_eq!(editor.feed(b'\r'), Event::Line("echo".into()));
    }

    #[test]
    fn long_lines_scroll() {
        let mut editor = Editor::new();
        editor.insert(&"x".repeat(200));
        let shown = editor.render("$ ", 80);
        assert!(shown.chars().filter(|c| *c == 'x').count() < 80);
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut editor = Editor::new();
        let mut seed = 1u64;
        for _ in 0..200_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if let Event::Line(line) = editor.feed((seed >> 56) as u8) {
                editor.remember(&line);
            }
            if seed.is_multiple_of(16) {
                editor.render("$ ", (seed >> 40) as usize % 100);
            }
        }
    }
}
