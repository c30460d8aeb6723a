//! What was recorded by a stream: the operations of its lines, under one receipt.
//!
//! Takes: the operations of a stream that has come to its end. Gives: the stream's receipt, and for a receipt the
//! operations. Never: keeps a line, or anything of one; the rows are sealed under the tenant's key and hold the sender
//! and ids of operations alone.

use bytes::{BufMut as _, Bytes, BytesMut};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Recorder, uncommitted};
use crate::error::{Error, Result};
use crate::stage::OperationId;
use crate::store::vault::place;
use crate::store::{Batch, Table};

/// Operations in one row at most.
const ROW_OPERATIONS: usize = 4096;

/// Rows in one commit at most: with 16 bytes an operation, a megabyte.
const COMMIT_ROWS: usize = 16;

/// The row that tells whose stream it is. Those of its operations are numbered from 0.
const HEAD: u32 = u32::MAX;

/// Names a stream: the same for the same lines accepted as the same operations, whenever they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId([u8; 32]);

/// A stream that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The institution that sent it.
    pub sender: String,
    /// Its lines, those that were refused included.
    pub lines: u64,
    /// Its lines that were accepted.
    pub accepted: u64,
}

/// What became of each line, in the order sent; none of one that was refused.
pub type Lines = [Option<OperationId>];

impl StreamId {
    /// Of these lines: a hash over the numbers of those that were accepted and their operations, which are random.
    pub fn of(lines: &Lines) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"sluice-stream-receipt-1\n");
        for (line, operation) in accepted(lines) {
            hasher.update(line.to_be_bytes());
            hasher.update(operation.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// From its text, as a receipt's URL has it: lower-case hex.
    pub fn parse(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl Recorder {
    /// Keeps what a stream has recorded, so that its receipt can be asked for; gives its name. Done again it changes
    /// nothing.
    ///
    /// # Errors
    /// An outage of the store. What the lines recorded stays recorded, and the same stream sent again is kept then.
    pub async fn keep_stream(&self, sender: &str, lines: &Lines) -> Result<StreamId> {
        let id = StreamId::of(lines);
        let head = key(id, HEAD);
        if self.store.read(Table::Stream, &head).await?.is_some() {
            return Ok(id);
        }
        for (at, rows) in lines.chunks(ROW_OPERATIONS * COMMIT_ROWS).enumerate() {
            let mut batch = Batch::new();
            for (row, lines) in rows.chunks(ROW_OPERATIONS).enumerate() {
                let number = u32::try_from(at * COMMIT_ROWS + row).map_err(|_| broken())?;
                let key = key(id, number);
                let value = self.sealed_stream(&key, &encode(lines))?;
                batch = batch.put(Table::Stream, key, value);
            }
            // A crash between these leaves rows that no head leads to; the sender has no answer, and sends again.
            self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
        }
        let stream = Stream {
            sender: sender.to_owned(),
            lines: lines.len() as u64,
            accepted: lines.iter().flatten().count() as u64,
        };
        let plain = serde_json::to_vec(&stream).map_err(|_| broken())?;
        let batch = Batch::new().put(Table::Stream, head.clone(), self.sealed_stream(&head, &plain)?);
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
        Ok(id)
    }

    /// What is known of a stream; none if there is none of this name.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn stream(&self, id: StreamId) -> Result<Option<Stream>> {
        let Some(plain) = self.opened_stream(&key(id, HEAD)).await? else { return Ok(None) };
        serde_json::from_slice(&plain).map(Some).map_err(|_| broken())
    }

    /// The lines of a stream that were accepted, from this number on: each with its operation, at most `limit`.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn stream_lines(
        &self,
        id: StreamId,
        stream: &Stream,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, OperationId)>> {
        let mut found = Vec::new();
        let mut row = from / ROW_OPERATIONS as u64;
        while found.len() < limit && row * (ROW_OPERATIONS as u64) < stream.lines {
            let number = u32::try_from(row).map_err(|_| broken())?;
            let plain = self.opened_stream(&key(id, number)).await?.ok_or_else(broken)?;
            let first = row * ROW_OPERATIONS as u64;
            let lines = decode(&plain)?;
            let lines = accepted(&lines).map(|(line, operation)| (first + line, operation));
            found.extend(lines.filter(|(line, _)| *line >= from).take(limit - found.len()));
            row += 1;
        }
        Ok(found)
    }

    fn sealed_stream(&self, key: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        Ok(self.vault.seal(&[], &place(Table::Stream, key), plain)?)
    }

    async fn opened_stream(&self, key: &Bytes) -> Result<Option<Vec<u8>>> {
        let row = self.store.read(Table::Stream, key).await?;
        Ok(row.map(|row| self.vault.open(&place(Table::Stream, key), &row)).transpose()?)
    }
}

fn accepted(lines: &Lines) -> impl Iterator<Item = (u64, OperationId)> + '_ {
    (0..).zip(lines).filter_map(|(line, operation)| Some((line, (*operation)?)))
}

fn key(id: StreamId, row: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(36);
    key.put_slice(&id.0);
    key.put_u32(row);
    key.freeze()
}

/// 16 bytes a line; zeros, which are no operation's id, for one that was refused.
fn encode(lines: &Lines) -> Vec<u8> {
    lines.iter().flat_map(|it| it.map_or([0; 16], |it| *it.as_bytes())).collect()
}

fn decode(plain: &[u8]) -> Result<Vec<Option<OperationId>>> {
    let (lines, rest) = plain.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(broken());
    }
    Ok(lines.iter().map(|it| (*it != [0; 16]).then(|| OperationId::from_bytes(*it))).collect())
}

fn broken() -> Error {
    Error::defect("the rows of a stream are not what was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_these_lines_in_this_order_alone() {
        let [one, other] = [OperationId::random(), OperationId::random()].map(Some);
        let name = StreamId::of(&[one, None, other]);
        assert_eq!(StreamId::of(&[one, None, other]), name);
        assert_eq!(StreamId::parse(&name.to_string()), Some(name));
        for lines in [&[one, other][..], &[other, None, one], &[one, other, None], &[one], &[]] {
            assert_ne!(StreamId::of(lines), name);
        }
        for text in ["", "00", &name.to_string().to_uppercase(), &format!("{name}00")] {
            assert_eq!(StreamId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_not_by_half() {
        let lines = [Some(OperationId::random()), None, Some(OperationId::random())];
        let plain = encode(&lines);
        assert_eq!(decode(&plain).unwrap(), lines);
        assert!(decode(&plain[1..]).is_err());
    }
}
