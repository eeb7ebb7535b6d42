//! An interface: a link with addresses, routes, and the sockets that live on it.
//!
//! Each interface has its own set of sockets, since smoltcp lets an interface send for every socket of the set that it is
//! given. Which interface a connection belongs to is decided once, when it is made.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::{IpAddr, SocketAddr};

use proto::inet::{Configuration, InterfaceState, NetworkError, Origin};
use smoltcp::iface::{Config, PollIngressSingleResult, PollResult, Route, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{Socket, dhcpv4};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress,
    IPV6_LINK_LOCAL_ALL_NODES, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpEndpoint, IpProtocol,
    Ipv4Address, Ipv6Address, Ipv6Cidr, Ipv6Packet, Ipv6Repr, NdiscRepr, NdiscRouterFlags,
};

use crate::advertisement::Routers;
use crate::convert;
use crate::device::{Device, Recorder};
use crate::link::{Link, Medium, Properties};
use crate::recovery::Key;
use crate::stack::{TCP_MAX, TakenIn};

/// What DHCP found out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lease {
    /// Name servers.
    pub name_servers: Vec<IpAddr>,
}

/// See the module.
pub struct Interface {
    /// Its name.
    pub name: String,
    pub(crate) device: Device,
    pub(crate) iface: Box<smoltcp::iface::Interface>,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// The address that DHCP gave.
    leased: Option<IpCidr>,
    /// Addresses that were set by hand, or come with the interface.
    fixed: Vec<IpCidr>,
    enabled: bool,
    /// When a socket wants to be looked at again.
    next: Option<Instant>,
    routers: Routers,
}

/// Connections before those that are gone are forgotten.
const FLOWS_MAX: usize = 2 * TCP_MAX;

fn key(local: IpEndpoint, remote: IpEndpoint) -> Key {
    Key {
        local_port: local.port,
        remote_port: remote.port,
        local: local.addr,
        remote: remote.addr,
    }
}

/// Frames that are received in a row before others get their turn.
const BATCH: usize = 64;

impl Interface {
    /// An interface over a link, without addresses but for those that every interface has.
    pub fn new(name: &str, link: Box<dyn Link>, seed: u64, now: Instant) -> Interface {
        let mut device = Device::new(link);
        let (address, slaac) = match device.properties.medium {
            Medium::Ethernet(mac) => (
                HardwareAddress::Ethernet(EthernetAddress::from_bytes(&mac)),
                true,
            ),
            Medium::Ip => (HardwareAddress::Ip, false),
        };
        let mut config = Config::new(address);
        config.random_seed = seed;
        config.slaac = slaac;
        let iface = Box::new(smoltcp::iface::Interface::new(config, &mut device, now));
        let mut interface = Interface {
            name: name.into(),
            device,
            iface,
            sockets: SocketSet::new(Vec::new()),
            dhcp: None,
            leased: None,
            fixed: Vec::new(),
            enabled: true,
            next: None,
            routers: Routers::default(),
        };
        if let Medium::Ethernet(mac) = interface.device.properties.medium {
            // The only address that can always be had (RFC 4291, 2.5.6 and appendix A).
            let _ = interface.add_address(IpCidr::Ipv6(Ipv6Cidr::new(link_local(mac), 64)));
        }
        interface
    }

    /// Gets its IPv4 address by DHCP from now on, or by hand.
    pub fn configure(&mut self, configuration: Configuration) {
        match (configuration, self.dhcp) {
            (Configuration::Dhcp, None) => {
                self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
            }
            (Configuration::Static, Some(handle)) => {
                self.sockets.remove(handle);
                self.dhcp = None;
                self.release();
            }
            _ => {}
        }
    }

    /// Whether it has its address from DHCP.
    pub fn uses_dhcp(&self) -> bool {
        self.dhcp.is_some()
    }

    /// What its link is.
    pub fn properties(&self) -> Properties {
        self.device.properties
    }

    /// State.
    pub fn state(&self) -> InterfaceState {
        match (self.enabled, self.device.link.is_up()) {
            (false, _) => InterfaceState::Down,
            (true, false) => InterfaceState::NoCarrier,
            (true, true) => InterfaceState::Up,
        }
    }

