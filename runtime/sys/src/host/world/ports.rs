//! Signals, watches, ports, events, timers, futexes: what is waited for.

use std::collections::VecDeque;

use super::World;
use crate::abi::{Packet, Rights, Signals, WAIT_ONCE};
use crate::host::objects::{Alarm, Body, Object, Queued, Watch};
use crate::host::{Error, Result};
use crate::time::now_ns;

impl World {
    // Signals, watches, ports

    pub(super) fn update(&mut self, koid: u64, side: usize, clear: u32, set: u32) {
        let Ok(state) = self.side(koid, side) else {
            return;
        };
        let before = state.signals & !clear;
        let edges = set & !before;
        state.signals = before | set;
        let watches = state.watches.clone();
        for id in watches {
            self.fire(id, edges);
        }
    }

    pub(super) fn fire(&mut self, id: u64, edges: u32) {
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        if edges & watch.mask == 0 {
            return;
        }
        watch.seen |= edges & watch.mask;
        watch.count += 1;
        let (port, once, object) = (watch.port, watch.once, watch.object);
        if !std::mem::replace(&mut watch.queued, true) {
            watch.timestamp_ns = now_ns();
            self.enqueue(port, Queued::Watch(id));
        }
        if once && let Ok(side) = self.side(object.0, object.1) {
            side.watches.retain(|w| *w != id);
        }
    }

    pub(super) fn enqueue(&mut self, port: u64, item: Queued) {
        if let Some(Object {
            body: Body::Port(queue),
            ..
        }) = self.objects.get_mut(&port)
        {
            queue.push_back(item);
        }
    }

    pub(super) fn port(&mut self, handle: u32, rights: Rights) -> Result<u64> {
        let entry = self.entry(handle, rights)?;
        match self.object(entry.koid)?.body {
            Body::Port(_) => Ok(entry.koid),
            _ => Err(Error::WrongType),
        }
    }

    pub(in crate::host) fn signal(&mut self, handle: u32, clear: u32, set: u32) -> Result<()> {
        let entry = self.entry(handle, Rights::SIGNAL)?;
        if !matches!(self.object(entry.koid)?.body, Body::Event) {
            return Err(Error::WrongType);
        }
        if (clear | set) & !(Signals::SIGNALED.0 | Signals::USER.0) != 0 {
            return Err(Error::InvalidArgument);
        }
        self.update(entry.koid, entry.side, clear, set);
        Ok(())
    }

    pub(in crate::host) fn wait_async(
        &mut self,
        handle: u32,
        port: u32,
        key: u64,
        mask: u32,
        options: usize,
    ) -> Result<()> {
        let entry = self.entry(handle, Rights::WAIT)?;
        let port = self.port(port, Rights::WRITE)?;
        let id = self.next_id();
        let side = self.side(entry.koid, entry.side)?;
        let present = side.signals & mask;
        side.watches.push(id);
        let watch = Watch {
            object: (entry.koid, entry.side),
            port,
            key,
            mask,
            once: options & WAIT_ONCE != 0,
            queued: false,
            seen: 0,
            count: 0,
            timestamp_ns: 0,
        };
        self.watches.insert(id, watch);
        if present != 0 {
            self.fire(id, present);
        }
        Ok(())
    }

    pub(in crate::host) fn create_port(&mut self) -> Result<u32> {
        Ok(self.create(Body::Port(VecDeque::new())))
    }

    /// # Safety
    ///
    /// A packet stands at `pointer`.
    pub(in crate::host) unsafe fn port_queue(&mut self, handle: u32, pointer: usize) -> Result<()> {
        let port = self.port(handle, Rights::WRITE)?;
        // SAFETY: the caller's promise.
        let sent = unsafe { (pointer as *const Packet).read() };
        let packet = Packet {
            kind: Packet::USER,
            signals: 0,
            timestamp_ns: now_ns(),
            ..sent
        };
        self.enqueue(port, Queued::User(packet));
        Ok(())
    }

    /// # Safety
    ///
    /// There is room for `count` packets at `pointer`.
    pub(in crate::host) unsafe fn port_take(
        &mut self,
        handle: u32,
        pointer: usize,
        count: usize,
    ) -> Result<usize> {
        let port = self.port(handle, Rights::READ)?;
        let mut taken = 0;
        while taken < count {
            let Body::Port(queue) = &mut self.object(port)?.body else {
                break;
            };
            let Some(item) = queue.pop_front() else { break };
            let Some(packet) = self.packet(item) else {
                continue;
            };
            // SAFETY: below `count`.
            unsafe { (pointer as *mut Packet).add(taken).write(packet) };
            taken += 1;
        }
        if taken == 0 {
            Err(Error::ShouldWait)
        } else {
            Ok(taken)
        }
    }

