//! `umount`: unmounts volumes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool};
unix::program!("umount", HELP, run);

const HELP: &str = "\
Usage: umount DIRECTORY...
Unmount what is mounted on each DIRECTORY. With open files it is busy, unless its disk
is gone; then the number of files that were lost is told.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let operands = tool.operands()?;
    if operands.is_empty() {
        return Err(Stop::Usage(String::from("bad usage")));
    }
    for target in &operands {
        match unix::fs::unmount(target) {
            Ok(0) => {}
            // It is unmounted all the same.
            Ok(lost) => tool.warn(format_args!(
                "{target}: the disk is gone; open files lost: {lost}"
            )),
            Err(error) => {
                tool.fail(format_args!("{target}: {}", tools::unmount_text(error)));
                tool.status = 32;
            }
        }
    }
    Ok(())
}
