//! `tcpdump`: frames as they pass.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use net::Pipe;
use net::pipe::Handles;
use proto::inet::{InterfaceInfo, IpClient};
use rt::{AsHandle, Deadline, Signals};
use tools::service;
use unix::stream::OpenMode;
use unix::{Arg, Args, Stop, Stream, Tool};
unix::program!("tcpdump", HELP, run);

const HELP: &str = "\
Usage: tcpdump [-i INTERFACE] [-c COUNT] [-s BYTES] [-w FILE]
Show the frames that an interface sends and receives, a line each.

  -i  the interface; the first one with a device without it
  -c  end after so many frames
  -s  bytes of each frame that are kept
  -w  write a pcap file instead (- for standard output)
";

/// Head of a pcap file: little-endian, microseconds, version 2.4 (libpcap, pcap-savefile).
const MAGIC: u32 = 0xa1b2_c3d4;
/// Link types.
const ETHERNET: u32 = 1;
const RAW_IP: u32 = 101;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut name, mut count, mut snap, mut file) = (None, u32::MAX, 65_535, None);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('i') => name = Some(tool.value()?),
            Arg::Short('c') => count = net_tools::number(tool, 1..=u32::MAX)?,
            Arg::Short('s') => snap = net_tools::number(tool, 1..=65_535)?,
            Arg::Short('w') => file = Some(tool.value()?),
            // Names are not looked up anyway.
            Arg::Short('n') => {}
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let ip: IpClient = service::connect(tool, "ip")?;
    let interfaces = service::answer(tool, "interfaces", ip.interfaces())?;
    let wanted = |i: &&InterfaceInfo| match &name {
        Some(name) => i.name == *name,
        None => i.mac.is_some(),
    };
    let Some(interface) = interfaces.iter().find(wanted) else {
        let name = name.unwrap_or_else(|| String::from("a device"));
        return Err(tool.fatal(1, format_args!("no interface with {name}")));
    };
    let capture = ip.capture(interface.name.as_str(), snap);
    let (shape, channel, memory, to_program, to_stack) =
        service::answer(tool, &interface.name, capture)?;
    let handles = Handles {
        shape,
        memory,
        to_program,
        to_stack,
    };
    let pipe = Pipe::open(handles).map_err(|error| tool.fatal(1, format_args!("{error}")))?;
    let is_ethernet = interface.mac.is_some();
    let out = match file.as_deref() {
        None => None,
        Some("-") => Some(Stream::stdout()),
        Some(path) => Some(
            Stream::open(path, OpenMode::Truncate)
                .map_err(|error| tool.fatal(1, format_args!("{path}: {error}")))?,
        ),
    };
    if let Some(out) = &out {
        let link = if is_ethernet { ETHERNET } else { RAW_IP };
        let mut head = alloc::vec::Vec::new();
        for field in [MAGIC, 2 | 4 << 16, 0, 0, snap, link] {
            head.extend_from_slice(&field.to_le_bytes());
        }
        out.write_all(&head).map_err(Stop::Output)?;
    }
    let mut records = Records { pipe, channel };
    for _ in 0..count {
        let Some((header, frame)) = records.next(tool)? else {
            break;
        };
        match &out {
            Some(out) => {
                out.write_all(&header).map_err(Stop::Output)?;
                out.write_all(&frame).map_err(Stop::Output)?;
            }
            None => {
                let field = |n: usize| {
                    let bytes = header.get(n * 4..n * 4 + 4).unwrap_or_default();
                    u32::from_le_bytes(bytes.try_into().unwrap_or_default())
                };
                let text = if is_ethernet {
                    net_tools::packet::ethernet(&frame)
                } else {
                    net_tools::packet::ip(&frame)
                };
                let seconds = field(0) % 86_400;
                let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                writeln!(tool.out, "{h:02}:{m:02}:{s:02}.{:06} {text}", field(1))?;
            }
        }
        tool.out.flush()?;
    }
    Ok(())
}

/// Records as they come.
struct Records {
    pipe: Pipe,
    channel: rt::Channel,
}

type Record = ([u8; 16], alloc::vec::Vec<u8>);

impl Records {
    fn next(&mut self, tool: &mut Tool) -> Result<Option<Record>, Stop> {
        let mut header = [0; 16];
        if !self.fill(tool, &mut header)? {
            return Ok(None);
        }
        let [.., a, b, c, d, _, _, _, _] = header;
        let length = u32::from_le_bytes([a, b, c, d]);
        let mut frame = alloc::vec![0; (length as usize).min(1 << 20)];
        Ok(self.fill(tool, &mut frame)?.then_some((header, frame)))
    }

    /// `false` at the end.
    fn fill(&mut self, tool: &mut Tool, buffer: &mut [u8]) -> Result<bool, Stop> {
        let mut done = 0;
        let mut fail = |error| tool.fatal(1, format_args!("capture: {error}"));
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            let n = self.pipe.reader.read(rest).map_err(&mut fail)?;
            done += n;
            self.pipe.reader.release().map_err(&mut fail)?;
            if n > 0 {
                continue;
            }
            if self.pipe.reader.end().is_some() {
                return Ok(false);
            }
            // An edge before the wait is an edge for the wait: the event stays set until it is cleared here.
            let _ = self.pipe.doorbell.clear();
            if !self.pipe.arm().map_err(&mut fail)? {
                let wait = Deadline::after_secs(1);
                let _ = self.pipe.doorbell.wait_one(Signals::SIGNALED, wait);
                let gone = self.channel.wait_one(Signals::PEER_CLOSED, Deadline::NOW);
                if gone.is_ok() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
