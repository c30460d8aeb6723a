//! The feed over TLS: pages, long polls, streams; who sees what, and what is no longer shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sluice::broker::feed::{Feed, Retention, Seal};
use sluice::config::{Config, Right};
use sluice::ingest::caller::Peer;
use sluice::ingest::unit::Caller;
use sluice::ingest::units::Units;
use sluice::observe::Observer;
use sluice::publish::verify::verify;
use sluice::serve::build;
use sluice::serve::events::Face;

use crate::house::{House, Served, Wire, first_issue};
use crate::rig::{context, transaction, units};
use crate::story::{consent, heard, observation, patient, put, told, trust};

async fn fetch(client: &Wire, served: &Served, query: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("https://localhost/events{query}")).body(Bytes::new()).unwrap();
    client.try_send(served, request).await.expect("an answer")
}

/// The entries after a cursor once there are as many.
async fn entries(client: &Wire, served: &Served, after: u64, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let mut next = after;
    let deadline = Instant::now() + Duration::from_mins(2);
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} entries came", found.len());
        let (status, page) = fetch(client, served, &format!("?after={next}&wait=5")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        found.extend(page["entries"].as_array().unwrap().iter().cloned());
        next = page["next"].as_u64().unwrap();
    }
    found
}

/// The ids of the Observations that entries are about.
fn about(entries: &[Value]) -> Vec<String> {
    let url = |it: &Value| it["event"]["data"]["entry"][1]["fullUrl"].as_str().unwrap().to_owned();
    entries.iter().map(|it| url(it).rsplit('/').next().unwrap().to_owned()).collect()
}

/// A stream of server-sent events, read by hand.
struct Stream {
    body: Incoming,
    text: String,
}

