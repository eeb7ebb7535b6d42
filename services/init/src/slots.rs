//! What is supervised: start, watch, gather evidence, start again or give up; the vault; scheme `services`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use init::config::Config;
use init::life::{Action, Life};
use init::services::{Grant, OnExit, SERVICES, SHELL, Service};
use init::vault::Vault;
use proto::crash_report::{Events, Kind, Subject};
use proto::fs::BytesRef;
use proto::services::{
    EndReason, ServiceSummary, ServicesError, ServicesRequest, SupervisedClient, SupervisorError,
    SupervisorRequest, SupervisorServer,
};
use rt::ipc::{Refusal, Server, ServerEnd};
use rt::process::{Child, ExitReason, Exited, Stdio};
use rt::{AsHandle, Channel, Deadline, Error, Handle, Signals, Watch};
use supervision::{heartbeat, restart};

use crate::ending::Way;
use crate::supervisor::Supervisor;

/// First key of services' packets. A key has the incarnation in its upper half, so that late packets are told apart.
pub const KEY_SLOTS: u64 = 0x100;
/// Keys of one service.
const KEYS: u64 = 4;

/// What a packet tells of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The process's end.
    End = 0,
    /// A message on its channel to init.
    Request = 1,
    /// A call to a service that nobody serves.
    Unserved = 2,
}

/// A service and its present incarnation.
pub struct Slot {
    service: &'static Service,
    life: Life,
    child: Option<Child>,
    /// Init's end of the channel between them: pings go out, requests come in.
    own: Option<(SupervisedClient, SupervisorServer)>,
    vault: Vault<Handle>,
    /// Init answers in the service's place.
    refusing: bool,
    /// What happened to it, for reports.
    events: Events,
}

impl Slot {
    /// The table, nothing started.
    pub fn all(config: &Config) -> Vec<Slot> {
        let slot = |service: &'static Service| {
            let mut rules = match service.on_exit {
                OnExit::Restart(rules) => rules,
                OnExit::PowerOff => restart::NEVER,
            };
            let mut rhythm = service.rhythm;
            for word in config.restart_words(service.name) {
                if rhythm
                    .as_mut()
                    .is_some_and(|rhythm| heartbeat::change(rhythm, word))
                {
                    continue;
                }
                if let Err(why) = restart::change(&mut rules, word) {
                    rt::warn!("boot.cfg: restart.{}: {why}", service.name);
                }
            }
            Slot {
                service,
                life: Life::new(rules, rhythm),
                child: None,
                own: None,
                vault: Vault::default(),
                refusing: false,
                events: Events::default(),
            }
        };
        SERVICES.iter().chain([&SHELL]).map(slot).collect()
    }

    fn happened(&mut self, text: String) {
        self.events.push(rt::time::now_ns(), text);
    }

    fn schemes(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.service.grants.iter().filter_map(|grant| match grant {
            Grant::Serve(name) => Some(*name),
            _ => None,
        })
    }

    fn summary(&self, now_ms: u64) -> ServiceSummary {
        let (rules, deaths) = self.life.rules(now_ms);
        let (bytes, handles) = self.vault.size();
        ServiceSummary {
            name: self.service.name.to_string(),
            state: self.life.state(),
            pid: self.child.as_ref().and_then(|child| child.id().ok()),
            epoch: self.life.epoch(),
            schemes: self.schemes().map(String::from).collect(),
            rules,
            deaths,
            last_end: self.life.last_end().cloned(),
            kept: (bytes as u64, u32::try_from(handles).unwrap_or(u32::MAX)),
        }
    }
}

fn now_ms() -> u64 {
    rt::time::now_ns() / 1_000_000
}

fn key(index: usize, epoch: u32, about: About) -> u64 {
    let slot = (index as u64)
        .saturating_mul(KEYS)
        .saturating_add(about as u64);
    u64::from(epoch) << 32 | KEY_SLOTS.saturating_add(slot)
}

