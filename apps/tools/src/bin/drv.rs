//! `drv`: drivers at run time.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use rt::proto::crash_report::Report;
use rt::proto::devmgr::{
    DeviceTreeClient, DriverAdminClient, DriverPolicy, NodeState, NodeSummary, ProgramInfo,
    RestartRules,
};
use rt::proto::proc::{self, ProcessesClient};
use rt::proto::wire::Wire;
use rt::{Resource, Vmo, startup};
use serde_json::{Value, json};
use tools::{devices, service};
use unix::input::Input;
use unix::{Arg, Args, Stop, Tool};
unix::program!("drv", HELP, run);

const HELP: &str = "\
Usage: drv [--json] list
       drv [--json] info NODE...
       drv [--json] start|stop|restart|suspend|resume NODE...
       drv [--json] reload NODE [FILE]
       drv [--json] log [-n COUNT] NODE
       drv [--json] crash [NAME]...
       drv [--json] policy NODE [RULE=N | trace=on|off | wire=WIRE]...
       drv [--json] load|unload FILE...
       drv [--json] programs
Show and control the drivers of devices. NODE is a path as `lsdev` prints it, its end, the name of
an endpoint (virtio0), also while it has none, or of a driver (all nodes that it serves).

  list     every node with a driver: state, incarnation, restarts, what it offers
  info     all of one node: properties, versions, the last failure, the steps of the last teardown
  start    start a driver that is stopped, failed or quarantined
  stop     let the driver finish, fence the device, leave it without a driver
  restart  stop it in good order and start it again
  suspend  let it pause; those who use it wait
  resume   let it go on
  reload   put the driver in FILE in its place (without FILE: the same one anew): the old one leaves
           its state and stops, the new one starts with it. When the new one does not come up, or
           dies within its probation, the old one serves again
  log      what it wrote to the log, the last COUNT lines (20)
  crash    the last ends of drivers and services that nobody had asked for: a line each, or all that is
           known of those of NAME (a driver, service, node or endpoint): reason, registers, backtrace,
           grants, what had happened to it, its last lines in the log, the end of its trace. A system with a disk for them
           saves them too; `cargo xtask crash` reads that disk
  policy   show or set how the driver is watched over. Restarts when it dies unasked: budget in
           window-ms, pauses from pause-min-ms to pause-max-ms. Hangs: a heartbeat every
           heartbeat-ms, an answer within silence-ms, in service within start-ms, stopped within
           stop-ms. A new version is proven after probation-ms. With trace=on it records what passes
           between it and its device from its next start on, if it was built for that
           (`cargo xtask push NAME --traced`); crash reports have the record. With a WIRE a driver of a
           network interface loses, doubles, delays and damages frames from its next start on:
           loss:5,duplicate:2,reorder:3,corrupt:1,seed:7 in per cent (rx-loss:5, tx-loss:5 for one
           direction), or off
  load     make the driver in FILE (a name without a folder: of /drivers) known, and start it where it
           is the best match
  unload   stop it everywhere and forget it
  programs every driver that is known, and what it serves
";

