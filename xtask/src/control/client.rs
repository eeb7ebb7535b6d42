//! A client of a running system.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use control_link::{
    CREDIT_BYTES, DATA_BYTES_MAX, Decoder, Ending, FromSystem, Input, OutputStream, ToSystem,
    encode,
};

/// How often a silent wait looks at clock and signals.
const TICK: Duration = Duration::from_millis(50);
/// How long a request that was cancelled may take to end.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// A signal that wants the request to end; 0 for none.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Is set by these signals.
    ///
    /// # Errors
    /// When they cannot be caught.
    pub fn by(signals: &[i32]) -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for &signal in signals {
            let number = usize::try_from(signal).unwrap_or(0);
            signal_hook::flag::register_usize(signal, interrupt.0.clone(), number)
                .context("cannot watch for signals")?;
        }
        Ok(interrupt)
    }

    fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }
}

/// What ends a request early.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Time that it may take.
    pub time: Option<Duration>,
    /// A signal.
    pub interrupt: Interrupt,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, as the system says.
    ByItself(Ending),
    /// Its time was up.
    TimedOut,
    /// This signal came.
    Signal(i32),
}

/// A connection to a running system.
#[derive(Debug)]
pub struct Client {
    input: UnixStream,
    output: Arc<Mutex<UnixStream>>,
    decoder: Decoder,
    next_id: u32,
}

impl Client {
    /// Connects to the system at that address.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: &Path) -> anyhow::Result<Client> {
        let input = UnixStream::connect(address)
            .with_context(|| format!("no system answers at {}", address.display()))?;
        input.set_read_timeout(Some(TICK))?;
        let output = input.try_clone()?;
        Ok(Client {
            input,
            output: Arc::new(Mutex::new(output)),
            decoder: Decoder::new(),
            next_id: 0,
        })
    }

    fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.next_id
    }

    /// Runs a command line. What it writes goes to `outputs`, standard output first.
    ///
    /// # Errors
    /// When the connection breaks or an output cannot be written.
    pub fn execute(
        &mut self,
        command: &str,
        input: Option<Box<dyn Read + Send>>,
        outputs: [&mut dyn Write; 2],
        limits: &Limits,
    ) -> anyhow::Result<Ended> {
        let id = self.new_id();
        let kind = match &input {
            Some(_) => Input::Stream,
            None => Input::Empty,
        };
        send(
            &self.output,
            &ToSystem::Execute {
                id,
                command: command.to_owned(),
                input: kind,
                credit: CREDIT_BYTES,
            },
        )?;
        let credit = Arc::new(Credit::default());
        if let Some(source) = input {
            let (output, credit) = (self.output.clone(), credit.clone());
            // Ends with the process: a read from a terminal cannot be broken off.
            thread::spawn(move || send_all(id, source, &output, &credit));
        }
        let [stdout, stderr] = outputs;
        let mut used = 0u32;
        self.until_ended(id, limits, |output, message| {
            match message {
                FromSystem::Output { stream, bytes, .. } => {
                    let to = match stream {
                        OutputStream::Output => &mut *stdout,
                        OutputStream::Errors => &mut *stderr,
                    };
                    to.write_all(&bytes).and_then(|()| to.flush())?;
                    used = used.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    if used >= CREDIT_BYTES / 4 {
                        let bytes = std::mem::take(&mut used);
                        send(output, &ToSystem::Credit { id, bytes })?;
                    }
                }
                FromSystem::Credit { bytes, .. } => credit.grant(bytes),
                _ => {}
            }
            Ok(())
        })
    }

    /// Puts a driver's program in the place of the one that runs. `progress` is told how many bytes the system
    /// has taken.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn replace(
        &mut self,
        driver: &str,
        program: Vec<u8>,
        limits: &Limits,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<Ended> {
        let id = self.new_id();
        let length = program.len() as u64;
        send(
            &self.output,
            &ToSystem::Replace {
                id,
                driver: driver.to_owned(),
                length,
            },
        )?;
        let credit = Arc::new(Credit::default());
        let (output, given) = (self.output.clone(), credit.clone());
        let source = Box::new(io::Cursor::new(program));
        thread::spawn(move || send_all(id, source, &output, &given));
        // The first grant is for what was not sent yet.
        let mut granted = 0u64;
        self.until_ended(id, limits, |_, message| {
            if let FromSystem::Credit { bytes, .. } = message {
                credit.grant(bytes);
                granted += u64::from(bytes);
                progress(granted.saturating_sub(CREDIT_BYTES.into()).min(length));
            }
            Ok(())
        })
    }

    /// Gives each message of the request to `each`, up to the request's end.
    fn until_ended(
        &mut self,
        id: u32,
        limits: &Limits,
        mut each: impl FnMut(&Mutex<UnixStream>, FromSystem) -> io::Result<()>,
    ) -> anyhow::Result<Ended> {
        let started = Instant::now();
        let mut cancelled: Option<(Instant, Ended)> = None;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let why = match limits.interrupt.signal() {
                Some(signal) => Some(Ended::Signal(signal)),
                None if limits.time.is_some_and(|limit| started.elapsed() >= limit) => {
                    Some(Ended::TimedOut)
                }
                None => None,
            };
            match (&cancelled, why) {
                (None, Some(why)) => {
                    send(&self.output, &ToSystem::Cancel { id })?;
                    cancelled = Some((Instant::now(), why));
                }
                (Some((since, why)), _) if since.elapsed() >= CANCEL_LIMIT => {
                    return Ok(why.clone());
                }
                _ => {}
            }
            let bytes = match self.input.read(&mut buffer) {
                Ok(0) => bail!("the connection to the system broke"),
                Ok(len) => buffer.get(..len).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error).context("the connection to the system"),
                },
            };
            let mut messages = Vec::new();
            self.decoder.push(bytes, |message| messages.push(message));
            for message in messages {
                let message: FromSystem = message.context("from the system")?;
                match message {
                    FromSystem::Ended { id: ended, ending } if ended == id => {
                        return Ok(match cancelled {
                            Some((_, why)) => why,
                            None => Ended::ByItself(ending),
                        });
                    }
                    other => each(&self.output, other).context("the command's output")?,
                }
            }
        }
    }
}

