//! The pipe between program and stack: what goes in comes out, and a peer that lies is found out.

use net::pipe::{End, Handles, Pipe, PipeError};
use proptest::prelude::*;
use proto::inet::Memory;
use ring::{Consumer, Layout, Producer};
use sys::{AsHandle, MapAccess, Mapping, SharedMapping};

const SHAPE: Memory = Memory {
    capacity: 4096,
    descriptors: 4,
};

fn pair() -> (Pipe, Pipe) {
    let (stack, handles) = Pipe::create(SHAPE).unwrap();
    (stack, Pipe::open(handles).unwrap())
}

#[test]
fn both_directions_and_their_ends() {
    let (mut stack, mut program) = pair();
    assert_eq!(program.writer.write(b"hello").unwrap(), 5);
    assert_eq!(stack.reader.available().unwrap(), 0, "not flushed yet");
    assert!(program.writer.flush().unwrap());
    let mut buffer = [0; 16];
    assert_eq!(stack.reader.read(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");
    stack.reader.release().unwrap();
    assert_eq!(program.writer.room().unwrap(), 4096);
    program.writer.write(b"x").unwrap();
    program.writer.finish(End::Finished);
    assert!(program.writer.flush().unwrap());
    assert_eq!(program.writer.room().unwrap(), 0);
    assert_eq!(stack.reader.available().unwrap(), 1);
    assert_eq!(stack.reader.end(), None);
    stack.reader.read(&mut buffer).unwrap();
    assert_eq!(stack.reader.end(), Some(End::Finished));
    stack.writer.finish(End::Reset);
    stack.writer.flush().unwrap();
    program.reader.available().unwrap();
    assert_eq!(program.reader.end(), Some(End::Reset));
}

#[test]
fn impossible_shapes_are_refused() {
    for (capacity, descriptors) in [
        (0, 4),
        (4095, 4),
        (2048, 4),
        (1 << 21, 4),
        (4096, 3),
        (4096, 0),
    ] {
        let shape = Memory {
            capacity,
            descriptors,
        };
        assert!(Pipe::create(shape).is_err(), "{shape:?}");
    }
}

/// The program's rings with nothing between a test and them.
fn raw(
    handles: &Handles,
) -> (
    Producer<u64, SharedMapping>,
    Producer<u64, SharedMapping>,
    Consumer<u64, SharedMapping>,
) {
    let ring = Layout::of::<u64>(4).unwrap().size_bytes();
    let len = 2 * 4096 + 4 * ring;
    let mapping = Mapping::map(&handles.memory, 0, len, MapAccess::ReadWrite).unwrap();
    let mapping = SharedMapping::new(mapping);
    let at = |n: usize| 2 * 4096 + n * ring;
    (
        Producer::new(mapping.clone(), at(0), 4).unwrap(),
        Producer::new(mapping.clone(), at(3), 4).unwrap(),
        Consumer::new(mapping, at(2), 4).unwrap(),
    )
}

#[test]
fn a_peer_that_announces_too_much_is_found_out() {
    let (mut stack, handles) = Pipe::create(SHAPE).unwrap();
    let (mut filled, _, _) = raw(&handles);
    filled.push(&4097).unwrap();
    let _ = filled.publish();
    assert_eq!(stack.reader.available(), Err(PipeError::Corrupt));

    let (mut stack, handles) = Pipe::create(SHAPE).unwrap();
    let (mut filled, mut freed, _) = raw(&handles);
    filled.push(&(1 << 32)).unwrap();
    filled.push(&1).unwrap();
    let _ = filled.publish();
    assert_eq!(
        stack.reader.available(),
        Err(PipeError::Corrupt),
        "data after the end"
    );
    stack.writer.write(b"abc").unwrap();
    stack.writer.flush().unwrap();
    freed.push(&4).unwrap();
    let _ = freed.publish();
    assert_eq!(
        stack.writer.room(),
        Err(PipeError::Corrupt),
        "more freed than sent"
    );
}

#[test]
fn nobody_waits_for_what_is_there() {
    let (mut stack, mut program) = pair();
    assert!(!stack.arm().unwrap());
    program.writer.write(b"1").unwrap();
    program.writer.flush().unwrap();
    let rung = stack
        .doorbell
        .wait_one(sys::Signals::SIGNALED, sys::Deadline::NOW);
    assert!(rung.is_ok(), "the reader slept and was not woken");
    assert!(stack.arm().unwrap() || stack.reader.available().unwrap() == 1);
}

#[test]
fn news_are_news_once() {
    let (mut stack, mut program) = pair();
    stack.writer.write(b"abc").unwrap();
    stack.writer.flush().unwrap();
    let mut buffer = [0; 8];
    assert_eq!(program.reader.read(&mut buffer), Ok(3));
    program.reader.release().unwrap();
    program.writer.write(b"d").unwrap();
    program.writer.flush().unwrap();
    // Room that nobody wanted and bytes that nobody read are told, and then one may sleep.
    assert!(stack.arm().unwrap());
    assert!(!stack.arm().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_goes_in_comes_out(steps in proptest::collection::vec((any::<bool>(), 0usize..6000, any::<bool>()), 1..200)) {
        let (mut stack, mut program) = pair();
        let (mut sent, mut received) = (0u32, 0u32);
        let byte = |n: u32| (n.wrapping_mul(31) >> 3) as u8;
        for (write, len, settle) in steps {
            if write {
                let bytes: Vec<u8> = (0..len as u32).map(|i| byte(sent.wrapping_add(i))).collect();
                sent += program.writer.write(&bytes).unwrap() as u32;
                if settle {
                    program.writer.flush().unwrap();
                }
            } else {
                let mut buffer = vec![0; len];
                let n = stack.reader.read(&mut buffer).unwrap();
                for b in &buffer[..n] {
                    prop_assert_eq!(*b, byte(received));
                    received += 1;
                }
                if settle {
                    stack.reader.release().unwrap();
                }
            }
            prop_assert!(sent - received <= 4096);
        }
        // Whatever was left open, the rest gets through.
        while received < sent {
            program.writer.flush().unwrap();
            let mut buffer = [0; 100];
            let n = stack.reader.read(&mut buffer).unwrap();
            for b in &buffer[..n] {
                prop_assert_eq!(*b, byte(received));
                received += 1;
            }
            stack.reader.release().unwrap();
            program.writer.room().unwrap();
        }
    }
}
