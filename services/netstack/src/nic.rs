//! A network interface of the device manager as a link. It outlives its driver: while there is none the link is down, and
//! a thread waits for the next one, so that nobody else does.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;

use executor::{Deadline, Either, select};
use ipc::Channel;
use net_client::{
    Checksum, FramePort, MacAddress, NetInfo, Nic, Offload, Offloads, ReceiveMode, RxChecksum,
    Segment, Segmentation, SegmentationSum, SessionError,
};
use proto::devmgr::EndpointsClient;
use proto::inet::Configuration;
use proto::net::NetEndpointClient;
use sys::{AsHandle, Mutex, Signals};

use crate::link::{self, About, Link, Medium, Properties};
use crate::segment;
use crate::serve::{Net, now};

/// Buffers each way.
const BUFFERS: u16 = 256;
/// Buffers that a long frame needs at most: 64 KiB in pieces of 2 KiB, and its headers.
const LONG_FRAME_BUFFERS: usize = 34;
/// Longest frame to be cut by the device: room for its headers in what IP can say.
const SEGMENTED_MAX: usize = 65_535;
/// How long one wait for a driver takes; the next one follows.
const RECOVERY_WAIT: Duration = Duration::from_secs(60);
/// Between looks for a driver that was given up.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);
/// Looks at what a driver that is gone has received.
const LAST_LOOKS: usize = 8;
/// How long one question for the link's state waits for a change.
const LINK_WAIT: Duration = Duration::from_secs(3600);

/// What the link and the task that looks after it share.
struct Shared {
    port: RefCell<Option<FramePort>>,
    carrier: Arc<AtomicBool>,
    recoveries: Cell<u64>,
    driver: String,
    sum_with_length: bool,
}

/// The link.
struct NicLink {
    shared: Rc<Shared>,
    properties: Properties,
}

/// What an interface offers, as a link's properties.
fn properties(info: &NetInfo) -> Properties {
    let tso = |offload| {
        let cut = info.offloads.contains(offload)
            && usize::from(info.fragments_max) >= LONG_FRAME_BUFFERS;
        cut.then_some((info.segmented_max as usize).min(SEGMENTED_MAX))
    };
    let MacAddress(mac) = info.mac;
    Properties {
        medium: Medium::Ethernet(mac),
        mtu: info.mtu as usize,
        offloads: link::Offloads {
            tx_checksum: info.offloads.contains(Offloads::TX_CHECKSUM),
            tx_tcp4: tso(Offloads::TX_TCP4),
            tx_tcp6: tso(Offloads::TX_TCP6),
            rx_checksum: info.offloads.contains(Offloads::RX_CHECKSUM),
        },
    }
}

impl Link for NicLink {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn is_up(&self) -> bool {
        self.shared.carrier.load(Ordering::Relaxed) && self.shared.port.borrow().is_some()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum> {
        let mut port = self.shared.port.borrow_mut();
        let port = port.as_mut()?;
        loop {
            // Of an error the end of its channel says what is to be done.
            if let Some(checksum) = port.receive_to_end(frame).ok()? {
                return Some(checksum);
            }
            // Asks for the doorbell only when there is nothing left of either kind; that ends, because nothing is sent
            // meanwhile.
            if !matches!(port.arm(), Ok(true)) {
                return None;
            }
        }
    }

    fn can_send(&mut self) -> bool {
        let mut port = self.shared.port.borrow_mut();
        let Some(port) = port.as_mut() else {
            return false;
        };
        if port.session().room() < LONG_FRAME_BUFFERS && port.reclaim().is_err() {
            return false;
        }
        port.session().room() >= LONG_FRAME_BUFFERS
    }

