//! The device tree as `lsdev` and `lspci` see it.

use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::devmgr::{DeviceTreeClient, NodeSummary};
use unix::{Stop, Tool};

use crate::service;

/// All nodes in the order of their paths, after enumeration has settled.
pub fn nodes(tool: &mut Tool, client: &DeviceTreeClient) -> Result<Vec<NodeSummary>, Stop> {
    /// As many as fit a message with long descriptions.
    const BATCH: u32 = 64;
    service::answer(tool, "cannot read the device tree", client.wait_settled())?;
    let mut all: Vec<NodeSummary> = Vec::new();
    loop {
        let after = all.last().map_or("", |n| n.path.as_str());
        let batch = service::answer(
            tool,
            "cannot read the device tree",
            client.list(after, BATCH),
        )?;
        // A server that does not get on must not be asked for ever.
        if batch.last().is_none_or(|last| last.path.as_str() <= after) {
            return Ok(all);
        }
        all.extend(batch);
    }
}

/// How deep a node is below another one of the list, and its path from there.
pub fn place<'a>(path: &'a str, above: &[&'a str]) -> (usize, &'a str) {
    let mut depth = 0;
    let mut rest = path;
    for parent in above {
        if let Some(below) = path.strip_prefix(*parent)
            && below.starts_with('/')
        {
            depth += 1;
            rest = below;
        }
    }
    (depth, rest.trim_start_matches('/'))
}

/// A path as the device tree has it, from what people type: `00:04.0` or `pci/00:04.0`.
pub fn node_path(text: &str, nodes: &[NodeSummary]) -> Option<String> {
    let wanted = text.strip_prefix("dev:").unwrap_or(text);
    let exact = nodes
        .iter()
        .find(|n| n.path == wanted || n.path.trim_start_matches('/') == wanted);
    let by_end = || {
        nodes.iter().find(|n| {
            n.path
                .strip_suffix(wanted)
                .is_some_and(|before| before.ends_with('/'))
                || n.endpoints
                    .iter()
                    .chain(&n.known_as)
                    .any(|e| e == wanted || e.ends_with(&alloc::format!("/{wanted}")))
        })
    };
    exact.or_else(by_end).map(|n| n.path.clone())
}

/// The paths that an operand stands for: a node's, or those of all nodes that a driver of that name serves.
pub fn named(text: &str, nodes: &[NodeSummary]) -> Vec<String> {
    if let Some(path) = node_path(text, nodes) {
        return alloc::vec![path];
    }
    let served = nodes.iter().filter(|n| n.driver.as_deref() == Some(text));
    served.map(|n| n.path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place("/pci", &[]), (0, "pci"));
        assert_eq!(place("/pci/00:04.0", &["/pci"]), (1, "00:04.0"));
        assert_eq!(
            place("/pci/00:04.0/ns1", &["/pci", "/pci/00:04.0"]),
            (2, "ns1")
        );
        assert_eq!(place("/pcix", &["/pci"]), (0, "pcix"));
    }
}
