//! The macro's output, over the host's stand-in for the kernel: a client and a server thread, and
//! hostile peers.
#![allow(missing_docs, reason = "a test")]

use std::thread;

use ipc::{CallError, Channel, Deadline, Error, Handle, HandleList, Refusal, ServerEnd};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use sys::{AsHandle, Event, HandleType, Signals, Txid};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsError {
    NotFound,
    Other(String),
}

ipc::protocol! {
    /// Files.
    pub protocol Files("test.files", version = 3, error = FsError) {
        /// Opens.
        1 = open(path: String, flags: u32) -> (size: u64; file: ipc::Channel);
        /// Handles only.
        2 = attach(name: String; disk: ipc::Channel, log: Option<ipc::Event>, more: Vec<ipc::Handle>) -> (count: u32);
        /// No reply.
        3 = hint(offset: u64);
        /// One result.
        4 = size(path: String) -> (size: u64);
        /// Nothing at all.
        5 = sync() -> ();
        /// A client as a handle.
        6 = sub_folder(path: String) -> (; files: FilesClient);
        /// Lists.
        7 = list(paths: Vec<String>) -> (sizes: Vec<u64>, total: u64);
        /// Is never answered.
        8 = ignored() -> ();
    }
}

ipc::protocol! {
    /// Another one.
    pub protocol Other("test.other", version = 1, error = ()) {
        /// With the ordinal of `open`.
        1 = open(path: String, flags: u32) -> ();
    }
}

ipc::protocol! {
    /// The same name in another version, and methods that the server does not know.
    pub protocol Newer("test.files", version = 4, error = FsError) {
        /// As before.
        5 = sync() -> ();
    }
}

ipc::protocol! {
    /// The same version with a further method.
    pub protocol Further("test.files", version = 3, error = FsError) {
        /// Unknown to the server.
        99 = extra(x: u8) -> ();
        /// Another idea of the arguments.
        4 = size(path: u8) -> (size: u64);
    }
}

fn serve(server: FilesServer) -> u64 {
    let mut hints = 0;
    loop {
        let request = match server.next(Deadline::FOREVER) {
            Ok(request) => request,
            Err(Error::PeerClosed) => return hints,
            Err(error) => panic!("{error}"),
        };
        // Clients may be gone by now; that is not the server's problem.
        let _ = match request {
            FilesRequest::Open { path, flags, reply } if path == "/x" => {
                let (near, far) = Channel::create().unwrap();
                near.write(b"content", &mut HandleList::new()).unwrap();
                reply.ok(u64::from(flags) + 7, far)
            }
            FilesRequest::Open { reply, .. } => reply.error(FsError::NotFound),
            FilesRequest::Attach {
                name,
                disk,
                log,
                more,
                reply,
            } => {
                disk.write(name.as_bytes(), &mut HandleList::new()).unwrap();
                let count = u32::from(log.is_some()) * 100 + more.len() as u32;
                if let Some(log) = log {
                    log.set().unwrap();
                }
                reply.ok(count)
            }
            FilesRequest::Hint { offset } => {
                hints += offset;
                Ok(())
            }
            FilesRequest::Size { path, reply } => {
                reply.send(path.parse().map_err(|_| FsError::Other(path)))
            }
            FilesRequest::Sync { reply } => reply.ok(),
            FilesRequest::SubFolder { reply, .. } => {
                let (client, server) = FilesServer::pair().unwrap();
                thread::spawn(|| serve(server));
                reply.ok(client)
            }
            FilesRequest::List { paths, reply } => {
                let sizes: Vec<u64> = paths.iter().map(|p| p.len() as u64).collect();
                let total = sizes.iter().sum::<u64>();
                reply.ok(sizes, total)
            }
            FilesRequest::Ignored { .. } => Ok(()),
        };
    }
}

fn started() -> (FilesClient, thread::JoinHandle<u64>) {
    let (client, server) = FilesServer::pair().unwrap();
    (client, thread::spawn(|| serve(server)))
}

#[test]
fn calls_with_arguments_results_and_handles() {
    let (client, server) = started();
    let (size, file) = client.open("/x", 3u32).unwrap();
    assert_eq!(size, 10);
    let mut buffer = [0; 16];
    let received = file
        .read(&mut buffer, &mut HandleList::new(), Deadline::NOW)
        .unwrap();
    assert_eq!(&buffer[..received.len], b"content");

    assert_eq!(
        client.open("/y", 0u32).unwrap_err(),
        CallError::Remote(FsError::NotFound)
    );
    assert_eq!(client.size(String::from("42")).unwrap(), 42);
    let other = CallError::Remote(FsError::Other("z".into()));
    assert_eq!(client.size("z").unwrap_err(), other);
    client.sync().unwrap();

    let (near, disk) = Channel::create().unwrap();
    let log = Event::create().unwrap();
    let second = log.duplicate().unwrap();
    let more: Vec<Handle> = (0..5)
        .map(|_| Event::create().unwrap().into_handle())
        .collect();
    assert_eq!(client.attach("name", disk, Some(log), more).unwrap(), 105);
    assert!(Signals(second.info().unwrap().signals).intersects(Signals::SIGNALED));
    let received = near
        .read(&mut buffer, &mut HandleList::new(), Deadline::NOW)
        .unwrap();
    assert_eq!(&buffer[..received.len], b"name");
    let (_near, disk) = Channel::create().unwrap();
    assert_eq!(client.attach("n", disk, None, Vec::new()).unwrap(), 0);

    let paths = vec![String::from("a"), String::from("bcd")];
    assert_eq!(client.list(&paths).unwrap(), (vec![1, 3], 4));

    let folder = client.sub_folder("sub").unwrap();
    assert_eq!(folder.size("9").unwrap(), 9);
    let again = folder.duplicate().unwrap();
    drop(folder);
    assert_eq!(again.size("8").unwrap(), 8);

    client.hint(5u64).unwrap();
    client.hint(6u64).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), 11);
}

