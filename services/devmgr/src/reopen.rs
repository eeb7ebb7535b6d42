//! Names of endpoints that outlive drivers: whoever opened one finds it again after a restart.
//!
//! A name is a channel of its own, so that it gives the right to one endpoint and not to its scheme.

use alloc::format;
use alloc::string::String;

use devmgr::life::Event;
use devmgr::node;
use proto::crash_report::EndReason;
use proto::devmgr::{
    Class, Complaint, DevError, EndpointInfo, EndpointNameReopenReply, EndpointNameRequest,
    EndpointNameServer, NodeState,
};
use rt::ipc::Server;
use rt::{AsHandle, Channel, Signals, Watch};

use crate::manager::{BATCH, KEY_NAMES, Manager};
use crate::serve::WAITING_MAX;

/// Most names that were ever opened: each costs a channel.
const NAMES_MAX: usize = 4096;

/// Keys of the vault.
const NAMES: &str = "name:";

/// A name as it is kept: class, name, node, parent.
type NameRecord = (Class, String, String, Option<String>);

/// A name that was opened.
pub struct Name {
    class: Class,
    name: String,
    node: String,
    /// The disk that a partition is on.
    parent: Option<String>,
    client: Channel,
    server: EndpointNameServer,
}

/// Somebody who waits for the next incarnation.
pub struct Reopening {
    name: usize,
    after: u32,
    reply: EndpointNameReopenReply,
}

impl Manager {
    /// A client's end of the channel of this name.
    pub fn name_channel(&mut self, info: &EndpointInfo) -> Result<Channel, DevError> {
        let known = |n: &Name| n.class == info.class && n.name == info.name;
        let full = |_| DevError::NoResources;
        if let Some(name) = self.endpoint_names.iter_mut().find(|n| known(n)) {
            // Another node may have the name after a device was changed.
            name.node.clone_from(&info.node);
            return name.client.duplicate().map_err(full);
        }
        let place = self.endpoint_names.len();
        if place >= NAMES_MAX {
            return Err(DevError::NoResources);
        }
        let (client, server) = EndpointNameServer::pair().map_err(full)?;
        let client = client.into_channel();
        let theirs = client.duplicate().map_err(full)?;
        server
            .channel()
            .wait_async(
                &self.port,
                KEY_NAMES + place as u64,
                Signals::READABLE,
                Watch::Persistent,
            )
            .map_err(full)?;
        self.endpoint_names.push(Name {
            class: info.class,
            name: info.name.clone(),
            node: info.node.clone(),
            parent: info.parent.clone(),
            client,
            server,
        });
        Ok(theirs)
    }

    /// Puts the names away that were opened.
    pub fn keep_names(&mut self) {
        for (place, name) in self.endpoint_names.iter().enumerate() {
            let record = (name.class, &name.name, &name.node, &name.parent);
            let handles = [name.client.as_handle(), name.server.channel().as_handle()];
            self.kept
                .put(&format!("{NAMES}{place:05}"), &record, &handles);
        }
    }

    /// Takes the names over. Who waits for an endpoint asks again.
    pub fn restore_names(&mut self) {
        for key in self.kept.keys(NAMES) {
            let Some((record, handles)) = self.kept.get::<NameRecord>(&key) else {
                continue;
            };
            let mut handles = handles.into_iter();
            let (Some(client), Some(server)) = (handles.next(), handles.next()) else {
                continue;
            };
            let (class, name, node, parent) = record;
            let server: Channel = server.into_type();
            let port_key = KEY_NAMES + self.endpoint_names.len() as u64;
            let watched = server
                .set_epoch(self.kept.incarnation.into())
                .and_then(|()| {
                    server.wait_async(&self.port, port_key, Signals::READABLE, Watch::Persistent)
                });
            if let Err(error) = watched {
                rt::error!("{name}: {error}");
            }
            self.endpoint_names.push(Name {
                class,
                name,
                node,
                parent,
                client: client.into_type(),
                server: EndpointNameServer::new(server),
            });
        }
    }

