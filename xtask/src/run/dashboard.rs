//! The dashboard for a person at a terminal: a port that leads to it, and a token made for this run.

use std::fs::File;
use std::io::Read;

use anyhow::Context;

use crate::control::registry;
use crate::guest::nic::Forward;

/// The port of the guest's web server.
const PORT: u16 = 80;
/// Word of the boot configuration that sets the token.
const WORD: &str = "dashboard-token=";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 16;

/// What is offered.
pub(super) struct Dashboard {
    /// For the person.
    pub line: String,
    /// For the kernel's command line.
    pub word: String,
}

/// Leads a free port of the host to the dashboard, unless one leads there already.
///
/// # Errors
/// None for this port; as [`Forward::parse`].
pub(super) fn forward(forwards: &mut Vec<Forward>) -> anyhow::Result<()> {
    if !forwards.iter().any(|forward| forward.leads_to(PORT)) {
        forwards.push(Forward::parse(&format!("0:{PORT}"))?);
    }
    Ok(())
}

/// The dashboard behind these arguments of QEMU; `None` without an interface. A token that `words` set is kept.
///
/// # Errors
/// When the host has no random numbers.
pub(super) fn offer(network: &[String], words: &[String]) -> anyhow::Result<Option<Dashboard>> {
    let port = PORT.to_string();
    let forwards = registry::forwards(network);
    let found = forwards
        .iter()
        .find(|forward| forward.protocol == "tcp" && forward.guest == port);
    let Some(forward) = found else {
        return Ok(None);
    };
    let given = words.iter().flat_map(|text| text.split_whitespace());
    let token = match given.filter_map(|word| word.strip_prefix(WORD)).next_back() {
        Some(token) => token.to_owned(),
        None => token()?,
    };
    Ok(Some(Dashboard {
        line: format!(
            "the dashboard is at http://{}/#token={token} (without the token it only shows)",
            forward.host
        ),
        word: format!("{WORD}{token}"),
    }))
}

fn token() -> anyhow::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    let mut source = File::open("/dev/urandom").context("random numbers")?;
    source.read_exact(&mut bytes).context("random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::nic::{self, Model, Nic};

    fn network(mut forwards: Vec<Forward>) -> Vec<String> {
        forward(&mut forwards).unwrap();
        nic::arguments(&[Nic::new(Model::Virtio)], &forwards, None).unwrap()
    }

    #[test]
    fn the_address_has_the_token_that_the_guest_gets() {
        let offered = offer(&network(Vec::new()), &[]).unwrap().unwrap();
        let token = offered.word.strip_prefix(WORD).unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert!(offered.line.contains(&format!("/#token={token} ")));
        let again = offer(&network(Vec::new()), &[]).unwrap().unwrap();
        assert_ne!(again.word, offered.word);
    }

    #[test]
    fn what_was_asked_for_is_kept() {
        let forwards = vec![Forward::parse("8080:80").unwrap()];
        let words = ["a=b dashboard-token=mine".to_owned()];
        let offered = offer(&network(forwards), &words).unwrap().unwrap();
        assert!(offered.line.contains("http://127.0.0.1:8080/#token=mine "));
        assert!(offer(&[], &words).unwrap().is_none());
    }
}