#[test]
fn a_server_that_does_not_answer_is_told_of() {
    let (client, _server) = started();
    assert_eq!(
        client.ignored().unwrap_err(),
        CallError::Refused(Refusal::Abandoned)
    );
    client.sync().unwrap();
}

#[test]
fn strangers_are_refused_and_the_server_goes_on() {
    let (client, server) = started();
    let stranger = OtherClient::new(client.channel().duplicate().unwrap());
    let refusal = Refusal::WrongProtocol {
        protocol: FilesServer::PROTOCOL,
        version: 3,
    };
    assert_eq!(
        stranger.open("/x", 1u32).unwrap_err(),
        CallError::Refused(refusal)
    );
    let newer = NewerClient::new(client.channel().duplicate().unwrap());
    assert_eq!(newer.sync().unwrap_err(), CallError::Refused(refusal));
    let further = FurtherClient::new(client.channel().duplicate().unwrap());
    let unknown = Refusal::UnknownMethod { ordinal: 99 };
    assert_eq!(further.extra(1u8).unwrap_err(), CallError::Refused(unknown));
    assert_eq!(
        further.size(77u8).unwrap_err(),
        CallError::Refused(Refusal::Malformed)
    );
    assert_eq!(client.size("1").unwrap(), 1);
    drop((client, stranger, newer, further));
    assert_eq!(server.join().unwrap(), 0);
}

#[test]
fn a_dead_server_is_noticed_with_its_epoch() {
    let (client, server) = FilesServer::pair().unwrap();
    server.channel().set_epoch(17).unwrap();
    drop(server);
    assert_eq!(
        client.sync().unwrap_err(),
        CallError::ServerDied { epoch: 17 }
    );

    // It dies while the call waits.
    let (client, server) = FilesServer::pair().unwrap();
    let waiting = thread::spawn(move || client.sync().unwrap_err());
    let request = server.next(Deadline::FOREVER).unwrap();
    server.channel().set_epoch(18).unwrap();
    std::mem::forget(request);
    let channel = server.channel().raw();
    drop(Channel::from_raw(channel));
    std::mem::forget(server);
    assert_eq!(waiting.join().unwrap(), CallError::ServerDied { epoch: 18 });
}

#[test]
fn a_channel_outlives_its_server() {
    let (client, server) = FilesServer::pair().unwrap();
    let kept = server.channel().duplicate().unwrap();
    let other = client.duplicate().unwrap();
    let taken = thread::spawn(move || other.sync().unwrap_err());
    let request = server.next(Deadline::FOREVER).unwrap();
    // The server dies with the call in its hands; a second one waits unread.
    let repeating = client.duplicate().unwrap().repeating();
    let unread = thread::spawn(move || repeating.size("1").unwrap());
    let soon = Deadline::after_secs(20);
    kept.wait_one(Signals::READABLE, soon).unwrap();
    std::mem::forget(request);
    kept.set_epoch(1).unwrap();
    assert_eq!(taken.join().unwrap(), CallError::ServerDied { epoch: 1 });

    // The successor has what was unread; it dies with that, and a third one is asked again.
    let second = FilesServer::new(kept.duplicate().unwrap());
    let request = second.next(Deadline::FOREVER).unwrap();
    kept.set_epoch(2).unwrap();
    std::mem::forget(request);
    let third = FilesServer::new(kept.duplicate().unwrap());
    match third.next(Deadline::FOREVER).unwrap() {
        FilesRequest::Size { reply, .. } => reply.ok(5u64).unwrap(),
        other => panic!("{other:?}"),
    }
    assert_eq!(unread.join().unwrap(), 5);

    // Nobody serves any more, and says so.
    let refused = thread::spawn(move || client.sync().unwrap_err());
    let end = ServerEnd::new(kept);
    while end.refuse_all(Refusal::Unavailable).unwrap() == 0 {
        thread::yield_now();
    }
    let unavailable = CallError::Refused(Refusal::Unavailable);
    assert_eq!(refused.join().unwrap(), unavailable);
}

