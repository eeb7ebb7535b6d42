//! From memory to the wire (SDM 3.3 to 3.5).

use model_offload::{Cut, ETHERNET, Ip, Pseudo, TCP_CHECKSUM};
use spec_e1000::{DESCRIPTOR_BYTES, cause, tctl, tx};

use crate::{E1000Model, Misbehaviour, State};

/// Transmit descriptor written back, in ICR (SDM 13.4.17).
const CAUSE_TXDW: u32 = 1;
/// Shortest frame on a wire, and longest with a VLAN tag, without check sequences.
const FRAME_MIN: usize = 60;
const FRAME_MAX: usize = 1518;
/// Longest frame to be segmented: an IP packet of 64 KiB.
const SEGMENTED_MAX: usize = 65535 + ETHERNET;
/// Most bytes of a data descriptor (SDM 3.3.7; 82574 7.2.10).
const DATA_MAX: u32 = 16288;
/// Legacy descriptors: insert a checksum (SDM 3.3.3).
const COMMAND_IC: u8 = 1 << 2;

/// The frame that is being put together.
#[derive(Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    /// Command and options of its first data descriptor.
    first: Option<(u8, u8)>,
    /// Descriptors that are to be reported.
    reported: Vec<u16>,
    /// What the last context descriptor said; it holds for the frames that follow.
    context: Option<tx::Context>,
}

/// The fields of a context descriptor (SDM 3.3.6).
fn context(words: [u64; 2]) -> tx::Context {
    let [low, high] = words;
    tx::Context {
        ip_start: low as u8,
        ip_offset: (low >> 8) as u8,
        ip_end: (low >> 16) as u16,
        start: (low >> 32) as u8,
        offset: (low >> 40) as u8,
        command: (high >> 24) as u8,
        payload: (high & 0xf_ffff) as u32,
        header: (high >> 40) as u8,
        segment: (high >> 48) as u16,
    }
}

/// How a frame is to be cut, if its context and its length agree (SDM 3.5).
fn cut(context: &tx::Context, frame: &[u8]) -> Result<Cut, String> {
    let odd = |what: &str| Err(format!("{what}: {context:?} for {} bytes", frame.len()));
    let headers = usize::from(context.header);
    let (start, offset) = (usize::from(context.start), usize::from(context.offset));
    if context.command & tx::COMMAND_TSE == 0 || context.command & tx::CONTEXT_TCP == 0 {
        return odd("segmentation with another context");
    }
    if headers + context.payload as usize != frame.len() || frame.len() > SEGMENTED_MAX {
        return odd("PAYLEN and HDRLEN");
    }
    if usize::from(context.ip_start) != ETHERNET || offset != start + TCP_CHECKSUM {
        return odd("places of headers");
    }
    // The frame's own type it does not look at.
    let is_v4 = context.command & tx::CONTEXT_IPV4 != 0;
    if is_v4 && (context.ip_offset != 24 || usize::from(context.ip_end) + 1 != start) {
        return odd("places of the IPv4 header's checksum");
    }
    Ok(Cut {
        start,
        headers,
        size: context.segment.into(),
        ip: if is_v4 { Ip::V4 } else { Ip::V6 },
        pseudo: Pseudo::WithoutLength,
    })
}

