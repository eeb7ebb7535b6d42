//! Driver for Intel's gigabit Ethernet controllers 82540EM and 82574L.
//!
//! One queue pair with a page of descriptors each way, checksums both ways, TCP segmentation, multicast filter, link
//! changes. The 82574 signals by MSI-X: one vector for the queues, moderated, one for the link. The 82540EM has an interrupt line only; it is
//! looked at every millisecond while it has buffers. Payload is never mapped. Receive queues by flow, VLAN tags and jumbo frames are not used.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod eeprom;
mod queue;
mod registers;

use alloc::vec;
use alloc::vec::Vec;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, Mmio, PlatformError, StopReason, Width,
    alive, info, warn,
};
use ddk_class_net::{
    DeviceCounters, Duplex, Link, MacAddress, NetDevice, NicInfo, Offloads, ReceiveMode,
    SegmentationSum,
};
use spec_e1000::{cause, ctrl, ctrl_ext, ivar, rctl, status, tctl};

use queue::{Found, Notification, Queue};
use registers::Registers;

ddk::driver! {
    driver: E1000,
    name: "e1000",
    class: NET,
    version: [0, 1, 0],
    matches: [
        pci_device(spec_e1000::PCI_VENDOR, spec_e1000::DEVICE_82540EM),
        pci_device(spec_e1000::PCI_VENDOR, spec_e1000::DEVICE_82574L),
    ],
    needs: [bar(0), msix(0, 2), dma(64)],
}

/// Bytes of BAR 0 that are registers.
const REGISTERS_BYTES: usize = 0x6000;
/// Time for a reset.
const RESET_LIMIT_MS: u32 = 1000;
/// Time after asking for a reset in which the device is left alone.
const RESET_SILENCE_MS: u32 = 1;
/// Time for requests to memory to end before a reset (82574 3.1.3.10).
const QUIET_LIMIT_MS: u32 = 100;
/// What the EEPROM takes to be loaded after a reset (SDM 14.6).
const RELOAD_MS: u32 = 10;
/// Shortest time between two interrupts of the queues, in 256 ns: 25 µs.
const MODERATION: u32 = 98;
/// Longest IP packet, and frame with a VLAN tag.
const MTU: u32 = 1500;
const FRAME_MAX: u32 = MTU + 18;
/// Longest frame to be segmented: an IP packet of 64 KiB and its Ethernet header.
const SEGMENTED_MAX: u32 = 65535 + 14;
/// How frames are sent: short ones padded, with the manual's numbers for half duplex (SDM 13.4.33).
const TCTL: u32 = tctl::PSP | tctl::CT | tctl::COLD;
/// Vector of the queues, and of everything else.
const VECTOR_QUEUES: u16 = 0;
const VECTOR_OTHER: u16 = 1;

/// Which kind of controller it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    /// On PCI.
    Pci8254x,
    /// On PCI Express.
    Pcie82574,
}

/// The registers behind BAR 0.
fn registers(mmio: &Mmio) -> Result<Registers, DriverError> {
    Registers::new(mmio.clone()).map_err(|error| DriverError::Protocol {
        what: "length of BAR 0",
        expected: REGISTERS_BYTES as u64,
        seen: error.region as u64,
    })
}

/// The driver of one device.
pub struct E1000 {
    cx: DeviceContext,
    mmio: Mmio,
    registers: Registers,
    family: Family,
    /// What was set, or found in the EEPROM.
    mac: MacAddress,
    mode: ReceiveMode,
    multicast: Vec<MacAddress>,
    link: Link,
    counters: DeviceCounters,
    /// Until the class layer takes it.
    queue: Option<Queue>,
    /// Changes of the link; `None` without messages.
    changes: Option<Irq>,
}

/// Resets the device, after which it uses no memory any more (SDM 14.5, 82574 3.1.3.10).
async fn reset(
    cx: &DeviceContext,
    registers: &Registers,
    family: Family,
) -> Result<(), DriverError> {
    alive("STATUS", registers.status().read())?;
    registers.imc().write(u32::MAX);
    registers.rctl().write(0);
    // The frame under way still goes out, and may have to be padded.
    registers.tctl().write(TCTL);
    if family == Family::Pcie82574 {
        let control = registers.ctrl().read();
        registers.ctrl().write(control | ctrl::GIO_MASTER_DISABLE);
        let quiet = || {
            let status = alive("STATUS", registers.status().read())?;
            Ok(status & status::GIO_MASTER_ENABLE == 0)
        };
        // One that does not get quiet is reset all the same: the reset ends what it does.
        match cx.poll_until("quiet", QUIET_LIMIT_MS, quiet).await {
            Ok(()) => {}
            Err(DriverError::TimedOut { .. }) => warn!(cx, "requests to memory do not end"),
            Err(error) => return Err(error),
        }
    }
    let control = registers.ctrl().read();
    registers.ctrl().write(control | ctrl::RST);
    // SDM 13.4.1: nothing may be accessed for a microsecond.
    cx.sleep_until(cx.deadline_in_ms(RESET_SILENCE_MS)).await;
    let done = || Ok(alive("CTRL", registers.ctrl().read())? & ctrl::RST == 0);
    cx.poll_until("reset of the controller", RESET_LIMIT_MS, done)
        .await?;
    cx.sleep_until(cx.deadline_in_ms(RELOAD_MS)).await;
    registers.imc().write(u32::MAX);
    Ok(())
}

