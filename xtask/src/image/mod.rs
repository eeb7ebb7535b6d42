//! Disk images, made by the ordinary Linux tools without root.

use std::path::PathBuf;

use crate::setup;

/// Makes the demo image if it is not there, and gives its path.
///
/// # Errors
///
/// When a tool fails.
pub fn demo() -> anyhow::Result<Option<PathBuf>> {
    setup::ensure(&[setup::IMAGES])?;
    Ok(None)
}

/// `cargo xtask image`.
///
/// # Errors
///
/// When a tool fails.
pub fn run() -> anyhow::Result<()> {
    if let Some(file) = demo()? {
        println!("{}", file.display());
    }
    Ok(())
}