/// A driver may take 30 s to come up, and a device as long to be fenced; a reload may do both twice.
const LIMIT: Duration = Duration::from_secs(180);
/// Longest program.
const PROGRAM_BYTES_MAX: usize = 64 << 20;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut json = false;
    let mut count = 20;
    let mut words = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Long(name) if name == "json" => json = true,
            Arg::Short('n') => {
                let lines = tool.size_value("number of lines")?;
                count = usize::try_from(lines).unwrap_or(usize::MAX);
            }
            Arg::Operand(text) => words.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let (verb, operands) = match words.split_first() {
        Some((verb, operands)) => (verb.as_str(), operands),
        None => return Err(Stop::Usage(String::from("missing command"))),
    };
    match verb {
        "programs" => return programs(tool, json),
        "crash" => return crash(tool, operands, json),
        "load" | "unload" if !operands.is_empty() => return files(tool, verb, operands, json),
        _ => {}
    }
    let tree: DeviceTreeClient = service::connect(tool, "dev")?;
    let nodes = devices::nodes(tool, &tree)?;
    let mut chosen = Vec::new();
    let named = match verb {
        "policy" | "reload" => &operands[..operands.len().min(1)],
        _ => operands,
    };
    for text in named {
        let found = devices::named(text, &nodes);
        if found.is_empty() {
            tool.fail(format_args!("{text}: no such node; `drv list` shows them"));
        }
        chosen.extend(found);
    }
    if operands.is_empty() && verb != "list" {
        return Err(Stop::Usage(format!("{verb}: missing operand")));
    }
    match verb {
        "list" => list(tool, &nodes, json),
        "info" => info(tool, &tree, &chosen, json),
        "start" | "stop" | "restart" | "suspend" | "resume" => control(tool, verb, &chosen, json),
        "reload" => reload(tool, &chosen, operands.get(1), json),
        "log" => {
            let chosen = nodes.iter().filter(|n| chosen.contains(&n.path));
            let pids: Vec<_> = chosen.flat_map(|n| n.pid).collect();
            log(tool, &pids, count, json)
        }
        "policy" => match chosen.first() {
            Some(path) => policy(tool, path, operands.get(1..).unwrap_or_default(), json),
            None => Ok(()),
        },
        other => Err(Stop::Usage(format!("unknown command '{other}'"))),
    }
}

fn object(node: &NodeSummary) -> Value {
    json!({
        "path": node.path,
        "description": node.description,
        "state": node.state.text(),
        "driver": node.driver,
        "pid": node.pid,
        "epoch": node.epoch,
        "restarts": node.restarts,
        "endpoints": node.endpoints,
        "known_as": node.known_as,
        "interrupts": node.interrupts,
        "dma_contained": node.dma_contained,
        "reason": node.reason,
    })
}

fn print(tool: &mut Tool, value: &Value) -> Result<(), Stop> {
    writeln!(tool.out, "{value}")
}

fn list(tool: &mut Tool, nodes: &[NodeSummary], json: bool) -> Result<(), Stop> {
    let with_driver = nodes.iter().filter(|n| n.driver.is_some());
    if json {
        let list = with_driver.map(object).collect();
        return print(tool, &Value::Array(list));
    }
    let head = [
        "NODE",
        "STATE",
        "DRIVER",
        "EPOCH",
        "RESTARTS",
        "ENDPOINTS",
        "REASON",
    ];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    for node in with_driver {
        let driver = node.driver.clone().unwrap_or_default();
        // What has gone by is no news while the driver serves.
        let reason = match node.state {
            NodeState::Running => String::from("-"),
            _ => node.reason.clone().unwrap_or_else(|| String::from("-")),
        };
        rows.push(alloc::vec![
            node.path.clone(),
            node.state.text().to_string(),
            node.pid
                .map_or(driver.clone(), |pid| format!("{driver}[{pid}]")),
            node.epoch.to_string(),
            node.restarts.to_string(),
            if node.endpoints.is_empty() {
                String::from("-")
            } else {
                node.endpoints.join(",")
            },
            reason,
        ]);
    }
    tool.out
        .bytes(tools::table::render(&rows, &[0, 1, 2, 5, 6]).as_bytes())
}

