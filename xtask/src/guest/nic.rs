//! A network interface of the machine: what `--nic`, `--forward` and `--capture` say, and how QEMU is told.
//!
//! Each interface has a user network of its own: the guest gets an address by DHCP and reaches what the host reaches;
//! the host reaches the guest by forwarded ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::UsageError;

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// virtio-net over PCI.
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
}

/// All models: the name that `--nic` takes, QEMU's.
const MODELS: &[(&str, &str, Model)] = &[
    ("virtio", "virtio-net-pci", Model::Virtio),
    ("e1000", "e1000", Model::E1000),
    ("e1000e", "e1000e", Model::E1000e),
];

/// An interface and its options, as help texts show them.
pub const SYNTAX: &str = "virtio|e1000|e1000e|none[,queues=N]";

/// Most queue pairs of an interface.
const QUEUES_MAX: u16 = 16;

/// A network interface of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// What it is.
    pub model: Model,
    /// Queue pairs that the device offers.
    pub queues: u16,
}

impl Nic {
    /// An interface with one queue pair.
    pub const fn new(model: Model) -> Nic {
        Nic { model, queues: 1 }
    }

    /// Reads what [`SYNTAX`] shows; `None` for `none`.
    ///
    /// # Errors
    /// [`UsageError`] for a model or an option that is not there.
    pub fn parse(text: &str) -> Result<Option<Nic>, UsageError> {
        let (name, options) = match text.split_once(',') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        if text == "none" {
            return Ok(None);
        }
        let model = MODELS.iter().find(|(known, ..)| *known == name);
        let Some((_, _, model)) = model else {
            let names: Vec<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
            return Err(UsageError(format!(
                "--nic {text}: unknown interface {name:?}, there is {} and none",
                names.join(", ")
            )));
        };
        let mut nic = Nic::new(*model);
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            let Some(count) = option.strip_prefix("queues=") else {
                return Err(UsageError(format!(
                    "--nic {text}: unknown option {option:?}, there is queues="
                )));
            };
            let max = match nic.model {
                Model::Virtio => QUEUES_MAX,
                Model::E1000 | Model::E1000e => 1,
            };
            nic.queues = match count.parse() {
                Ok(count) if (1..=max).contains(&count) => count,
                _ => {
                    return Err(UsageError(format!(
                        "--nic {text}: {count:?} queues, there can be 1 to {max}"
                    )));
                }
            };
        }
        Ok(Some(nic))
    }
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// `tcp` or `udp`.
    protocol: &'static str,
    host: u16,
    guest: u16,
}

/// A forwarded port, as help texts show it.
pub const FORWARD_SYNTAX: &str = "[udp:]HOSTPORT:GUESTPORT";

impl Forward {
    /// Reads what [`FORWARD_SYNTAX`] shows.
    ///
    /// # Errors
    /// [`UsageError`] for what is no pair of ports.
    pub fn parse(text: &str) -> Result<Forward, UsageError> {
        let (protocol, ports) = match text.strip_prefix("udp:") {
            Some(ports) => ("udp", ports),
            None => ("tcp", text.strip_prefix("tcp:").unwrap_or(text)),
        };
        let pair = ports.split_once(':').and_then(|(host, guest)| {
            let guest = guest.parse().ok().filter(|guest| *guest != 0)?;
            Some((host.parse().ok()?, guest))
        });
        let Some((host, guest)) = pair else {
            return Err(UsageError(format!(
                "--forward {text}: expected {FORWARD_SYNTAX}, for example 8080:80; host port 0 is a free one"
            )));
        };
        Ok(Forward {
            protocol,
            host,
            guest,
        })
    }

    /// Whether it leads to that TCP port of the guest.
    pub fn leads_to(&self, port: u16) -> bool {
        self.protocol == "tcp" && self.guest == port
    }

    /// The option of QEMU's user network. Host port 0 becomes a free one; somebody may take it until QEMU does, which then says so.
    fn option(&self) -> anyhow::Result<String> {
        let host = match self.host {
            0 => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).context("a free port")?;
                listener.local_addr().context("a free port")?.port()
            }
            port => port,
        };
        let Forward {
            protocol, guest, ..
        } = self;
        Ok(format!("hostfwd={protocol}:127.0.0.1:{host}-:{guest}"))
    }
}

