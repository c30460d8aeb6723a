//! Rows of the outbox, as publish reads and ends them.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::record::{Recorder, uncommitted};
use crate::route::outbox::{self, Own};
use crate::store::{Batch, Direction, KeyRange, Row, Table};

/// The end of an event's row, of its marks in other lanes and of its body; it fails where somebody else was faster.
pub(super) fn without(row: &Row, own: &Own) -> Batch {
    let batch = Batch::new()
        .expect_value(Table::Outbox, row.key.clone(), row.value.clone())
        .delete(Table::Outbox, row.key.clone());
    let batch = if own.apart_bytes.is_some() { batch.delete(Table::Event, row.key.clone()) } else { batch };
    own.others.iter().fold(batch, |batch, other| batch.delete(Table::Outbox, outbox::beside(other, &row.key)))
}

/// The first rows of a range.
pub(super) async fn scan(recorder: &Recorder, table: Table, range: KeyRange, limit: usize) -> Result<Vec<Row>> {
    recorder.store().scan(table, range, limit, Direction::Up).await.map_err(Error::from)
}

/// How many rows a range has; more than `limit` count as that many.
pub(super) async fn count(recorder: &Recorder, table: Table, range: KeyRange, limit: usize) -> Result<usize> {
    Ok(recorder.store().keys(table, range, limit).await?.len())
}

/// One row.
pub(super) async fn read(recorder: &Recorder, table: Table, key: &Bytes) -> Result<Option<Row>> {
    let value = recorder.store().read(table, key).await?;
    Ok(value.map(|value| Row { table, key: key.clone(), value }))
}

/// Makes a batch durable.
pub(super) async fn commit(recorder: &Recorder, batch: Batch) -> Result<()> {
    recorder.store().commit(batch).await.map_err(|error| uncommitted(&error))
}