/// What a frame becomes on the wire.
fn on_wire(
    mut frame: Vec<u8>,
    (command, options): (u8, u8),
    context: Option<&tx::Context>,
) -> Result<Vec<Vec<u8>>, String> {
    let none = || "a checksum or segments without a context descriptor".to_owned();
    if command & tx::COMMAND_TSE != 0 {
        let context = context.ok_or_else(none)?;
        let cut = cut(context, &frame)?;
        let wanted = match cut.ip {
            Ip::V4 => tx::OPTION_IXSM | tx::OPTION_TXSM,
            Ip::V6 => tx::OPTION_TXSM,
        };
        if options != wanted {
            return Err(format!("segmentation with the options {options:#x}"));
        }
        return model_offload::segments(&frame, &cut);
    }
    if options & tx::OPTION_TXSM != 0 {
        let context = context.ok_or_else(none)?;
        let (start, field) = (usize::from(context.start), usize::from(context.offset));
        if field < start || field + 2 > frame.len() {
            return Err(format!("{context:?} for {} bytes", frame.len()));
        }
        model_offload::insert(&mut frame, start, field - start);
    }
    if options & tx::OPTION_IXSM != 0 {
        let context = context.ok_or_else(none)?;
        let (start, field) = (
            usize::from(context.ip_start),
            usize::from(context.ip_offset),
        );
        let end = usize::from(context.ip_end) + 1;
        if field + 2 > end || end > frame.len() || start > field {
            return Err(format!("{context:?} for {} bytes", frame.len()));
        }
        let checksum = !model_offload::sum(&frame[start..end]);
        frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(vec![frame])
}

impl E1000Model {
    /// Takes up the next descriptors, if there are any. Without a link they wait.
    pub(crate) fn pump_transmit(&self, state: &mut State) {
        let ready = state.tctl & tctl::EN != 0
            && state.link
            && state.may_reach_memory()
            && state.tx.available() > 0;
        if ready && !std::mem::replace(&mut state.tx_busy, true) {
            let delay = self.timing.fetch_ns.clone();
            self.later(state.life, delay, |me, state| me.fetch(state));
        }
    }

    /// Reads descriptors up to the end of a frame, or of what there is.
    fn fetch(&self, state: &mut State) {
        while state.tx.available() > 0 {
            let index = state.tx.head;
            let mut bytes = [0; DESCRIPTOR_BYTES];
            if let Err(error) = self.sim.memory().read(state.tx.at(index), &mut bytes) {
                // It stays where it is: there is no sense in the rest.
                return self.violation(format!("transmit descriptor {index}: {error:?}"));
            }
            let word = |n: usize| {
                u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().expect("eight bytes"))
            };
            state.tx.head = state.tx.after(index);
            match self.take_in(state, index, [word(0), word(1)]) {
                Ok(false) => {}
                Ok(true) => {
                    let delay = self.timing.serve_ns.clone();
                    return self.later(state.life, delay, |me, state| me.send(state));
                }
                Err(text) => {
                    state.assembly.bytes.clear();
                    state.assembly.first = None;
                    self.violation(text);
                }
            }
        }
        state.tx_busy = false;
    }

    /// Takes a descriptor in; `true`: it is the last one of its frame.
    fn take_in(&self, state: &mut State, index: u16, words: [u64; 2]) -> Result<bool, String> {
        let [address, high] = words;
        let command = (high >> 24) as u8;
        let assembly = &mut state.assembly;
        if command & tx::COMMAND_RS != 0 {
            assembly.reported.push(index);
        }
        let kind = (high >> 20 & 0xf) as u8;
        let extended = command & tx::COMMAND_DEXT != 0;
        if extended && kind == 0 {
            if !assembly.bytes.is_empty() {
                return Err("a context descriptor inside of a frame".into());
            }
            assembly.context = Some(context(words));
            return Ok(false);
        }
        if extended && kind != 1 {
            return Err(format!("descriptor {index} of type {kind}"));
        }
        let (length, options) = match extended {
            true => ((high & 0xf_ffff) as u32, (high >> 40) as u8),
            false => ((high & 0xffff) as u32, 0),
        };
        if !extended && command & COMMAND_IC != 0 {
            return Err(
                "a legacy descriptor with a checksum, which the model does not know".into(),
            );
        }
        if high >> 32 & 0xff != 0 {
            return Err(format!("status of descriptor {index} is not 0"));
        }
        if length == 0 || length > DATA_MAX {
            return Err(format!("{length} bytes in descriptor {index}"));
        }
        let first = *assembly.first.get_or_insert((command, options));
        if first.0 & tx::COMMAND_TSE != command & tx::COMMAND_TSE {
            return Err("descriptors of a frame that do not agree on segmentation".into());
        }
        let start = assembly.bytes.len();
        assembly.bytes.resize(start + length as usize, 0);
        let read = self
            .sim
            .memory()
            .read(address, &mut assembly.bytes[start..]);
        read.map_err(|error| format!("frame at {address:#x}: {error:?}"))?;
        if command & tx::COMMAND_EOP == 0 {
            return Ok(false);
        }
        if command & tx::COMMAND_IFCS == 0 {
            return Err("a frame without its check sequence".into());
        }
        Ok(true)
    }

    /// The frame is on the wire.
    fn send(&self, state: &mut State) {
        let frame = std::mem::take(&mut state.assembly.bytes);
        let first = state.assembly.first.take().unwrap_or_default();
        match on_wire(frame, first, state.assembly.context.as_ref()) {
            Ok(frames) => {
                for mut frame in frames {
                    if frame.len() > FRAME_MAX || frame.len() < ETHERNET {
                        self.violation(format!("{} bytes on the wire", frame.len()));
                        continue;
                    }
                    if frame.len() < FRAME_MIN {
                        if state.tctl & tctl::PSP == 0 {
                            self.violation(format!("{} bytes, not padded", frame.len()));
                        }
                        frame.resize(FRAME_MIN, 0);
                    }
                    state.sent.push(frame);
                }
            }
            Err(text) => self.violation(text),
        }
        let delay = self.timing.publish_ns.clone();
        self.later(state.life, delay, |me, state| me.report(state));
    }

    /// Writes back the descriptors that are to be reported (SDM 3.3.3.2), and goes on.
    fn report(&self, state: &mut State) {
        let reported = std::mem::take(&mut state.assembly.reported);
        let answers = !matches!(state.misbehaviour, Misbehaviour::Stuck | Misbehaviour::Dead);
        if answers {
            for index in &reported {
                let place = state.tx.at(*index) + tx::STATUS as u64;
                if let Err(error) = self.sim.memory().write(place, &[tx::STATUS_DD]) {
                    self.violation(format!("transmit descriptor {index}: {error:?}"));
                }
            }
            if !reported.is_empty() {
                self.raise(state, CAUSE_TXDW | cause::TXQ0);
            }
        }
        state.tx_busy = false;
        self.pump_transmit(state);
    }
}
