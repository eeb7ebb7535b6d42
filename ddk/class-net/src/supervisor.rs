//! The control thread's part: modes and filters, the link, watching over frames that do not leave, resetting the device.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{
    Deadline, DeviceContext, DriverError, EventQueue, PAGE, PlatformError, SavedState, StopReason,
    block_on,
};
use ddk_class_core::{Handover, Heartbeat, SessionId, Watchdog};
use proto::net::{MacAddress, NetCounters, NetInfo, Offloads, ReceiveMode};
use ring::Memory;

use crate::FRAGMENTS_MAX;
use crate::counters::QueueCounters;
use crate::device::NetQueue;
use crate::device::{NetDevice, NicInfo, QueueLimits};
use crate::link::{Command, Notice, Notices, WorkerLink};
use crate::session::Session;
use crate::worker::Worker;

/// What the control thread has to do after looking at the notices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Close the session's channel: its client broke the protocol.
    CloseSession(SessionId),
    /// A session is gone with all its buffers: its queue can have another one.
    SessionEnded(SessionId),
    /// [`Supervisor::info`] is another one: tell those who wait for it.
    Changed,
    /// Report the error and end the process, without touching a buffer: the device cannot be stopped, so
    /// only the system's fence makes its memory safe.
    GiveUp(DriverError),
    /// Every worker answered the heartbeat of this number.
    Alive(u32),
}

/// A queue as the control thread sees it.
struct Lane<Q, M> {
    link: Arc<WorkerLink<Q, M>>,
    counters: Arc<QueueCounters>,
    /// The session that it serves, if one that is ending.
    session: Option<SessionId>,
}

/// See the module.
pub struct Supervisor<D: NetDevice, M> {
    cx: DeviceContext,
    /// Until it is stopped.
    device: Option<D>,
    lanes: Vec<Lane<D::Queue, M>>,
    limits: QueueLimits,
    notices: Arc<Notices<D::Queue>>,
    info: Arc<NicInfo>,
    generation: u32,
    resetting: Option<Handover<D::Queue, ()>>,
    resets: u64,
    watchdog: Watchdog,
    beat: Heartbeat,
    /// Queues that flows are steered over.
    active: u16,
}

impl<D: NetDevice, M: Memory> Supervisor<D, M> {
    /// A supervisor with its workers, which still need their threads. `post` wakes the control thread.
    ///
    /// # Errors
    /// When the device has no queues or the system refuses.
    #[expect(clippy::type_complexity, reason = "a pair of the two halves")]
    pub fn new(
        cx: DeviceContext,
        mut device: D,
        post: Box<dyn Fn() + Send + Sync>,
    ) -> Result<(Self, Vec<Worker<D::Queue, M>>), DriverError> {
        let info = Arc::new(device.info());
        let notices = Notices::new(post);
        let (mut lanes, mut workers) = (Vec::new(), Vec::new());
        let mut limits = None;
        for (index, queue) in device.take_queues().into_iter().enumerate() {
            limits = limits.or(Some(queue.limits()));
            let link = WorkerLink::new(cx.event_queue()?);
            let counters = Arc::new(QueueCounters::default());
            let worker = Worker::new(
                &cx,
                index,
                queue,
                info.clone(),
                link.clone(),
                notices.clone(),
                counters.clone(),
            );
            workers.push(worker.map_err(|e| DriverError::platform("interrupt of the queue", e))?);
            lanes.push(Lane {
                link,
                counters,
                session: None,
            });
        }
        let limits = limits.ok_or(DriverError::Unsupported { what: "a queue" })?;
        let supervisor = Supervisor {
            cx,
            device: Some(device),
            lanes,
            limits,
            notices,
            info,
            generation: 0,
            resetting: None,
            resets: 0,
            watchdog: Watchdog::default(),
            beat: Heartbeat::default(),
            active: 1,
        };
        Ok((supervisor, workers))
    }

    /// The interface as it is now.
    pub fn info(&self) -> &NicInfo {
        &self.info
    }

    /// The interface in the words of the protocol.
    pub fn net_info(&self, driver: &str) -> NetInfo {
        let (info, limits) = (&self.info, self.limits);
        // However a frame's fragments lie on pages: each may straddle one more, and the longest frame has these.
        let longest = info.frame_max.max(info.segmented_max);
        let pages = (longest / PAGE as u32) as u16;
        let fragments = limits.tx_segments.saturating_sub(pages) / 2;
        NetInfo {
            mac: info.mac,
            mtu: info.mtu,
            frame_max: info.frame_max,
            segmented_max: info.segmented_max,
            fragments_max: fragments.clamp(1, FRAGMENTS_MAX as u16),
            rx_buffer_min: info.rx_buffer_min,
            link: info.link,
            queues: self.lanes.len() as u16,
            device_depth: limits.rx_depth.min(limits.tx_depth),
            offloads: info.offloads,
            receive_offloads: info.receive_offloads,
            segmentation_sum: info.segmentation_sum,
            driver: driver.into(),
            generation: self.generation,
        }
    }

