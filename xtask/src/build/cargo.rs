//! The cargo runs, and what they say they built.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{Profile, Program, target_folder, workspace_root};
use crate::UsageError;
use crate::setup::{self, Toolchain};
use crate::tool::{self, Output};

/// Flags of every program for the bare target.
const COMMON_FLAGS: &[&str] = &[
    // Crash reports walk frame pointers.
    "-Cforce-frame-pointers=yes",
    "-Crelocation-model=static",
    "-Clink-arg=-znoexecstack",
];

/// Flags of the kernel: it runs in the top 2 GiB, and interrupts use its stack.
const KERNEL_FLAGS: &[&str] = &["-Ccode-model=kernel", "-Cno-redzone=yes"];

/// Flags of programs: fixed low addresses, segments on pages of their own, so
/// that they are mapped straight from the boot archive. The code model stays the
/// target's own (kernel), because link-time optimisation refuses to mix it with
/// another one; it takes addresses to be sign-extended from 32 bits, which those
/// below 2 GiB are too.
const PROGRAM_FLAGS: &[&str] = &[
    "-Clink-arg=--image-base=0x400000",
    "-Clink-arg=-zseparate-loadable-segments",
];

/// Compiler flags that the kernel is built with.
pub fn kernel_flags() -> Vec<String> {
    [COMMON_FLAGS, KERNEL_FLAGS]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Compiler flags that programs are built with.
pub fn program_flags() -> Vec<String> {
    [COMMON_FLAGS, PROGRAM_FLAGS]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A package of the workspace.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its binaries, but those that are built only with a feature.
    pub binaries: Vec<String>,
    /// Whether its binaries go into the boot archive:
    /// `package.metadata.bulkhead = { image = true }`.
    pub in_image: bool,
    /// Whether they go only into the archive of `cargo xtask bench`: `image = "bench"`.
    pub for_bench: bool,
    /// Whether its tests run under Miri: `miri = true` in the same table.
    pub wants_miri: bool,
    /// Whether its tests run under loom: it depends on it.
    pub uses_loom: bool,
    /// Whether its library does not build on the host: `host = false` in the
    /// same table.
    target_only: bool,
}

impl Package {
    /// Whether its binaries build for the bare target only.
    pub fn is_bare(&self) -> bool {
        self.in_image || self.target_only || self.name == "kernel"
    }

    /// Whether nothing of it builds on the host.
    pub fn is_target_only(&self) -> bool {
        self.target_only
    }
}

/// All packages of the workspace.
///
/// # Errors
///
/// When cargo cannot read a manifest.
pub fn packages() -> anyhow::Result<Vec<Package>> {
    let mut command = setup::cargo();
    command
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace_root());
    let metadata: Value = serde_json::from_slice(&tool::read(&mut command)?)?;
    metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?
        .iter()
        .map(package)
        .collect()
}

fn package(package: &Value) -> anyhow::Result<Package> {
    let ours = &package["metadata"]["bulkhead"];
    let dependencies = package["dependencies"].as_array();
    let mut result = Package {
        name: package["name"].as_str().context("name")?.to_owned(),
        in_image: ours["image"] == true || ours["image"] == "bench",
        for_bench: ours["image"] == "bench",
        wants_miri: ours["miri"] == true,
        target_only: ours["host"] == false,
        uses_loom: dependencies
            .is_some_and(|list| list.iter().any(|dependency| dependency["name"] == "loom")),
        ..Package::default()
    };
    for target in package["targets"].as_array().context("targets")? {
        let name = target["name"].as_str().context("name")?.to_owned();
        match target["kind"][0].as_str() {
            // One that needs a feature is built by whoever turns it on.
            Some("bin") if target["required-features"].is_array() => {}
            Some("bin") => result.binaries.push(name),
            _ => {}
        }
    }
    Ok(result)
}

/// Packages whose binaries are built for the bare target only.
///
/// # Errors
///
/// When cargo cannot read a manifest.
pub fn bare_packages() -> anyhow::Result<Vec<String>> {
    Ok(packages()?
        .into_iter()
        .filter(Package::is_bare)
        .map(|package| package.name)
        .collect())
}

pub(super) fn build_kernel(toolchain: &Toolchain, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut command = toolchain.cargo("build", &kernel_flags());
    command.args(["--package", "kernel", "--bins"]);
    // One program, and the hottest: worth optimising as a whole.
    command.args([
        "--config",
        "profile.release.lto='fat'",
        "--config",
        "profile.release.codegen-units=1",
    ]);
    let folder = format!("kernel{}", toolchain.folder_suffix());
    compile(command, &folder, profile)?
        .remove("kernel")
        .context("package kernel has no binary of that name")
}

