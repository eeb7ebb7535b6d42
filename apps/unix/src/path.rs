//! Paths as text: joining, normalising and splitting, without looking at the disk.

use alloc::string::String;
use alloc::vec::Vec;

/// `path` seen from the directory `base`: itself when it is absolute.
pub fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') || base.is_empty() {
        return String::from(path);
    }
    let mut out = String::from(base);
    if !path.is_empty() {
        if !out.ends_with('/') {
            out.push('/');
        }
        out.push_str(path);
    }
    out
}

/// An absolute path without `.`, `..` and repeated slashes; `..` at the root stays there. Purely
/// textual, as the shell's `cd` is.
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for part in &parts {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// Last component as `basename` gives it: trailing slashes do not count, `/` stays `/`.
pub fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return if path.is_empty() { "" } else { "/" };
    }
    match trimmed.rfind('/') {
        Some(at) => trimmed.get(at + 1..).unwrap_or(trimmed),
        None => trimmed,
    }
}

/// Everything before the last component as `dirname` gives it.
pub fn dir_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return if path.is_empty() { "." } else { "/" };
    }
    match trimmed.rfind('/') {
        Some(at) => {
            let parent = trimmed.get(..at).unwrap_or("").trim_end_matches('/');
            if parent.is_empty() { "/" } else { parent }
        }
        None => ".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, dir, base) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("a", ".", "a"),
            ("/", "/", "/"),
            ("//", "/", "/"),
            ("/a", "/", "a"),
            ("", ".", ""),
            ("a//b", "a", "b"),
        ] {
            assert_eq!(dir_name(path), dir, "{path}");
            assert_eq!(base_name(path), base, "{path}");
        }
    }

    #[test]
    fn normalizing() {
        assert_eq!(normalize("/a/./b/../c//d/"), "/a/c/d");
        assert_eq!(normalize("/../.."), "/");
        assert_eq!(join("/a", "b"), "/a/b");
        assert_eq!(join("/", "b"), "/b");
        assert_eq!(join("/a", "/b"), "/b");
    }
}
