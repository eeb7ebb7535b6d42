//! Dividing the input of `xargs` into arguments.

use alloc::string::String;
use alloc::vec::Vec;

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its text.
    pub text: String,
    /// It is the last one of its line.
    pub ends_line: bool,
}

fn item(bytes: &[u8]) -> Item {
    Item {
        text: String::from_utf8_lossy(bytes).into_owned(),
        ends_line: true,
    }
}

/// Arguments that end with NUL.
pub fn by_nul(input: &[u8]) -> Vec<Item> {
    let input = input.strip_suffix(&[0]).unwrap_or(input);
    if input.is_empty() {
        return Vec::new();
    }
    input.split(|b| *b == 0).map(item).collect()
}

/// One argument a line, without leading blanks; empty lines do not count.
pub fn by_line(input: &[u8]) -> Vec<Item> {
    input
        .split(|b| *b == b'\n')
        .map(|line| line.trim_ascii_start())
        .filter(|line| !line.is_empty())
        .map(item)
        .collect()
}

/// Arguments between blanks and newlines, with quotes and backslashes.
pub fn quoted(input: &[u8]) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    let mut current: Option<Vec<u8>> = None;
    let mut bytes = input.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => {
                if let Some(text) = current.take() {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    items.push(Item {
                        text,
                        ends_line: false,
                    });
                }
                // A blank at the end of a line joins it with the next one (POSIX, -L).
                if *byte == b'\n'
                    && let Some(last) = items.last_mut()
                {
                    last.ends_line = true;
                }
            }
            b'\\' => {
                let next = bytes.next().copied().unwrap_or(b'\\');
                current.get_or_insert_with(Vec::new).push(next);
            }
            quote @ (b'\'' | b'"') => {
                let text = current.get_or_insert_with(Vec::new);
                loop {
                    match bytes.next() {
                        Some(b) if b == quote => break,
                        Some(b'\n') | None => {
                            let kind = if *quote == b'"' { "double" } else { "single" };
                            return Err(alloc::format!(
                                "unmatched {kind} quote; by default quotes are special to xargs unless you use the -0 option"
                            ));
                        }
                        Some(b) => text.push(*b),
                    }
                }
            }
            other => current.get_or_insert_with(Vec::new).push(*other),
        }
    }
    if let Some(text) = current {
        items.push(item(&text));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        let texts: Vec<String> = quoted(b"a 'b c' \"d\"e\\ f\n\ng ''")
            .unwrap()
            .into_iter()
            .map(|i| i.text)
            .collect();
        assert_eq!(texts, ["a", "b c", "de f", "g", ""]);
        assert!(quoted(b"'a").is_err());
        assert_eq!(by_nul(b"a b\0c\0").len(), 2);
        assert_eq!(by_line(b"  a b \n\nc").len(), 2);
    }
}