/// Link, speed and duplex.
fn link(registers: &Registers) -> Result<Link, DriverError> {
    let seen = alive("STATUS", registers.status().read())?;
    if seen & status::LU == 0 {
        return Ok(Link::Down);
    }
    let speed_mbps = match seen >> status::SPEED_SHIFT & 3 {
        0 => 10,
        1 => 100,
        _ => 1000,
    };
    let duplex = if seen & status::FD != 0 {
        Duplex::Full
    } else {
        Duplex::Half
    };
    Ok(Link::Up { speed_mbps, duplex })
}

impl E1000 {
    /// Whether messages are used.
    fn has_messages(&self) -> bool {
        self.family == Family::Pcie82574 && self.cx.interrupt_count() > VECTOR_OTHER
    }

    /// Takes a device into service that was reset.
    fn bring_up(&mut self) -> Result<Queue, DriverError> {
        let registers = &self.registers;
        let control = registers.ctrl().read();
        let wanted = ctrl::SLU | ctrl::ASDE;
        registers
            .ctrl()
            .write((control | wanted) & !ctrl::GIO_MASTER_DISABLE);
        self.set_address();
        self.set_filter();
        let notification = if self.has_messages() {
            Notification::Message(self.cx.interrupt(VECTOR_QUEUES)?)
        } else {
            Notification::Polling(Found::default())
        };
        let queue = Queue::new(&self.cx, &self.mmio, notification)?;
        registers.rxcsum().write(spec_e1000::RXCSUM);
        registers.tipg().write(spec_e1000::TIPG);
        registers.txdctl().write(match self.family {
            Family::Pci8254x => spec_e1000::TXDCTL_8254X,
            Family::Pcie82574 => spec_e1000::TXDCTL_82574,
        });
        if self.has_messages() {
            self.set_up_messages();
        }
        registers.tctl().write(TCTL | tctl::EN);
        self.set_mode();
        self.link = link(registers)?;
        Ok(queue)
    }

    /// Leads the causes to their vectors (82574 7.4).
    fn set_up_messages(&self) {
        let registers = &self.registers;
        let queues = cause::RXQ0 | cause::TXQ0;
        let vector = |vector: u16, shift: u32| (u32::from(vector) | ivar::VALID) << shift;
        registers.ivar().write(
            vector(VECTOR_QUEUES, ivar::RXQ0_SHIFT)
                | vector(VECTOR_QUEUES, ivar::TXQ0_SHIFT)
                | vector(VECTOR_OTHER, ivar::OTHER_SHIFT),
        );
        registers.eiac().write(queues);
        registers.iam().write(queues);
        let control = registers.ctrl_ext().read();
        registers
            .ctrl_ext()
            .write(control | ctrl_ext::EIAME | ctrl_ext::PBA_CLR);
        registers.eitr0().write(MODERATION);
        registers.ims().write(cause::LSC | cause::OTHER);
    }

    fn set_address(&self) {
        let [a, b, c, d, e, f] = self.mac.0;
        self.registers
            .ral0()
            .write(u32::from_le_bytes([a, b, c, d]));
        let high = u32::from_le_bytes([e, f, 0, 0]);
        self.registers.rah0().write(high | spec_e1000::RAH_VALID);
    }

