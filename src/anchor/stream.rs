//! The receipt of a stream, for the institution that sent it.
//!
//! Takes: a stream's name. Gives: page by page the receipts of its lines' operations, each as it is had alone. Never:
//! gives it to another institution; holds more than a page.

use serde::Serialize;

use super::Log;
use super::operation::ResourceReceipt;
use crate::error::{Error, Result};
use crate::record::Recorder;
use crate::record::stream::StreamId;

/// Lines of one page at most.
pub const PAGE_LINES: usize = 100;

/// What a stream's receipt says, page by page.
#[derive(Debug, Clone, Serialize)]
pub struct StreamReceipt {
    /// The receipt that the stream's answer named.
    pub receipt: String,
    /// The institution that sent it.
    pub sender: String,
    /// The log's verifier key, as C2SP signed-note writes it. Convenient, and not what makes it trusted.
    pub key: String,
    /// Lines of the stream, those that were refused included.
    pub lines: u64,
    /// Lines that were accepted.
    pub accepted: u64,
    /// Those of this page, in the order sent.
    pub operations: Vec<LineReceipt>,
    /// The line to ask for the next page from; null where this is the last.
    pub next: Option<u64>,
}

/// What is proven of one line.
#[derive(Debug, Clone, Serialize)]
pub struct LineReceipt {
    /// Its number in the stream, from 0.
    pub line: u64,
    /// Its operation, whose own receipt says the same.
    pub operation: String,
    /// Its resource, and what the gateway added.
    pub resources: Vec<ResourceReceipt>,
}

impl Log {
    /// A page of the receipt of a stream, from this line on; none if there is no such stream of that institution.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn stream(
        &self,
        recorder: &Recorder,
        id: StreamId,
        institution: &str,
        from: u64,
    ) -> Result<Option<StreamReceipt>> {
        // Whose it is is part of the question, as for an operation.
        let Some(stream) = recorder.stream(id).await?.filter(|it| it.sender == institution) else { return Ok(None) };
        let mut lines = recorder.stream_lines(id, &stream, from, PAGE_LINES + 1).await?;
        let next = lines.get(PAGE_LINES).map(|(line, _)| *line);
        lines.truncate(PAGE_LINES);
        let mut operations = Vec::with_capacity(lines.len());
        for (line, operation) in lines {
            let receipt = self.operation(recorder, operation, institution).await?;
            let receipt = receipt.ok_or_else(|| Error::defect("a stream's operation is not recorded"))?;
            operations.push(LineReceipt { line, operation: receipt.operation, resources: receipt.resources });
        }
        Ok(Some(StreamReceipt {
            receipt: id.to_string(),
            sender: stream.sender,
            key: self.verifier_key().to_string(),
            lines: stream.lines,
            accepted: stream.accepted,
            operations,
            next,
        }))
    }
}
