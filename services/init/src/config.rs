//! `etc/boot.cfg` of the boot archive and the kernel command line.
//!
//! The file has lines `key = value`; `#` opens a comment. Words `key=value` of the command line
//! override it; a word without `=` is a flag, which the kernel may know.
//!
//! `restart.NAME` says what is done when the service NAME dies, in words as `svc policy` takes them; `heartbeat-ms` and
//! `silence-ms` among them how often it is asked for a sign of life, and for how long it may owe one.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Keys that have a meaning.
pub const KEYS: &[&str] = &[
    "services",
    "root",
    "control",
    "console",
    "crash",
    "drivers",
    "trace",
    "wire",
    "dashboard-token",
];

/// Start of the keys with rules for one service.
const RESTART: &str = "restart.";

fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
        || key
            .strip_prefix(RESTART)
            .is_some_and(|name| !name.is_empty())
}

/// What was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Config {
    /// Reads both. What cannot be used is told in [`Config::problems`] and left out: a typing error
    /// must not keep the system from starting.
    pub fn parse(file: &str, command_line: &str) -> Config {
        let mut config = Config::default();
        for (number, line) in file.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let number = number.saturating_add(1);
            match line.split_once('=') {
                Some((key, value)) => {
                    let key = key.trim();
                    if !is_key(key) {
                        config
                            .problems
                            .push(format!("boot.cfg line {number}: unknown key {key:?}"));
                    } else if config
                        .values
                        .insert(key.to_string(), value.trim().to_string())
                        .is_some()
                    {
                        config
                            .problems
                            .push(format!("boot.cfg line {number}: {key:?} is set twice"));
                    }
                }
                None => config
                    .problems
                    .push(format!("boot.cfg line {number}: no `=` in {line:?}")),
            }
        }
        for word in command_line.split_whitespace() {
            // Keys that are not ours are the kernel's.
            if let Some((key, value)) = word.split_once('=')
                && is_key(key)
            {
                config.values.insert(key.to_string(), value.to_string());
            }
        }
        config
    }

    /// The value of a key, if it is set and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// The words of a value (separated by blanks or commas).
    pub fn words(&self, key: &str) -> Option<Vec<&str>> {
        let words = self.get(key)?.split([' ', '\t', ',']);
        Some(words.filter(|w| !w.is_empty()).collect())
    }

    /// The words of `restart.NAME`; none if it is not set.
    pub fn restart_words(&self, name: &str) -> Vec<&str> {
        self.words(&format!("{RESTART}{name}")).unwrap_or_default()
    }

    /// What could not be used.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_command_line_overrides_the_file() {
        let file = "# start\nservices = acpi devmgr,vfs\nroot = disk:/virtio0p1 # first\n\n";
        let config = Config::parse(file, "nosmp root=disk:/virtio1 foo=bar");
        assert_eq!(config.get("root"), Some("disk:/virtio1"));
        assert_eq!(
            config.words("services"),
            Some(vec!["acpi", "devmgr", "vfs"])
        );
        assert_eq!(Config::parse("root =", "").get("root"), None);
        assert_eq!(config.get("foo"), None);
        assert!(config.problems().is_empty());
    }

    #[test]
    fn rules_of_one_service() {
        let config = Config::parse(
            "restart.vfs = budget=3 window-ms=10\nrestart. = x",
            "restart.fat=budget=0,window-ms=1",
        );
        assert_eq!(config.restart_words("vfs"), ["budget=3", "window-ms=10"]);
        assert_eq!(config.restart_words("fat"), ["budget=0", "window-ms=1"]);
        assert_eq!(config.restart_words("acpi"), [""; 0]);
        assert_eq!(config.problems().len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let config = Config::parse("root\nrooot = x\nroot = a\nroot = b", "");
        assert_eq!(
            config.problems(),
            [
                "boot.cfg line 1: no `=` in \"root\"",
                "boot.cfg line 2: unknown key \"rooot\"",
                "boot.cfg line 4: \"root\" is set twice"
            ]
        );
        assert_eq!(config.get("root"), Some("b"));
    }

    proptest! {
        #[test]
        fn any_text_is_safe(file: String, line: String) {
            let config = Config::parse(&file, &line);
            let _ = config.words("services");
        }
    }
}