/// Bytes that may be sent.
#[derive(Debug, Default)]
struct Credit {
    bytes: Mutex<usize>,
    more: Condvar,
}

impl Credit {
    fn grant(&self, bytes: u32) {
        let mut granted = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *granted = granted.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.more.notify_one();
    }

    /// Waits until something may be sent; takes as much as a message holds.
    fn take(&self) -> usize {
        let guard = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.more.wait_while(guard, |bytes| *bytes == 0);
        let mut granted = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = (*granted).min(DATA_BYTES_MAX);
        *granted -= taken;
        taken
    }

    fn give_back(&self, bytes: usize) {
        let mut granted = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *granted += bytes;
    }
}

/// Sends all of `source` as credit allows. Errors end it: whoever waits for the request sees them too.
fn send_all(
    id: u32,
    mut source: Box<dyn Read + Send>,
    output: &Mutex<UnixStream>,
    credit: &Credit,
) {
    let mut offset = 0u64;
    let mut buffer = vec![0; DATA_BYTES_MAX];
    loop {
        let room = credit.take();
        let read = source.read(buffer.get_mut(..room).unwrap_or_default());
        let message = match read {
            Ok(0) | Err(_) => ToSystem::End { id },
            Ok(len) => {
                credit.give_back(room - len);
                ToSystem::Data {
                    id,
                    offset,
                    bytes: buffer.get(..len).unwrap_or_default().to_vec(),
                }
            }
        };
        let len = match &message {
            ToSystem::Data { bytes, .. } => bytes.len(),
            _ => 0,
        };
        if send(output, &message).is_err() || len == 0 {
            return;
        }
        offset += len as u64;
    }
}

fn send(output: &Mutex<UnixStream>, message: &ToSystem) -> io::Result<()> {
    let frame = encode(message).map_err(io::Error::other)?;
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output.write_all(&frame)
}
