//! Builds the kernel, the programs and the boot archive.
//!
//! The kernel and the programs differ in red zone and link layout, so each
//! has a build folder of its own. All programs are built by one cargo run. The
//! boot archive takes copies without debug information; the full files stay
//! beside them for gdb.

mod archive;
pub mod cargo;

use std::path::{Path, PathBuf};

use anyhow::Context;

pub use archive::{ArchiveExtras, write_archive};

use crate::setup::{self, Toolchain};
use crate::tool::{self, Output};

/// How programs are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Optimised; the default.
    #[default]
    Release,
    /// Not optimised, with debug assertions.
    Debug,
}

impl Profile {
    /// Name of the build folder that cargo uses for it.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }
}

/// Chooses the [`Profile`].
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct ProfileArgs {
    /// Optimise (this is the default).
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Do not optimise, and check debug assertions.
    #[arg(long)]
    debug: bool,
}

impl ProfileArgs {
    /// The profile that was chosen.
    pub fn profile(self) -> Profile {
        if self.debug && !self.release {
            Profile::Debug
        } else {
            Profile::Release
        }
    }
}

/// What `cargo xtask build` takes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct BuildArgs {
    /// Processor architecture.
    #[arg(long, value_enum, default_value_t)]
    arch: Architecture,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// A processor architecture that Bulkhead runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// 64-bit x86, QEMU's q35 machine.
    #[default]
    #[value(name = "x86_64")]
    X86_64,
}

/// A program that was built.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name of the file, for example `ls`.
    pub name: String,
    /// Whether it goes only into the archive of `cargo xtask bench`.
    pub for_bench: bool,
    /// The file with symbols and debug information.
    pub elf: PathBuf,
    /// The file with symbols only, as in the boot archive.
    pub stripped: PathBuf,
}

/// Everything that a boot needs.
#[derive(Clone, Debug)]
pub struct Built {
    /// The kernel with symbols and debug information.
    pub kernel: PathBuf,
    /// All programs, sorted by name.
    pub programs: Vec<Program>,
}

/// Root folder of the repository.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// A folder below `target/` that xtask owns; made if it is not there.
///
/// # Errors
///
/// When it cannot be made.
pub fn target_folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace_root().join("target").join(name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// `cargo xtask build`.
///
/// # Errors
///
/// When something does not compile.
pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let Architecture::X86_64 = args.arch;
    let built = build(args.profile.profile())?;
    let archive = target_folder("image")?.join("boot.archive");
    write_archive(&built, &ArchiveExtras::default(), &archive)?;
    eprintln!("xtask: kernel   {}", built.kernel.display());
    eprintln!(
        "xtask: archive  {} ({} programs)",
        archive.display(),
        built.programs.len()
    );
    Ok(())
}

/// Builds the kernel and all programs.
///
/// # Errors
///
/// When something does not compile.
pub fn build(profile: Profile) -> anyhow::Result<Built> {
    let toolchain = Toolchain::ensure()?;
    let kernel = cargo::build_kernel(&toolchain, profile)?;
    let programs = cargo::build_programs(&toolchain, profile)?;
    Ok(Built { kernel, programs })
}

/// Copies of what a boot needs in a folder of their own: for runs so long that somebody may build meanwhile.
///
/// # Errors
///
/// When a file cannot be copied.
pub fn kept(built: &Built, folder: &Path) -> anyhow::Result<Built> {
    std::fs::create_dir_all(folder)?;
    let copy = |file: &Path, name: &str| {
        let to = folder.join(name);
        std::fs::copy(file, &to).with_context(|| file.display().to_string())?;
        Ok::<PathBuf, anyhow::Error>(to)
    };
    let programs = built.programs.iter().map(|program| {
        let stripped = copy(&program.stripped, &program.name)?;
        Ok(Program {
            name: program.name.clone(),
            for_bench: program.for_bench,
            elf: stripped.clone(),
            stripped,
        })
    });
    Ok(Built {
        kernel: copy(&built.kernel, "the-kernel")?,
        programs: programs.collect::<anyhow::Result<_>>()?,
    })
}

/// The same with the programs of some packages built with a feature that no shipped program has: for fault campaigns
/// and negative controls.
///
/// # Errors
///
/// When something does not compile.
pub fn with_features(built: &Built, packages: &[&str], feature: &str) -> anyhow::Result<Built> {
    let toolchain = Toolchain::ensure()?;
    let mut others = cargo::build_with_feature(&toolchain, Profile::Release, packages, feature)?;
    let programs = built.programs.iter().map(|program| {
        let other = others.iter().position(|p| p.name == program.name);
        other.map_or_else(|| program.clone(), |at| others.swap_remove(at))
    });
    Ok(Built {
        kernel: built.kernel.clone(),
        programs: programs.collect(),
    })
}

/// Builds one program, by its own name or its package's.
///
/// # Errors
///
/// When there is no such program, or it does not compile.
pub fn build_program(profile: Profile, name: &str) -> anyhow::Result<Program> {
    cargo::build_program(&Toolchain::ensure()?, profile, name)
}

/// Feature of drivers' programs that can record what passes between them and their device.
pub const TRACE: &str = "ddk-backend-os/trace";

/// Builds one program by its package's name, with a feature that no shipped program has.
///
/// # Errors
///
/// As [`build_program`].
pub fn build_program_with(profile: Profile, name: &str, feature: &str) -> anyhow::Result<Program> {
    let programs = cargo::build_with_feature(&Toolchain::ensure()?, profile, &[name], feature)?;
    let mut programs = programs.into_iter();
    let program = programs.find(|program| program.name == name);
    program.with_context(|| format!("package {name} has no program of its name"))
}

/// Programs of that name that were built before and are still there, whatever for.
///
/// # Errors
///
/// When a folder cannot be read.
pub fn built_before(name: &str) -> anyhow::Result<Vec<Program>> {
    cargo::built_before(name)
}

/// Builds the documentation of all packages and fails on a warning.
///
/// # Errors
///
/// When rustdoc warns.
pub fn documentation(output: Output) -> anyhow::Result<()> {
    let bare = cargo::bare_packages()?;
    let mut host = setup::cargo();
    host.args(["doc", "--workspace", "--no-deps", "--quiet"]);
    for package in &bare {
        host.args(["--exclude", package]);
    }
    host.current_dir(workspace_root())
        .env("RUSTDOCFLAGS", "-Dwarnings");
    tool::run(&mut host, output)?;
    if bare.is_empty() {
        return Ok(());
    }
    let mut target = Toolchain::ensure()?.cargo("doc", &[]);
    target.args(["--no-deps", "--quiet"]);
    for package in &bare {
        target.args(["--package", package]);
    }
    target
        .current_dir(workspace_root())
        .env("RUSTDOCFLAGS", "-Dwarnings");
    tool::run(&mut target, output)
}