    /// Limits of the queues.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Counts changes of the interface.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Queues.
    pub fn queues(&self) -> usize {
        self.lanes.len()
    }

    /// What went through, over all queues.
    pub fn counters(&mut self) -> NetCounters {
        let mut sum = NetCounters {
            resets: self.resets,
            ..NetCounters::default()
        };
        for lane in &self.lanes {
            lane.counters.add_to(&mut sum);
        }
        if let Some(device) = &mut self.device {
            let counted = device.counters();
            sum.rx_errors = counted.rx_errors;
            sum.rx_missed = counted.rx_missed;
        }
        sum
    }

    /// The session that a queue serves, if one that is ending.
    pub fn session_of(&self, queue: usize) -> Option<SessionId> {
        self.lanes.get(queue)?.session
    }

    /// Lets a queue without a session serve this one, and steers flows there.
    ///
    /// # Errors
    /// When there is no such queue, it has a session, or the device does not answer.
    pub fn open(&mut self, queue: usize, session: Box<Session<M>>) -> Result<(), DriverError> {
        let refused = |error| DriverError::platform("opening a session", error);
        let lane = self.lanes.get_mut(queue);
        let lane = lane.filter(|lane| lane.session.is_none());
        let lane = lane.ok_or(refused(PlatformError::Invalid))?;
        lane.session = Some(session.id);
        lane.link.send(Command::Open(session)).map_err(refused)?;
        self.steer()
    }

    /// Sends a command to the worker of a queue.
    ///
    /// # Errors
    /// When there is none, or its events are broken.
    pub fn send(&self, queue: usize, command: Command<D::Queue, M>) -> Result<(), PlatformError> {
        let lane = self.lanes.get(queue).ok_or(PlatformError::Invalid)?;
        lane.link.send(command)
    }

    /// Flows go to the queues up to the highest with a session.
    fn steer(&mut self) -> Result<(), DriverError> {
        let used = self.lanes.iter().rposition(|lane| lane.session.is_some());
        let active = used.map_or(1, |last| last as u16 + 1);
        if active == self.active || self.resetting.is_some() {
            // A reset under way steers when it is done.
            return Ok(());
        }
        self.control("steering flows", async |device: &mut D| {
            device.set_active_queues(active).await
        })?;
        self.active = active;
        Ok(())
    }

    /// Runs a control operation of the device.
    fn control(
        &mut self,
        what: &'static str,
        operation: impl AsyncFnOnce(&mut D) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let gone = DriverError::DeviceGone { register: what };
        let device = self.device.as_mut().ok_or(gone)?;
        let done = block_on(&self.cx, operation(device));
        done.map_err(|e| DriverError::platform(what, e))??;
        self.refresh();
        Ok(())
    }

