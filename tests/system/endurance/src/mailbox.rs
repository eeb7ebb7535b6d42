//! How the host talks to this program: it writes into the boot archive, where the member `etc/campaign` is a page of
//! little-endian words. The program answers with lines on its standard output.

use alloc::string::String;
use core::time::Duration;

use proto::fs::{BytesRef, FilesClient, OpenFlags};
use rt::{AsHandle, Deadline, MapAccess, Mapping, startup, time};

/// Where the archive is mounted.
const PATH: &[u8] = b"/boot/etc/campaign";
/// The host answers within milliseconds; it may be stopped for a while all the same.
const LIMIT_S: u64 = 600;
const LOOK: Duration = Duration::from_micros(100);

/// What the host wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// A fault was injected: watch for so many microseconds.
    Watch(u64),
    /// End the driver, so many times; all but the first while it starts.
    Kill(u64),
    /// End the driver, and watch its successor, which has the fault from its start, for so many microseconds.
    Restart(u64),
    /// The fault is gone, and a trap is in its place: does the driver come along there within so many microseconds?
    Probe(u64),
    /// The fault is gone: come back to service.
    Recover,
    /// Enough.
    Quit,
}

/// The page.
pub struct Mailbox {
    memory: Mapping,
    sequence: u64,
}

impl Mailbox {
    /// Maps it.
    ///
    /// # Errors
    /// When there is none: the program was not started by the host's campaign.
    pub fn open() -> Result<Mailbox, String> {
        let text = |e: &dyn core::fmt::Display| alloc::format!("/boot/etc/campaign: {e}");
        let channel = startup::handle::<rt::Channel>("file").ok_or("no access to \"file\"")?;
        let files = FilesClient::new(channel.duplicate().map_err(|e| text(&e))?);
        let opened = files.open(BytesRef(PATH), OpenFlags::READ);
        let (_, file) = opened.map_err(|e| text(&e))?;
        let (_, vmo) = file.vmo().map_err(|e| text(&e))?;
        let memory = Mapping::map(&vmo, 0, 4096, MapAccess::Read).map_err(|e| text(&e))?;
        Ok(Mailbox {
            memory,
            sequence: 0,
        })
    }

    fn word(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        // Inside of the page.
        let _ = self.memory.read(index * 8, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The next order.
    ///
    /// # Errors
    /// When none comes.
    pub fn next(&mut self) -> Result<Order, String> {
        let limit = Deadline::after_secs(LIMIT_S);
        loop {
            let sequence = self.word(0);
            if sequence != self.sequence {
                self.sequence = sequence;
                let parameter = self.word(2);
                return match self.word(1) {
                    1 => Ok(Order::Watch(parameter)),
                    2 => Ok(Order::Kill(parameter)),
                    3 => Ok(Order::Recover),
                    4 => Ok(Order::Quit),
                    6 => Ok(Order::Probe(parameter)),
                    5 => Ok(Order::Restart(parameter)),
                    other => Err(alloc::format!("order {other}")),
                };
            }
            if limit.has_passed() {
                return Err(String::from("the host is silent"));
            }
            time::sleep(LOOK);
        }
    }
}
