//! Runs the conformance suite of the network class over an interface of the running system, as its client.
//!
//! `test-conformance-net SEED ADDRESS HELPER CUTTING [CASE]` tests the interface with this address; over the one with the address
//! HELPER it talks to the host, which holds the other end of the wire (see `wire`). CUTTING is what the device makes of frames to be
//! cut: `right`, `empty-last` or `fragments`. With CASE only cases whose name contains it run. Each prints a line; the status is 0
//! if none failed.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod nic;
mod wire;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ddk_conformance_net::{Cutting, Home, MacAddress, Nic, Options, Outcome, Problem, Shape};
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, println};

use nic::SystemNic;
use wire::Wire;

rt::entry!(main);

/// The running system.
struct System {
    interfaces: EndpointsClient,
    address: MacAddress,
    wire: Wire,
    cutting: Cutting,
}

/// The interface with an address.
fn find(interfaces: &EndpointsClient, address: MacAddress) -> Result<net_client::Nic, String> {
    let failed = |error: &dyn core::fmt::Debug| format!("interfaces: {error:?}");
    for entry in interfaces.list().map_err(|error| failed(&error))? {
        let opened = interfaces.open(&entry.name);
        let (_, endpoint, _) = opened.map_err(|error| failed(&error))?;
        let nic = net_client::Nic::new(endpoint).map_err(|error| failed(&error))?;
        if nic.info().mac == address {
            return Ok(nic);
        }
    }
    Err(format!("there is no interface {address}"))
}

impl Home for System {
    fn open(&mut self, shape: Shape, _: u64) -> Result<Box<dyn Nic + '_>, Problem> {
        if shape != Shape::Plain {
            return Err(Problem::not_offered("the machine has no such interface"));
        }
        let nic = find(&self.interfaces, self.address).map_err(Problem::Failed)?;
        // What the network stack or another case sent is of no concern.
        self.wire.drain().map_err(Problem::Failed)?;
        let nic = SystemNic::new(nic, &mut self.wire, self.address, self.cutting)?;
        Ok(Box::new(nic))
    }
}

/// Reads `52:54:00:12:34:56`.
fn address(text: &str) -> Option<MacAddress> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|digits| u8::from_str_radix(digits, 16))
        .collect();
    Some(MacAddress(bytes.ok()?.try_into().ok()?))
}

fn cutting(text: &str) -> Option<Cutting> {
    match text {
        "right" => Some(Cutting::Right),
        "empty-last" => Some(Cutting::EmptyLast),
        "fragments" => Some(Cutting::Fragments),
        _ => None,
    }
}

fn run(args: &[String]) -> Result<bool, String> {
    let usage = || "usage: test-conformance-net SEED ADDRESS HELPER CUTTING [CASE]".to_string();
    let [seed, tested, helper, made, case @ ..] = args else {
        return Err(usage());
    };
    let (Ok(seed), Some(tested), Some(helper), Some(cutting)) = (
        seed.parse(),
        address(tested),
        address(helper),
        cutting(made),
    ) else {
        return Err(usage());
    };
    let scheme = rt::startup::handle::<Channel>("net").map(AsHandle::duplicate);
    let Some(Ok(scheme)) = scheme else {
        return Err("no access to the service 'net'".to_string());
    };
    let interfaces = EndpointsClient::new(scheme);
    let settled = interfaces.wait_settled();
    settled.map_err(|error| format!("interfaces: {error:?}"))?;
    let wire = Wire::new(&find(&interfaces, helper)?)?;
    let mut system = System {
        interfaces,
        address: tested,
        wire,
        cutting,
    };
    let filter = case.first().cloned();
    let options = Options { seed, filter };
    let (mut ran, mut failed) = (0, 0);
    ddk_conformance_net::run(&mut system, &options, &mut |case, outcome| match outcome {
        Outcome::Passed => {
            ran += 1;
            println!("passed {case}");
        }
        Outcome::Failed(what) => {
            ran += 1;
            failed += 1;
            println!("FAILED {case}: {what}");
        }
        Outcome::NotRun(reason) => println!("not run {case}: {reason}"),
    });
    Ok(failed == 0 && ran > 0)
}

fn main() -> i32 {
    const USAGE: i32 = 2;
    let args: Vec<String> = rt::startup::args()
        .iter()
        .skip(1)
        .map(|a| a.to_string())
        .collect();
    match run(&args) {
        Ok(passed) => i32::from(!passed),
        Err(error) => {
            println!("test-conformance-net: {error}");
            USAGE
        }
    }
}
