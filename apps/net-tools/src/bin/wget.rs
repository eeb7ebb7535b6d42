//! `wget`: gets a file over HTTP.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use net::{Family, TcpStream, parse_host_port};
use proto::inet::TcpClient;
use rt::Deadline;
use tools::service;
use unix::stream::OpenMode;
use unix::{Arg, Args, Stop, Stream, Tool};
unix::program!("wget", HELP, run);

const HELP: &str = "\
Usage: wget [-q] [-O FILE] [-T SECONDS] http://HOST[:PORT]/PATH
Get what the address names. It goes to standard output, or to FILE.

  -q  say nothing
  -T  how long to wait for each piece, 30 s without it
";

/// Longest head of an answer.
const HEAD_MAX: usize = 64 * 1024;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut quiet, mut output, mut wait_s) = (false, None, 30);
    let mut url = None;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('q') => quiet = true,
            Arg::Short('O') => output = Some(tool.value()?),
            Arg::Short('T') => wait_s = net_tools::number(tool, 1..=86_400)?,
            Arg::Operand(text) if url.is_none() => url = Some(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let url = url.ok_or_else(|| Stop::Usage(String::from("missing address")))?;
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(tool.fatal(1, format_args!("{scheme}: not supported"))),
        None => url.as_str(),
    };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((host, port)) = parse_host_port(place) else {
        return Err(tool.fatal(1, format_args!("'{place}': not a host")));
    };
    let address = net_tools::resolve(tool, host, Family::Any)?;
    let remote = SocketAddr::new(address, port.unwrap_or(80));
    let tcp: TcpClient = service::connect(tool, "tcp")?;
    let connected = TcpStream::connect(&tcp, remote, None, wait_s * 1000);
    let mut stream = connected.map_err(|error| net_tools::failed(tool, place, error))?;
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: wget (Bulkhead)\r\nConnection: close\r\n\r\n"
    );
    let limit = || Deadline::after_secs(wait_s.into());
    stream
        .write_all(request.as_bytes(), limit())
        .map_err(|error| net_tools::failed(tool, place, error))?;
    let out = match output.as_deref() {
        None | Some("-") => Stream::stdout(),
        Some(file) => Stream::open(file, OpenMode::Truncate)
            .map_err(|error| tool.fatal(1, format_args!("{file}: {error}")))?,
    };
    let started = rt::time::now_ns();
    let total = receive(tool, &mut stream, &out, place, limit)?;
    if !quiet {
        let text = tools::transfer_text(total, rt::time::now_ns() - started);
        tool.warn(format_args!("{}", text.trim_end()));
    }
    Ok(())
}

fn receive(
    tool: &mut Tool,
    stream: &mut TcpStream,
    out: &Stream,
    place: &str,
    limit: impl Fn() -> Deadline,
) -> Result<u64, Stop> {
    let mut buffer = alloc::vec![0; 64 * 1024];
    let mut head: Vec<u8> = Vec::new();
    let body_at = loop {
        let n = stream
            .read(&mut buffer, limit())
            .map_err(|error| net_tools::failed(tool, place, error))?;
        head.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if n == 0 || head.len() > HEAD_MAX {
            return Err(tool.fatal(1, format_args!("{place}: no HTTP")));
        }
    };
    let text = String::from_utf8_lossy(head.get(..body_at).unwrap_or_default()).into_owned();
    let status = text.lines().next().unwrap_or_default();
    let code = status.split(' ').nth(1).unwrap_or_default();
    if !code.starts_with('2') {
        return Err(tool.fatal(8, format_args!("{place}: {status}")));
    }
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(n, value)| {
            n.eq_ignore_ascii_case(name)
                .then(|| String::from(value.trim()))
        })
    };
    if field("transfer-encoding").is_some() {
        return Err(tool.fatal(1, format_args!("{place}: the answer comes in chunks")));
    }
    let length = field("content-length").and_then(|l| l.parse::<u64>().ok());
    let mut total = 0;
    let mut piece = head.split_off(body_at);
    loop {
        total += piece.len() as u64;
        out.write_all(&piece).map_err(Stop::Output)?;
        if length.is_some_and(|length| total >= length) {
            return Ok(total);
        }
        let n = stream
            .read(&mut buffer, limit())
            .map_err(|error| net_tools::failed(tool, place, error))?;
        if n == 0 {
            break;
        }
        piece.clear();
        piece.extend_from_slice(buffer.get(..n).unwrap_or_default());
    }
    match length {
        Some(length) => Err(tool.fatal(1, format_args!("{place}: {total} bytes of {length} came"))),
        None => Ok(total),
    }
}
