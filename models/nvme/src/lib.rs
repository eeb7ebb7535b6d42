//! An NVM Express controller (base specification 1.4, NVM command set) with its namespaces in memory.
//!
//! The model is honest: it notes a violation on the platform for whatever a driver does that the specification
//! rules out. A doorbell before its queue exists, out of range or without news; configuration that changes
//! while the controller is enabled; a PRP entry with an offset where none may be; reserved bits; a command
//! identifier used twice; DMA to what is not mapped; more queues than were granted. What a driver may do but
//! the controller refuses is answered with a status and is no violation.
//!
//! Nothing happens by itself: [`NvmeModel::run`] lets the controller work, and [`NvmeModel::platform`] has it run
//! whenever the driver waits. With [`NvmeOptions::seed`] commands complete in an order of the seed's, as the
//! specification allows (4.1).

mod admin;
mod identify;
mod io;
mod prp;
mod queue;
mod registers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use ddk_backend_sim::{DeviceMemory, SimInterrupt, SimPlatform};
use model_media::Media;
use spec_nvme::entry::{Completion, PHASE, Submission};
use spec_nvme::register::{cc, csts};
use spec_nvme::status::Status;

use queue::{CompletionQueue, SubmissionQueue};

/// What a namespace is like.
#[derive(Clone, Debug)]
pub struct NamespaceOptions {
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Write-protected.
    pub read_only: bool,
    /// Bytes of metadata of each block; only told, since no driver here can use it.
    pub metadata_bytes: u16,
}

impl Default for NamespaceOptions {
    fn default() -> Self {
        NamespaceOptions {
            block_bytes: 512,
            blocks: 4096,
            read_only: false,
            metadata_bytes: 0,
        }
    }
}

/// What a controller is like.
#[derive(Clone, Debug)]
pub struct NvmeOptions {
    /// Namespaces from identifier 1 on.
    pub namespaces: Vec<NamespaceOptions>,
    /// I/O queue pairs.
    pub pairs: u16,
    /// Most entries of an I/O queue.
    pub entries: u16,
    /// Largest transfer: a power of two of pages, 0 for no limit.
    pub mdts: u8,
    /// Distance of doorbells: a power of two of 4 bytes.
    pub doorbell_stride: u8,
    /// CAP.TO, in units of 500 ms.
    pub timeout: u8,
    /// Version, as its register has it.
    pub version: u32,
    /// A volatile write cache.
    pub volatile_cache: bool,
    /// Dataset management and write-zeroes.
    pub optional_commands: bool,
    /// Aborts commands that it has not completed.
    pub aborts: bool,
    /// Smallest memory page in bytes as a power of two.
    pub page_min_shift: u8,
    /// Completes commands in an order of this seed's; without, in the order of their fetching.
    pub seed: Option<u64>,
}

impl Default for NvmeOptions {
    fn default() -> Self {
        NvmeOptions {
            namespaces: vec![NamespaceOptions::default()],
            pairs: 4,
            entries: 1024,
            mdts: 5,
            doorbell_stride: 0,
            timeout: 4,
            version: spec_nvme::register::version(1, 4),
            volatile_cache: true,
            optional_commands: true,
            aborts: true,
            page_min_shift: 12,
            seed: None,
        }
    }
}

/// How the controller departs from the rules, from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Takes I/O commands and answers none.
    Silent,
    /// Takes I/O and admin commands and answers none; a reset helps.
    Mute,
    /// As [`Misbehaviour::Mute`], and never becomes ready or not ready.
    Dead,
    /// Ends every I/O command with an error.
    Errors,
    /// Ends every I/O command with a status that does not exist.
    OddStatus,
    /// Completes I/O commands under an identifier that is not in flight.
    WrongId,
    /// Completes I/O commands with another queue's identifier.
    WrongQueue,
    /// Reports a submission queue head that does not exist.
    WrongHead,
    /// Writes completions of I/O commands with the phase tag of the round before.
    StalePhase,
    /// Completes every I/O command twice.
    Twice,
    /// Gives up with the next I/O command: CSTS.CFS.
    Fatal,
    /// Does not interrupt.
    NoInterrupts,
}

