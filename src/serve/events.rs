//! The feed's face: `/events`, as docs/events.md has it.
//!
//! Takes: GET requests of the institution that a subscriber belongs to. Gives: a page of the subscriber's feed, at once or
//! as soon as there is one, or a stream of server-sent events. Never: tells whether somebody else's subscriber exists;
//! hands on what is not permitted at that moment; holds more than an event of a reader that does not read.
//!
//! In a stream each event is decided on when there is room for it, and goes at once; what a reader did not take in time
//! is dropped, and decided on again when it comes back. What the connection has taken can't be recalled.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::fhir::caller;
use super::respond::{Reply, failure, reply};
use crate::broker::feed::{Feed, ReadError};
use crate::config::{Right, Subscriber};
use crate::error::{Error, Peer, Refusal, Result};
use crate::gateway::Gateway;
use crate::ingest::caller::Callers;
use crate::publish::recheck::{self, Shown};

/// The path.
pub const PATH: &str = "/events";

/// Entries of a page, unless it is asked for fewer or more.
const LIMIT: usize = 100;
/// Entries of a page at most.
const LIMIT_MAX: usize = 256;
/// Bytes of events after which a page ends.
const PAGE_BYTES: usize = 4 << 20;
/// Entries read at a time: what is held beyond a page's bytes.
const STEP: usize = 8;
/// The longest wait of a long poll, in seconds.
const WAIT_MAX: u64 = 60;
/// Requests for one subscriber at once.
const READERS_MAX: usize = 16;
/// The longest silence of a stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The longest that a reader of a stream may take nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// The longest stream: after it the reader shows again who it is.
const STREAM_MAX: Duration = Duration::from_hours(1);
/// Pause before what could not be decided is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Events that wait for a reader of a stream: one, so that no decision waits behind another event.
const FRAMES: usize = 1;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Where to go on after a 410.
const OLDEST: HeaderName = HeaderName::from_static("x-sluice-oldest");

/// What the face needs.
pub struct Face {
    /// The feed; none where events go to another broker.
    feed: Option<Arc<Feed>>,
    gateway: Arc<Gateway>,
    callers: Arc<Callers>,
    subscribers: Arc<[Subscriber]>,
    /// Room for the readers of each subscriber.
    readers: HashMap<String, Arc<Semaphore>>,
    /// Turns true when the gateway stops.
    drain: watch::Receiver<bool>,
}

/// What is asked for, besides whose feed.
struct Ask {
    after: u64,
    limit: usize,
    wait: Duration,
}

/// An entry as it is shown; without an event if there is none to show.
struct Entry {
    cursor: u64,
    event: Option<Bytes>,
}

/// Entries, and whether a decision is missing for the one behind them.
struct Page {
    entries: Vec<Entry>,
    waits: bool,
}

/// What goes to the reader of a stream, and since when.
type Sent = (Instant, Bytes);

/// Why there is no page.
enum NoPage {
    Gone(u64),
    Error(Error),
}

impl Face {
    /// A face over the feed, if there is one.
    pub fn new(
        feed: Option<Arc<Feed>>,
        gateway: Arc<Gateway>,
        callers: Arc<Callers>,
        subscribers: Arc<[Subscriber]>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        let room = |it: &Subscriber| (it.id.clone(), Arc::new(Semaphore::new(READERS_MAX)));
        let readers = subscribers.iter().map(room).collect();
        Self { feed, gateway, callers, subscribers, readers, drain }
    }

    /// Answers a request for `/events`.
    pub async fn answer(self: Arc<Self>, request: &request::Parts) -> Reply {
        match self.try_answer(request).await {
            Ok(reply) => reply,
            Err(NoPage::Error(error)) => failure(&error),
            Err(NoPage::Gone(oldest)) => {
                let text = format!("a cursor of {oldest} or above, since what lies before is no longer kept");
                let mut response = failure(&Error::refusal(Refusal::Gone, "events.gone", text));
                response.headers_mut().insert(OLDEST, HeaderValue::from(oldest));
                response
            }
        }
    }

