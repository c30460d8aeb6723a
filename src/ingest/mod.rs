//! Receive: bytes and a caller become units.
//!
//! Takes: connections. Gives: [`unit::Received`], whose existence proves size, media type, an authenticated caller and
//! the time of receipt. Never: looks at what a resource says, beyond its type, its id and where it stands.

pub mod asked;
pub mod body;
pub mod caller;
pub mod entry;
mod flight;
pub mod limits;
mod lines;
pub mod listen;
pub mod neighbours;
mod source;
pub mod split;
mod stall;
pub mod unit;
pub mod units;
pub mod window;
mod xml;
