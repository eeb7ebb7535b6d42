//! What Identify answers with (5.15.2).

use spec_nvme::IDENTIFY_BYTES;
use spec_nvme::command::cns;
use spec_nvme::event::CONFIGURE_NAMESPACES;
use spec_nvme::identify::{controller, namespace};
use spec_nvme::status::Status;

use crate::{ModelNamespace, NvmeState};

/// The serial number.
pub(crate) const SERIAL: &str = "MODEL-0001";

fn put(page: &mut [u8], at: usize, field: &[u8]) {
    page[at..at + field.len()].copy_from_slice(field);
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, b' ');
    bytes
}

impl NvmeState {
    /// The page for a CNS.
    pub(crate) fn identify(&self, what: u32, id: u32) -> Result<Vec<u8>, Status> {
        let mut page = vec![0; IDENTIFY_BYTES];
        match what {
            cns::CONTROLLER => self.controller(&mut page),
            cns::NAMESPACE => {
                if id == 0 || id > self.highest() {
                    return Err(Status::INVALID_NAMESPACE);
                }
                // One that is not active is all zeroes.
                if let Some(found) = self.namespaces.get(&id) {
                    describe(found, &mut page);
                }
            }
            cns::ACTIVE_NAMESPACES
                if self.options.version >= spec_nvme::register::version(1, 1) =>
            {
                let active = self.namespaces.keys().filter(|n| **n > id).take(1024);
                for (index, id) in active.enumerate() {
                    put(&mut page, 4 * index, &id.to_le_bytes());
                }
            }
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(page)
    }

    fn highest(&self) -> u32 {
        self.namespaces.keys().max().copied().unwrap_or(0).max(16)
    }

    fn controller(&self, page: &mut [u8]) {
        let o = &self.options;
        put(
            page,
            controller::SERIAL,
            &padded(SERIAL, controller::SERIAL_BYTES),
        );
        put(
            page,
            controller::MODEL,
            &padded("Bulkhead model", controller::MODEL_BYTES),
        );
        put(page, controller::MDTS, &[o.mdts]);
        put(page, controller::OAES, &CONFIGURE_NAMESPACES.to_le_bytes());
        put(page, controller::AERL, &[0]);
        put(page, controller::SQES, &[0x66]);
        put(page, controller::CQES, &[0x44]);
        put(page, controller::NN, &self.highest().to_le_bytes());
        let optional = if o.optional_commands {
            controller::ONCS_DATASET_MANAGEMENT | controller::ONCS_WRITE_ZEROES
        } else {
            0
        };
        put(page, controller::ONCS, &optional.to_le_bytes());
        put(page, controller::VWC, &[o.volatile_cache.into()]);
    }
}

fn describe(found: &ModelNamespace, page: &mut [u8]) {
    let o = &found.options;
    for at in [0, 8, 16] {
        // Size, capacity, and what is in use.
        put(page, namespace::NSZE + at, &o.blocks.to_le_bytes());
    }
    // The format in use is the second of two.
    put(page, namespace::NLBAF, &[1]);
    put(page, namespace::FLBAS, &[1]);
    let format = o.block_bytes.trailing_zeros() << 16 | u32::from(o.metadata_bytes);
    put(page, namespace::LBAF, &(9u32 << 16).to_le_bytes());
    put(page, namespace::LBAF + 4, &format.to_le_bytes());
    let deallocated = namespace::DLFEAT_READ_ZEROES | namespace::DLFEAT_WRITE_ZEROES;
    put(page, namespace::DLFEAT, &[deallocated]);
    put(page, namespace::NSATTR, &[o.read_only.into()]);
}
