//! `sluice events tail`: what a subscriber was told, by cursor, from a gateway's own feed.
//!
//! Takes: a gateway whose broker is the feed, and a cursor. Gives: a line for each entry, verified if it is asked for.
//! Never: loses its place: the cursor of the last line is where to go on.
//!
//! `--follow` reads a stream of server-sent events where the gateway offers one, and connects again with the last id
//! when it ends; where it does not, it asks for page after page, each of which waits for the next entry.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Ask, Client, ClientError, Identity, PAUSE_MAX, Payload, retry_after};
use super::sse::{Reader, Sent};
use super::target::Target;
use super::{Exit, Failure, Format, read, serve};
use crate::publish::verify::{Trust, Verdict, verify};

/// Seconds that one request waits for the next entry.
const WAIT_SECONDS: u64 = 30;

/// Entries of a page at most.
const PAGE_ENTRIES: usize = 256;

/// How often a stream is asked for in vain, with pauses that double, before it is given up: about half a minute.
const ATTEMPTS_MAX: u32 = 12;

/// The first of these pauses.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest silence of a stream: a gateway says something every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// What is done with events.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Shows the events of a subscriber, oldest first
    #[command(
        after_help = "JSON, one line an entry: {cursor, event}, with --trust also {verified, assurance, broken_link}. \
        `event` is null where it may not be shown any more. Goes on with --after CURSOR. Exit code 1 if a link of an \
        event broke.\n\nExamples:\n  sluice events tail --config sluice.toml --follow\n  \
        sluice events tail --to https://127.0.0.1:8443/fhir --ca ca.pem --cert me.pem --key me.key --out events --trust trust.json"
    )]
    Tail(TailArgs),
}

/// What `tail` takes.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    target: Target,
    /// Whose events, where the institution has several subscribers
    #[arg(long, value_name = "ID", value_parser = subscriber)]
    subscriber: Option<String>,
    /// Only what came after this cursor
    #[arg(long, value_name = "CURSOR", default_value_t = 0)]
    after: u64,
    /// Waits for what comes, until it is stopped: reads a stream where the gateway offers one
    #[arg(long, short)]
    follow: bool,
    /// Verifies each event by the keys of this file
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Keeps each event here as it was published, under its cursor
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Settings or a trust file that are not good; a gateway that does not answer or has no such feed.
pub fn run(command: &Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Command::Tail(args) = command;
    let (base, identity) = args.target.resolve()?;
    let trust = args.trust.as_deref().map(trust).transpose()?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
    }
    serve::runtime()?.block_on(async {
        let mut feed = Feed::new(&base, &identity, args.subscriber.clone())?;
        let mut tail = Tail { args, trust, format, out, after: args.after, exit: Exit::Fine };
        if args.follow {
            feed.stream(&mut tail).await?;
        }
        loop {
            let page = feed.page(tail.after, if args.follow { WAIT_SECONDS } else { 0 }).await?;
            for entry in &page.entries {
                tail.entry(entry)?;
            }
            if page.entries.is_empty() && !args.follow {
                return Ok(tail.exit);
            }
            tail.after = page.next;
        }
    })
}

/// What is done with entries, and how far it has come.
struct Tail<'a> {
    args: &'a TailArgs,
    trust: Option<Trust>,
    format: Format,
    out: &'a mut dyn Write,
    /// The cursor of the last entry.
    after: u64,
    exit: Exit,
}

impl Tail<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let verdict =
            entry.event.as_ref().zip(self.trust.as_ref()).map(|(it, trust)| verify(it.get().as_bytes(), trust));
        self.exit = self.exit.and(Exit::of_findings(verdict.as_ref().is_some_and(|it| !it.verified)));
        if let (Some(folder), Some(event)) = (&self.args.out, &entry.event) {
            let file = folder.join(format!("{:08}.json", entry.cursor));
            std::fs::write(&file, event.get()).map_err(|error| Failure::file(&file, &error))?;
        }
        tell(entry, verdict.as_ref(), self.format, self.out)?;
        self.out.flush()?;
        self.after = entry.cursor;
        Ok(())
    }
}

/// A page of a feed, as docs/events.md has it.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// What to ask for next.
    pub(super) next: u64,
}

/// An entry.
#[derive(Deserialize)]
pub(super) struct Entry {
    cursor: u64,
    /// As it was published; none if it may not be shown.
    pub(super) event: Option<Box<RawValue>>,
}

/// A subscriber's feed at one gateway.
pub(super) struct Feed {
    client: Client,
    subscriber: Option<String>,
}

impl Feed {
    pub(super) fn new(base: &Uri, identity: &Identity, subscriber: Option<String>) -> Result<Self, Failure> {
        Ok(Self { client: Client::new(base, identity)?, subscriber })
    }

