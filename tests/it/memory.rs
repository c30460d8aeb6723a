//! Memory: what goes through a served gateway is bounded in bytes, whatever its length.
//!
//! The bodies are made while they are sent and never stand anywhere whole. `SLUICE_NIGHTLY` makes them as long as they are
//! meant to be: a gigabyte of NDJSON, half of one in a batch.

use std::convert::Infallible;
use std::io::Write as _;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;

use crate::house::{House, Served};

/// What a gateway may hold, entries apart.
const RESIDENT_MAX: u64 = 150_000_000;
const PER_ENTRY_MAX: u64 = 128;

/// From this length on a resource counts as large: beside the rest it costs this many times its own length, since the
/// store holds a few of them in memory before they are on disk, and so does each stage.
const LARGE: usize = 256 << 10;
const LARGEST_FACTOR: u64 = 64;

const SETTINGS: &str = "[limits]\nrequest_timeout = \"1h\"\n[consent.implicit]\ndisclose = \"permit\"\n\
    [[subscriber]]\nid = \"registry\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\npayload = \"full\"\n";

/// Patients of a body; everything else is about one of them.
const PATIENTS: u64 = 50;

/// How entries are framed.
#[derive(Clone, Copy)]
enum Form {
    Lines,
    Batch,
}

/// Entries of about `bytes` each, as long as they are asked for.
struct Entries {
    form: Form,
    padding: String,
    next: u64,
}

impl Entries {
    fn new(form: Form, bytes: usize) -> Self {
        Self { form, padding: "x".repeat(bytes.saturating_sub(300)), next: 0 }
    }

    fn entry(&mut self) -> String {
        let at = self.next;
        self.next += 1;
        let uuid = |number: u64| format!("urn:uuid:00000000-0000-4000-8000-{number:012x}");
        let subject = match self.form {
            Form::Lines => format!("Patient/p{}", at % PATIENTS),
            Form::Batch => uuid(at % PATIENTS),
        };
        let (kind, resource) = if at < PATIENTS {
            ("Patient", format!(r#"{{"resourceType":"Patient","id":"p{at}"}}"#))
        } else {
            let padding = &self.padding;
            let resource = format!(
                r#"{{"resourceType":"Observation","id":"o{at}","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"8867-4"}}]}},"subject":{{"reference":"{subject}"}},"valueString":"{padding}"}}"#
            );
            ("Observation", resource)
        };
        match self.form {
            Form::Lines => format!("{resource}\n"),
            Form::Batch => {
                let comma = if at == 0 { "" } else { "," };
                let url = uuid(at);
                format!(
                    r#"{comma}{{"fullUrl":"{url}","resource":{resource},"request":{{"method":"POST","url":"{kind}"}}}}"#
                )
            }
        }
    }
}

/// Sends a body of this many bytes, and gives how many entries it held and what was answered.
async fn send(house: &House, served: &Served, form: Form, bytes: u64, each: usize) -> (u64, Bytes) {
    let mut entries = Entries::new(form, each);
    let mut held = 0;
    let mut count = 0;
    // Entries are made apart from the body, so that their number is known at the end.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(2);
    let (path, media_type) = match form {
        Form::Lines => ("https://localhost/fhir/$ingest", "application/fhir+ndjson"),
        Form::Batch => ("https://localhost/fhir", "application/fhir+json"),
    };
    let making = async move {
        let mut piece = String::new();
        if matches!(form, Form::Batch) {
            piece.push_str(r#"{"resourceType":"Bundle","type":"batch","entry":["#);
        }
        while held < bytes {
            let entry = entries.entry();
            held += entry.len() as u64;
            count += 1;
            piece.push_str(&entry);
            if piece.len() > 64 << 10 {
                sender.send(std::mem::take(&mut piece).into()).await.unwrap();
            }
        }
        if matches!(form, Form::Batch) {
            piece.push_str("]}");
        }
        sender.send(piece.into()).await.unwrap();
        count
    };
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), receiver))
    });
    let stream = house.client(Some("tls/hospital")).connect(served).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(path).header("host", "localhost").header("content-type", media_type);
    let sending = sender.send_request(request.body(Box::pin(StreamBody::new(body))).unwrap());
    let (count, response) = tokio::join!(making, sending);
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    (count, response.into_body().collect().await.unwrap().to_bytes())
}

async fn bounded(form: Form, bytes: u64, each: usize) {
    let house = House::new(SETTINGS);
    let served = house.serve();
    let idle = served.resident_peak();
    let (entries, answer) = send(&house, &served, form, bytes, each).await;
    let answer = std::str::from_utf8(&answer).unwrap();
    match form {
        Form::Lines => assert!(answer.contains(&format!(r#""accepted","valueUnsignedInt":{entries}"#)), "{answer}"),
        Form::Batch => assert_eq!(answer.matches(r#""status":"201 Created""#).count() as u64, entries),
    }
    // What follows from it is counted too: decisions, events and leaves.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let peak = served.resident_peak();
    let told = format!("{bytes} bytes in {entries} entries: {idle} resident at the start, {peak} at most");
    // Shown where a test is run with --nocapture.
    let _ = writeln!(std::io::stdout(), "{told}");
    let large = if each > LARGE { LARGEST_FACTOR * each as u64 } else { 0 };
    assert!(peak <= RESIDENT_MAX + large + PER_ENTRY_MAX * entries, "{told}");
}

#[expect(clippy::disallowed_methods, reason = "a test's switch is no setting")]
fn nightly() -> bool {
    std::env::var_os("SLUICE_NIGHTLY").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_ndjson_goes_through_in_little_memory() {
    bounded(Form::Lines, if nightly() { 1_000_000_000 } else { 64_000_000 }, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_batch_goes_through_in_little_memory() {
    bounded(Form::Batch, if nightly() { 500_000_000 } else { 32_000_000 }, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_small_entries_goes_through_in_little_memory() {
    bounded(Form::Batch, if nightly() { 100_000_000 } else { 5_000_000 }, 1_000).await;
}

/// The largest that a resource may be, many times at once: they take turns.
#[tokio::test(flavor = "multi_thread")]
async fn large_resources_take_turns() {
    bounded(Form::Lines, if nightly() { 200_000_000 } else { 30_000_000 }, 1_000_000).await;
}
