//! The same command lines with these tools and with the host's (GNU coreutils, findutils, grep,
//! diffutils; hexdump of util-linux): output, error messages and exit status must be equal.
//! The host's tools are the judge.

use std::path::Path;
use std::process::{Command, Stdio};

const TOOLS: &[(&str, &str)] = &[
    ("basename", env!("CARGO_BIN_EXE_basename")),
    ("cat", env!("CARGO_BIN_EXE_cat")),
    ("cmp", env!("CARGO_BIN_EXE_cmp")),
    ("cut", env!("CARGO_BIN_EXE_cut")),
    ("date", env!("CARGO_BIN_EXE_date")),
    ("dd", env!("CARGO_BIN_EXE_dd")),
    ("dirname", env!("CARGO_BIN_EXE_dirname")),
    ("env", env!("CARGO_BIN_EXE_env")),
    ("find", env!("CARGO_BIN_EXE_find")),
    ("grep", env!("CARGO_BIN_EXE_grep")),
    ("head", env!("CARGO_BIN_EXE_head")),
    ("hexdump", env!("CARGO_BIN_EXE_hexdump")),
    ("ls", env!("CARGO_BIN_EXE_ls")),
    ("mkdir", env!("CARGO_BIN_EXE_mkdir")),
    ("readlink", env!("CARGO_BIN_EXE_readlink")),
    ("rm", env!("CARGO_BIN_EXE_rm")),
    ("rmdir", env!("CARGO_BIN_EXE_rmdir")),
    ("seq", env!("CARGO_BIN_EXE_seq")),
    ("sha256sum", env!("CARGO_BIN_EXE_sha256sum")),
    ("sort", env!("CARGO_BIN_EXE_sort")),
    ("stat", env!("CARGO_BIN_EXE_stat")),
    ("tail", env!("CARGO_BIN_EXE_tail")),
    ("tee", env!("CARGO_BIN_EXE_tee")),
    ("tr", env!("CARGO_BIN_EXE_tr")),
    ("uniq", env!("CARGO_BIN_EXE_uniq")),
    ("wc", env!("CARGO_BIN_EXE_wc")),
    ("xargs", env!("CARGO_BIN_EXE_xargs")),
    ("yes", env!("CARGO_BIN_EXE_yes")),
];

/// Output, errors and status of a script, run by the host's shell with this PATH.
fn run(script: &str, path: &str, directory: &Path) -> (String, String, i32) {
    // A tool that hangs differs from the host's too.
    let output = Command::new("/usr/bin/timeout")
        .args(["10", "/bin/sh", "-c"])
        .arg(script)
        .current_dir(directory)
        .env_clear()
        .env("PATH", path)
        // Plain quotes and bytewise order, as in the C locale; messages as people have them.
        .env("LC_MESSAGES", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .expect("the host has a shell");
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
        output.status.code().unwrap_or(-1),
    )
}

/// Files to work on; the times of all are fixed.
fn fill(root: &Path) {
    let write = |name: &str, contents: &[u8]| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("directory");
        std::fs::write(path, contents).expect("file");
    };
    write("empty", b"");
    write(
        "words",
        b"the quick brown fox\njumps over\n\nthe lazy dog\nThe End\n",
    );
    write("unfinished", b"no newline\nat the end");
    write("numbers", b"10\n9\n-3\n2.5\n2.50\n0\n007\nabc\n1K\n");
    write("fields", b"a:b:c\nd:e\nplain\n:x:\n");
    write("blanks", b"  x 3\ny  1\n z 2 k\n");
    write("repeats", b"a\na\nb\nA\na\na\nc\n");
    write(
        "binary",
        &(0..=255u8).cycle().take(1000).collect::<Vec<_>>(),
    );
    write("zeros", &[0; 5000]);
    write(
        "many",
        (1..=3000)
            .map(|n| format!("line {n}\n"))
            .collect::<String>()
            .as_bytes(),
    );
    write("tree/a.txt", b"alpha fox\n");
    write("tree/b.rs", b"fn main() {}\n");
    write("tree/.hidden", b"hidden fox\n");
    write("tree/sub/deep/c.txt", b"gamma\n");
    write("tree/sub/empty", b"");
    write("tree/name with space", b"space\n");
    write("tree/longer-name-than-others.text", b"x\n");
    std::fs::create_dir_all(root.join("tree/void")).expect("directory");
    std::os::unix::fs::symlink("a.txt", root.join("tree/link")).expect("link");
    std::os::unix::fs::symlink("nowhere", root.join("tree/dangling")).expect("link");
    std::os::unix::fs::symlink("sub", root.join("tree/dirlink")).expect("link");
    let sparse = std::fs::File::create(root.join("sparse")).expect("file");
    sparse.set_len(5 << 30).expect("sparse file");
    let script = "chmod 755 tree/b.rs; chmod 600 words; chmod 4711 numbers; chmod 1777 tree/void
        find . -exec touch -h -d '2001-02-03 04:05:06.789' {} +
        touch -d '2009-01-01' words; touch -d '1999-01-01' tree/a.txt
        touch -d '2030-06-07 08:09' fields";
    let (_, errors, status) = run(script, "/usr/bin:/bin", root);
    assert!(status == 0 && errors.is_empty(), "{errors}");
}

#[test]
fn same_as_the_host() {
    let bin = tempfile::tempdir().expect("temporary directory");
    for (name, program) in TOOLS {
        std::os::unix::fs::symlink(program, bin.path().join(name)).expect("link");
    }
    let ours = format!("{}:/usr/bin:/bin", bin.path().display());
    // The same directory for both, so that inodes and sizes of directories are the same.
    let data = tempfile::tempdir().expect("temporary directory");
    fill(data.path());
    let has_hexdump = Path::new("/usr/bin/hexdump").exists();
    let mut differences = Vec::new();
    let (mut lines, mut left_out) = (0, 0);
    for line in include_str!("commands.txt").lines() {
        if line.is_empty() || line.starts_with("##") {
            continue;
        }
        if line.contains("hexdump") && !has_hexdump {
            left_out += 1;
            continue;
        }
        lines += 1;
        let expected = run(line, "/usr/bin:/bin", data.path());
        let got = run(line, &ours, data.path());
        if expected != got {
            differences.push(format!("--- {line}\nhost {expected:?}\nours {got:?}\n"));
        }
    }
    if left_out > 0 {
        println!("not run: {left_out} lines, the host has no hexdump");
    }
    assert!(lines > 200, "only {lines} command lines");
    assert!(
        differences.is_empty(),
        "{} of {lines} differ:\n{}",
        differences.len(),
        differences.concat()
    );
}
