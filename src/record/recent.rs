//! Where a scan over numbered rows begins.
//!
//! Takes: the numbers up to which all rows are done. Gives: where the next scan begins. Never: leaves a row behind for
//! longer than a minute.
//!
//! Rows that were deleted cost a scan almost what they cost before, until the store has compacted them away. The numbers
//! of such rows ([`Recorder::next_sequence`](super::Recorder::next_sequence)) only grow, and the rows become visible in
//! the order of their numbers: whoever draws one holds the lock of the [counters](super::counters) until the batch has been
//! handed to the store, which applies batches in the order in which they are handed to it. So a scan that has seen a row
//! has seen every row below it, and the next one begins there, or with the first row that is not done. Once a minute one
//! begins at the beginning all the same: what another process has written on the same store may stand there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

    /// All rows below this number were seen, and are done; the row of this number was seen.
    pub fn done_below(&self, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.from = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_scan_sees_everything_and_the_next_begins_with_what_is_left() {
        let recent = Recent::default();
        assert_eq!(recent.from(), 0);
        recent.done_below(10_000_000);
        assert_eq!(recent.from(), 10_000_000);
        recent.done_below(5);
        assert_eq!(recent.from(), 5);
    }
}
