//! Faults from outside, for builds with the feature `faults`: not for production. The plan lies among the program's constants,
//! which are mapped straight from the boot archive, so that whoever writes the guest's memory can change it while
//! the driver runs (`cargo xtask campaign`).
//!
//! Beside the rules of `ddk-instrument` there are faults that only a process on this system can have: it takes all that its
//! quotas allow, sends rubbish to the device manager, or tries what it was not granted.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{Platform, Width};
use ddk_instrument::{Live, Plan, PlanReader, instrument};
use proto::bus::PciDeviceClient;
use proto::devmgr::DriverHostClient;
use rt::abi::ResourceKind;
use rt::{
    AsHandle, Channel, Event, HandleList, HandleType, MapAccess, Mapping, PinAccess, Resource,
    Rights, Vmo, startup,
};

use crate::entry::connection;
use crate::platform::OsPlatform;

/// Words of the plan: `sequence`, `kind`, `parameter`, `seed`.
const WORDS: usize = 8;

#[used]
#[unsafe(link_section = ".rodata.bulkhead.faults")]
#[unsafe(no_mangle)]
static BULKHEAD_FAULT_PLAN: [u64; WORDS] = [0; WORDS];

fn word(index: usize) -> u64 {
    let place = &raw const BULKHEAD_FAULT_PLAN[index];
    // SAFETY: `place` is an element of a static. It is changed from outside of the program, if at all, which a
    // volatile read allows for; any bits are a number.
    unsafe { place.read_volatile() }
}

/// The first kind of each group.
const EAT_MEMORY: u64 = Plan::SYSTEM;
const EAT_HANDLES: u64 = 101;
const RUBBISH: u64 = 110;
const GRANTS: u64 = 120;

/// Puts the faults between a driver and its platform.
pub(crate) fn wrap(platform: Arc<OsPlatform>) -> Arc<dyn Platform> {
    let device = platform.device().ok().map(PciDeviceClient::channel);
    let reader = Reader {
        devmgr: connection().map(DriverHostClient::into_channel),
        device: device.and_then(|channel| channel.duplicate().ok()),
        platform: platform.clone(),
    };
    instrument(platform, Live::new(reader))
}

struct Reader {
    platform: Arc<OsPlatform>,
    devmgr: Option<Channel>,
    device: Option<Channel>,
}

impl PlanReader for Reader {
    fn plan(&self) -> Plan {
        // The sequence is written last.
        Plan {
            sequence: word(0),
            kind: word(1),
            parameter: word(2),
            seed: word(3),
        }
    }

    fn injected(&self, plan: &Plan, text: &str) {
        rt::warn!("fault {}: {text}", plan.sequence);
    }

    fn system(&self, plan: &Plan) -> String {
        match plan.kind {
            EAT_MEMORY => eat_memory(),
            EAT_HANDLES => eat_handles(),
            RUBBISH => self.rubbish(plan),
            GRANTS => self.beyond_grants(plan),
            other => format!("unknown kind {other}"),
        }
    }
}

/// All pages that the quota allows, and they stay taken.
fn eat_memory() -> String {
    let mut pages = 0usize;
    let mut piece = 1024;
    while piece > 0 {
        let len = piece * ddk::PAGE;
        let taken = Vmo::create(len).and_then(|vmo| {
            vmo.commit(0, len)?;
            Ok(vmo)
        });
        match taken {
            Ok(vmo) => {
                core::mem::forget(vmo);
                pages += piece;
            }
            Err(_) => piece /= 2,
        }
    }
    format!("{pages} pages eaten")
}

fn eat_handles() -> String {
    let mut count = 0;
    while let Ok(event) = Event::create() {
        core::mem::forget(event);
        count += 1;
    }
    format!("{count} handles eaten")
}

/// What a sender of rubbish draws from.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // xorshift64*: all that is wanted are bytes that differ.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

impl Reader {
    /// Messages that no driver sends: of chance, cut short, without their handles, twice.
    fn rubbish(&self, plan: &Plan) -> String {
        let mut chance = Chance(plan.seed | 1);
        let mut sent = 0;
        for channel in [&self.devmgr, &self.device].into_iter().flatten() {
            for _ in 0..plan.parameter.clamp(1, 64) {
                let len = chance.next() % 200;
                let mut bytes = chance.bytes(len);
                // The number of a method that there is, so that its arguments are looked at.
                if let Some(first) = bytes.first_mut()
                    && chance.next().is_multiple_of(2)
                {
                    *first = (chance.next() % 6) as u8;
                }
                let mut handles = HandleList::new();
                if chance.next().is_multiple_of(4)
                    && let Ok(event) = Event::create()
                {
                    let _ = handles.push(event.into_handle());
                }
                sent += u64::from(channel.write(&bytes, &mut handles).is_ok());
            }
        }
        format!("{sent} messages of rubbish")
    }

