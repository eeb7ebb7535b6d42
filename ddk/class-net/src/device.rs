//! What a driver of a network interface implements.

use alloc::vec::Vec;

use ddk::{Driver, DriverError, EventQueue, PlatformError};
use proto::net::{
    Link, MacAddress, Offloads, PREFIX_MAX, ReceiveMode, Segmentation, SegmentationSum, Status,
};

pub use ddk::Segment;

/// What an interface is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicInfo {
    /// Its address.
    pub mac: MacAddress,
    /// Longest IP packet in bytes.
    pub mtu: u32,
    /// Longest frame to be sent in bytes, if it is not to be segmented.
    pub frame_max: u32,
    /// Longest frame to be segmented in bytes; 0 without segmentation.
    pub segmented_max: u32,
    /// Shortest receive buffer in bytes.
    pub rx_buffer_min: u32,
    /// State of the link.
    pub link: Link,
    /// What the device can.
    pub offloads: Offloads,
    /// Which of the receive offloads are on.
    pub receive_offloads: Offloads,
    /// What the checksum field of frames to be segmented holds.
    pub segmentation_sum: SegmentationSum,
}

/// What the device counted since it was started and the class layer cannot see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceCounters {
    /// Frames received with an error and dropped.
    pub rx_errors: u64,
    /// Frames dropped for want of a buffer.
    pub rx_missed: u64,
}

/// Limits of a queue pair, which do not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// Most receive buffers that the device has at a time.
    pub rx_depth: u16,
    /// Most frames to be sent that the device has at a time.
    pub tx_depth: u16,
    /// Most device segments of a receive buffer.
    pub rx_segments: u16,
    /// Most device segments of a frame to be sent, at most [`SEGMENTS_MAX`](crate::SEGMENTS_MAX).
    pub tx_segments: u16,
}

/// Why a queue did not take a buffer or a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No room; again after something came back.
    Full,
    /// The device cannot do it.
    Rejected(Status),
}

/// A checksum that is to be computed, or was left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checksum {
    /// First byte of the frame that it covers; it goes to the end.
    pub start: u16,
    /// Where it is, from `start`.
    pub offset: u16,
}

/// How a frame is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentRequest {
    /// Which protocols; one that the device offers.
    pub kind: Segmentation,
    /// Bytes of payload of each segment, not 0.
    pub size: u16,
    /// Bytes of the headers, Ethernet to TCP; less than the frame has.
    pub header_length: u16,
}

/// A frame to be sent that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Comes back when it was sent. Below the queue's depth, and of one frame at a time.
    pub token: u32,
    /// Its bytes by device address, in order.
    pub segments: &'a [Segment],
    /// Bytes in all.
    pub length: u32,
    /// The checksum that the device computes; the field lies inside of the frame.
    pub checksum: Option<Checksum>,
    /// How the device cuts it; there is a checksum then.
    pub segmentation: Option<SegmentRequest>,
}

/// A receive buffer that the device has filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// That of [`NetQueue::provide`].
    pub token: u32,
    /// Bytes in the buffer.
    pub length: u32,
    /// [`proto::net::rx_flags`].
    pub flags: u16,
    /// With `CHECKSUM_PARTIAL`.
    pub checksum: Checksum,
    /// Which segments the device put together.
    pub segmentation: Segmentation,
    /// Bytes of payload of each of those.
    pub segment_size: u16,
    /// Bytes of `prefix` that count.
    pub prefix_length: u8,
    /// Bytes of the frame that the device put into memory of the driver, before those in the buffer.
    pub prefix: [u8; PREFIX_MAX],
}

/// What is to interrupt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wish {
    /// The next received frame.
    Received,
    /// The next frame that was received or sent.
    Any,
}

/// A queue pair. Nothing here waits, allocates or logs.
pub trait NetQueue: Send {
    /// Its limits.
    fn limits(&self) -> QueueLimits;

    /// Gives the device a receive buffer. It sees it with [`NetQueue::kick`].
    ///
    /// # Errors
    /// See [`PushError`].
    fn provide(&mut self, token: u32, segments: &[Segment]) -> Result<(), PushError>;

    /// The next receive buffer that the device has filled. The parts of a frame follow each other.
    ///
    /// # Errors
    /// When the device broke the rules or is gone: it has to be reset.
    fn received(&mut self) -> Result<Option<Received>, DriverError>;

    /// Queues a frame. The device sees it with [`NetQueue::kick`].
    ///
    /// # Errors
    /// See [`PushError`].
    fn transmit(&mut self, frame: &Frame<'_>) -> Result<(), PushError>;

    /// The token of the next frame that the device has finished with.
    ///
    /// # Errors
    /// As [`NetQueue::received`].
    fn sent(&mut self) -> Result<Option<u32>, DriverError>;

    /// Shows the device what was provided and queued.
    fn kick(&mut self);

    /// Asks for an interrupt with the next frame of these. `true`: there is one already, look again before sleeping.
    fn arm(&mut self, wish: Wish) -> bool;

    /// Interrupts are of no use until [`NetQueue::arm`].
    fn disarm(&mut self);

    /// How often the queue is to be looked at while it has buffers or frames, in nanoseconds: for devices whose interrupt cannot be had.
    /// Each look is announced with [`NetQueue::interrupted`].
    fn poll_ns(&self) -> Option<u64> {
        None
    }

    /// An interrupt of the queue came. `true`: the device has other news as well, which [`NetDevice::changed`] is to look at; for
    /// devices with one interrupt for everything.
    fn interrupted(&mut self) -> bool {
        false
    }

    /// Delivers the queue's interrupts to `events` with this key.
    ///
    /// # Errors
    /// When the system refuses.
    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;
}

/// A driver of a network interface. What is set here holds until it is set anew, also over [`NetDevice::reset`].
#[expect(
    async_fn_in_trait,
    reason = "a driver's control path runs on one thread"
)]
pub trait NetDevice: Driver {
    /// Its queue pairs.
    type Queue: NetQueue + 'static;

    /// What the interface is like now.
    fn info(&self) -> NicInfo;

    /// The queue pairs, once after start.
    fn take_queues(&mut self) -> Vec<Self::Queue>;

    /// Resets the device, after which it uses no memory any more, drops `old`, and takes it into service
    /// again with as many new queues.
    ///
    /// # Errors
    /// When the device does not come back.
    async fn reset(&mut self, old: Vec<Self::Queue>) -> Result<Vec<Self::Queue>, DriverError>;

    /// Delivers interrupts that announce changes of the link to `events`.
    ///
    /// # Errors
    /// When the system refuses.
    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// Looks what has changed after such an interrupt; [`NetDevice::info`] tells the news.
    ///
    /// # Errors
    /// When the device wants a reset, or is gone.
    async fn changed(&mut self) -> Result<(), DriverError>;

    /// Which frames to pass on; `multicast` counts with [`ReceiveMode::Filtered`].
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] when it passes on fewer frames than that and cannot help it.
    async fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), DriverError>;

    /// Another address.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`].
    async fn set_mac(&mut self, mac: MacAddress) -> Result<(), DriverError>;

    /// Switches those receive offloads on that it has of these, and the others off as far as it can;
    /// [`NetDevice::info`] tells which are on.
    ///
    /// # Errors
    /// When the device does not answer.
    async fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), DriverError>;

    /// Flows are to be steered over the first `count` queue pairs, at least one.
    ///
    /// # Errors
    /// When the device does not answer.
    async fn set_active_queues(&mut self, count: u16) -> Result<(), DriverError>;

    /// What the device counted.
    fn counters(&mut self) -> DeviceCounters {
        DeviceCounters::default()
    }
}
