//! A client of a network interface without a network stack: it asks for the gateway's address and exchanges echoes with it.
//!
//! `test-net NAME COUNT BYTES WINDOW` sends COUNT echo requests with BYTES of payload each, WINDOW of them at a time, over `net:/NAME`
//! and checks every byte of the answers. What gets no answer in time is asked again, so that a driver that dies costs
//! repetitions and nothing else. It prints what it did; the status is 0 if every echo was answered.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use net_client::{FramePort, MacAddress, Nic, Offload};
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, Deadline, println};

use test_net::frame::{self, GATEWAY, OWN};

rt::entry!(main);

/// Frames each way that the port has buffers for.
const BUFFERS: u16 = 128;
/// After so long without an answer a question is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// How long everything may take.
const LIMIT: Duration = Duration::from_secs(120);

struct Echo {
    port: FramePort,
    own: MacAddress,
    limit: Deadline,
    repeated: u32,
    damaged: u32,
}

impl Echo {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        loop {
            let sent = self.port.send(bytes, Offload::default());
            if sent.map_err(|e| format!("sending: {e}"))? {
                return Ok(());
            }
            self.wait(self.limit)?;
        }
    }

    /// `false`: the deadline passed.
    fn wait(&mut self, deadline: Deadline) -> Result<bool, String> {
        match self.port.wait(deadline) {
            Ok(()) => Ok(true),
            Err(net_client::SessionError::TimedOut) if !self.limit.has_passed() => Ok(false),
            Err(error) => Err(format!("waiting: {error}")),
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> Result<bool, String> {
        let received = self.port.receive(into);
        Ok(received.map_err(|e| format!("receiving: {e}"))?.is_some())
    }

    fn gateway(&mut self) -> Result<MacAddress, String> {
        let question = frame::arp_request(self.own, OWN, GATEWAY);
        let mut bytes = Vec::new();
        loop {
            self.send(&question)?;
            let patience = Deadline::after(REPEAT_AFTER).min(self.limit);
            while !patience.has_passed() {
                while self.receive(&mut bytes)? {
                    if let Some(mac) = frame::arp_reply(&bytes, GATEWAY) {
                        return Ok(mac);
                    }
                }
                self.wait(patience)?;
            }
            self.repeated += 1;
        }
    }

    /// Exchanges the echoes of these numbers, all at a time.
    fn exchange(
        &mut self,
        gateway: MacAddress,
        numbers: &[u16],
        size: usize,
    ) -> Result<(), String> {
        let mut left = vec![true; numbers.len()];
        let mut bytes = Vec::new();
        loop {
            for (number, _) in numbers.iter().zip(&left).filter(|(_, left)| **left) {
                let own = (self.own, OWN);
                let request = frame::echo_request(own, (gateway, GATEWAY), *number, size);
                self.send(&request)?;
            }
            let patience = Deadline::after(REPEAT_AFTER).min(self.limit);
            while !patience.has_passed() {
                while self.receive(&mut bytes)? {
                    match frame::echo_reply(&bytes, |_| Some(size)) {
                        Some(Ok(number)) => {
                            let at = numbers.iter().position(|n| *n == number);
                            if let Some(left) = at.and_then(|at| left.get_mut(at)) {
                                *left = false;
                            }
                        }
                        Some(Err(_)) => self.damaged += 1,
                        None => {}
                    }
                }
                if !left.contains(&true) {
                    return Ok(());
                }
                self.wait(patience)?;
            }
            self.repeated += left.iter().filter(|left| **left).count() as u32;
        }
    }
}

fn open(name: &str) -> Result<Nic, String> {
    let scheme = rt::startup::handle::<Channel>("net").map(AsHandle::duplicate);
    let Some(Ok(scheme)) = scheme else {
        return Err("no access to the service 'net'".to_string());
    };
    let interfaces = EndpointsClient::new(scheme);
    let settled = interfaces.wait_settled();
    settled.map_err(|e| format!("interfaces: {e:?}"))?;
    let opened = interfaces.open(name);
    let (_, endpoint, name) = opened.map_err(|e| format!("net:/{name}: {e:?}"))?;
    Nic::named(endpoint, name).map_err(|e| format!("interface: {e}"))
}

fn run(name: &str, count: u32, size: usize, window: usize) -> Result<bool, String> {
    let nic = open(name)?;
    let info = nic.info().clone();
    println!(
        "{name}: {} {} mtu {} queues {} offloads {:?}",
        info.driver, info.mac, info.mtu, info.queues, info.offloads
    );
    let port = FramePort::new(&nic, 0, BUFFERS).map_err(|e| format!("session: {e}"))?;
    let mut echo = Echo {
        port,
        own: info.mac,
        limit: Deadline::after(LIMIT),
        repeated: 0,
        damaged: 0,
    };
    let gateway = echo.gateway()?;
    println!("gateway {gateway}");
    let mut next = 0u32;
    while next < count {
        let end = count.min(next + window as u32);
        let numbers: Vec<u16> = (next..end).map(|n| n as u16).collect();
        echo.exchange(gateway, &numbers, size)?;
        next = end;
    }
    println!("answered {count}");
    println!("repeated {}", echo.repeated);
    println!("damaged {}", echo.damaged);
    println!("epoch {}", echo.port.session().info().epoch);
    Ok(echo.damaged == 0)
}

fn main() -> i32 {
    const USAGE: i32 = 2;
    let args: Vec<String> = rt::startup::args()
        .iter()
        .skip(1)
        .map(|a| a.to_string())
        .collect();
    let [name, count, size, window] = args.as_slice() else {
        println!("usage: test-net NAME COUNT BYTES WINDOW");
        return USAGE;
    };
    let (Ok(count), Ok(size), Ok(window)) = (count.parse(), size.parse(), window.parse()) else {
        println!("test-net: COUNT, BYTES and WINDOW are numbers");
        return USAGE;
    };
    match run(name, count, size, window) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            println!("test-net: {error}");
            1
        }
    }
}
