//! `discard`: swallows what it receives (RFC 863).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use net::TcpStream;
use rt::Deadline;
use unix::{Arg, Args, Stop, Tool};
unix::program!("discard", HELP, run);

const HELP: &str = "\
Usage: discard [-p PORT]
Take what every connection sends and forget it. The port is 9 without -p.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut port = 9;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('p') => port = net_tools::number(tool, 1..=65_535)? as u16,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    net_tools::server::serve(tool, port, discard)
}

fn discard(mut stream: TcpStream) {
    let mut buffer = alloc::vec![0; 64 * 1024];
    // An hour without a word ends it.
    while let Ok(1..) = stream.read(&mut buffer, Deadline::after_secs(3600)) {}
}
