//! What is under way on one connection, and for how long its peer may keep it open.
//!
//! Takes: requests as they begin, pieces of answers as they are handed on, bytes as they are written. Gives: when to look
//! again, and whether to end the connection or to drop it. Never: drops one that owes its peer an answer; lets a peer
//! that sends nothing, or takes nothing, hold its place.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Bytes a second that a peer must take of what is left for it once it asks for nothing more.
const RATE_MIN: u64 = 512;

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// From its acceptance, or from the end of the last answer, to the end of a request's head.
    pub(super) head: Duration,
    /// The longest that the peer may take nothing of an answer.
    pub(super) stall: Duration,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time.
    Wait(Instant),
    /// It takes no new requests; what is on its way is sent.
    End,
    /// It is closed.
    Drop,
}

/// What is under way on one connection.
#[derive(Debug)]
pub(super) struct Flight {
    bounds: Bounds,
    opened: Instant,
    /// Bytes written to it so far.
    written: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each request under way: since when the peer could have taken what was handed on; none while an answer is awaited.
    requests: HashMap<u64, Option<Instant>>,
    /// Requests begun so far.
    begun: u64,
    /// When the last request ended.
    idle_since: Option<Instant>,
    /// Once it is being ended: bytes written when that was last looked at, and when.
    ending: Option<(u64, Instant)>,
}

impl Flight {
    /// A connection that was accepted at this time, with the count of what is written to it.
    pub(super) fn new(bounds: Bounds, opened: Instant, written: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { bounds, opened, written, state: Mutex::default() })
    }

    /// A request's head is there.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.requests.insert(number, None);
        drop(state);
        Request { flight: Arc::clone(self), number }
    }

    /// Whether any request has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.lock().begun > 0
    }

    /// What is to be done now. After [`Verdict::End`] the connection is on its way to its end.
    pub(super) fn judge(&self, now: Instant) -> Verdict {
        let Bounds { head, stall } = self.bounds;
        let mut state = self.lock();
        let until = |at: Instant, then: Verdict| if now < at { Verdict::Wait(at) } else { then };
        if state.begun == 0 {
            // Nothing was asked, so nothing is lost.
            return until(self.opened + head, Verdict::Drop);
        }
        if !state.requests.is_empty() {
            let oldest = state.requests.values().filter_map(|handed| *handed).min();
            return oldest.map_or(Verdict::Wait(now + stall), |handed| until(handed + stall, Verdict::Drop));
        }
        let written = self.written.load(Ordering::Relaxed);
        if let Some((before, at)) = state.ending {
            if now < at + stall {
                return Verdict::Wait(at + stall);
            }
            // Answers of which all was handed on may still be on their way to a slow peer.
            let enough = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX).saturating_mul(RATE_MIN) / 1000;
            if written.saturating_sub(before) < enough {
                return Verdict::Drop;
            }
            state.ending = Some((written, now));
            return Verdict::Wait(now + stall);
        }
        let idle_since = state.idle_since.unwrap_or(self.opened);
        if now < idle_since + head {
            return Verdict::Wait(idle_since + head);
        }
        state.ending = Some((written, now));
        Verdict::End
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // What a panic leaves here is whole: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way, until the last of its answer was handed on.
#[derive(Debug)]
pub(super) struct Request {
    flight: Arc<Flight>,
    number: u64,
}

impl Request {
    fn mark(&self, handed: Option<Instant>) {
        if let Some(request) = self.flight.lock().requests.get_mut(&self.number) {
            *request = handed;
        }
    }

    /// Its answer's body: from now on the peer is expected to take it.
    pub(super) fn answers<B>(self, body: B) -> Answer<B> {
        self.mark(Some(Instant::now()));
        Answer { body, request: self }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.requests.remove(&self.number);
        state.idle_since = Some(Instant::now());
    }
}

/// The body of an answer, which is asked for its next piece once the peer has room for it.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    request: Request,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.request.mark(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    const BOUNDS: Bounds = Bounds { head: Duration::from_secs(10), stall: Duration::from_secs(30) };

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    fn flight() -> (Arc<Flight>, Arc<AtomicU64>) {
        let written = Arc::new(AtomicU64::new(0));
        (Flight::new(BOUNDS, Instant::now(), Arc::clone(&written)), written)
    }

    #[test]
    fn who_asks_nothing_is_dropped() {
        let (flight, _) = flight();
        assert_eq!(flight.judge(flight.opened), Verdict::Wait(flight.opened + BOUNDS.head));
        assert_eq!(flight.judge(flight.opened + BOUNDS.head), Verdict::Drop);
    }

    #[test]
    fn an_answer_that_is_owed_is_waited_for_and_one_that_is_not_taken_is_not() {
        let (flight, _) = flight();
        let request = flight.begin();
        assert!(matches!(flight.judge(after(1000)), Verdict::Wait(_)), "it is ours to answer");
        let mut answer = request.answers(Full::new(Bytes::from_static(b"x")));
        let handed = Instant::now();
        assert!(matches!(flight.judge(handed), Verdict::Wait(_)));
        assert_eq!(flight.judge(handed + BOUNDS.stall), Verdict::Drop, "it could have been taken");
        while Instant::now() == handed {}
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut answer).poll_frame(&mut context).is_ready());
        assert!(matches!(flight.judge(handed + BOUNDS.stall), Verdict::Wait(_)), "a piece was taken");
        let other = flight.begin();
        drop(answer);
        assert!(matches!(flight.judge(after(1000)), Verdict::Wait(_)), "another is ours to answer");
        drop(other);
        assert_eq!(flight.judge(after(20)), Verdict::End);
    }

    #[test]
    fn who_asks_nothing_more_is_let_go_and_may_take_what_is_left_but_not_for_ever() {
        let (flight, written) = flight();
        drop(flight.begin());
        let ended = Instant::now();
        assert!(matches!(flight.judge(ended), Verdict::Wait(_)));
        let at = |seconds| ended + Duration::from_secs(seconds);
        assert_eq!(flight.judge(at(10)), Verdict::End);
        written.store(512 * 30, Ordering::Relaxed);
        assert_eq!(flight.judge(at(39)), Verdict::Wait(at(40)));
        assert_eq!(flight.judge(at(40)), Verdict::Wait(at(70)), "it takes enough");
        written.fetch_add(100, Ordering::Relaxed);
        assert_eq!(flight.judge(at(70)), Verdict::Drop, "pings are not enough");
    }
}
