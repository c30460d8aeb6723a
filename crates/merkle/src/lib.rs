//! Merkle trees, their proofs and their texts, as the transparency-log ecosystem writes them.
//!
//! Takes bytes and hashes; gives roots, proofs, notes and checkpoints. Never does I/O, reads no
//! clock, holds no key: signatures are made and checked by what the caller hands in.
//!
//! | module | what it speaks |
//! |---|---|
//! | [`tree`] | the append-only log's hashes and proofs, RFC 6962 §2.1 |
//! | [`tile`] | how a log is cut into files, c2sp.org/tlog-tiles |
//! | [`note`] | signed texts and their keys, c2sp.org/signed-note, with cosignatures |
//! | [`checkpoint`] | the text that a log signs, c2sp.org/tlog-checkpoint |
//! | [`proof`] | a self-contained receipt, c2sp.org/tlog-proof@v1 |
//! | [`policy`] | which logs and witnesses are believed, c2sp.org/tlog-policy |
//! | [`receipt`] | all of these together: is this leaf in a log that I believe? |
//! | [`map`] | a prefix tree over 32-byte keys that proves presence and absence |
//!
//! Every decoder accepts exactly one spelling of a thing, within a stated bound, and names the
//! cause of a refusal. Errors never repeat the text refused.

pub mod checkpoint;
pub mod map;
pub mod note;
pub mod policy;
pub mod proof;
pub mod receipt;
mod text;
pub mod tile;
pub mod tree;

/// A SHA-256 hash.
pub type Hash = [u8; 32];