/// The file for the frames of interface `index`: the name as it is for the first one, with its number for the others.
fn capture_file(file: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return file.to_owned();
    }
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{index}"));
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

/// QEMU's arguments for the interfaces. Forwarded ports lead to the first one; frames go to `capture` as pcap.
///
/// # Errors
/// [`UsageError`] for forwarded ports or a capture without an interface.
pub fn arguments(
    nics: &[Nic],
    forwards: &[Forward],
    capture: Option<&Path>,
) -> anyhow::Result<Vec<String>> {
    if nics.is_empty() && (capture.is_some() || !forwards.is_empty()) {
        let text = "--forward and --capture need a --nic".to_owned();
        return Err(UsageError(text).into());
    }
    let mut all = Vec::new();
    for (index, nic) in nics.iter().enumerate() {
        // Networks of their own, so that a guest with several knows which way to go.
        let mut backend = format!("user,id=net{index},net=10.0.{}.0/24", index + 2);
        if index == 0 {
            for forward in forwards {
                backend.push(',');
                backend.push_str(&forward.option()?);
            }
        }
        all.extend(["-netdev".to_owned(), backend]);
        all.extend(["-device".to_owned(), device(nic, index)]);
        if let Some(file) = capture {
            let file = capture_file(file, index).display().to_string();
            let file = file.replace(',', ",,");
            let filter = format!("filter-dump,id=capture{index},netdev=net{index},file={file}");
            all.extend(["-object".to_owned(), filter]);
        }
    }
    Ok(all)
}

/// QEMU's device on the network `net` of the same number.
fn device(nic: &Nic, index: usize) -> String {
    let name = MODELS.iter().find(|(_, _, model)| *model == nic.model);
    let name = name.map_or("", |(_, name, _)| *name);
    // Addresses that differ, and are those that QEMU would take.
    let last = 0x56 + index;
    let mut text = format!("{name},netdev=net{index},mac=52:54:00:12:34:{last:02x}");
    if nic.model == Model::Virtio && nic.queues > 1 {
        let vectors = nic.queues + 1;
        text.push_str(&format!(",mq=on,vectors={vectors}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        let parse = |text| Nic::parse(text).map_err(|e| e.to_string());
        assert_eq!(parse("virtio"), Ok(Some(Nic::new(Model::Virtio))));
        assert_eq!(parse("none"), Ok(None));
        let nic = parse("virtio,queues=2").unwrap().unwrap();
        assert_eq!((nic.model, nic.queues), (Model::Virtio, 2));
        assert!(device(&nic, 0).ends_with("mq=on,vectors=3"));
        assert!(parse("e1000,queues=2").unwrap_err().contains("1 to 1"));
        assert!(
            parse("rtl8139")
                .unwrap_err()
                .contains("virtio, e1000, e1000e")
        );
        assert!(parse("virtio,mtu=9").unwrap_err().contains("queues="));
    }

    #[test]
    fn ports() {
        let forward = Forward::parse("8080:80").unwrap();
        assert_eq!(forward.option().unwrap(), "hostfwd=tcp:127.0.0.1:8080-:80");
        let free = Forward::parse("udp:0:7").unwrap().option().unwrap();
        let port = free
            .strip_prefix("hostfwd=udp:127.0.0.1:")
            .and_then(|rest| rest.strip_suffix("-:7"));
        assert!(
            port.is_some_and(|port| port.parse::<u16>().unwrap() > 0),
            "{free}"
        );
        for text in ["80", "80:0", "x:80", "70000:80", ""] {
            assert!(Forward::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_interfaces_do_not_share_anything() {
        let nics = [Nic::new(Model::Virtio), Nic::new(Model::E1000e)];
        let forward = [Forward::parse("8080:80").unwrap()];
        let all = arguments(&nics, &forward, Some(Path::new("/t/a.pcap"))).unwrap();
        let text = all.join(" ");
        assert!(text.contains("net=10.0.2.0/24,hostfwd=") && text.contains("net=10.0.3.0/24 "));
        assert!(text.contains("file=/t/a.pcap") && text.contains("file=/t/a-1.pcap"));
        assert!(
            text.contains("34:56") && text.contains("e1000e,netdev=net1,mac=52:54:00:12:34:57")
        );
        assert!(arguments(&[], &forward, None).is_err());
    }
}
