//! Publish: events are decided on again and sent.
//!
//! Takes: outbox rows whose leaf stands in the log. Gives: each event to the broker, with its proof. Never: sends what is
//! not permitted at that moment; turns the order of a lane.

mod lanes;
mod message;
pub mod parked;
pub mod recheck;
mod rows;
pub mod verify;

pub use self::lanes::{Progress, Publisher, Resting};
