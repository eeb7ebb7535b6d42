//! Has a disk driver follow a recording, with no device: `replay FILE`. To be run in a debugger, too.

use std::process::ExitCode;

use ddk_class_block::BlockDevice;
use ddk_instrument::Recording;
use ddk_trace_block::{Followed, NotFollowed, driver_of, replay};

type Follow = fn(Recording) -> Result<Followed, NotFollowed>;

/// The drivers here, by the names in their manifests.
fn drivers() -> [(String, Follow); 2] {
    fn driver<D: BlockDevice>() -> (String, Follow) {
        (D::MANIFEST.name().to_owned(), replay::<D>)
    }
    [driver::<nvme::Nvme>(), driver::<virtio_blk::VirtioBlk>()]
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: replay FILE");
        return ExitCode::from(2);
    };
    match run(&file) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("replay: {file}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &str) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let recording = Recording::from_bytes(&bytes).map_err(|error| error.to_string())?;
    let name = driver_of(&recording).ok_or("no class layer asked a driver for anything")?;
    let driver = drivers().into_iter().find(|(known, _)| *known == name);
    let (_, follow) = driver.ok_or_else(|| format!("no driver {name} here"))?;
    let followed = follow(recording).map_err(|error| format!("{name} {error}"))?;
    Ok(format!("{name} {followed}"))
}
