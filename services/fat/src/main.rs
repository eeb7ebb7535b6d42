//! The service for FAT12, FAT16 and FAT32 volumes: one process a volume.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::rc::Rc;

use fat::Fat;
use fs_server::{DiskCache, Format, disk_service};

rt::entry!(main);

fn main() {
    let code = disk_service(Format {
        name: "fat",
        has_signature: fat::has_signature,
        mount: async |cache: Rc<DiskCache>| Fat::mount(cache).await,
    });
    if code != 0 {
        rt::exit(code);
    }
}
