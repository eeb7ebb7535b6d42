//! The PCI transport (virtio 1.2, 4.1): finding the structures, the initialisation sequence, queues.

use ddk::{DeviceContext, DriverError, Mmio, RegionError, Width, Word, alive};
use spec_pci::capability::VENDOR;
use spec_virtio::pci::{NOTIFY_MULTIPLIER_OFFSET, StructureType};
use spec_virtio::{feature, status};

use crate::queue::{QueueOptions, Virtqueue};

ddk::registers! {
    /// Common configuration structure (virtio 1.2, 4.1.4.3).
    pub struct CommonConfig: 0x38 {
        /// Which 32 feature bits `device_feature` shows.
        0x00 device_feature_select: u32, ReadWrite, reset 0, "4.1.4.3";
        /// Features that the device offers.
        0x04 device_feature: u32, ReadPure, "4.1.4.3";
        /// Which 32 feature bits `driver_feature` shows.
        0x08 driver_feature_select: u32, ReadWrite, reset 0, "4.1.4.3";
        /// Features that the driver accepts.
        0x0c driver_feature: u32, ReadWrite, reset 0, "4.1.4.3";
        /// MSI-X vector for configuration changes.
        0x10 config_msix_vector: u16, ReadWrite, reset 0xffff, "4.1.5.1.2";
        /// Most queues.
        0x12 num_queues: u16, ReadPure, "4.1.4.3";
        /// Device status; writing 0 resets.
        0x14 device_status: u8, ReadWrite, reset 0, "2.1";
        /// Changes with the device's configuration.
        0x15 config_generation: u8, ReadPure, "4.1.4.3.1";
        /// Which queue the registers below speak of.
        0x16 queue_select: u16, ReadWrite, reset 0, "4.1.4.3";
        /// Entries of the queue; 0: not available.
        0x18 queue_size: u16, ReadWrite, "4.1.4.3";
        /// MSI-X vector of the queue.
        0x1a queue_msix_vector: u16, ReadWrite, reset 0xffff, "4.1.5.1.2";
        /// 1: the queue is in use.
        0x1c queue_enable: u16, ReadWrite, reset 0, "4.1.4.3";
        /// Where the queue's notification register is, in units of the multiplier.
        0x1e queue_notify_off: u16, ReadPure, "4.1.4.4";
        /// Device address of the descriptor table, low half (64-bit fields are accessed by halves, 4.1.3.1).
        0x20 queue_desc_low: u32, ReadWrite, "4.1.4.3";
        /// High half.
        0x24 queue_desc_high: u32, ReadWrite, "4.1.4.3";
        /// Device address of the available ring, low half.
        0x28 queue_driver_low: u32, ReadWrite, "4.1.4.3";
        /// High half.
        0x2c queue_driver_high: u32, ReadWrite, "4.1.4.3";
        /// Device address of the used ring, low half.
        0x30 queue_device_low: u32, ReadWrite, "4.1.4.3";
        /// High half.
        0x34 queue_device_high: u32, ReadWrite, "4.1.4.3";
    }
}

/// How long a device may take to be reset.
const RESET_LIMIT_MS: u32 = 2000;
/// How often a configuration that keeps changing is read again.
const CONFIG_TRIES: u32 = 64;

/// A virtio device on the PCI bus.
#[derive(Debug)]
pub struct Transport {
    cx: DeviceContext,
    common: CommonConfig,
    notify: Mmio,
    notify_multiplier: u32,
    config: Option<Mmio>,
}

impl Transport {
    /// Finds the device's structures (4.1.4). Of several of a kind the first that can be used counts.
    ///
    /// # Errors
    /// When a structure is missing or lies outside of what was granted.
    pub fn new(cx: &DeviceContext) -> Result<Transport, DriverError> {
        let pci = cx.pci();
        let (mut common, mut notify, mut config) = (None, None, None);
        for at in pci.capabilities(VENDOR)? {
            let read = |offset: u16| pci.config_read(at.saturating_add(offset), Width::U32);
            let head = read(0)?;
            let (len, structure) = (head >> 16 & 0xff, StructureType((head >> 24) as u8));
            let bar = (read(4)? & 0xff) as u8;
            // 4.1.4.1: capabilities with reserved values are ignored.
            if bar > 5 || len < u32::from(NOTIFY_MULTIPLIER_OFFSET) {
                continue;
            }
            let wanted = match structure {
                StructureType::COMMON => common.is_none(),
                StructureType::NOTIFY => notify.is_none() && len >= 20,
                StructureType::DEVICE => config.is_none(),
                // Message-signalled interrupts need no ISR; BAR access needs no window (4.1.4.8).
                _ => false,
            };
            if !wanted {
                continue;
            }
            let (offset, length) = (read(8)?, read(12)?);
            // 4.1.4.3, 4.1.4.4, 4.1.4.6: aligned to 4 bytes, or 2 for notifications.
            aligned("offset of a virtio structure", offset.into(), 4)?;
            let window = pci.bar(bar, offset.into(), length as usize)?;
            match structure {
                StructureType::COMMON => common = Some(window),
                StructureType::NOTIFY => {
                    notify = Some((window, read(NOTIFY_MULTIPLIER_OFFSET)?));
                }
                _ => config = Some(window),
            }
        }
        let missing = |what| DriverError::Unsupported { what };
        let common = common.ok_or(missing("virtio 1.x common configuration"))?;
        let (notify, notify_multiplier) = notify.ok_or(missing("virtio 1.x notifications"))?;
        let common = CommonConfig::new(common).map_err(too_short("common configuration"))?;
        Ok(Transport {
            cx: cx.clone(),
            common,
            notify,
            notify_multiplier,
            config,
        })
    }

