//! Which driver gets a node, and why.
//!
//! The order is total: specificity of the best matching rule, declared priority, version, and at last
//! the program's name; drivers of last resort come after all others.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use ddk_manifest::Manifest;
use proto::devmgr::Candidate;
use serde::{Deserialize, Serialize};

use crate::grants::{self, Grants};
use crate::node::Device;

/// A driver that is at hand.
#[derive(Clone, Debug)]
pub struct Driver {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it is, for instance `bin/virtio-blk`.
    pub program: String,
    /// Whom it is for.
    pub offer: Offer,
}

/// Whom a driver is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Offer {
    /// Every node that it matches.
    Everyone,
    /// Nodes that it was put into by hand.
    Chosen,
    /// Nobody any more.
    Nobody,
}

impl Driver {
    /// `1.2.3`.
    pub fn version(&self) -> String {
        let [major, minor, patch] = self.manifest.version;
        format!("{major}.{minor}.{patch}")
    }

    /// Stem of the names of its endpoints.
    pub fn stem(&self) -> &str {
        crate::names::stem(self.manifest.class, self.manifest.name())
    }
}

/// The chosen driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its place in the list of drivers.
    pub driver: usize,
    /// What it is to be granted.
    pub grants: Grants,
}

/// Judges every driver, best first, and chooses the first one that matches and whose needs are met.
pub fn candidates(drivers: &[Driver], device: &Device) -> (Vec<Candidate>, Option<Choice>) {
    let mut judged: Vec<(usize, &Driver, Judgement)> = drivers
        .iter()
        .enumerate()
        .filter(|(_, driver)| driver.offer == Offer::Everyone)
        .map(|(i, driver)| (i, driver, judge(driver, device)))
        .collect();
    judged.sort_by(|a, b| order(a.1, &a.2, b.1, &b.2));
    let mut choice: Option<Choice> = None;
    let list = judged
        .into_iter()
        .map(|(index, driver, judgement)| {
            let mut failed = judgement.failed;
            let mut chosen = false;
            if let Some(grants) = judgement.grants {
                match &choice {
                    None => {
                        choice = Some(Choice {
                            driver: index,
                            grants,
                        });
                        chosen = true;
                    }
                    Some(better) => {
                        let name = drivers.get(better.driver).map_or("", |d| d.manifest.name());
                        failed = Some(format!("{name} comes first"));
                    }
                }
            }
            Candidate {
                driver: driver.manifest.name().to_string(),
                version: driver.version(),
                program: driver.program.clone(),
                specificity: judgement.specificity,
                priority: driver.manifest.priority,
                fallback: driver.manifest.is_fallback(),
                matched: judgement.matched,
                failed,
                chosen,
            }
        })
        .collect();
    (list, choice)
}

struct Judgement {
    specificity: u32,
    matched: Option<String>,
    failed: Option<String>,
    grants: Option<Grants>,
}

fn judge(driver: &Driver, device: &Device) -> Judgement {
    let rule = device
        .identity()
        .and_then(|identity| driver.manifest.best_match(&identity).copied());
    let Some(rule) = rule else {
        let failed = match driver.manifest.matches() {
            [] => String::from("no match rules"),
            [first, rest @ ..] => {
                let more = if rest.is_empty() {
                    String::new()
                } else {
                    format!(" and {} more", rest.len())
                };
                format!(
                    "rule {first}{more}: the device is {}",
                    device.identity_text()
                )
            }
        };
        return Judgement {
            specificity: 0,
            matched: None,
            failed: Some(failed),
            grants: None,
        };
    };
    let (grants, failed) = match grants::plan(&driver.manifest, device) {
        Ok(grants) => (Some(grants), None),
        Err(failed) => (None, Some(failed)),
    };
    Judgement {
        specificity: rule.specificity(),
        matched: Some(rule.to_string()),
        failed,
        grants,
    }
}

