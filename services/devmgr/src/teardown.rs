//! The order in which a device is taken from a driver, whether it crashed, was killed or was stopped.
//!
//! Interrupts are masked, bus mastering is turned off, the device is reset, the IOTLB is flushed, and only
//! then do pages go back to the system. If the device cannot be fenced its pages are never given back:
//! the DMA domain is kept with its quarantine, and the node is not used again.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::bus::FenceStep;

use crate::grants::Grants;
use crate::node::Device;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Endpoints leave the schemes; who opens them from now on gets a clean error.
    WithdrawEndpoints,
    /// The driver's process is ended, if it still runs.
    EndProcess,
    /// A step of the bus driver's fence.
    Fence(FenceStep),
    /// Interrupt objects are closed: their vectors go back to the kernel.
    CloseInterrupts,
    /// The resources that BARs and ports were made from are revoked, and with them every mapping.
    RevokeResources,
    /// Translations of the domain leave the IOTLB, and its quarantine is released.
    RecoverDma,
    /// Everything else that was held for the driver is closed.
    CloseHandles,
}

impl Step {
    /// For reports.
    pub const fn text(self) -> &'static str {
        match self {
            Step::WithdrawEndpoints => "endpoints withdrawn",
            Step::EndProcess => "process ended",
            Step::Fence(step) => step.text(),
            Step::CloseInterrupts => "interrupts closed",
            Step::RevokeResources => "resources revoked",
            Step::RecoverDma => "DMA quarantine released",
            Step::CloseHandles => "handles closed",
        }
    }
}

/// The steps for a device with these grants, in their order.
pub fn steps(device: &Device, grants: &Grants) -> Vec<Step> {
    let mut steps = alloc::vec![Step::WithdrawEndpoints, Step::EndProcess];
    if let Device::Pci(_) = device {
        steps.push(Step::Fence(FenceStep::MaskInterrupts));
        #[cfg(not(feature = "control-no-fence"))]
        steps.push(Step::Fence(FenceStep::BusMasterOff));
        steps.push(Step::Fence(FenceStep::Reset));
    }
    if grants.vectors != 0 || !grants.lines.is_empty() {
        steps.push(Step::CloseInterrupts);
    }
    steps.push(Step::RevokeResources);
    if grants.dma {
        steps.push(Step::RecoverDma);
    }
    steps.push(Step::CloseHandles);
    steps
}

/// A teardown under way: which step is next, what became of those before.
#[derive(Clone, Debug)]
pub struct Teardown {
    steps: Vec<Step>,
    done: usize,
    fenced: bool,
    log: Vec<String>,
}

impl Teardown {
    /// At the first step.
    pub fn new(device: &Device, grants: &Grants) -> Teardown {
        Teardown {
            steps: steps(device, grants),
            done: 0,
            fenced: true,
            log: Vec::new(),
        }
    }

    /// The step to take now.
    pub fn current(&self) -> Option<Step> {
        self.steps.get(self.done).copied()
    }

    /// Reports the current step's outcome. After a bus-master or reset step that did not hold, the DMA
    /// quarantine is not released.
    pub fn finished(&mut self, outcome: Result<(), String>) {
        let Some(step) = self.current() else {
            return;
        };
        self.done = self.done.saturating_add(1);
        match outcome {
            Ok(()) => self.log.push(String::from(step.text())),
            Err(why) => {
                self.log.push(format!("{}: FAILED: {why}", step.text()));
                if matches!(step, Step::Fence(_)) {
                    self.fenced = false;
                    let rest = self.steps.split_off(self.done);
                    self.steps
                        .extend(rest.into_iter().filter(|s| *s != Step::RecoverDma));
                }
            }
        }
    }

    /// Whether every fence step so far held: the device can do no harm and may be used again.
    pub const fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Each step with its outcome.
    pub fn log(&self) -> &[String] {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::PlatformDevice;
    use proto::bus::{PciAddress, PciFunctionInfo, ResetMethod};

    fn function() -> Device {
        Device::Pci(PciFunctionInfo {
            address: PciAddress::default(),
            vendor: 1,
            device: 2,
            subsystem_vendor: 0,
            subsystem: 0,
            class: 1,
            subclass: 0,
            interface: 0,
            revision: 0,
            header: 0,
            interrupt_pin: 0,
            interrupt_line: 0,
            buses: None,
            bars: Vec::new(),
            capabilities: Vec::new(),
            msix: None,
            msi_vectors: 0,
            reset: ResetMethod::None,
            faults: Vec::new(),
        })
    }

    fn grants() -> Grants {
        Grants {
            vectors: 2,
            dma: true,
            ..Grants::default()
        }
    }

    #[test]
    fn pages_go_back_after_the_fence() {
        let steps = steps(&function(), &grants());
        let place = |step| steps.iter().position(|s| *s == step).unwrap();
        let order = [
            place(Step::EndProcess),
            place(Step::Fence(FenceStep::MaskInterrupts)),
            place(Step::Fence(FenceStep::BusMasterOff)),
            place(Step::Fence(FenceStep::Reset)),
            place(Step::CloseInterrupts),
            place(Step::RecoverDma),
            place(Step::CloseHandles),
        ];
        assert!(order.is_sorted(), "{steps:?}");
    }

    #[test]
    fn an_unfenced_device_keeps_its_pages_in_quarantine() {
        for failing in [
            FenceStep::MaskInterrupts,
            FenceStep::BusMasterOff,
            FenceStep::Reset,
        ] {
            let mut teardown = Teardown::new(&function(), &grants());
            let mut taken = Vec::new();
            while let Some(step) = teardown.current() {
                taken.push(step);
                let ok = step != Step::Fence(failing);
                teardown.finished(if ok { Ok(()) } else { Err("stuck".into()) });
            }
            assert!(!teardown.is_fenced());
            assert!(!taken.contains(&Step::RecoverDma));
            // The rest is done all the same.
            assert_eq!(taken.last(), Some(&Step::CloseHandles));
            assert!(teardown.log().iter().any(|l| l.ends_with("FAILED: stuck")));
        }
    }

    #[test]
    fn a_platform_device_has_no_bus_to_fence_it() {
        let device = Device::Platform(PlatformDevice {
            compatible: "uart16550".into(),
            ports: vec![(0x2f8, 8)],
            interrupts: vec![3],
            description: String::new(),
        });
        let grants = Grants {
            lines: vec![3],
            ..Grants::default()
        };
        assert_eq!(
            steps(&device, &grants),
            [
                Step::WithdrawEndpoints,
                Step::EndProcess,
                Step::CloseInterrupts,
                Step::RevokeResources,
                Step::CloseHandles
            ]
        );
    }
}
