//! How processes ended: to the log, and to init for `proc:`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::binding::Driver;
use proto::proc::CrashSummary;
use rt::process::{Child, ExitReason};
use rt::symbols::{self, Symbols};

use crate::manager::Manager;

impl Manager {
    /// Reports the end of a driver with name, reason and symbols; gives the reason.
    pub fn report_end(&self, child: &Child, driver: &Driver) -> String {
        let image = || self.image_bytes(driver);
        self.report_process(child, driver.manifest.name(), image)
    }

    /// Reports the end of a process whose program `image` reads.
    pub fn report_process(
        &self,
        child: &Child,
        name: &str,
        image: impl FnOnce() -> Vec<u8>,
    ) -> String {
        let exited = match child.try_wait() {
            Ok(Some(exited)) => exited,
            Ok(None) => return String::from("still runs"),
            Err(error) => return format!("no exit record: {error}"),
        };
        let reason = exited.to_string();
        let koid = exited.info.koid;
        match exited.reason {
            ExitReason::Exited(0) => rt::info!("{name} (process {koid}) {reason}"),
            _ => rt::error!("{name} (process {koid}): {reason}"),
        }
        let Some(crash) = exited.crash else {
            return reason;
        };
        let file = image();
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = symbols::write_crash_report(&crash, &Symbols::parse(&file), &mut text);
        for line in text.lines() {
            rt::error!("{line}");
        }
        if let Some(reports) = &self.crash_reports {
            let summary = CrashSummary {
                pid: koid,
                name: name.to_string(),
                time_ns: crash.time_ns,
                reason: text.lines().next().unwrap_or("").to_string(),
                text,
            };
            if let Err(error) = reports.report(&summary) {
                rt::warn!("the crash report is not kept: {error}");
            }
        }
        reason
    }
}
