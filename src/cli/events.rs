//! `sluice events tail`: what a subscriber was told, by cursor, from a gateway's own feed.
//!
//! Takes: a gateway whose broker is the feed, and a cursor. Gives: a line for each entry, verified if it is asked for.
//! Never: loses its place: the cursor of the last line is where to go on.

use std::io::Write;
use std::path::{Path, PathBuf};

use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Ask, Client, Identity, Payload};
use super::target::Target;
use super::{Exit, Failure, Format, read, serve};
use crate::publish::verify::{Trust, Verdict, verify};

/// Seconds that one request waits for the next entry.
const WAIT_SECONDS: u64 = 30;

/// Entries of a page at most.
const PAGE_ENTRIES: usize = 256;

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
    /// Waits for what comes, until it is stopped
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
        let (mut after, mut exit) = (args.after, Exit::Fine);
        loop {
            let page = feed.page(after, if args.follow { WAIT_SECONDS } else { 0 }).await?;
            for entry in &page.entries {
                let verdict =
                    entry.event.as_ref().zip(trust.as_ref()).map(|(it, trust)| verify(it.get().as_bytes(), trust));
                exit = exit.and(Exit::of_findings(verdict.as_ref().is_some_and(|it| !it.verified)));
                if let (Some(folder), Some(event)) = (&args.out, &entry.event) {
                    let file = folder.join(format!("{:08}.json", entry.cursor));
                    std::fs::write(&file, event.get()).map_err(|error| Failure::file(&file, &error))?;
                }
                tell(entry, verdict.as_ref(), format, out)?;
            }
            out.flush()?;
            if page.entries.is_empty() && !args.follow {
                return Ok(exit);
            }
            after = page.next;
        }
    })
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
        let mut path = format!("/events?after={after}&limit={PAGE_ENTRIES}&wait={wait_seconds}");
        if let Some(subscriber) = &self.subscriber {
            path.push_str("&subscriber=");
            path.push_str(subscriber);
        }
        let headers = vec![(header::ACCEPT, HeaderValue::from_static("application/json"))];
        let ask = Ask { method: Method::GET, path, headers, payload: Payload::None, repeatable: true };
        let answer = self.client.send(&ask).await.map_err(|error| Failure::could_not_run(&error))?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body)
                .map_err(|_| Failure::CouldNotRun("the answer is not a page of a feed".to_owned()));
        }
        let status = answer.status.as_u16();
        if let Some(oldest) = answer.headers.get("x-sluice-oldest").and_then(|it| it.to_str().ok()) {
            return Err(Failure::CouldNotRun(format!(
                "{status}: what came after {after} is no longer kept up to {oldest}; --after {oldest} goes on"
            )));
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = body["issue"][0]["diagnostics"].as_str().unwrap_or("no feed");
        Err(Failure::CouldNotRun(format!("{status}: {text}")))
    }
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
