//! What the stand-in keeps of each object.

use std::collections::VecDeque;
use std::sync::Arc;

use super::memory::Memory;
use crate::abi::{ObjectKind, Packet};

/// A handle's contents: an object, one of its sides, rights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) koid: u64,
    pub(super) side: usize,
    pub(super) rights: u32,
}

/// A message; its handles are alive but in no table.
pub(super) struct Message {
    pub(super) txid: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Vec<Entry>,
}

/// Signals and watches of an object or a channel's end.
#[derive(Default)]
pub(super) struct Side {
    pub(super) handles: u32,
    pub(super) signals: u32,
    pub(super) watches: Vec<u64>,
}

#[derive(Default)]
pub(super) struct End {
    pub(super) inbox: VecDeque<Message>,
    /// Calls from this end whose reply has not come, and replies that have.
    pub(super) callers: Vec<u64>,
    pub(super) replies: Vec<Message>,
    /// Calls from this end whose server was replaced, and by which epoch.
    pub(super) lost: Vec<(u64, u64)>,
    pub(super) closed: bool,
    pub(super) epoch: u64,
}

pub(super) enum Queued {
    Watch(u64),
    User(Packet),
    Interrupt(u64),
}

#[derive(Default)]
pub(super) struct Binding {
    pub(super) port: Option<u64>,
    pub(super) key: u64,
    pub(super) ack_on_dequeue: bool,
    /// A packet was delivered and not acknowledged.
    pub(super) masked: bool,
    pub(super) pending: u64,
    pub(super) queued: bool,
    pub(super) total: u64,
}

#[derive(Default)]
pub(super) struct Alarm {
    pub(super) deadline_ns: Option<u64>,
    pub(super) period_ns: u64,
}

pub(super) enum Body {
    Channel([End; 2]),
    Port(VecDeque<Queued>),
    Event,
    Timer(Alarm),
    Vmo(Arc<Memory>),
    Interrupt(Binding),
}

pub(super) struct Object {
    pub(super) sides: [Side; 2],
    pub(super) body: Body,
}

impl Object {
    pub(super) fn new(body: Body) -> Object {
        Object {
            sides: Default::default(),
            body,
        }
    }

    pub(super) fn kind(&self) -> ObjectKind {
        match self.body {
            Body::Channel(_) => ObjectKind::Channel,
            Body::Port(_) => ObjectKind::Port,
            Body::Event => ObjectKind::Event,
            Body::Timer(_) => ObjectKind::Timer,
            Body::Vmo(_) => ObjectKind::Vmo,
            Body::Interrupt(_) => ObjectKind::Interrupt,
        }
    }
}

/// A watch on an object's signals.
pub(super) struct Watch {
    pub(super) object: (u64, usize),
    pub(super) port: u64,
    pub(super) key: u64,
    pub(super) mask: u32,
    pub(super) once: bool,
    pub(super) queued: bool,
    pub(super) seen: u32,
    pub(super) count: u64,
    pub(super) timestamp_ns: u64,
}
