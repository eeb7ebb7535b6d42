//! A client's session, as its worker sees it.

use alloc::boxed::Box;

use ddk_class_core::{Buffers, Doorbell, SessionId};
use proto::net::{Received, RxBuffer, Sent, Transmit};
use ring::{Consumer, Layout, LayoutError, Memory, Producer};

/// Where the rings of a session are in its memory, in bytes; that of free buffers is at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingOffsets {
    /// Received buffers.
    pub received: usize,
    /// Frames to be sent.
    pub transmit: usize,
    /// Sent frames.
    pub sent: usize,
    /// Bytes in all.
    pub len: usize,
}

impl RingOffsets {
    /// The layout of a session with these depths.
    ///
    /// # Errors
    /// When a depth is no power of two or too big.
    pub fn of(rx_depth: u16, tx_depth: u16) -> Result<RingOffsets, LayoutError> {
        let (rx, tx) = (u32::from(rx_depth), u32::from(tx_depth));
        let received = Layout::of::<RxBuffer>(rx)?.size_bytes();
        let transmit = received + Layout::of::<Received>(rx)?.size_bytes();
        let sent = transmit + Layout::of::<Transmit>(tx)?.size_bytes();
        let len = sent + Layout::of::<Sent>(tx)?.size_bytes();
        Ok(RingOffsets {
            received,
            transmit,
            sent,
            len,
        })
    }
}

/// A session: rings, doorbells, buffers.
pub struct Session<M> {
    pub(crate) id: SessionId,
    pub(crate) rx_depth: u16,
    pub(crate) tx_depth: u16,
    pub(crate) free: Consumer<RxBuffer, M>,
    pub(crate) received: Producer<Received, M>,
    pub(crate) transmit: Consumer<Transmit, M>,
    pub(crate) sent: Producer<Sent, M>,
    pub(crate) to_driver: Box<dyn Doorbell>,
    pub(crate) to_client: Box<dyn Doorbell>,
    pub(crate) buffers: Buffers,
    /// Receive buffers that the client gave and has no answer to.
    pub(crate) provided: u16,
    /// Fragments that the client gave and has no answer to.
    pub(crate) fragments: u16,
    /// A buffer that the queue had no room for.
    pub(crate) waiting_rx: Option<RxBuffer>,
    /// The client is gone or broke the protocol: nothing is taken, nothing is answered.
    pub(crate) closed: bool,
}

impl<M: Memory + Clone> Session<M> {
    /// A session on fresh (zeroed) ring memory. The client rings `to_driver`, the worker `to_client`.
    ///
    /// # Errors
    /// When the rings do not fit.
    pub fn new(
        id: SessionId,
        (rx_depth, tx_depth): (u16, u16),
        memory: M,
        to_driver: Box<dyn Doorbell>,
        to_client: Box<dyn Doorbell>,
    ) -> Result<Session<M>, LayoutError> {
        let at = RingOffsets::of(rx_depth, tx_depth)?;
        let (rx, tx) = (u32::from(rx_depth), u32::from(tx_depth));
        Ok(Session {
            id,
            rx_depth,
            tx_depth,
            free: Consumer::new(memory.clone(), 0, rx)?,
            received: Producer::new(memory.clone(), at.received, rx)?,
            transmit: Consumer::new(memory.clone(), at.transmit, tx)?,
            sent: Producer::new(memory, at.sent, tx)?,
            to_driver,
            to_client,
            buffers: Buffers::default(),
            provided: 0,
            fragments: 0,
            waiting_rx: None,
            closed: false,
        })
    }
}