fn order(a: &Driver, ja: &Judgement, b: &Driver, jb: &Judgement) -> Ordering {
    let (ma, mb) = (&a.manifest, &b.manifest);
    jb.matched
        .is_some()
        .cmp(&ja.matched.is_some())
        .then_with(|| ma.is_fallback().cmp(&mb.is_fallback()))
        .then_with(|| jb.specificity.cmp(&ja.specificity))
        .then_with(|| mb.priority.cmp(&ma.priority))
        .then_with(|| mb.version.cmp(&ma.version))
        .then_with(|| a.program.cmp(&b.program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::PlatformDevice;
    use ddk_manifest::{Class, MatchRule, Need, io_ports, pci_device, platform};
    use proptest::prelude::*;

    fn driver(name: &str, rules: &[MatchRule], needs: &[Need]) -> Driver {
        Driver {
            manifest: Manifest::new(name, Class::SERIAL, [1, 0, 0], rules, needs),
            program: format!("bin/{name}"),
            offer: Offer::Everyone,
        }
    }

    fn uart() -> Device {
        Device::Platform(PlatformDevice {
            compatible: "uart16550".into(),
            ports: vec![(0x2f8, 8)],
            interrupts: vec![3],
            description: String::new(),
        })
    }

    fn names(list: &[Candidate]) -> Vec<&str> {
        list.iter().map(|c| c.driver.as_str()).collect()
    }

    #[test]
    fn the_order_is_specificity_priority_version_fallback() {
        let rule = [platform("uart16550")];
        let mut drivers = vec![
            driver("other", &[pci_device(1, 2)], &[]),
            driver("plain", &rule, &[]),
            driver("newer", &rule, &[]),
            driver("preferred", &rule, &[]),
            driver("last-resort", &rule, &[]),
            driver("greedy", &rule, &[io_ports(4)]),
        ];
        drivers[2].manifest.version = [1, 1, 0];
        drivers[3].manifest = drivers[3].manifest.with_priority(5);
        drivers[4].manifest = drivers[4].manifest.with_priority(9).as_fallback();
        drivers[5].manifest = drivers[5].manifest.with_priority(10);
        let (list, choice) = candidates(&drivers, &uart());
        assert_eq!(
            names(&list),
            [
                "greedy",
                "preferred",
                "newer",
                "plain",
                "last-resort",
                "other"
            ]
        );
        assert_eq!(choice.unwrap().driver, 3);
        assert_eq!(
            list[0].failed.as_deref(),
            Some("needs I/O port range 4: the device does not have it")
        );
        assert!(list[1].chosen && list[1].failed.is_none());
        assert_eq!(list[2].failed.as_deref(), Some("preferred comes first"));
        assert_eq!(
            list[5].failed.as_deref(),
            Some("rule pci:0001:0002: the device is platform uart16550")
        );
    }

    #[test]
    fn no_driver_is_an_answer_too() {
        let (list, choice) = candidates(&[driver("other", &[pci_device(1, 2)], &[])], &uart());
        assert_eq!(choice, None);
        assert_eq!(list.len(), 1);
    }

    proptest! {
        /// Whatever order the archive has, the same driver is chosen.
        #[test]
        fn the_choice_does_not_depend_on_the_order_of_discovery(
            spec in prop::collection::vec((0i32..3, 0u16..3, any::<bool>()), 1..8),
            rotate in 0usize..8,
        ) {
            let mut drivers: Vec<Driver> = spec.iter().enumerate().map(|(i, (priority, version, fallback))| {
                let mut d = driver(&format!("d{i}"), &[platform("uart16550")], &[]);
                d.manifest.priority = *priority;
                d.manifest.version = [*version, 0, 0];
                if *fallback { d.manifest = d.manifest.as_fallback(); }
                d
            }).collect();
            let chosen = |drivers: &[Driver]| {
                let (_, choice) = candidates(drivers, &uart());
                drivers[choice.unwrap().driver].program.clone()
            };
            let first = chosen(&drivers);
            let by = rotate % drivers.len();
            drivers.rotate_left(by);
            prop_assert_eq!(chosen(&drivers), first);
        }
    }
}
