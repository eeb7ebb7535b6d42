//! From the start-up message to a driver in service.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{DeviceContext, Driver, DriverError, block_on};
use proto::devmgr::{Class, DriverControlServer, DriverHostClient};
use rt::{Channel, startup};

use crate::platform::OsPlatform;

/// The device manager's side of a driver process.
pub struct Host {
    host: Option<DriverHostClient>,
}

impl Host {
    pub(crate) fn from_startup() -> Host {
        Host {
            host: startup::take("devmgr").map(DriverHostClient::new),
        }
    }

    /// The channel to the device manager.
    #[cfg(feature = "faults")]
    fn channel(&self) -> Option<&Channel> {
        self.host.as_ref().map(DriverHostClient::channel)
    }

    /// The server end of the control channel.
    pub(crate) fn control() -> Option<DriverControlServer> {
        startup::take::<Channel>("control").map(DriverControlServer::new)
    }

    /// Publishes an endpoint; `suffix` tells several of one driver apart.
    pub(crate) fn publish(
        &self,
        class: Class,
        suffix: &str,
        properties: Vec<(String, String)>,
        endpoint: Channel,
    ) {
        let Some(host) = &self.host else { return };
        match host.publish(class, suffix, properties, endpoint) {
            Ok(name) => rt::info!("in service as {name}"),
            // Those who have the endpoint are served all the same.
            Err(error) => rt::warn!("the device manager does not publish the endpoint: {error}"),
        }
    }

    /// Reports that the driver is in service, with whatever it has published.
    pub(crate) fn running(&self) {
        let Some(host) = &self.host else { return };
        if let Err(error) = host.running() {
            rt::warn!("the device manager does not hear that the driver runs: {error}");
        }
    }

    /// Every thread of the driver answered this heartbeat.
    pub(crate) fn alive(&self, beat: u32) {
        if let Some(host) = &self.host {
            let _ = host.alive(beat);
        }
    }

    /// Reports that the driver cannot serve its device, and ends the process.
    pub(crate) fn give_up(&self, error: &DriverError) -> ! {
        rt::error!("{error}");
        if let Some(host) = &self.host {
            let _ = host.failed(format!("{error}"));
        }
        // Without running destructors: pages that the device may still use go into the kernel's quarantine.
        rt::exit(1)
    }
}

/// Starts the driver on what was granted.
pub(crate) fn start<D: Driver>(
    host: &Host,
    manifest: &Manifest,
) -> (Arc<OsPlatform>, DeviceContext, D) {
    let result = OsPlatform::from_startup().and_then(|platform| {
        let platform = Arc::new(platform);
        #[cfg(feature = "faults")]
        let cx = DeviceContext::new(crate::faults::wrap(platform.clone(), host.channel()))?;
        #[cfg(not(feature = "faults"))]
        let cx = DeviceContext::new(platform.clone())?;
        Ok((platform, cx))
    });
    let (platform, cx) = match result {
        Ok(pair) => pair,
        Err(error) => host.give_up(&DriverError::platform("grants", error)),
    };
    let [major, minor, patch] = manifest.version;
    rt::debug!("{} {major}.{minor}.{patch}", manifest.name());
    match block_on(&cx, D::start(cx.clone())) {
        Ok(Ok(driver)) => (platform, cx, driver),
        Ok(Err(error)) => host.give_up(&error),
        Err(error) => host.give_up(&DriverError::platform("events", error)),
    }
}
