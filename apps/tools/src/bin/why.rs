//! `why`: why a device has its driver, or none.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use rt::proto::devmgr::DeviceTreeClient;
use tools::{devices, service};
use unix::{Stop, Tool};
unix::program!("why", HELP, run);

const HELP: &str = "\
Usage: why NODE...
Print every driver that was considered for each NODE: the rule that matched, or the first that did not.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let operands = tool.operands()?;
    if operands.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    let client: DeviceTreeClient = service::connect(tool, "dev")?;
    let nodes = devices::nodes(tool, &client)?;
    for text in &operands {
        let Some(path) = devices::node_path(text, &nodes) else {
            tool.fail(format_args!("{text}: no such node"));
            continue;
        };
        let report = service::answer(tool, text, client.why(&path))?;
        let node = &report.node;
        writeln!(tool.out, "{}: {}", node.path, node.description)?;
        writeln!(tool.out, "  identity: {}", report.identity)?;
        let driver = node.driver.as_deref().unwrap_or("none");
        writeln!(tool.out, "  state: {}, driver: {driver}", node.state.text())?;
        if let Some(reason) = &node.reason {
            writeln!(tool.out, "  reason: {reason}")?;
        }
        for c in &report.candidates {
            let mark = if c.chosen { "*" } else { "-" };
            write!(
                tool.out,
                "  {mark} {} {} ({})",
                c.driver, c.version, c.program
            )?;
            if c.fallback {
                tool.out.bytes(b", fallback")?;
            }
            tool.out.bytes(b"\n")?;
            if let Some(rule) = &c.matched {
                writeln!(
                    tool.out,
                    "      matched: {rule} (specificity {}, priority {})",
                    c.specificity, c.priority
                )?;
            }
            match &c.failed {
                Some(why) => writeln!(tool.out, "      not chosen: {why}")?,
                None if !c.chosen => {
                    writeln!(tool.out, "      not chosen: another driver comes first")?;
                }
                None => {}
            }
        }
        if report.candidates.is_empty() {
            writeln!(tool.out, "  no driver is known")?;
        }
    }
    Ok(())
}
