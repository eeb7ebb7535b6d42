//! Which of a driver's threads this is: the one that it started on is 0, then in the order of their start.

use std::cell::Cell;

thread_local! {
    static NUMBER: Cell<u16> = const { Cell::new(0) };
}

pub(crate) fn number() -> u16 {
    NUMBER.get()
}

/// Tells the thread from others that live.
pub(crate) fn identity() -> usize {
    NUMBER.with(|number| std::ptr::from_ref(number).addr())
}

/// Does `work` as this thread.
pub(crate) fn within<R>(number: u16, work: impl FnOnce() -> R) -> R {
    let before = NUMBER.replace(number);
    let done = work();
    NUMBER.set(before);
    done
}

/// `work` on a thread of this number.
pub(crate) fn numbered(number: u16, work: ddk::Work) -> ddk::Work {
    Box::new(move || within(number, work))
}