    /// Tries what was not granted. Each attempt has to be refused.
    fn beyond_grants(&self, plan: &Plan) -> String {
        let attempts: [(&str, bool); 9] = [
            ("write the command register", self.writes_command()),
            ("write a BAR", self.moves_bar()),
            ("pin more than an object has", self.pins_beyond()),
            ("pin without the right to", self.pins_without_right()),
            (
                "let the device write what is read-only",
                self.pins_read_only(),
            ),
            ("let go of the quarantine", self.recovers()),
            ("derive from resources", derives_resource()),
            ("make device memory", makes_device_memory()),
            ("map the configuration of another", self.asks_for_another()),
        ];
        let _ = plan;
        let broken: Vec<&str> = attempts
            .iter()
            .filter(|(_, done)| *done)
            .map(|(what, _)| *what)
            .collect();
        if broken.is_empty() {
            format!("{} attempts beyond the grants, all refused", attempts.len())
        } else {
            format!("NOT REFUSED: {}", broken.join(", "))
        }
    }

    /// Bus mastering belongs to the bus driver (PCI Local Bus 3.0, 6.2.2).
    fn writes_command(&self) -> bool {
        self.platform.config_write(4, Width::U16, 7).is_ok()
    }

    fn moves_bar(&self) -> bool {
        self.platform
            .config_write(0x10, Width::U32, 0x10_0000)
            .is_ok()
    }

    fn pins_beyond(&self) -> bool {
        let (Some(domain), Ok(vmo)) = (self.platform.domain(), Vmo::create(ddk::PAGE)) else {
            return false;
        };
        let access = PinAccess::DeviceReadsAndWrites;
        let mut pages = [0; 2];
        let beyond = domain.pin(&vmo, 0, 2 * ddk::PAGE, access, &mut pages);
        let behind = domain.pin(&vmo, ddk::PAGE as u64, ddk::PAGE, access, &mut pages[..1]);
        let huge = domain.pin(&vmo, u64::MAX - 4095, ddk::PAGE, access, &mut pages[..1]);
        beyond.is_ok() || behind.is_ok() || huge.is_ok()
    }

    fn pins_without_right(&self) -> bool {
        let (Some(domain), Ok(vmo)) = (self.platform.domain(), Vmo::create(ddk::PAGE)) else {
            return false;
        };
        let Ok(weak) = vmo.duplicate_with(Rights::READ | Rights::WRITE | Rights::MAP) else {
            return false;
        };
        let access = PinAccess::DeviceReads;
        domain.pin(&weak, 0, ddk::PAGE, access, &mut [0]).is_ok()
    }

    fn pins_read_only(&self) -> bool {
        let (Some(domain), Ok(vmo)) = (self.platform.domain(), Vmo::create(ddk::PAGE)) else {
            return false;
        };
        let Ok(weak) = vmo.duplicate_with(Rights::READ | Rights::PIN) else {
            return false;
        };
        let write = domain.pin(&weak, 0, ddk::PAGE, PinAccess::DeviceWrites, &mut [0]);
        write.is_ok() || Mapping::map(&weak, 0, ddk::PAGE, MapAccess::Read).is_ok()
    }

    /// Only the device manager knows when the device is fenced.
    fn recovers(&self) -> bool {
        self.platform.domain().is_some_and(|d| d.recover().is_ok())
    }

    /// The bus answers for this device alone.
    fn asks_for_another(&self) -> bool {
        self.platform.config_read(0x2000, Width::U32).is_ok()
    }
}

/// Every resource that it has; it has none that reaches further.
fn derives_resource() -> bool {
    startup::handle_names().any(|name| {
        let Some(resource) = startup::handle::<Resource>(name) else {
            return false;
        };
        [
            (ResourceKind::Mmio, 0u64, 1u64 << 40),
            (ResourceKind::Irq, 0, 16),
            (ResourceKind::DmaDevice, 0, 1 << 16),
            (ResourceKind::System, 0, 1),
        ]
        .into_iter()
        .any(|(kind, base, len)| resource.derive(kind, base, len).is_ok())
    })
}

fn makes_device_memory() -> bool {
    startup::handle_names().any(|name| {
        startup::handle::<Resource>(name).is_some_and(|resource| {
            Vmo::physical(resource, 0xfee0_0000, ddk::PAGE, rt::CacheMode::Uncached).is_ok()
        })
    })
}
