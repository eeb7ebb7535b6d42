//! The drivers of network interfaces against QEMU's devices, with this test at the other end of the wire.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use ddk::{Described, DeviceAccess, DeviceContext, PinnedBuffer, StopReason, block_on};
use ddk_backend_qtest::{Payload, QtestMachine, StartError};
use ddk_class_net::{
    Checksum, Frame, MacAddress, NetDevice, NetQueue, Offloads, ReceiveMode, SegmentRequest,
    Segmentation, rx_flags,
};
use model_virtio_net::sum;

/// An answer may take that long; a test that waits for it in vain has failed.
const ANSWER_LIMIT_MS: u32 = 20_000;
/// Receive buffers, a page each.
const BUFFERS: u32 = 8;
/// Page where frames to be sent begin.
const TX_PAGE: usize = 16;
const PAGES: usize = 20;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x60];

/// An interface in service, and the wire.
struct Station<D: NetDevice> {
    cx: DeviceContext,
    driver: Option<D>,
    queue: D::Queue,
    buffer: PinnedBuffer,
    memory: Payload,
    wire: UnixDatagram,
    machine: QtestMachine,
    _folder: tempfile::TempDir,
}

impl<D: NetDevice + Described> Station<D> {
    /// `None` after saying that nothing was run.
    fn new(device: &str) -> Option<Station<D>> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let wire = UnixDatagram::bind(path("test")).unwrap();
        wire.set_read_timeout(Some(Duration::from_millis(ANSWER_LIMIT_MS.into())))
            .unwrap();
        let netdev = format!(
            "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path("qemu"),
            path("test")
        );
        let builder = QtestMachine::builder()
            .arguments(["-netdev", netdev.as_str()])
            .device(&format!("{device},netdev=n0,id=nic0,mac=52:54:00:12:34:60"));
        let machine = match builder.start() {
            Ok(machine) => machine,
            Err(error @ StartError::NoQemu) => {
                eprintln!("not run: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        wire.connect(path("qemu")).unwrap();
        let platform = machine.platform_for("nic0", &D::MANIFEST).unwrap();
        let cx = DeviceContext::new(Arc::clone(&platform)).unwrap();
        let mut driver = block_on(&cx, D::start(cx.clone())).unwrap().unwrap();
        let queue = driver.take_queues().remove(0);
        let (buffer, memory) = machine.payload(PAGES * 4096, DeviceAccess::Both).unwrap();
        let mut station = Station {
            cx,
            driver: Some(driver),
            queue,
            buffer,
            memory,
            wire,
            machine,
            _folder: folder,
        };
        station.provide_all();
        Some(station)
    }

    fn provide_all(&mut self) {
        (0..BUFFERS).for_each(|token| self.provide(token));
        self.queue.kick();
    }

    fn provide(&mut self, token: u32) {
        let at = u64::from(token) * 4096;
        let segments: Vec<_> = self.buffer.segments(at, 2048, 0).unwrap().collect();
        self.queue.provide(token, &segments).unwrap();
    }

    fn send(
        &mut self,
        bytes: &[u8],
        checksum: Option<Checksum>,
        segmentation: Option<SegmentRequest>,
    ) {
        // Not at the start of a page, so that longer ones straddle it.
        let at = TX_PAGE * 4096 + 3000;
        self.memory.write(at, bytes);
        let length = bytes.len() as u32;
        let segments: Vec<_> = self
            .buffer
            .segments(at as u64, length, 0)
            .unwrap()
            .collect();
        let frame = Frame {
            token: 5,
            segments: &segments,
            length,
            checksum,
            segmentation,
        };
        self.queue.transmit(&frame).unwrap();
        self.queue.kick();
        let deadline = self.cx.deadline_in_ms(ANSWER_LIMIT_MS);
        while self.queue.sent().unwrap() != Some(5) {
            assert!(
                !deadline.is_over(self.cx.now_ns()),
                "the frame does not leave"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn on_wire(&self) -> Vec<u8> {
        let mut bytes = vec![0; 70_000];
        let len = self.wire.recv(&mut bytes).expect("a frame on the wire");
        bytes.truncate(len);
        bytes
    }

    /// The next frame that the device received, and its flags.
    fn received(&mut self) -> (Vec<u8>, u16) {
        let deadline = self.cx.deadline_in_ms(ANSWER_LIMIT_MS);
        loop {
            if let Some(received) = self.queue.received().unwrap() {
                assert_eq!(received.flags & rx_flags::MORE, 0);
                let at = received.token as usize * 4096;
                let bytes = self.memory.read(at, received.length as usize);
                self.provide(received.token);
                self.queue.kick();
                return (bytes, received.flags);
            }
            assert!(!deadline.is_over(self.cx.now_ns()), "no frame comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn driver(&mut self) -> &mut D {
        self.driver.as_mut().expect("it is in service")
    }

    /// Frames of several lengths both ways.
    fn works(&mut self) {
        for len in [60, 61, 590, 1514] {
            let frame = frame(MAC, len);
            self.send(&frame, None, None);
            assert_eq!(self.on_wire(), frame, "{len} bytes out");
            self.wire.send(&frame).unwrap();
            assert_eq!(self.received().0, frame, "{len} bytes in");
        }
    }

    fn stop(mut self) {
        let driver = self.driver.take().expect("it is in service");
        block_on(&self.cx, driver.stop(StopReason::Requested)).unwrap();
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = Vec::from(to);
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend((frame.len()..len).map(|n| (n as u8).wrapping_mul(31)));
    frame
}

/// A TCP segment over IPv4; its checksum field holds the sum of the pseudo-header with this length.
fn tcp(payload: usize, summed: u16) -> Vec<u8> {
    let mut frame = frame(MAC, 14);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame.extend([0x45, 0]);
    frame.extend((40 + payload as u16).to_be_bytes());
    frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo = [&frame[26..34], &[0, 6][..], &summed.to_be_bytes()[..]].concat();
    frame.extend([0, 80, 1, 0]);
    frame.extend(1000u32.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, 0x10, 1, 0]);
    frame.extend(sum(&pseudo).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend((0..payload).map(|n| (n / 7) as u8));
    frame
}

fn tcp_is_right(frame: &[u8]) -> bool {
    let length = ((frame.len() - 34) as u16).to_be_bytes();
    let pseudo = [&frame[26..34], &[0, 6][..], &length[..], &frame[34..]].concat();
    sum(&pseudo) == 0xffff
}

const TCP: Option<Checksum> = Some(Checksum {
    start: 34,
    offset: 16,
});

/// What every driver and device have to do.
fn goes<D: NetDevice + Described>(device: &str) -> Option<Station<D>> {
    let mut station: Station<D> = Station::new(device)?;
    let info = station.driver().info();
    assert_eq!((info.mac.0, info.mtu), (MAC, 1500));
    assert!(info.link.is_up());
    station.works();
    if info.offloads.contains(Offloads::TX_CHECKSUM) {
        station.send(&tcp(99, 119), TCP, None);
        let seen = station.on_wire();
        assert!(tcp_is_right(&seen), "{seen:x?}");
    }

    // The filter: neither strangers nor groups, until they are asked for.
    let group = [1, 0, 0x5e, 0, 0, 0x77];
    let stranger = [0x52, 0x54, 0, 9, 9, 9];
    let (cx, ours) = (station.cx.clone(), frame(MAC, 60));
    let groups = [MacAddress(group)];
    for (mode, to, passes) in [
        (ReceiveMode::Filtered, stranger, false),
        (ReceiveMode::Filtered, group, true),
        (ReceiveMode::AllMulticast, [3, 4, 5, 6, 7, 8], true),
        (ReceiveMode::AllMulticast, stranger, false),
        (ReceiveMode::Promiscuous, stranger, true),
    ] {
        let set = station.driver().set_receive_mode(mode, &groups);
        block_on(&cx, set).unwrap().unwrap();
        station.wire.send(&frame(to, 100)).unwrap();
        station.wire.send(&ours).unwrap();
        if passes {
            assert_eq!(station.received().0, frame(to, 100), "{mode:?}");
        }
        assert_eq!(station.received().0, ours, "{mode:?}");
    }

    // The link, and a reset, which keeps what was set.
    let mut link = |up: bool| {
        let what = serde_json::json!({ "name": "nic0", "up": up });
        station.machine.qmp().execute("set_link", what).unwrap();
        // A link that comes up is agreed on with the other side first.
        let deadline = cx.deadline_in_ms(ANSWER_LIMIT_MS);
        while station.driver().info().link.is_up() != up {
            assert!(!deadline.is_over(cx.now_ns()), "the link is not {up}");
            let looked = station.driver().changed();
            block_on(&cx, looked).unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    link(false);
    link(true);
    let queue = station.queue;
    let mut driver = station.driver.take().expect("it is in service");
    let queues = block_on(&cx, driver.reset(vec![queue])).unwrap().unwrap();
    let queue = queues.into_iter().next().expect("a queue");
    let mut station = Station {
        driver: Some(driver),
        queue,
        ..station
    };
    station.provide_all();
    station.wire.send(&frame(stranger, 70)).unwrap();
    assert_eq!(
        station.received().0,
        frame(stranger, 70),
        "still promiscuous"
    );
    station.works();
    Some(station)
}

#[test]
fn virtio_net_goes() {
    if let Some(station) = goes::<virtio_net::VirtioNet>("virtio-net-pci") {
        station.stop();
    }
}

#[test]
fn virtio_net_goes_without_what_it_can_do_without() {
    let device =
        "virtio-net-pci,mrg_rxbuf=off,ctrl_mac_addr=off,event_idx=off,indirect_desc=off,vectors=1";
    if let Some(station) = goes::<virtio_net::VirtioNet>(device) {
        station.stop();
    }
}

#[test]
fn an_82540em_goes_and_segments() {
    let Some(mut station) = goes::<e1000::E1000>("e1000") else {
        return;
    };
    let request = SegmentRequest {
        kind: Segmentation::TCP4,
        size: 1400,
        header_length: 54,
    };
    let long = tcp(5000, 0);
    station.send(&long, TCP, Some(request));
    let wire: Vec<Vec<u8>> = (0..4).map(|_| station.on_wire()).collect();
    for (n, segment) in wire.iter().enumerate() {
        assert!(tcp_is_right(segment), "segment {n}");
        assert_eq!(sum(&segment[14..34]), 0xffff, "header of segment {n}");
    }
    let payload: Vec<u8> = wire.iter().flat_map(|s| s[54..].to_vec()).collect();
    assert_eq!(payload, long[54..]);
    station.stop();
}

#[test]
fn an_82574l_goes_and_looks_at_checksums() {
    let Some(mut station) = goes::<e1000::E1000>("e1000e") else {
        return;
    };
    let mut right = tcp(99, 119);
    let field = !sum(&right[34..]);
    right[50..52].copy_from_slice(&field.to_be_bytes());
    let header = !sum(&right[14..34]);
    right[24..26].copy_from_slice(&header.to_be_bytes());
    assert!(tcp_is_right(&right));
    station.wire.send(&right).unwrap();
    assert_eq!(
        station.received(),
        (right.clone(), rx_flags::CHECKSUM_VALID)
    );
    right[60] ^= 1;
    station.wire.send(&right).unwrap();
    assert_eq!(station.received(), (right, 0));
    station.stop();
}
