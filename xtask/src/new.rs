//! `cargo xtask new driver`: a driver's package from a template.
//!
//! The templates are the folders of `xtask/templates`, one for each class: a class is added by adding a folder.
//! In their files `{{name}}`, `{{crate}}`, `{{type}}`, `{{match}}` and `{{rule}}` stand for what the command
//! line says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::UsageError;
use crate::build::cargo::packages;
use crate::build::workspace_root;

/// What `cargo xtask new` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct NewArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// A driver that compiles, has a passing test, and binds in the running system.
    Driver(DriverArgs),
}

/// What `cargo xtask new driver` takes.
#[derive(Clone, Debug, clap::Args)]
struct DriverArgs {
    /// Name of the driver and of its package: small letters, digits and hyphens.
    name: String,
    /// What it serves: block, serial, or none for a device of no class.
    #[arg(long, default_value = "none")]
    class: String,
    /// The device: pci:VVVV:DDDD (vendor and device) or pci-class:CC/SS/PP (class, subclass,
    /// programming interface), in hexadecimal.
    #[arg(long = "match", value_name = "DEVICE")]
    device: String,
    /// Folder for the package's own folder, below the repository's root; else drivers/CLASS,
    /// or examples for a device of no class.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// `cargo xtask new`.
///
/// # Errors
///
/// When the arguments ask for what cannot be, or files cannot be written.
pub fn run(args: &NewArgs) -> anyhow::Result<()> {
    let What::Driver(args) = &args.what;
    let root = workspace_root();
    let name = checked_name(&args.name)?;
    let rule = parse_match(&args.device)?;
    let template = template(&root.join("xtask/templates"), &args.class)?;
    if let Some(taken) = packages()?.iter().find(|package| package.name == name) {
        return Err(usage(format!(
            "there is a package {:?} already; choose another name",
            taken.name
        )));
    }
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from(match args.class.as_str() {
            "none" => "examples".to_owned(),
            "block" => "drivers/storage".to_owned(),
            class => format!("drivers/{class}"),
        }),
    }
    .join(name);
    if root.join(&folder).exists() {
        return Err(usage(format!(
            "{} is there already; choose another name, or remove it",
            folder.display()
        )));
    }
    let words = Words {
        name: name.to_owned(),
        device: args.device.clone(),
        rule,
    };
    write(&template, &root.join(&folder), &words)?;
    eprintln!(
        "xtask: {} is a driver for {}",
        folder.display(),
        args.device
    );
    eprintln!("xtask: its test:       cargo test -p {name}");
    eprintln!(
        "xtask: in the system:  cargo xtask run --exec 'lsdev; log | grep {name}' -- -device ..."
    );
    eprintln!("xtask: what comes next is in docs/src/tutorial.md");
    Ok(())
}

fn usage(text: String) -> anyhow::Error {
    UsageError(text).into()
}

/// What the placeholders stand for.
struct Words {
    name: String,
    device: String,
    rule: String,
}

impl Words {
    fn fill(&self, text: &str) -> String {
        text.replace("{{name}}", &self.name)
            .replace("{{crate}}", &self.name.replace('-', "_"))
            .replace("{{type}}", &type_name(&self.name))
            .replace("{{match}}", &self.device)
            .replace("{{rule}}", &self.rule)
    }
}

/// `my-disk` as `MyDisk`.
fn type_name(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
        })
        .collect()
}

fn checked_name(name: &str) -> anyhow::Result<&str> {
    /// Words that cannot be a crate's name, of those that a driver might get.
    const RESERVED: [&str; 6] = ["test", "core", "std", "alloc", "loop", "move"];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let words = name.split('-').all(|word| !word.is_empty());
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !first || !words || !name.chars().all(plain) || name.len() > 32 || RESERVED.contains(&name) {
        return Err(usage(format!(
            "{name:?} is no driver's name: up to 32 small letters, digits and single hyphens, a letter \
             first, for example my-disk"
        )));
    }
    Ok(name)
}

