//! A virtio console (virtio 1.2, 5.3) with one port.

use std::collections::VecDeque;

use model_virtio::{DeviceChain, DeviceLogic, Request, Served, VirtioPci};
use spec_virtio::console::queue;

/// How the device departs from the rules, from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Gives buffers back with nothing in them.
    Empty,
    /// Claims to have written more than there was room for.
    Overlong,
    /// Completes a chain that does not exist in place of each.
    Misnamed,
    /// Takes what is sent and never gives the buffers back.
    Silent,
}

/// The device.
#[derive(Debug)]
pub struct ConsoleModel {
    features: u64,
    queue_size: u16,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
    /// What the driver sent.
    pub sent: Vec<u8>,
    /// Buffers to be filled.
    empty: VecDeque<DeviceChain>,
    /// Bytes that came and have no buffer yet.
    pub waiting: VecDeque<u8>,
}

impl ConsoleModel {
    /// A device with these features beside `VERSION_1`, and so many entries in each queue.
    pub fn new(features: u64, queue_size: u16) -> ConsoleModel {
        ConsoleModel {
            features,
            queue_size,
            misbehaviour: Misbehaviour::None,
            sent: Vec::new(),
            empty: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Bytes for one buffer.
    fn piece(&mut self, room: u32) -> Vec<u8> {
        let len = self.waiting.len().min(room as usize);
        self.waiting.drain(..len).collect()
    }
}

impl DeviceLogic for ConsoleModel {
    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> Vec<u8> {
        // Columns, rows, ports, emergency write: none is valid without its feature.
        vec![0; 12]
    }

    fn queues(&self) -> (u16, u16) {
        (2, self.queue_size)
    }

    fn serve(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        let chain = asked.chain;
        if asked.queue == queue::TRANSMIT {
            if !chain.writable.is_empty() {
                return Err("a buffer to be sent that the device could write".into());
            }
            self.sent.extend(chain.read(asked.memory)?);
            return Ok(match self.misbehaviour {
                Misbehaviour::Silent => Served::Lost,
                Misbehaviour::Misnamed => Served::Misnamed(0),
                _ => Served::Done(0),
            });
        }
        if !chain.readable.is_empty() || chain.writable_len() == 0 {
            return Err("a buffer to be filled that the device cannot write".into());
        }
        if self.waiting.is_empty() {
            self.empty.push_back(chain.clone());
            return Ok(Served::Lost);
        }
        let bytes = self.piece(chain.writable_len());
        chain.write(asked.memory, 0, &bytes)?;
        Ok(Served::Done(bytes.len() as u32))
    }

    fn is_in_order(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.empty.clear();
    }
}

/// Bytes come in at the device's other end.
pub fn type_in(device: &VirtioPci<ConsoleModel>, bytes: &[u8]) {
    let memory = device.sim().memory();
    let told = device.with(|logic, queues| {
        logic.waiting.extend(bytes);
        let Some(queue) = &mut queues[usize::from(queue::RECEIVE)] else {
            return Ok(false);
        };
        let mut told = false;
        while !logic.waiting.is_empty() {
            let Some(chain) = logic.empty.pop_front() else {
                break;
            };
            let bytes = logic.piece(chain.writable_len());
            chain.write(memory, 0, &bytes)?;
            told |= match logic.misbehaviour {
                Misbehaviour::Empty => queue.complete(chain.head, 0)?,
                Misbehaviour::Overlong => queue.complete(chain.head, u32::MAX)?,
                Misbehaviour::Misnamed => queue.complete_raw(u32::MAX, 1)?,
                _ => queue.complete(chain.head, bytes.len() as u32)?,
            };
        }
        Ok::<bool, String>(told)
    });
    match told {
        Ok(true) => device.fire_queue(usize::from(queue::RECEIVE)),
        Ok(false) => {}
        Err(text) => device.sim().violation(text),
    }
}
