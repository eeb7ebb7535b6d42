//! Programs that come at run time: the reload of a node's driver, and drivers that are loaded and unloaded.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::binding::{Driver, Offer};
use devmgr::grants;
use devmgr::life::{Event, Phase, Program, Reloaded};
use devmgr::node;
use devmgr::program;
use proto::devmgr::{
    DevError, DriverAdminReloadReply, ProgramInfo, ReloadReport, SAVED_BYTES_MAX, SAVED_FIELDS_MAX,
    SavedState, Versions,
};
use rt::Vmo;
use rt::time::now_ns;

use crate::manager::{Manager, Node, Reloading, program_of};

/// Longest program, in bytes.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 64 * 1024;
/// Most programs that were loaded by hand and are kept.
const LOADED_MAX: usize = 256;

fn failed(why: impl core::fmt::Display) -> DevError {
    DevError::Failed(why.to_string())
}

/// A copy, which whoever sent it cannot change while it is looked at.
fn copy(program: &Vmo, length: u64) -> Result<Vmo, DevError> {
    if length == 0 || length > PROGRAM_BYTES_MAX {
        return Err(DevError::Invalid(format!(
            "program: {length} bytes, expected 1 to {PROGRAM_BYTES_MAX}"
        )));
    }
    let len = usize::try_from(length).map_err(failed)?;
    let ours = Vmo::create(len).map_err(failed)?;
    let mut buffer = alloc::vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let part = len.saturating_sub(at).min(COPY_BYTES);
        let part = buffer.get_mut(..part).unwrap_or_default();
        program.read(at as u64, part).map_err(failed)?;
        ours.write(at as u64, part).map_err(failed)?;
        at = at.saturating_add(COPY_BYTES);
    }
    Ok(ours)
}

impl Manager {
    /// What a program's process is made from.
    pub fn image(&self, program: Program) -> Result<Vmo, String> {
        if let Some(vmo) = self.loaded.get(&program) {
            return rt::AsHandle::duplicate(vmo).map_err(|e| e.to_string());
        }
        let driver = self.driver(program).ok_or("no such program")?;
        let place = &driver.program;
        self.archive
            .window(place)
            .map_err(|e| format!("{place}: {e}"))
    }