    /// The common configuration structure.
    pub fn common(&self) -> &CommonConfig {
        &self.common
    }

    /// Status of the device.
    ///
    /// # Errors
    /// [`DriverError::DeviceGone`].
    pub fn status(&self) -> Result<u8, DriverError> {
        alive("virtio device status", self.common.device_status().read())
    }

    /// Resets the device and waits until it has (4.1.4.3.1, 2.4). Afterwards it uses no memory any more.
    ///
    /// # Errors
    /// When it does not within two seconds, or is gone.
    pub async fn reset(&self) -> Result<(), DriverError> {
        self.common.device_status().write(0);
        let done = || Ok(self.status()? == 0);
        self.cx
            .poll_until("reset of the virtio device", RESET_LIMIT_MS, done)
            .await
    }

    /// Steps 1 to 6 of the initialisation (3.1.1): reset, acknowledge, agree on features. Returns what both
    /// sides have of `wanted`; `VERSION_1` is always required.
    ///
    /// # Errors
    /// When the device offers no `VERSION_1` or `needed`, or refuses the agreement.
    pub async fn negotiate(&self, wanted: u64, needed: u64) -> Result<u64, DriverError> {
        self.negotiate_of(|_| wanted, needed).await
    }

    /// The same where what is wanted depends on what the device offers.
    ///
    /// # Errors
    /// As [`Transport::negotiate`].
    pub async fn negotiate_of(
        &self,
        wanted: impl FnOnce(u64) -> u64,
        needed: u64,
    ) -> Result<u64, DriverError> {
        self.reset().await?;
        self.add_status(status::ACKNOWLEDGE)?;
        self.add_status(status::DRIVER)?;
        let offered = u64::from(self.device_features(0)) | u64::from(self.device_features(1)) << 32;
        let needed = needed | feature::VERSION_1;
        if offered & needed != needed {
            self.give_up();
            let what = "virtio features that are needed";
            return Err(DriverError::Protocol {
                what,
                expected: needed,
                seen: offered,
            });
        }
        // ACCESS_PLATFORM is accepted where it is offered: device addresses are the domain's anyway.
        let wanted = wanted(offered) | needed | feature::ACCESS_PLATFORM;
        let accepted = offered & wanted;
        for half in 0..2 {
            self.common.driver_feature_select().write(half);
            self.common
                .driver_feature()
                .write((accepted >> (32 * half)) as u32);
        }
        self.add_status(status::FEATURES_OK)?;
        if self.status()? & status::FEATURES_OK == 0 {
            self.give_up();
            return Err(DriverError::Unsupported {
                what: "the features that it offered",
            });
        }
        Ok(accepted)
    }

    fn device_features(&self, half: u32) -> u32 {
        self.common.device_feature_select().write(half);
        self.common.device_feature().read()
    }

    /// Step 8: the device may go to work.
    ///
    /// # Errors
    /// [`DriverError::DeviceGone`].
    pub fn driver_ok(&self) -> Result<(), DriverError> {
        self.add_status(status::DRIVER_OK)
    }

    /// Tells the device that the driver has given up.
    pub fn give_up(&self) {
        let now = self.common.device_status().read();
        self.common.device_status().write(now | status::FAILED);
    }

    fn add_status(&self, bit: u8) -> Result<(), DriverError> {
        let now = self.status()?;
        self.common.device_status().write(now | bit);
        Ok(())
    }

    /// Most queues that the device has.
    ///
    /// # Errors
    /// [`DriverError::DeviceGone`].
    pub fn queue_count(&self) -> Result<u16, DriverError> {
        alive("virtio num_queues", self.common.num_queues().read())
    }

    /// Bits of the status that say how the device is (2.1): that it wants a reset is an error.
    ///
    /// # Errors
    /// [`DriverError::Protocol`] when it does, or [`DriverError::DeviceGone`].
    pub fn check_status(&self) -> Result<(), DriverError> {
        if self.status()? & status::DEVICE_NEEDS_RESET == 0 {
            return Ok(());
        }
        Err(DriverError::Protocol {
            what: "device status without DEVICE_NEEDS_RESET",
            expected: 0,
            seen: status::DEVICE_NEEDS_RESET.into(),
        })
    }

