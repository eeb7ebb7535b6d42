//! Commands of the NVM command set (6).

use model_media::{Durability, MediaError};
use spec_nvme::command::{self, Range, nvm};
use spec_nvme::entry::Submission;
use spec_nvme::status::Status;
use zerocopy::FromBytes;

use crate::NvmeState;
use crate::prp::{self, PAGE};

fn refused(error: MediaError) -> Status {
    match error {
        MediaError::OutOfRange { .. } => Status::LBA_OUT_OF_RANGE,
        MediaError::NotWholeBlocks { .. } => Status::INVALID_FIELD,
        MediaError::Unreadable { .. } => Status::UNRECOVERED_READ,
        MediaError::Unwritable { .. } => Status::WRITE_FAULT,
        MediaError::ReadOnly => Status::WRITE_PROTECTED,
    }
}

impl NvmeState {
    /// Serves a command.
    pub(crate) fn io(&mut self, command: &Submission) -> Status {
        let status = match self.try_io(command) {
            Ok(()) => Status::SUCCESS,
            Err(status) => status,
        };
        // A driver does not retry what failed.
        if status == Status::SUCCESS {
            status
        } else {
            Status(status.0 | Status::DO_NOT_RETRY)
        }
    }

    fn try_io(&mut self, command: &Submission) -> Result<(), Status> {
        let [low, high, dword12, dword13, ..] = command.dwords;
        let lba = u64::from(high) << 32 | u64::from(low);
        let blocks = u64::from(dword12 & 0xffff) + 1;
        let prps = (command.prp1, command.prp2);
        let opcode = command.opcode;
        if command.dwords[4..] != [0, 0] || dword13 != 0 {
            self.violation(format!("opcode {opcode:#x}: dwords {:x?}", command.dwords));
        }
        let optional = self.options.optional_commands;
        let volatile = self.options.volatile_cache;
        let limit = match self.options.mdts {
            0 => u64::MAX,
            shift => PAGE << shift,
        };
        let problem = |state: &NvmeState, text: String| {
            state.violation(format!("opcode {opcode:#x}: {text}"));
            Status::DATA_TRANSFER_ERROR
        };
        let memory = self.memory.clone();
        if opcode == nvm::FLUSH && command.namespace == spec_nvme::NSID_ALL {
            for namespace in self.namespaces.values_mut() {
                namespace.media.flush();
            }
            return Ok(());
        }
        let Some(namespace) = self.namespaces.get_mut(&command.namespace) else {
            return Err(Status::INVALID_NAMESPACE);
        };
        let media = &mut namespace.media;
        let len = blocks * media.block_bytes() as u64;
        let durability = if volatile && dword12 & command::FORCE_UNIT_ACCESS == 0 {
            Durability::Cached
        } else {
            Durability::Forced
        };
        if matches!(opcode, nvm::READ | nvm::WRITE) && len > limit {
            let text = format!("{len} bytes, MDTS allows {limit}");
            problem(self, text);
            return Err(Status::INVALID_FIELD);
        }
        match opcode {
            nvm::READ => {
                if dword12 & 0x3fff_0000 != 0 {
                    problem(self, format!("dword 12 {dword12:#x}"));
                    return Err(Status::INVALID_FIELD);
                }
                let bytes = media.read(lba, blocks).map_err(refused)?;
                prp::write(&memory, prps, &bytes).map_err(|text| problem(self, text))
            }
            nvm::WRITE => {
                if dword12 & 0x3fff_0000 != 0 {
                    problem(self, format!("dword 12 {dword12:#x}"));
                    return Err(Status::INVALID_FIELD);
                }
                let bytes = prp::read(&memory, prps, len as usize);
                match bytes {
                    Ok(bytes) => media.write(lba, &bytes, durability).map_err(refused),
                    Err(text) => Err(problem(self, text)),
                }
            }
            nvm::FLUSH => {
                media.flush();
                if command.dwords != [0; 6] || prps != (0, 0) {
                    problem(self, "arguments".into());
                }
                Ok(())
            }
            nvm::WRITE_ZEROES if optional => {
                if dword12 & 0x3dff_0000 != 0 || prps != (0, 0) {
                    problem(self, format!("dword 12 {dword12:#x}, data {prps:x?}"));
                    return Err(Status::INVALID_FIELD);
                }
                media.zero(lba, blocks, durability).map_err(refused)
            }
            nvm::DATASET_MANAGEMENT if optional => {
                let ranges = (low & 0xff) as usize + 1;
                let bytes = match prp::read(&memory, prps, ranges * size_of::<Range>()) {
                    Ok(bytes) => bytes,
                    Err(text) => return Err(problem(self, text)),
                };
                if high & command::ATTRIBUTE_DEALLOCATE == 0 || high & !7 != 0 || low >> 8 != 0 {
                    problem(self, format!("dwords {low:#x}, {high:#x}"));
                    return Err(Status::INVALID_FIELD);
                }
                for range in bytes.chunks(size_of::<Range>()) {
                    let range = Range::read_from_bytes(range).expect("16 bytes");
                    media
                        .zero(range.lba, range.blocks.into(), Durability::Cached)
                        .map_err(refused)?;
                }
                Ok(())
            }
            other => {
                problem(self, format!("opcode {other:#x} is not offered"));
                Err(Status::INVALID_OPCODE)
            }
        }
    }
}
