//! The cargo runs, and what they say they built.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
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

/// Names all packages of which something builds on the host, for a cargo run that wants one or all of them: with
/// another choice, dependencies have other features and are built again.
///
/// # Errors
///
/// When cargo cannot read a manifest.
pub fn name_host_packages(command: &mut Command) -> anyhow::Result<()> {
    for package in packages()?.iter().filter(|package| !package.target_only) {
        command.args(["--package", &package.name]);
    }
    Ok(())
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

/// Folders, in a build folder of programs, of the files with debug information and of those without.
const FULL: &str = "full";
const STRIPPED: &str = "stripped";

/// Builds all programs.
pub(super) fn build_programs(
    toolchain: &Toolchain,
    profile: Profile,
) -> anyhow::Result<Vec<Program>> {
    let packages = image_packages()?;
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
    let binaries: Vec<&str> = owners.into_keys().collect();
    build_binaries(toolchain, profile, &packages, &binaries, None)
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
    let packages = image_packages()?;
    let package = packages.iter().find(|package| {
        package.name == name || package.binaries.iter().any(|binary| binary == name)
    });
    let package = package.ok_or_else(|| {
        UsageError(format!(
            "no package has a program {name:?} for the system's image"
        ))
    })?;
    let own = package.binaries.iter().find(|binary| *binary == name);
    let binary = match (own, package.binaries.as_slice()) {
        (Some(binary), _) => binary,
        (None, [binary]) => binary,
        (None, _) => {
            return Err(UsageError(format!(
                "package {name} has the programs {}; name one",
                package.binaries.join(", ")
            ))
            .into());
        }
    };
    let programs = build_binaries(toolchain, profile, &packages, &[binary], None)?;
    let program = programs.into_iter().next();
    program.with_context(|| format!("cargo says nothing of {binary}"))
}

/// Programs of these packages with a feature `PACKAGE/FEATURE` of a package of the workspace.
pub(super) fn build_with_feature(
    toolchain: &Toolchain,
    profile: Profile,
    names: &[&str],
    feature: &str,
) -> anyhow::Result<Vec<Program>> {
    let packages = image_packages()?;
    let chosen = packages
        .iter()
        .filter(|package| names.contains(&package.name.as_str()));
    let binaries: Vec<&str> = chosen
        .flat_map(|package| package.binaries.iter().map(String::as_str))
        .collect();
    build_binaries(toolchain, profile, &packages, &binaries, Some(feature))
}

fn image_packages() -> anyhow::Result<Vec<Package>> {
    let mut packages = packages()?;
    packages.retain(|package| package.in_image);
    Ok(packages)
}

/// Builds these programs. All packages of the image are named, however few programs are wanted: with another choice,
/// dependencies have other features and are built again.
fn build_binaries(
    toolchain: &Toolchain,
    profile: Profile,
    packages: &[Package],
    binaries: &[&str],
    feature: Option<&str>,
) -> anyhow::Result<Vec<Program>> {
    if binaries.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = toolchain.cargo("build", &program_flags());
    for package in packages {
        command.args(["--package", &package.name]);
    }
    for binary in binaries {
        command.args(["--bin", binary]);
    }
    let suffix = toolchain.folder_suffix();
    let folder = format!("programs{suffix}");
    let mut products = folder.clone();
    if let Some(feature) = feature {
        let (owner, name) = feature.split_once('/').context("PACKAGE/FEATURE")?;
        command.args(["--package", owner, "--features", feature]);
        // Nobody shall take them for those that are shipped.
        products = format!("programs-{name}{suffix}");
    }
    let products_in =
        |kind: &str| target_folder(&format!("{products}/{kind}-{}", profile.folder()));
    let (full, stripped) = (products_in(FULL)?, products_in(STRIPPED)?);
    // Cargo gives a program the same place with and without a feature: until it is taken from there, nobody else builds.
    let _turn = Turn::wait(&target_folder(&folder)?)?;
    let files = compile(command, &folder, profile)?;
    let built = files.into_iter().map(|(name, elf)| {
        let (full, stripped) = (full.join(&name), stripped.join(&name));
        if take(&elf, &full)? || !stripped.is_file() {
            strip(&full, &stripped)?;
        }
        let for_bench = packages
            .iter()
            .any(|package| package.for_bench && package.binaries.contains(&name));
        Ok(Program {
            name,
            for_bench,
            elf: full,
            stripped,
        })
    });
    built.collect()
}

/// The right to build in a folder, among all processes; given back when it is dropped.
struct Turn(#[expect(dead_code, reason = "its lock is held while it is open")] fs::File);

impl Turn {
    fn wait(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(".bulkhead-lock");
        let file = fs::File::create(&file).with_context(|| file.display().to_string())?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(Self(file))
    }
}

/// Gives a file a second name, unless it has it; whether it was new.
fn take(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let inode = |path: &Path| fs::metadata(path).map(|data| data.ino());
    if let (Ok(a), Ok(b)) = (inode(from), inode(to))
        && a == b
    {
        return Ok(false);
    }
    // Whoever reads the old one keeps it.
    let new = to.with_extension("new");
    let _ = fs::remove_file(&new);
    fs::hard_link(from, &new).with_context(|| new.display().to_string())?;
    fs::rename(&new, to).with_context(|| to.display().to_string())?;
    Ok(true)
}

/// Programs that were built before and are still there, with whatever feature and profile.
pub(super) fn built_before(name: &str) -> anyhow::Result<Vec<Program>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace_root().join("target"))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("programs") {
            continue;
        }
        for profile in [Profile::Release, Profile::Debug].map(Profile::folder) {
            let product = |kind: &str| entry.path().join(format!("{kind}-{profile}")).join(name);
            let (elf, stripped) = (product(FULL), product(STRIPPED));
            if elf.is_file() && stripped.is_file() {
                found.push(Program {
                    name: name.to_owned(),
                    for_bench: false,
                    elf,
                    stripped,
                });
            }
        }
    }
    Ok(found)
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

/// Copies an ELF file without its debug information.
fn strip(elf: &Path, stripped: &Path) -> anyhow::Result<()> {
    let mut command = tool::command("objcopy");
    command.arg("--strip-debug").arg(elf).arg(stripped);
    tool::run(&mut command, Output::OnFailure)
}