    async fn try_answer(self: Arc<Self>, request: &request::Parts) -> Result<Reply, NoPage> {
        if request.method != Method::GET {
            return Err(Error::refusal(Refusal::Method, "http.method", "GET").into());
        }
        let caller = caller(&self.callers, &request.extensions, &request.headers)?;
        caller.needs(Right::Read)?;
        let (mut ask, named) = ask(request.uri.query().unwrap_or_default())?;
        let subscriber = self.subscriber(&caller.institution, named.as_deref())?.clone();
        let streams = streams(&request.headers)?;
        if streams && let Some(last) = request.headers.get("last-event-id") {
            ask.after = last.to_str().ok().and_then(number).ok_or_else(|| bad("Last-Event-ID with a cursor"))?;
        }
        let room = self.readers.get(&subscriber.id).and_then(|it| Arc::clone(it).try_acquire_owned().ok());
        let text = "at most 16 requests for one subscriber at once";
        let room = room.ok_or_else(|| Error::refusal(Refusal::TooMany, "events.readers", text))?;
        if streams {
            return self.stream(subscriber, ask.after, room).await;
        }
        let mut page = self.page(&subscriber, ask.after, ask.limit).await?;
        if page.entries.is_empty() && !page.waits && !ask.wait.is_zero() {
            let mut drain = self.drain.clone();
            tokio::select! {
                // Whether it has grown or not: what is there now is the answer.
                grown = timeout(ask.wait, self.feed()?.grown(&subscriber.id, ask.after)) => {
                    grown.unwrap_or(Ok(())).map_err(NoPage::from)?;
                }
                _ = drain.wait_for(|drain| *drain) => {}
            }
            page = self.page(&subscriber, ask.after, ask.limit).await?;
        }
        if page.entries.is_empty() && page.waits {
            return Err(Error::outage(Peer::Custodian, PAUSE, "an event of the feed can't be decided on yet").into());
        }
        Ok(reply(StatusCode::OK, JSON, json(&subscriber.id, ask.after, &page.entries)))
    }

    fn feed(&self) -> Result<&Arc<Feed>> {
        self.feed.as_ref().ok_or_else(not_found)
    }

    /// The subscriber that is meant, among those of the institution.
    fn subscriber(&self, institution: &str, named: Option<&str>) -> Result<&Subscriber> {
        self.feed()?;
        let mut own = self.subscribers.iter().filter(|it| it.institution == institution);
        if let Some(id) = named {
            return own.find(|it| it.id == id).ok_or_else(not_found);
        }
        let only = own.next().ok_or_else(not_found)?;
        if own.next().is_some() {
            return Err(bad("subscriber=ID, since the caller's institution has several"));
        }
        Ok(only)
    }

    /// What lies behind a cursor.
    async fn page(&self, subscriber: &Subscriber, after: u64, limit: usize) -> Result<Page, NoPage> {
        let Gateway { recorder, door, .. } = &*self.gateway;
        let feed = self.feed()?;
        let mut page = Page { entries: Vec::new(), waits: false };
        let (mut cursor, mut bytes) = (after, 0);
        while page.entries.len() < limit && bytes < PAGE_BYTES {
            let step = feed.read_after(&subscriber.id, cursor, STEP.min(limit - page.entries.len())).await;
            let step = match step {
                // The retention has overtaken this reader within its page.
                Err(ReadError::Gone { .. }) if cursor != after => break,
                step => step?,
            };
            if step.is_empty() {
                break;
            }
            for entry in step {
                cursor = entry.cursor;
                let event = match recheck::shown(entry, subscriber, feed, recorder, door).await? {
                    Shown::Event(event) => Some(event),
                    Shown::Withdrawn => None,
                    Shown::Waits => {
                        page.waits = true;
                        return Ok(page);
                    }
                };
                bytes += event.as_ref().map_or(0, Bytes::len);
                page.entries.push(Entry { cursor, event });
            }
        }
        Ok(page)
    }

