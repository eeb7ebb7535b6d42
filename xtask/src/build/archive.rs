//! Puts the boot archive together.

use std::path::Path;

use anyhow::Context;
use boot::archive::Writer;

use super::{Built, Program, workspace_root};

/// What one run adds to the boot archive.
#[derive(Clone, Debug, Default)]
pub struct ArchiveExtras {
    /// Shell commands that the system runs instead of an interactive shell:
    /// the member `etc/exec`.
    pub exec: Option<String>,
    /// Also the programs that are there to measure with only.
    pub bench: bool,
    /// Programs that are left out.
    pub without: Vec<String>,
    /// Further members: name and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Programs that are another one in this run: the name, and whose program has it.
    pub replaced: Vec<(&'static str, &'static str)>,
}

/// Writes the boot archive: `bin/*`, the repository's `etc/*`,
/// and the extras. A run that is reading the previous file keeps that one.
///
/// # Errors
///
/// When a file cannot be read or written, or a name is used twice.
pub fn write_archive(built: &Built, extras: &ArchiveExtras, file: &Path) -> anyhow::Result<()> {
    let mut writer = Writer::new();
    let wanted = |program: &&Program| {
        (extras.bench || !program.for_bench) && !extras.without.contains(&program.name)
    };
    for program in built.programs.iter().filter(wanted) {
        let other = extras
            .replaced
            .iter()
            .find(|(name, _)| *name == program.name);
        let program = match other {
            Some((name, other)) => {
                let found = built.programs.iter().find(|p| p.name == *other);
                &Program {
                    name: (*name).to_owned(),
                    ..found
                        .with_context(|| format!("no program {other}"))?
                        .clone()
                }
            }
            None => program,
        };
        let data = std::fs::read(&program.stripped)
            .with_context(|| format!("cannot read {}", program.stripped.display()))?;
        writer.add_program(&format!("bin/{}", program.name), data)?;
    }
    let etc = workspace_root().join("etc");
    let entries =
        std::fs::read_dir(&etc).with_context(|| format!("cannot read {}", etc.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().context("a name in etc is not UTF-8")?;
        let data = std::fs::read(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        writer.add_file(&format!("etc/{name}"), data)?;
    }
    if let Some(commands) = &extras.exec {
        let mut script = commands.clone();
        if !script.ends_with('\n') {
            script.push('\n');
        }
        writer.add_file("etc/exec", script.into_bytes())?;
    }
    for (name, data) in &extras.files {
        writer.add_file(name, data.clone())?;
    }
    let folder = file.parent().context("the archive's path has no folder")?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut temporary, &writer.finish()?)?;
    temporary
        .persist(file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
