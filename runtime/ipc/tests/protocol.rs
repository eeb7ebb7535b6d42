//! The macro's output, over the host's stand-in for the kernel.
#![allow(missing_docs, reason = "a test")]

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsError {
    NotFound,
    Other(String),
}

ipc::protocol! {
    /// Files.
    pub protocol Files("test.files", version = 3, error = FsError) {
        /// Opens.
        1 = open(path: String, flags: u32) -> (size: u64; file: ipc::Channel);
        /// Handles only.
        2 = attach(name: String; disk: ipc::Channel, log: Option<ipc::Event>, more: Vec<ipc::Handle>) -> ();
        /// No reply.
        3 = hint(offset: u64);
        /// One result.
        4 = size(path: String) -> (size: u64);
        /// Nothing at all.
        5 = sync() -> ();
        /// A client as a handle.
        6 = sub_folder(path: String) -> (; files: FilesClient);
        /// Lists.
        7 = list(paths: Vec<String>) -> (sizes: Vec<u64>, total: u64);
    }
}

#[allow(dead_code, reason = "compiled, not run")]
fn uses(client: &FilesClient) -> Result<(), ipc::CallError<FsError>> {
    let (_size, _file): (u64, ipc::Channel) = client.open("/x", 3u32)?;
    let _: u64 = client.size(&String::from("x"))?;
    client.sync()?;
    client.hint(4u64)?;
    let _: FilesClient = client.sub_folder("x")?;
    let (_sizes, _total) = client.list(&vec![String::new()])?;
    Ok(())
}