    /// The file that a driver's symbols are in; empty if it cannot be read.
    pub fn image_bytes(&self, driver: &Driver) -> Vec<u8> {
        let loaded = self.drivers.iter().position(|d| core::ptr::eq(d, driver));
        let Some(vmo) = loaded.and_then(|p| self.loaded.get(&program_of(p))) else {
            return self.archive.read(&driver.program).unwrap_or_default();
        };
        let len = vmo.size().unwrap_or(0).min(PROGRAM_BYTES_MAX);
        let mut bytes = alloc::vec![0; usize::try_from(len).unwrap_or(0)];
        match vmo.read(0, &mut bytes) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// `nvme 1.2.3 (bin/nvme)`.
    pub fn version_text(&self, program: Program) -> String {
        match self.driver(program) {
            Some(driver) => format!(
                "{} {} ({})",
                driver.manifest.name(),
                driver.version(),
                driver.program
            ),
            None => String::from("an unknown program"),
        }
    }

    /// What a node knows of versions.
    pub fn versions(&self, node: &Node) -> Versions {
        let life = &node.life;
        Versions {
            current: life.current().map(|p| self.version_text(p)),
            last_known_good: life.last_known_good().map(|p| self.version_text(p)),
            in_probation: life.current().is_some() && life.in_probation(),
            fell_back: node.fell_back.clone(),
        }
    }

    /// Takes a program in; nobody is bound to it.
    fn adopt(
        &mut self,
        name: &str,
        length: u64,
        vmo: &Vmo,
        offer: Offer,
    ) -> Result<Program, DevError> {
        if self.loaded.len() >= LOADED_MAX {
            return Err(DevError::NoResources);
        }
        let ours = copy(vmo, length)?;
        let manifest = program::manifest(|offset, buffer| {
            let end = offset.checked_add(buffer.len() as u64)?;
            ours.read(offset, buffer).ok().filter(|()| end <= length)
        });
        let manifest = manifest
            .map_err(|why| DevError::Invalid(format!("program: {why}")))?
            .ok_or_else(|| {
                DevError::Invalid(String::from("program: it has no driver's manifest"))
            })?;
        let driver = Driver {
            manifest,
            program: name.chars().take(256).collect(),
            offer,
        };
        // Numbers of programs that nobody can start any more are given again.
        let unused = |p: usize| {
            self.drivers
                .get(p)
                .is_some_and(|d| d.offer != Offer::Everyone)
                && !self.loaded.contains_key(&program_of(p))
                && !self.is_needed(program_of(p))
        };
        let place = (0..self.drivers.len()).find(|p| unused(*p));
        let place = place.unwrap_or(self.drivers.len());
        match self.drivers.get_mut(place) {
            Some(old) => *old = driver,
            None => self.drivers.push(driver),
        }
        self.loaded.insert(program_of(place), ours);
        Ok(program_of(place))
    }

    fn is_needed(&self, program: Program) -> bool {
        self.nodes.iter().any(|n| n.life.needs(program))
    }

    /// Lets go of programs that no node can come back to.
    pub fn drop_unneeded(&mut self) {
        let unneeded: Vec<Program> = self
            .loaded
            .keys()
            .filter(|p| !self.is_needed(**p))
            .filter(|p| self.driver(**p).is_none_or(|d| d.offer != Offer::Everyone))
            .copied()
            .collect();
        for program in unneeded {
            self.loaded.remove(&program);
        }
    }

    // Reload.

    /// Begins a reload; it is answered when a version serves, or none.
    pub fn reload(
        &mut self,
        path: &str,
        program: Option<(u64, Vmo)>,
        reply: DriverAdminReloadReply,
    ) {
        let begun = self.device_at(path).and_then(|index| {
            let program =
                match program {
                    Some((length, vmo)) => self.successor(index, length, &vmo)?,
                    None => self.nodes.get(index).and_then(|n| n.life.current()).ok_or(
                        DevError::Failed(String::from("it has no driver that could be reloaded")),
                    )?,
                };
            Ok((index, program))
        });
        let (index, program) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.drop_unneeded();
                let _ = reply.error(&error);
                return;
            }
        };
        let before = self.nodes.get(index).and_then(|n| n.life.current());
        let before = before.map(|p| self.version_text(p));
        let earlier = self.nodes.get_mut(index).and_then(|node| {
            node.fell_back = None;
            node.saved = None;
            node.reloading.replace(Reloading {
                reply,
                started_ns: now_ns(),
                before,
            })
        });
        if let Some(earlier) = earlier {
            let why = failed("another reload took over");
            let _ = earlier.reply.error(&why);
        }
        if let Err(refused) = self.event(index, Event::Reload(program)) {
            let reloading = self.nodes.get_mut(index).and_then(|n| n.reloading.take());
            if let Some(reloading) = reloading {
                let _ = reloading.reply.error(crate::admin::refusal(refused));
            }
        }
        self.drop_unneeded();
    }

    /// A program that may take over from a node's driver.
    fn successor(&mut self, index: usize, length: u64, vmo: &Vmo) -> Result<Program, DevError> {
        let name = format!("reload of {}", now_ns() / 1_000_000);
        let program = self.adopt(&name, length, vmo, Offer::Chosen)?;
        let node = self.nodes.get(index).ok_or(DevError::NotFound)?;
        let driver = self.driver(program).ok_or(DevError::NoResources)?;
        let old = node.life.current().and_then(|p| self.driver(p));
        let (name, manifest) = (driver.manifest.name(), &driver.manifest);
        if let Some(old) = old.filter(|old| old.manifest.name() != name) {
            return Err(DevError::Invalid(format!(
                "program: it is the driver {name}, expected {}",
                old.manifest.name()
            )));
        }
        let matches = node.device.identity().and_then(|i| manifest.best_match(&i));
        if matches.is_none() {
            return Err(DevError::Invalid(format!(
                "program: {name} does not match {}",
                node.device.identity_text()
            )));
        }
        grants::plan(manifest, &node.device)
            .map_err(|why| DevError::Invalid(format!("program: {name} {why}")))?;
        Ok(program)
    }

    /// What a driver that is replaced leaves, if it is not too much.
    pub fn keep_state(&mut self, index: usize, state: SavedState) {
        let bytes: usize = state.fields.iter().map(|(_, f)| f.len()).sum();
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        if node.reloading.is_none() || node.life.phase() != Phase::Stopping {
            return;
        }
        if bytes > SAVED_BYTES_MAX || state.fields.len() > SAVED_FIELDS_MAX {
            rt::warn!("{}: its state of {bytes} bytes is not kept", node.path);
            return;
        }
        node.saved = Some(state);
    }

    /// A reload is over.
    pub fn answer_reload(&mut self, index: usize, outcome: Reloaded) {
        let now = now_ns();
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        // The one that is superseded was answered when the other one came.
        let Some(reloading) = node.reloading.take_if(|_| outcome != Reloaded::Superseded) else {
            return;
        };
        let saved = node.saved.take();
        let Some(node) = self.nodes.get(index) else {
            return;
        };
        let fell_back = node.fell_back.clone();
        let _ = match (outcome, node.life.current()) {
            (Reloaded::Done | Reloaded::FellBack, Some(program)) => {
                let report = ReloadReport {
                    before: reloading.before,
                    now: self.version_text(program),
                    epoch: node.epoch,
                    fell_back,
                    saved_fields: saved.map_or(0, |s| s.fields.len() as u32),
                    gap_ns: now.saturating_sub(reloading.started_ns),
                };
                reloading.reply.ok(&report)
            }
            _ => {
                let why = fell_back.or_else(|| node.reason.clone());
                let why = why.unwrap_or_else(|| String::from("it was stopped meanwhile"));
                reloading.reply.error(failed(why))
            }
        };
    }

    // Loading.

    /// Makes a program known and starts it where it is wanted.
    pub fn load(&mut self, name: &str, length: u64, vmo: &Vmo) -> Result<ProgramInfo, DevError> {
        let taken = |d: &Driver| d.program == name && d.offer == Offer::Everyone;
        if self.drivers.iter().any(taken) {
            return Err(DevError::AlreadyExists);
        }
        let program = self.adopt(name, length, vmo, Offer::Everyone)?;
        self.bind_all();
        self.program_info(program).ok_or(DevError::NotFound)
    }

    /// Takes a loaded program out of the choice and stops those who run it; gives the nodes.
    pub fn begin_unload(&mut self, name: &str) -> Result<(Program, Vec<usize>), DevError> {
        let found = self.drivers.iter().position(|d| {
            d.offer == Offer::Everyone && (d.program == name || d.manifest.name() == name)
        });
        let place = found.ok_or(DevError::NotFound)?;
        let program = program_of(place);
        if !self.loaded.contains_key(&program) {
            let why = "program: it came with the system, and cannot be unloaded";
            return Err(DevError::Invalid(why.to_string()));
        }
        if let Some(driver) = self.drivers.get_mut(place) {
            driver.offer = Offer::Nobody;
        }
        let runs = |n: &Node| n.life.current() == Some(program);
        let nodes: Vec<usize> = (0..self.nodes.len())
            .filter(|i| self.nodes.get(*i).is_some_and(runs))
            .collect();
        for index in &nodes {
            if let Err(refused) = self.event(*index, Event::Stop) {
                rt::warn!("node {index} does not stop: {refused:?}");
            }
        }
        Ok((program, nodes))
    }

    /// Whether the nodes of a program that is unloaded are rid of it; they look for another driver then.
    pub fn unloaded(&mut self, program: Program, nodes: &[usize]) -> bool {
        let stopped = |i: &usize| {
            let node = self.nodes.get(*i);
            node.is_none_or(|n| n.life.current() != Some(program) || node::is_over(n.state()))
        };
        if !nodes.iter().all(stopped) {
            return false;
        }
        for index in nodes {
            let runs = |n: &Node| n.life.current() == Some(program);
            if self.nodes.get(*index).is_some_and(runs)
                && let Err(refused) = self.event(*index, Event::Unbind)
            {
                rt::warn!("node {index} stays with its driver: {refused:?}");
            }
        }
        self.drop_unneeded();
        self.bind_all();
        true
    }

    fn program_info(&self, program: Program) -> Option<ProgramInfo> {
        let driver = self.driver(program)?;
        let served = self.nodes.iter().filter(|n| {
            n.life.current() == Some(program) && n.is_present() && !node::is_over(n.state())
        });
        Some(ProgramInfo {
            driver: driver.manifest.name().to_string(),
            version: driver.version(),
            program: driver.program.clone(),
            loaded: self.loaded.contains_key(&program),
            nodes: served.map(|n| n.path.clone()).collect(),
        })
    }

    /// All programs that are offered or run.
    pub fn programs(&self) -> Vec<ProgramInfo> {
        let all = (0..self.drivers.len()).map(program_of);
        let known = all.filter(|p| {
            let offered = self.driver(*p).is_some_and(|d| d.offer == Offer::Everyone);
            offered || self.is_needed(*p)
        });
        known.filter_map(|p| self.program_info(p)).collect()
    }
}
