//! Sluice: a streaming gateway between hospital FHIR systems and a ledger.
//!
//! The modules in the order of the flow. An arrow only ever points up this list; `tests/tidy.rs` holds that.

// What everything stands on.
pub mod error; // The three kinds of failure and their one translation to HTTP and FHIR.
pub mod config; // Raw settings, as typed, become Config, as meant.
pub mod observe; // Metric names, health and traces.

pub mod wire; // HTTP clients of peers, with TLS by the settings alone.

// The adapters: nouns.
pub mod keys; // Signing, wrapping and keyed hashing; key material never leaves it.
pub mod store; // Durable rows, and the vault that seals them.
pub mod ledger; // What institutions agree on: subjects, devices, checkpoints.
pub mod broker; // Where events go.
pub mod terminology; // Who knows what a value set holds.

// The stages: verbs.
pub mod ingest; // Bytes and a caller become a received unit.
pub mod normalize; // A received unit becomes canonical R4 with its digest.
pub mod check; // A normalized unit is held against the rules.
pub mod consent; // A checked unit is permitted, or not, by what its subjects decided.
pub mod stage; // A permitted unit is durable before anything leaves the house.
pub mod forward; // A staged unit is told to the upstream FHIR server.
pub mod record; // What was accepted is committed, with the work that follows from it.
pub mod route; // A recorded resource is decided on for every subscriber.
pub mod anchor; // Leaves are sequenced, signed and anchored on the ledger.
pub mod publish; // Events are decided on again and sent.
pub mod disclose; // A question on its way back.

pub mod gateway; // The order of all of it, and nothing else.
pub mod serve; // The faces: HTTP requests become calls of the gateway.
pub mod cli; // One file per command.