    /// Serves a batch of those who have one name.
    pub fn serve_name(&mut self, key: u64) {
        let place = usize::try_from(key.saturating_sub(KEY_NAMES)).unwrap_or(usize::MAX);
        for _ in 0..BATCH {
            let Some(name) = self.endpoint_names.get(place) else {
                return;
            };
            let Ok(Some(request)) = name.server.try_next() else {
                return;
            };
            match request {
                EndpointNameRequest::Reopen { reply, .. }
                    if self.reopenings.len() >= WAITING_MAX =>
                {
                    let _ = reply.error(&DevError::NoResources);
                }
                EndpointNameRequest::Reopen { after, reply } => self.reopenings.push(Reopening {
                    name: place,
                    after,
                    reply,
                }),
                EndpointNameRequest::Complain {
                    epoch,
                    complaint,
                    reply,
                } => {
                    let node = name.node.clone();
                    self.complained(&node, epoch, complaint);
                    let _ = reply.ok();
                }
            }
        }
        self.again(key);
    }

    /// A client cannot use its driver: the driver is ended if it is still the one that is meant.
    fn complained(&mut self, path: &str, epoch: u32, complaint: Complaint) {
        let Some(index) = self.place(path) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(index).filter(|n| n.epoch == epoch) else {
            return;
        };
        match node.state() {
            NodeState::Running => {
                let reason = match complaint {
                    Complaint::Silent => EndReason::NoAnswer,
                    Complaint::Protocol | Complaint::OtherDevice => EndReason::BrokeProtocol,
                };
                node.ending = Some((reason, String::from(complaint.text())));
                self.happened(index, Event::Broken);
            }
            // Not its fault. But the client has given its session up, and waits for the next incarnation.
            NodeState::Suspended => node.given_up = Some(complaint),
            _ => {}
        }
    }

    /// A driver goes on after a suspension: a client that did not wait so long gets the next incarnation.
    pub fn went_on(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        if node.given_up.take().is_some() && node.state() == NodeState::Running {
            let why = "a client gave up waiting while it was suspended";
            node.ending = Some((EndReason::NoAnswer, String::from(why)));
            self.happened(index, Event::Broken);
        }
    }

    /// Answers those whose endpoint is there again, or never will be.
    pub fn answer_reopenings(&mut self) {
        let mut at = 0;
        while let Some(waiting) = self.reopenings.get(at) {
            match self.reopened(waiting) {
                None => at = at.saturating_add(1),
                Some(found) => {
                    let reply = self.reopenings.swap_remove(at).reply;
                    // Who waited may be gone.
                    let _ = match found {
                        Ok((info, endpoint)) => reply.ok(&info, endpoint),
                        Err(error) => reply.error(&error),
                    };
                }
            }
        }
    }

    /// `None` while it is worth waiting.
    fn reopened(&self, waiting: &Reopening) -> Option<Result<(EndpointInfo, Channel), DevError>> {
        let Some(name) = self.endpoint_names.get(waiting.name) else {
            return Some(Err(DevError::NotFound));
        };
        if let Some((info, endpoint)) = self.endpoints.get(name.class, &name.name)
            && info.epoch > waiting.after
        {
            let endpoint = endpoint.duplicate().map_err(|_| DevError::NoResources);
            return Some(endpoint.map(|endpoint| (info.clone(), endpoint)));
        }
        let Some(node) = self.find(&name.node) else {
            return Some(Err(DevError::NotFound));
        };
        if node::is_over(node.state()) {
            return Some(Err(DevError::NotRunning));
        }
        // In service again, and its partitions read again: what is not there now does not come.
        let here = node.state() == NodeState::Running && node.epoch > waiting.after;
        let read = match &name.parent {
            Some(disk) => self.endpoints.is_scanned(disk),
            None => true,
        };
        (here && read).then_some(Err(DevError::NotFound))
    }
}
