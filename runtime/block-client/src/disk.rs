//! A disk or partition.

use endpoint_client::EndpointName;
use ipc::Channel;
use proto::block::{Access, BlockEndpointClient, BlockInfo};

use crate::{Session, SessionError};

/// The endpoint of a disk or of a part of one.
#[derive(Debug)]
pub struct Disk {
    endpoint: BlockEndpointClient,
    info: BlockInfo,
    name: Option<EndpointName>,
}

impl Disk {
    /// The disk behind an endpoint channel, as `disk:/NAME` opens it.
    ///
    /// # Errors
    /// When its driver does not answer, or with nonsense.
    pub fn new(endpoint: Channel) -> Result<Disk, SessionError> {
        let endpoint = BlockEndpointClient::new(endpoint);
        let info = checked(endpoint.info()?)?;
        Ok(Disk {
            endpoint,
            info,
            name: None,
        })
    }

    /// The same with the endpoint's name (`proto::devmgr::EndpointName`): its sessions outlive the driver.
    ///
    /// # Errors
    /// As [`Disk::new`].
    pub fn named(endpoint: Channel, name: Channel) -> Result<Disk, SessionError> {
        let disk = Disk::new(endpoint)?;
        Ok(Disk {
            name: Some(EndpointName::new(name)),
            ..disk
        })
    }

    /// The endpoint's name, if it was given.
    pub(crate) fn name(&self) -> Option<&EndpointName> {
        self.name.as_ref()
    }

    /// What it offers.
    pub fn info(&self) -> &BlockInfo {
        &self.info
    }

    /// Asks again what it offers.
    ///
    /// # Errors
    /// As [`Disk::new`].
    pub fn refresh(&mut self) -> Result<&BlockInfo, SessionError> {
        self.info = checked(self.endpoint.info()?)?;
        Ok(&self.info)
    }

    /// Bytes of the disk.
    pub fn len_bytes(&self) -> u64 {
        self.info
            .block_count
            .saturating_mul(self.info.block_size.into())
    }

    /// Opens a session with room for at least `depth` requests, if the driver allows that many.
    ///
    /// # Errors
    /// When the driver or the system refuses.
    pub fn open_session(&self, depth: u16) -> Result<Session, SessionError> {
        Session::open(self, depth, None)
    }

    /// The same for a client that runs on this CPU.
    ///
    /// # Errors
    /// As [`Disk::open_session`].
    pub fn open_session_on(&self, depth: u16, cpu: u32) -> Result<Session, SessionError> {
        Session::open(self, depth, Some(cpu))
    }

    /// The endpoint of a part of it: `count` blocks from `first_lba` on.
    ///
    /// # Errors
    /// When the range is not inside.
    pub fn derive(
        &self,
        first_lba: u64,
        count: u64,
        access: Access,
    ) -> Result<Channel, SessionError> {
        Ok(self.endpoint.derive(first_lba, count, access)?)
    }

    /// The endpoint's channel.
    pub fn endpoint(&self) -> &BlockEndpointClient {
        &self.endpoint
    }
}

/// A driver's word on its disk, if it makes sense.
pub(crate) fn checked(info: BlockInfo) -> Result<BlockInfo, SessionError> {
    let block = info.block_size;
    let size_fits = info.block_count.checked_mul(block.into()).is_some();
    if !block.is_power_of_two() || !(512..=65536).contains(&block) || !size_fits {
        return Err(SessionError::Corrupt);
    }
    if info.max_transfer < block {
        return Err(SessionError::Corrupt);
    }
    Ok(info)
}
