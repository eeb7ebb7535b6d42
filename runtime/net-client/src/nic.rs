//! An interface.

use endpoint_client::EndpointName;
use ipc::Channel;
use proto::net::{DEPTH_MAX, ETHERNET_HEADER_BYTES, NetCounters, NetEndpointClient, NetInfo};

use crate::{Session, SessionError};

/// The endpoint of a network interface.
#[derive(Debug)]
pub struct Nic {
    endpoint: NetEndpointClient,
    info: NetInfo,
    name: Option<EndpointName>,
}

impl Nic {
    /// The interface behind an endpoint channel, as `net:/NAME` opens it.
    ///
    /// # Errors
    /// When its driver does not answer, or with nonsense.
    pub fn new(endpoint: Channel) -> Result<Nic, SessionError> {
        let endpoint = NetEndpointClient::new(endpoint);
        let info = checked(endpoint.info()?)?;
        Ok(Nic {
            endpoint,
            info,
            name: None,
        })
    }

    /// The same with the endpoint's name (`proto::devmgr::EndpointName`): its sessions outlive the driver.
    ///
    /// # Errors
    /// As [`Nic::new`].
    pub fn named(endpoint: Channel, name: Channel) -> Result<Nic, SessionError> {
        let nic = Nic::new(endpoint)?;
        Ok(Nic {
            name: Some(EndpointName::new(name)),
            ..nic
        })
    }

    pub(crate) fn name(&self) -> Option<&EndpointName> {
        self.name.as_ref()
    }

    /// What it is and offers.
    pub fn info(&self) -> &NetInfo {
        &self.info
    }

    /// Asks again.
    ///
    /// # Errors
    /// As [`Nic::new`].
    pub fn refresh(&mut self) -> Result<&NetInfo, SessionError> {
        self.info = checked(self.endpoint.info()?)?;
        Ok(&self.info)
    }

    /// What went through since the driver started.
    ///
    /// # Errors
    /// When its driver does not answer.
    pub fn counters(&self) -> Result<NetCounters, SessionError> {
        Ok(self.endpoint.counters()?)
    }

    /// Opens the session of a queue pair with room for at least these numbers of receive buffers and fragments.
    ///
    /// # Errors
    /// When the queue is in use, or the driver or the system refuses.
    pub fn open_session(
        &self,
        queue: u16,
        rx_depth: u16,
        tx_depth: u16,
    ) -> Result<Session, SessionError> {
        Session::open(
            self,
            queue,
            rx_depth.min(DEPTH_MAX),
            tx_depth.min(DEPTH_MAX),
        )
    }

    /// The endpoint's channel.
    pub fn endpoint(&self) -> &NetEndpointClient {
        &self.endpoint
    }
}

/// A driver's word on its interface, if it makes sense.
pub(crate) fn checked(info: NetInfo) -> Result<NetInfo, SessionError> {
    let frame_min = info.mtu.saturating_add(ETHERNET_HEADER_BYTES);
    let sane = info.mac.is_unicast()
        && (68..=65535).contains(&info.mtu)
        && info.frame_max >= frame_min
        && info.fragments_max > 0
        && info.queues > 0
        && info.rx_buffer_min <= 1 << 17;
    sane.then_some(info).ok_or(SessionError::Corrupt)
}