    fn packet(&mut self, item: Queued) -> Option<Packet> {
        match item {
            Queued::User(packet) => Some(packet),
            Queued::Watch(id) => {
                let watch = self.watches.get_mut(&id)?;
                watch.queued = false;
                let packet = Packet {
                    key: watch.key,
                    kind: Packet::SIGNAL,
                    signals: std::mem::take(&mut watch.seen),
                    value: std::mem::take(&mut watch.count),
                    timestamp_ns: watch.timestamp_ns,
                };
                let (object, once) = (watch.object, watch.once);
                if once || !self.objects.contains_key(&object.0) {
                    self.watches.remove(&id);
                }
                Some(packet)
            }
            Queued::Interrupt(koid) => {
                let binding = self.binding(koid).ok()?;
                binding.queued = false;
                let packet = Packet {
                    key: binding.key,
                    kind: Packet::INTERRUPT,
                    signals: 0,
                    value: std::mem::take(&mut binding.pending),
                    timestamp_ns: now_ns(),
                };
                binding.masked = !binding.ack_on_dequeue;
                Some(packet)
            }
        }
    }

    pub(in crate::host) fn port_cancel(&mut self, port: u32, handle: u32, key: u64) -> Result<()> {
        let port = self.port(port, Rights::NONE)?;
        let entry = self.entry(handle, Rights::NONE)?;
        let object = (entry.koid, entry.side);
        let ids: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, w)| w.object == object && w.port == port && w.key == key)
            .map(|(id, _)| *id)
            .collect();
        for id in &ids {
            self.watches.remove(id);
        }
        self.side(entry.koid, entry.side)?
            .watches
            .retain(|id| !ids.contains(id));
        Ok(())
    }

    // Events, timers

    pub(in crate::host) fn create_event(&mut self) -> Result<u32> {
        Ok(self.create(Body::Event))
    }

    pub(in crate::host) fn create_timer(&mut self) -> Result<u32> {
        Ok(self.create(Body::Timer(Alarm::default())))
    }

    pub(in crate::host) fn timer_set(
        &mut self,
        handle: u32,
        deadline: u64,
        period: u64,
    ) -> Result<()> {
        let entry = self.entry(handle, Rights::WRITE)?;
        let Body::Timer(alarm) = &mut self.object(entry.koid)?.body else {
            return Err(Error::WrongType);
        };
        alarm.deadline_ns = (deadline != u64::MAX).then_some(deadline);
        alarm.period_ns = period;
        self.update(entry.koid, 0, Signals::SIGNALED.0, 0);
        Ok(())
    }

    pub(in crate::host) fn fire_timers(&mut self, now: u64) {
        let mut due = Vec::new();
        for (koid, object) in &mut self.objects {
            if let Body::Timer(alarm) = &mut object.body
                && let Some(deadline) = alarm.deadline_ns
                && deadline <= now
            {
                alarm.deadline_ns =
                    (alarm.period_ns > 0).then(|| deadline.saturating_add(alarm.period_ns));
                due.push(*koid);
            }
        }
        for koid in due {
            self.update(koid, 0, Signals::SIGNALED.0, Signals::SIGNALED.0);
        }
    }

    pub(in crate::host) fn next_timer(&self) -> u64 {
        let deadline = |object: &Object| match &object.body {
            Body::Timer(alarm) => alarm.deadline_ns,
            _ => None,
        };
        self.objects
            .values()
            .filter_map(deadline)
            .min()
            .unwrap_or(u64::MAX)
    }

    // Futexes

    pub(in crate::host) fn futex_enter(&mut self, address: usize) -> u64 {
        let ticket = self.next_id();
        self.futexes.entry(address).or_default().push_back(ticket);
        ticket
    }

    pub(in crate::host) fn futex_is_waiting(&self, address: usize, ticket: u64) -> bool {
        self.futexes
            .get(&address)
            .is_some_and(|queue| queue.contains(&ticket))
    }

    pub(in crate::host) fn futex_leave(&mut self, address: usize, ticket: u64) {
        if let Some(queue) = self.futexes.get_mut(&address) {
            queue.retain(|t| *t != ticket);
            if queue.is_empty() {
                self.futexes.remove(&address);
            }
        }
    }

    pub(in crate::host) fn futex_wake(&mut self, address: usize, count: usize) -> usize {
        let Some(queue) = self.futexes.get_mut(&address) else {
            return 0;
        };
        let woken = queue.len().min(count);
        queue.drain(..woken);
        woken
    }
}
