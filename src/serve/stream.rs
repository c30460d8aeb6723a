//! Streams: batches, collections and NDJSON.
//!
//! Takes: a stream of units. Gives: the answer of each, in the order sent. Never: holds more units than its window lets
//! in, nor more than 16 bytes of each answer: the answers wait in a spool of their own, and of a line that is summed up
//! only its operation counts.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
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
use crate::record::stream::StreamId;
use crate::stage::OperationId;
use crate::store::spool::{Spools, Writer};

/// Units of one stream that are under way at once where each goes alone, if they are small.
const WIDTH: usize = 64;

/// Groups of one stream that are under way at once.
const GROUPS: usize = 8;

/// Bytes of the units of a group, unless it is one alone: what shares a commit is held together until that is done.
const GROUP_BYTES_MAX: usize = 128 << 10;

/// Bytes of a batch's answer that are sent at a time, about.
const FRAME_BYTES: usize = 32 << 10;

/// Issues that a summary holds at most.
const ISSUES_MAX: usize = 1_000;

/// Processes a stream and answers it: with a `batch-response`, or, for the institution that is named, with a summary as
/// Parameters and a receipt for all of it.
///
/// # Errors
/// An outage that concerns the stream as a whole; what concerns one unit stands in its answer.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    units: Box<Stream>,
    spools: &Spools,
    window: &Window,
    summary: Option<&str>,
) -> Result<Reply> {
    let units: Arc<Stream> = Arc::from(units);
    let count = units.len();
    let mut answers = Answers::new(spools, if summary.is_some() { 0 } else { count });
    let mut total = Summary { lines: vec![None; if summary.is_some() { count } else { 0 }], ..Summary::default() };
    let observer = Arc::clone(gateway.door.observer());
    let metrics = observer.metrics();
    let together = gateway.together_max();
    let width = if together == 1 { WIDTH } else { GROUPS };
    for pass in [Pass::Patients, Pass::Others] {
        let (sender, receiver) = mpsc::channel::<Group>(2);
        let reading = {
            let (units, window) = (Arc::clone(&units), window.clone());
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let mut group = Group::default();
                let send = |group: &mut Group| {
                    if group.is_empty() {
                        return Ok(());
                    }
                    // The receiver is gone only if the request is: then nobody waits for the rest.
                    let sent = sender.blocking_send(std::mem::take(group));
                    sent.map_err(|_| Error::defect("the stream's reader is gone"))
                };
                units.each(pass, |index, unit| {
                    let unit = match unit {
                        Ok(unit) => unit,
                        Err(refusal) => {
                            group.refused.push((index, refusal));
                            return if group.refused.len() < WIDTH { Ok(()) } else { send(&mut group) };
                        }
                    };
                    let bytes = unit.bytes();
                    if !group.takes(bytes, together) {
                        send(&mut group)?;
                    }
                    let entered = if let Some(entered) = window.try_enter(bytes)? {
                        entered
                    } else {
                        // Whoever waits for room holds none.
                        send(&mut group)?;
                        runtime.block_on(window.enter(bytes))?
                    };
                    group.add(index, unit, entered);
                    Ok(())
                })?;
                send(&mut group)
            })
        };
        let received = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        #[expect(clippy::disallowed_methods, reason = "entries of a batch have no order (FHIR R4 http.html#brules)")]
        let admitted = received
            .map(|Group { units, places, rooms, refused, .. }| {
                let gateway = Arc::clone(&gateway);
                // A task of its own: groups of one stream use all cores, and a unit once begun is ended even if the
                // sender hangs up.
                let admitting = async move {
                    let admitted = if units.is_empty() { Vec::new() } else { gateway.admit_all(units).await };
                    drop(rooms);
                    admitted
                };
                async move {
                    let admitted = tokio::spawn(admitting.in_current_span()).await;
                    let lost = |_| places.iter().map(|_| Err(Error::defect("a unit's task ended early"))).collect();
                    let admitted: Vec<Result<Answer>> = admitted.unwrap_or_else(lost);
                    let refused = refused.into_iter().map(|(index, refusal)| (index, Err(refusal)));
                    places.into_iter().zip(admitted).chain(refused)
                }
            })
            .buffer_unordered(width);
        let mut admitted = std::pin::pin!(admitted);
        while let Some(group) = admitted.next().await {
            for (index, result) in group {
                if let Err(error) = &result {
                    trace::told(error, trace::Whole::Entry);
                    metrics.failed(error);
                }
                if summary.is_some() {
                    total.add(index, &result)?;
                } else {
                    answers.push(index, &result)?;
                }
            }
        }
        reading.await.map_err(|_| Error::defect("the stream's reader ended early"))??;
    }
    let Some(sender) = summary else { return answers.reply() };
    // A crash before this is kept leaves a sender without an answer, who sends again and gets the same receipt.
    let receipt =
        if total.accepted > 0 { Some(gateway.recorder.keep_stream(sender, &total.lines).await?) } else { None };
    Ok(reply(StatusCode::OK, FHIR_JSON, total.to_json(receipt)))
}

