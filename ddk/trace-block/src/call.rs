//! Calls of the class layer as they are recorded.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ddk::StopReason;
#[cfg(not(target_os = "none"))]
use ddk::{DeviceAccess, PAGE, PinnedBuffer};
use ddk_class_block::{Operation, Request};
use serde::{Deserialize, Serialize};

/// Most pages of a request: of 4 GiB.
#[cfg(not(target_os = "none"))]
const PAGES_MAX: usize = 1 << 20;

/// A call. Queues have numbers from 0 on, in the order in which the driver gave them out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The driver by its name in the manifest, and its version.
    Start(String, [u16; 3]),
    Disks,
    TakeQueues,
    /// With these queues.
    Reset(Vec<u32>),
    /// With this key.
    BindChanges(u64),
    Changed,
    /// Queue by its place, and token.
    Abort(u32, u32),
    Suspend,
    Resume,
    Stop(Stop),
    Save,
    /// Of a queue.
    Queue(u32, OfQueue),
}

/// A call of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum OfQueue {
    Depth,
    Push(Pushed),
    Kick,
    Reap,
    Arm,
    Disarm,
    /// With this key.
    Bind(u64),
    /// It is given up without a reset.
    Drop,
}

/// [`StopReason`] as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Stop {
    Shutdown,
    Replaced,
    Removed,
    Requested,
}

impl From<StopReason> for Stop {
    fn from(why: StopReason) -> Stop {
        match why {
            StopReason::Shutdown => Stop::Shutdown,
            StopReason::Replaced => Stop::Replaced,
            StopReason::Removed => Stop::Removed,
            StopReason::Requested => Stop::Requested,
        }
    }
}

impl From<Stop> for StopReason {
    fn from(why: Stop) -> StopReason {
        match why {
            Stop::Shutdown => StopReason::Shutdown,
            Stop::Replaced => StopReason::Replaced,
            Stop::Removed => StopReason::Removed,
            Stop::Requested => StopReason::Requested,
        }
    }
}

/// A request, with the device addresses of its data instead of a buffer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Pushed {
    token: u32,
    unit: u32,
    operation: u8,
    durable: bool,
    may_unmap: bool,
    lba: u64,
    blocks: u32,
    length: u32,
    /// Addresses and lengths in bytes.
    data: Option<Vec<(u64, u32)>>,
}

impl Pushed {
    pub(crate) fn of(request: &Request<'_>) -> Pushed {
        let data = request.data.map(|_| {
            let segments = request.segments(0).into_iter().flatten();
            segments.map(|s| (s.address, s.len)).collect()
        });
        Pushed {
            token: request.token,
            unit: request.unit,
            operation: request.operation as u8,
            durable: request.durable,
            may_unmap: request.may_unmap,
            lba: request.lba,
            blocks: request.blocks,
            length: request.length,
            data,
        }
    }

    /// A buffer at the same device addresses. A recording may be anybody's: what no client can register is cut.
    #[cfg(not(target_os = "none"))]
    pub(crate) fn buffer(&self) -> Option<PinnedBuffer> {
        let page = PAGE as u64;
        let mut pages = Vec::new();
        for (address, len) in self.data.as_ref()? {
            let end = address.saturating_add(u64::from(*len));
            let first = address - address % page;
            let room = PAGES_MAX.saturating_sub(pages.len());
            pages.extend((first..end).step_by(PAGE).take(room));
        }
        let guard = alloc::boxed::Box::new(());
        Some(PinnedBuffer::new(pages.into(), DeviceAccess::Both, guard))
    }

    /// The request again; `None` if there is no such operation.
    #[cfg(not(target_os = "none"))]
    pub(crate) fn request<'a>(&self, buffer: Option<&'a PinnedBuffer>) -> Option<Request<'a>> {
        let first = self.data.as_ref().and_then(|data| data.first());
        Some(Request {
            token: self.token,
            unit: self.unit,
            operation: Operation::from_number(self.operation)?,
            durable: self.durable,
            may_unmap: self.may_unmap,
            lba: self.lba,
            blocks: self.blocks,
            length: self.length,
            data: buffer,
            offset: first.map_or(0, |(address, _)| address % PAGE as u64),
        })
    }
}

impl fmt::Display for Call {
    /// For people who read the last of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call::Queue(queue, call) = self else {
            return write!(f, "{self:?}");
        };
        write!(f, "queue {queue}: ")?;
        let OfQueue::Push(pushed) = call else {
            return write!(f, "{call:?}");
        };
        let Pushed { lba, length, .. } = pushed;
        match Operation::from_number(pushed.operation) {
            Some(operation) => write!(f, "Push {operation:?}")?,
            None => write!(f, "Push operation {}", pushed.operation)?,
        }
        write!(f, " block {lba}, {length} bytes, token {}", pushed.token)?;
        if let Some((address, _)) = pushed.data.as_ref().and_then(|data| data.first()) {
            write!(f, ", data at {address:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;

    #[test]
    fn a_request_comes_back_with_the_same_addresses() {
        let pages = [8, 9, 4, 12].map(|page| page * PAGE as u64);
        let buffer = PinnedBuffer::new(pages.into(), DeviceAccess::Both, Box::new(()));
        for (offset, length) in [(0x800, 0x1000), (512, 512), (0x1e00, 0x2200), (0, 0x4000)] {
            let request = Request {
                token: 3,
                unit: 1,
                operation: Operation::Write,
                durable: true,
                may_unmap: false,
                lba: 77,
                blocks: length / 512,
                length,
                data: Some(&buffer),
                offset,
            };
            let pushed = Pushed::of(&request);
            let again = pushed.buffer();
            let again = pushed.request(again.as_ref()).unwrap();
            for max in [0, 512] {
                let before: Vec<_> = request.segments(max).unwrap().collect();
                let after: Vec<_> = again.segments(max).unwrap().collect();
                assert_eq!(before, after, "{offset:#x} {length:#x}");
            }
            assert_eq!(Pushed::of(&again), pushed);
            let (lba, token) = (again.lba, again.token);
            assert_eq!((lba, token, again.durable), (77, 3, true));
        }
    }
}
