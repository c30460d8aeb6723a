//! What is in flight: a fixed number of slots, each with a future, polled only when woken.
//!
//! Takes futures; gives what they resolved to in batches. Invariant: a batch holds *every* future that was resolved
//! before any other in it (in the order in which their wakers were called), which is what [`super::verdict`] builds on.
//! A `FuturesUnordered` does not promise that: it may yield early, between two that are ready.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;

/// Slots with futures in them.
pub(super) struct Flight<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
}

struct Slot<T> {
    future: Option<BoxFuture<'static, T>>,
    signal: Arc<Signal>,
    waker: Waker,
}

/// Which slots were woken since they were last polled, in the order of the wakes.
#[derive(Default)]
struct Ready {
    slots: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

struct Signal {
    slot: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl<T> Flight<T> {
    /// No more than `window` futures at a time.
    pub(super) fn new(window: usize) -> Self {
        let ready = Arc::new(Ready::default());
        let slots = (0..window)
            .map(|slot| {
                let signal = Arc::new(Signal { slot, queued: AtomicBool::new(false), ready: ready.clone() });
                Slot { future: None, waker: Waker::from(signal.clone()), signal }
            })
            .collect();
        Self { slots, free: (0..window).rev().collect(), ready }
    }

    /// How many more futures it takes.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Puts a future into a free slot; it is first polled with the next batch, in the order of these calls.
    /// `None` if there is no room.
    pub(super) fn start(&mut self, future: BoxFuture<'static, T>) -> Option<usize> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(index)?;
        slot.future = Some(future);
        slot.signal.wake_by_ref();
        Some(index)
    }

    /// What has resolved: at least one, each with its slot, which is free again. Pending while nothing has.
    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Vec<(usize, T)>> {
        self.ready.task.register(cx.waker());
        let mut batch = Vec::new();
        // Ends: nothing is started meanwhile, and each slot is woken a bounded number of times.
        loop {
            let woken = std::mem::take(&mut *self.ready.slots.lock().unwrap_or_else(PoisonError::into_inner));
            if woken.is_empty() {
                break;
            }
            for index in woken {
                let Some(slot) = self.slots.get_mut(index) else { continue };
                // Before the poll, so that a wake during it is not lost.
                slot.signal.queued.store(false, Ordering::SeqCst);
                let Some(future) = slot.future.as_mut() else { continue };
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
                    slot.future = None;
                    self.free.push(index);
                    batch.push((index, value));
                }
            }
        }
        if batch.is_empty() { Poll::Pending } else { Poll::Ready(batch) }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.ready.slots.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
            self.ready.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_batch_holds_all_that_resolved_and_frees_their_slots() {
        let mut flight = Flight::new(3);
        let (senders, slots): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (sender, receiver) = oneshot::channel::<u8>();
                (sender, flight.start(receiver.map(Result::unwrap).boxed()).unwrap())
            })
            .unzip();
        assert_eq!(flight.room(), 0);
        assert!(flight.start(futures_util::future::pending().boxed()).is_none());
        let early = std::future::poll_fn(|cx| Poll::Ready(flight.poll_batch(cx))).await;
        assert!(early.is_pending());
        let mut senders = senders.into_iter();
        // Dropped, it would resolve as well.
        let _unresolved = senders.next();
        for (value, sender) in (1..).zip(senders) {
            sender.send(value).unwrap();
        }
        let batch = std::future::poll_fn(|cx| flight.poll_batch(cx)).await;
        assert_eq!(batch, [(slots[1], 1), (slots[2], 2)]);
        assert_eq!(flight.room(), 2);
    }

    #[tokio::test]
    async fn futures_are_first_polled_in_the_order_of_their_start() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut flight = Flight::new(8);
        for place in 0..8 {
            let order = order.clone();
            flight.start(async move { order.lock().unwrap().push(place) }.boxed()).unwrap();
        }
        assert_eq!(std::future::poll_fn(|cx| flight.poll_batch(cx)).await.len(), 8);
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
    }
}
