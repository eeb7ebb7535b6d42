//! Linux as a guest: Debian's kernel and modules, and an initial RAM disk of ours.
//!
//! The kernel comes from the distribution's package, which is unpacked below
//! `target/` and not installed.

mod cpio;
mod kernel_image;
pub mod vfio;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::build;
use crate::tool::{self, Output};

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The one for virtual machines: it has the drivers of paravirtual devices and NVMe.
    Cloud,
    /// The one for every machine.
    Generic,
}

impl Flavour {
    /// The package that always depends on the newest kernel.
    fn package(self) -> &'static str {
        match self {
            Flavour::Cloud => "linux-image-cloud-amd64",
            Flavour::Generic => "linux-image-amd64",
        }
    }

    /// The folder below `target/`.
    fn folder(self) -> &'static str {
        match self {
            Flavour::Cloud => "linux",
            Flavour::Generic => "linux-generic",
        }
    }
}

/// A kernel, and the modules that belong to it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// ELF file with a PVH entry.
    pub image: PathBuf,
    /// The folder with its modules.
    release: PathBuf,
}

impl Kernel {
    /// Gets the kernel, if it is not there yet.
    ///
    /// # Errors
    ///
    /// When the package cannot be had.
    pub fn prepare(flavour: Flavour) -> anyhow::Result<Self> {
        let folder = build::target_folder(flavour.folder())?;
        let tree = kernel_package(flavour, &folder)?;
        let release = only_entry(&tree.join("lib/modules"))?;
        let image = folder.join("vmlinux");
        if !image.is_file() {
            let packed = tree.join(format!("boot/vmlinuz-{}", name_of(&release)?));
            let packed =
                fs::read(&packed).with_context(|| format!("cannot read {}", packed.display()))?;
            fs::write(&image, kernel_image::unpack(&packed)?)?;
        }
        Ok(Self { image, release })
    }

    /// An initial RAM disk with these files, the modules with what they need, and a
    /// file `modules` that names them in the order in which they have to be loaded.
    ///
    /// # Errors
    ///
    /// When the kernel has no such module.
    pub fn initrd<N: AsRef<str>>(
        &self,
        modules: &[&str],
        files: &[(N, Vec<u8>)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut archive = cpio::Archive::default();
        for (name, data) in files {
            archive.add(name.as_ref(), data);
        }
        let mut list = String::new();
        for module in modules_in_load_order(&self.release, modules)? {
            archive.add(&format!("{}.ko", module.name), &module.data);
            list.push_str(&format!("/{}.ko\n", module.name));
        }
        archive.add("modules", list.as_bytes());
        Ok(archive.finish())
    }
}

/// The folder where the kernel's package is unpacked.
fn kernel_package(flavour: Flavour, folder: &Path) -> anyhow::Result<PathBuf> {
    let tree = folder.join("package");
    if tree.join("lib/modules").is_dir() {
        return Ok(tree);
    }
    let meta = flavour.package();
    let depends = tool::read(tool::command("apt-cache").args(["depends", meta]));
    let package = depends
        .ok()
        .and_then(|text| package_in(&String::from_utf8_lossy(&text)))
        .with_context(|| {
            format!("package {meta} is not known; is this Debian, and was `apt-get update` run?")
        })?;
    let tree = unpacked(&package, folder)?;
    let _ = fs::remove_file(folder.join("vmlinux"));
    Ok(tree)
}

/// The folder with the files of a package of Debian's, which is fetched if it is not there and not installed.
///
/// # Errors
///
/// When it cannot be had.
pub fn unpacked(package: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let tree = folder.join("package");
    if tree.is_dir() {
        return Ok(tree);
    }
    if tool::find("apt-get").is_none() || tool::find("dpkg-deb").is_none() {
        bail!("this needs Debian's package {package}, and this system has no apt");
    }
    eprintln!("xtask: downloading {package} (as a guest; not installed)");
    let download = tempfile::tempdir_in(folder)?;
    tool::run(
        tool::command("apt-get")
            .args(["download", "-q", package])
            .current_dir(download.path()),
        Output::OnFailure,
    )?;
    let deb = only_entry(download.path())?;
    // Under another name until it is complete.
    let partial = download.path().join("tree");
    tool::run(
        tool::command("dpkg-deb").arg("-x").arg(&deb).arg(&partial),
        Output::OnFailure,
    )?;
    fs::rename(&partial, &tree)?;
    Ok(tree)
}

/// The kernel package in the output of `apt-cache depends`.
fn package_in(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry?.path()),
        _ => bail!("{} does not have exactly one entry", folder.display()),
    }
}

fn name_of(path: &Path) -> anyhow::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.with_context(|| path.display().to_string())
}

struct Module {
    name: String,
    data: Vec<u8>,
}

/// These modules and what they need, each after what it needs. What is built into the
/// kernel is left out.
fn modules_in_load_order(release: &Path, wanted: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut files = Vec::new();
    module_files(&release.join("kernel"), &mut files)?;
    let built_in = fs::read_to_string(release.join("modules.builtin"))?;
    let mut order = Vec::new();
    for name in wanted {
        add_module(name, &files, &built_in, &mut order)?;
    }
    Ok(order)
}

fn add_module(
    name: &str,
    files: &[PathBuf],
    built_in: &str,
    order: &mut Vec<Module>,
) -> anyhow::Result<()> {
    // In file names a dash stands for an underscore.
    let is_it = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(|stem| stem.replace('-', "_") == name)
    };
    if order.iter().any(|module| module.name == name)
        || built_in.lines().any(|line| is_it(Path::new(line)))
    {
        return Ok(());
    }
    let file = files.iter().find(|file| is_it(file));
    let file = file.with_context(|| format!("this kernel has no module {name}"))?;
    let data = fs::read(file)?;
    for needed in needed_modules(&data)? {
        add_module(&needed, files, built_in, order)?;
    }
    order.push(Module {
        name: name.to_owned(),
        data,
    });
    Ok(())
}

/// What a module says that it depends on: `depends=A,B` in its section `.modinfo`.
fn needed_modules(module: &[u8]) -> anyhow::Result<Vec<String>> {
    let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(module)?;
    let header = file
        .section_header_by_name(".modinfo")?
        .context("a module has no .modinfo")?;
    let (info, _) = file.section_data(&header)?;
    let depends = info
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .context("a module does not say what it depends on")?;
    Ok(String::from_utf8_lossy(depends)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

fn module_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            module_files(&entry.path(), files)?;
        } else if entry.path().extension().is_some_and(|e| e == "ko") {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_kernel_that_the_meta_package_stands_for() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n";
        assert_eq!(
            package_in(text).as_deref(),
            Some("linux-image-6.1.0-1-cloud-amd64")
        );
        assert_eq!(package_in("linux-image-cloud-amd64\n"), None);
    }
}