impl Supervisor {
    /// The place of the service of that name.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.service.name == name)
    }

    /// When something is due.
    pub fn next_due(&self) -> Deadline {
        let due_ms = self
            .slots
            .iter()
            .filter_map(|slot| slot.life.due_ms())
            .min();
        let wait_ms = |due: u64| Deadline::after_ms(due.saturating_sub(now_ms()));
        due_ms.map_or(Deadline::FOREVER, wait_ms)
    }

    /// Does what is due.
    pub fn do_due(&mut self) {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots.get_mut(index) {
                let action = slot.life.tick(now_ms());
                self.act(index, action);
            }
        }
    }

    fn act(&mut self, index: usize, action: Action) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match action {
            Action::None => {}
            Action::Start => self.start(index),
            Action::Ping(beat) => {
                if let Some((pings, _)) = &slot.own {
                    // One whose channel is full is silent; one that is gone is told of by its process.
                    let _ = pings.ping(beat);
                }
            }
            Action::Kill => {
                slot.happened(String::from("init ends it"));
                if let Some(Err(error)) = slot.child.as_ref().map(Child::kill) {
                    rt::error!("{}: cannot end it: {error}", slot.service.name);
                }
            }
        }
    }

    /// Starts a service's next incarnation; a failure counts as a death.
    pub fn start(&mut self, index: usize) {
        let streams = [Stdio::Null, Stdio::Log, Stdio::Log];
        if let Err(why) = self.start_with(index, streams, &[]) {
            if let Some(slot) = self.slots.get_mut(index) {
                rt::error!("cannot start {}: {why}", slot.service.name);
                slot.life.ended(EndReason::CannotStart, why, now_ms());
            }
            self.after_end(index);
        }
    }

    /// As [`Supervisor::start`], with these streams and arguments; a failure is the caller's.
    pub fn start_with(
        &mut self,
        index: usize,
        streams: [Stdio; 3],
        args: &[&str],
    ) -> Result<(), String> {
        self.serve_no_more(index);
        let text = |error: Error| error.to_string();
        let slot = self.slots.get_mut(index).ok_or("no such service")?;
        let (service, epoch) = (slot.service, slot.life.starting());
        let (ours, theirs) = Channel::create().map_err(text)?;
        let requests = key(index, epoch, About::Request);
        ours.wait_async(&self.port, requests, Signals::READABLE, Watch::Persistent)
            .map_err(text)?;
        let pings = SupervisedClient::new(ours.duplicate().map_err(text)?);
        let child = self.spawn(service, streams, args, theirs)?;
        let end = key(index, epoch, About::End);
        let watched = child.process();
        if let Err(error) = watched.wait_async(&self.port, end, Signals::TERMINATED, Watch::Once) {
            // What cannot be watched over does not run.
            let _ = child.kill();
            return Err(text(error));
        }
        if let Some(slot) = self.slots.get_mut(index) {
            let process = child.id().unwrap_or(0);
            slot.happened(format!("incarnation {epoch} started as process {process}"));
            slot.child = Some(child);
            slot.own = Some((pings, SupervisorServer::new(ours)));
            slot.life.started(now_ms());
        }
        Ok(())
    }

    /// A packet of a service.
    pub fn dispatch_slot(&mut self, packet_key: u64) {
        let place = (packet_key & 0xffff_ffff).saturating_sub(KEY_SLOTS);
        let index = usize::try_from(place / KEYS).unwrap_or(usize::MAX);
        let epoch = (packet_key >> 32) as u32;
        let Some(slot) = self.slots.get(index).filter(|s| s.life.epoch() == epoch) else {
            return;
        };
        if packet_key == key(index, epoch, About::End) {
            self.ended(index);
        } else if packet_key == key(index, epoch, About::Unserved) {
            self.refuse(index);
        } else if let Some((_, requests)) = &slot.own {
            self.drain(requests.clone(), packet_key, |init, request| {
                init.serve_slot(packet_key, request);
            });
        }
    }

    /// A service's process is gone: evidence first, then what the rules say.
    fn ended(&mut self, index: usize) {
        // What it had put into the vault before it died counts.
        self.serve_rest(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(child) = slot.child.take() else {
            return;
        };
        slot.own = None;
        let (service, epoch) = (slot.service, slot.life.epoch());
        let name = service.name;
        // Calls that it had taken fail now; those that it had not read wait for the next one.
        for scheme in slot.schemes() {
            if let Some(Err(error)) = self
                .providers
                .get(scheme)
                .map(|s| s.set_epoch(epoch.into()))
            {
                rt::error!("scheme {scheme}: {error}");
            }
        }
        let exited = match child.try_wait() {
            Ok(Some(exited)) => exited,
            other => {
                rt::error!("{name}: no exit record ({other:?})");
                return;
            }
        };
        if exited.reason == ExitReason::Exited(0) {
            rt::info!("{name} ended");
        } else {
            rt::error!("{name} (process {}): {exited}", exited.info.koid);
        }
        if service.on_exit == OnExit::PowerOff {
            if exited.crash.is_some() {
                self.report(index, &exited, None);
            }
            self.end(Way::PowerOff(exited.status()));
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.life
            .ended(exited.end_reason(), exited.to_string(), now_ms());
        let ended = slot.life.last_end();
        let ended = ended.map(|end| (end.reason, end.text.clone()));
        self.report(index, &exited, ended);
        self.after_end(index);
    }

    fn after_end(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        if !slot.life.is_over() {
            return;
        }
        let why = slot.life.last_end().map_or("", |end| &end.text);
        rt::error!(
            "{} is {}: {why}",
            slot.service.name,
            slot.life.state().text()
        );
        self.serve_instead(index);
    }

    /// The report of an end, unless somebody asked for it. `ended` is what the life says of it.
    fn report(&mut self, index: usize, exited: &Exited, ended: Option<(EndReason, String)>) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let subject = Subject {
            kind: Kind::Service,
            name: slot.service.name.to_string(),
            pid: exited.info.koid,
            epoch: slot.life.epoch(),
            program: slot.service.program.to_string(),
            version: None,
            crc32: None,
            node: None,
            known_as: Vec::new(),
        };
        let program = || self.archive.read(slot.service.program).unwrap_or_default();
        let mut report = exited.report(subject, program);
        if let (Some((reason, text)), None) = (ended, &report.fault) {
            (report.reason, report.text) = (reason, text);
        }
        if let Some(fault) = &report.fault {
            rt::error!("{}", report.title());
            for line in fault.to_string().lines() {
                rt::error!("{line}");
            }
        }
        if report.reason == EndReason::Asked {
            return;
        }
        report.events = slot.events.list();
        self.keep_report(report);
    }

    /// Nobody serves these schemes: their clients are told so, now and from now on.
    fn serve_instead(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let watch_key = key(index, slot.life.epoch(), About::Unserved);
        if core::mem::replace(&mut slot.refusing, true) {
            return;
        }
        for server in slot.schemes().filter_map(|name| self.providers.get(name)) {
            let watch = Watch::Persistent;
            if let Err(error) = server.wait_async(&self.port, watch_key, Signals::READABLE, watch) {
                rt::error!("port: {error}");
            }
        }
        self.refuse(index);
    }

    fn refuse(&self, index: usize) {
        let Some(slot) = self.slots.get(index).filter(|slot| slot.refusing) else {
            return;
        };
        for server in slot.schemes().filter_map(|name| self.providers.get(name)) {
            if let Ok(server) = server.duplicate() {
                // Who asked may be gone.
                let _ = ServerEnd::new(server).refuse_all(Refusal::Unavailable);
            }
        }
    }

    /// The service serves its schemes itself again.
    fn serve_no_more(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if !core::mem::replace(&mut slot.refusing, false) {
            return;
        }
        let watch_key = key(index, slot.life.epoch(), About::Unserved);
        for server in slot.schemes().filter_map(|name| self.providers.get(name)) {
            if let Err(error) = self.port.cancel(server, watch_key) {
                rt::error!("port: {error}");
            }
        }
    }

    /// Takes what a dead service had still asked.
    fn serve_rest(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let Some((_, requests)) = &slot.own else {
            return;
        };
        let (requests, slot_key) = (
            requests.clone(),
            key(index, slot.life.epoch(), About::Request),
        );
        while let Ok(Some(request)) = requests.try_next() {
            self.serve_slot(slot_key, request);
        }
    }

    fn serve_slot(&mut self, slot_key: u64, request: SupervisorRequest) {
        let place = (slot_key & 0xffff_ffff).saturating_sub(KEY_SLOTS) / KEYS;
        let index = usize::try_from(place).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        // One that died does not wait for its answer.
        let _ = match request {
            SupervisorRequest::Alive { beat } => {
                slot.life.alive(beat, now_ms());
                Ok(())
            }
            SupervisorRequest::Put {
                key,
                bytes,
                handles,
                reply,
            } => {
                let lasting = handles.iter().all(|handle| handle.duplicate().is_ok());
                match slot.vault.put(&key, bytes.0, handles) {
                    Ok(()) if lasting => reply.ok(),
                    Ok(()) => {
                        slot.vault.remove(&key);
                        reply.error(SupervisorError::Full)
                    }
                    Err(_) => reply.error(SupervisorError::Full),
                }
            }
            SupervisorRequest::Get { key, reply } => match slot.vault.get(&key) {
                None => reply.error(SupervisorError::NotFound),
                Some((bytes, handles)) => {
                    let copies: Result<Vec<Handle>, Error> =
                        handles.iter().map(AsHandle::duplicate).collect();
                    match copies {
                        Ok(copies) => reply.ok(BytesRef(bytes), copies),
                        Err(_) => reply.error(SupervisorError::Full),
                    }
                }
            },
            SupervisorRequest::Remove { key, reply } => {
                slot.vault.remove(&key);
                reply.ok()
            }
            SupervisorRequest::Keys {
                prefix,
                after,
                reply,
            } => reply.ok(slot.vault.keys(&prefix, &after)),
        };
    }

    /// Serves a request of `services:`.
    pub fn serve_services(&mut self, request: ServicesRequest) {
        // A client that is gone does not wait for its answer.
        let _ = match request {
            ServicesRequest::List { reply } => {
                let list = self.slots.iter().map(|slot| slot.summary(now_ms()));
                reply.ok(list.collect::<Vec<_>>())
            }
            ServicesRequest::Start { name, reply } => reply.send(self.ask(&name, |life, now| {
                life.ask_start(now);
                Action::None
            })),
            ServicesRequest::Stop { name, reply } => {
                reply.send(self.ask(&name, |life, _| life.ask_stop()))
            }
            ServicesRequest::Restart { name, reply } => {
                reply.send(self.ask(&name, Life::ask_restart))
            }
            ServicesRequest::SetRules { name, rules, reply } => {
                reply.send(self.ask(&name, |life, _| {
                    life.set_rules(rules);
                    Action::None
                }))
            }
        };
    }

    fn ask(
        &mut self,
        name: &str,
        f: impl FnOnce(&mut Life, u64) -> Action,
    ) -> Result<(), ServicesError> {
        let index = self.slot(name).ok_or(ServicesError::NotFound)?;
        let slot = self.slots.get_mut(index).ok_or(ServicesError::NotFound)?;
        if slot.service.on_exit == OnExit::PowerOff {
            let why = format!("the end of {name} is the end of the system: use poweroff");
            return Err(ServicesError::Refused(why));
        }
        let action = f(&mut slot.life, now_ms());
        slot.happened(format!("asked from outside: {action:?}"));
        let is_over = slot.life.is_over() && slot.child.is_none();
        self.act(index, action);
        if is_over {
            self.serve_instead(index);
        }
        Ok(())
    }
}
