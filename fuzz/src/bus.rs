//! The PCI bus driver over functions whose configuration space and tables are the fuzzer's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use pci_bus::config::{Clock, ConfigSpace, DeviceMemory, Width};
use pci_bus::{assign, enumerate, fence, filter, msi, msix};
use proto::bus::{Aperture, BarKind, Message, PciAddress};

use crate::input::Input;

/// Most accesses in one run: what needs more does not end.
const ACCESSES_MAX: u32 = 4_000_000;
const FUNCTIONS: u8 = 12;

struct Machine {
    functions: RefCell<BTreeMap<PciAddress, (Vec<u8>, u8)>>,
    input: RefCell<Input>,
    now_ns: Cell<u64>,
    accesses: Cell<u32>,
}

impl Machine {
    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
        assert!(
            self.accesses.get() < ACCESSES_MAX,
            "the bus driver does not end"
        );
    }
}

impl ConfigSpace for Machine {
    fn read(&self, address: PciAddress, offset: u16, width: Width) -> u32 {
        self.count();
        assert!(
            offset.is_multiple_of(width.bytes()),
            "misaligned access at {offset:#x}"
        );
        assert!(
            offset + width.bytes() <= self.size(),
            "access beyond the space"
        );
        let functions = self.functions.borrow();
        let Some((space, liar)) = functions.get(&address) else {
            return width.all_ones();
        };
        let mut input = self.input.borrow_mut();
        if *liar != 0 && !input.is_over() && input.byte() < *liar {
            return input.number(width.bytes().into()) as u32;
        }
        let at = usize::from(offset);
        let bytes =
            (0..usize::from(width.bytes())).map(|n| space.get(at + n).copied().unwrap_or(0));
        bytes
            .enumerate()
            .fold(0, |value, (n, byte)| value | u32::from(byte) << (8 * n))
    }

    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32) {
        self.count();
        assert!(
            offset.is_multiple_of(width.bytes()),
            "misaligned access at {offset:#x}"
        );
        assert!(
            offset + width.bytes() <= self.size(),
            "access beyond the space"
        );
        if let Some((space, _)) = self.functions.borrow_mut().get_mut(&address) {
            for (n, byte) in value
                .to_le_bytes()
                .iter()
                .take(width.bytes().into())
                .enumerate()
            {
                if let Some(place) = space.get_mut(usize::from(offset) + n) {
                    *place = *byte;
                }
            }
        }
    }

    fn size(&self) -> u16 {
        4096
    }

    fn buses(&self) -> (u8, u8) {
        (0, 255)
    }
}

impl DeviceMemory for Machine {
    fn read(&self, _: u64, width: Width) -> Option<u32> {
        self.count();
        let mut input = self.input.borrow_mut();
        (input.byte() < 0xf0).then(|| input.number(width.bytes().into()) as u32)
    }
    fn write(&self, _: u64, _: Width, _: u32) -> Option<()> {
        self.count();
        (self.input.borrow_mut().byte() < 0xf0).then_some(())
    }
}

impl Clock for Machine {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
    fn sleep_ms(&self, ms: u32) {
        self.count();
        self.now_ns.set(
            self.now_ns
                .get()
                .saturating_add(u64::from(ms.max(1)) * 1_000_000),
        );
    }
}

pub fn pci_bus(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut functions = BTreeMap::new();
    for _ in 0..input.byte() % FUNCTIONS {
        let place = input.number(2);
        let address = PciAddress {
            segment: 0,
            // Bus 0 and those that a bridge can lead to.
            bus: (place & 3) as u8,
            device: (place >> 2 & 0x1f) as u8,
            function: (place >> 7 & 7) as u8,
        };
        let liar = input.byte();
        let mut space = input.take(0x40);
        let capabilities = usize::from(input.byte() & 0x3f);
        space.extend(input.take(capabilities));
        space.resize(256, 0);
        let extended = usize::from(input.byte() & 0x1f);
        space.extend(input.take(extended));
        space.resize(4096, 0);
        // Present, unless the input insists.
        if space.starts_with(&[0xff, 0xff]) && liar & 1 == 0 {
            space[0] = 0x34;
        }
        functions.insert(address, (space, if liar >= 0x80 { liar & 0x7f } else { 0 }));
    }
    let machine = Machine {
        functions: RefCell::new(functions),
        input: RefCell::new(input),
        now_ns: Cell::new(0),
        accesses: Cell::new(0),
    };
    let apertures = [
        (BarKind::Io, 0x1000, 0xf000),
        (BarKind::Memory32, 0x8000_0000, 0x4000_0000),
    ];
    let apertures = apertures.map(|(kind, base, len)| Aperture { kind, base, len });
    let mut topology = enumerate::enumerate(&machine, 0, &[0x40]);
    assign::assign(&machine, &mut topology, &apertures);
    let messages = [Message {
        address: 0xfee0_0000,
        data: 0x40,
    }; 2];
    for function in &topology.functions {
        let info = &function.info;
        let _ = msix::program(&machine, &machine, info, &messages);
        let _ = msi::program(&machine, info, messages[0]);
        let _ = fence::bus_master_off(&machine, info.address);
        let _ = fence::reset(&machine, &machine, &machine, info, function.bridge);
        for offset in (0..4096).step_by(4) {
            let _ = filter::check_write(info, offset, 4, machine.size(), |_| 16);
        }
    }
}
