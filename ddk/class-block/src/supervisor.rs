//! The control thread's part: watching over deadlines, resetting the device, following its changes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{
    Deadline, DeviceContext, DriverError, EventQueue, PlatformError, SavedState, StopReason,
    block_on,
};
use ddk_class_core::{Handover, Heartbeat, SessionId, Watchdog};
use proto::block::Status;
use ring::Memory;

use crate::device::{Abort, BlockDevice, DiskInfo};
use crate::link::{Command, Notice, Notices, WorkerLink};
use crate::worker::Worker;

/// What the control thread has to do after looking at the notices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Close the session's channel: its client broke the protocol.
    CloseSession(SessionId),
    /// Report the error and end the process, without touching a buffer: the device cannot be stopped, so
    /// only the system's fence makes its memory safe.
    GiveUp(DriverError),
    /// Every worker answered the heartbeat of this number.
    Alive(u32),
    /// What became of [`Supervisor::suspend`].
    Suspended(Result<(), DriverError>),
}

/// Why the workers hand their queues over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// The device is reset; what it had ends with this status.
    Reset(Status),
    /// The device is suspended; it has nothing any more.
    Suspension,
}

/// Where a suspension stands.
#[derive(Debug)]
enum Suspension<Q> {
    None,
    /// The workers finish what the device has.
    Asked,
    /// The device is quiet; the queues wait for the reset with which it goes on.
    Done(Vec<Q>),
}

/// See the module.
pub struct Supervisor<D: BlockDevice, M> {
    cx: DeviceContext,
    /// Until it is stopped.
    device: Option<D>,
    links: Vec<Arc<WorkerLink<D::Queue, M>>>,
    notices: Arc<Notices<D::Queue>>,
    disks: Arc<[DiskInfo]>,
    generation: u32,
    handover: Option<Handover<D::Queue, Purpose>>,
    suspension: Suspension<D::Queue>,
    watchdog: Watchdog,
    beat: Heartbeat,
    /// Sessions that were opened on each queue.
    opened: Vec<u32>,
}

