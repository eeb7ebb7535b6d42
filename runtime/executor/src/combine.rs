//! Two futures at once.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// What came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Either<A, B> {
    /// The first future's value.
    First(A),
    /// The second future's value.
    Second(B),
}

/// Waits for the first of two futures; the other is dropped. If both are ready the first one counts.
pub async fn select<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|context| {
        if let Poll::Ready(value) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// Waits for both.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut value_a, mut value_b) = (None, None);
    poll_fn(|context| {
        if value_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            value_a = Some(value);
        }
        if value_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            value_b = Some(value);
        }
        match (value_a.take(), value_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (value_a, value_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
