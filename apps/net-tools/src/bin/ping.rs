//! `ping`: echo requests over IPv4 or IPv6.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use net::Family;
use unix::{Stop, Tool};
unix::program!("ping", HELP, run);

const HELP: &str = "\
Usage: ping [-c COUNT] [-s BYTES] [-W SECONDS] [-i INTERVAL] [--json] HOST
Send echo requests to HOST and show the answers.

  -c  how many, 4 without it
  -s  bytes of data, 56 without it
  -W  how long to wait for each answer, 5 s without it
  -i  pause between them, 1 s without it (0.2, 5m)
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    net_tools::echo_request::run(tool, Family::Any)
}
