//! Where a scan over numbered rows begins.
//!
//! Takes: the numbers up to which all rows are done. Gives: where the next scan begins. Never: leaves a row behind for
//! longer than a minute.
//!
//! Rows that were deleted cost a scan almost what they cost before, until the store has compacted them away. Their
//! numbers are microseconds ([`Recorder::next_sequence`](super::Recorder::next_sequence)) and they become visible in
//! the order of their numbers, but for what passes between the drawing of a number and its commit. So a scan begins a
//! little before the first row that is not done, and once a minute at the beginning.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that passes between the drawing of a number and its commit, in microseconds, by a wide margin.
const MARGIN_US: u64 = 2_000_000;

const SWEEP: Duration = Duration::from_mins(1);

/// The beginning of the next scan.
#[derive(Debug, Default)]
pub struct Recent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    from: u64,
    swept: Option<Instant>,
}

impl Recent {
    /// The number that the next scan begins with.
    pub fn from(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.swept.is_none_or(|swept| swept.elapsed() > SWEEP) {
            state.swept = Some(Instant::now());
            return 0;
        }
        state.from
    }

    /// All rows below this number were seen, and are done.
    pub fn done_below(&self, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.from = number.saturating_sub(MARGIN_US);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_scan_sees_everything_and_the_next_begins_a_little_before_what_is_left() {
        let recent = Recent::default();
        assert_eq!(recent.from(), 0);
        recent.done_below(10_000_000);
        assert_eq!(recent.from(), 8_000_000);
        recent.done_below(5);
        assert_eq!(recent.from(), 0);
    }
}
