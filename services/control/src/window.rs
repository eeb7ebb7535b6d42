//! What is on the line and was not received yet.

use alloc::collections::VecDeque;

use control_link::{FRAME_OVERHEAD_BYTES, WINDOW_BYTES};

/// How long the host may take to tell that it received something. Then what is on the line counts as lost:
/// nobody may be there, and a window that stays shut would keep a later host from being answered.
const SILENCE_NS: u64 = 2_000_000_000;

/// The frames on the line.
#[derive(Clone, Debug, Default)]
pub struct Window {
    costs: VecDeque<usize>,
    cost: usize,
    /// When the host last said something, or the window was empty.
    heard_ns: u64,
}

impl Window {
    /// Whether a frame of `bytes` may go out now. One always may when nothing else is on the line.
    pub fn has_room(&mut self, bytes: usize, now_ns: u64) -> bool {
        if self.costs.is_empty() {
            self.heard_ns = now_ns;
            return true;
        }
        if now_ns.saturating_sub(self.heard_ns) >= SILENCE_NS {
            self.clear();
            self.heard_ns = now_ns;
            return true;
        }
        self.cost.saturating_add(cost(bytes)) <= WINDOW_BYTES
    }

    /// When to look again whether there is room, although nothing was heard.
    pub fn retry_at_ns(&self) -> u64 {
        self.heard_ns.saturating_add(SILENCE_NS)
    }

    /// A frame of `bytes` went out.
    pub fn sent(&mut self, bytes: usize) {
        self.costs.push_back(cost(bytes));
        self.cost = self.cost.saturating_add(cost(bytes));
    }

    /// The host has received so many more.
    pub fn received(&mut self, frames: u32, now_ns: u64) {
        for _ in 0..frames {
            let Some(cost) = self.costs.pop_front() else {
                break;
            };
            self.cost = self.cost.saturating_sub(cost);
        }
        self.heard_ns = now_ns;
    }

    /// Nothing is on the line any more.
    pub fn clear(&mut self) {
        self.costs.clear();
        self.cost = 0;
    }
}

fn cost(bytes: usize) -> usize {
    bytes.saturating_add(FRAME_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_on_the_line_than_a_socket_holds() {
        let mut window = Window::default();
        let mut frames = 0;
        while window.has_room(5000, 0) {
            window.sent(5000);
            frames += 1;
        }
        assert_eq!(frames, WINDOW_BYTES / (5000 + FRAME_OVERHEAD_BYTES));
        window.received(2, 1);
        assert!(window.has_room(5000, 1) && window.has_room(2 * 5000, 1));
        assert!(!window.has_room(3 * 5000, 1));
        // More than was sent, as a confused host might say.
        window.received(u32::MAX, 1);
        assert!(window.has_room(usize::MAX, 1), "one frame always may");
    }

    #[test]
    fn a_host_that_is_gone_does_not_shut_the_window_for_good() {
        let mut window = Window::default();
        assert!(window.has_room(WINDOW_BYTES, 5));
        window.sent(WINDOW_BYTES);
        assert!(!window.has_room(1, 5 + SILENCE_NS - 1));
        assert_eq!(window.retry_at_ns(), 5 + SILENCE_NS);
        assert!(window.has_room(1, 5 + SILENCE_NS));
    }
}