/// A namespace.
pub struct ModelNamespace {
    pub(crate) options: NamespaceOptions,
    /// Its medium.
    pub media: Media,
}

impl ModelNamespace {
    fn new(options: NamespaceOptions) -> ModelNamespace {
        let mut media = Media::new(options.block_bytes, options.blocks);
        if options.read_only {
            media.protect();
        }
        ModelNamespace { options, media }
    }
}

/// A command that was taken from a queue.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    queue: u16,
    command: Submission,
}

/// The controller's inside.
pub struct NvmeState {
    platform: Weak<SimPlatform>,
    memory: DeviceMemory,
    options: NvmeOptions,
    vectors: u16,
    random: Option<fastrand::Rng>,
    /// Namespaces by identifier.
    pub namespaces: BTreeMap<u32, ModelNamespace>,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
    /// I/O commands served: opcode and dword 12.
    pub served: Vec<(u8, u32)>,
    /// Doorbell writes to submission and completion queues of I/O.
    pub doorbells: [u64; 2],
    /// Orderly shutdowns.
    pub shutdowns: u32,
    gone: bool,
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    submissions: BTreeMap<u16, SubmissionQueue>,
    completions: BTreeMap<u16, CompletionQueue>,
    /// I/O queue pairs that Set Features granted.
    granted: Option<u16>,
    /// Commands that are not answered.
    held: Vec<Fetched>,
    /// Identifiers of event requests.
    listeners: VecDeque<u16>,
    /// Events that nobody asked for yet.
    events: VecDeque<u32>,
    /// Types of events that wait for their log page to be read.
    masked: BTreeSet<u8>,
    /// Events that are switched on.
    configured: u32,
    changed: BTreeSet<u32>,
    /// Vectors to be fired when the work is done.
    fire: BTreeSet<u16>,
}

/// The model. Plug it in as BAR 0.
pub struct NvmeModel {
    interrupts: Vec<Arc<SimInterrupt>>,
    memory: DeviceMemory,
    state: Mutex<NvmeState>,
}

impl NvmeModel {
    /// Bytes of the BAR.
    pub const BAR_BYTES: usize = 0x4000;

    /// A controller with an interrupt for each vector.
    pub fn new(options: NvmeOptions, memory: DeviceMemory, vectors: u16) -> Arc<NvmeModel> {
        let namespaces = options.namespaces.iter().cloned();
        let namespaces = (1..).zip(namespaces.map(ModelNamespace::new)).collect();
        Arc::new(NvmeModel {
            interrupts: (0..vectors).map(|_| Arc::default()).collect(),
            memory: memory.clone(),
            state: Mutex::new(NvmeState {
                platform: Weak::new(),
                memory,
                random: options.seed.map(fastrand::Rng::with_seed),
                options,
                vectors,
                namespaces,
                misbehaviour: Misbehaviour::None,
                served: Vec::new(),
                doorbells: [0; 2],
                shutdowns: 0,
                gone: false,
                cc: 0,
                csts: 0,
                aqa: 0,
                asq: 0,
                acq: 0,
                submissions: BTreeMap::new(),
                completions: BTreeMap::new(),
                granted: None,
                held: Vec::new(),
                listeners: VecDeque::new(),
                events: VecDeque::new(),
                masked: BTreeSet::new(),
                configured: 0,
                changed: BTreeSet::new(),
                fire: BTreeSet::new(),
            }),
        })
    }

    /// A platform with this controller in it.
    pub fn platform(self: &Arc<Self>, cpus: usize) -> Arc<SimPlatform> {
        let platform = SimPlatform::builder()
            .bar(0, self.clone(), Self::BAR_BYTES)
            .interrupts(self.interrupts.clone())
            .memory(self.memory.clone())
            .cpus(cpus)
            .build();
        self.state.lock().unwrap().platform = Arc::downgrade(&platform);
        let model = self.clone();
        platform.on_idle(move || model.run());
        platform
    }

