//! A stack on a net with a hostile station: it goes on serving an honest one, and keeps to its bounds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use hostile_frames::{Flood, Generator, Host, Net};
use net_client::RxChecksum;
use netstack::link::{About, Link, Medium, Offloads, Properties};
use netstack::stack::{SocketId, Stack, TCP_MAX};
use proto::inet::Configuration;
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpCidr, Ipv4Cidr};

const GUEST: Host = Host {
    mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
    ip4: [10, 0, 5, 15],
    ip6: [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56,
    ],
};
const HONEST: Host = Host {
    mac: [0x52, 0x55, 0, 0, 0, 3],
    ip4: [10, 0, 5, 3],
    ip6: [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x55, 0, 0xff, 0xfe, 0, 0, 3,
    ],
};
const HOSTILE: Host = Host {
    mac: [0x52, 0x55, 0, 0, 0, 2],
    ip4: [10, 0, 5, 2],
    ip6: [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x55, 0, 0xff, 0xfe, 0, 0, 2,
    ],
};
const PORT: u16 = 80;
/// Frames that the link holds.
const QUEUE: usize = 512;

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// An end of a cable.
struct End {
    mac: [u8; 6],
    in_queue: Queue,
    out_queue: Queue,
    offloads: Offloads,
}

impl Link for End {
    fn properties(&self) -> Properties {
        Properties {
            medium: Medium::Ethernet(self.mac),
            mtu: 1500,
            offloads: self.offloads,
        }
    }

    fn is_up(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum> {
        frame.extend(self.in_queue.borrow_mut().pop_front()?);
        Some(RxChecksum::Unchecked)
    }

    fn can_send(&mut self) -> bool {
        true
    }

    fn send(&mut self, frame: &mut [u8], _: About<'_>) -> bool {
        let mut queue = self.out_queue.borrow_mut();
        if queue.len() < QUEUE {
            queue.push_back(frame.to_vec());
        }
        true
    }
}

struct World {
    guest: Stack,
    honest: Stack,
    to_guest: Queue,
    now: Instant,
    listener: netstack::stack::ListenerId,
}

impl World {
    fn new(configuration: Configuration, seed: u64) -> World {
        let now = Instant::from_millis(1);
        let [to_guest, to_honest] = [Queue::default(), Queue::default()];
        let make = |host: Host, in_queue: &Queue, out_queue: &Queue| {
            let mut stack = Stack::new(seed, now);
            let end = End {
                mac: host.mac,
                in_queue: in_queue.clone(),
                out_queue: out_queue.clone(),
                offloads: Offloads::default(),
            };
            stack.add_interface("eth0", Box::new(end), now).unwrap();
            let cidr = IpCidr::Ipv4(Ipv4Cidr::new(host.ip4.into(), 24));
            let interface = stack.interface_mut("eth0").unwrap();
            interface.add_address(cidr).unwrap();
            stack.addresses_changed();
            stack
        };
        let mut guest = make(GUEST, &to_guest, &to_honest);
        let interface = guest.interface_mut("eth0").unwrap();
        interface.configure(configuration);
        let honest = make(HONEST, &to_honest, &to_guest);
        let local = (std::net::Ipv6Addr::UNSPECIFIED, PORT).into();
        let (listener, _) = guest.listen(local, 128).unwrap();
        World {
            guest,
            honest,
            to_guest,
            now,
            listener,
        }
    }

    fn step(&mut self, micros: u64) {
        self.now += Duration::from_micros(micros);
        while self.guest.poll(self.now) {}
        while self.honest.poll(self.now) {}
        // Whoever gets through is answered, and done with.
        while let Some(id) = self.guest.accept(self.listener, Waker::noop()) {
            let socket = self.guest.tcp(id).unwrap();
            let _ = socket.send_slice(b"served");
            socket.close();
        }
    }

    fn attack(&mut self, frame: Vec<u8>) {
        self.to_guest.borrow_mut().push_back(frame);
        if self.to_guest.borrow().len() >= 32 {
            self.step(500);
        }
        let sockets = self.sockets();
        assert!(sockets <= TCP_MAX + 8, "{sockets} sockets");
    }

