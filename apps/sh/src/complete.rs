//! Completion of commands and paths.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::builtin;
use crate::state::{DEFAULT_PATH, State};

/// What completes the word before the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Text to insert at the cursor: what all candidates have in common, and a space or a slash if
    /// there is only one.
    pub insert: String,
    /// The candidates, when there are several.
    pub candidates: Vec<String>,
}

/// Completes the last word of `text`, which is the line up to the cursor.
pub fn complete(text: &str, state: &State) -> Completion {
    let word = last_word(text);
    let before = text.get(..text.len() - word.len()).unwrap_or("").trim_end();
    let is_command = before.is_empty() || before.ends_with(['|', ';', '&', '(']);
    let mut candidates: Vec<(String, char)> = if is_command && !word.contains('/') {
        commands(state)
    } else {
        paths(word, state)
    };
    let stem = if is_command && !word.contains('/') {
        word
    } else {
        word.rsplit('/').next().unwrap_or(word)
    };
    candidates.retain(|(name, _)| {
        name.starts_with(stem) && (stem.starts_with('.') || !name.starts_with('.'))
    });
    candidates.sort();
    candidates.dedup();
    let Some((first, end)) = candidates.first().cloned() else {
        return Completion::default();
    };
    if candidates.len() == 1 {
        let rest = first.get(stem.len()..).unwrap_or("");
        return Completion {
            insert: format!("{}{end}", escape(rest)),
            candidates: Vec::new(),
        };
    }
    let mut common = first.as_str();
    for (name, _) in &candidates {
        let same: usize = common
            .chars()
            .zip(name.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        common = common.get(..same).unwrap_or("");
    }
    let insert = escape(common.get(stem.len()..).unwrap_or(""));
    let candidates = candidates
        .into_iter()
        .map(|(n, end)| if end == '/' { format!("{n}/") } else { n })
        .collect();
    Completion { insert, candidates }
}

/// The characters after the last unquoted blank or operator.
fn last_word(text: &str) -> &str {
    let mut start = 0;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        if !escaped
            && matches!(
                c,
                ' ' | '\t' | '|' | ';' | '&' | '<' | '>' | '(' | '=' | '"' | '\''
            )
        {
            start = index + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.get(start..).unwrap_or("")
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if " \t\\'\"$&;|<>()*?[]#`!".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn commands(state: &State) -> Vec<(String, char)> {
    let mut names: Vec<(String, char)> = builtin::names().map(|n| (String::from(n), ' ')).collect();
    names.extend(state.functions.keys().map(|n| (n.clone(), ' ')));
    for directory in state.get("PATH").unwrap_or(DEFAULT_PATH).split(':') {
        if let Ok(entries) = unix::fs::read_dir(&state.absolute(directory)) {
            names.extend(entries.into_iter().map(|e| (e.name, ' ')));
        }
    }
    names
}

fn paths(word: &str, state: &State) -> Vec<(String, char)> {
    let word = word.replace('\\', "");
    let directory = match word.rfind('/') {
        Some(0) => String::from("/"),
        Some(at) => String::from(word.get(..at).unwrap_or("")),
        None => String::from("."),
    };
    let full = state.absolute(&directory);
    let Ok(entries) = unix::fs::read_dir(&full) else {
        return Vec::new();
    };
    entries
        .into_iter()
        .map(|e| {
            let is_dir = match e.kind {
                unix::fs::Kind::Directory => true,
                unix::fs::Kind::Symlink => {
                    unix::fs::stat(&unix::path::join(&full, &e.name)).is_ok_and(|m| m.is_dir())
                }
                _ => false,
            };
            (e.name, if is_dir { '/' } else { ' ' })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_commands() {
        assert_eq!(last_word("cat a\\ b"), "a\\ b");
        assert_eq!(last_word("cat|gr"), "gr");
        let state = State::new("sh".into(), Vec::new());
        assert_eq!(complete("unse", &state).insert, "t ");
        let cargo = complete("cat Cargo.to", &state);
        assert_eq!(cargo.insert, "ml ");
        assert_eq!(complete("cat sr", &state).insert, "c/");
        assert!(complete("cat src/", &state).candidates.len() > 5);
        assert_eq!(complete("cat no-such-", &state), Completion::default());
    }
}