/// The rule in the driver's manifest.
fn parse_match(text: &str) -> anyhow::Result<String> {
    let bad = || {
        usage(format!(
            "{text:?} names no device: write pci:VVVV:DDDD, for example pci:1234:11e8, or \
             pci-class:CC/SS/PP, for example pci-class:01/08/02 (hexadecimal; `lsdev` and `why` in the \
             system show what a device is)"
        ))
    };
    let numbers = |list: &str, separator, digits: usize| -> Option<Vec<u16>> {
        list.split(separator)
            .map(|part| {
                let hex = part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit());
                hex.then(|| u16::from_str_radix(part, 16).ok()).flatten()
            })
            .collect()
    };
    if let Some(ids) = text.strip_prefix("pci:").and_then(|l| numbers(l, ':', 4))
        && let [vendor, device] = ids[..]
    {
        return Ok(format!("pci_device({vendor:#06x}, {device:#06x})"));
    }
    if let Some(ids) = text
        .strip_prefix("pci-class:")
        .and_then(|l| numbers(l, '/', 2))
        && let [class, subclass, interface] = ids[..]
    {
        return Ok(format!(
            "pci_class({class:#04x}, {subclass:#04x}, {interface:#04x})"
        ));
    }
    Err(bad())
}

/// The folder of a class's template.
fn template(templates: &Path, class: &str) -> anyhow::Result<PathBuf> {
    let mut classes = Vec::new();
    let entries =
        fs::read_dir(templates).with_context(|| format!("cannot read {}", templates.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == class {
            return Ok(entry.path());
        }
        classes.push(name);
    }
    classes.sort();
    Err(usage(format!(
        "there is no template for class {class:?}; there are {}",
        classes.join(", ")
    )))
}

/// Copies a template's files, with the placeholders filled in.
fn write(template: &Path, folder: &Path, words: &Words) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in fs::read_dir(template)? {
        let entry = entry?;
        let target = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            write(&entry.path(), &target, words)?;
            continue;
        }
        let text = fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        fs::write(&target, words.fill(&text))
            .with_context(|| format!("cannot write {}", target.display()))?;
        if target
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            // Names of other lengths break lines elsewhere. Without rustfmt the file is right as well.
            let mut rustfmt = crate::tool::command("rustfmt");
            rustfmt.args(["--edition", "2024", "--config", "skip_children=true"]);
            let _ = rustfmt.arg(&target).status();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_become_rules() {
        assert_eq!(
            parse_match("pci:1234:11e8").unwrap(),
            "pci_device(0x1234, 0x11e8)"
        );
        assert_eq!(
            parse_match("pci-class:01/08/02").unwrap(),
            "pci_class(0x01, 0x08, 0x02)"
        );
        for bad in [
            "",
            "pci",
            "pci:1234",
            "pci:1234:11e8:1",
            "pci:12:34",
            "pci:12345:1234",
            "usb:1234:1234",
            "pci-class:1/8/2",
            "pci:+123:1234",
        ] {
            let text = parse_match(bad).unwrap_err().to_string();
            assert!(text.contains("pci:VVVV:DDDD"), "{text}");
        }
    }

    #[test]
    fn names_are_checked_and_become_types() {
        assert_eq!(type_name("my-disk2"), "MyDisk2");
        assert!(checked_name("my-disk2").is_ok());
        for bad in [
            "", "My", "a_b", "a--b", "-a", "a-", "2a", "core", "a/b", "ä",
        ] {
            assert!(checked_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_class_names_those_that_there_are() {
        let templates = workspace_root().join("xtask/templates");
        let text = template(&templates, "blok").unwrap_err().to_string();
        assert!(text.contains("block") && text.contains("serial"), "{text}");
    }

    #[test]
    fn no_placeholder_is_left_in_any_template() {
        let words = Words {
            name: "my-disk".to_owned(),
            device: "pci:1234:11e8".to_owned(),
            rule: "pci_device(0x1234, 0x11e8)".to_owned(),
        };
        for class in ["block", "none", "serial"] {
            let folder = tempfile::tempdir().unwrap();
            let template = workspace_root().join("xtask/templates").join(class);
            write(&template, folder.path(), &words).unwrap();
            for file in ["Cargo.toml", "src/lib.rs", "src/main.rs", "src/tests.rs"] {
                let text = fs::read_to_string(folder.path().join(file)).unwrap();
                assert!(!text.contains("{{"), "{class}/{file}");
            }
        }
    }
}
