//! What the device manager asks of a driver's process, for every class the same.

use ddk::StopReason;
use ipc::Server;
use proto::devmgr::{DriverControlRequest, DriverControlServer};
use rt::{Channel, Deadline, Error, startup};

/// An order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Answer with `alive`, from every thread that serves the device.
    Ping(u32),
    /// Leave the device quiet and exit; for [`StopReason::Replaced`] tell `saved` before.
    Stop(StopReason),
    /// Pause; answer with `suspended`.
    Suspend,
    /// Go on; answer with `resumed`.
    Resume,
}

impl From<DriverControlRequest> for Order {
    fn from(request: DriverControlRequest) -> Order {
        match request {
            DriverControlRequest::Ping { beat } => Order::Ping(beat),
            DriverControlRequest::Stop {} => Order::Stop(StopReason::Requested),
            DriverControlRequest::Replace {} => Order::Stop(StopReason::Replaced),
            DriverControlRequest::Remove {} => Order::Stop(StopReason::Removed),
            DriverControlRequest::Suspend {} => Order::Suspend,
            DriverControlRequest::Resume {} => Order::Resume,
        }
    }
}

/// The control channel. A device manager that is gone gives no orders; who has an endpoint is served all the
/// same.
pub struct Control(Option<DriverControlServer>);

impl Control {
    /// Takes it from the start-up message.
    pub fn from_startup() -> Control {
        Control(startup::take::<Channel>("control").map(DriverControlServer::new))
    }

    /// The channel, to wait on; `None` without a device manager.
    pub fn channel(&self) -> Option<&Channel> {
        Some(self.0.as_ref()?.channel())
    }

    /// The next order that is there.
    pub fn try_next(&mut self) -> Option<Order> {
        match self.0.as_ref()?.try_next() {
            Ok(Some(request)) => Some(request.into()),
            Ok(None) => None,
            Err(_) => {
                self.0 = None;
                None
            }
        }
    }

    /// Waits for the next order.
    ///
    /// # Errors
    /// When the device manager is gone.
    pub fn next(&self) -> Result<Order, Error> {
        let control = self.0.as_ref().ok_or(Error::PeerClosed)?;
        control.next(Deadline::FOREVER).map(Order::from)
    }
}