    /// Begins a stream of server-sent events.
    async fn stream(
        self: Arc<Self>,
        subscriber: Subscriber,
        after: u64,
        room: OwnedSemaphorePermit,
    ) -> Result<Reply, NoPage> {
        // What is wrong with the cursor is told before the stream begins.
        self.feed()?.read_after(&subscriber.id, after, 1).await?;
        let (sender, receiver) = mpsc::channel(FRAMES);
        tokio::spawn(async move {
            self.feed_stream(&subscriber, after, &sender).await;
            drop(room);
        });
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let (since, bytes): Sent = receiver.recv().await?;
            // The stream of a reader that has not read for so long is over: what waited was decided too long ago.
            (since.elapsed() < STALL_MAX).then(|| (Ok::<_, Infallible>(Frame::data(bytes)), receiver))
        });
        let mut response = reply(StatusCode::OK, EVENT_STREAM, Bytes::new());
        // nginx would hold the stream back until it has enough of it.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        *response.body_mut() = UnsyncBoxBody::new(StreamBody::new(frames));
        Ok(response)
    }

    /// Sends until the reader has gone or has stopped reading, the gateway stops, or the time is over.
    async fn feed_stream(&self, subscriber: &Subscriber, mut cursor: u64, sender: &mpsc::Sender<Sent>) {
        let reserve = || async move { timeout(STALL_MAX, sender.reserve()).await.ok()?.ok() };
        let Ok(feed) = self.feed() else { return };
        let mut drain = self.drain.clone();
        let ends = Instant::now() + STREAM_MAX;
        let Some(first) = reserve().await else { return };
        let mut spoke = Instant::now();
        first.send((spoke, Bytes::from_static(b"retry: 1000\n\n")));
        while Instant::now() < ends {
            // The place first: what is decided on behind this line has nothing left to wait for.
            let Some(place) = reserve().await else { return };
            let waits = match self.page(subscriber, cursor, 1).await {
                Ok(Page { entries, waits }) => match entries.first() {
                    Some(entry) => {
                        (cursor, spoke) = (entry.cursor, Instant::now());
                        place.send((spoke, frame(entry)));
                        continue;
                    }
                    None => waits,
                },
                Err(NoPage::Error(error)) if error.retry_after().is_some() => true,
                // The reader comes again with its cursor, and is told then.
                Err(NoPage::Gone(_)) => return,
                Err(NoPage::Error(error)) => return tracing::error!(%error, "a stream of the feed"),
            };
            // What waits for a decision is no news of the feed, so it is asked for again after a pause.
            let news =
                async { if waits { sleep(PAUSE).await } else { drop(feed.grown(&subscriber.id, cursor).await) } };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(spoke + HEARTBEAT) => {}
                () = sender.closed() => return,
                _ = drain.wait_for(|drain| *drain) => return,
            }
            if spoke.elapsed() >= HEARTBEAT {
                spoke = Instant::now();
                place.send((spoke, Bytes::from_static(b":\n\n")));
            }
        }
    }
}

impl From<Error> for NoPage {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ReadError> for NoPage {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone { oldest } => Self::Gone(oldest),
            ReadError::Ahead => Self::Error(bad("a cursor that this feed gave")),
            ReadError::Damaged | ReadError::Sealed | ReadError::Store(_) => Self::Error(error.into()),
        }
    }
}

/// One text for what is not there and for what is not the caller's.
fn not_found() -> Error {
    Error::refusal(Refusal::NotFound, "http.path", "the feed of a subscriber of the caller's institution")
}

fn bad(expected: &'static str) -> Error {
    Error::refusal(Refusal::Malformed, "events.parameter", expected)
}

/// A decimal number without sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The parameters of a query, and the subscriber that it names.
fn ask(query: &str) -> Result<(Ask, Option<String>)> {
    let mut ask = Ask { after: 0, limit: LIMIT, wait: Duration::ZERO };
    let mut subscriber = None;
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "after" => ask.after = number(value).ok_or_else(|| bad("after=CURSOR, a number"))?,
            "limit" => {
                let limit = number(value).and_then(|it| usize::try_from(it).ok());
                let limit = limit.filter(|it| (1..=LIMIT_MAX).contains(it));
                ask.limit = limit.ok_or_else(|| bad("limit=N, from 1 to 256"))?;
            }
            "wait" => {
                let wait = number(value).filter(|it| *it <= WAIT_MAX);
                ask.wait = wait.map(Duration::from_secs).ok_or_else(|| bad("wait=SECONDS, from 0 to 60"))?;
            }
            "subscriber" => subscriber = Some(value.to_owned()),
            _ => return Err(bad("after, limit, wait and subscriber, and no other parameter")),
        }
    }
    Ok((ask, subscriber))
}

