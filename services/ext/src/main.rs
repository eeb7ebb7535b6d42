//! The service for ext2, ext3 and ext4 volumes: one process a volume.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::rc::Rc;

use ext::Ext;
use fs_server::{DiskCache, Format, disk_service};

rt::entry!(main);

fn main() {
    let code = disk_service(Format {
        name: "ext",
        has_signature: ext::has_signature,
        mount: async |cache: Rc<DiskCache>| {
            let ext = Ext::mount(cache).await?;
            warn(ext.warnings());
            Ok(ext)
        },
    });
    if code != 0 {
        rt::exit(code);
    }
}

/// Tells the operator what state the volume is in.
fn warn(warnings: ext::Warnings) {
    if warnings.journal_not_replayed {
        rt::warn!(
            "ext: the journal was not replayed: the last changes before a crash are not seen"
        );
    } else if warnings.not_clean {
        rt::warn!("the volume was not unmounted cleanly");
    }
    if warnings.has_errors {
        rt::warn!("the volume is marked as having errors");
    }
}
