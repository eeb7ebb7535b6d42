//! `lsdev`: the device tree.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::devmgr::DeviceTreeClient;
use tools::{devices, service};
use unix::{Arg, Args, Stop, Tool};
unix::program!("lsdev", HELP, run);

const HELP: &str = "\
Usage: lsdev [-v] [NODE]...
Print the device tree: nodes with state, driver and what they offer.

  -v  with properties and, after a failure, the reason and the steps of the teardown
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut verbose = false;
    let mut operands = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('v') => verbose = true,
            Arg::Operand(text) => operands.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: DeviceTreeClient = service::connect(tool, "dev")?;
    let nodes = devices::nodes(tool, &client)?;
    let mut chosen = Vec::new();
    for text in &operands {
        match devices::node_path(text, &nodes) {
            Some(path) => chosen.push(path),
            None => tool.fail(format_args!("{text}: no such node")),
        }
    }
    let mut above: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    let mut details = Vec::new();
    for node in nodes
        .iter()
        .filter(|n| operands.is_empty() || chosen.contains(&n.path))
    {
        above.retain(|parent| {
            node.path
                .strip_prefix(*parent)
                .is_some_and(|below| below.starts_with('/'))
        });
        let (depth, name) = devices::place(&node.path, &above);
        above.push(&node.path);
        let driver = match (&node.driver, node.pid) {
            (Some(driver), Some(pid)) => format!("{driver}[{pid}]"),
            (Some(driver), None) => driver.clone(),
            (None, _) => String::from("-"),
        };
        let dma = match node.dma_contained {
            Some(true) => "contained",
            Some(false) => "trusted",
            None => "-",
        };
        let offers = if node.endpoints.is_empty() {
            String::from("-")
        } else {
            node.endpoints.join(",")
        };
        rows.push(alloc::vec![
            format!("{}{name}", "  ".repeat(depth)),
            String::from(node.state.text()),
            driver,
            String::from(dma),
            offers,
            node.description.clone(),
        ]);
        if let Some(reason) = &node.reason {
            details.push(format!("{}: {reason}\n", node.path));
        }
        if verbose {
            details.extend(properties(&client, &node.path));
        }
    }
    let head = ["NODE", "STATE", "DRIVER", "DMA", "ENDPOINTS", "DESCRIPTION"];
    rows.insert(0, head.map(String::from).to_vec());
    tool.out
        .bytes(tools::table::render(&rows, &[0, 1, 2, 3, 4, 5]).as_bytes())?;
    for text in details {
        tool.out.bytes(text.as_bytes())?;
    }
    Ok(())
}

fn properties(client: &DeviceTreeClient, path: &str) -> Vec<String> {
    let Ok(info) = client.node(path) else {
        return Vec::new();
    };
    let mut out = alloc::vec![format!("{path}:\n")];
    let summary = &info.summary;
    out.push(format!(
        "  epoch {}, restarts {}\n",
        summary.epoch, summary.restarts
    ));
    for (name, value) in &info.properties {
        out.push(format!("  {name} = {value}\n"));
    }
    for step in &info.teardown {
        out.push(format!("  teardown: {step}\n"));
    }
    out
}
