//! Going on after the driver's death.

use alloc::vec::Vec;
use core::time::Duration;

use endpoint_client::{Buffers, EndpointName, Refusal};
use proto::devmgr::Complaint;
use proto::net::{
    MacAddress, NetEndpointClient, NetError, NetInfo, Offloads, ReceiveMode, SessionInfo,
};
use sys::{AsHandle, Deadline};

use crate::nic::checked;
use crate::session::Connection;
use crate::{Nic, SessionError};

/// Time for a driver to answer one call.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What a session keeps for its driver's successor.
pub(crate) struct Recovery {
    name: Option<EndpointName>,
    endpoint: NetEndpointClient,
    interface: NetInfo,
    queue: u16,
    mac: Option<MacAddress>,
    receive_mode: Option<(ReceiveMode, Vec<MacAddress>)>,
    receive_offloads: Option<Offloads>,
}

impl Recovery {
    pub(crate) fn of(nic: &Nic, queue: u16) -> Result<Recovery, SessionError> {
        let endpoint = nic.endpoint().channel().duplicate()?;
        Ok(Recovery {
            name: nic.name().map(EndpointName::duplicate).transpose()?,
            endpoint: NetEndpointClient::new(endpoint).with_timeout(CALL_LIMIT),
            interface: nic.info().clone(),
            queue,
            mac: None,
            receive_mode: None,
            receive_offloads: None,
        })
    }

    pub(crate) fn is_possible(&self) -> bool {
        self.name.is_some()
    }

    pub(crate) fn interface(&self) -> &NetInfo {
        &self.interface
    }

    pub(crate) fn endpoint(&self) -> &NetEndpointClient {
        &self.endpoint
    }

    pub(crate) fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), SessionError> {
        self.receive_mode = Some((mode, multicast.to_vec()));
        let set = self.endpoint.set_receive_mode(mode, multicast.to_vec());
        self.kept(set.map_err(SessionError::from)).map(|_| ())
    }

    pub(crate) fn set_mac(&mut self, mac: MacAddress) -> Result<(), SessionError> {
        self.endpoint.set_mac(mac)?;
        self.mac = Some(mac);
        self.interface.mac = mac;
        Ok(())
    }

    pub(crate) fn set_receive_offloads(
        &mut self,
        offloads: Offloads,
    ) -> Result<Offloads, SessionError> {
        self.receive_offloads = Some(offloads);
        let set = self.endpoint.set_receive_offloads(offloads);
        let set = self.kept(set.map_err(SessionError::from))?;
        Ok(set.unwrap_or(Offloads::empty()))
    }

    /// A driver that just died will hear it from [`Recovery::connect`].
    fn kept<T>(&self, outcome: Result<T, SessionError>) -> Result<Option<T>, SessionError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_gone(error) && self.is_possible() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A connection to a later incarnation of the driver, with the buffers registered and the interface set as it was.
    pub(crate) fn connect(
        &mut self,
        was: &SessionInfo,
        buffers: &Buffers,
        deadline: Deadline,
    ) -> Result<Connection, SessionError> {
        let name = self.name.as_ref().ok_or(SessionError::Closed)?;
        // One that answers has ended this session, and has its reasons.
        if self.endpoint.info().is_ok() {
            return Err(SessionError::Closed);
        }
        let (_, (endpoint, interface, connection)) =
            name.successor(was.epoch, deadline, |endpoint| {
                let endpoint = NetEndpointClient::new(endpoint).with_timeout(CALL_LIMIT);
                match self.open(&endpoint, was, buffers) {
                    Ok((interface, connection)) => Ok((endpoint, interface, connection)),
                    Err(error) => Err(refusal(error)),
                }
            })?;
        self.endpoint = endpoint;
        self.interface = interface;
        Ok(connection)
    }

    fn open(
        &self,
        endpoint: &NetEndpointClient,
        was: &SessionInfo,
        buffers: &Buffers,
    ) -> Result<(NetInfo, Connection), SessionError> {
        if let Some(mac) = self.mac {
            endpoint.set_mac(mac)?;
        }
        if let Some((mode, multicast)) = &self.receive_mode {
            endpoint.set_receive_mode(*mode, multicast.clone())?;
        }
        if let Some(offloads) = self.receive_offloads {
            endpoint.set_receive_offloads(offloads)?;
        }
        let interface = checked(endpoint.info()?)?;
        let known = &self.interface;
        // What the client relies on must still hold.
        let same = interface.mac == known.mac
            && interface.frame_max >= known.frame_max
            && interface.segmented_max >= known.segmented_max
            && interface.fragments_max >= known.fragments_max
            && interface.rx_buffer_min <= known.rx_buffer_min
            && interface.offloads.contains(known.offloads)
            && interface.segmentation_sum == known.segmentation_sum;
        if !same {
            return Err(SessionError::OtherInterface);
        }
        let connection = Connection::open(endpoint, self.queue, was.rx_depth, was.tx_depth)?;
        let info = connection.info();
        if info.rx_depth < was.rx_depth || info.tx_depth < was.tx_depth {
            return Err(SessionError::OtherInterface);
        }
        for buffer in buffers.iter() {
            connection.register(buffer)?;
        }
        Ok((interface, connection))
    }
}

/// What a failure to connect says of the incarnation.
fn refusal(error: SessionError) -> Refusal<SessionError> {
    match error {
        _ if is_gone(error) => Refusal::Gone,
        SessionError::System(_) => Refusal::Fatal(error),
        SessionError::TimedOut => Refusal::Useless(Complaint::Silent, error),
        SessionError::OtherInterface => Refusal::Useless(Complaint::OtherDevice, error),
        _ => Refusal::Useless(Complaint::Protocol, error),
    }
}

/// Whether the incarnation that failed so is gone itself.
fn is_gone(error: SessionError) -> bool {
    matches!(
        error,
        SessionError::Closed | SessionError::Control(NetError::Gone)
    )
}
