//! `ping` and `ping6`.

use alloc::string::String;

use net::{Family, failure};
use proto::inet::{IpClient, NetworkError};
use serde_json::json;
use tools::service;
use unix::{Arg, Args, Stop, Tool};

/// Runs the tool.
pub fn run(tool: &mut Tool, family: Family) -> Result<(), Stop> {
    let (mut count, mut size, mut wait_s, mut interval_ns, mut json) =
        (4, 56, 5, 1_000_000_000u64, false);
    let mut host = None;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('c') => count = crate::number(tool, 1..=65_535)?,
            Arg::Short('s') => size = crate::number(tool, 0..=1400)?,
            Arg::Short('W') => wait_s = crate::number(tool, 1..=600)?,
            Arg::Short('i') => {
                let text = tool.value()?;
                interval_ns = tools::interval_ns(&text)
                    .ok_or_else(|| Stop::Usage(alloc::format!("'{text}': not a time")))?;
            }
            Arg::Long(name) if name == "json" => json = true,
            Arg::Operand(text) if host.is_none() => host = Some(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let host = host.ok_or_else(|| Stop::Usage(String::from("missing host")))?;
    let address = crate::resolve(tool, &host, family)?;
    let ip: IpClient = service::connect(tool, "ip")?;
    let limit = core::time::Duration::from_secs(u64::from(wait_s) + 10);
    let ip = ip.with_timeout(limit);
    if !json {
        writeln!(tool.out, "PING {host} ({address}) {size} bytes of data.")?;
    }
    let (mut received, mut sum, mut least, mut most) = (0u32, 0u64, u64::MAX, 0u64);
    for sequence in 1..=count {
        let pong = ip.ping(address, sequence as u16, size as u16, wait_s * 1000);
        match pong.map_err(failure) {
            Ok(pong) => {
                received += 1;
                let ns = pong.round_trip_ns;
                sum += ns;
                least = least.min(ns);
                most = most.max(ns);
                if !json {
                    let bytes = u32::from(pong.length) + 8;
                    let time = milliseconds(ns);
                    writeln!(
                        tool.out,
                        "{bytes} bytes from {}: icmp_seq={sequence} time={time} ms",
                        pong.from
                    )?;
                }
            }
            Err(NetworkError::TimedOut) => {
                if !json {
                    writeln!(tool.out, "no answer to icmp_seq={sequence}")?;
                }
            }
            Err(error) => tool.fail(format_args!("icmp_seq={sequence}: {error}")),
        }
        tool.out.flush()?;
        if sequence < count {
            unix::process::sleep_ns(interval_ns);
        }
    }
    let average = sum.checked_div(received.into()).unwrap_or(0);
    let least = least.min(most);
    if json {
        writeln!(
            tool.out,
            "{}",
            json!({
                "host": host, "address": alloc::format!("{address}"), "sent": count, "received": received,
                "min_ns": least, "avg_ns": average, "max_ns": most,
            })
        )?;
    } else {
        let lost = (count - received) * 100 / count;
        writeln!(tool.out, "\n--- {host} ping statistics ---")?;
        writeln!(
            tool.out,
            "{count} packets transmitted, {received} received, {lost}% packet loss"
        )?;
        if received > 0 {
            writeln!(
                tool.out,
                "rtt min/avg/max = {}/{}/{} ms",
                milliseconds(least),
                milliseconds(average),
                milliseconds(most)
            )?;
        }
    }
    if received == 0 {
        tool.status = tool.status.max(1);
    }
    Ok(())
}

fn milliseconds(ns: u64) -> String {
    alloc::format!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000)
}
