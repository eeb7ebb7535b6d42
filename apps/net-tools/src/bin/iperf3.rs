//! `iperf3`: the server's side of iperf3.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use net_tools::iperf::{self, Direction};
use net_tools::server;
use unix::{Arg, Args, Stop, Tool};
unix::program!("iperf3", HELP, run);

const HELP: &str = "\
Usage: iperf3 -s [-1] [-p PORT]
Serve tests of iperf3 clients over TCP, one after the other.

  -s  serve; there is no client here
  -1  end after one test
  -p  the port, 5201 without it
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut port, mut once) = (5201, false);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('s') => {}
            Arg::Short('1') => once = true,
            Arg::Short('p') => port = net_tools::number(tool, 1..=65_535)? as u16,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let listener = server::listen(tool, port)?;
    writeln!(tool.out, "Server listening on {port}")?;
    tool.out.flush()?;
    loop {
        let mut control = server::accept(tool, &listener)?;
        let peer = control.connection().remote;
        match iperf::serve(&listener, &mut control) {
            Ok(outcome) => {
                let way = match outcome.direction {
                    Direction::ToServer => "from",
                    Direction::FromServer => "to",
                };
                let text = tools::transfer_text(outcome.bytes, outcome.duration_ns);
                write!(tool.out, "{way} {peer}: {text}")?;
            }
            Err(error) => tool.fail(format_args!("{peer}: {error}")),
        }
        tool.out.flush()?;
        if once {
            return Ok(());
        }
    }
}