    fn sockets(&self) -> usize {
        let interfaces = self.guest.interfaces().iter();
        interfaces.map(|i| i.sockets.iter().count()).sum()
    }

    /// The honest station is served.
    fn ask(&mut self, when: &str) {
        let id: SocketId = self
            .honest
            .connect((GUEST.ip4, PORT).into(), None)
            .unwrap_or_else(|error| panic!("{when}: {error:?}"));
        let mut answer: Vec<u8> = Vec::new();
        for _ in 0..60_000 {
            self.step(2_000);
            let socket = self.honest.tcp(id).unwrap();
            let mut buffer = [0; 64];
            if socket.can_recv() {
                let n = socket.recv_slice(&mut buffer).unwrap();
                answer.extend(&buffer[..n]);
            }
            if answer == b"served" {
                socket.abort();
                self.step(1_000);
                self.honest.remove_tcp(id);
                return;
            }
        }
        let state = self.honest.tcp(id).unwrap().state();
        panic!("{when}: not served; {state}, {answer:?}");
    }

    /// Ends what nobody waits for.
    fn forget(&mut self) {
        for index in 0..self.guest.interfaces().len() {
            let ended: Vec<_> = self.guest.interfaces()[index]
                .sockets
                .iter()
                .filter_map(|(handle, socket)| match socket {
                    smoltcp::socket::Socket::Tcp(tcp)
                        if matches!(tcp.state(), tcp::State::Closed | tcp::State::TimeWait) =>
                    {
                        Some(handle)
                    }
                    _ => None,
                })
                .collect();
            for handle in ended {
                let interface = index;
                self.guest.remove_tcp(SocketId { interface, handle });
            }
        }
    }
}

fn net() -> Net {
    Net {
        own: HOSTILE,
        guest: GUEST,
        port: PORT,
    }
}

#[test]
fn every_field_and_every_length() {
    let mut world = World::new(Configuration::Dhcp, 1);
    world.ask("before");
    let mut generator = Generator::new(net(), 1);
    for (n, (_, frame)) in generator.sweep().into_iter().enumerate() {
        world.attack(frame);
        if n % 20_000 == 0 {
            world.ask("in between");
            world.forget();
        }
    }
    world.ask("after");
}

#[test]
fn frames_by_chance() {
    for seed in 0..4 {
        let mut world = World::new(Configuration::Static, seed);
        let mut generator = Generator::new(net(), seed);
        for _ in 0..15_000 {
            let (_, frame) = generator.any();
            world.attack(frame);
        }
        world.ask("after");
    }
}

#[test]
fn floods() {
    for flood in Flood::ALL {
        let mut world = World::new(Configuration::Static, 1);
        let mut generator = Generator::new(net(), 1);
        world.ask("before");
        for _ in 0..4_000 {
            let frame = generator.flood(flood);
            world.attack(frame);
        }
        world.ask(flood.name());
        // Its tables have room for what an administrator wants.
        let interface = world.guest.interface_mut("eth0").unwrap();
        let cidr = IpCidr::Ipv4(Ipv4Cidr::new([192, 168, 7, 0].into(), 24));
        let router = smoltcp::wire::IpAddress::from(std::net::Ipv4Addr::from(HONEST.ip4));
        let routed = interface.add_route(cidr, router);
        assert_eq!(routed, Ok(()), "{}", flood.name());
    }
}

#[test]
fn connections_that_nobody_has_do_not_take_all_places() {
    let mut world = World::new(Configuration::Static, 1);
    let connect = |world: &mut World| {
        let id = world.guest.connect((HOSTILE.ip4, 9).into(), None).unwrap();
        world.guest.orphaned(id);
        id
    };
    let ids: Vec<_> = (0..TCP_MAX).map(|_| connect(&mut world)).collect();
    let ended = |world: &mut World, id| {
        let state = world.guest.tcp(id).unwrap().state();
        state == tcp::State::Closed
    };
    let count = ids.iter().filter(|id| ended(&mut world, **id)).count();
    assert_eq!(count, TCP_MAX / 2);
    assert!(ended(&mut world, ids[0]) && !ended(&mut world, ids[TCP_MAX - 1]));
    for id in &ids[..TCP_MAX / 2] {
        world.guest.remove_tcp(*id);
    }
    world.ask("among connections that nobody has");
}