    /// Up or down.
    pub fn set_enabled(&mut self, state: InterfaceState) {
        self.enabled = state != InterfaceState::Down;
    }

    /// Its addresses and where they come from.
    pub fn addresses(&self) -> Vec<(IpCidr, Origin)> {
        let addresses = self.iface.ip_addrs().iter();
        addresses
            .map(|cidr| {
                let fixed = self.fixed.contains(cidr);
                let origin = if fixed {
                    Origin::Static
                } else {
                    Origin::Automatic
                };
                (*cidr, origin)
            })
            .collect()
    }

    /// How many addresses it has.
    pub fn address_count(&self) -> usize {
        self.iface.ip_addrs().len()
    }

    /// Whether it is its address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.iface.has_ip_addr(IpAddress::from(address))
    }

    /// Gives it an address. With an IPv4 address, DHCP ends.
    pub fn add_address(&mut self, cidr: IpCidr) -> Result<(), NetworkError> {
        if !cidr.address().is_unicast() {
            return Err(NetworkError::Invalid);
        }
        if self.iface.has_ip_addr(cidr.address()) {
            return Err(NetworkError::AlreadyExists);
        }
        if matches!(cidr, IpCidr::Ipv4(_)) {
            self.configure(Configuration::Static);
        }
        self.push_address(cidr)?;
        self.fixed.push(cidr);
        Ok(())
    }

    fn push_address(&mut self, cidr: IpCidr) -> Result<(), NetworkError> {
        let mut outcome = Ok(());
        self.iface.update_ip_addrs(|list| {
            // The order matters: the first IPv4 address is the source of what leaves the network.
            outcome = list.push(cidr).map_err(|_| NetworkError::LimitReached);
        });
        outcome
    }

    /// Takes an address away.
    pub fn remove_address(&mut self, address: IpAddr) -> Result<(), NetworkError> {
        let address = IpAddress::from(address);
        if !self.iface.has_ip_addr(address) {
            return Err(NetworkError::NotFound);
        }
        self.iface
            .update_ip_addrs(|list| list.retain(|cidr| cidr.address() != address));
        self.fixed.retain(|cidr| cidr.address() != address);
        if self.leased.is_some_and(|cidr| cidr.address() == address) {
            self.leased = None;
        }
        Ok(())
    }

    /// Replaces all addresses; those of the loopback follow the others'.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpCidr]) {
        self.iface.update_ip_addrs(|list| {
            list.clear();
            for cidr in addresses {
                // As many as fit: the loopback's own come first.
                let _ = list.push(*cidr);
            }
        });
        self.fixed = addresses.to_vec();
    }

    /// Its routes over routers.
    pub fn routes(&mut self) -> Vec<Route> {
        let mut all = Vec::new();
        // smoltcp shows its table only to those who may change it.
        self.iface
            .routes_mut()
            .update(|table| all.extend_from_slice(table));
        all
    }

    /// Adds a route.
    pub fn add_route(&mut self, cidr: IpCidr, via_router: IpAddress) -> Result<(), NetworkError> {
        let mut outcome = Ok(());
        self.iface.routes_mut().update(|table| {
            table.retain(|route| route.cidr != cidr);
            let route = Route {
                cidr,
                via_router,
                preferred_until: None,
                expires_at: None,
            };
            outcome = table.push(route).map_err(|_| NetworkError::LimitReached);
        });
        outcome
    }

    /// Takes a route away; `false` if there is none.
    pub fn remove_route(&mut self, cidr: IpCidr) -> bool {
        let mut found = false;
        self.iface.routes_mut().update(|table| {
            let before = table.len();
            table.retain(|route| route.cidr != cidr);
            found = table.len() != before;
        });
        found
    }

    /// How well it leads to an address: bits of the best prefix, and whether without a router; `None` if it does not.
    pub fn leads_to(&mut self, address: IpAddr) -> Option<(u8, bool)> {
        let address = IpAddress::from(address);
        let routes = self.routes();
        let direct = self.iface.ip_addrs().iter();
        let direct = direct
            .filter(|cidr| cidr.contains_addr(&address))
            .map(|cidr| (cidr.prefix_len(), true));
        let routed = routes
            .iter()
            .filter(|route| route.cidr.contains_addr(&address))
            .map(|route| (route.cidr.prefix_len(), false));
        direct.chain(routed).max()
    }

    /// The address that packets to `remote` come from.
    pub fn source_address(&self, remote: IpAddr) -> Option<IpAddr> {
        let remote = IpAddress::from(remote);
        let source = self.iface.get_source_address(&remote)?;
        // With nothing else to say, smoltcp says the loopback's address of IPv6.
        self.iface.has_ip_addr(source).then(|| source.into())
    }

    /// Whoever wants to see its frames.
    pub(crate) fn add_recorder(&mut self, recorder: Rc<RefCell<dyn Recorder>>) {
        self.device.add_recorder(recorder);
    }

    /// Receives up to a batch of frames. `admit` looks at each connection request and says whether it may pass.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        mut admit: impl FnMut(&mut Interface, &[u8]) -> bool,
    ) -> TakenIn {
        let mut taken = TakenIn::Nothing;
        for _ in 0..BATCH {
            if !self.device.stage() {
                return taken;
            }
            taken = TakenIn::All;
            if !self.enabled {
                self.device.discard();
                continue;
            }
            // Lent to the one that looks at it.
            let frame = core::mem::take(&mut self.device.received);
            let has_routers = matches!(self.device.properties.medium, Medium::Ethernet(_));
            let admitted = (!has_routers || self.routers.admit(&frame, now)) && admit(self, &frame);
            self.device.received = frame;
            if !admitted {
                self.device.discard();
                continue;
            }
            let device = &mut self.device;
            if let (Medium::Ethernet(_), Some(transport)) =
                (device.properties.medium, &device.transport)
            {
                device.recovery.heard(transport, &mut device.received, now);
            }
            let result = self
                .iface
                .poll_ingress_single(now, &mut self.device, &mut self.sockets);
            if result == PollIngressSingleResult::None {
                return taken;
            }
        }
        TakenIn::More
    }

    /// Sends what there is to send. `true`: there may be more to be done at once.
    pub(crate) fn send(&mut self, now: Instant) -> bool {
        self.iface.poll_maintenance(now);
        if !self.enabled || !self.device.link.is_up() {
            return false;
        }
        self.ask_for_retransmissions(now);
        // Each round sends a frame for each socket at most; the link's room bounds them. Mostly one round is enough, and a look at when
        // the sockets are due costs less than another.
        let changed = self.send_round(now);
        self.next = self.next_of_sockets(now);
        if changed && self.next.is_some_and(|next| next <= now) {
            while self.send_round(now) {}
            self.next = self.next_of_sockets(now);
        }
        self.device.link.flush()
    }

    fn send_round(&mut self, now: Instant) -> bool {
        let result = self
            .iface
            .poll_egress(now, &mut self.device, &mut self.sockets);
        result == PollResult::SocketStateChanged
    }

    /// When it wants to be looked at again, as it was after it sent.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        if !self.enabled || !self.device.link.is_up() {
            return None;
        }
        let due = self.device.recovery.next_time();
        self.next.into_iter().chain(due).min()
    }

    /// When a socket wants to be looked at again, after a look.
    fn next_of_sockets(&mut self, now: Instant) -> Option<Instant> {
        let next = self.iface.poll_at(now, &self.sockets)?;
        // Sockets that want to be looked at now say 0. Any other time that has passed is that of smoltcp's last question for
        // a router, which it never gives up by itself.
        if next > Instant::ZERO && next <= now {
            self.give_up_routers(now);
            return self.iface.poll_at(now, &self.sockets);
        }
        Some(next)
    }

    /// Ends the search for a router (RFC 4861, 6.3.7): an advertisement of a router that leads nowhere, from ourselves. Those of
    /// others are heard all the same.
    fn give_up_routers(&mut self, now: Instant) {
        let (Medium::Ethernet(mac), false) = (self.device.properties.medium, self.device.staged)
        else {
            return;
        };
        let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            hop_limit: 0,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: Duration::ZERO,
            reachable_time: Duration::ZERO,
            retrans_time: Duration::ZERO,
            lladdr: None,
            mtu: None,
            prefix_info: None,
        });
        let ip = Ipv6Repr {
            src_addr: link_local(mac),
            dst_addr: IPV6_LINK_LOCAL_ALL_NODES,
            next_header: IpProtocol::Icmpv6,
            payload_len: advertisement.buffer_len(),
            hop_limit: 255,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(mac),
            dst_addr: EthernetAddress(mac),
            ethertype: EthernetProtocol::Ipv6,
        };
        let len = ethernet.buffer_len() + ip.buffer_len() + advertisement.buffer_len();
        let mut bytes = alloc::vec![0; len];
        let mut frame = EthernetFrame::new_unchecked(bytes.as_mut_slice());
        ethernet.emit(&mut frame);
        let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet);
        let mut message = Icmpv6Packet::new_unchecked(packet.payload_mut());
        let checksums = ChecksumCapabilities::default();
        advertisement.emit(&ip.src_addr, &ip.dst_addr, &mut message, &checksums);
        self.hear_own(bytes, now);
    }

    /// Receives a frame that no link has seen. Nothing is staged.
    fn hear_own(&mut self, frame: Vec<u8>, now: Instant) {
        self.device.received = frame;
        self.device.staged = true;
        self.iface
            .poll_ingress_single(now, &mut self.device, &mut self.sockets);
    }

    /// A TCP connection begins: of a socket whose congestion control is here.
    pub(crate) fn open_flow(&mut self, local: SocketAddr, remote: SocketAddr, now: Instant) {
        if self.device.recovery.count() >= FLOWS_MAX {
            let sockets = self.sockets.iter().filter_map(|(_, socket)| match socket {
                Socket::Tcp(tcp) => Some(key(tcp.local_endpoint()?, tcp.remote_endpoint()?)),
                _ => None,
            });
            let live: BTreeSet<Key> = sockets.collect();
            self.device.recovery.retain(|key| live.contains(key));
        }
        let key = key(convert::endpoint(local), convert::endpoint(remote));
        self.device.recovery.open(key, now);
    }

    /// Has smoltcp send again what is due.
    fn ask_for_retransmissions(&mut self, now: Instant) {
        if self.device.staged {
            return;
        }
        for frame in self.device.recovery.due(now) {
            self.hear_own(frame, now);
        }
    }

    /// Takes in what DHCP found out since the last time; `None` without news.
    pub(crate) fn lease_news(&mut self) -> Option<Lease> {
        let handle = self.dhcp?;
        let event = self.sockets.get_mut::<dhcpv4::Socket>(handle).poll()?;
        let (address, router, servers) = match event {
            dhcpv4::Event::Configured(config) => (
                Some(IpCidr::Ipv4(config.address)),
                config.router,
                config.dns_servers.iter().map(|s| IpAddr::V4(*s)).collect(),
            ),
            dhcpv4::Event::Deconfigured => (None, None, Vec::new()),
        };
        self.release();
        if let Some(address) = address
            && self.push_address(address).is_ok()
        {
            self.leased = Some(address);
        }
        if let Some(router) = router {
            let any = IpCidr::new(Ipv4Address::UNSPECIFIED.into(), 0);
            let _ = self.add_route(any, router.into());
        }
        Some(Lease {
            name_servers: servers,
        })
    }

    /// Forgets the lease.
    fn release(&mut self) {
        if let Some(leased) = self.leased.take() {
            self.iface
                .update_ip_addrs(|list| list.retain(|cidr| *cidr != leased));
            self.iface.routes_mut().remove_default_ipv4_route();
        }
    }
}

/// The link-local address of a hardware address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Address {
    let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Address::new(
        0xfe80,
        0,
        0,
        0,
        half(a ^ 2, b),
        half(c, 0xff),
        half(0xfe, d),
        half(e, f),
    )
}
