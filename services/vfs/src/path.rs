//! Paths as bytes and as components.

use alloc::{collections::VecDeque, vec::Vec};

use proto::fs::{FsError, PATH_BYTES_MAX};

/// Components of a path, without empty ones and `.`; `..` is kept.
pub type Components = VecDeque<Vec<u8>>;

/// What the end of a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Anything.
    Any,
    /// A slash or `.` at the end: a directory, links followed.
    Directory,
}

/// Takes an absolute path apart.
///
/// # Errors
/// `InvalidArgument` for one that is relative, empty or has a NUL; `NameTooLong`.
pub fn parse(path: &[u8]) -> Result<(Components, Ending), FsError> {
    if path.first() != Some(&b'/') || path.contains(&0) {
        return Err(FsError::InvalidArgument);
    }
    split(path)
}

/// Takes any path apart.
///
/// # Errors
/// `NameTooLong`.
pub fn split(path: &[u8]) -> Result<(Components, Ending), FsError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    let mut ending = Ending::Directory;
    let mut components = Components::new();
    for component in path.split(|byte| *byte == b'/') {
        let special = matches!(component, b"" | b"." | b"..");
        ending = if special {
            Ending::Directory
        } else {
            Ending::Any
        };
        if !matches!(component, b"" | b".") {
            components.push_back(component.to_vec());
        }
    }
    Ok((components, ending))
}

/// The absolute path of components.
pub fn join<'a>(components: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut path = Vec::new();
    for component in components {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// The path of components, relative to a volume's root.
pub fn relative(components: &[Vec<u8>]) -> Vec<u8> {
    components.join(&b'/')
}
