//! Streams: batches, collections and NDJSON.
//!
//! Takes: a stream of units. Gives: the answer of each, in the order sent. Never: holds more units than its window lets
//! in, nor more than 16 bytes of each answer: the answers wait in a spool of their own.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use sha2::{Digest as _, Sha256};
use sluice_fhir::outcome::{self, Issue};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::respond::{FHIR_JSON, Reply, entry_failure, entry_json, reply};
use super::trace;
use crate::error::{Error, Result};
use crate::gateway::Gateway;
use crate::ingest::unit::Received;
use crate::ingest::units::{Pass, Stream, unreadable};
use crate::ingest::window::{Entered, Window};
use crate::record::Answer;
use crate::store::spool::{Spools, Writer};

/// Units of one stream that are under way at once, if they are small.
const WIDTH: usize = 64;

/// Issues that a summary holds at most.
const ISSUES_MAX: usize = 1_000;

/// Processes a stream and answers it: with a `batch-response`, or with a summary as Parameters.
///
/// # Errors
/// An outage that concerns the stream as a whole; what concerns one unit stands in its answer.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    units: Box<Stream>,
    spools: &Spools,
    window: &Window,
    summary: bool,
) -> Result<Reply> {
    let units: Arc<Stream> = Arc::from(units);
    let mut answers = Answers::new(spools, units.len());
    let mut total = Summary::default();
    let observer = Arc::clone(gateway.door.observer());
    let metrics = observer.metrics();
    for pass in [Pass::Patients, Pass::Others] {
        let (sender, receiver) = mpsc::channel::<(usize, Received, Entered)>(WIDTH);
        let reading = {
            let (units, window) = (Arc::clone(&units), window.clone());
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                units.each(pass, |index, unit| {
                    let entered = runtime.block_on(window.enter(unit.bytes()))?;
                    // The receiver is gone only if the request is: then nobody waits for the rest.
                    let sent = sender.blocking_send((index, unit, entered));
                    sent.map_err(|_| Error::defect("the stream's reader is gone"))
                })
            })
        };
        let received = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        #[expect(clippy::disallowed_methods, reason = "entries of a batch have no order (FHIR R4 http.html#brules)")]
        let admitted = received
            .map(|(index, unit, entered)| {
                let gateway = Arc::clone(&gateway);
                // A task of its own: units of one stream use all cores, and a unit once begun is ended even if the
                // sender hangs up.
                let admitting = async move {
                    let admitted = gateway.admit(unit).await;
                    drop(entered);
                    admitted
                };
                async move {
                    let admitted = tokio::spawn(admitting.in_current_span()).await;
                    (index, admitted.unwrap_or_else(|_| Err(Error::defect("a unit's task ended early"))))
                }
            })
            .buffer_unordered(WIDTH);
        let mut admitted = std::pin::pin!(admitted);
        while let Some((index, result)) = admitted.next().await {
            if let Err(error) = &result {
                trace::told(error, trace::Whole::Entry);
                metrics.failed(error);
            }
            total.add(index, &result);
            if !summary {
                answers.push(index, &result)?;
            }
        }
        reading.await.map_err(|_| Error::defect("the stream's reader ended early"))??;
    }
    if summary { Ok(reply(StatusCode::OK, FHIR_JSON, total.to_json())) } else { answers.reply() }
}

/// What became of the units of a stream.
#[derive(Default)]
struct Summary {
    accepted: u64,
    refused: u64,
    issues: Vec<Issue>,
    more: bool,
    /// Hashes of the receipts with their numbers, laid over each other: the same for the same units acknowledged in any
    /// order.
    receipt: [u8; 32],
}

impl Summary {
    fn add(&mut self, index: usize, admitted: &Result<Answer>) {
        match admitted {
            Ok(answer) => {
                self.accepted += 1;
                let hash = Sha256::digest(format!("sluice-stream-receipt-1\n{index}\n{}\n", answer.operation));
                self.receipt.iter_mut().zip(hash).for_each(|(sum, byte)| *sum ^= byte);
            }
            Err(error) => {
                self.refused += 1;
                let room = ISSUES_MAX.saturating_sub(self.issues.len());
                self.more |= error.issues().len() > room;
                self.issues.extend(error.issues().iter().take(room).cloned());
            }
        }
    }

    /// Parameters {accepted, refused, complete, receipt, outcome}.
    fn to_json(&self) -> Vec<u8> {
        let mut body = format!(
            "{{\"resourceType\":\"Parameters\",\"parameter\":[{{\"name\":\"accepted\",\"valueUnsignedInt\":{}}},\
             {{\"name\":\"refused\",\"valueUnsignedInt\":{}}},{{\"name\":\"complete\",\"valueBoolean\":{}}}",
            self.accepted, self.refused, !self.more
        )
        .into_bytes();
        if self.accepted > 0 {
            body.extend_from_slice(b",{\"name\":\"receipt\",\"valueString\":\"");
            body.extend_from_slice(HEXLOWER.encode(&self.receipt).as_bytes());
            body.extend_from_slice(b"\"}");
        }
        if !self.issues.is_empty() {
            body.extend_from_slice(b",{\"name\":\"outcome\",\"resource\":");
            body.extend(outcome::to_json(&self.issues));
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        body
    }
}

/// The answers, in a spool, and where each stands in it.
struct Answers {
    spool: Writer,
    places: Vec<(u64, u32)>,
}

impl Answers {
    fn new(spools: &Spools, units: usize) -> Self {
        Self { spool: spools.begin(), places: vec![(0, 0); units] }
    }

    fn push(&mut self, index: usize, admitted: &Result<Answer>) -> Result<()> {
        let text = match admitted {
            Ok(answer) => answer.entries.first().map(|entry| entry_json(entry, Some(&answer.operation))),
            Err(error) => Some(entry_failure(error)),
        };
        let text = text.unwrap_or_default();
        if let Some(place) = self.places.get_mut(index) {
            *place = (self.spool.len(), u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        self.spool.write(&text).map_err(|error| unreadable(&error))
    }

    /// A `batch-response` that is read from the spool while it is sent.
    fn reply(self) -> Result<Reply> {
        let spool = self.spool.finish().map_err(|error| unreadable(&error))?;
        let places = self.places;
        let head = Bytes::from_static(b"{\"resourceType\":\"Bundle\",\"type\":\"batch-response\",\"entry\":[");
        let rest = stream::unfold((spool, places, 0), |(spool, places, at)| async move {
            if at > places.len() {
                return None;
            }
            let Some((offset, length)) = places.get(at).copied() else {
                return Some((Bytes::from_static(b"]}"), (spool, places, at + 1)));
            };
            let mut text = if at == 0 { Vec::new() } else { vec![b','] };
            // The spool is in memory or a file of this process. If it can't be read, the body ends early, and the
            // client sees that: the JSON is not complete.
            text.extend(spool.range(offset..offset + u64::from(length)).ok()?);
            Some((Bytes::from(text), (spool, places, at + 1)))
        });
        let body = stream::iter([head]).chain(rest);
        let body = StreamBody::new(body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
        let mut response = reply(StatusCode::OK, FHIR_JSON, Bytes::new());
        *response.body_mut() = UnsyncBoxBody::new(body);
        Ok(response)
    }
}
