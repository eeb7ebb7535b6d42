//! What is mounted at boot: the archive, then every disk with a file system, when
//! devmgr says that all disks are known. A volume that fails does not stop the
//! others.

use alloc::{format, rc::Rc, string::String, vec::Vec};

use executor::Caller;
use ipc::{CallError, Channel, sys::AsHandle};
use proto::devmgr::{Class, EndpointInfo, EndpointsAsyncClient};
use proto::fs::{FsError, MountError};

use super::{
    server::Vfs,
    volumes::{DiskEndpoint, Origin, Service},
};
use crate::{BootDisk, RootChoice, assign, parse};

/// Source of the archive's volume.
pub(crate) const BOOT: &str = "boot";

/// Mounts everything, then lets requests in that waited for it.
pub(crate) async fn mount_all(vfs: Rc<Vfs>, archive: Option<Channel>, root: RootChoice) {
    if vfs.take_over(archive.as_ref()).await {
        return vfs.boot_done();
    }
    if let Some(archive) = archive {
        mount_archive(&vfs, archive).await;
    }
    if let Some(endpoints) = vfs.disks.as_ref() {
        mount_disks(&vfs, endpoints, &root).await;
    }
    vfs.keep_booted();
    vfs.boot_done();
}

async fn mount_archive(vfs: &Rc<Vfs>, channel: Channel) {
    let number = vfs.mounts.borrow_mut().reserve_number();
    let copy = match channel.duplicate() {
        Ok(copy) => copy,
        Err(error) => return rt::error!("/boot: {error}"),
    };
    let mut outcome = vfs.starter.adopt(copy, None, number).await;
    // A service that dies at this moment has a successor on the same channel.
    if let (
        Err(MountError {
            error: FsError::Gone,
            ..
        }),
        Ok(copy),
    ) = (&outcome, channel.duplicate())
    {
        outcome = vfs.starter.adopt(copy, None, number).await;
    }
    match outcome {
        Ok(serving) => {
            let service = Service::new(BOOT, number, Origin::Channel(channel), serving);
            vfs.put_in_place(Vec::from([b"boot".to_vec()]), Rc::new(service));
        }
        Err(error) => rt::error!("/boot: {error}"),
    }
}

async fn mount_disks(vfs: &Rc<Vfs>, endpoints: &EndpointsAsyncClient<Caller>, root: &RootChoice) {
    let mut settled = endpoints.wait_settled().await;
    // The device manager died while it was asked; its successor knows.
    while let Err(CallError::ServerDied { .. }) = settled {
        settled = endpoints.wait_settled().await;
    }
    if let Err(error) = settled {
        rt::warn!("not all disks may be known yet: {error:?}");
    }
    let disks = match endpoints.list().await {
        Ok(disks) => disks,
        Err(error) => return rt::error!("no list of disks: {error:?}"),
    };
    let has_parts = |disk: &EndpointInfo| {
        disks
            .iter()
            .any(|other| other.parent.as_ref() == Some(&disk.name))
    };
    let candidates = disks
        .iter()
        .filter(|disk| disk.class == Class::Block && !has_parts(disk));
    // All at once: each has a service of its own.
    let tasks: Vec<_> = candidates
        .map(|disk| {
            let (vfs, name) = (vfs.clone(), disk.name.clone());
            let inner = vfs.executor.clone();
            inner.spawn(async move {
                let number = vfs.mounts.borrow_mut().reserve_number();
                let opened = vfs.open_disk(&name, "", number).await;
                (name, opened)
            })
        })
        .collect();
    let mut mounted: Vec<(String, Rc<Service>)> = Vec::new();
    let mut boot_disks = Vec::new();
    for task in tasks {
        let (name, opened) = task.await;
        match opened {
            Ok(service) => {
                boot_disks.push(BootDisk { name: name.clone() });
                mounted.push((name, Rc::new(service)));
            }
            Err(MountError {
                error: FsError::UnknownFormat,
                reason,
            }) => {
                rt::info!("disk:/{name}: {reason}");
            }
            Err(error) => rt::error!("disk:/{name} is not mounted: {error}"),
        }
    }
    if let RootChoice::Named(name) = root
        && !boot_disks.iter().any(|disk| disk.name == *name)
    {
        rt::error!("the root disk:/{name} is not there or not mounted");
    }
    for assignment in assign(boot_disks, root) {
        let name = &assignment.disk.name;
        let Some((_, service)) = mounted.iter().find(|(other, _)| other == name) else {
            continue;
        };
        let Ok((target, _)) = parse(assignment.target.as_bytes()) else {
            continue;
        };
        let format = service.info().format;
        rt::info!("disk:/{name} ({format}) on {}", assignment.target);
        vfs.put_in_place(target.into(), service.clone());
    }
}

impl Vfs {
    /// Starts a service for a disk and mounts its volume, without a place yet.
    pub(crate) async fn open_disk(
        &self,
        name: &str,
        format: &str,
        number: u32,
    ) -> Result<Service, MountError> {
        let source = format!("disk:/{name}");
        let no_disk = |reason: String| MountError {
            error: FsError::NoDevice,
            reason,
        };
        let disks = self.disks.as_ref();
        let endpoints = disks.ok_or_else(|| no_disk("no disks here".into()))?;
        let opened = endpoints.open(name).await;
        let (_, endpoint, name) = opened.map_err(|error| no_disk(format!("{source}: {error}")))?;
        let disk = DiskEndpoint { endpoint, name };
        self.starter.start(disk, &source, format, number).await
    }

    /// Waits until what is mounted at boot is mounted.
    pub(crate) async fn wait_for_boot(&self) {
        self.changed
            .wait_until(|| self.is_boot_done().then_some(()))
            .await;
    }
}