    /// Looks at the inside, or changes it.
    pub fn with<R>(&self, look: impl FnOnce(&mut NvmeState) -> R) -> R {
        look(&mut self.state.lock().unwrap())
    }

    /// The controller is pulled out: registers read all ones and nothing more happens.
    pub fn remove(&self) {
        self.state.lock().unwrap().gone = true;
    }

    /// I/O submission queues that exist.
    pub fn io_queues(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.submissions.keys().filter(|id| **id != 0).count()
    }

    /// Whether the controller is quiet: neither enabled nor ready.
    pub fn is_disabled(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.cc & cc::EN == 0 && state.csts & csts::RDY == 0
    }

    /// How often a vector fired.
    pub fn fired(&self, vector: u16) -> u64 {
        let interrupt = self.interrupts.get(usize::from(vector));
        interrupt.map_or(0, |interrupt| interrupt.fired())
    }

    /// Lets the controller work until there is nothing to do.
    pub fn run(&self) {
        let fire = {
            let mut state = self.state.lock().unwrap();
            state.work();
            std::mem::take(&mut state.fire)
        };
        for vector in fire {
            if let Some(interrupt) = self.interrupts.get(usize::from(vector)) {
                interrupt.fire();
            }
        }
    }
}

impl NvmeState {
    fn violation(&self, text: String) {
        match self.platform.upgrade() {
            Some(platform) => platform.violation(text),
            None => panic!("{text}"),
        }
    }

    /// Adds a namespace, and tells who asked to be told.
    pub fn attach(&mut self, id: u32, options: NamespaceOptions) {
        self.namespaces.insert(id, ModelNamespace::new(options));
        self.namespace_changed(id);
    }

    /// Takes a namespace away.
    pub fn detach(&mut self, id: u32) {
        self.namespaces.remove(&id);
        self.namespace_changed(id);
    }

    /// Makes a namespace longer or shorter.
    pub fn resize(&mut self, id: u32, blocks: u64) {
        if let Some(namespace) = self.namespaces.get_mut(&id) {
            namespace.options.blocks = blocks;
            namespace.media.resize(blocks);
        }
        self.namespace_changed(id);
    }

    fn namespace_changed(&mut self, id: u32) {
        self.changed.insert(id);
        if self.configured & spec_nvme::event::CONFIGURE_NAMESPACES != 0 {
            let page = spec_nvme::event::log_page::CHANGED_NAMESPACES;
            let notice = spec_nvme::event::kind::NOTICE;
            self.event(notice, spec_nvme::event::NOTICE_NAMESPACES, page);
        }
    }

    /// Something happened (5.2): type, information, log page.
    pub fn event(&mut self, kind: u8, information: u8, page: u8) {
        let event = u32::from(page) << 16 | u32::from(information) << 8 | u32::from(kind);
        self.events.push_back(event);
    }