    fn send(&mut self, frame: &mut [u8], about: About<'_>) -> bool {
        let mut port = self.shared.port.borrow_mut();
        let Some(port) = port.as_mut() else {
            return false;
        };
        let mut offload = Offload::default();
        if self.properties.offloads.tx_checksum
            && let Some(transport) = about.transport
        {
            let sum_with_length = self.shared.sum_with_length;
            let size = about.segment_size;
            if let Some(finish) = segment::prepare(transport, frame, size, sum_with_length) {
                offload.checksum = Some(Checksum {
                    start: finish.start,
                    offset: finish.offset,
                });
                offload.segment = size.map(|size| Segment {
                    kind: if finish.is_v6 {
                        Segmentation::TCP6
                    } else {
                        Segmentation::TCP4
                    },
                    size: size.get(),
                    header_length: finish.header_length,
                });
            }
        }
        matches!(port.send(frame, offload), Ok(true))
    }

    fn flush(&mut self) -> bool {
        let mut port = self.shared.port.borrow_mut();
        let Some(port) = port.as_mut() else {
            return false;
        };
        // A driver that is gone has no doorbell.
        let _ = port.flush();
        // Looks for room have taken the wish for the doorbell back.
        port.session().room() < LONG_FRAME_BUFFERS && matches!(port.arm(), Ok(true))
    }

    fn recoveries(&self) -> u64 {
        self.shared.recoveries.get()
    }

