//! How much is worked on at once, in bytes.
//!
//! Takes: the length of what is about to be worked on. Gives: leave to hold it in memory, in the order asked. Never: lets
//! more in than its bound, but for one that is larger than all of it, which comes in alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::error::{Error, Result};

/// What a permit of the semaphore stands for, in bytes: its count is a `u32`.
const STEP: usize = 1024;

/// What anything takes beside its own bytes: nodes, leaves, a task.
const BESIDE: usize = 8 << 10;

/// A bound on what is held. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Window {
    room: Arc<Semaphore>,
    steps: u32,
}

/// Leave to hold what was asked for, until this is dropped.
#[derive(Debug)]
pub struct Entered(OwnedSemaphorePermit);

impl Window {
    /// One that holds this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let steps = steps(bytes_max);
        Self { room: Arc::new(Semaphore::new(usize::try_from(steps).unwrap_or(Semaphore::MAX_PERMITS))), steps }
    }

    /// Waits until there is room for a unit of this length. Who asked first comes in first, so a large one is not
    /// starved by small ones.
    ///
    /// # Errors
    /// A defect: it is never closed.
    pub async fn enter(&self, bytes: usize) -> Result<Entered> {
        let permit = Arc::clone(&self.room).acquire_many_owned(self.wanted(bytes)).await;
        permit.map(Entered).map_err(|_| closed())
    }

    /// The same, but none where it would have to wait: for who holds some of the room already, since two who wait for each
    /// other's wait for ever.
    ///
    /// # Errors
    /// As [`Window::enter`].
    pub fn try_enter(&self, bytes: usize) -> Result<Option<Entered>> {
        match Arc::clone(&self.room).try_acquire_many_owned(self.wanted(bytes)) {
            Ok(permit) => Ok(Some(Entered(permit))),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(closed()),
        }
    }

    fn wanted(&self, bytes: usize) -> u32 {
        steps(bytes.saturating_add(BESIDE)).min(self.steps)
    }
}

impl Entered {
    /// What it holds, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * STEP
    }
}

fn closed() -> Error {
    Error::defect("a window was closed")
}

fn steps(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(STEP)).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits(entering: impl Future<Output = Result<Entered>>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), entering).await.is_err()
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_is_larger_than_all_comes_in_alone() {
        let window = Window::new(100 << 10);
        let small = window.enter(10 << 10).await.unwrap();
        assert_eq!(small.bytes(), 18 << 10);
        let second = window.try_enter(67 << 10).unwrap().unwrap();
        assert!(window.try_enter(0).unwrap().is_none());
        assert!(waits(window.enter(0)).await, "7 KiB are left");
        assert!(waits(window.enter(usize::MAX)).await);
        drop((small, second));
        let large = window.enter(usize::MAX).await.unwrap();
        assert!(waits(window.enter(0)).await);
        drop(large);
        window.enter(0).await.unwrap();
    }
}