    /// Chooses the MSI-X vector for configuration changes.
    ///
    /// # Errors
    /// When the device refuses it (4.1.5.1.2.2).
    pub fn set_config_vector(&self, vector: u16) -> Result<(), DriverError> {
        self.common.config_msix_vector().write(vector);
        check_vector(vector, self.common.config_msix_vector().read())
    }

    /// Sets a queue up (4.1.5.1.3) with as many entries as the device offers, up to 256, `vector` for its
    /// interrupts ([`NO_VECTOR`](spec_virtio::pci::NO_VECTOR) for none), and chains of up to `chain` descriptors if it can be had ([`QueueOptions::chain`]).
    ///
    /// # Errors
    /// When there is no such queue, its notification register is outside of the structure, the vector is
    /// refused, or there is no memory.
    pub fn queue(
        &self,
        index: u16,
        features: u64,
        vector: u16,
        chain: u16,
    ) -> Result<Virtqueue, DriverError> {
        self.common.queue_select().write(index);
        let size = alive("virtio queue_size", self.common.queue_size().read())?;
        let offset = alive(
            "virtio queue_notify_off",
            self.common.queue_notify_off().read(),
        )?;
        let offset = u64::from(offset) * u64::from(self.notify_multiplier);
        // 4.1.4.4: the multiplier is an even power of two, or zero.
        aligned("offset of a notification register", offset, 2)?;
        let notify = usize::try_from(offset).unwrap_or(usize::MAX);
        let notify = self
            .notify
            .window(notify, 2)
            .map_err(too_short("notification structure"))?;
        let options = QueueOptions {
            size,
            features,
            chain,
        };
        let queue = Virtqueue::new(&self.cx, index, options, notify)?;
        self.common.queue_size().write(queue.size());
        self.common.queue_msix_vector().write(vector);
        check_vector(vector, self.common.queue_msix_vector().read())?;
        let [desc, driver, device] = queue.addresses();
        self.common.queue_desc_low().write(desc as u32);
        self.common.queue_desc_high().write((desc >> 32) as u32);
        self.common.queue_driver_low().write(driver as u32);
        self.common.queue_driver_high().write((driver >> 32) as u32);
        self.common.queue_device_low().write(device as u32);
        self.common.queue_device_high().write((device >> 32) as u32);
        self.common.queue_enable().write(1);
        Ok(queue)
    }

    /// Bytes of the device-specific configuration.
    pub fn config_len(&self) -> usize {
        self.config.as_ref().map_or(0, Mmio::len)
    }

    /// Reads the device-specific configuration; a field that the structure is too short for reads as zero.
    /// `read` is called again when the configuration changed meanwhile (2.5.1).
    ///
    /// # Errors
    /// When it keeps changing, or the device is gone.
    pub fn read_config<R>(&self, mut read: impl FnMut(&Config<'_>) -> R) -> Result<R, DriverError> {
        let generation = || self.common.config_generation().read();
        let mut before = generation();
        for _ in 0..CONFIG_TRIES {
            let result = read(&Config(self.config.as_ref()));
            let after = generation();
            if before == after {
                self.status()?;
                return Ok(result);
            }
            before = after;
        }
        let what = "virtio configuration generation that stays";
        Err(DriverError::Protocol {
            what,
            expected: 0,
            seen: before.into(),
        })
    }

    /// Writes a field of the device-specific configuration, if it is there.
    pub fn write_config<T: Word>(&self, offset: usize, value: T) {
        if let Some(config) = &self.config
            && config.window(offset, size_of::<T>()).is_ok()
        {
            config.write(offset, value);
        }
    }
}

/// The device-specific configuration while it is being read.
#[derive(Debug)]
pub struct Config<'a>(Option<&'a Mmio>);

impl Config<'_> {
    /// A field; zero if the structure ends before it.
    pub fn read<T: Word>(&self, offset: usize) -> T {
        match self.0 {
            Some(config) if config.window(offset, size_of::<T>()).is_ok() => config.read(offset),
            _ => T::truncate(0),
        }
    }

    /// A 64-bit field, read by halves (4.1.3.1).
    pub fn read_long(&self, offset: usize) -> u64 {
        u64::from(self.read::<u32>(offset)) | u64::from(self.read::<u32>(offset + 4)) << 32
    }
}

/// Refuses an offset that the device placed where it cannot be accessed.
fn aligned(what: &'static str, offset: u64, alignment: u64) -> Result<(), DriverError> {
    if offset.is_multiple_of(alignment) {
        return Ok(());
    }
    Err(DriverError::Protocol {
        what,
        expected: alignment,
        seen: offset,
    })
}

fn check_vector(asked: u16, seen: u16) -> Result<(), DriverError> {
    if seen == asked {
        return Ok(());
    }
    let what = "MSI-X vector";
    Err(DriverError::Protocol {
        what,
        expected: asked.into(),
        seen: seen.into(),
    })
}

fn too_short(what: &'static str) -> impl Fn(RegionError) -> DriverError {
    move |error| DriverError::Protocol {
        what,
        expected: error.offset.saturating_add(error.len) as u64,
        seen: error.region as u64,
    }
}
