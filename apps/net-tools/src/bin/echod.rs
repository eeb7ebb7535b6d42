//! `echod`: sends back what it receives (RFC 862).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use net::TcpStream;
use rt::Deadline;
use unix::{Arg, Args, Stop, Tool};
unix::program!("echod", HELP, run);

const HELP: &str = "\
Usage: echod [-p PORT]
Send every connection back what it sends. The port is 7 without -p.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut port = 7;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('p') => port = net_tools::number(tool, 1..=65_535)? as u16,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    net_tools::server::serve(tool, port, echo)
}

fn echo(mut stream: TcpStream) {
    let mut buffer = alloc::vec![0; 64 * 1024];
    // An hour without a word ends it.
    while let Ok(n @ 1..) = stream.read(&mut buffer, Deadline::after_secs(3600)) {
        let bytes = buffer.get(..n).unwrap_or_default();
        if stream.write_all(bytes, Deadline::after_secs(3600)).is_err() {
            return;
        }
    }
    let _ = stream.finish(Deadline::after_secs(60));
}
