//! The integration tests: one binary, a module for each suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod admit;
mod anchor;
mod broker;
mod cli;
mod consent;
mod demo;
mod doors;
mod events;
mod flow;
mod house;
mod ledger;
mod normalize;
mod publish;
mod rabbit;
mod rig;
mod serve;
mod store;
mod story;
mod synthea;
mod upstream;
mod verify;
