//! Driver for NVM Express controllers (base specification 1.4 and later, NVM command set) on the PCI bus.
//!
//! One I/O queue pair per CPU as far as controller and MSI-X vectors go, a vector each and one for events. Each
//! namespace is a disk, `nvme0n1` and so on. Payload is never mapped: PRP entries are made from the device
//! addresses of pinned pages. Scatter-gather lists are not used: pinned memory comes in pages, for which PRPs
//! are the shorter form. Sessions, partitions and deadlines are the class layer's; a request that takes too
//! long is aborted, and when that fails the controller is reset.
//!
//! # The parts
//!
//! - `controller`: registers and the controller's states.
//! - `admin`: the admin queue and its commands.
//! - `namespace`: what controller and namespaces say of themselves, checked.
//! - `queue`: the data path.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admin;
mod controller;
mod namespace;
mod queue;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, StopReason, info, warn,
};
use ddk_class_block::{Abort, BlockDevice, DiskInfo};
use spec_nvme::command::{self, cns, feature};
use spec_nvme::entry::Submission;
use spec_nvme::event::{self, Event, kind, log_page};
use spec_nvme::{IDENTIFY_BYTES, PCI_CLASS};

use admin::{Admin, CommandError};
use controller::{Controller, State};
use namespace::{Identity, Namespace, Unserved};
use queue::{Queue, UnmapSet, unmap_bit};

ddk::driver! {
    driver: Nvme,
    name: "nvme",
    class: BLOCK,
    version: [0, 1, 0],
    matches: [pci_class(PCI_CLASS[0], PCI_CLASS[1], PCI_CLASS[2])],
    needs: [bar(0), msix(1, 65), dma(64)],
}

/// Most I/O queue pairs.
const PAIRS_MAX: u16 = 64;
/// Most namespaces that are served.
const NAMESPACES_MAX: usize = 64;
/// Bytes of a log page that are read: a whole health page, several error entries, 128 changed namespaces.
const LOG_BYTES: u32 = 512;
/// A list of changed namespaces that begins so is too long to be told (5.14.1.4).
const CHANGED_TOO_MANY: u32 = 0xffff_ffff;

/// The driver of one controller.
pub struct Nvme {
    cx: DeviceContext,
    controller: Controller,
    admin: Admin,
    identity: Identity,
    namespaces: Vec<Namespace>,
    unmap: UnmapSet,
    /// Until the class layer takes them.
    queues: Vec<Queue>,
    /// Queue pairs that the controller has.
    pairs: u16,
    /// Events; `None` when the only vector belongs to a queue.
    changes: Option<Irq>,
}

/// A controller that was brought up.
struct Up {
    admin: Admin,
    identity: Identity,
    namespaces: Vec<Namespace>,
    queues: Vec<Queue>,
}

/// Resets the controller and initialises it (7.6.1).
async fn bring_up(
    cx: &DeviceContext,
    controller: &mut Controller,
    unmap: &UnmapSet,
) -> Result<Up, DriverError> {
    controller.disable().await?;
    let mut admin = Admin::new(cx, controller)?;
    let mut queues = Vec::new();
    let set_up = set_up(cx, controller, &mut admin, &mut queues, unmap).await;
    match set_up {
        Ok((identity, namespaces)) => Ok(Up {
            admin,
            identity,
            namespaces,
            queues,
        }),
        Err(error) => {
            if controller.disable().await.is_err() {
                // The controller may still use the queues' memory: it must never be given back from here.
                core::mem::forget((admin, queues));
            }
            Err(error)
        }
    }
}

/// Steps 4 to 12 of the initialisation (7.6.1). Queues that the controller may know are in `queues`, also after an
/// error.
async fn set_up(
    cx: &DeviceContext,
    controller: &mut Controller,
    admin: &mut Admin,
    queues: &mut Vec<Queue>,
    unmap: &UnmapSet,
) -> Result<(Identity, Vec<Namespace>), DriverError> {
    admin.enable(controller).await?;
    let what = "Identify, controller";
    admin.identify(controller, what, cns::CONTROLLER, 0).await?;
    let identity = Identity::read(admin.page(), controller.page_min_shift())?;
    let namespaces = identify_namespaces(cx, controller, admin, &identity).await?;
    follow_unmap(unmap, &namespaces);

    let vectors = cx.interrupt_count();
    if vectors == 0 {
        return Err(DriverError::Unsupported {
            what: "MSI-X vectors",
        });
    }
    // The admin queue has vector 0 (3.1.8, 7.6.1), unless it is the only one and has to be shared.
    let first_vector = u16::from(vectors > 1);
    let cpus = cx.cpu_count().clamp(1, PAIRS_MAX.into()) as u16;
    let wanted = cpus.min(vectors - first_vector).min(controller.io_pairs());
    if wanted == 0 {
        return Err(DriverError::Unsupported {
            what: "doorbells of an I/O queue",
        });
    }
    let granted = admin.request_queues(controller, wanted).await?;
    let pairs = granted.min(wanted.into()) as u16;
    for index in 0..pairs {
        let vector = first_vector + index;
        let irq = cx.interrupt(vector)?;
        let queue = Queue::new(
            cx,
            controller,
            index + 1,
            irq,
            identity.pages,
            unmap.clone(),
        )?;
        let create = create_commands(&queue, vector);
        queues.push(queue);
        for (what, command) in create {
            admin.command(controller, what, command).await?;
        }
    }

    let events = identity.events & event::CONFIGURE_NAMESPACES;
    let what = "Set Features, asynchronous events";
    match admin
        .set_feature(controller, what, feature::EVENTS, events)
        .await
    {
        Ok(_) => {}
        Err(CommandError::Status(what, status)) => {
            warn!(cx, "{what}: status {:#x}", status.code().0);
        }
        Err(CommandError::Driver(error)) => return Err(error),
    }
    admin.listen();
    Ok((identity, namespaces))
}

