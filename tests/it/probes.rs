//! What an operator sees: probes, metrics and logs of a served gateway.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sluice::config::Config;
use sluice::gateway::Gateway;
use sluice::observe::Observer;
use sluice::record::Recorder;
use sluice::serve::{Server, build, metadata};
use sluice::store::embedded::{Embedded, Options};
use sluice::store::fault::{Fault, Faults};
use sluice::store::{Batch, Store, Table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::house::{House, Served};
use crate::story;

const PATIENT: &str = r#"{"resourceType":"Patient","active":true}"#;
const LOGS: &str = "[observe]\nlevel = \"info\"\n";

/// What `promtool check metrics` says of a scrape; nothing if all is well.
fn promtool(scrape: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not installed: run ./check, which installs it, or apt-get install prometheus");
    child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    format!("{}{}", if output.status.success() { "" } else { "failed: " }, String::from_utf8(told).unwrap())
}

fn value(scrape: &str, series: &str) -> Option<f64> {
    scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn scrape(served: &Served) -> String {
    served.admin("/metrics", "text/plain").await.unwrap().2
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened_and_promtool_finds_no_fault() {
    let house = House::new("[consent.implicit]\ndisclose = \"permit\"\n");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    assert_eq!(client.post(&served, "/Patient", &[], PATIENT).await.0, StatusCode::CREATED);
    assert_eq!(client.post(&served, "/Patient", &[], r#"{"resourceType":"Patient","x":1}"#).await.0, 422);
    assert_eq!(client.post(&served, "/Patient", &[], "{").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(client.post(&served, "/Patient", &[("content-type", "text/plain")], PATIENT).await.0, 415);
    let missing = Request::get("https://localhost/fhir/Patient/missing").body(Bytes::new()).unwrap();
    assert_eq!(client.try_send(&served, missing).await.unwrap().0, StatusCode::NOT_FOUND);
    until("an anchor", async || value(&scrape(&served).await, "sluice_log_leaves").is_some_and(|it| it > 0.0)).await;

    let (status, media_type, text) = served.admin("/metrics", "text/plain").await.unwrap();
    assert_eq!((status, &*media_type), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(promtool(&text), "");
    for (series, expected) in [
        ("sluice_build_info{version=\"0.1.0\"}", 1.0),
        ("sluice_units_total{outcome=\"accepted\"}", 1.0),
        ("sluice_units_total{outcome=\"refused\"}", 1.0),
        ("sluice_resources_total", 1.0),
        ("sluice_refused_total{reason=\"invalid\"}", 1.0),
        ("sluice_refused_total{reason=\"malformed\"}", 1.0),
        ("sluice_refused_total{reason=\"unsupported_media\"}", 1.0),
        ("sluice_refused_total{reason=\"not_found\"}", 1.0),
        ("sluice_validation_issues_total{severity=\"error\"}", 1.0),
        ("sluice_consent_decisions_total{door=\"intake\",decision=\"permit\"}", 1.0),
        ("sluice_stage_duration_seconds_count{stage=\"record\"}", 1.0),
        ("sluice_inflight", 0.0),
        ("sluice_shed_total", 0.0),
        ("sluice_outbox_depth", 0.0),
        ("sluice_outbox_oldest_unsent_seconds", 0.0),
        ("sluice_parked_events", 0.0),
        ("sluice_spool_bytes", 0.0),
        ("sluice_publish_total{result=\"ack\"}", 0.0),
        ("sluice_amqp_reconnects_total", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    for (series, most) in [("sluice_ledger_anchor_lag_seconds", 30.0), ("sluice_ledger_staleness_seconds", 30.0)] {
        assert!((0.0..most).contains(&value(&text, series).unwrap()), "{series} in\n{text}");
    }
    // A certificate of `keys tls` holds for a while.
    assert!(value(&text, "sluice_cert_expiry_seconds").unwrap() > 86_400.0);

    let (_, media_type, text) = served.admin("/metrics", "application/openmetrics-text;version=1.0.0").await.unwrap();
    assert!(media_type.starts_with("application/openmetrics-text"));
    assert!(text.ends_with("# EOF\n"));
}

/// An event about two patients stands in two lanes, and is one.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_are_counted_once() {
    let house = House::new(
        "[consent.implicit]\ndisclose = \"permit\"\n[ledger]\nbeat = \"10m\"\n\
         [[subscriber]]\nid = \"registry\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\n\
         resource_types = [\"Observation\"]\nwait = \"ledger\"\n",
    );
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    for id in ["p", "q"] {
        story::put(&client, &served, &story::patient(id), &[]).await;
    }
    story::put(&client, &served, &story::observation("o1", &["p", "q"]), &[]).await;
    story::put(&client, &served, &story::observation("o2", &["q"]), &[]).await;
    until("two events wait", async || value(&scrape(&served).await, "sluice_outbox_depth") == Some(2.0)).await;
    let text = scrape(&served).await;
    assert_eq!(value(&text, "sluice_outbox_depth"), Some(2.0), "{text}");
    assert!(value(&text, "sluice_outbox_oldest_unsent_seconds").unwrap() > 0.0, "{text}");
}

/// Every metric that the page of an operator may rest on is named in one place; a label is a word of ours.
#[tokio::test(flavor = "multi_thread")]
async fn no_label_comes_from_what_was_sent() {
    let house = House::new("");
    let served = house.serve();
    let before: Vec<String> = series(&scrape(&served).await);
    let client = house.client(Some("tls/hospital"));
    for at in 0..20 {
        client.post(&served, &format!("/Nonsense{at}"), &[("x-request-id", &at.to_string())], PATIENT).await;
    }
    let after = series(&scrape(&served).await);
    let new: Vec<&String> = after.iter().filter(|it| !before.contains(it)).collect();
    assert_eq!(new, ["sluice_refused_total{reason=\"not_found\"}"], "twenty types that do not exist, one series");
}

fn series(scrape: &str) -> Vec<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#') && !line.contains("stage_duration"));
    samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_started_says_so_at_each_probe() {
    let house = House::new("");
    let served = house.serve();
    for path in ["/startupz", "/livez", "/readyz"] {
        let (status, media_type, body) = served.admin(path, "*/*").await.unwrap();
        assert_eq!((status, &*media_type, &*body), (StatusCode::OK, "text/plain; charset=utf-8", "ok\n"), "{path}");
    }
    assert_eq!(served.admin("/elsewhere", "*/*").await.unwrap().0, StatusCode::NOT_FOUND);
}

/// A gateway in this process, whose parts a test can break.
struct Breakable {
    server: Server,
    observer: Arc<Observer>,
    gateway: Arc<Gateway>,
    watching: JoinSet<()>,
    _house: House,
}

impl Breakable {
    async fn start(settings: &str, store: Option<Arc<dyn Store>>) -> Self {
        let house = House::new(settings);
        let config = Config::load(&house.folder.path().join("sluice.toml")).unwrap();
        let observer = Observer::new();
        assert!(observer.started().is_err() && observer.ready().is_err());
        let mut built = build::build(&config, &observer).await.unwrap();
        if let Some(store) = store {
            let mut gateway = Arc::into_inner(built.gateway).unwrap();
            let (vault, keys) = (Arc::clone(gateway.recorder.vault()), Arc::clone(gateway.recorder.keys()));
            let tenant = Arc::clone(gateway.recorder.tenant());
            gateway.recorder = Recorder::new(store, vault, keys, tenant, Duration::from_hours(1));
            built.gateway = Arc::new(gateway);
        }
        let watching = std::mem::take(&mut built.watching);
        let gateway = Arc::clone(&built.gateway);
        let metadata = metadata::metadata(&config.tenant).unwrap();
        let server = Server::start(&config, built, metadata, Arc::clone(&observer)).await.unwrap();
        let started = Self { server, observer, gateway, watching, _house: house };
        until("ready", async || started.ask("/readyz").await.0 == 200).await;
        started
    }

    /// What a probe is told.
    async fn ask(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.server.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head["HTTP/1.1 ".len()..][..3].parse().unwrap(), body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_store_failed_is_neither_ready_nor_live() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(|group| (group == 2).then_some(Fault::Undone));
    let options = Options { faults: Some(faults), disk_reserve_bytes: 0, ..Options::new(folder.path()) };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&options).unwrap());
    store.commit(Batch::new().put(Table::Meta, "1", "1")).await.unwrap();
    let gateway = Breakable::start("", Some(Arc::clone(&store))).await;
    assert_eq!(gateway.ask("/livez").await, (200, "ok\n".to_owned()));
    store.commit(Batch::new().put(Table::Meta, "2", "2")).await.unwrap_err();
    until("not ready", async || gateway.ask("/readyz").await.0 == 503).await;
    let (_, why) = gateway.ask("/readyz").await;
    assert!(why.contains("store: a write failed\n"), "{why}");
    let live = gateway.ask("/livez").await;
    assert_eq!(live, (503, "the store takes nothing any more\n".to_owned()), "only a restart helps");
    assert_eq!(gateway.ask("/startupz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hears_nothing_of_the_ledger_is_not_ready_but_live() {
    let mut gateway = Breakable::start("[consent]\nmax_staleness = \"1s\"\nskew = \"500ms\"\n", None).await;
    // What follows the ledger hangs, and so says nothing any more.
    gateway.watching.shutdown().await;
    until("not ready", async || gateway.ask("/readyz").await.0 == 503).await;
    let (_, why) = gateway.ask("/readyz").await;
    assert!(why.starts_with("doors: "), "{why}");
    assert!(gateway.gateway.door.ready().is_err(), "and decides nothing");
    assert_eq!((gateway.ask("/livez").await.0, gateway.ask("/startupz").await.0), (200, 200));
    let (_, scrape) = gateway.ask("/metrics").await;
    assert!(value(&scrape, "sluice_ledger_staleness_seconds").unwrap() >= 1.0, "{scrape}");
    let Breakable { server, observer, .. } = gateway;
    server.drain().await;
    assert!(observer.ready().unwrap_err().contains("drain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_told_and_lets_what_is_under_way_end() {
    let house = House::new("");
    let served = house.serve();
    let mut stream = house.client(Some("tls/hospital")).connect(&served).await.unwrap();
    let head = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/fhir+json\r\ncontent-length: {}\r\n\r\n",
        PATIENT.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&PATIENT.as_bytes()[..10]).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    served.terminate();
    until("draining", async || served.admin("/readyz", "*/*").await.unwrap().0 != StatusCode::OK).await;
    let (status, _, why) = served.admin("/readyz", "*/*").await.unwrap();
    assert_eq!((status, &*why), (StatusCode::SERVICE_UNAVAILABLE, "drain: draining\n"));
    assert_eq!(served.admin("/livez", "*/*").await.unwrap().0, StatusCode::OK);
    stream.write_all(&PATIENT.as_bytes()[10..]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(served.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_all_places_are_taken_gets_429() {
    let house = House::new("limits = { concurrency_max = 1 }");
    let served = house.serve();
    let mut first = house.client(Some("tls/hospital")).connect(&served).await.unwrap();
    let head = "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/fhir+json\r\ncontent-length: 9\r\n\r\n{";
    first.write_all(head.as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stream = house.client(Some("tls/hospital")).connect(&served).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/fhir/metadata").header("host", "localhost");
    let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    assert_eq!(value(&scrape(&served).await, "sluice_shed_total"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_is_json_and_names_the_trace_and_the_caller_and_no_path() {
    let house = House::new(LOGS);
    let served = house.serve();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let client = house.client(Some("tls/hospital"));
    let of_mueller = Request::put("https://localhost/fhir/Patient/Mueller-1970?name=Mueller")
        .header("content-type", "application/fhir+json")
        .header("traceparent", &parent)
        .body(Bytes::from_static(br#"{"resourceType":"Patient","id":"Mueller-1970"}"#))
        .unwrap();
    assert_eq!(client.try_send(&served, of_mueller).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(client.post(&served, "/Patient", &[("traceparent", "Mueller")], "{").await.0, StatusCode::BAD_REQUEST);
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let answered = |status: u64| lines.iter().find(|it| it["status"] == status).expect("a line");
    let accepted = &answered(201)["span"];
    assert_eq!(
        (&accepted["route"], &accepted["method"], &accepted["caller"], &accepted["trace_id"]),
        (&"/fhir/[type]/[id]".into(), &"PUT".into(), &"hospital-a".into(), &trace.into())
    );
    assert!(answered(400)["span"].get("trace_id").is_none(), "a malformed one is dropped");
    assert!(lines.iter().any(|it| it["message"] == "refused" && it["rule"] == "json"), "{log}");
    assert!(!log.contains("Mueller"), "{log}");
}