    /// Which frames to pass on.
    ///
    /// # Errors
    /// See [`NetDevice::set_receive_mode`].
    pub fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), DriverError> {
        self.control("receive mode", async |device: &mut D| {
            device.set_receive_mode(mode, multicast).await
        })
    }

    /// Another address.
    ///
    /// # Errors
    /// See [`NetDevice::set_mac`].
    pub fn set_mac(&mut self, mac: MacAddress) -> Result<(), DriverError> {
        self.control("hardware address", async |device: &mut D| {
            device.set_mac(mac).await
        })
    }

    /// Switches receive offloads on and off.
    ///
    /// # Errors
    /// See [`NetDevice::set_receive_offloads`].
    pub fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), DriverError> {
        self.control("receive offloads", async |device: &mut D| {
            device.set_receive_offloads(offloads).await
        })
    }

    /// Delivers the device's announcements of changes to the control thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.device
            .as_mut()
            .ok_or(PlatformError::Closed)?
            .bind_changes(events, key)
    }

    /// The device announced a change.
    ///
    /// # Errors
    /// When it is gone; a device that wants a reset gets one.
    pub fn changed(&mut self) -> Result<(), DriverError> {
        let Some(device) = &mut self.device else {
            return Ok(());
        };
        let looked = block_on(&self.cx, device.changed());
        match looked.map_err(|e| DriverError::platform("look at what changed", e))? {
            Ok(()) => self.refresh(),
            Err(error @ DriverError::DeviceGone { .. }) => return Err(error),
            Err(error) => {
                ddk::error!(self.cx, "{error}; the device is reset");
                self.begin_reset();
            }
        }
        Ok(())
    }

    /// Tells the workers when the interface is not what it was.
    fn refresh(&mut self) {
        let Some(device) = &self.device else { return };
        let info = device.info();
        if info != *self.info {
            self.info = Arc::new(info);
            self.generation = self.generation.wrapping_add(1);
            for lane in &self.lanes {
                let _ = lane.link.send(Command::Info(self.info.clone()));
            }
        }
    }

    /// Asks every worker for a sign of life: [`Verdict::Alive`] follows when all have answered.
    pub fn beat(&mut self, beat: u32) {
        self.beat.ask(beat, self.lanes.len());
        for lane in &self.lanes {
            let _ = lane.link.send(Command::Beat(beat));
        }
    }

    /// Resets the device because somebody wants it, not because it went wrong. [`Supervisor::attend`] does the work
    /// once the workers have handed over.
    pub fn reset_device(&mut self) {
        self.begin_reset();
    }

    /// When [`Supervisor::tick`] is due.
    pub fn next_tick(&self) -> Deadline {
        self.watchdog.next()
    }

    /// Ages the frames in flight once a tick, while there are any.
    pub fn tick(&mut self) {
        let busy = |lane: &&Lane<D::Queue, M>| lane.link.in_flight() > 0;
        let any = || self.lanes.iter().any(|lane| busy(&lane));
        if self.watchdog.is_due(&self.cx, &self.notices, any) {
            for lane in self.lanes.iter().filter(busy) {
                let _ = lane.link.send(Command::Tick);
            }
        }
    }

    /// Looks at what the workers said. Resets the device if that is due, which may take seconds.
    pub fn attend(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let generation = self.generation;
        while let Some(notice) = self.notices.take() {
            if let Err(error) = self.heed(notice, &mut verdicts) {
                verdicts.push(Verdict::GiveUp(error));
            }
        }
        if let Some(resetting) = self.resetting.take_if(|r| r.is_complete()) {
            let (old, ()) = resetting.into_parts();
            if let Err(error) = self.reset(old) {
                verdicts.push(Verdict::GiveUp(error));
            }
        }
        if self.generation != generation {
            verdicts.push(Verdict::Changed);
        }
        verdicts
    }

    fn heed(
        &mut self,
        notice: Notice<D::Queue>,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), DriverError> {
        match notice {
            Notice::SessionBroken(id) => verdicts.push(Verdict::CloseSession(id)),
            Notice::SessionEnded(queue, id) => {
                if let Some(lane) = self.lanes.get_mut(queue) {
                    lane.session = None;
                }
                verdicts.push(Verdict::SessionEnded(id));
                self.steer()?;
            }
            Notice::Alive(beat) => {
                if self.beat.answered(beat) {
                    verdicts.push(Verdict::Alive(beat));
                }
            }
            Notice::Changed => self.changed()?,
            Notice::WantsReset(_) => self.begin_reset(),
            Notice::Stuck(queue) => {
                ddk::error!(
                    self.cx,
                    "queue {queue}: frames do not leave, the device is reset"
                );
                self.begin_reset();
            }
            Notice::Broken(queue, error) => {
                ddk::error!(self.cx, "queue {queue}: {error}; the device is reset");
                self.begin_reset();
                if let DriverError::DeviceGone { .. } = error {
                    return Err(error);
                }
            }
            Notice::Paused(index, queue) => {
                if let Some(resetting) = &mut self.resetting {
                    resetting.take(index, queue);
                }
            }
        }
        Ok(())
    }

    /// Asks every worker for its queue. The device is reset when all have handed theirs over, so that none
    /// touches it meanwhile.
    fn begin_reset(&mut self) {
        if self.resetting.is_some() {
            return;
        }
        self.resetting = Some(Handover::new(self.lanes.len(), ()));
        for lane in &self.lanes {
            let _ = lane.link.send(Command::Pause);
        }
    }

    fn reset(&mut self, old: Vec<D::Queue>) -> Result<(), DriverError> {
        let Some(device) = &mut self.device else {
            // Stopped: the process is about to end, and its pages with it.
            core::mem::forget(old);
            return Ok(());
        };
        let reset = block_on(&self.cx, device.reset(old));
        let queues = reset.map_err(|e| DriverError::platform("waiting for the reset", e))??;
        if queues.len() != self.lanes.len() {
            return Err(DriverError::Protocol {
                what: "queues after the reset",
                expected: self.lanes.len() as u64,
                seen: queues.len() as u64,
            });
        }
        self.resets += 1;
        ddk::debug!(self.cx, "the device was reset");
        self.refresh();
        for (lane, queue) in self.lanes.iter().zip(queues) {
            let sent = lane.link.send(Command::Resume(queue));
            sent.map_err(|e| DriverError::platform("worker", e))?;
        }
        self.steer()
    }

    /// What the next version should know, while the device is not stopped.
    pub fn save(&self) -> Option<SavedState> {
        self.device.as_ref()?.save()
    }

    /// Leaves the device quiet, for good: the process ends next. What the workers hold stays theirs until
    /// then, so that no page is given back that the device may still use.
    pub fn stop(&mut self, why: StopReason)
    where
        D: 'static,
    {
        if let Some(device) = self.device.take() {
            let _ = block_on(&self.cx, device.stop(why));
        }
    }
}