impl Stream {
    async fn open(client: &Wire, served: &Served, query: &str, last: Option<&str>) -> Self {
        let io = TokioIo::new(client.connect(served).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(format!("/events{query}")).header("host", "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.header("accept", "text/event-stream").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block of lines, without its blank line; none at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.text.find("\n\n") {
                let rest = self.text.split_off(at + 2);
                let mut block = std::mem::replace(&mut self.text, rest);
                block.truncate(at);
                return Some(block);
            }
            let frame = tokio::time::timeout(Duration::from_mins(2), self.body.frame()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }

    /// Id and data of the next event.
    async fn event(&mut self) -> (u64, String) {
        loop {
            let block = self.block().await.expect("an event");
            let Some(rest) = block.strip_prefix("id: ") else { continue };
            let (id, rest) = rest.split_once('\n').unwrap();
            return (id.parse().unwrap(), rest.to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_reads_its_feed_page_by_page_and_each_event_verifies() {
    let house = told("permit", "");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    put(&hospital, &served, &patient("p"), &[]).await;
    for number in 1..=7 {
        put(&hospital, &served, &observation(&format!("o{number}"), &["p"]), &[]).await;
    }
    entries(&insurer, &served, 0, 7).await;
    let mut read = Vec::new();
    let mut after = 0;
    for expected in [3, 3, 1, 0] {
        let (status, page) = fetch(&insurer, &served, &format!("?subscriber=insurer&limit=3&after={after}")).await;
        assert_eq!((status, &page["subscriber"]), (StatusCode::OK, &json!("insurer")));
        let entries = page["entries"].as_array().unwrap();
        assert_eq!(entries.len(), expected);
        assert!(entries.iter().all(|it| it["cursor"].as_u64().unwrap() > after));
        read.extend(entries.iter().cloned());
        after = page["next"].as_u64().unwrap();
    }
    assert_eq!(after, 7);
    assert_eq!(about(&read), ["o1", "o2", "o3", "o4", "o5", "o6", "o7"]);
    let trust = trust(&house);
    for entry in &read {
        let verdict = verify(entry["event"].to_string().as_bytes(), &trust);
        assert!(verdict.verified, "{verdict:?}");
    }
    // The cursors stand after a restart, and nothing is there twice.
    assert_eq!(served.stop(), Some(0));
    let served = house.serve();
    put(&hospital, &served, &observation("o8", &["p"]), &[]).await;
    assert_eq!(about(&entries(&insurer, &served, 7, 1).await), ["o8"]);
    let (_, page) = fetch(&insurer, &served, "").await;
    assert_eq!(page["entries"].as_array().unwrap()[..7], read[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_finds_out_about_the_feed_of_another() {
    let house = told(
        "permit",
        "[[subscriber]]\nid = \"registry-2\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\ndomain = \"care\"\n",
    );
    let served = house.serve();
    let client = |name: &str| house.client(Some(&format!("tls/{name}")));
    put(&client("hospital"), &served, &patient("p"), &[]).await;
    put(&client("hospital"), &served, &observation("o", &["p"]), &[]).await;
    entries(&client("insurer"), &served, 0, 1).await;
    let other = fetch(&client("registry"), &served, "?subscriber=insurer").await;
    let unknown = fetch(&client("registry"), &served, "?subscriber=nobody").await;
    assert_eq!(other.0, StatusCode::NOT_FOUND);
    assert_eq!(other, unknown, "the same answer for what is another's and for what is not there");
    assert_eq!(fetch(&client("hospital"), &served, "").await, unknown, "who is no subscriber");
    let (status, page) = fetch(&client("registry"), &served, "?subscriber=registry").await;
    assert_eq!((status, &page["entries"]), (StatusCode::OK, &json!([])), "it takes other types");
    let refused = [
        ("registry", "", 400),
        ("insurer", "?after=1x", 400),
        ("insurer", "?limit=0", 400),
        ("insurer", "?limit=257", 400),
        ("insurer", "?wait=61", 400),
        ("insurer", "?nonsense=1", 400),
        ("insurer", "?after=2", 400),
        ("stranger", "", 401),
    ];
    for (name, query, status) in refused {
        let (found, outcome) = fetch(&client(name), &served, query).await;
        assert_eq!((found.as_u16(), &outcome["resourceType"]), (status, &json!("OperationOutcome")), "{name} {query}");
    }
    for (method, accept, status) in [("POST", "*/*", 405), ("GET", "text/html", 406)] {
        let request = Request::builder().method(method).uri("https://localhost/events").header("accept", accept);
        let (found, _) = client("insurer").try_send(&served, request.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(found.as_u16(), status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_first_event_or_with_its_time() {
    let house = told("permit", "");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    put(&hospital, &served, &patient("p"), &[]).await;
    let began = Instant::now();
    let (status, page) = fetch(&insurer, &served, "?wait=1").await;
    assert_eq!((status, &page["entries"], &page["next"]), (StatusCode::OK, &json!([]), &json!(0)));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let (polled, ()) = tokio::join!(fetch(&insurer, &served, "?wait=60"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        put(&hospital, &served, &observation("o", &["p"]), &[]).await;
    });
    assert_eq!(about(polled.1["entries"].as_array().unwrap()), ["o"]);
    assert!(began.elapsed() < Duration::from_secs(55), "the poll was woken");
    // Readers at their limit are told, and do not keep a sender out.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = house.client(Some("tls/insurer"));
            let address = served.address("fhir");
            tokio::spawn(async move { client.fetch_from(&address, "/events?after=1&wait=60").await })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(55);
    while waiting.iter().filter(|it| it.is_finished()).count() < 4 {
        assert!(Instant::now() < deadline, "nobody was turned away");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    put(&hospital, &served, &observation("o2", &["p"]), &[]).await;
    let mut read = 0;
    for polled in waiting {
        let answer = polled.await.unwrap().expect("an answer");
        if answer["resourceType"] == "OperationOutcome" {
            assert_eq!(first_issue(&answer).0, "events.readers");
        } else {
            assert_eq!(about(answer["entries"].as_array().unwrap()), ["o2"]);
            read += 1;
        }
    }
    assert_eq!(read, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_its_reader_stopped() {
    let house = told("permit", "");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    put(&hospital, &served, &patient("p"), &[]).await;
    put(&hospital, &served, &observation("o1", &["p"]), &[]).await;
    let mut stream = Stream::open(&insurer, &served, "", None).await;
    assert_eq!(stream.block().await.as_deref(), Some("retry: 1000"));
    let (first, data) = stream.event().await;
    let event = data.strip_prefix("data: ").unwrap();
    assert!(first == 1 && verify(event.as_bytes(), &trust(&house)).verified);
    put(&hospital, &served, &observation("o2", &["p"]), &[]).await;
    assert_eq!(stream.event().await.0, 2, "news come on the open stream");
    drop(stream);
    put(&hospital, &served, &observation("o3", &["p"]), &[]).await;
    // What the reader has counts more than the URL that it began with.
    let mut stream = Stream::open(&insurer, &served, "?after=0", Some("2")).await;
    assert_eq!(stream.event().await.0, 3);
    assert_eq!(stream.block().await.as_deref(), Some(":"), "a comment keeps a silent stream alive");
    // A stop ends the stream, and does not wait for its reader.
    let stopping = tokio::task::spawn_blocking(move || served.stop());
    assert_eq!(stream.block().await, None);
    assert_eq!(stopping.await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_before_it_is_fetched_is_not_shown() {
    let house = told("deny", "");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    for id in ["p", "q"] {
        put(&hospital, &served, &patient(id), &[]).await;
        put(&hospital, &served, &consent(id, "permit"), &[]).await;
        heard(&insurer, &served, id, StatusCode::OK).await;
        put(&hospital, &served, &observation(&format!("o-{id}"), &[id]), &[]).await;
    }
    let before = entries(&insurer, &served, 0, 2).await;
    assert!(before.iter().all(|it| it["event"].is_object()));
    put(&hospital, &served, &consent("p", "deny"), &[]).await;
    let revoked = before.iter().position(|it| about(std::slice::from_ref(it)) == ["o-p"]).unwrap();
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let now = entries(&insurer, &served, 0, 2).await;
        assert_eq!(now[1 - revoked], before[1 - revoked], "the other patient's event stays");
        if now[revoked] == json!({"cursor": before[revoked]["cursor"], "event": null}) {
            break;
        }
        assert!(Instant::now() < deadline, "the revocation did not take effect");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It was taken out of the feed: a later permit is for what comes later.
    put(&hospital, &served, &consent("p", "permit"), &[]).await;
    heard(&insurer, &served, "p", StatusCode::OK).await;
    put(&hospital, &served, &observation("o-p2", &["p"]), &[]).await;
    let after = entries(&insurer, &served, 2, 1).await;
    assert_eq!(about(&after), ["o-p2"]);
    assert_eq!(entries(&insurer, &served, 0, 3).await[revoked]["event"], Value::Null);
    let mut stream = Stream::open(&insurer, &served, &format!("?after={revoked}"), None).await;
    assert_eq!(stream.event().await.1, "event: withdrawn\ndata: null");
}

/// What is served, without sockets, which would take many events before they are read; its doors are open. It drains once
/// the sender is gone.
async fn without_sockets(house: &House) -> (build::Built, Arc<Face>, tokio::sync::watch::Sender<bool>) {
    let config = Config::load(&house.folder.path().join("sluice.toml")).unwrap();
    let built = build::build(&config, &Observer::new()).await.unwrap();
    let gateway = Arc::clone(&built.gateway);
    let deadline = Instant::now() + Duration::from_mins(2);
    while gateway.door.ready().is_err() {
        assert!(Instant::now() < deadline, "the doors stay closed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let recorder = &gateway.recorder;
    let seal = Arc::clone(recorder.vault()) as Arc<dyn Seal>;
    let retention = Retention { age: Duration::from_hours(1), entries: u64::MAX };
    let feed = Arc::new(Feed::start(Arc::clone(recorder.store()), seal, retention));
    let callers = Arc::new(sluice::serve::callers(&config.callers).unwrap());
    let (stop, drain) = tokio::sync::watch::channel(false);
    let face = Face::new(Some(feed), gateway, callers, config.subscribers.clone().into(), drain);
    (built, Arc::new(face), stop)
}

/// A request of the insurer.
fn asking(uri: &str) -> http::request::Parts {
    let caller = Caller {
        institution: "insurer".into(),
        device: None,
        may: Arc::new([Right::Read]),
        roles: Arc::new([]),
        purpose: None,
    };
    Request::get(uri).extension(Peer { by_certificate: Some(Arc::new(caller)) }).body(()).unwrap().into_parts().0
}

/// A stream of many events: what is revoked after the first was read is not in the rest, but for the one that was on its
/// way to the reader.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_while_a_stream_is_read_is_not_shown() {
    const EVENTS: usize = 12;
    let house = told("deny", "");
    {
        let served = house.serve();
        let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
        put(&hospital, &served, &patient("p"), &[]).await;
        put(&hospital, &served, &consent("p", "permit"), &[]).await;
        heard(&insurer, &served, "p", StatusCode::OK).await;
        for number in 0..EVENTS {
            put(&hospital, &served, &observation(&format!("o{number}"), &["p"]), &[]).await;
        }
        entries(&insurer, &served, 0, EVENTS).await;
        assert_eq!(served.stop(), Some(0));
    }
    let (built, face, _stop) = without_sockets(&house).await;
    let gateway = Arc::clone(&built.gateway);
    let mut request = asking("/events");
    request.headers.insert("accept", "text/event-stream".parse().unwrap());
    let mut body = face.answer(&request).await.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_mins(2), body.frame()).await.unwrap().unwrap();
        String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap()
    };
    assert!(next().await.starts_with("retry"));
    assert!(next().await.starts_with("id: 1\ndata: {"));

    let resource = consent("p", "deny");
    let revoked = json!({"resource": resource, "request": {"method": "PUT", "url": "Consent/c-p"}}).to_string();
    let Units::One(unit) = units(&built.spools, context(), &transaction(&[revoked])).unwrap() else {
        panic!("a transaction was meant");
    };
    gateway.admit(*unit).await.unwrap();
    let mut shown = 0;
    for cursor in 2..=EVENTS {
        let frame = next().await;
        if frame.starts_with(&format!("id: {cursor}\ndata: {{")) {
            shown += 1;
        } else {
            assert_eq!(frame, format!("id: {cursor}\nevent: withdrawn\ndata: null\n\n"));
        }
    }
    assert!(shown <= 1, "{shown} events were shown after the revocation");
}

/// What was permitted and is in the feed waits as well, once nobody knows whether it still is.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_of_the_ledger_shows_nothing() {
    let house = told("permit", "[consent]\nmax_staleness = \"2s\"\nskew = \"1s\"\nself_test_interval = \"1s\"\n");
    {
        let served = house.serve();
        let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
        put(&hospital, &served, &patient("p"), &[]).await;
        put(&hospital, &served, &observation("o", &["p"]), &[]).await;
        entries(&insurer, &served, 0, 1).await;
        assert_eq!(served.stop(), Some(0));
    }
    let (mut built, face, _stop) = without_sockets(&house).await;
    built.watching.shutdown().await;
    let deadline = Instant::now() + Duration::from_mins(2);
    while built.gateway.door.ready().is_ok() {
        assert!(Instant::now() < deadline, "the doors stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = face.answer(&asking("/events?after=0")).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_retention_removed_is_told_with_the_place_to_go_on() {
    let house = told("permit", "broker = { retention_entries_max = 2 }");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    put(&hospital, &served, &patient("p"), &[]).await;
    for number in 1..=5 {
        put(&hospital, &served, &observation(&format!("o{number}"), &["p"]), &[]).await;
    }
    while fetch(&insurer, &served, "").await.1["next"] != json!(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let request = Request::get("https://localhost/events?after=1").body(Bytes::new()).unwrap();
        let answer = insurer.answer(&served, request).await.unwrap();
        if answer.status() == StatusCode::GONE {
            assert_eq!(answer.headers()["x-sluice-oldest"], "3");
            break;
        }
        assert!(Instant::now() < deadline, "nothing was removed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(about(&entries(&insurer, &served, 3, 2).await), ["o4", "o5"]);
    assert_eq!(about(&entries(&insurer, &served, 0, 2).await), ["o4", "o5"], "from the beginning: what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_feed_beside_another_broker() {
    let house = told("permit", "broker = { kind = \"amqp\", url = \"amqp://127.0.0.1:1/%2f\" }");
    let served = house.serve();
    assert_eq!(fetch(&house.client(Some("tls/insurer")), &served, "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_consent_hold_in_the_feed() {
    let dated = |id: &str, kind: &str, date: &str| {
        let mut resource = consent("p", kind);
        resource["id"] = id.into();
        resource["dateTime"] = date.into();
        resource
    };
    for (settings, shown_while_denied) in [("combine = \"most-recent\"", false), ("mode = \"observe\"", true)] {
        let house = told("deny", &format!("[consent]\n{settings}\n"));
        let served = house.serve();
        let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
        for resource in [patient("p"), dated("c1", "deny", "2020-01-01"), dated("c2", "permit", "2021-01-01")] {
            put(&hospital, &served, &resource, &[]).await;
        }
        heard(&insurer, &served, "p", StatusCode::OK).await;
        put(&hospital, &served, &observation("o", &["p"]), &[]).await;
        let first = entries(&insurer, &served, 0, 1).await;
        assert_eq!(about(&first), ["o"], "{settings}");
        put(&hospital, &served, &dated("c3", "deny", "2022-01-01"), &[]).await;
        let status = if shown_while_denied { StatusCode::OK } else { StatusCode::NOT_FOUND };
        heard(&insurer, &served, "p", status).await;
        let again = entries(&insurer, &served, 0, 1).await;
        assert_eq!(again[0]["event"].is_object(), shown_while_denied, "{settings}: {again:?}");
    }
}
