//! Linux as the other system: Debian's kernel, and an initial RAM disk that holds one
//! program, ours, and the modules that it needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::wire::PAGE_BYTES;
use crate::build;
use crate::linux::{self, Flavour, Kernel};
use crate::tool::{self, Output};

/// What the rows need beside the kernel itself; what these depend on is added.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "nvme",
    "ext4",
    "uio_pci_generic",
];

/// What the network's rows need.
const NETWORK_MODULES: &[&str] = &["virtio_pci", "virtio_net", "e1000", "e1000e"];

/// The page of the web server's row.
pub const PAGE: &str = "/page.html";

/// One worker, nothing written per request, as many requests as anybody wants on a connection; its folders are where it may
/// make them.
const NGINX: &str = "\
daemon off; worker_processes 1; user root; pid /nginx.pid; error_log stderr crit;
events { worker_connections 256; }
http {
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; open_file_cache max=16;
    client_body_temp_path /body; proxy_temp_path /proxy; fastcgi_temp_path /fastcgi; uwsgi_temp_path /uwsgi;
    scgi_temp_path /scgi;
    server { listen 80 default_server backlog=128; root /; }
}
";

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
        let kernel = Kernel::prepare(Flavour::Cloud)?;
        let files = programs(&folder)?;
        let initrd = folder.join("initrd");
        fs::write(&initrd, kernel.initrd(MODULES, &files)?)?;
        Ok(Self {
            kernel: kernel.image,
            initrd,
        })
    }

    /// Gets a kernel with drivers of real interfaces, and the web server.
    ///
    /// # Errors
    ///
    /// When a package cannot be had or the program does not compile.
    pub fn prepare_server() -> anyhow::Result<Self> {
        let folder = build::target_folder("peer")?;
        let kernel = Kernel::prepare(Flavour::Generic)?;
        let named = |(name, data): (&str, Vec<u8>)| (name.to_owned(), data);
        let mut files: Vec<_> = programs(&folder)?.into_iter().map(named).collect();
        files.extend(web_server()?);
        files.push(("nginx.conf".to_owned(), NGINX.into()));
        files.push(("page.html".to_owned(), vec![b'.'; PAGE_BYTES]));
        files.push(("passwd".to_owned(), b"root:x:0:0:::\n".into()));
        files.push(("group".to_owned(), b"root:x:0:\n".into()));
        let initrd = folder.join("initrd-net");
        fs::write(&initrd, kernel.initrd(NETWORK_MODULES, &files)?)?;
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

/// Debian's nginx with the libraries of the host that it needs, and their loader.
fn web_server() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let tree = linux::unpacked("nginx", &build::target_folder("nginx")?)?;
    let program = tree.join("usr/sbin/nginx");
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = vec![("nginx".to_owned(), read(&program)?)];
    let libraries = tool::read(tool::command("ldd").arg(&program))?;
    for line in String::from_utf8_lossy(&libraries).lines() {
        // `NAME => PATH (ADDRESS)`, and of the loader only its path.
        let mut words = line.split_whitespace();
        let (Some(name), rest) = (words.next(), words.collect::<Vec<_>>()) else {
            continue;
        };
        match (name.contains("ld-linux"), rest.as_slice()) {
            (true, _) => files.push(("loader".to_owned(), read(Path::new(name))?)),
            (false, ["=>", "not", ..]) => {
                bail!("nginx needs the library {name}, which is not here")
            }
            (false, ["=>", path, ..]) => files.push((name.to_owned(), read(Path::new(path))?)),
            (false, _) => {}
        }
    }
    Ok(files)
}

/// Compiles the measuring program and the program that it starts and ends.
fn programs(folder: &Path) -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
    let sources = build::workspace_root().join("xtask/peer");
    let init = folder.join("bench");
    let mut compile = tool::command("gcc");
    compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]);
    compile.arg("-o").arg(&init);
    for file in ["main.c", "ipc.c", "process.c", "irq.c", "block.c", "net.c"] {
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
