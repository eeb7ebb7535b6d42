//! Two stacks on a wire in memory that loses, repeats, reorders and damages frames, with a clock of their own.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use netstack::link::{About, Faults, wire};
use netstack::stack::{SocketId, Stack};
use proptest::prelude::*;
use proto::inet::NetworkError;
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{IpCidr, Ipv4Cidr};

/// Two stacks, `10.0.0.1` and `10.0.0.2`.
struct Pair {
    stacks: [Stack; 2],
    now: Instant,
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address(last).into(), port)
}

impl Pair {
    fn new(faults: Faults, seed: u64) -> Pair {
        let now = Instant::from_millis(1);
        let (one, two) = wire(1500, faults, seed);
        let mut stacks = [Stack::new(seed, now), Stack::new(seed + 1, now)];
        for (stack, (link, last)) in stacks.iter_mut().zip([(one, 1), (two, 2)]) {
            stack.add_interface("eth0", Box::new(link), now).unwrap();
            let cidr = IpCidr::Ipv4(Ipv4Cidr::new(address(last), 24));
            stack
                .interface_mut("eth0")
                .unwrap()
                .add_address(cidr)
                .unwrap();
            stack.addresses_changed();
        }
        Pair { stacks, now }
    }

    /// Polls both until neither has anything to do at once, then lets time pass to the next timer.
    fn step(&mut self) {
        for _ in 0..8 {
            self.now += smoltcp::time::Duration::from_micros(50);
            for stack in &mut self.stacks {
                while stack.poll(self.now) {}
            }
        }
        let next = self
            .stacks
            .iter_mut()
            .filter_map(|s| s.delay(self.now))
            .min();
        let pause = next
            .unwrap_or(Duration::from_millis(10))
            .min(Duration::from_millis(200));
        self.now += smoltcp::time::Duration::from_micros(pause.as_micros() as u64);
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Pair) -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(value) = done(self) {
                return value;
            }
            self.step();
        }
        panic!("never: {what}, at {}", self.now);
    }

    /// A connection from the first to the second stack.
    fn connect(&mut self) -> (SocketId, SocketId) {
        let (listener, _) = self.stacks[1].listen(at(2, 80), 8).unwrap();
        let client = self.stacks[0].connect(at(2, 80), None).unwrap();
        let server = self.until("accept", |pair| {
            pair.stacks[1].accept(listener, Waker::noop())
        });
        self.until("established", |pair| {
            let state = pair.stacks[0].tcp(client).unwrap().state();
            (state == tcp::State::Established).then_some(())
        });
        (client, server)
    }
}

fn byte(n: usize) -> u8 {
    (n.wrapping_mul(2_654_435_761) >> 11) as u8
}

/// Sends `len` bytes and checks what comes.
fn transfer(pair: &mut Pair, from: (usize, SocketId), to: (usize, SocketId), len: usize) {
    let (mut sent, mut received) = (0, 0);
    let mut pending: VecDeque<u8> = VecDeque::new();
    let mut steps = 0;
    pair.until("transfer", |pair| {
        steps += 1;
        if steps == 19_000 {
            let delays: Vec<_> = (0..2).map(|n| pair.stacks[n].delay(pair.now)).collect();
            eprintln!("sent {sent}, received {received} of {len}; {delays:?}");
            for (n, id) in [from, to] {
                let socket = pair.stacks[n].tcp(id).unwrap();
                eprintln!(
                    "{n}: {} {} {}",
                    socket.state(),
                    socket.send_queue(),
                    socket.recv_queue()
                );
            }
        }
        let socket = pair.stacks[from.0].tcp(from.1).unwrap();
        while sent < len && socket.can_send() {
            pending.extend((sent..len.min(sent + 4096)).map(byte));
            let (chunk, _) = pending.as_slices();
            let n = socket.send_slice(chunk).unwrap();
            pending.clear();
            sent += n;
        }
        let socket = pair.stacks[to.0].tcp(to.1).unwrap();
        let mut buffer = [0; 8192];
        while socket.can_recv() {
            let n = socket.recv_slice(&mut buffer).unwrap();
            for b in &buffer[..n] {
                assert_eq!(*b, byte(received), "byte {received}");
                received += 1;
            }
        }
        (received == len).then_some(())
    });
}

#[test]
fn a_stream_both_ways_and_its_end() {
    let mut pair = Pair::new(Faults::default(), 1);
    let (client, server) = pair.connect();
    transfer(&mut pair, (0, client), (1, server), 300_000);
    transfer(&mut pair, (1, server), (0, client), 300_000);
    pair.stacks[0].tcp(client).unwrap().close();
    pair.until("the end", |pair| {
        let socket = pair.stacks[1].tcp(server).unwrap();
        matches!(socket.recv(|_| (0, ())), Err(tcp::RecvError::Finished)).then_some(())
    });
    pair.stacks[1].tcp(server).unwrap().close();
    pair.until("closed", |pair| {
        let state = pair.stacks[1].tcp(server).unwrap().state();
        (state == tcp::State::Closed).then_some(())
    });
}

