//! Calls between processes.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use ipc::{CallError, Channel, Deadline, Handle, Refusal};
use rt::process::Child;
use rt::{Error, Event, HandleList, HandleType, Signals};
use serde::{Deserialize, Serialize};

use crate::child::{command, program};
use crate::{Check, Failure, at, ensure, ensure_eq};

/// What the calculator cannot do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CalculatorError {
    /// Division by zero.
    DivisionByZero,
}

ipc::protocol! {
    /// A service for tests.
    pub protocol Calculator("test.calculator", version = 1, error = CalculatorError) {
        /// A quotient.
        1 = divide(a: u64, b: u64) -> (quotient: u64);
        /// The same bytes and handles.
        2 = echo(bytes: Vec<u8>; handles: Vec<Handle>) -> (bytes: Vec<u8>; handles: Vec<Handle>);
        /// Never answered, but kept.
        3 = wait() -> ();
        /// Ends the server at once.
        4 = die();
        /// Dropped without an answer.
        5 = forget() -> ();
        /// Answers when the event is set.
        6 = when(number: u32; event: Event) -> (number: u32);
        /// Answers everything that was kept; how many of the callers had given up.
        7 = release() -> (too_late: u32);
    }
}

/// Serves until the client is gone; gives the exit code.
pub fn serve(server: CalculatorServer) -> i32 {
    let mut kept = Vec::new();
    loop {
        let request = match server.next(Deadline::FOREVER) {
            Ok(request) => request,
            Err(Error::PeerClosed) => return 0,
            Err(_) => return 1,
        };
        let _ = match request {
            CalculatorRequest::Divide { a, b, reply } => {
                reply.send(a.checked_div(b).ok_or(CalculatorError::DivisionByZero))
            }
            CalculatorRequest::Echo {
                bytes,
                handles,
                reply,
            } => reply.ok(bytes, handles),
            CalculatorRequest::Wait { reply } => {
                kept.push(reply);
                Ok(())
            }
            CalculatorRequest::Die {} => rt::exit(5),
            CalculatorRequest::Forget { .. } => Ok(()),
            CalculatorRequest::Release { reply } => {
                let results = kept.drain(..).map(CalculatorWaitReply::ok);
                let too_late = results
                    .filter(|result| *result == Err(Error::BadState))
                    .count();
                reply.ok(too_late as u32)
            }
            CalculatorRequest::When {
                number,
                event,
                reply,
            } => {
                let set = rt::AsHandle::wait_one(&event, Signals::SIGNALED, Deadline::NOW);
                reply.ok(if set.is_ok() { number } else { u32::MAX })
            }
        };
    }
}

/// A calculator in another process.
pub fn start() -> Result<(Channel, Child), Failure> {
    let (near, far) = Channel::create().map_err(at("channel"))?;
    // As init does before the server runs: a new epoch while it is called would tell of another server.
    far.set_epoch(77).map_err(at("epoch"))?;
    let program = program()?;
    let child = command(&program, "serve")
        .handle("serve", far)
        .spawn()
        .map_err(at("spawn"))?;
    Ok((near, child))
}

fn text(error: CallError<CalculatorError>) -> String {
    alloc::format!("{error:?}")
}

pub fn calls() -> Check {
    let (channel, child) = start()?;
    let client = CalculatorClient::new(channel);
    for n in 0..500u64 {
        ensure_eq!(client.divide(n * 3, 3u64).map_err(text)?, n);
    }
    let error = client.divide(1u64, 0u64).err();
    ensure_eq!(
        error,
        Some(CallError::Remote(CalculatorError::DivisionByZero))
    );
    ensure_eq!(
        client.forget().err(),
        Some(CallError::Refused(Refusal::Abandoned))
    );
    drop(client);
    ensure!(
        child
            .wait(Deadline::after_secs(60))
            .map_err(at("wait"))?
            .success()
    );
    Ok(())
}

pub fn deadline() -> Check {
    let (channel, child) = start()?;
    let client = CalculatorClient::new(channel).with_timeout(Duration::from_millis(30));
    ensure_eq!(
        client.wait().err(),
        Some(CallError::Transport(Error::TimedOut))
    );
    let client = client.with_timeout(Duration::from_secs(60));
    ensure_eq!(client.divide(8u64, 2u64).map_err(text)?, 4);
    // The late reply reaches nobody, and does not stay in the queue.
    ensure_eq!(client.release().map_err(text)?, 1);
    let mut buffer = [0; 64];
    let queued = client
        .channel()
        .read(&mut buffer, &mut HandleList::new(), Deadline::NOW);
    ensure_eq!(queued, Err(Error::ShouldWait));
    child.kill().map_err(at("kill"))?;
    child.wait(Deadline::after_secs(60)).map_err(at("wait"))?;
    Ok(())
}

pub fn death() -> Check {
    let (channel, child) = start()?;
    let client = CalculatorClient::new(channel);
    ensure_eq!(client.divide(8u64, 2u64).map_err(text)?, 4);
    client.die().map_err(text)?;
    ensure_eq!(
        client.wait().err(),
        Some(CallError::ServerDied { epoch: 77 })
    );
    ensure_eq!(
        client.wait().err(),
        Some(CallError::ServerDied { epoch: 77 })
    );
    let ended = child.wait(Deadline::after_secs(60)).map_err(at("wait"))?;
    ensure_eq!(ended.status(), 5);
    Ok(())
}

pub fn large() -> Check {
    let (channel, child) = start()?;
    let client = CalculatorClient::new(channel);
    let bytes: Vec<u8> = (0..60_000u32).map(|i| (i * 7) as u8).collect();
    let mut handles = Vec::new();
    for _ in 0..60 {
        handles.push(Event::create().map_err(at("event"))?.into_handle());
    }
    let (back, mut handles) = client.echo(&bytes, handles).map_err(text)?;
    ensure!(back == bytes);
    ensure_eq!(handles.len(), 60);
    let event: Event = handles.swap_remove(30).into_type();
    event.set().map_err(at("set"))?;
    ensure_eq!(client.when(9u32, event).map_err(text)?, 9);
    let too_long = alloc::vec![0u8; 70_000];
    let error = client.echo(&too_long, Vec::new()).err();
    ensure_eq!(error, Some(CallError::Codec(ipc::CodecError::TooLong)));
    drop(client);
    ensure!(
        child
            .wait(Deadline::after_secs(60))
            .map_err(at("wait"))?
            .success()
    );
    Ok(())
}