    fn set_filter(&self) {
        let mut table = [0u32; spec_e1000::MTA_WORDS];
        for group in &self.multicast {
            let (word, bit) = spec_e1000::multicast_hash(group.0);
            if let Some(word) = table.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        for (n, word) in table.iter().enumerate() {
            self.mmio.write::<u32>(spec_e1000::MTA + 4 * n, *word);
        }
    }

    fn set_mode(&self) {
        let mode = match self.mode {
            ReceiveMode::Filtered => 0,
            ReceiveMode::AllMulticast => rctl::MPE,
            ReceiveMode::Promiscuous => rctl::UPE | rctl::MPE,
        };
        let base = rctl::EN | rctl::BAM | rctl::BSIZE_2048 | rctl::SECRC;
        self.registers.rctl().write(base | mode);
    }
}

impl Driver for E1000 {
    async fn start(cx: DeviceContext) -> Result<E1000, DriverError> {
        cx.pci().enable()?;
        const DEVICE_ID: u16 = 2;
        let id = alive(
            "PCI device ID",
            cx.pci().config_read(DEVICE_ID, Width::U16)? as u16,
        )?;
        let family = match id {
            spec_e1000::DEVICE_82574L => Family::Pcie82574,
            _ => Family::Pci8254x,
        };
        let mmio = cx.pci().bar(0, 0, REGISTERS_BYTES)?;
        let registers = registers(&mmio)?;
        reset(&cx, &registers, family).await?;
        let mac = eeprom::mac(&cx, &registers, family).await?;
        let mut driver = E1000 {
            cx,
            mmio,
            registers,
            family,
            mac,
            mode: ReceiveMode::Filtered,
            multicast: Vec::new(),
            link: Link::Down,
            counters: DeviceCounters::default(),
            queue: None,
            changes: None,
        };
        driver.queue = Some(driver.bring_up()?);
        if driver.has_messages() {
            driver.changes = Some(driver.cx.interrupt(VECTOR_OTHER)?);
        }
        info!(
            driver.cx,
            "{} of Intel {id:04x}, {}, {}",
            driver.mac,
            link_text(driver.link),
            if driver.has_messages() {
                "MSI-X"
            } else {
                "polled"
            }
        );
        Ok(driver)
    }

    async fn stop(self, _: StopReason) {
        if let Err(error) = reset(&self.cx, &self.registers, self.family).await {
            warn!(self.cx, "while stopping: {error}");
        }
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}

fn link_text(link: Link) -> &'static str {
    if link.is_up() { "link up" } else { "link down" }
}

impl NetDevice for E1000 {
    type Queue = Queue;

    fn info(&self) -> NicInfo {
        // QEMU's 82540EM counts the IPv6 header into the length of the payload of each segment; Linux does not cut IPv6 there
        // either.
        let cuts_v6 = match self.family {
            Family::Pci8254x => Offloads::empty(),
            Family::Pcie82574 => Offloads::TX_TCP6,
        };
        NicInfo {
            mac: self.mac,
            mtu: MTU,
            frame_max: FRAME_MAX,
            segmented_max: SEGMENTED_MAX,
            rx_buffer_min: spec_e1000::BUFFER_BYTES,
            link: self.link,
            offloads: Offloads::TX_CHECKSUM | Offloads::TX_TCP4 | Offloads::RX_CHECKSUM | cuts_v6,
            receive_offloads: Offloads::RX_CHECKSUM,
            segmentation_sum: SegmentationSum::WithoutLength,
        }
    }

    fn take_queues(&mut self) -> Vec<Queue> {
        self.queue.take().into_iter().collect()
    }

    async fn reset(&mut self, old: Vec<Queue>) -> Result<Vec<Queue>, DriverError> {
        if let Err(error) = reset(&self.cx, &self.registers, self.family).await {
            // The device may still use the rings: their memory must never be given back from here.
            core::mem::forget(old);
            return Err(error);
        }
        drop(old);
        Ok(vec![self.bring_up()?])
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        match &mut self.changes {
            Some(irq) => irq.bind(events, key),
            None => Ok(()),
        }
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        if self.has_messages() {
            // Cleared before the look, so that what changes afterwards is told.
            self.registers.icr().write(cause::LSC | cause::OTHER);
            self.registers.ims().write(cause::LSC | cause::OTHER);
        }
        let link = link(&self.registers)?;
        if link != self.link {
            info!(self.cx, "{}", link_text(link));
            self.link = link;
        }
        Ok(())
    }

    async fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), DriverError> {
        self.mode = mode;
        self.multicast = multicast.to_vec();
        self.set_filter();
        self.set_mode();
        Ok(())
    }

    async fn set_mac(&mut self, mac: MacAddress) -> Result<(), DriverError> {
        self.mac = mac;
        self.set_address();
        Ok(())
    }

    async fn set_receive_offloads(&mut self, _: Offloads) -> Result<(), DriverError> {
        // Checksums are always looked at; there is nothing else.
        Ok(())
    }

    async fn set_active_queues(&mut self, _: u16) -> Result<(), DriverError> {
        Ok(())
    }

    fn counters(&mut self) -> DeviceCounters {
        let registers = &self.registers;
        let add = |sum: u64, n: u32| {
            // All ones: it is gone.
            if n == u32::MAX {
                sum
            } else {
                sum.wrapping_add(n.into())
            }
        };
        for errors in [
            registers.crcerrs().read_with_effect(),
            registers.rxerrc().read_with_effect(),
        ] {
            self.counters.rx_errors = add(self.counters.rx_errors, errors);
        }
        let missed = registers.mpc().read_with_effect();
        self.counters.rx_missed = add(self.counters.rx_missed, missed);
        self.counters
    }
}
