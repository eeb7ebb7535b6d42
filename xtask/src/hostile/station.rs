//! A station on the guest's net: it gives the guest its address, answers for its own, speaks TCP with it, and sends whatever it is told to.
//!
//! Frames are datagrams of a pair of Unix sockets, which hold the sender up when the other side is slow: what is lost is lost in the guest.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hostile_frames::{FRAME_MAX, Host, UDP, ethernet, ipv4, repair, udp};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, HardwareAddress, IpAddress, IpCidr,
    Ipv4Cidr, Ipv6Address, Ipv6Cidr,
};

/// This station.
pub const OWN: Host = Host {
    mac: [0x52, 0x55, 10, 0, 5, 2],
    ip4: [10, 0, 5, 2],
    ip6: [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x55, 10, 0xff, 0xfe, 0, 5, 2,
    ],
};
/// Address that the guest gets.
pub const GUEST_ADDRESS: [u8; 4] = [10, 0, 5, 15];
/// How long the guest may take no frame, and a request may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Types of frames, and DHCP's ports.
const IPV4: u16 = 0x0800;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const BUFFER: usize = 64 * 1024;

/// Frames of the guest and to it.
struct Wire {
    socket: UnixDatagram,
    guest: PathBuf,
    received: VecDeque<Vec<u8>>,
    /// Frames that the guest's machine had no room for.
    held_up: u64,
}