#[test]
fn nobody_listens() {
    let mut pair = Pair::new(Faults::default(), 2);
    let client = pair.stacks[0].connect(at(2, 81), None).unwrap();
    pair.until("refused", |pair| {
        let state = pair.stacks[0].tcp(client).unwrap().state();
        (state == tcp::State::Closed).then_some(())
    });
    let nowhere = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 80);
    assert_eq!(
        pair.stacks[0].connect(nowhere, None),
        Err(NetworkError::Unreachable)
    );
}

#[test]
fn ports_and_addresses_are_checked() {
    let mut pair = Pair::new(Faults::default(), 3);
    let stack = &mut pair.stacks[0];
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80);
    stack.listen(any, 4).unwrap();
    assert_eq!(stack.listen(at(1, 80), 4), Err(NetworkError::AddressInUse));
    assert_eq!(
        stack.listen(at(9, 90), 4),
        Err(NetworkError::AddressNotAvailable)
    );
    assert_eq!(stack.listen(at(1, 90), 0), Err(NetworkError::Invalid));
    let local = Some(at(1, 80));
    assert_eq!(
        stack.connect(at(2, 1), local),
        Err(NetworkError::AddressInUse)
    );
    assert_eq!(stack.udp_port(0).map(|p| p >= 49_152), Ok(true));
}

#[test]
fn a_backlog_is_a_bound_and_a_flood_is_dropped() {
    let mut pair = Pair::new(Faults::default(), 4);
    let (listener, _) = pair.stacks[1].listen(at(2, 80), 4).unwrap();
    let clients: Vec<SocketId> = (0..12)
        .map(|_| pair.stacks[0].connect(at(2, 80), None).unwrap())
        .collect();
    for _ in 0..20 {
        pair.step();
    }
    let sockets = pair.stacks[1].tcp_sockets();
    assert!(sockets <= 4, "{sockets} sockets for a backlog of 4");
    let mut accepted = 0;
    // Whoever found no room tries again, as TCP does.
    pair.until("all accepted", |pair| {
        while pair.stacks[1].accept(listener, Waker::noop()).is_some() {
            accepted += 1;
        }
        (accepted >= clients.len()).then_some(())
    });
    pair.stacks[1].close_listener(listener);
}

#[test]
fn closing_a_listener_resets_those_who_wait() {
    let mut pair = Pair::new(Faults::default(), 5);
    let (listener, _) = pair.stacks[1].listen(at(2, 80), 4).unwrap();
    let client = pair.stacks[0].connect(at(2, 80), None).unwrap();
    for _ in 0..4 {
        pair.step();
    }
    pair.stacks[1].close_listener(listener);
    pair.until("reset", |pair| {
        let state = pair.stacks[0].tcp(client).unwrap().state();
        (state == tcp::State::Closed).then_some(())
    });
    assert_eq!(pair.stacks[1].tcp_sockets(), 0);
}

/// With smoltcp's own times alone these twenty take 54 minutes.
#[test]
fn what_is_lost_is_sent_again_soon() {
    let mut all = 0;
    for seed in 0..20 {
        let faults = Faults {
            lost: 200,
            ..Faults::default()
        };
        let mut pair = Pair::new(faults, seed);
        let (client, server) = pair.connect();
        let start = pair.now;
        transfer(&mut pair, (0, client), (1, server), 100_000);
        all += (pair.now - start).secs();
    }
    assert!(all < 300, "{all} s of the stacks' time");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn streams_survive_a_bad_wire(
        seed in any::<u32>(),
        lost in 0u32..50,
        repeated in 0u32..50,
        reordered in 0u32..50,
        damaged in 0u32..20,
    ) {
        let faults = Faults { lost, repeated, reordered, damaged };
        let mut pair = Pair::new(faults, seed.into());
        let (client, server) = pair.connect();
        transfer(&mut pair, (0, client), (1, server), 60_000);
        transfer(&mut pair, (1, server), (0, client), 60_000);
    }

    #[test]
    fn any_frame_is_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..40)) {
        use netstack::link::Link;
        let now = Instant::from_millis(1);
        let (mut attacker, link) = wire(1500, Faults::default(), 1);
        let mut stack = Stack::new(1, now);
        stack.add_interface("eth0", Box::new(link), now).unwrap();
        let cidr = IpCidr::Ipv4(Ipv4Cidr::new(address(2), 24));
        stack.interface_mut("eth0").unwrap().add_address(cidr).unwrap();
        stack.listen(at(2, 80), 4).unwrap();
        for mut frame in frames {
            // Half of them get as far as IP.
            if frame.first().is_some_and(|b| b & 1 == 0) && frame.len() > 34 {
                frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[14] = 0x45;
                frame[30..34].copy_from_slice(&address(2).octets());
            }
            attacker.send(&mut frame, About::default());
        }
        while stack.poll(now) {}
        prop_assert!(stack.tcp_sockets() <= 4);
    }
}

#[test]
fn a_wire_without_routers_is_left_in_peace() {
    let mut pair = Pair::new(Faults::default(), 1);
    // Something to wait for; and long enough for all questions for a router to stay without an answer.
    for stack in &mut pair.stacks {
        stack.connect(at(9, 80), None).unwrap();
    }
    while pair.now < Instant::from_secs(60) {
        pair.step();
        for stack in &mut pair.stacks {
            while stack.poll(pair.now) {}
            assert_ne!(
                stack.delay(pair.now),
                Some(Duration::ZERO),
                "at {}",
                pair.now
            );
        }
    }
}
