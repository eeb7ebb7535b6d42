//! From the start-up message to a driver in service.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{DeviceContext, Driver, DriverError, Platform, SavedState, StopReason, block_on};
use proto::devmgr::{Class, DriverHostClient, SAVED_BYTES_MAX, SAVED_FIELDS_MAX};
use rt::{AsHandle, Channel, startup};

use crate::platform::OsPlatform;

/// The channel to the device manager, which the process may have several ends of.
pub(crate) fn connection() -> Option<DriverHostClient> {
    let channel = startup::handle::<Channel>("devmgr")?.duplicate().ok()?;
    Some(DriverHostClient::new(channel).repeating())
}

/// The device manager's side of a driver process.
pub struct Host {
    host: Option<DriverHostClient>,
}

impl Host {
    pub(crate) fn from_startup() -> Host {
        Host { host: connection() }
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

    /// Whether the driver pauses as it was asked to.
    pub(crate) fn suspended(&self, result: Result<(), DriverError>) {
        if let Some(host) = &self.host {
            let _ = host.suspended(result.err().map(|e| format!("{e}")));
        }
    }

    /// Whether it goes on as it was asked to.
    pub(crate) fn resumed(&self, result: Result<(), DriverError>) {
        if let Some(host) = &self.host {
            let _ = host.resumed(result.err().map(|e| format!("{e}")));
        }
    }

    /// Leaves what the next version should know.
    pub(crate) fn saved(&self, state: SavedState) {
        let Some(host) = &self.host else { return };
        let bytes: usize = state
            .fields
            .iter()
            .map(|(_, contents)| contents.len())
            .sum();
        if bytes > SAVED_BYTES_MAX || state.fields.len() > SAVED_FIELDS_MAX {
            rt::warn!("the state of {bytes} bytes is too much to be left to the next version");
            return;
        }
        let fields = state.fields.into_iter();
        let state = proto::devmgr::SavedState {
            schema: state.schema,
            fields: fields.map(|(n, contents)| (n, contents.into())).collect(),
        };
        let _ = host.saved(&state);
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
    // Classes whose calls nobody notes have at least what is done to the device.
    #[cfg(feature = "trace")]
    if let Some(trace) = crate::trace::wanted() {
        let wrap = |platform| ddk_instrument::instrument(platform, trace);
        return start_with(host, manifest, wrap, D::start);
    }
    start_with(host, manifest, |platform| platform, D::start)
}

/// Starts the driver by `start`, on what was granted with `wrap` around it.
pub(crate) fn start_with<D, F>(
    host: &Host,
    manifest: &Manifest,
    wrap: impl FnOnce(Arc<dyn Platform>) -> Arc<dyn Platform>,
    start: impl FnOnce(DeviceContext) -> F,
) -> (Arc<OsPlatform>, DeviceContext, D)
where
    F: Future<Output = Result<D, DriverError>>,
{
    let result = OsPlatform::from_startup().and_then(|platform| {
        let platform = Arc::new(platform);
        #[cfg(feature = "faults")]
        let seen = crate::faults::wrap(platform.clone());
        #[cfg(not(feature = "faults"))]
        let seen = platform.clone();
        let cx = DeviceContext::new(wrap(seen))?;
        Ok((platform, cx))
    });
    let (platform, cx) = match result {
        Ok(pair) => pair,
        Err(error) => host.give_up(&DriverError::platform("grants", error)),
    };
    let [major, minor, patch] = manifest.version;
    rt::debug!("{} {major}.{minor}.{patch}", manifest.name());
    match block_on(&cx, start(cx.clone())) {
        Ok(Ok(driver)) => (platform, cx, driver),
        Ok(Err(error)) => host.give_up(&error),
        Err(error) => host.give_up(&DriverError::platform("events", error)),
    }
}

/// What comes of a driver's control path.
pub(crate) fn wait(
    cx: &DeviceContext,
    work: impl Future<Output = Result<(), DriverError>>,
) -> Result<(), DriverError> {
    block_on(cx, work).map_err(|e| DriverError::platform("events", e))?
}

/// Ends a driver in good order, and its process.
pub(crate) fn stop<D: Driver>(host: &Host, cx: &DeviceContext, device: D, why: StopReason) -> ! {
    if why == StopReason::Replaced
        && let Some(state) = device.save()
    {
        host.saved(state);
    }
    let _ = block_on(cx, device.stop(why));
    rt::exit(0)
}