pub(super) fn build_programs(
    toolchain: &Toolchain,
    profile: Profile,
) -> anyhow::Result<Vec<Program>> {
    let packages: Vec<Package> = packages()?
        .into_iter()
        .filter(|package| package.in_image)
        .collect();
    let mut owners: BTreeMap<&str, &Package> = BTreeMap::new();
    for package in &packages {
        for binary in &package.binaries {
            if let Some(other) = owners.insert(binary, package) {
                bail!(
                    "packages {} and {} both have a program {binary}",
                    other.name,
                    package.name
                );
            }
        }
    }
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let chosen: Vec<&Package> = packages.iter().collect();
    build_packages(toolchain, profile, &chosen)
}

/// Builds the package that has a program of that name, or that name itself; gives the program.
///
/// # Errors
///
/// [`UsageError`] when there is none; when it does not compile.
pub(super) fn build_program(
    toolchain: &Toolchain,
    profile: Profile,
    name: &str,
) -> anyhow::Result<Program> {
    let packages = packages()?;
    let mut of_image = packages.iter().filter(|package| package.in_image);
    let package = of_image.find(|package| {
        package.name == name || package.binaries.iter().any(|binary| binary == name)
    });
    let package = package.ok_or_else(|| {
        UsageError(format!(
            "no package has a program {name:?} for the system's image"
        ))
    })?;
    let mut programs = build_packages(toolchain, profile, &[package])?;
    let place = programs.iter().position(|program| program.name == name);
    match (place, programs.len()) {
        (Some(place), _) => Ok(programs.swap_remove(place)),
        (None, 1) => Ok(programs.swap_remove(0)),
        (None, _) => Err(UsageError(format!(
            "package {name} has the programs {}; name one",
            package.binaries.join(", ")
        ))
        .into()),
    }
}

fn build_packages(
    toolchain: &Toolchain,
    profile: Profile,
    packages: &[&Package],
) -> anyhow::Result<Vec<Program>> {
    let mut command = toolchain.cargo("build", &program_flags());
    command.arg("--bins");
    for package in packages {
        command.args(["--package", &package.name]);
    }
    let folder = format!("programs{}", toolchain.folder_suffix());
    let files = compile(command, &folder, profile)?;
    let stripped_folder = target_folder(&format!("{folder}/stripped-{}", profile.folder()))?;
    files
        .into_iter()
        .map(|(name, elf)| {
            let stripped = stripped_folder.join(&name);
            strip(&elf, &stripped)?;
            let for_bench = packages
                .iter()
                .any(|package| package.for_bench && package.binaries.contains(&name));
            Ok(Program {
                name,
                for_bench,
                elf,
                stripped,
            })
        })
        .collect()
}

/// Programs of these packages with a feature `PACKAGE/FEATURE` of a package of the workspace.
pub(super) fn build_with_feature(
    toolchain: &Toolchain,
    profile: Profile,
    packages: &[&str],
    feature: &str,
) -> anyhow::Result<Vec<Program>> {
    let (owner, name) = feature.split_once('/').context("PACKAGE/FEATURE")?;
    let mut command = toolchain.cargo("build", &program_flags());
    command.args(["--bins", "--package", owner, "--features", feature]);
    for package in packages {
        command.args(["--package", package]);
    }
    // In a folder of their own: nobody shall take them for those that are shipped.
    let folder = format!("programs-{name}{}", toolchain.folder_suffix());
    let files = compile(command, &folder, profile)?;
    let stripped_folder = target_folder(&format!("{folder}/stripped-{}", profile.folder()))?;
    files
        .into_iter()
        .map(|(name, elf)| {
            let stripped = stripped_folder.join(&name);
            strip(&elf, &stripped)?;
            Ok(Program {
                name,
                for_bench: false,
                elf,
                stripped,
            })
        })
        .collect()
}

/// Runs cargo and gives the binaries that it built, by name.
pub(crate) fn compile(
    mut command: Command,
    folder: &str,
    profile: Profile,
) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    command
        .arg("--target-dir")
        .arg(target_folder(folder)?)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace_root())
        .stdout(Stdio::piped());
    if profile == Profile::Release {
        command.arg("--release");
    }
    let text = tool::shown(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let mut files = BTreeMap::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cargo's output")?;
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        if let (Some(name), Some(file)) = (
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            files.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    let status = child.wait().context("cargo")?;
    if !status.success() {
        bail!("{folder}: the build failed ({status})");
    }
    Ok(files)
}

/// Copies an ELF file without its debug information, unless the copy is newer.
fn strip(elf: &Path, stripped: &Path) -> anyhow::Result<()> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified());
    if let (Ok(from), Ok(to)) = (modified(elf), modified(stripped))
        && to > from
    {
        return Ok(());
    }
    let mut command = tool::command("objcopy");
    command.arg("--strip-debug").arg(elf).arg(stripped);
    tool::run(&mut command, Output::OnFailure)
}
