//! Frames: what is sent arrives, whatever stands around it and however it is cut.

use control_link::{
    BODY_BYTES_MAX, COMMAND_BYTES_MAX, DATA_BYTES_MAX, Decoder, EncodeError, Ending,
    FRAME_BYTES_MAX, FrameError, FromSystem, Input, OutputStream, ToSystem, encode,
};
use proptest::prelude::*;

fn decode_all(bytes: &[u8], step: usize) -> Vec<Result<ToSystem, FrameError>> {
    let mut decoder = Decoder::new();
    let mut all = Vec::new();
    for part in bytes.chunks(step.max(1)) {
        decoder.push(part, |message| all.push(message));
    }
    all
}

fn message() -> impl Strategy<Value = ToSystem> {
    prop_oneof![
        Just(ToSystem::Hello),
        (any::<u32>(), ".{0,40}", any::<u32>()).prop_map(|(id, command, credit)| {
            ToSystem::Execute {
                id,
                command,
                input: Input::Stream,
                credit,
            }
        }),
        (
            any::<u32>(),
            any::<u64>(),
            proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..600)
        )
            .prop_map(|(id, offset, bytes)| ToSystem::Data { id, offset, bytes }),
        any::<u32>().prop_map(|id| ToSystem::Cancel { id }),
    ]
}

proptest! {
    #[test]
    fn messages_arrive_however_they_are_cut(
        messages in proptest::collection::vec(message(), 0..8),
        step in 1usize..700,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.extend(encode(message).unwrap());
        }
        let expected: Vec<_> = messages.into_iter().map(Ok).collect();
        prop_assert_eq!(decode_all(&bytes, step), expected);
    }

    #[test]
    fn a_frame_after_garbage_is_found(
        garbage in proptest::collection::vec(any::<u8>(), 0..400),
        message in message(),
        step in 1usize..100,
    ) {
        let mut bytes = garbage;
        bytes.extend(encode(&message).unwrap());
        let all = decode_all(&bytes, step);
        prop_assert_eq!(all.last(), Some(&Ok(message)));
    }

    #[test]
    fn a_damaged_frame_is_no_message(message in message(), at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = encode(&message).unwrap();
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        for found in decode_all(&bytes, 64).into_iter().flatten() {
            // Damage to the zero in front leaves the frame without its start, damage inside without its
            // contents: nothing is left to be taken for a message.
            prop_assert_eq!(found, message.clone());
            prop_assert!(place == 0);
        }
    }

    #[test]
    fn any_bytes_are_safe(bytes: Vec<u8>, step in 1usize..50) {
        decode_all(&bytes, step);
    }
}

#[test]
fn the_largest_message_fits_and_a_larger_one_is_refused() {
    let largest = ToSystem::Data {
        id: u32::MAX,
        offset: u64::MAX,
        bytes: vec![0xff; DATA_BYTES_MAX],
    };
    assert!(encode(&largest).unwrap().len() <= FRAME_BYTES_MAX);
    let command = ToSystem::Execute {
        id: 1,
        command: "x".repeat(COMMAND_BYTES_MAX),
        input: Input::Empty,
        credit: 0,
    };
    assert!(encode(&command).is_ok());
    let too_long = ToSystem::Data {
        id: 1,
        offset: 0,
        bytes: vec![1; BODY_BYTES_MAX],
    };
    assert!(matches!(
        encode(&too_long),
        Err(EncodeError::TooLong { bytes }) if bytes > BODY_BYTES_MAX
    ));
}

#[test]
fn endless_garbage_takes_no_memory_and_is_told_once() {
    let mut decoder = Decoder::new();
    let mut told = Vec::new();
    for _ in 0..64 {
        decoder.push::<ToSystem>(&[0x55; 64 * 1024], |message| told.push(message));
    }
    assert!(told.is_empty());
    decoder.push(&encode(&ToSystem::Hello).unwrap(), |message| {
        told.push(message);
    });
    assert_eq!(told, [Err(FrameError::TooLong), Ok(ToSystem::Hello)]);
}

#[test]
fn answers_are_renumbered() {
    let mut message = FromSystem::Output {
        id: 7,
        stream: OutputStream::Errors,
        bytes: Vec::new(),
    };
    *message.id_mut().unwrap() = 9;
    assert_eq!(message.id_mut(), Some(&mut 9));
    let mut ended = FromSystem::Ended {
        id: 3,
        ending: Ending::Cancelled,
    };
    assert_eq!(ended.id_mut(), Some(&mut 3));
    assert_eq!(FromSystem::Damaged { frames: 1 }.id_mut(), None);
}