/// Units that travel together.
#[derive(Default)]
struct Group {
    units: Vec<Received>,
    /// The number of each.
    places: Vec<usize>,
    rooms: Vec<Entered>,
    bytes: usize,
    /// What the caller may not send, with its number: it goes no further.
    refused: Vec<(usize, Error)>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.units.is_empty() && self.refused.is_empty()
    }

    /// Whether a unit of this length may come along. None waits for another: the stream has been read to its end.
    fn takes(&self, bytes: usize, units_max: usize) -> bool {
        self.units.len() < units_max && self.bytes.saturating_add(bytes) <= GROUP_BYTES_MAX
    }

    fn add(&mut self, index: usize, unit: Received, room: Entered) {
        self.bytes += unit.bytes();
        self.units.push(unit);
        self.places.push(index);
        self.rooms.push(room);
    }
}

/// What became of the units of a stream.
#[derive(Default)]
struct Summary {
    accepted: u64,
    refused: u64,
    issues: Vec<Issue>,
    more: bool,
    /// The operation of each line; none of one that was not accepted.
    lines: Vec<Option<OperationId>>,
}

impl Summary {
    fn add(&mut self, index: usize, admitted: &Result<Answer>) -> Result<()> {
        match admitted {
            Ok(answer) => {
                self.accepted += 1;
                let line =
                    self.lines.get_mut(index).ok_or_else(|| Error::defect("a stream has more lines than it had"))?;
                *line = OperationId::parse(&answer.operation);
            }
            Err(error) => {
                self.refused += 1;
                let room = ISSUES_MAX.saturating_sub(self.issues.len());
                self.more |= error.issues().len() > room;
                self.issues.extend(error.issues().iter().take(room).cloned());
            }
        }
        Ok(())
    }

    /// Parameters {accepted, refused, complete, receipt, outcome}.
    fn to_json(&self, receipt: Option<StreamId>) -> Vec<u8> {
        let mut body = format!(
            "{{\"resourceType\":\"Parameters\",\"parameter\":[{{\"name\":\"accepted\",\"valueUnsignedInt\":{}}},\
             {{\"name\":\"refused\",\"valueUnsignedInt\":{}}},{{\"name\":\"complete\",\"valueBoolean\":{}}}",
            self.accepted, self.refused, !self.more
        )
        .into_bytes();
        if let Some(receipt) = receipt {
            body.extend_from_slice(format!(",{{\"name\":\"receipt\",\"valueString\":\"{receipt}\"}}").as_bytes());
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
        let ranges = self.spool.finish().map_err(|error| unreadable(&error))?.into_ranges();
        let places = self.places;
        let head = Bytes::from_static(b"{\"resourceType\":\"Bundle\",\"type\":\"batch-response\",\"entry\":[");
        let rest = stream::unfold((ranges, places, 0), |(mut ranges, places, mut at)| async move {
            if at > places.len() {
                return None;
            }
            let mut text = Vec::with_capacity(FRAME_BYTES);
            while text.len() < FRAME_BYTES
                && let Some((offset, length)) = places.get(at).copied()
            {
                if at > 0 {
                    text.push(b',');
                }
                // The spool is in memory or a file of this process. If it can't be read, the body ends early, and the
                // client sees that: the JSON is not complete.
                ranges.read(offset..offset + u64::from(length), &mut text).ok()?;
                at += 1;
            }
            if at == places.len() {
                text.extend_from_slice(b"]}");
                at += 1;
            }
            Some((Bytes::from(text), (ranges, places, at)))
        });
        let body = stream::iter([head]).chain(rest);
        let body = StreamBody::new(body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
        let mut response = reply(StatusCode::OK, FHIR_JSON, Bytes::new());
        *response.body_mut() = UnsyncBoxBody::new(body);
        Ok(response)
    }
}