/// The commands that tell the controller of a queue pair: the completion queue first, since the submission
/// queue refers to it (5.3, 5.4).
fn create_commands(queue: &Queue, vector: u16) -> [(&'static str, Submission); 2] {
    let (submissions, completions) = queue.addresses();
    let dword10 = command::queue_dword10(queue.id(), queue.entries());
    let create = |opcode, address, dword11| Submission {
        opcode,
        prp1: address,
        dwords: [dword10, dword11, 0, 0, 0, 0],
        ..Submission::default()
    };
    [
        (
            "Create I/O Completion Queue",
            create(
                command::admin::CREATE_COMPLETION_QUEUE,
                completions,
                command::completion_queue_dword11(vector),
            ),
        ),
        (
            "Create I/O Submission Queue",
            create(
                command::admin::CREATE_SUBMISSION_QUEUE,
                submissions,
                command::submission_queue_dword11(queue.id()),
            ),
        ),
    ]
}

/// The namespaces that can be served; of the others the log tells why not.
async fn identify_namespaces(
    cx: &DeviceContext,
    controller: &Controller,
    admin: &mut Admin,
    identity: &Identity,
) -> Result<Vec<Namespace>, DriverError> {
    let ids = if controller.lists_namespaces() {
        admin.namespaces(controller, NAMESPACES_MAX).await?
    } else {
        // 1.0 has no list: every identifier up to NN is asked for.
        (1..=identity.namespaces).take(NAMESPACES_MAX).collect()
    };
    if ids.len() == NAMESPACES_MAX {
        warn!(cx, "the first {NAMESPACES_MAX} namespaces are served");
    }
    let mut namespaces = Vec::new();
    for id in ids {
        let what = "Identify, namespace";
        match admin.identify(controller, what, cns::NAMESPACE, id).await {
            Ok(()) => match Namespace::read(admin.page(), id, identity) {
                Ok(namespace) => namespaces.push(namespace),
                Err(Unserved::Inactive) => {}
                Err(reason) => warn!(cx, "namespace {id} is not served: {reason}"),
            },
            // It may have gone since the list was made.
            Err(CommandError::Status(what, status)) => {
                warn!(cx, "namespace {id}: {what}: status {:#x}", status.code().0);
            }
            Err(CommandError::Driver(error)) => return Err(error),
        }
    }
    Ok(namespaces)
}

fn follow_unmap(unmap: &UnmapSet, namespaces: &[Namespace]) {
    let can = namespaces.iter().filter(|n| n.zeroes_unmap);
    let bits = can.fold(0, |bits, namespace| bits | unmap_bit(namespace.id));
    unmap.store(bits, Ordering::Relaxed);
}

impl Driver for Nvme {
    async fn start(cx: DeviceContext) -> Result<Nvme, DriverError> {
        cx.pci().enable()?;
        let mut controller = Controller::new(&cx)?;
        let unmap = UnmapSet::default();
        let changes = if cx.interrupt_count() > 1 {
            Some(cx.interrupt(0)?)
        } else {
            None
        };
        let up = bring_up(&cx, &mut controller, &unmap).await?;
        let driver = Nvme {
            cx,
            controller,
            admin: up.admin,
            identity: up.identity,
            namespaces: up.namespaces,
            unmap,
            pairs: up.queues.len() as u16,
            queues: up.queues,
            changes,
        };
        info!(
            driver.cx,
            "{}: {} namespaces, {} queues of {}, transfers of up to {} KiB",
            driver.identity.model,
            driver.namespaces.len(),
            driver.pairs,
            driver.queues.first().map_or(0, Queue::entries),
            driver.identity.pages.saturating_mul(ddk::PAGE as u32) / 1024,
        );
        Ok(driver)
    }

    async fn suspend(&mut self) -> Result<(), DriverError> {
        self.quiesce().await?;
        self.controller.disable().await?;
        self.cx.pci().disable()
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        self.cx.pci().enable()
    }

    async fn stop(mut self, _: StopReason) {
        // One that is suspended is quiet already.
        if self.controller.state() != State::Disabled
            && let Err(error) = self.quiesce().await
        {
            warn!(self.cx, "while stopping: {error}");
        }
        if let Err(error) = self.controller.disable().await {
            warn!(self.cx, "while stopping: {error}");
        }
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
        if self.controller.state() != State::Disabled {
            // The controller may still use the queues' memory: it must never be given back from here.
            core::mem::forget((self.admin, self.queues));
        }
    }
}

impl Nvme {
    /// The orderly way to a shutdown (7.6.2): the I/O queues are deleted, submission queues first, and the
    /// controller empties its caches.
    async fn quiesce(&mut self) -> Result<(), DriverError> {
        let (controller, admin) = (&self.controller, &mut self.admin);
        for (what, opcode) in [
            (
                "Delete I/O Submission Queue",
                command::admin::DELETE_SUBMISSION_QUEUE,
            ),
            (
                "Delete I/O Completion Queue",
                command::admin::DELETE_COMPLETION_QUEUE,
            ),
        ] {
            for id in 1..=self.pairs {
                let command = Submission {
                    opcode,
                    dwords: [id.into(), 0, 0, 0, 0, 0],
                    ..Submission::default()
                };
                admin.command(controller, what, command).await?;
            }
        }
        self.controller.shut_down().await
    }

    /// Looks into what an event is about, which also allows the next one (5.2). `true`: the namespaces have
    /// to be looked at again.
    async fn attend(&mut self, event: Event) -> Result<bool, DriverError> {
        let page = event.log_page();
        let namespaces =
            event.kind() == kind::NOTICE && event.information() == event::NOTICE_NAMESPACES;
        if !namespaces {
            let (kind, information) = (event.kind(), event.information());
            warn!(
                self.cx,
                "event of type {kind}, {information:#x}, log page {page:#x}"
            );
        }
        match self.admin.read_log(&self.controller, page, LOG_BYTES).await {
            Ok(()) => {}
            Err(CommandError::Status(what, status)) => {
                let status = status.code().0;
                warn!(self.cx, "{what}: log page {page:#x}: status {status:#x}");
            }
            Err(CommandError::Driver(error)) => return Err(error),
        }
        let read = |at| self.admin.page().read::<u32>(at);
        match page {
            log_page::ERROR => warn!(self.cx, "error log: status and queue {:#x}", read(8)),
            log_page::HEALTH => warn!(self.cx, "health log: warnings {:#x}", read(0) & 0xff),
            log_page::CHANGED_NAMESPACES if read(0) == CHANGED_TOO_MANY => {
                info!(self.cx, "many namespaces changed");
            }
            log_page::CHANGED_NAMESPACES => info!(self.cx, "namespace {} changed", read(0)),
            _ => {}
        }
        Ok(namespaces)
    }
}

impl BlockDevice for Nvme {
    type Queue = Queue;

    fn disks(&self) -> Vec<DiskInfo> {
        let disk = |namespace: &Namespace| namespace.disk(&self.identity);
        self.namespaces.iter().map(disk).collect()
    }

    fn take_queues(&mut self) -> Vec<Queue> {
        core::mem::take(&mut self.queues)
    }

    async fn reset(&mut self, old: Vec<Queue>) -> Result<Vec<Queue>, DriverError> {
        if let Err(error) = self.controller.disable().await {
            // The controller may still use the queues' memory: it must never be given back from here.
            core::mem::forget(old);
            return Err(error);
        }
        drop(old);
        let up = bring_up(&self.cx, &mut self.controller, &self.unmap).await?;
        self.admin = up.admin;
        self.identity = up.identity;
        self.namespaces = up.namespaces;
        self.pairs = up.queues.len() as u16;
        Ok(up.queues)
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        match &mut self.changes {
            Some(irq) => irq.bind(events, key),
            None => Ok(()),
        }
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        self.controller.check()?;
        // Each admin command interrupts too: most often there is nothing.
        for event in self.admin.take_events()? {
            if self.attend(event).await? {
                let namespaces = identify_namespaces(
                    &self.cx,
                    &self.controller,
                    &mut self.admin,
                    &self.identity,
                );
                self.namespaces = namespaces.await?;
                follow_unmap(&self.unmap, &self.namespaces);
            }
            self.admin.listen();
        }
        Ok(())
    }

    async fn abort(&mut self, queue: usize, token: u32) -> Result<Abort, DriverError> {
        let (Ok(queue), Ok(token)) = (u16::try_from(queue + 1), u16::try_from(token)) else {
            return Ok(Abort::Refused);
        };
        let command = Submission {
            opcode: command::admin::ABORT,
            dwords: [command::abort_dword10(queue, token), 0, 0, 0, 0, 0],
            ..Submission::default()
        };
        match self.admin.command(&self.controller, "Abort", command).await {
            Ok(result) if result & command::NOT_ABORTED == 0 => Ok(Abort::Underway),
            Ok(_) | Err(CommandError::Status(..)) => Ok(Abort::Refused),
            Err(CommandError::Driver(error)) => Err(error),
        }
    }
}

const _: () = assert!(LOG_BYTES as usize <= IDENTIFY_BYTES);
