//! Cuts NDJSON into lines.
//!
//! Takes: a body. Gives: each line that is not blank, with its number from 0. Never: holds more than one
//! line.

use bytes::{Bytes, BytesMut};

use super::entry::refusal;
use super::limits::Limits;
use super::source::Source;
use super::unit::Place;
use crate::error::{Refusal, Result};

/// Hands each line on. The number counts all lines, blank ones too, so that it is the one an editor shows, less one.
///
/// # Errors
/// What `take` gives; 413 for a line or a number of lines beyond the limits; an outage of the spool.
pub(super) fn each(source: &Source, limits: &Limits, mut take: impl FnMut(usize, Bytes) -> Result<()>) -> Result<()> {
    let mut held = BytesMut::new();
    let mut index = 0;
    for chunk in source.chunks() {
        let chunk = chunk?;
        let mut from = 0;
        while let Some(length) = memchr::memchr(b'\n', &chunk[from..]) {
            let line = if held.is_empty() {
                chunk.slice(from..from + length)
            } else {
                held.extend_from_slice(&chunk[from..from + length]);
                held.split().freeze()
            };
            from += length + 1;
            line_of(line, index, limits, &mut take)?;
            index += 1;
        }
        held.extend_from_slice(&chunk[from..]);
        bounded(held.len(), index, limits)?;
    }
    line_of(held.freeze(), index, limits, &mut take)
}

fn line_of(
    line: Bytes,
    index: usize,
    limits: &Limits,
    take: &mut impl FnMut(usize, Bytes) -> Result<()>,
) -> Result<()> {
    bounded(line.len(), index, limits)?;
    let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    if blank { Ok(()) } else { take(index, line) }
}

fn bounded(bytes: usize, index: usize, limits: &Limits) -> Result<()> {
    let at = Place::line(index).start;
    if bytes > limits.resource_bytes_max {
        let text = format!("a line of at most {} bytes", limits.resource_bytes_max);
        return Err(refusal(Refusal::TooLarge, "limits.resource", text, "Resource".to_owned(), at));
    }
    if index > limits.entries_max {
        let text = format!("at most {} lines", limits.entries_max);
        return Err(refusal(Refusal::TooLarge, "limits.entries", text, "Resource".to_owned(), at));
    }
    Ok(())
}
