//! `svc`: services and their supervisor.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use rt::Deadline;
use rt::proto::services::{ServiceState, ServiceSummary, ServicesClient};
use serde_json::{Value, json};
use supervision::restart;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("svc", HELP, run);

const HELP: &str = "\
Usage: svc [--json] list
       svc [--json] info NAME...
       svc start|stop|restart NAME...
       svc [--json] policy NAME [budget=N] [window-ms=N] [pause-min-ms=N] [pause-max-ms=N]
Show and control the services that init supervises.

  list     every service: state, incarnation, deaths that count, how the last one ended
  info     all of one service
  start    start a service that is stopped or was given up
  stop     end a service; its clients get a clean error
  restart  end a service and start it again; its clients wait
  policy   show or set what is done when it dies
";

/// A service that was asked for something is there after this time.
const LIMIT: Duration = Duration::from_secs(30);

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut json = false;
    let mut words = alloc::vec::Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Long(name) if name == "json" => json = true,
            Arg::Operand(text) => words.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let (verb, operands) = match words.split_first() {
        Some((verb, operands)) => (verb.as_str(), operands),
        None => return Err(Stop::Usage(String::from("missing command"))),
    };
    let client: ServicesClient = service::connect(tool, "services")?;
    if verb == "list" {
        return list(tool, &client, json);
    }
    if operands.is_empty() {
        return Err(Stop::Usage(format!("{verb}: missing NAME")));
    }
    match verb {
        "policy" => policy(tool, &client, operands, json),
        "info" => {
            for name in operands {
                let found = find(tool, &client, name)?;
                info(tool, &found, json)?;
            }
            Ok(())
        }
        "start" | "stop" | "restart" => {
            for name in operands {
                control(tool, &client, verb, name)?;
            }
            Ok(())
        }
        other => Err(Stop::Usage(format!("unknown command '{other}'"))),
    }
}

fn all(tool: &mut Tool, client: &ServicesClient) -> Result<alloc::vec::Vec<ServiceSummary>, Stop> {
    service::answer(tool, "cannot list services", client.list())
}

fn find(tool: &mut Tool, client: &ServicesClient, name: &str) -> Result<ServiceSummary, Stop> {
    let found = all(tool, client)?.into_iter().find(|s| s.name == name);
    found.ok_or_else(|| {
        tool.fatal(
            1,
            format_args!("{name}: no such service; `svc list` shows them"),
        )
    })
}

fn object(service: &ServiceSummary) -> Value {
    let end = service.last_end.as_ref();
    json!({
        "name": service.name,
        "state": service.state.text(),
        "pid": service.pid,
        "epoch": service.epoch,
        "restarts": service.epoch.saturating_sub(1),
        "schemes": service.schemes,
        "deaths": service.deaths,
        "reason": end.map(|end| end.reason.code()),
        "reason_text": end.map(|end| end.text.clone()),
        "ended_ms": end.map(|end| end.time_ms),
        "budget": service.rules.budget,
        "window_ms": service.rules.window_ms,
        "pause_min_ms": service.rules.pause_min_ms,
        "pause_max_ms": service.rules.pause_max_ms,
        "kept_bytes": service.kept.0,
        "kept_handles": service.kept.1,
    })
}

fn ended(service: &ServiceSummary) -> String {
    match &service.last_end {
        Some(end) if end.text == end.reason.code() => end.text.clone(),
        Some(end) => format!("{}: {}", end.reason.code(), end.text),
        None => String::from("-"),
    }
}

fn list(tool: &mut Tool, client: &ServicesClient, json: bool) -> Result<(), Stop> {
    let services = all(tool, client)?;
    if json {
        let list = services.iter().map(object).collect();
        return writeln!(tool.out, "{}", Value::Array(list));
    }
    let head = ["NAME", "STATE", "PID", "EPOCH", "DEATHS", "LAST END"];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    for service in &services {
        rows.push(alloc::vec![
            service.name.clone(),
            service.state.text().to_string(),
            service.pid.map_or(String::from("-"), |pid| pid.to_string()),
            service.epoch.to_string(),
            service.deaths.to_string(),
            ended(service),
        ]);
    }
    tool.out
        .bytes(tools::table::render(&rows, &[0, 1, 5]).as_bytes())
}

fn info(tool: &mut Tool, service: &ServiceSummary, json: bool) -> Result<(), Stop> {
    if json {
        return writeln!(tool.out, "{}", object(service));
    }
    let schemes = service.schemes.join(" ");
    let pid = service.pid.map_or(String::from("-"), |pid| pid.to_string());
    writeln!(tool.out, "{}: {}", service.name, service.state.text())?;
    writeln!(tool.out, "  process      {pid}")?;
    writeln!(tool.out, "  incarnation  {}", service.epoch)?;
    writeln!(tool.out, "  schemes      {schemes}")?;
    writeln!(tool.out, "  last end     {}", ended(service))?;
    writeln!(
        tool.out,
        "  kept         {} bytes, {} handles",
        service.kept.0, service.kept.1
    )
}

fn control(tool: &mut Tool, client: &ServicesClient, verb: &str, name: &str) -> Result<(), Stop> {
    let before = find(tool, client, name)?.epoch;
    let asked = match verb {
        "start" => client.start(name),
        "stop" => client.stop(name),
        _ => client.restart(name),
    };
    service::answer(tool, name, asked)?;
    let limit = Deadline::after(LIMIT);
    loop {
        let now = find(tool, client, name)?;
        let there = match verb {
            "start" => now.state == ServiceState::Running,
            "stop" => now.state == ServiceState::Stopped,
            _ => now.state == ServiceState::Running && now.epoch > before,
        };
        if there {
            return Ok(());
        }
        if now.state == ServiceState::Quarantined || limit.has_passed() {
            let (state, why) = (now.state.text(), ended(&now));
            tool.fail(format_args!("{name}: it is {state} ({why})"));
            return Ok(());
        }
        rt::time::sleep(Duration::from_millis(1));
    }
}

fn policy(
    tool: &mut Tool,
    client: &ServicesClient,
    operands: &[String],
    json: bool,
) -> Result<(), Stop> {
    let (name, settings) = operands
        .split_first()
        .ok_or_else(|| Stop::Usage(String::from("policy: missing NAME")))?;
    let found = find(tool, client, name)?;
    let mut rules = found.rules;
    for word in settings {
        restart::change(&mut rules, word).map_err(Stop::Usage)?;
    }
    if !settings.is_empty() {
        service::answer(tool, name, client.set_rules(name, rules))?;
    }
    if json {
        return info(tool, &ServiceSummary { rules, ..found }, json);
    }
    writeln!(
        tool.out,
        "{name}: budget={} window-ms={} pause-min-ms={} pause-max-ms={}; deaths in the window: {}",
        rules.budget, rules.window_ms, rules.pause_min_ms, rules.pause_max_ms, found.deaths
    )
}