fn info(
    tool: &mut Tool,
    tree: &DeviceTreeClient,
    paths: &[String],
    json: bool,
) -> Result<(), Stop> {
    for path in paths {
        let node = service::answer(tool, path, tree.node(path))?;
        let summary = &node.summary;
        if json {
            let mut value = object(summary);
            let properties = node.properties.iter().map(|(n, v)| (n.clone(), json!(v)));
            value["properties"] = Value::Object(properties.collect());
            value["driver_version"] = json!(node.driver_version);
            value["versions"] = json!({
                "current": node.versions.current,
                "last_known_good": node.versions.last_known_good,
                "in_probation": node.versions.in_probation,
                "fell_back": node.versions.fell_back,
            });
            value["teardown"] = json!(node.teardown);
            print(tool, &value)?;
            continue;
        }
        writeln!(tool.out, "{}: {}", summary.path, summary.description)?;
        let driver = summary.driver.as_deref().unwrap_or("none");
        let version = node.driver_version.as_deref().unwrap_or("");
        writeln!(
            tool.out,
            "  state: {}, driver: {driver} {version}",
            summary.state.text()
        )?;
        writeln!(
            tool.out,
            "  epoch: {}, restarts: {}, interrupts: {}",
            summary.epoch, summary.restarts, summary.interrupts
        )?;
        if let Some(current) = &node.versions.current {
            let proven = if node.versions.in_probation {
                "in probation"
            } else {
                "proven"
            };
            writeln!(tool.out, "  version: {current}, {proven}")?;
        }
        if let Some(good) = &node.versions.last_known_good {
            writeln!(tool.out, "  last known good: {good}")?;
        }
        if let Some(why) = &node.versions.fell_back {
            writeln!(tool.out, "  fell back: {why}")?;
        }
        if let Some(reason) = &summary.reason {
            writeln!(tool.out, "  last end: {reason}")?;
        }
        for step in &node.teardown {
            writeln!(tool.out, "  teardown: {step}")?;
        }
        for (name, value) in &node.properties {
            writeln!(tool.out, "  {name} = {value}")?;
        }
    }
    Ok(())
}

fn control(tool: &mut Tool, verb: &str, paths: &[String], json: bool) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let admin = admin.with_timeout(LIMIT);
    for path in paths {
        let done = match verb {
            "start" => admin.start(path),
            "stop" => admin.stop(path),
            "suspend" => admin.suspend(path),
            "resume" => admin.resume(path),
            _ => admin.restart(path),
        };
        let error = done.err().map(service::text);
        if let Some(error) = &error {
            tool.fail(format_args!("{path}: cannot {verb}: {error}"));
        }
        if json {
            print(
                tool,
                &json!({ "path": path, "command": verb, "error": error }),
            )?;
        }
    }
    Ok(())
}

/// A file in memory that can be handed over, and its length.
fn program(name: &str) -> Result<(u64, Vmo), String> {
    let mut input = Input::open(name).map_err(|error| error.to_string())?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut chunk = alloc::vec![0; 64 * 1024];
    loop {
        let read = input.read(&mut chunk).map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if bytes.len() > PROGRAM_BYTES_MAX {
            return Err(format!("longer than {PROGRAM_BYTES_MAX} bytes"));
        }
    }
    let vmo = Vmo::create(bytes.len()).and_then(|vmo| vmo.write(0, &bytes).map(|()| vmo));
    match vmo {
        Ok(vmo) => Ok((bytes.len() as u64, vmo)),
        Err(error) => Err(error.to_string()),
    }
}

/// Where drivers are that a name without a folder stands for.
const FOLDER: &str = "/drivers";

/// The file that a name stands for.
fn in_folder(name: &str) -> String {
    if name.contains('/') || unix::fs::stat(name).is_ok() {
        return name.to_string();
    }
    format!("{FOLDER}/{name}")
}

fn reload(
    tool: &mut Tool,
    paths: &[String],
    file: Option<&String>,
    json: bool,
) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let admin = admin.with_timeout(LIMIT);
    for path in paths {
        let program = match file.map(|file| program(file).map_err(|why| (file, why))) {
            None => None,
            Some(Ok(program)) => Some(program),
            Some(Err((file, why))) => return Err(tool.fatal(1, format_args!("{file}: {why}"))),
        };
        let (length, program) = match program {
            Some((length, program)) => (length, Some(program)),
            None => (0, None),
        };
        let report = match admin.reload(path, length, program) {
            Ok(report) => report,
            Err(error) => {
                let error = service::text(error);
                tool.fail(format_args!("{path}: cannot reload: {error}"));
                if json {
                    let line = json!({ "path": path, "command": "reload", "error": error });
                    print(tool, &line)?;
                }
                continue;
            }
        };
        if let Some(why) = &report.fell_back {
            tool.fail(format_args!("{path}: {why}"));
        }
        if json {
            let line = json!({
                "path": path,
                "command": "reload",
                "error": report.fell_back,
                "before": report.before,
                "now": report.now,
                "epoch": report.epoch,
                "saved_fields": report.saved_fields,
                "gap_ns": report.gap_ns,
            });
            print(tool, &line)?;
        } else {
            writeln!(
                tool.out,
                "{path}: {} serves, incarnation {}; out of service for {} us, {} fields of state kept",
                report.now,
                report.epoch,
                report.gap_ns / 1000,
                report.saved_fields
            )?;
        }
    }
    Ok(())
}

