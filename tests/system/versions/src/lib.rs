//! A driver that serves nothing, in versions that come up, or do not, each in its own way. What one leaves to
//! the next is how many versions in a row have served.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;

pub use ddk;
use ddk::{DeviceContext, DriverError, Event, SavedState};
pub use ddk_backend_os;

/// Version of the state's schema, and its only field.
const SCHEMA: u32 = 1;
const SERVED: u32 = 1;
/// When a version that dies later does.
const LATER_MS: u32 = 300;

/// What a version does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduct {
    /// Serves.
    Serves,
    /// Panics in its start.
    DiesInStart,
    /// Does not understand the state of the version before.
    RefusesState,
    /// Serves, and panics after a while.
    DiesLater,
    /// Never says that it serves.
    NeverReady,
}

/// A version that runs.
pub struct Running {
    served: u64,
}

impl Running {
    /// Starts a version.
    ///
    /// # Errors
    /// As its conduct is.
    pub async fn start(cx: &DeviceContext, conduct: Conduct) -> Result<Running, DriverError> {
        let left = cx.restored();
        let before = left.as_ref().and_then(|state| state.u64(SERVED));
        ddk::info!(cx, "{conduct:?}: {} served before", before.unwrap_or(0));
        match (conduct, left) {
            (Conduct::DiesInStart, _) => panic!("this version cannot start"),
            (Conduct::RefusesState, Some(state)) => {
                return Err(DriverError::Protocol {
                    what: "schema of the state",
                    expected: u64::from(SCHEMA) + 1,
                    seen: state.schema.into(),
                });
            }
            (Conduct::NeverReady, _) => loop {
                cx.sleep_until(cx.deadline_in_ms(1000)).await;
            },
            (Conduct::DiesLater, _) => {
                let events = cx.event_queue()?;
                let at = cx.deadline_in_ms(LATER_MS);
                let later = move || {
                    let _ = events.wait(&mut [Event::default(); 1], at);
                    panic!("this version does not last");
                };
                cx.spawn("later", None, Box::new(later))?;
            }
            _ => {}
        }
        Ok(Running {
            served: before.unwrap_or(0).saturating_add(1),
        })
    }

    /// What the next version is to know.
    pub fn save(&self) -> SavedState {
        SavedState::new(SCHEMA).with_u64(SERVED, self.served)
    }
}

/// The program of a version: conduct, version, priority.
#[macro_export]
macro_rules! version {
    ($conduct:ident, $version:expr, $priority:expr) => {
        struct Version($crate::Running);

        $crate::ddk::driver! {
            driver: Version,
            name: "versions",
            class: OTHER,
            version: $version,
            // pvpanic: it has nothing that could go wrong.
            matches: [pci_device(0x1b36, 0x0011)],
            needs: [],
            priority: $priority,
        }

        impl $crate::ddk::Driver for Version {
            async fn start(
                cx: $crate::ddk::DeviceContext,
            ) -> Result<Self, $crate::ddk::DriverError> {
                $crate::Running::start(&cx, $crate::Conduct::$conduct)
                    .await
                    .map(Version)
            }

            async fn stop(self, _why: $crate::ddk::StopReason) {}

            fn save(&self) -> Option<$crate::ddk::SavedState> {
                Some(self.0.save())
            }
        }

        $crate::ddk_backend_os::raw_driver!(Version);
    };
}
