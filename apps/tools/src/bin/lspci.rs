//! `lspci`: lists PCI functions.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use rt::proto::devmgr::DeviceTreeClient;
use tools::{devices, pci, service};
use unix::{Arg, Args, Stop, Tool};
unix::program!("lspci", HELP, run);

const HELP: &str = "\
Usage: lspci [-nvx] [-s ADDRESS]
List every PCI function: address, class, vendor and device.

  -n          numbers instead of names
  -s ADDRESS  only this one, for instance 00:04.0
  -v          with BARs, capabilities, interrupts and driver
  -x          with the first 64 bytes of configuration space
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut numeric, mut verbose, mut dump) = (false, false, false);
    let mut only = None;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('n') => numeric = true,
            Arg::Short('v') => verbose = true,
            Arg::Short('x') => dump = true,
            Arg::Short('k') => {}
            Arg::Short('s') => only = Some(tool.value()?),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: DeviceTreeClient = service::connect(tool, "dev")?;
    let mut found = false;
    for summary in devices::nodes(tool, &client)? {
        // A node that has just gone is no function any more.
        let Ok(node) = client.node(&summary.path) else {
            continue;
        };
        let Some(info) = &node.pci else { continue };
        if only
            .as_ref()
            .is_some_and(|o| *o != alloc::format!("{}", info.address))
        {
            continue;
        }
        found = true;
        let line = if numeric {
            pci::numeric_line(info)
        } else {
            pci::line(info, &summary.description)
        };
        tool.out.bytes(line.as_bytes())?;
        if dump {
            let bytes = client.pci_config(&summary.path);
            let bytes = service::answer(tool, "cannot read configuration space", bytes)?;
            for (index, row) in bytes.chunks(16).take(4).enumerate() {
                write!(tool.out, "{:02x}:", index * 16)?;
                for byte in row {
                    write!(tool.out, " {byte:02x}")?;
                }
                tool.out.bytes(b"\n")?;
            }
        }
        if verbose {
            tool.out.bytes(pci::details(&node, info).as_bytes())?;
        } else if dump {
            tool.out.bytes(b"\n")?;
        }
    }
    match only {
        Some(only) if !found => Err(tool.fatal(1, format_args!("{only}: no such function"))),
        _ => Ok(()),
    }
}