impl Wire {
    /// Takes in what the guest has sent.
    fn take(&mut self) -> anyhow::Result<()> {
        let mut frame = [0; FRAME_MAX];
        loop {
            match self.socket.recv(&mut frame) {
                Ok(length) => self.received.push_back(frame[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("frames of the guest"),
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match self.socket.send_to(frame, &self.guest) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(
                        start.elapsed() < PATIENCE,
                        "the guest's interface takes no frames"
                    );
                    self.held_up += 1;
                    // It may wait for us.
                    self.take()?;
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => return Err(error).context("a frame to the guest"),
            }
        }
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

struct Sending<'a>(&'a mut Wire);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        // A guest that takes nothing is found out by the next frame of ours.
        let _ = self.0.send(&frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A call of the guest's.
pub struct Call(SocketHandle);

/// See the module.
pub struct Station {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    start: Instant,
    guest_mac: Option<[u8; 6]>,
    next_port: u16,
}

/// QEMU's arguments for a net in `folder` with an interface of this model, as QEMU names it.
pub fn arguments(folder: &Path, device: &str) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string().replace(',', ",,");
    let (guest, station) = (path("guest"), path("station"));
    let net = format!(
        "dgram,id=hostile,local.type=unix,local.path={guest},remote.type=unix,remote.path={station}"
    );
    let device = format!("{device},netdev=hostile,mac=52:54:00:12:34:66");
    ["-netdev", &net, "-device", &device]
        .map(str::to_owned)
        .to_vec()
}

fn now(start: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(start.elapsed().as_micros() as i64)
}

impl Station {
    /// A station on the net in `folder`, which has to be there before QEMU.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn new(folder: &Path) -> anyhow::Result<Station> {
        let own = folder.join("station");
        // Of a run before.
        let _ = std::fs::remove_file(&own);
        let socket = UnixDatagram::bind(&own).context("the station's socket")?;
        socket.set_nonblocking(true)?;
        let mut wire = Wire {
            socket,
            guest: folder.join("guest"),
            received: VecDeque::new(),
            held_up: 0,
        };
        let start = Instant::now();
        let address = HardwareAddress::Ethernet(EthernetAddress(OWN.mac));
        let mut interface = Interface::new(Config::new(address), &mut wire, now(start));
        interface.update_ip_addrs(|list| {
            let own4 = IpCidr::Ipv4(Ipv4Cidr::new(OWN.ip4.into(), 24));
            let own6 = IpCidr::Ipv6(Ipv6Cidr::new(Ipv6Address::from(OWN.ip6), 64));
            // There is room for more than these.
            let _ = list.push(own4);
            let _ = list.push(own6);
        });
        Ok(Station {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start,
            guest_mac: None,
            next_port: 20_000,
        })
    }

    /// The guest, once it has spoken.
    pub fn guest(&self) -> Option<Host> {
        let mac = self.guest_mac?;
        let mut ip6 = [0; 16];
        let [a, b, c, d, e, f] = mac;
        // RFC 4291, appendix A.
        ip6[..2].copy_from_slice(&[0xfe, 0x80]);
        ip6[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Some(Host {
            mac,
            ip4: GUEST_ADDRESS,
            ip6,
        })
    }

    /// Times that the guest's machine had no room for a frame.
    pub fn held_up(&self) -> u64 {
        self.wire.held_up
    }

    /// Sends a frame. Answers what came meanwhile.
    ///
    /// # Errors
    /// When the guest takes none.
    pub fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        if frame.is_empty() {
            // No datagram.
            return Ok(());
        }
        self.wire.send(frame)
    }

    /// Does what there is to do.
    ///
    /// # Errors
    /// When the net is broken.
    pub fn turn(&mut self) -> anyhow::Result<()> {
        self.wire.take()?;
        let waiting = std::mem::take(&mut self.wire.received);
        for frame in waiting {
            if frame.get(12..14) == Some(&IPV4.to_be_bytes())
                && let Some(answer) = self.lease(&frame)
            {
                self.wire.send(&answer)?;
                continue;
            }
            self.wire.received.push_back(frame);
        }
        let now = now(self.start);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        Ok(())
    }

    /// The answer to a DHCP request (RFC 2131).
    fn lease(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let header = 14 + usize::from(frame.get(14)? & 15) * 4;
        let to_server = frame.get(header + 2..header + 4)? == DHCP_SERVER.to_be_bytes();
        if *frame.get(23)? != UDP || !to_server {
            return None;
        }
        let packet = DhcpPacket::new_checked(frame.get(header + 8..)?).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let message_type = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            _ => return None,
        };
        let mac: [u8; 6] = *frame.get(6..)?.first_chunk()?;
        self.guest_mac = Some(mac);
        let own = Ipv4Addr::from(OWN.ip4);
        let answer = DhcpRepr {
            message_type,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: GUEST_ADDRESS.into(),
            server_ip: own,
            router: Some(own),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(own),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: Some(86_400),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; answer.buffer_len()];
        answer
            .emit(&mut DhcpPacket::new_unchecked(&mut bytes))
            .ok()?;
        let datagram = udp(DHCP_SERVER, DHCP_CLIENT, &bytes);
        let packet = ipv4(UDP, [OWN.ip4, GUEST_ADDRESS], (0, 0), &[], &datagram);
        let mut frame = ethernet(mac, OWN.mac, IPV4, &packet);
        repair(&mut frame)?;
        Some(frame)
    }

    /// Waits until something is so, or for nothing but time.
    ///
    /// # Errors
    /// When it never is.
    pub fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Station) -> Option<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            self.turn()?;
            if let Some(value) = done(self) {
                return Ok(value);
            }
            ensure!(start.elapsed() < limit, "{what}: not within {limit:?}");
            if self.wire.received.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Tells the guest where this station is, whatever others said.
    ///
    /// # Errors
    /// As [`Station::send`].
    pub fn announce(&mut self) -> anyhow::Result<()> {
        let Some(guest) = self.guest() else {
            bail!("the guest has not spoken yet");
        };
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2];
        arp.extend(OWN.mac);
        arp.extend(OWN.ip4);
        arp.extend(guest.mac);
        arp.extend(guest.ip4);
        self.send(&ethernet(guest.mac, OWN.mac, 0x0806, &arp))
    }

    /// A TCP port at which the guest may call from now on.
    ///
    /// # Errors
    /// Port 0.
    pub fn listen(&mut self, port: u16) -> anyhow::Result<Call> {
        let mut socket = Self::socket();
        socket
            .listen(port)
            .map_err(|error| anyhow::anyhow!("port {port}: {error}"))?;
        // A flood takes its time.
        socket.set_timeout(None);
        Ok(Call(self.sockets.add(socket)))
    }

    /// Waits until the guest calls.
    ///
    /// # Errors
    /// When it does not.
    pub fn called(&mut self, call: &Call, limit: Duration) -> anyhow::Result<()> {
        self.until("the guest calls", limit, |station| {
            let socket = station.sockets.get_mut::<tcp::Socket>(call.0);
            (socket.state() == tcp::State::Established).then_some(())
        })
    }

    /// Says something to the guest that called, and ends the call.
    ///
    /// # Errors
    /// When the guest does not take it.
    pub fn answer(&mut self, call: Call, text: &str) -> anyhow::Result<()> {
        let Call(handle) = call;
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket
            .send_slice(text.as_bytes())
            .map_err(|error| anyhow::anyhow!("the guest's call: {error}"))?;
        socket.close();
        self.until("the guest takes the answer", PATIENCE, |station| {
            let socket = station.sockets.get_mut::<tcp::Socket>(handle);
            (!socket.is_open() || socket.state() == tcp::State::TimeWait).then_some(())
        })
    }

    fn socket() -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        tcp::Socket::new(buffer(), buffer())
    }

    /// An HTTP request to the guest; the whole answer.
    ///
    /// # Errors
    /// When it does not come within its time.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut socket = Self::socket();
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        let remote = (IpAddress::from(Ipv4Addr::from(GUEST_ADDRESS)), 80u16);
        socket
            .connect(self.interface.context(), remote, self.next_port)
            .map_err(|error| anyhow::anyhow!("a connection: {error}"))?;
        let handle = self.sockets.add(socket);
        let request = format!("GET {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n");
        let (mut asked, mut answer) = (false, Vec::new());
        let fetched = self.until(&format!("GET {path}"), PATIENCE, |station| {
            let socket = station.sockets.get_mut::<tcp::Socket>(handle);
            if !asked && socket.can_send() {
                asked = socket.send_slice(request.as_bytes()).is_ok();
            }
            while socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    answer.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                if taken.is_err() {
                    break;
                }
            }
            (asked && !socket.may_recv()).then_some(())
        });
        self.sockets.get_mut::<tcp::Socket>(handle).abort();
        self.turn()?;
        self.sockets.remove(handle);
        fetched?;
        Ok(answer)
    }
}
