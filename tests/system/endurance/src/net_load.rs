//! The load on a network interface: echoes of random length from the gateway, each looked at byte by byte. A network may lose any frame, so
//! what gets no answer in time is asked again.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use net_client::{FramePort, MacAddress, Nic, Offload, SessionError};
use rt::{Deadline, time};
use test_net::frame::{self, Damage, GATEWAY, OWN};

use crate::random::Random;

/// Echoes under way.
const WINDOW: usize = 32;
/// Buffers each way.
const BUFFERS: u16 = 128;
/// Longest content of an echo, in bytes: an IP packet of 1500.
const LONGEST: u64 = 1472;
/// After so long without an answer a question is repeated.
const REPEAT_NS: u64 = 50_000_000;
/// A wait is over after this time, to see what has to be repeated.
const LOOK: Duration = Duration::from_millis(10);
/// The longest silence that is still a pause; the driver is restarted in far less.
const PATIENCE: Duration = Duration::from_secs(120);

/// An echo under way.
struct Flight {
    number: u16,
    length: usize,
    sent_ns: u64,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Echoes that came back whole.
    pub answered: u64,
    /// Questions that were asked again.
    pub repeated: u64,
    /// Echoes whose checksum told that they were damaged.
    pub damaged: u64,
    /// Echoes with a right checksum and wrong content.
    pub wrong: u64,
}

/// See the module.
pub struct NetLoad {
    port: FramePort,
    own: MacAddress,
    gateway: Option<MacAddress>,
    asked_ns: u64,
    next: u16,
    flights: Vec<Flight>,
    random: Random,
    frame: Vec<u8>,
    /// What was done so far.
    pub totals: Totals,
}

fn failed(what: &'static str) -> impl Fn(SessionError) -> String {
    move |error| format!("{what}: {error}")
}

impl NetLoad {
    /// On the first queue of an interface, which nobody else uses.
    ///
    /// # Errors
    /// When it has no session for us.
    pub fn new(nic: &Nic, seed: u64) -> Result<NetLoad, String> {
        Ok(NetLoad {
            port: FramePort::new(nic, 0, BUFFERS).map_err(failed("session"))?,
            own: nic.info().mac,
            gateway: None,
            asked_ns: 0,
            next: 0,
            flights: Vec::new(),
            random: Random::new(seed),
            frame: Vec::new(),
            totals: Totals::default(),
        })
    }

    /// Keeps echoes under way while `go_on` says so; each of its looks comes after at least one answer.
    ///
    /// # Errors
    /// A driver that breaks the protocol, or one that does not come back.
    pub fn run_watched(&mut self, mut go_on: impl FnMut(&NetLoad) -> bool) -> Result<(), String> {
        while go_on(self) {
            self.turn(WINDOW)?;
        }
        Ok(())
    }

    /// Waits for the echoes that are under way.
    ///
    /// # Errors
    /// As [`NetLoad::run_watched`].
    pub fn settle(&mut self) -> Result<(), String> {
        while !self.flights.is_empty() {
            self.turn(0)?;
        }
        Ok(())
    }

    /// Has up to `window` echoes under way, and takes at least one answer.
    fn turn(&mut self, window: usize) -> Result<(), String> {
        let limit = Deadline::after(PATIENCE);
        loop {
            self.ask(window)?;
            if self.take()? {
                return Ok(());
            }
            match self.port.wait(Deadline::after(LOOK)) {
                Ok(()) => {}
                Err(SessionError::TimedOut) if !limit.has_passed() => {}
                Err(SessionError::TimedOut) => return Err("no answers".to_string()),
                Err(error) => return Err(failed("wait")(error)),
            }
        }
    }

    fn ask(&mut self, window: usize) -> Result<(), String> {
        let now = time::now_ns();
        let Some(gateway) = self.gateway else {
            if now - self.asked_ns > REPEAT_NS {
                self.asked_ns = now;
                self.send(&frame::arp_request(self.own, OWN, GATEWAY))?;
            }
            return Ok(());
        };
        while self.flights.len() < window {
            self.flights.push(Flight {
                number: self.next,
                length: self.random.below(LONGEST + 1) as usize,
                sent_ns: 0,
            });
            self.next = self.next.wrapping_add(1);
        }
        let mut flights = core::mem::take(&mut self.flights);
        for flight in &mut flights {
            if flight.sent_ns != 0 && now - flight.sent_ns < REPEAT_NS {
                continue;
            }
            let ends = ((self.own, OWN), (gateway, GATEWAY));
            let request = frame::echo_request(ends.0, ends.1, flight.number, flight.length);
            let again = flight.sent_ns != 0;
            if !self.send(&request)? {
                break;
            }
            self.totals.repeated += u64::from(again);
            flight.sent_ns = now;
        }
        self.flights = flights;
        Ok(())
    }

    /// `false`: no room now.
    fn send(&mut self, frame: &[u8]) -> Result<bool, String> {
        let sent = self.port.send(frame, Offload::default());
        sent.map_err(failed("send"))
    }

    /// Takes what has come; whether an echo was among it.
    fn take(&mut self) -> Result<bool, String> {
        let (mut bytes, mut any) = (core::mem::take(&mut self.frame), false);
        while self
            .port
            .receive(&mut bytes)
            .map_err(failed("receive"))?
            .is_some()
        {
            if self.gateway.is_none() {
                self.gateway = frame::arp_reply(&bytes, GATEWAY);
                continue;
            }
            let flights = &self.flights;
            let length = |number| {
                let flight = flights.iter().find(|flight| flight.number == number);
                flight.map(|flight| flight.length)
            };
            match frame::echo_reply(&bytes, length) {
                Some(Ok(number)) => {
                    self.flights.retain(|flight| flight.number != number);
                    self.totals.answered += 1;
                    any = true;
                }
                Some(Err(Damage::Told)) => self.totals.damaged += 1,
                Some(Err(Damage::Hidden)) => self.totals.wrong += 1,
                None => {}
            }
        }
        self.frame = bytes;
        Ok(any)
    }
}