    fn driver(&self) -> String {
        self.shared.driver.clone()
    }
}

/// Opens an interface of the device manager. Blocks.
fn open(endpoint: Channel, name: Channel) -> Result<(NetInfo, FramePort), SessionError> {
    let nic = Nic::named(endpoint, name)?;
    let info = nic.info().clone();
    let mut port = FramePort::new(&nic, 0, BUFFERS)?;
    // Which groups matter changes with every address, and there are few of them.
    port.session()
        .set_receive_mode(ReceiveMode::AllMulticast, &[])?;
    if info.offloads.contains(Offloads::RX_CHECKSUM) {
        port.session().set_receive_offloads(Offloads::RX_CHECKSUM)?;
    }
    Ok((info, port))
}

/// Adds the interface `name` to the stack and looks after it, for ever.
pub async fn attach(
    net: Rc<Net>,
    endpoints: Channel,
    name: String,
    endpoint: Channel,
    own_name: Channel,
) {
    let (info, port) = match open(endpoint, own_name) {
        Ok(opened) => opened,
        Err(error) => return rt::error!("net:/{name}: {error}"),
    };
    let shared = Rc::new(Shared {
        port: RefCell::new(Some(port)),
        carrier: Arc::new(AtomicBool::new(info.link.is_up())),
        recoveries: Cell::new(0),
        driver: info.driver.clone(),
        sum_with_length: info.segmentation_sum == SegmentationSum::WithLength,
    });
    let properties = properties(&info);
    let link = NicLink {
        shared: shared.clone(),
        properties,
    };
    let added = {
        let mut stack = net.stack();
        let added = stack.add_interface(&name, Box::new(link), now());
        if let Ok(interface) = stack.interface_mut(&name) {
            interface.configure(Configuration::Dhcp);
        }
        added
    };
    if let Err(error) = added {
        return rt::error!("net:/{name}: {error}");
    }
    rt::info!(
        "net:/{name}: {} at {}, MTU {}",
        info.driver,
        info.mac,
        info.mtu
    );
    net.interfaces_changed();
    loop {
        watch_link(&net, &shared);
        watch(&net, &shared).await;
        let Some(port) = shared.port.borrow_mut().take() else {
            return;
        };
        rt::info!("net:/{name}: waiting for its driver");
        net.interfaces_changed();
        let Some(found) = recover(&endpoints, &name, port, properties).await else {
            return;
        };
        shared.carrier.store(true, Ordering::Relaxed);
        shared.recoveries.set(shared.recoveries.get() + 1);
        *shared.port.borrow_mut() = Some(found);
        rt::info!("net:/{name}: its driver is back");
        net.interfaces_changed();
    }
}

/// Kicks the stack with each doorbell, until the driver is gone.
async fn watch(net: &Net, shared: &Shared) {
    let sources = {
        let mut port = shared.port.borrow_mut();
        let Some(port) = port.as_mut() else {
            return;
        };
        let event = net
            .executor
            .watch(port.session().event(), Signals::SIGNALED);
        let closed = net
            .executor
            .watch(port.session().channel(), Signals::PEER_CLOSED);
        event.and_then(|event| Ok((event, closed?)))
    };
    let (event, closed) = match sources {
        Ok(sources) => sources,
        Err(error) => return rt::error!("network interface: {error}"),
    };
    loop {
        let woken = select(
            closed.next(Deadline::FOREVER),
            event.next(Deadline::FOREVER),
        )
        .await;
        match woken {
            Either::First(_) => break,
            Either::Second(_) => net.kick(),
        }
    }
    // What the driver had received before it went is still in the ring.
    for _ in 0..LAST_LOOKS {
        net.kick();
        net.executor.yield_now().await;
    }
}

/// What a thread leaves for a task.
struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Waits in a thread for the next driver of an interface; `None` if that cannot be done.
async fn recover(
    endpoints: &Channel,
    name: &str,
    port: FramePort,
    properties: Properties,
) -> Option<FramePort> {
    let endpoints = EndpointsClient::new(endpoints.duplicate().ok()?);
    let name = name.to_string();
    let slot = Arc::new(Mutex::new(Slot {
        value: None,
        waker: None,
    }));
    let result = slot.clone();
    let search = move || {
        let found = find_driver(&endpoints, &name, port, properties);
        let mut slot = result.lock();
        slot.value = Some(found);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    };
    let thread = rt::thread::builder("nic-recovery").spawn(search);
    if let Err(error) = thread {
        rt::error!("network interface: {error}");
        return None;
    }
    let found = poll_fn(|context| {
        let mut slot = slot.lock();
        match slot.value.take() {
            Some(found) => Poll::Ready(found),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    Some(found.await)
}

/// Blocks until the interface is served again.
fn find_driver(
    endpoints: &EndpointsClient,
    name: &str,
    mut port: FramePort,
    wanted: Properties,
) -> FramePort {
    loop {
        match port.session().recover(Deadline::after(RECOVERY_WAIT)) {
            Ok(()) => return port,
            Err(SessionError::TimedOut) => {}
            Err(_) => break,
        }
    }
    // Given up by the device manager, or another device: whoever gets the name next is the interface.
    loop {
        rt::thread::sleep(SEARCH_PAUSE);
        let Ok((_, endpoint, own_name)) = endpoints.open(name) else {
            continue;
        };
        match open(endpoint, own_name) {
            Ok((info, port)) if properties(&info) == wanted => return port,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Follows the link's state in a thread, until the driver is gone.
fn watch_link(net: &Rc<Net>, shared: &Shared) {
    let endpoint = {
        let mut port = shared.port.borrow_mut();
        let endpoint = port
            .as_mut()
            .map(|p| p.session().endpoint().channel().duplicate());
        match endpoint {
            Some(Ok(endpoint)) => endpoint,
            _ => return,
        }
    };
    let client = NetEndpointClient::new(endpoint).with_timeout(LINK_WAIT);
    let carrier = shared.carrier.clone();
    let changed = Arc::new(Mutex::new(Slot {
        value: None,
        waker: None,
    }));
    let told = changed.clone();
    let follow = move || {
        let mut known = 0;
        loop {
            match client.changed(known) {
                Ok(info) => {
                    known = info.generation;
                    carrier.store(info.link.is_up(), Ordering::Relaxed);
                }
                Err(ipc::CallError::Transport(ipc::Error::TimedOut)) => continue,
                Err(_) => break,
            }
            let mut slot = told.lock();
            slot.value = Some(true);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
        let mut slot = told.lock();
        slot.value = Some(false);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    };
    if let Err(error) = rt::thread::builder("nic-link").spawn(follow) {
        return rt::warn!("the link's state is not followed: {error}");
    }
    let net = net.clone();
    let executor = net.executor.clone();
    let tell = async move {
        loop {
            let goes_on = poll_fn(|context| {
                let mut slot = changed.lock();
                match slot.value.take() {
                    Some(goes_on) => Poll::Ready(goes_on),
                    None => {
                        slot.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            });
            if !goes_on.await {
                return;
            }
            net.interfaces_changed();
        }
    };
    executor.spawn(tell).detach();
}