    /// The entries after a cursor; waits for some, if there is none yet.
    pub(super) async fn page(&mut self, after: u64, wait_seconds: u64) -> Result<Page, Failure> {
        let path = self.path(after, &format!("&limit={PAGE_ENTRIES}&wait={wait_seconds}"));
        let headers = vec![(header::ACCEPT, HeaderValue::from_static("application/json"))];
        let ask = Ask { method: Method::GET, path, headers, payload: Payload::None, repeatable: true };
        let answer = self.client.send(&ask).await.map_err(|error| Failure::could_not_run(&error))?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body)
                .map_err(|_| Failure::CouldNotRun("the answer is not a page of a feed".to_owned()));
        }
        Err(refused(answer.status, &answer.headers, &answer.body, after))
    }

    /// Reads streams of events one after another, for as long as there is one to be had. Returns where the gateway has
    /// none to offer.
    async fn stream(&self, tail: &mut Tail<'_>) -> Result<(), Failure> {
        let (mut attempt, mut pause, mut reader) = (1, PAUSE, Reader::default());
        loop {
            let before = tail.after;
            let ended = match self.open(tail.after).await {
                Ok(response) if response.status() == StatusCode::OK && !is_stream(response.headers()) => return Ok(()),
                Ok(response) => match response.status() {
                    StatusCode::OK => {
                        reader = reader.again();
                        let ended = read_stream(response.into_body(), &mut reader, tail).await?;
                        // It was there: what comes next is a beginning again.
                        (attempt, pause) = (0, PAUSE.max(Duration::from_millis(reader.retry_ms.unwrap_or(0))));
                        ended
                    }
                    StatusCode::NOT_ACCEPTABLE => return Ok(()),
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        pause = retry_after(response.headers());
                        "the gateway does not serve for now".to_owned()
                    }
                    status => {
                        let (parts, body) = response.into_parts();
                        let body = Limited::new(body, REFUSAL_BYTES_MAX).collect();
                        let body = tokio::time::timeout(SILENCE_MAX, body).await.ok().and_then(Result::ok);
                        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        return Err(refused(status, &parts.headers, &body, tail.after));
                    }
                },
                Err(error) => error.to_string(),
            };
            if tail.after == before {
                attempt += 1;
            }
            if attempt > ATTEMPTS_MAX {
                return Err(Failure::CouldNotRun(format!("{ended}; --after {} goes on", tail.after)));
            }
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            pause = pause.saturating_mul(2);
        }
    }

    async fn open(&self, after: u64) -> Result<http::Response<Incoming>, ClientError> {
        let path = self.path(after, "");
        let mut headers = vec![(header::ACCEPT, HeaderValue::from_static("text/event-stream, application/json;q=0.5"))];
        if after > 0 {
            headers.push((header::HeaderName::from_static("last-event-id"), HeaderValue::from(after)));
        }
        let ask = Ask { method: Method::GET, path, headers, payload: Payload::None, repeatable: true };
        self.client.open(&ask, SILENCE_MAX).await
    }

    fn path(&self, after: u64, more: &str) -> String {
        let subscriber = self.subscriber.as_ref().map_or_else(String::new, |it| format!("&subscriber={it}"));
        format!("/events?after={after}{more}{subscriber}")
    }
}

/// Deals with what a stream sends until it ends; says how it did.
async fn read_stream(mut body: Incoming, reader: &mut Reader, tail: &mut Tail<'_>) -> Result<String, Failure> {
    let unreadable = || Failure::CouldNotRun("the answer is not a stream of a feed".to_owned());
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Ok(format!("the stream broke off: {error}")),
            Ok(None) => return Ok("the stream ended".to_owned()),
            Err(_) => return Ok("the stream is silent".to_owned()),
        };
        let bytes: Bytes = frame.into_data().unwrap_or_default();
        reader.push(&bytes).map_err(|_| unreadable())?;
        while let Some(Sent { id, data, .. }) = reader.next().map_err(|_| unreadable())? {
            let cursor = id.parse().map_err(|_| unreadable())?;
            let event = serde_json::from_str(&data).map_err(|_| unreadable())?;
            tail.entry(&Entry { cursor, event })?;
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// What the gateway said instead of a feed.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8], after: u64) -> Failure {
    let status = status.as_u16();
    if let Some(oldest) = headers.get("x-sluice-oldest").and_then(|it| it.to_str().ok()) {
        return Failure::CouldNotRun(format!(
            "{status}: what came after {after} is no longer kept up to {oldest}; --after {oldest} goes on"
        ));
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = body["issue"][0]["diagnostics"].as_str().unwrap_or("no feed");
    Failure::CouldNotRun(format!("{status}: {text}"))
}

fn tell(entry: &Entry, verdict: Option<&Verdict>, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let cursor = entry.cursor;
    if format == Format::Human {
        let event: Value = entry.event.as_ref().and_then(|it| serde_json::from_str(it.get()).ok()).unwrap_or_default();
        let text = |name: &str| event[name].as_str().unwrap_or("-");
        let verified = match verdict {
            None => String::new(),
            Some(Verdict { assurance: Some(assurance), .. }) => format!("  verified, assurance {assurance}"),
            Some(Verdict { broken_link, .. }) => format!("  NOT VERIFIED, broken link {}", json!(broken_link)),
        };
        match &entry.event {
            None => writeln!(out, "{cursor}  may not be shown any more")?,
            Some(_) => writeln!(out, "{cursor}  {}  {}  {}{verified}", text("time"), text("type"), text("id"))?,
        }
        return Ok(());
    }
    // The event goes on byte for byte: its numbers are what was signed.
    let event = entry.event.as_ref().map_or("null", |it| it.get());
    let verdict = verdict.map_or_else(String::new, |it| {
        let (assurance, link) = (json!(it.assurance), json!(it.broken_link));
        format!(",\"verified\":{},\"assurance\":{assurance},\"broken_link\":{link}", it.verified)
    });
    writeln!(out, "{{\"cursor\":{cursor},\"event\":{event}{verdict}}}")?;
    Ok(())
}

fn trust(file: &Path) -> Result<Trust, Failure> {
    Trust::parse(&read(file, &mut std::io::empty())?).map_err(|error| Failure::file(file, &error))
}

/// An id as the settings have it, so that it can stand in a URL.
fn subscriber(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
    if fits { Ok(text.to_owned()) } else { Err("expected the id of a [[subscriber]]".to_owned()) }
}
