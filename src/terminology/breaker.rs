//! A circuit breaker: a server that has failed several times in a row is left alone for a while, then asked once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The state of one server.
pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
}

/// How a question that was let through ended. Whoever drops it without a word went away, and says nothing of the server.
pub(super) struct Passage<'b> {
    breaker: &'b Breaker,
    /// It is the one that goes to see.
    is_probe: bool,
    ended: bool,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max, pause, state: Mutex::default() }
    }

    /// Lets a question through, or says for how long none is.
    pub(super) fn pass(&self, now: Instant) -> Result<Passage<'_>, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_probe = state.until.is_some();
        if let Some(until) = state.until {
            if now < until {
                return Err(until - now);
            }
            // One goes to see; the others wait for what it finds.
            state.until = Some(now + self.pause);
        }
        Ok(Passage { breaker: self, is_probe, ended: false })
    }
}

impl Passage<'_> {
    /// It was answered.
    pub(super) fn answered(mut self) {
        self.ended = true;
        *self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// It was not, or by something that is no answer.
    pub(super) fn failed(mut self) {
        self.ended = true;
        let mut state = self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.breaker.failures_max {
            state.until = Some(Instant::now() + self.breaker.pause);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.ended {
            // The next one goes to see.
            self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner).until = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_and_lets_one_through_after_the_pause() {
        let breaker = Breaker::new(2, Duration::from_mins(1));
        let now = Instant::now();
        let fails = |now| breaker.pass(now).map(Passage::failed).is_ok();
        assert!(fails(now));
        assert!(breaker.pass(now).map(Passage::answered).is_ok(), "an answer between two failures starts anew");
        for _ in 0..9 {
            drop(breaker.pass(now));
        }
        assert!(fails(now) && fails(now), "those who went away have not failed");
        assert!(breaker.pass(now).is_err_and(|wait| wait > Duration::from_secs(50)));
        let later = now + Duration::from_secs(70);
        let passage = breaker.pass(later).unwrap_or_else(|_| panic!("one goes to see"));
        assert!(breaker.pass(later).is_err(), "and only one");
        drop(passage);
        let later = later.max(Instant::now()) + Duration::from_secs(1);
        let passage = breaker.pass(later).unwrap_or_else(|_| panic!("it went away: another goes"));
        passage.answered();
        assert!(breaker.pass(later).is_ok() && breaker.pass(later).is_ok());
    }
}
