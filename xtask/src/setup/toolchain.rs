//! The Rust toolchain for the bare-metal target.
//!
//! Three ways lead to the same stable-only code, tried in this order: the
//! target is there already; `rustup target add`; Debian's `rustc-web`,
//! `cargo-web` and `rust-web-src`, which build the core library themselves.
//! `BULKHEAD_TOOLCHAIN=rustup` or `=debian` forces a way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::build::workspace_root;
use crate::tool::{self, Output};

/// The bare-metal target of the kernel and of all programs.
pub const TARGET: &str = "x86_64-unknown-none";

/// Forces a way to the target.
const OVERRIDE: &str = "BULKHEAD_TOOLCHAIN";

/// What builds for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The toolchain that runs xtask has the target's core library.
    Installed,
    /// Debian's compiler builds the core library from Debian's source package.
    Debian {
        /// `rust-lld` of a rustup toolchain, or Debian's `ld.lld`.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// Finds a toolchain, and installs what is missing.
    ///
    /// # Errors
    ///
    /// When no way leads to the target; the message says how each one failed.
    pub fn ensure() -> anyhow::Result<Self> {
        let forced = std::env::var(OVERRIDE).ok();
        match forced.as_deref() {
            None | Some("") => {}
            Some("rustup") => return Self::from_rustup(),
            Some("debian") => return Self::from_debian(),
            Some(other) => {
                return Err(crate::UsageError(format!(
                    "{OVERRIDE} is {other:?}, expected rustup or debian"
                ))
                .into());
            }
        }
        // Where rustup could not help once, it is not asked again.
        let chosen = workspace_root().join("target/toolchain-debian");
        if chosen.exists() && !has_core_library(&sysroot(&rustc())?) {
            return Self::from_debian();
        }
        Self::from_rustup().or_else(|first| {
            let debian = Self::from_debian().map_err(|second| {
                anyhow::anyhow!("no Rust toolchain for {TARGET}: {first:#}; {second:#}")
            })?;
            eprintln!("xtask: building with Debian's rustc-web");
            std::fs::create_dir_all(workspace_root().join("target"))?;
            std::fs::write(&chosen, "")
                .with_context(|| format!("cannot write {}", chosen.display()))?;
            Ok(debian)
        })
    }

    fn from_rustup() -> anyhow::Result<Self> {
        if has_core_library(&sysroot(&rustc())?) {
            return Ok(Self::Installed);
        }
        if tool::find("rustup").is_none() {
            bail!("{TARGET} is not installed and there is no rustup");
        }
        eprintln!("xtask: installing the Rust target {TARGET}");
        let mut add = tool::command("rustup");
        add.args(["target", "add", TARGET]);
        tool::run(&mut add, Output::OnFailure)?;
        if !has_core_library(&sysroot(&rustc())?) {
            bail!("rustup target add {TARGET} succeeded, but this toolchain lacks the target");
        }
        Ok(Self::Installed)
    }

    fn from_debian() -> anyhow::Result<Self> {
        let missing: Vec<&str> = [
            ("/usr/bin/rustc", "rustc-web"),
            ("/usr/bin/cargo", "cargo-web"),
            (
                "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
                "rust-web-src",
            ),
        ]
        .into_iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| package)
        .collect();
        if !missing.is_empty() {
            super::install(&missing)?;
        }
        let linker = match rustup_linker()? {
            Some(linker) => linker,
            None => {
                if tool::find("ld.lld").is_none() {
                    super::install(&["lld"])?;
                }
                tool::find("ld.lld").context("no rust-lld and no ld.lld")?
            }
        };
        Ok(Self::Debian { linker })
    }

    /// A cargo command for [`TARGET`] with these compiler flags: `cargo build
    /// --target ...`, and what the way needs. Flags in the caller's environment
    /// do not count.
    pub fn cargo(&self, subcommand: &str, rustflags: &[String]) -> Command {
        let mut command = match self {
            Self::Installed => cargo(),
            Self::Debian { .. } => tool::command("/usr/bin/cargo"),
        };
        command.args([subcommand, "--target", TARGET]);
        command.env_remove("RUSTFLAGS");
        command.env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
        if let Self::Debian { linker } = self {
            command.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
            command
                .env("RUSTC", "/usr/bin/rustc")
                // `-Zbuild-std` is the one thing that needs this; the sources
                // use no unstable feature, which the other two ways prove.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", linker)
                .env_remove("RUSTUP_TOOLCHAIN");
        }
        command
    }

    /// Distinguishes the build folders of the ways, whose objects do not mix.
    pub fn folder_suffix(&self) -> &'static str {
        match self {
            Self::Installed => "",
            Self::Debian { .. } => "-debian",
        }
    }
}

/// The cargo that runs xtask.
pub fn cargo() -> Command {
    tool::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The compiler that cargo would use.
fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn sysroot(rustc: &OsString) -> anyhow::Result<PathBuf> {
    let output = tool::read(tool::command(rustc).args(["--print", "sysroot"]))?;
    let text = String::from_utf8(output).context("the sysroot's path")?;
    Ok(PathBuf::from(text.trim_end()))
}

fn has_core_library(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(libraries).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn rustup_linker() -> anyhow::Result<Option<PathBuf>> {
    let version = tool::read(tool::command(rustc()).arg("-vV"))?;
    let version = String::from_utf8_lossy(&version).into_owned();
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?
        .to_owned();
    let linker = sysroot(&rustc())?
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    Ok(linker.is_file().then_some(linker))
}
