//! The same scripts in this shell and in `dash`: output and exit status must be equal. Dash is the
//! judge; a script on which the two may differ for good reasons does not belong here.

use std::path::Path;
use std::process::{Command, Stdio};

fn run(shell: &Path, script: &str, directory: &Path) -> (String, i32) {
    let output = Command::new(shell)
        .arg("-c")
        .arg(script)
        .arg("sh")
        .args(["one", "two words", "three"])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .env("HOME", "/home/x")
        .env_remove("OLDPWD")
        .stdin(Stdio::null())
        .output()
        .expect("the shell starts");
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code().unwrap_or(-1),
    )
}

fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    for name in [
        "a.txt",
        "b.txt",
        "c.rs",
        ".hidden",
        "d e",
        "[x]",
        "sub/one",
        "sub/two",
        "sub/deep/three",
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("directory");
        std::fs::write(&path, format!("contents of {name}\nline two\nline three\n")).expect("file");
    }
    dir
}

#[test]
fn same_as_dash() {
    let Some(dash) = ["/bin/dash", "/usr/bin/dash"]
        .iter()
        .map(Path::new)
        .find(|p| p.exists())
    else {
        panic!("this test needs dash");
    };
    let ours = Path::new(env!("CARGO_BIN_EXE_sh"));
    let corpus = include_str!("corpus.txt");
    let mut scripts = 0;
    let mut differences = Vec::new();
    for script in corpus
        .split("\n====\n")
        .map(str::trim_end)
        .filter(|s| !s.is_empty())
    {
        scripts += 1;
        let expected = run(dash, script, fixture().path());
        let got = run(ours, script, fixture().path());
        if expected != got {
            differences.push(format!("--- {script}\ndash {expected:?}\nsh   {got:?}\n"));
        }
    }
    assert!(scripts > 100, "only {scripts} scripts found");
    assert!(
        differences.is_empty(),
        "{} of {scripts} differ:\n{}",
        differences.len(),
        differences.join("")
    );
}

#[test]
fn a_missing_command_is_one_clear_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_sh"))
        .args(["-c", "no-such-command arg"])
        .output()
        .expect("the shell starts");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "sh: no-such-command: command not found\n"
    );
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn a_fault_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_sh"))
        .args(["-c", "/bin/sh -c 'kill -SEGV $$'; echo $?"])
        .output()
        .expect("the shell starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "139\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/bin/sh: "));
}