    /// Commands that are not answered.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn work(&mut self) {
        if self.gone {
            return;
        }
        self.follow_configuration();
        if self.cc & cc::EN == 0 || self.csts & csts::RDY == 0 || self.csts & csts::CFS != 0 {
            return;
        }
        let mut fetched = self.fetch();
        if let Some(random) = &mut self.random {
            random.shuffle(&mut fetched);
        }
        for fetched in fetched {
            self.serve(fetched);
        }
        self.tell_events();
    }

    /// What a change of CC asked for comes true some time after the write.
    fn follow_configuration(&mut self) {
        if self.misbehaviour == Misbehaviour::Dead {
            return;
        }
        let enabled = self.cc & cc::EN != 0;
        match (enabled, self.csts & csts::RDY != 0) {
            (true, false) => {
                self.start();
                self.csts |= csts::RDY;
            }
            (false, true) => {
                self.reset();
                self.csts = 0;
            }
            (false, false) => self.csts &= !csts::CFS,
            (true, true) => {}
        }
        let shutdown = self.cc & cc::SHN_MASK != 0;
        if enabled && shutdown && self.csts & csts::SHST_MASK == 0 {
            for namespace in self.namespaces.values_mut() {
                namespace.media.flush();
            }
            self.csts |= csts::SHST_COMPLETE;
            self.shutdowns += 1;
        }
    }

    /// Takes every command that doorbells have shown.
    fn fetch(&mut self) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        let mut problems = Vec::new();
        for (&queue, submissions) in &mut self.submissions {
            loop {
                match submissions.fetch(&self.memory) {
                    Ok(None) => break,
                    Ok(Some(command)) => fetched.push(Fetched { queue, command }),
                    Err(problem) => {
                        problems.push(format!("queue {queue}: {problem}"));
                        break;
                    }
                }
            }
        }
        problems.into_iter().for_each(|text| self.violation(text));
        fetched
    }

    fn serve(&mut self, fetched: Fetched) {
        let Fetched { queue, command } = fetched;
        self.check_reserved(queue, &command);
        let admin = queue == 0;
        let hold = match self.misbehaviour {
            Misbehaviour::Silent => !admin,
            Misbehaviour::Mute | Misbehaviour::Dead => true,
            _ => false,
        };
        if hold {
            self.held.push(fetched);
            return;
        }
        if admin {
            if let Some((status, result)) = self.admin(&command) {
                self.complete(queue, command.id, status, result);
            }
            return;
        }
        self.served.push((command.opcode, command.dwords[2]));
        let status = match self.misbehaviour {
            Misbehaviour::Fatal => {
                self.csts |= csts::CFS;
                return;
            }
            Misbehaviour::Errors => Status::INTERNAL_ERROR,
            Misbehaviour::OddStatus => Status(0x6ff),
            _ => self.io(&command),
        };
        self.complete(queue, command.id, status, 0);
        if self.misbehaviour == Misbehaviour::Twice {
            self.post(queue, command.id, status, 0);
        }
    }

    fn check_reserved(&self, queue: u16, command: &Submission) {
        let Submission {
            flags,
            reserved,
            metadata,
            opcode,
            ..
        } = *command;
        // Bits 5:2 are reserved; fused commands and SGLs are not offered.
        if flags != 0 || reserved != [0; 2] || metadata != 0 {
            self.violation(format!(
                "queue {queue}, opcode {opcode:#x}: flags {flags:#x}, reserved dwords {reserved:x?}, metadata {metadata:#x}"
            ));
        }
    }

    /// Ends a command that is outstanding.
    fn complete(&mut self, queue: u16, id: u16, status: Status, result: u32) {
        if let Some(submissions) = self.submissions.get_mut(&queue) {
            submissions.outstanding.remove(&id);
        }
        self.post(queue, id, status, result);
    }

    /// Writes a completion, whatever it says.
    fn post(&mut self, queue: u16, mut id: u16, status: Status, result: u32) {
        let Some(submissions) = self.submissions.get(&queue) else {
            return;
        };
        let (mut submission_head, mut submission_queue) = (submissions.head, queue);
        let target = submissions.completion_queue;
        let mut stale = 0;
        if queue != 0 {
            match self.misbehaviour {
                Misbehaviour::WrongId => {
                    id = (0..)
                        .find(|n| !submissions.outstanding.contains(n) && *n != id)
                        .unwrap_or(u16::MAX);
                }
                Misbehaviour::WrongQueue => submission_queue = queue + 1,
                Misbehaviour::WrongHead => submission_head = submissions.entries,
                Misbehaviour::StalePhase => stale = PHASE,
                _ => {}
            }
        }
        let Some(completions) = self.completions.get_mut(&target) else {
            return;
        };
        let entry = Completion {
            result,
            reserved: 0,
            submission_head,
            submission_queue,
            id,
            status: status.0 << 1 | (completions.phase ^ stale),
        };
        let posted = completions.post(&self.memory, entry);
        let vector = completions.vector;
        if let Err(problem) = posted {
            self.violation(format!("completion queue {target}: {problem}"));
        }
        if let Some(vector) = vector
            && self.misbehaviour != Misbehaviour::NoInterrupts
        {
            self.fire.insert(vector);
        }
    }
}
