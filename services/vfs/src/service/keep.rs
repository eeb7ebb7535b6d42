//! What outlives this process: every mount with the channel to its service, so that the services, and with them all
//! open files, go on while there is no VFS.

use alloc::{format, rc::Rc, string::String, vec::Vec};

use ipc::{Channel, Handle, Process, sys::AsHandle, sys::HandleType};
use proto::fs::VolumeInfo;
use rt::process::Child;
use serde::{Deserialize, Serialize};

use super::{
    boot_mounts::BOOT,
    server::Vfs,
    volumes::{Kept, Origin, Service, program},
};

/// Present once what is mounted at boot is mounted.
const BOOTED: &str = "booted";

/// A mount as it is kept. With a program it has the handles volume, name of the disk, process.
#[derive(Serialize, Deserialize)]
struct Record {
    source: String,
    target: Vec<Vec<u8>>,
    number: u32,
    program: Option<String>,
    info: VolumeInfo,
}

fn key(number: u32) -> String {
    format!("mount:{number:010}")
}

impl Vfs {
    /// Keeps a mount as it is now.
    pub fn keep(&self, number: u32) {
        let Some(keeper) = &self.keeper else { return };
        let mounts = self.mounts.borrow();
        let Some(mount) = mounts.get(number) else {
            return;
        };
        let service = &mount.volume;
        let handles = match handles(service) {
            Ok(handles) => handles,
            Err(error) => return rt::error!("{} is not kept: {error}", service.source),
        };
        let record = Record {
            source: service.source.clone(),
            target: mount.target.clone(),
            number,
            program: match &service.origin {
                Origin::Channel(_) => None,
                Origin::Program { program, .. } => Some(String::from(*program)),
            },
            info: service.info(),
        };
        if let Ok(bytes) = postcard::to_allocvec(&record) {
            keeper.put(&key(number), &bytes, handles);
        }
    }

    /// Forgets a mount.
    pub fn forget(&self, number: u32) {
        if let Some(keeper) = &self.keeper {
            keeper.remove(&key(number));
        }
    }

    /// What is mounted at boot is mounted.
    pub fn keep_booted(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.put(BOOTED, &[], Vec::new());
        }
    }

    /// Takes over what an earlier process had mounted; `false` if there was none, or it died before everything
    /// was mounted.
    pub async fn take_over(self: &Rc<Self>, archive: Option<&Channel>) -> bool {
        let Some(keeper) = &self.keeper else {
            return false;
        };
        let all = keeper.all();
        if !all.iter().any(|(key, ..)| key == BOOTED) {
            // Its services end with their channels.
            all.iter().for_each(|(key, ..)| keeper.remove(key));
            return false;
        }
        for kept in all.into_iter().filter(|(key, ..)| key != BOOTED) {
            let name = kept.0.clone();
            match self.restore(kept, archive).await {
                Ok((target, service)) => self.put_in_place(target, Rc::new(service)),
                Err(why) => rt::error!("{name}: {why}"),
            }
        }
        true
    }

    async fn restore(
        &self,
        (_, bytes, handles): Kept,
        archive: Option<&Channel>,
    ) -> Result<(Vec<Vec<u8>>, Service), String> {
        let record: Record =
            postcard::from_bytes(&bytes).map_err(|error| format!("not readable: {error}"))?;
        let text = |error: ipc::Error| format!("{}: {error}", record.source);
        let mut handles = handles.into_iter();
        let (channel, child, origin) = match record.program.as_deref().map(program) {
            None if record.source == BOOT => {
                let channel = archive.ok_or("there is no archive")?;
                let origin = Origin::Channel(channel.duplicate().map_err(text)?);
                (channel.duplicate().map_err(text)?, None, origin)
            }
            Some(Some(program)) => {
                let mut next = || handles.next().ok_or("a handle is missing");
                let channel: Channel = next()?.into_type();
                let disk_name = next()?.into_type();
                let origin = Origin::Program { program, disk_name };
                let process = handles.next().map(Handle::into_type::<Process>);
                (channel, process.map(Child::from_process), origin)
            }
            _ => return Err(format!("{}: no service for it", record.source)),
        };
        let service = match self.starter.adopt(channel, child, record.number).await {
            Ok(serving) => Service::new(&record.source, record.number, origin, serving),
            // It died meanwhile: whoever watches over it starts another one.
            Err(_) => Service::absent(&record.source, record.number, origin, record.info),
        };
        Ok((record.target, service))
    }
}

fn handles(service: &Service) -> ipc::sys::Result<Vec<Handle>> {
    let Origin::Program { disk_name, .. } = &service.origin else {
        return Ok(Vec::new());
    };
    let mut handles = Vec::new();
    if let Some(serving) = service.present() {
        let channel = serving.client.transport().channel();
        handles.push(channel.duplicate()?.into_handle());
        handles.push(disk_name.duplicate()?.into_handle());
        if let Some(child) = &serving.child {
            handles.push(child.process().duplicate()?.into_handle());
        }
    }
    Ok(handles)
}
