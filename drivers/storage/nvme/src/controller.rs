//! The controller's registers and its states (NVMe 1.4, 3.1 and 7.6).
//!
//! ```text
//!             disable (7.3.2)
//!    +-----------------------------------+
//!    v                                   |
//! Disabled --enable (7.6.1, 4-6)--> Enabled --shut_down (7.6.2)--> Shut
//!    ^                                                              |
//!    +--------------------------------------------------------------+
//! ```
//!
//! `Disabled` means CC.EN and CSTS.RDY are both clear: the controller uses no host memory. A wait that fails
//! leaves the state `Unknown`, from which only [`Controller::disable`] leads on; memory that was given to the
//! controller stays its own until that succeeded.

use core::sync::atomic::{Ordering, fence};

use ddk::{DeviceContext, DriverError, Mmio, alive};
use spec_nvme::register::{Capabilities, Doorbell, cc, csts, doorbell, offset, version};

ddk::registers! {
    /// Controller registers (3.1).
    pub(crate) struct Registers: 0x38 {
        /// Capabilities.
        0x00 capabilities: u64, ReadPure, "3.1.1";
        /// Version.
        0x08 version: u32, ReadPure, "3.1.2";
        /// Configuration.
        0x14 configuration: u32, ReadWrite, reset 0, "3.1.5";
        /// Status.
        0x1c status: u32, ReadPure, "3.1.6";
        /// Admin queue attributes.
        0x24 admin_attributes: u32, ReadWrite, reset 0, "3.1.8";
        /// Address of the admin submission queue.
        0x28 admin_submission: u64, ReadWrite, "3.1.9";
        /// Address of the admin completion queue.
        0x30 admin_completion: u64, ReadWrite, "3.1.10";
    }
}

/// The BAR with the registers (2.1.10).
const BAR: u8 = 0;
/// A controller that says it takes no time at all is given this much, in milliseconds.
const READY_MIN_MS: u32 = 500;
/// How long a shutdown may take. The controller may need to write its whole cache.
const SHUTDOWN_LIMIT_MS: u32 = 30_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Whatever a predecessor or a failed wait left.
    Unknown,
    /// Quiet.
    Disabled,
    /// Takes commands.
    Enabled,
    /// Its caches are on the medium; takes no commands.
    Shut,
}

/// The registers, and what they said.
pub(crate) struct Controller {
    cx: DeviceContext,
    registers: Registers,
    doorbells: Mmio,
    capabilities: Capabilities,
    stride: usize,
    /// Queue pairs that have doorbells in the BAR, the admin queue's included.
    doorbell_pairs: u16,
    state: State,
}

