//! `drv`: drivers at run time.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use rt::proto::devmgr::{
    DeviceTreeClient, DriverAdminClient, DriverPolicy, NodeState, NodeSummary, RestartRules,
};
use serde_json::{Value, json};
use tools::{devices, service};
use unix::{Arg, Args, Stop, Tool};
unix::program!("drv", HELP, run);

const HELP: &str = "\
Usage: drv [--json] list
       drv [--json] info NODE...
       drv [--json] start|stop|restart NODE...
       drv [--json] policy NODE [RULE=N]...
Show and control the drivers of devices. NODE is a path as `lsdev` prints it, its end, or the
name of an endpoint (virtio0).

  list     every node with a driver: state, incarnation, restarts, what it offers
  info     all of one node: properties, the last failure, the steps of the last teardown
  start    start a driver that is stopped, failed or quarantined
  stop     let the driver finish, fence the device, leave it without a driver
  restart  stop it in good order and start it again
  policy   show or set how the driver is watched over. Restarts when it dies unasked: budget in
           window-ms, pauses from pause-min-ms to pause-max-ms. Hangs: a heartbeat every
           heartbeat-ms, an answer within silence-ms, in service within start-ms, stopped within
           stop-ms. A new version is proven after probation-ms.
";

/// A driver may take 30 s to come up, and a device as long to be fenced.
const LIMIT: Duration = Duration::from_secs(90);

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut json = false;
    let mut words = Vec::new();
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
    let tree: DeviceTreeClient = service::connect(tool, "dev")?;
    let nodes = devices::nodes(tool, &tree)?;
    let mut chosen = Vec::new();
    let named = if verb == "policy" {
        &operands[..operands.len().min(1)]
    } else {
        operands
    };
    for text in named {
        match devices::node_path(text, &nodes) {
            Some(path) => chosen.push(path),
            None => tool.fail(format_args!("{text}: no such node; `drv list` shows them")),
        }
    }
    if operands.is_empty() && verb != "list" {
        return Err(Stop::Usage(format!("{verb}: missing NODE")));
    }
    match verb {
        "list" => list(tool, &nodes, json),
        "info" => info(tool, &tree, &chosen, json),
        "start" | "stop" | "restart" => control(tool, verb, &chosen, json),
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
            "  epoch: {}, restarts: {}",
            summary.epoch, summary.restarts
        )?;
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

fn policy(tool: &mut Tool, path: &str, settings: &[String], json: bool) -> Result<(), Stop> {
    let admin: DriverAdminClient = service::connect(tool, "drv")?;
    let (mut policy, deaths) = service::answer(tool, path, admin.policy(path))?;
    for setting in settings {
        let number = setting.split_once('=').and_then(|(name, value)| {
            let (_, field) = fields(&mut policy).into_iter().find(|(n, _)| *n == name)?;
            *field = value.parse().ok()?;
            Some(())
        });
        if number.is_none() {
            return Err(Stop::Usage(format!(
                "'{setting}': not NAME=NUMBER of a rule"
            )));
        }
    }
    if !settings.is_empty() {
        service::answer(tool, path, admin.set_policy(path, policy))?;
    }
    let rules = fields(&mut policy);
    if json {
        let mut value = json!({ "path": path, "deaths": deaths });
        for (name, number) in rules {
            value[name.replace('-', "_")] = json!(*number);
        }
        return print(tool, &value);
    }
    let rules: Vec<String> = rules.map(|(name, n)| format!("{name}={n}")).to_vec();
    writeln!(
        tool.out,
        "{path}: {}; deaths in the window: {deaths}",
        rules.join(" ")
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
