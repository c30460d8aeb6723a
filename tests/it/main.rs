//! The integration tests: one binary, a module for each suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod admit;
mod anchor;
mod broker;
mod callers;
mod canary;
mod chart;
mod cli;
mod consent;
mod demo;
mod doors;
mod events;
mod failing;
mod flow;
mod groups;
mod house;
mod input;
mod ledger;
mod memory;
mod normalize;
mod probes;
mod publish;
mod rabbit;
mod read;
mod receipts;
mod rig;
mod serve;
mod slow;
mod store;
mod story;
mod synthea;
mod tail;
mod upstream;
mod verify;
mod xml;
