//! Linux as the other system: Debian's kernel, and an initial RAM disk that holds one
//! program, ours, and the modules that it needs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build;
use crate::linux::Kernel;
use crate::tool::{self, Output};

/// What the rows need beside the kernel itself; what these depend on is added.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "nvme",
    "ext4",
    "uio_pci_generic",
];

/// Without mitigations, without security modules and accounting, without hardening
/// that Bulkhead does not have either.
const TUNED: &str = "mitigations=off psi=0 lsm=capability apparmor=0 audit=0 \
    init_on_alloc=0 randomize_kstack_offset=off hardened_usercopy=off";

/// How Linux is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// With the options that make it as fast as it gets.
    Fast,
    /// As Debian ships it.
    Default,
}

/// A Linux that can be booted.
#[derive(Clone, Debug)]
pub struct Linux {
    /// ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

impl Linux {
    /// Gets the kernel, if it is not there yet, and builds the program.
    ///
    /// # Errors
    ///
    /// When the package cannot be had or the program does not compile.
    pub fn prepare() -> anyhow::Result<Self> {
        let folder = build::target_folder("peer")?;
        let kernel = Kernel::prepare()?;
        let files = programs(&folder)?;
        let initrd = folder.join("initrd");
        fs::write(&initrd, kernel.initrd(MODULES, &files)?)?;
        Ok(Self {
            kernel: kernel.image,
            initrd,
        })
    }

    /// The kernel's command line for a run of these rows.
    pub fn command_line(tuning: Tuning, rows: &[&str]) -> String {
        let tuned = match tuning {
            Tuning::Fast => TUNED,
            Tuning::Default => "",
        };
        format!(
            "console=ttyS0 quiet panic=-1 {tuned} bench.rows={}",
            rows.join(",")
        )
    }
}

/// Compiles the measuring program and the program that it starts and ends.
fn programs(folder: &Path) -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
    let sources = build::workspace_root().join("xtask/peer");
    let init = folder.join("bench");
    let mut compile = tool::command("gcc");
    compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]);
    compile.arg("-o").arg(&init);
    for file in ["main.c", "ipc.c", "process.c", "irq.c", "block.c"] {
        compile.arg(sources.join(file));
    }
    tool::run(&mut compile, Output::OnFailure)?;
    let trivial = folder.join("true");
    let mut compile = tool::command("gcc");
    compile.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-o"]);
    compile.arg(&trivial).arg(sources.join("true.S"));
    tool::run(&mut compile, Output::OnFailure)?;
    Ok([("init", fs::read(init)?), ("true", fs::read(trivial)?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fast_peer_is_tuned() {
        let rows = ["spawn", "boot"];
        let fast = Linux::command_line(Tuning::Fast, &rows);
        assert!(fast.contains("mitigations=off") && fast.ends_with("bench.rows=spawn,boot"));
        assert!(!Linux::command_line(Tuning::Default, &rows).contains("mitigations"));
    }
}