#[test]
fn a_repeated_call_ends_with_the_channel() {
    let (client, server) = FilesServer::pair().unwrap();
    server.channel().set_epoch(3).unwrap();
    drop(server);
    let died = CallError::ServerDied { epoch: 3 };
    assert_eq!(client.repeating().sync().unwrap_err(), died);
}

#[test]
fn calls_have_a_deadline() {
    let (client, server) = FilesServer::pair().unwrap();
    let client = client.with_timeout(std::time::Duration::from_millis(5));
    assert_eq!(
        client.sync().unwrap_err(),
        CallError::Transport(Error::TimedOut)
    );
    // The late reply reaches nobody, and does not stay in the client's queue.
    let FilesRequest::Sync { reply } = server.next(Deadline::NOW).unwrap() else {
        panic!("another request")
    };
    assert_eq!(reply.ok(), Err(Error::BadState));
    let mut buffer = [0; 64];
    let queued = client
        .channel()
        .read(&mut buffer, &mut HandleList::new(), Deadline::NOW);
    assert_eq!(queued, Err(Error::ShouldWait));
}

#[test]
fn what_does_not_fit_is_an_error_on_the_right_side() {
    let (client, _server) = started();
    let long = "x".repeat(70_000);
    assert_eq!(
        client.size(&*long).unwrap_err(),
        CallError::Codec(ipc::CodecError::TooLong)
    );
    let (_near, disk) = Channel::create().unwrap();
    let many: Vec<Handle> = (0..70)
        .map(|_| Event::create().unwrap().into_handle())
        .collect();
    let error = CallError::Codec(ipc::CodecError::TooManyHandles);
    assert_eq!(client.attach("n", disk, None, many).unwrap_err(), error);
    // A reply that is too long: the server's mistake, and the client hears of it.
    let paths: Vec<String> = (0..30_000).map(|_| String::new()).collect();
    let (sizes, _) = client.list(&paths).unwrap();
    assert_eq!(sizes.len(), 30_000);
    client.sync().unwrap();
}

#[test]
fn replies_may_come_in_any_order() {
    let (client, server) = FilesServer::pair().unwrap();
    let client = std::sync::Arc::new(client);
    let callers: Vec<_> = (0..8u64)
        .map(|i| {
            let client = client.clone();
            thread::spawn(move || (i, client.size(&*i.to_string()).unwrap()))
        })
        .collect();
    let mut pending = Vec::new();
    while pending.len() < 8 {
        if let FilesRequest::Size { path, reply } = server.next(Deadline::FOREVER).unwrap() {
            pending.push((path, reply));
        }
    }
    while let Some((path, reply)) = pending.pop() {
        reply.ok(path.parse::<u64>().unwrap() * 2).unwrap();
    }
    for caller in callers {
        let (i, size) = caller.join().unwrap();
        assert_eq!(size, i * 2);
    }
}

/// A valid request, to be damaged.
fn request_bytes() -> Vec<u8> {
    let (client, server) = Channel::create().unwrap();
    let client = FilesClient::new(client).with_timeout(std::time::Duration::from_millis(1));
    let _ = client.list(vec![String::from("abc"), String::from("def")]);
    let mut bytes = Vec::new();
    server
        .read_vec(&mut bytes, &mut HandleList::new(), Deadline::NOW)
        .unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is sent to a server, it takes it or refuses it, and serves the next client.
    #[test]
    fn hostile_requests_do_no_harm(
        random in proptest::collection::vec(any::<u8>(), 0..80),
        changes in proptest::collection::vec((0usize..40, any::<u8>()), 0..4),
        cut in 0usize..40,
        damage_valid in any::<bool>(),
        handles in 0usize..4,
    ) {
        let (client, server) = FilesServer::pair().unwrap();
        let mut bytes = random;
        if damage_valid {
            bytes = request_bytes();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) { *place = byte; }
            }
            bytes.truncate(bytes.len().saturating_sub(cut / 2));
        }
        let mut list = HandleList::new();
        for _ in 0..handles {
            list.push(Event::create().unwrap()).unwrap();
        }
        client.channel().write(&bytes, &mut list).unwrap();
        let _ = server.next(Deadline::NOW);
        let worker = thread::spawn(|| serve(server));
        prop_assert_eq!(client.size("5").unwrap(), 5);
        drop(client);
        worker.join().unwrap();
    }

    /// Whatever a server answers, the client gets results or an error.
    #[test]
    fn hostile_replies_do_no_harm(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..40),
        handles in 0usize..3,
    ) {
        let (client, server) = Channel::create().unwrap();
        let worker = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            let received =
                server.read(&mut buffer, &mut HandleList::new(), Deadline::FOREVER).unwrap();
            assert_ne!(received.txid, Txid::NONE);
            let mut list = HandleList::new();
            for _ in 0..handles {
                list.push(Event::create().unwrap()).unwrap();
            }
            server.reply(received.txid, &bytes, &mut list).unwrap();
        });
        let _ = FilesClient::new(client).list(Vec::<String>::new());
        worker.join().unwrap();
    }
}