impl<D: BlockDevice, M: Memory> Supervisor<D, M> {
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
        let disks: Arc<[DiskInfo]> = device.disks().into();
        let notices = Notices::new(post);
        let (mut links, mut workers) = (Vec::new(), Vec::new());
        for (index, queue) in device.take_queues().into_iter().enumerate() {
            let link = WorkerLink::new(cx.event_queue()?);
            let worker = Worker::new(index, queue, disks.clone(), link.clone(), notices.clone());
            workers.push(worker.map_err(|e| DriverError::platform("interrupt of the queue", e))?);
            links.push(link);
        }
        if links.is_empty() {
            return Err(DriverError::Unsupported { what: "a queue" });
        }
        let opened = links.iter().map(|_| 0).collect();
        let supervisor = Supervisor {
            cx,
            device: Some(device),
            links,
            notices,
            disks,
            generation: 0,
            handover: None,
            suspension: Suspension::None,
            watchdog: Watchdog::default(),
            beat: Heartbeat::default(),
            opened,
        };
        Ok((supervisor, workers))
    }

    /// The disks as they are now.
    pub fn disks(&self) -> &[DiskInfo] {
        &self.disks
    }

    /// The disk with this number, unless it is gone.
    pub fn disk(&self, unit: u32) -> Option<&DiskInfo> {
        self.disks.iter().find(|disk| disk.unit == unit)
    }

    /// Counts changes of the disks.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Queues.
    pub fn queues(&self) -> usize {
        self.links.len()
    }

    /// Chooses the queue for a session: that of the client's CPU, or the one with the fewest sessions.
    pub fn choose_queue(&mut self, cpu: Option<usize>) -> usize {
        let fewest = (0..self.opened.len())
            .min_by_key(|n| self.opened[*n])
            .unwrap_or(0);
        let queue = cpu.map_or(fewest, |cpu| cpu % self.opened.len());
        self.opened[queue] += 1;
        queue
    }

    /// A session is gone that [`Supervisor::choose_queue`] was asked for.
    pub fn leave_queue(&mut self, queue: usize) {
        if let Some(count) = self.opened.get_mut(queue) {
            *count = count.saturating_sub(1);
        }
    }

    /// Sends a command to the worker of a queue.
    ///
    /// # Errors
    /// When there is none, or its events are broken.
    pub fn send(&self, queue: usize, command: Command<D::Queue, M>) -> Result<(), PlatformError> {
        self.links
            .get(queue)
            .ok_or(PlatformError::Invalid)?
            .send(command)
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
        if let Suspension::Done(_) = self.suspension {
            // The reset at its end shows how it is.
            return Ok(());
        }
        let looked = block_on(&self.cx, device.changed());
        match looked.map_err(|e| DriverError::platform("look at what changed", e))? {
            Ok(()) => self.refresh(),
            Err(error @ DriverError::DeviceGone { .. }) => return Err(error),
            Err(error) => {
                ddk::error!(self.cx, "{error}; the device is reset");
                self.begin_reset(Status::IO_ERROR);
            }
        }
        Ok(())
    }

    /// Tells the workers when the disks are not what they were.
    fn refresh(&mut self) {
        let Some(device) = &self.device else { return };
        let disks = device.disks();
        if *disks != *self.disks {
            self.disks = disks.into();
            self.generation = self.generation.wrapping_add(1);
            for link in &self.links {
                let _ = link.send(Command::Disks(self.disks.clone()));
            }
        }
    }

    /// Asks every worker for a sign of life: [`Verdict::Alive`] follows when all have answered.
    pub fn beat(&mut self, beat: u32) {
        self.beat.ask(beat, self.links.len());
        for link in &self.links {
            let _ = link.send(Command::Beat(beat));
        }
    }

    /// Resets the device because somebody wants it, not because it went wrong. What it has ends with
    /// [`Status::IO_ERROR`]. [`Supervisor::attend`] does the work once the workers have handed over.
    pub fn reset_device(&mut self) {
        self.begin_reset(Status::IO_ERROR);
    }

    /// When [`Supervisor::tick`] is due.
    pub fn next_tick(&self) -> Deadline {
        self.watchdog.next()
    }

    /// Ages the requests in flight once a tick, while there are any.
    pub fn tick(&mut self) {
        let busy = |link: &&Arc<WorkerLink<D::Queue, M>>| link.in_flight() > 0;
        let any = || self.links.iter().any(|l| busy(&l));
        if self.watchdog.is_due(&self.cx, &self.notices, any) {
            for link in self.links.iter().filter(busy) {
                let _ = link.send(Command::Tick);
            }
        }
    }

    /// Looks at what the workers said. Resets the device if that is due, which may take seconds.
    pub fn attend(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some(notice) = self.notices.take() {
            match notice {
                Notice::SessionBroken(id) => verdicts.push(Verdict::CloseSession(id)),
                Notice::Alive(beat) => {
                    if self.beat.answered(beat) {
                        verdicts.push(Verdict::Alive(beat));
                    }
                }
                Notice::TimedOut(queue, token) => {
                    if let Err(error) = self.abort(queue, token) {
                        verdicts.push(Verdict::GiveUp(error));
                    }
                }
                Notice::Stuck(queue) => {
                    ddk::error!(
                        self.cx,
                        "queue {queue}: no answer after an abort, the device is reset"
                    );
                    self.begin_reset(Status::TIMED_OUT);
                }
                Notice::Broken(queue, error) => {
                    ddk::error!(self.cx, "queue {queue}: {error}; the device is reset");
                    if let DriverError::DeviceGone { .. } = error {
                        verdicts.push(Verdict::GiveUp(error));
                    }
                    self.begin_reset(Status::IO_ERROR);
                }
                Notice::Paused(index, queue) => {
                    if let Some(handover) = &mut self.handover {
                        handover.take(index, queue);
                    }
                }
            }
        }
        if let Some(handover) = self.handover.take_if(|r| r.is_complete()) {
            match handover.into_parts() {
                (old, Purpose::Suspension) => verdicts.push(self.quiesce(old)),
                (old, Purpose::Reset(status)) => match self.reset(old, status) {
                    Err(error) => verdicts.push(Verdict::GiveUp(error)),
                    // The reset came between.
                    Ok(()) if matches!(self.suspension, Suspension::Asked) => self.hold(),
                    Ok(()) => {}
                },
            }
        }
        verdicts
    }

    /// Suspends the device: sessions are held, what the device has is finished, then it is made quiet.
    /// [`Verdict::Suspended`] follows. Clients wait; what they submit meanwhile is done after [`Supervisor::resume`].
    pub fn suspend(&mut self) {
        if let Suspension::None = self.suspension {
            self.suspension = Suspension::Asked;
            if self.handover.is_none() {
                self.hold();
            }
        }
    }

    fn hold(&mut self) {
        self.handover = Some(Handover::new(self.links.len(), Purpose::Suspension));
        for link in &self.links {
            let _ = link.send(Command::Hold);
        }
    }

    /// The device has nothing any more, and no worker touches it.
    fn quiesce(&mut self, old: Vec<D::Queue>) -> Verdict {
        let Some(device) = &mut self.device else {
            core::mem::forget(old);
            return Verdict::Suspended(Err(DriverError::Unsupported {
                what: "a suspension once stopped",
            }));
        };
        let asked = block_on(&self.cx, device.suspend());
        match asked.map_err(|e| DriverError::platform("waiting for the suspension", e)) {
            Ok(Ok(())) => {
                self.suspension = Suspension::Done(old);
                Verdict::Suspended(Ok(()))
            }
            Ok(Err(error)) | Err(error) => {
                // It goes on serving.
                self.suspension = Suspension::None;
                match self.reset(old, Status::IO_ERROR) {
                    Ok(()) => Verdict::Suspended(Err(error)),
                    Err(error) => Verdict::GiveUp(error),
                }
            }
        }
    }

    /// Takes a suspended device up again, by a reset. Does nothing to one that is not suspended.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn resume(&mut self) -> Result<(), DriverError> {
        let (Suspension::Done(old), Some(device)) = (
            core::mem::replace(&mut self.suspension, Suspension::None),
            &mut self.device,
        ) else {
            return Ok(());
        };
        let taken = block_on(&self.cx, device.resume());
        match taken.map_err(|e| DriverError::platform("waiting for the device", e)) {
            Ok(Ok(())) => self.reset(old, Status::IO_ERROR),
            Ok(Err(error)) | Err(error) => {
                // The device may still use the queues' memory: it must never be given back from here.
                core::mem::forget(old);
                Err(error)
            }
        }
    }

    /// Aborts a request that takes too long; where the device does not do that, resets it.
    fn abort(&mut self, queue: usize, token: u32) -> Result<(), DriverError> {
        let resetting = |h: &Handover<_, Purpose>| *h.reason() != Purpose::Suspension;
        let resetting = self.handover.as_ref().is_some_and(resetting);
        let Some(device) = self.device.as_mut().filter(|_| !resetting) else {
            return Ok(());
        };
        let asked = block_on(&self.cx, device.abort(queue, token));
        match asked.map_err(|e| DriverError::platform("abort", e))? {
            Ok(Abort::Underway) => {
                ddk::warn!(self.cx, "queue {queue}: no answer in time, aborted");
                return Ok(());
            }
            Ok(Abort::Refused) => {
                ddk::error!(
                    self.cx,
                    "queue {queue}: no answer in time, the device is reset"
                );
            }
            Err(error @ DriverError::DeviceGone { .. }) => return Err(error),
            Err(error) => ddk::error!(self.cx, "queue {queue}: {error}; the device is reset"),
        }
        self.begin_reset(Status::TIMED_OUT);
        Ok(())
    }

    /// Asks every worker for its queue. The device is reset when all have handed theirs over, so that none
    /// touches it meanwhile.
    fn begin_reset(&mut self, status: Status) {
        let purpose = Purpose::Reset(status);
        match &mut self.handover {
            Some(handover) if *handover.reason() != Purpose::Suspension => return,
            // The queues that are here already stay.
            Some(handover) => handover.change(purpose),
            // It does nothing, and goes on with a reset.
            None if matches!(self.suspension, Suspension::Done(_)) => return,
            None => self.handover = Some(Handover::new(self.links.len(), purpose)),
        }
        for link in &self.links {
            let _ = link.send(Command::Pause);
        }
    }

    fn reset(&mut self, old: Vec<D::Queue>, status: Status) -> Result<(), DriverError> {
        let Some(device) = &mut self.device else {
            // Stopped: the process is about to end, and its pages with it.
            core::mem::forget(old);
            return Ok(());
        };
        let reset = block_on(&self.cx, device.reset(old));
        let queues = reset.map_err(|e| DriverError::platform("waiting for the reset", e))??;
        if queues.len() != self.links.len() {
            return Err(DriverError::Protocol {
                what: "queues after the reset",
                expected: self.links.len() as u64,
                seen: queues.len() as u64,
            });
        }
        ddk::info!(self.cx, "the device was reset");
        self.refresh();
        for (link, queue) in self.links.iter().zip(queues) {
            let sent = link.send(Command::Resume(queue, status));
            sent.map_err(|e| DriverError::platform("worker", e))?;
        }
        Ok(())
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