impl Controller {
    /// Finds the registers and checks what the controller says it can.
    pub(crate) fn new(cx: &DeviceContext) -> Result<Controller, DriverError> {
        let outside = |_| DriverError::Unsupported {
            what: "all registers in BAR 0",
        };
        let registers = cx.pci().bar(BAR, 0, Registers::LEN)?;
        let registers = Registers::new(registers).map_err(outside)?;
        alive("VS", registers.version().read())?;
        let capabilities = Capabilities(alive("CAP", registers.capabilities().read())?);
        if !capabilities.nvm_command_set() {
            return Err(DriverError::Unsupported {
                what: "the NVM command set",
            });
        }
        if capabilities.page_min_shift() > PAGE_SHIFT {
            return Err(DriverError::Unsupported {
                what: "memory pages of 4096 bytes",
            });
        }
        let stride = capabilities.doorbell_stride();
        // Doorbells of the pairs that will be used at most; fewer when the window ends before.
        let (doorbells, doorbell_pairs) = (1..=DOORBELL_PAIRS_MAX)
            .rev()
            .find_map(|pairs| {
                let bytes = 2 * usize::from(pairs) * stride;
                let window = cx.pci().bar(BAR, offset::DOORBELLS as u64, bytes);
                window.ok().map(|window| (window, pairs))
            })
            .ok_or(DriverError::Unsupported {
                what: "doorbells in BAR 0",
            })?;
        Ok(Controller {
            cx: cx.clone(),
            registers,
            doorbells,
            capabilities,
            stride,
            doorbell_pairs,
            state: State::Unknown,
        })
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Most entries of an I/O queue.
    pub(crate) fn max_entries(&self) -> u32 {
        self.capabilities.max_entries()
    }

    /// Bytes of the smallest memory page, as a power of two: the unit of MDTS.
    pub(crate) fn page_min_shift(&self) -> u8 {
        self.capabilities.page_min_shift()
    }

    /// I/O queue pairs that have doorbells in the BAR.
    pub(crate) fn io_pairs(&self) -> u16 {
        self.doorbell_pairs - 1
    }

    /// Whether active namespaces can be listed (Identify with CNS 02h is of version 1.1).
    pub(crate) fn lists_namespaces(&self) -> bool {
        self.registers.version().read() >= version(1, 1)
    }

    /// The doorbells of a queue pair.
    pub(crate) fn doorbells(&self, queue: u16) -> Doorbells {
        let at = |end| doorbell(queue, end, self.stride);
        Doorbells {
            submission: at(Doorbell::SubmissionTail),
            completion: at(Doorbell::CompletionHead),
            mmio: self.doorbells.clone(),
        }
    }

    /// Whether the controller is still there and has not given up (9.5).
    pub(crate) fn check(&self) -> Result<(), DriverError> {
        let status = alive("CSTS", self.registers.status().read())?;
        if status & csts::CFS != 0 {
            return Err(fatal(status));
        }
        Ok(())
    }

    /// Resets the controller (7.3.2): afterwards it uses no host memory and has no queues.
    pub(crate) async fn disable(&mut self) -> Result<(), DriverError> {
        self.state = State::Unknown;
        let status = alive("CSTS", self.registers.status().read())?;
        let configuration = alive("CC", self.registers.configuration().read())?;
        if configuration & cc::EN != 0 {
            // 3.1.5: EN must not be cleared while the controller is becoming ready. One that is not going to
            // be is reset all the same.
            if status & (csts::RDY | csts::CFS) == 0 {
                let ready = self.wait(
                    "becoming ready",
                    csts::RDY,
                    csts::RDY,
                    self.ready_limit_ms(),
                );
                if let Err(gone @ DriverError::DeviceGone { .. }) = ready.await {
                    return Err(gone);
                }
            }
            // The other fields stay as they are until RDY is clear (3.1.5).
            let registers = self.registers.configuration();
            registers.write(configuration & !cc::EN);
        }
        let limit = self.ready_limit_ms();
        self.wait("becoming not ready", csts::RDY, 0, limit).await?;
        self.state = State::Disabled;
        Ok(())
    }

    /// Steps 4 to 6 of the initialisation (7.6.1): admin queues of `entries`, memory pages of 4096 bytes, the
    /// NVM command set, round robin.
    pub(crate) async fn enable(
        &mut self,
        attributes: u32,
        submission: u64,
        completion: u64,
    ) -> Result<(), DriverError> {
        if self.state != State::Disabled {
            return Err(DriverError::Unsupported {
                what: "being enabled before it was reset",
            });
        }
        self.registers.admin_attributes().write(attributes);
        self.registers.admin_submission().write(submission);
        self.registers.admin_completion().write(completion);
        self.state = State::Unknown;
        // The queues were zeroed before the controller may look at them.
        fence(Ordering::Release);
        let configuration = cc::EN | cc::page_shift(PAGE_SHIFT) | cc::NVM_ENTRY_SIZES;
        self.registers.configuration().write(configuration);
        let limit = self.ready_limit_ms();
        self.cx
            .poll_until("becoming ready", limit, || {
                let status = alive("CSTS", self.registers.status().read())?;
                if status & csts::CFS != 0 {
                    return Err(fatal(status));
                }
                Ok(status & csts::RDY != 0)
            })
            .await?;
        self.state = State::Enabled;
        Ok(())
    }

    /// Normal shutdown (7.6.2): what is in the caches goes to the medium. The I/O queues are deleted.
    pub(crate) async fn shut_down(&mut self) -> Result<(), DriverError> {
        self.state = State::Unknown;
        let configuration = alive("CC", self.registers.configuration().read())?;
        let configuration = configuration & !cc::SHN_MASK | cc::SHN_NORMAL;
        self.registers.configuration().write(configuration);
        self.wait(
            "shutting down",
            csts::SHST_MASK,
            csts::SHST_COMPLETE,
            SHUTDOWN_LIMIT_MS,
        )
        .await?;
        self.state = State::Shut;
        Ok(())
    }

    /// Longest time until RDY follows EN (3.1.1, TO).
    fn ready_limit_ms(&self) -> u32 {
        self.capabilities.timeout_ms().max(READY_MIN_MS)
    }

    async fn wait(
        &self,
        operation: &'static str,
        mask: u32,
        expected: u32,
        limit_ms: u32,
    ) -> Result<(), DriverError> {
        self.cx
            .poll_until(operation, limit_ms, || {
                let status = alive("CSTS", self.registers.status().read())?;
                Ok(status & mask == expected)
            })
            .await
    }
}

/// Memory pages that the driver uses, as a power of two: those of [`ddk::PAGE`].
const PAGE_SHIFT: u8 = ddk::PAGE.trailing_zeros() as u8;
/// Queue pairs that the driver uses at most: the admin queue and one for each of 64 CPUs.
const DOORBELL_PAIRS_MAX: u16 = 65;

fn fatal(status: u32) -> DriverError {
    DriverError::Protocol {
        what: "controller status without the fatal bit",
        expected: u64::from(status & !csts::CFS),
        seen: status.into(),
    }
}

/// The doorbells of one queue pair.
pub(crate) struct Doorbells {
    mmio: Mmio,
    submission: usize,
    completion: usize,
}

impl Doorbells {
    /// Shows the controller the commands up to `tail`.
    #[inline]
    pub(crate) fn submit(&self, tail: u16) {
        // Commands and PRP lists are written before the doorbell that shows them (4.1).
        fence(Ordering::Release);
        self.mmio.write::<u32>(self.submission, tail.into());
    }

    /// Gives the controller the completion entries before `head` back.
    #[inline]
    pub(crate) fn consumed(&self, head: u16) {
        // Entries are read before they are given back. A fence that orders reads before the write.
        fence(Ordering::Release);
        self.mmio.write::<u32>(self.completion, head.into());
    }
}
