//! Which of a driver's threads this is: the one that it started on is 0, then in the order of their start.

use std::cell::Cell;

thread_local! {
    static NUMBER: Cell<u16> = const { Cell::new(0) };
}

pub(crate) fn number() -> u16 {
    NUMBER.get()
}

/// `work` on a thread of this number.
pub(crate) fn numbered(number: u16, work: ddk::Work) -> ddk::Work {
    Box::new(move || {
        NUMBER.set(number);
        work();
    })
}