/// Whether a stream is asked for: it is named, and JSON is not named before it.
fn streams(headers: &HeaderMap) -> Result<bool> {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let essences = ranges.flat_map(|it| it.split(',')).map(|it| it.split(';').next().unwrap_or("").trim().to_owned());
    let mut any = false;
    for essence in essences.filter(|it| !it.is_empty()) {
        any = true;
        match &*essence.to_ascii_lowercase() {
            "text/event-stream" => return Ok(true),
            "application/json" | "application/*" | "*/*" => return Ok(false),
            _ => {}
        }
    }
    if any {
        let text = "Accept with application/json or text/event-stream";
        return Err(Error::refusal(Refusal::NotAcceptable, "http.accept", text));
    }
    Ok(false)
}

/// A page. An event is put in as it was published: canonical JSON.
fn json(subscriber: &str, after: u64, entries: &[Entry]) -> Bytes {
    let events: usize = entries.iter().map(|it| it.event.as_ref().map_or(4, Bytes::len) + 40).sum();
    let mut text = BytesMut::with_capacity(events + 128);
    // The id of a subscriber holds nothing that JSON escapes.
    text.put_slice(format!("{{\"subscriber\":\"{subscriber}\",\"entries\":[").as_bytes());
    for (at, entry) in entries.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        text.put_slice(format!("{comma}{{\"cursor\":{},\"event\":", entry.cursor).as_bytes());
        text.put_slice(entry.event.as_deref().unwrap_or(b"null"));
        text.put_u8(b'}');
    }
    let next = entries.last().map_or(after, |it| it.cursor);
    text.put_slice(format!("],\"next\":{next}}}").as_bytes());
    text.freeze()
}

/// A server-sent event. Canonical JSON holds no line feed, so it is one line.
fn frame(entry: &Entry) -> Bytes {
    let (kind, data) = match &entry.event {
        Some(event) => ("", &**event),
        None => ("event: withdrawn\n", &b"null"[..]),
    };
    let mut text = BytesMut::with_capacity(data.len() + 64);
    text.put_slice(format!("id: {}\n{kind}data: ", entry.cursor).as_bytes());
    text.put_slice(data);
    text.put_slice(b"\n\n");
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_bounds() {
        let (found, subscriber) = ask("after=7&limit=256&wait=60&subscriber=a-1").unwrap();
        assert_eq!((found.after, found.limit, found.wait.as_secs()), (7, 256, 60));
        assert_eq!(subscriber.as_deref(), Some("a-1"));
        assert_eq!(ask("").unwrap().0.limit, LIMIT);
        for query in [
            "after=-1",
            "after=+1",
            "after=",
            "after=18446744073709551616",
            "limit=0",
            "limit=257",
            "wait=61",
            "wait=1s",
            "nonsense=1",
            "after",
        ] {
            assert!(ask(query).is_err(), "{query}");
        }
    }

    #[test]
    fn what_is_named_first_in_accept_counts() {
        let accept = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            streams(&headers).ok()
        };
        assert_eq!(accept("text/event-stream"), Some(true));
        assert_eq!(accept("Text/Event-Stream; q=1, */*"), Some(true));
        assert_eq!(accept("application/json, text/event-stream"), Some(false));
        assert_eq!(accept("text/html"), None);
        assert_eq!(streams(&HeaderMap::new()).ok(), Some(false));
    }

    #[test]
    fn a_page_and_a_frame_are_written_as_documented() {
        let entries =
            [Entry { cursor: 4, event: Some(Bytes::from_static(b"{\"id\":\"1\"}")) }, Entry { cursor: 5, event: None }];
        let expected =
            r#"{"subscriber":"a","entries":[{"cursor":4,"event":{"id":"1"}},{"cursor":5,"event":null}],"next":5}"#;
        assert_eq!(json("a", 3, &entries), expected);
        assert_eq!(json("a", 3, &[]), r#"{"subscriber":"a","entries":[],"next":3}"#);
        assert_eq!(frame(&entries[0]), "id: 4\ndata: {\"id\":\"1\"}\n\n");
        assert_eq!(frame(&entries[1]), "id: 5\nevent: withdrawn\ndata: null\n\n");
    }
}
