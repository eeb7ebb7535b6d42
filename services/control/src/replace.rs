//! A driver's program on its way in, and the swap.
//!
//! The device manager is asked in a thread: a swap takes as long as a driver takes to come up, and the other
//! requests go on meanwhile. A program that did not arrive whole is never handed over.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use control::Receiving;
use control_link::{Ending, FromSystem, PROGRAM_BYTES_MAX, Replaced, Swap};
use rt::ipc::CallError;
use rt::proto::devmgr::{DevError, DeviceTreeClient, DriverAdminClient};
use rt::{AsHandle, Channel, Port, Vmo, startup, thread};

use crate::line::Line;

/// A driver may take 30 s to come up, and a device as long to be fenced; both twice, when the old version has
/// to come back.
const SWAP_LIMIT: Duration = Duration::from_secs(180);
const PAGE: u64 = 4096;

type Answer = Arc<rt::Mutex<Option<Result<Vec<Replaced>, String>>>>;

enum State {
    Arriving,
    /// The thread leaves its answer.
    Swapping(Answer),
    Cancelled,
}

/// A replacement that is under way.
pub struct Replacement {
    id: u32,
    driver: String,
    length: u64,
    program: Vmo,
    receiving: Receiving,
    state: State,
    /// Granted anew and not told yet.
    grant: u32,
}

impl Replacement {
    /// Makes room for the program.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn start(id: u32, driver: String, length: u64) -> Result<Replacement, String> {
        if length == 0 || length > PROGRAM_BYTES_MAX {
            return Err(format!(
                "a program of {length} bytes, where 1 to {PROGRAM_BYTES_MAX} are allowed"
            ));
        }
        let bytes = usize::try_from(length.next_multiple_of(PAGE)).unwrap_or(usize::MAX);
        let program = Vmo::create(bytes).map_err(|error| format!("no room for it: {error}"))?;
        Ok(Replacement {
            id,
            driver,
            length,
            program,
            receiving: Receiving::new(),
            state: State::Arriving,
            grant: control_link::CREDIT_BYTES,
        })
    }

    /// Takes a piece of the program.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn input(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let taken = self.receiving.take(offset, bytes.len());
        taken.map_err(|refused| refused.to_string())?;
        if self.receiving.received() > self.length {
            return Err(format!(
                "more than the {} bytes that were told",
                self.length
            ));
        }
        self.program
            .write(offset, bytes)
            .map_err(|error| format!("cannot keep the program: {error}"))?;
        self.grant += self.receiving.used(bytes.len()).unwrap_or(0);
        Ok(())
    }

    /// The program is whole: hands it over. The answer comes to `port` with `key`.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn finish(&mut self, port: &Port, key: u64) -> Result<(), String> {
        let received = self.receiving.received();
        if received != self.length {
            return Err(format!(
                "{received} bytes of the program came, expected {}",
                self.length
            ));
        }
        if !matches!(self.state, State::Arriving) {
            return Ok(());
        }
        let text = |error: rt::Error| error.to_string();
        let answer = Answer::default();
        let (port, given) = (port.duplicate().map_err(text)?, answer.clone());
        let program = self.program.duplicate().map_err(text)?;
        let (driver, length) = (self.driver.clone(), self.length);
        thread::builder("swap")
            .spawn(move || {
                *given.lock() = Some(swap(&driver, length, &program));
                // If this fails the service is gone.
                let _ = port.queue(key, 0);
            })
            .map_err(text)?;
        self.state = State::Swapping(answer);
        Ok(())
    }

    /// Nobody wants it any more. What is handed over is not called back.
    pub fn cancel(&mut self) {
        if matches!(self.state, State::Arriving) {
            self.state = State::Cancelled;
        }
    }

    /// Tells the host how much more it may send. Gives the end when there is one.
    pub fn pump(&mut self, line: &mut Line) -> Option<Ending> {
        match &self.state {
            State::Arriving => {
                let bytes = core::mem::take(&mut self.grant);
                if bytes > 0 {
                    line.send(&FromSystem::Credit { id: self.id, bytes });
                }
                None
            }
            State::Swapping(answer) => match answer.lock().take()? {
                Ok(devices) => Some(Ending::Replaced { devices }),
                Err(reason) => Some(Ending::Failed { reason }),
            },
            State::Cancelled => Some(Ending::Cancelled),
        }
    }
}

fn client<T: From<Channel>>(name: &str) -> Result<T, String> {
    let channel = startup::handle::<Channel>(name).and_then(|channel| channel.duplicate().ok());
    channel
        .map(T::from)
        .ok_or_else(|| format!("no access to the service '{name}'"))
}

fn text(error: CallError<DevError>) -> String {
    match error {
        CallError::Remote(error) => error.to_string(),
        CallError::Transport(error) => error.to_string(),
        CallError::ServerDied { .. } => String::from("the device manager is gone"),
        CallError::Refused(_) | CallError::Codec(_) => {
            String::from("the device manager speaks another protocol")
        }
    }
}

/// Offers the program to every device of the driver, one after the other.
fn swap(driver: &str, length: u64, program: &Vmo) -> Result<Vec<Replaced>, String> {
    const PAGE: u32 = 64;
    let tree: DeviceTreeClient = client("dev")?;
    let admin: DriverAdminClient = client("drv")?;
    let admin = admin.with_timeout(SWAP_LIMIT);
    let mut nodes: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page = tree.list(&after, PAGE).map_err(text)?;
        let Some(last) = page.last() else { break };
        after = last.path.clone();
        let of_driver = page
            .iter()
            .filter(|node| node.driver.as_deref() == Some(driver));
        nodes.extend(of_driver.map(|node| node.path.clone()));
    }
    let copy = || program.duplicate().map_err(|error| error.to_string());
    if nodes.is_empty() {
        let loaded = admin.load(driver, length, copy()?).map_err(text)?;
        let devices = loaded.nodes.into_iter().map(|node| Replaced {
            node,
            swap: Ok(Swap {
                before: None,
                now: format!("{} {}", loaded.driver, loaded.version),
                epoch: 1,
                fell_back: None,
                gap_ns: 0,
            }),
        });
        return Ok(devices.collect());
    }
    let mut devices = Vec::new();
    for node in nodes {
        let report = admin.reload(&node, length, Some(copy()?)).map_err(text);
        let swap = report.map(|report| Swap {
            before: report.before,
            now: report.now,
            epoch: report.epoch,
            fell_back: report.fell_back,
            gap_ns: report.gap_ns,
        });
        devices.push(Replaced { node, swap });
    }
    Ok(devices)
}
