//! How processes ended: to the log, and to init, which keeps the reports.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::grants;
use proto::crash_report::{EndReason, Kind, Report, Subject, trace};
use rt::process::{Child, ExitReason};
use rt::{AsHandle, Rights, Vmo};

use crate::buses::{BUS_DRIVER, BUS_PROGRAM, Bus};
use crate::manager::{Manager, Node};

impl Manager {
    /// Reports the end of a node's driver: name, reason, symbols, and what the node knows. Gives the reason.
    pub fn report_end(&self, node: &Node, child: &Child) -> (EndReason, String) {
        let driver = node.life.current().and_then(|p| self.driver(p));
        let Some(driver) = driver else {
            return (EndReason::Exited, String::from("no driver"));
        };
        let subject = Subject {
            kind: Kind::Driver,
            name: driver.manifest.name().to_string(),
            pid: 0,
            epoch: node.epoch,
            program: driver.program.clone(),
            version: Some(driver.version()),
            crc32: None,
            node: Some(node.path.clone()),
            known_as: node.known_as.clone(),
        };
        let report = match self.autopsy(child, subject, || self.image_bytes(driver)) {
            Ok(report) => report,
            Err(why) => return (EndReason::Exited, why),
        };
        let mut ended = (report.reason, report.text.clone());
        // Whoever ended it, and a driver that said why it gives up, have the better words; a fault speaks for itself.
        if let (Some(known), None) = (&node.ending, &report.fault) {
            ended = known.clone();
        }
        if matches!(ended.0, EndReason::Asked | EndReason::DeviceGone) {
            return ended;
        }
        let planned = grants::plan(&driver.manifest, &node.device);
        let domain = node.held.as_ref().and_then(|held| held.domain.as_ref());
        let contained = domain.and_then(|domain| domain.dma_info().ok());
        let contained = contained.map(|info| match info.translated {
            0 => "DMA is trusted: no IOMMU holds it",
            _ => "DMA is contained by the IOMMU",
        });
        let mut lines = planned.map(|plan| plan.lines()).unwrap_or_default();
        lines.extend(contained.map(String::from));
        let mut events = node.events.clone();
        let area = node.held.as_ref().and_then(|held| held.trace.as_ref());
        let trace =
            area.and_then(|area| trace::read(|at, buffer| area.read(at as u64, buffer).is_ok()));
        if area.is_some() && trace.is_none() {
            let why = "no trace: the program was not built for one";
            events.push(report.time_ns, String::from(why));
        }
        let area = area.filter(|_| trace.is_some());
        let report = Report {
            reason: ended.0,
            text: ended.1.clone(),
            grants: lines,
            events: events.list(),
            trace,
            ..report
        };
        self.keep_report(report, area);
        ended
    }

    /// Reports the end of a bus driver; gives the reason.
    pub fn report_bus(&self, bus: &Bus) -> String {
        let subject = Subject {
            kind: Kind::Driver,
            name: BUS_DRIVER.to_string(),
            pid: 0,
            epoch: 0,
            program: BUS_PROGRAM.to_string(),
            version: None,
            crc32: None,
            node: Some(bus.path.clone()),
            known_as: Vec::new(),
        };
        let image = || self.archive.read(BUS_PROGRAM).unwrap_or_default();
        match self.autopsy(&bus.child, subject, image) {
            Ok(report) => {
                let text = report.text.clone();
                self.keep_report(report, None);
                text
            }
            Err(why) => why,
        }
    }

    /// What the kernel knows of an end, which also goes to the log.
    fn autopsy(
        &self,
        child: &Child,
        subject: Subject,
        image: impl FnOnce() -> Vec<u8>,
    ) -> Result<Report, String> {
        let exited = match child.try_wait() {
            Ok(Some(exited)) => exited,
            Ok(None) => return Err(String::from("still runs")),
            Err(error) => return Err(alloc::format!("no exit record: {error}")),
        };
        let report = exited.report(subject, image);
        match exited.reason {
            ExitReason::Exited(0) => rt::info!("{}", report.title()),
            _ => rt::error!("{}", report.title()),
        }
        if let Some(fault) = &report.fault {
            for line in fault.to_string().lines() {
                rt::error!("{line}");
            }
        }
        Ok(report)
    }

    /// A message without an answer: init never keeps devmgr waiting.
    fn keep_report(&self, mut report: Report, area: Option<&Vmo>) {
        report.bound();
        let Some(reports) = &self.crash_reports else {
            return;
        };
        let rights = Rights::READ | Rights::TRANSFER | Rights::DUPLICATE | Rights::INSPECT;
        // Without the trace rather than not at all.
        let area = area.and_then(|area| area.duplicate_with(rights).ok());
        let kept = match area {
            Some(area) => reports.report_traced(&report, area),
            None => reports.report(&report),
        };
        if let Err(error) = kept {
            rt::warn!("the crash report is not kept: {error}");
        }
    }
}