fn program_object(program: &ProgramInfo) -> Value {
    json!({
        "driver": program.driver,
        "version": program.version,
        "program": program.program,
        "loaded": program.loaded,
        "nodes": program.nodes,
    })
}

fn files(tool: &mut Tool, verb: &str, names: &[String], json: bool) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let admin = admin.with_timeout(LIMIT);
    for name in names {
        let (name, done) = if verb == "unload" {
            let done = admin.unload(name).map(|()| None).map_err(service::text);
            (name.clone(), done)
        } else {
            let path = in_folder(name);
            let done = program(&path).and_then(|(length, vmo)| {
                let loaded = admin.load(&path, length, vmo);
                loaded.map(Some).map_err(service::text)
            });
            (path, done)
        };
        let error = done.as_ref().err();
        if let Some(error) = error {
            tool.fail(format_args!("{name}: cannot {verb}: {error}"));
        }
        if json {
            let program = done.as_ref().ok().and_then(Option::as_ref);
            let program = program.map(program_object);
            let line = json!({
                "file": name, "command": verb, "error": error, "program": program,
            });
            print(tool, &line)?;
        } else if let Ok(Some(program)) = &done {
            let nodes = match program.nodes.as_slice() {
                [] => String::from("no device of it is free"),
                nodes => nodes.join(", "),
            };
            writeln!(
                tool.out,
                "{name}: {} {}: {nodes}",
                program.driver, program.version
            )?;
        }
    }
    Ok(())
}

fn programs(tool: &mut Tool, json: bool) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let list = service::answer(tool, "programs", admin.programs())?;
    if json {
        let list = list.iter().map(program_object).collect();
        return print(tool, &Value::Array(list));
    }
    let head = ["DRIVER", "VERSION", "PROGRAM", "LOADED", "NODES"];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    for program in list {
        rows.push(alloc::vec![
            program.driver,
            program.version,
            program.program,
            String::from(if program.loaded { "yes" } else { "no" }),
            if program.nodes.is_empty() {
                String::from("-")
            } else {
                program.nodes.join(",")
            },
        ]);
    }
    tool.out
        .bytes(tools::table::render(&rows, &[0, 1, 2, 3, 4]).as_bytes())
}

/// Lines of the log that these processes wrote: a line names its process, which cannot name another one.
fn log(tool: &mut Tool, pids: &[u64], count: usize, json: bool) -> Result<(), Stop> {
    let Some(log) = startup::handle::<Resource>("log-reader") else {
        return Err(tool.fatal(1, format_args!("no access to the log")));
    };
    let mut buffer = alloc::vec![0u8; 32 * 1024];
    let (mut sequence, mut text) = (0, Vec::new());
    loop {
        let read = match rt::log_read(log, &mut buffer, sequence) {
            Ok(read) => read,
            Err(error) => return Err(tool.fatal(1, format_args!("cannot read the log: {error}"))),
        };
        text.extend_from_slice(buffer.get(..read.len).unwrap_or_default());
        if read.len == 0 || read.next == sequence {
            break;
        }
        sequence = read.next;
    }
    let text = String::from_utf8_lossy(&text);
    let of_driver = |line: &&str| rt::log::line_pid(line).is_some_and(|p| pids.contains(&p));
    let lines: Vec<&str> = text.lines().filter(of_driver).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(count));
    if json {
        return print(tool, &json!(last.collect::<Vec<_>>()));
    }
    for line in last {
        writeln!(tool.out, "{line}")?;
    }
    Ok(())
}

fn crash(tool: &mut Tool, names: &[String], json: bool) -> Result<(), Stop> {
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let mut reports = service::answer(tool, "crash reports", proc::crashes(&client, 0))?;
    for name in names {
        if !reports.iter().any(|report| report.is_about(name)) {
            tool.fail(format_args!("{name}: no crash report"));
        }
    }
    let is_wanted = |report: &Report| names.iter().any(|name| report.is_about(name));
    reports.retain(|report| names.is_empty() || is_wanted(report));
    if json {
        let text = serde_json::to_string(&reports);
        let text = text.map_err(|error| tool.fatal(1, format_args!("{error}")))?;
        return writeln!(tool.out, "{text}");
    }
    if !names.is_empty() {
        for report in &reports {
            writeln!(tool.out, "{report}")?;
        }
        return Ok(());
    }
    let head = ["NUMBER", "AT", "PROCESS", "NODE", "REASON", "WHAT"];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    for report in reports {
        let subject = report.subject;
        let ms = report.time_ns / 1_000_000;
        rows.push(alloc::vec![
            report.number.to_string(),
            format!("{}.{:03}", ms / 1000, ms % 1000),
            format!("{}[{}]", subject.name, subject.pid),
            subject.node.unwrap_or_else(|| String::from("-")),
            report.reason.to_string(),
            report.text,
        ]);
    }
    tool.out
        .bytes(tools::table::render(&rows, &[2, 3, 4, 5]).as_bytes())
}

fn policy(tool: &mut Tool, path: &str, settings: &[String], json: bool) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let (mut policy, deaths) = service::answer(tool, path, admin.policy(path))?;
    let mut wrong_wire = None;
    for setting in settings {
        let number = setting.split_once('=').and_then(|(name, value)| {
            if name == "trace" {
                policy.trace = match value {
                    "on" => true,
                    "off" => false,
                    _ => return None,
                };
                return Some(());
            }
            if name == "wire" {
                match Wire::parse(value) {
                    Ok(wire) => policy.wire = wire,
                    Err(error) => wrong_wire = Some(error),
                }
                return Some(());
            }
            let (_, field) = fields(&mut policy).into_iter().find(|(n, _)| *n == name)?;
            *field = value.parse().ok()?;
            Some(())
        });
        if number.is_none() {
            return Err(Stop::Usage(format!(
                "'{setting}': neither NAME=NUMBER of a rule nor trace=on or trace=off, nor wire=WIRE"
            )));
        }
        if let Some(error) = wrong_wire.take() {
            return Err(Stop::Usage(error));
        }
    }
    if !settings.is_empty() {
        service::answer(tool, path, admin.set_policy(path, policy))?;
    }
    let trace = policy.trace;
    let wire = policy.wire.map_or("off".into(), |wire| format!("{wire}"));
    let rules = fields(&mut policy);
    if json {
        let mut value = json!({ "path": path, "deaths": deaths, "trace": trace, "wire": wire });
        for (name, number) in rules {
            value[name.replace('-', "_")] = json!(*number);
        }
        return print(tool, &value);
    }
    let rules: Vec<String> = rules.map(|(name, n)| format!("{name}={n}")).to_vec();
    writeln!(
        tool.out,
        "{path}: {} trace={} wire={wire}; deaths in the window: {deaths}",
        rules.join(" "),
        if trace { "on" } else { "off" }
    )
}

/// Names and numbers of a policy.
fn fields(policy: &mut DriverPolicy) -> [(&'static str, &mut u32); 9] {
    let DriverPolicy {
        restart:
            RestartRules {
                budget,
                window_ms,
                pause_min_ms,
                pause_max_ms,
            },
        probation_ms,
        heartbeat_ms,
        silence_ms,
        start_ms,
        stop_ms,
        trace: _,
        wire: _,
    } = policy;
    [
        ("budget", budget),
        ("window-ms", window_ms),
        ("pause-min-ms", pause_min_ms),
        ("pause-max-ms", pause_max_ms),
        ("probation-ms", probation_ms),
        ("heartbeat-ms", heartbeat_ms),
        ("silence-ms", silence_ms),
        ("start-ms", start_ms),
        ("stop-ms", stop_ms),
    ]
}
