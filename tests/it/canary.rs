//! Canaries: names and identifiers are planted wherever a sender can put them, and looked for wherever they must not come.
//!
//! Each stands for one place and says which, so that a finding names the hole. A *value* may come nowhere but into what the
//! store gives back under consent. An *id* that a sender chose is also what an id-only event refers to; it may come
//! nowhere else.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXUPPER};
use http::Request;
use serde_json::{Value, json};
use sluice::broker::feed::{Body, Entry, Feed, Retention, Seal};
use sluice::config::Config;
use sluice::observe::Observer;
use sluice::serve::build;
use sluice::store::{Direction, KeyRange, Table};
use tokio::io::AsyncWriteExt as _;

use crate::house::{House, Served};

mod upstream;

/// What every canary of a value begins with. Long enough that chance does not write it.
const VALUE: &str = "zqxvalue";
/// What every canary of an id begins with.
const ID: &str = "zqxident";

/// The canary of a value at this place.
fn value(place: &str) -> String {
    format!("{VALUE}-{place}")
}

/// The canary of an id at this place.
fn id(place: &str) -> String {
    format!("{ID}-{place}")
}

/// What is looked for, in each way in which it may be written.
struct Search(Vec<(String, Vec<u8>)>);

impl Search {
    fn for_all(marks: &[&str]) -> Self {
        let mut wanted = Vec::new();
        for mark in marks {
            wanted.push((format!("{mark} as it is"), mark.as_bytes().to_vec()));
            let hex = HEXLOWER.encode(mark.as_bytes());
            wanted.push((format!("{mark} in hex"), hex.into_bytes()));
            let utf16: Vec<u8> = mark.encode_utf16().flat_map(u16::to_le_bytes).collect();
            wanted.push((format!("{mark} in UTF-16"), utf16));
            for shift in 0..3 {
                // Whatever stood before it, three alignments are all there are; the ends depend on the neighbours.
                let padded = [&[0; 3][..shift], mark.as_bytes()].concat();
                let text = STANDARD_NO_PAD.encode(padded);
                let middle = &text[if shift == 0 { 0 } else { 4 }..text.len() - 2];
                wanted.push((format!("{mark} in base64"), middle.to_ascii_lowercase().into_bytes()));
            }
        }
        Self(wanted)
    }

    /// What was found, and some of where it stood.
    fn find(&self, haystack: &[u8]) -> Option<String> {
        let lower = haystack.to_ascii_lowercase();
        self.0.iter().find_map(|(name, needle)| {
            let at = memchr::memmem::find(&lower, needle)?;
            let around = &haystack[at.saturating_sub(80)..haystack.len().min(at + 60)];
            Some(format!("{name}: …{}…", String::from_utf8_lossy(around)))
        })
    }

    fn assert_nothing(&self, place: &str, haystack: &[u8]) {
        assert_eq!(self.find(haystack), None, "in {place}");
    }

    /// Every file of a folder, its name included.
    fn assert_nothing_under(&self, folder: &Path) -> u64 {
        let mut bytes = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            self.assert_nothing("a file's name", path.as_os_str().as_encoded_bytes());
            if path.is_dir() {
                bytes += self.assert_nothing_under(&path);
            } else {
                let content = fs::read(&path).unwrap();
                bytes += content.len() as u64;
                self.assert_nothing(&path.display().to_string(), &content);
            }
        }
        bytes
    }
}

#[test]
fn the_search_finds_what_was_planted_on_purpose() {
    let search = Search::for_all(&[VALUE, ID]);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    let base64 = |text: String| STANDARD_NO_PAD.encode(text);
    for planted in [
        value("name"),
        value("name").to_uppercase(),
        format!("{{\"id\":\"{}\"}}", id("x")),
        base64(value("a")),
        base64(format!("1{}", value("a"))),
        base64(format!("12{}", value("a"))),
        URL_SAFE_NO_PAD.encode(format!("Basic user:{}", id("a"))),
        HEXUPPER.encode(value("a").as_bytes()),
    ] {
        let file = folder.path().join("below/control");
        fs::write(&file, format!("\0\u{1}{planted}")).unwrap();
        assert!(search.find(&fs::read(&file).unwrap()).is_some(), "{planted}");
        let looked = std::panic::catch_unwind(|| search.assert_nothing_under(folder.path()));
        assert!(looked.is_err(), "{planted}");
    }
    fs::write(folder.path().join("below/control"), "nothing of it").unwrap();
    assert_eq!(search.assert_nothing_under(folder.path()), 13);
}

const SETTINGS: &str = "[observe]\nlevel = \"trace\"\n\
    [consent.implicit]\ndisclose = \"permit\"\n\
    [limits]\nidle_timeout = \"60s\"\n\
    [[subscriber]]\nid = \"registry\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\npayload = \"id-only\"\n\
    [[subscriber]]\nid = \"nobody\"\ninstitution = \"nobody\"\npurpose = \"HPAYMT\"\npayload = \"none\"\n";

fn patient(place: &str) -> Value {
    let text = |member: &str| value(&format!("{place}-{member}"));
    json!({
        "resourceType": "Patient", "id": id(place), "language": "de",
        "text": { "status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{}</div>", text("div")) },
        "contained": [{ "resourceType": "Organization", "id": "c", "name": text("contained") }],
        "extension": [{ "url": format!("urn:x:{}", text("extension-url")), "valueString": text("extension") }],
        "identifier": [
            { "system": "urn:oid:1.2.3", "value": text("identifier"), "assigner": { "display": text("assigner") } },
            { "system": format!("urn:x:{}", text("system")), "value": "7" },
        ],
        "name": [{
            "text": text("name-text"), "family": text("family"), "given": [text("given")],
            "_family": { "extension": [{ "url": "urn:x:y", "valueString": text("primitive-extension") }] },
        }],
        "telecom": [{ "system": "email", "value": format!("{}@example.org", text("telecom")) }],
        "address": [{ "line": [text("line")], "city": text("city"), "postalCode": text("postal-code") }],
        "photo": [{ "contentType": "image/png", "title": text("photo"), "url": format!("https://x.example/{}", text("photo-url")) }],
        "contact": [{ "name": { "family": text("contact") } }],
        "managingOrganization": { "reference": "#c" },
    })
}

fn observation(place: &str, subject: &str) -> Value {
    let text = |member: &str| value(&format!("{place}-{member}"));
    json!({
        "resourceType": "Observation", "id": id(place), "status": "final",
        "code": { "text": text("code"), "coding": [{ "system": format!("urn:x:{}", text("code-system")), "code": text("code-code"), "display": text("code-display") }] },
        "subject": { "reference": format!("Patient/{subject}"), "display": text("subject-display") },
        "performer": [{ "identifier": { "system": "urn:x:y", "value": text("performer") } }],
        "valueString": text("value"), "note": [{ "text": text("note") }],
        "interpretation": [{ "text": text("interpretation") }],
    })
}

fn consent(place: &str, subject: &str, provision: &Value) -> Value {
    let coding = |system: &str, code: &str| json!({ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code });
    let text = |member: &str| value(&format!("{place}-{member}"));
    json!({
        "resourceType": "Consent", "id": id(place), "status": "active",
        "identifier": [{ "system": "urn:x:y", "value": text("identifier") }],
        "scope": { "coding": [coding("consentscope", "patient-privacy")], "text": text("scope") },
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }], "text": text("category") }],
        "patient": { "reference": format!("Patient/{subject}"), "display": text("patient") },
        "sourceAttachment": { "title": text("source"), "url": format!("https://x.example/{}", text("source-url")) },
        "policy": [{ "uri": format!("https://x.example/{}", text("policy")) }],
        "policyRule": { "coding": [coding("v3-ActCode", "OPTIN")] },
        "provision": provision,
    })
}

fn entry(resource: &Value, place: &str) -> Value {
    let kind = resource["resourceType"].as_str().unwrap();
    json!({
        "fullUrl": format!("https://x.example/{}/{kind}/{}", value(&format!("{place}-full-url")), resource["id"].as_str().unwrap()),
        "resource": resource,
        "request": { "method": "PUT", "url": format!("{kind}/{}", resource["id"].as_str().unwrap()) },
    })
}

fn bundle(kind: &str, place: &str, entries: &[Value]) -> String {
    json!({
        "resourceType": "Bundle", "id": id(&format!("{place}-bundle")), "type": kind,
        "identifier": { "system": "urn:x:y", "value": value(&format!("{place}-bundle-identifier")) },
        "entry": entries,
    })
    .to_string()
}

struct Sender<'a> {
    house: &'a House,
    served: &'a Served,
    answers: Vec<(String, u16, String)>,
}

impl Sender<'_> {
    /// Sends as this client, with canaries in the headers; keeps the answer.
    async fn send(
        &mut self,
        client: &str,
        what: &str,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> u16 {
        let header = |name: &str| value(&format!("header-{name}"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://localhost/fhir{path}"))
            .header("user-agent", header("user-agent"))
            .header("referer", format!("https://x.example/{}", header("referer")))
            .header("cookie", header("cookie"))
            .header("baggage", header("baggage"))
            .header("traceparent", header("traceparent"))
            .header("from", header("from"))
            .header("x-anything", header("x-anything"));
        for (name, default) in [
            ("content-type", "application/fhir+json".to_owned()),
            ("x-request-id", format!("{}-{what}", header("x-request-id"))),
        ] {
            if !more.iter().any(|(given, _)| *given == name) {
                request = request.header(name, default);
            }
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let client = self.house.client(Some(&format!("tls/{client}")));
        let (status, answer) = client.try_send(self.served, request.body(body.into()).unwrap()).await.expect(what);
        self.answers.push((what.to_owned(), status.as_u16(), answer.to_string()));
        status.as_u16()
    }
}

fn bytes(entry: &Entry) -> &[u8] {
    match &entry.body {
        Body::Message { bytes, .. } => bytes,
        Body::Erased | Body::Withdrawn { .. } => panic!("nothing was taken back"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_record_comes_where_it_must_not() {
    let house = House::new(SETTINGS);
    let served = house.serve();
    let mut sender = Sender { house: &house, served: &served, answers: Vec::new() };
    let (p, d) = (id("accepted"), id("denying"));

    // Accepted, in each form. What is let through although R4 would have it otherwise comes with warnings.
    let deny = json!({ "type": "deny" });
    let permit = json!({ "type": "permit", "data": [{ "meaning": "instance", "reference": { "reference": format!("Observation/{}", id("observed")), "display": value("provision-display") } }] });
    let accepted = bundle(
        "transaction",
        "transaction",
        &[
            entry(&patient("accepted"), "transaction"),
            entry(&patient("denying"), "transaction"),
            entry(&observation("observed", &p), "transaction"),
            entry(&patient("consenting"), "transaction"),
            entry(&observation("observed-denying", &d), "transaction"),
            entry(&consent("consent", &id("consenting"), &permit), "transaction"),
        ],
    );
    assert_eq!(
        sender.send("hospital", "a transaction", "POST", "", &[("prefer", "return=OperationOutcome")], accepted).await,
        200
    );
    let lines = [observation("line", &p), patient("line-patient")].map(|it| it.to_string()).join("\n");
    assert_eq!(
        sender
            .send("hospital", "lines", "POST", "/$ingest", &[("content-type", "application/fhir+ndjson")], lines)
            .await,
        200
    );
    let collection = bundle("collection", "collection", &[json!({ "resource": observation("collected", &p) })]);
    assert_eq!(sender.send("hospital", "a collection", "POST", "", &[], collection).await, 200);
    let document = json!({
        "resourceType": "Bundle", "type": "document", "timestamp": "2020-01-01T00:00:00Z",
        "identifier": { "system": "urn:x:y", "value": value("document-identifier") },
        "entry": [{ "fullUrl": format!("https://x.example/{}", value("document-full-url")), "resource": {
            "resourceType": "Composition", "id": id("composition"), "status": "final", "date": "2020-01-01", "title": value("title"),
            "type": { "text": value("composition-type") }, "author": [{ "display": value("author") }],
            "subject": { "reference": format!("Patient/{p}") },
        } }],
    });
    sender.send("hospital", "a document", "POST", "", &[], document.to_string()).await;
    let conditional = value("if-none-exist");
    let created = sender
        .send(
            "hospital",
            "a conditional create",
            "POST",
            "/Patient",
            &[("if-none-exist", &format!("identifier=urn:x:y|{conditional}"))],
            json!({ "resourceType": "Patient", "identifier": [{ "system": "urn:x:y", "value": conditional }] })
                .to_string(),
        )
        .await;
    assert_eq!(created, 201);
    let put = |place: &str| format!("/Patient/{}", id(place));
    assert_eq!(
        sender
            .send(
                "hospital",
                "an update",
                "PUT",
                &put("accepted"),
                &[("idempotency-key", &value("idempotency-key"))],
                patient("accepted").to_string()
            )
            .await,
        200
    );

    // A patient says no: what comes after is denied at intake, and in reads.
    let denial = bundle("transaction", "denial", &[entry(&consent("denial", &d, &deny), "denial")]);
    assert_eq!(sender.send("hospital", "a denial", "POST", "", &[], denial).await, 200);
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    loop {
        let denied = bundle("transaction", "denied", &[entry(&observation("denied", &d), "denied")]);
        match sender.send("hospital", "a denied one", "POST", "", &[], denied).await {
            403 => break,
            status => assert!(status == 503 && tokio::time::Instant::now() < deadline, "{:?}", sender.answers.last()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Refused and malformed, each holding canaries before and behind its fault.
    let name = value("refused");
    for (what, path, body) in [
        (
            "an unknown member",
            "/Patient",
            json!({ "resourceType": "Patient", "nonsense": name, "name": [{ "family": name }] }).to_string(),
        ),
        ("a date that is none", "/Patient", json!({ "resourceType": "Patient", "birthDate": name }).to_string()),
        ("a code that is none", "/Patient", json!({ "resourceType": "Patient", "gender": name }).to_string()),
        ("a type that is none", "/Patient", json!({ "resourceType": name }).to_string()),
        (
            "a uri that is none",
            "/Patient",
            json!({ "resourceType": "Patient", "implicitRules": format!("{name} x") }).to_string(),
        ),
        ("an id that is none", "/Patient", json!({ "resourceType": "Patient", "id": format!("{name}/é") }).to_string()),
        ("a reference to nobody", "/Observation", observation("nobody", &value("nobody")).to_string()),
        ("an end too early", "/Patient", format!("{{\"resourceType\":\"Patient\",\"name\":[{{\"family\":\"{name}")),
        ("a comma too many", "/Patient", format!("{{\"resourceType\":\"Patient\",\"language\":\"{name}\",}}")),
        ("a word that is none", "/Patient", format!("{{\"resourceType\":\"Patient\",\"active\":{name}}}")),
        ("a bad escape", "/Patient", format!("{{\"resourceType\":\"Patient\",\"language\":\"{name}\\x\"}}")),
        ("nothing of JSON", "/Patient", name.clone()),
        ("a bad Bundle", "", format!("{{\"resourceType\":\"Bundle\",\"type\":\"{name}\",\"entry\":[]}}")),
        (
            "a bad entry",
            "",
            bundle(
                "transaction",
                "bad",
                &[json!({ "resource": patient("bad"), "request": { "method": name, "url": name } })],
            ),
        ),
        (
            "a bad method",
            "",
            bundle(
                "batch",
                "bad",
                &[
                    json!({ "resource": patient("bad"), "request": { "method": "DELETE", "url": format!("Patient/{name}") } }),
                ],
            ),
        ),
        (
            "a bad search",
            "",
            bundle(
                "transaction",
                "bad",
                &[
                    json!({ "resource": patient("bad"), "request": { "method": "POST", "url": "Patient", "ifNoneExist": format!("name={name}") } }),
                ],
            ),
        ),
        (
            "a batch with bad entries",
            "",
            bundle(
                "batch",
                "bad",
                &[entry(&json!({ "resourceType": "Patient", "id": id("bad"), "nonsense": name }), "bad")],
            ),
        ),
        ("a path that is none", "/Patient/a/b/zqxvalue-path", patient("bad").to_string()),
        ("a type in the path that is none", "/Zqxvalue", patient("bad").to_string()),
        ("a query", "/Patient?name=zqxvalue-query", format!("{{{name}")),
    ] {
        let status = sender.send("hospital", what, "POST", path, &[], body).await;
        assert!((400..600).contains(&status) || what == "a batch with bad entries", "{what}: {status}");
    }
    let json = patient("bad").to_string();
    for (what, header, value) in [
        ("a media type", "content-type", value("content-type")),
        ("a coding", "content-encoding", value("content-encoding")),
        ("no gzip", "content-encoding", "gzip".to_owned()),
        ("an Accept", "accept", format!("application/{}", value("accept"))),
        ("an If-Match", "if-match", value("if-match")),
        ("a long key", "idempotency-key", value("key").repeat(40)),
    ] {
        let status = sender.send("hospital", what, "PUT", &put("bad"), &[(header, &value)], json.clone()).await;
        assert!((400..500).contains(&status), "{what}: {status}");
    }
    sender.send("hospital", "a method that is none", "ZQXVALUE", "/Patient", &[], json.clone()).await;
    let token = format!("Bearer {}", value("token"));
    assert_eq!(
        sender.send("stranger", "a stranger", "POST", "/Patient", &[("authorization", &token)], json).await,
        401
    );

    // Asked about, and never sent to be kept: by itself, against a profile, and in Parameters.
    let against = "/Patient/$validate?mode=create&profile=http://hl7.org/fhir/StructureDefinition/Patient";
    for (path, body) in [
        ("/Patient/$validate", patient("asked").to_string()),
        (against, patient("asked").to_string()),
        ("/$validate", json!({ "resourceType": "Parameters", "parameter": [
            { "name": "resource", "resource": { "resourceType": "Patient", "birthDate": value("asked"), "gender": value("asked") } },
        ] }).to_string()),
        ("/$validate", format!("{{\"{}\": 1, {}", value("asked"), value("asked"))),
    ] {
        assert_eq!(sender.send("hospital", "a validation", "POST", path, &[], body).await, 200, "{path}");
    }

    // Questions: shown, denied, missing; by the hospital and by others.
    assert_eq!(sender.send("hospital", "a read", "GET", &put("accepted"), &[], "").await, 200);
    let (_, _, shown) = sender.answers.pop().unwrap();
    assert!(shown.contains(&value("accepted-family")), "the canaries are in what is kept: {shown}");
    for path in [
        put("denying"),
        format!("/Observation/{}", id("observed-denying")),
        put("missing"),
        format!("{}/_history", put("denying")),
    ] {
        assert_eq!(sender.send("hospital", "a question denied", "GET", &path, &[], "").await, 404);
        assert_eq!(sender.send("stranger", "a stranger's question", "GET", &path, &[], "").await, 401);
    }

    // Spooled: a long body that is not at its end stands in a file without a name.
    let search = Search::for_all(&[VALUE, ID]);
    let mut slow = house.client(Some("tls/hospital")).connect(&served).await.unwrap();
    let long = [r#"{"resourceType":"Bundle","type":"batch","entry":["#, &value("spooled ").repeat(200_000)].concat();
    let head = "POST /fhir HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/fhir+json\r\ncontent-length: 99999999\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(long.as_bytes()).await.unwrap();
    slow.flush().await.unwrap();
    let mut spooled = 0;
    while spooled < 1 << 20 {
        assert!(tokio::time::Instant::now() < deadline + Duration::from_mins(1), "nothing was spooled");
        tokio::time::sleep(Duration::from_millis(50)).await;
        spooled = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", served.pid())).unwrap() {
            let link = entry.unwrap().path();
            let Ok(target) = fs::read_link(&link) else { continue };
            if target.to_string_lossy().contains("/spool/")
                && let Ok(content) = fs::read(&link)
            {
                search.assert_nothing("the spool", &content);
                spooled += content.len();
            }
        }
    }
    drop(slow);

    // Until everything that follows from it has come to its end.
    let done = async || {
        let (_, _, scrape) = served.admin("/metrics", "text/plain").await.unwrap();
        search.assert_nothing("a scrape", scrape.as_bytes());
        ["sluice_work_depth 0", "sluice_outbox_depth 0"].iter().all(|it| scrape.contains(it))
            && !scrape.contains("sluice_publish_total{result=\"ack\"} 0")
    };
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline + Duration::from_mins(1), "it does not settle");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, _, scrape) = served.admin("/metrics", "application/openmetrics-text").await.unwrap();
    search.assert_nothing("a scrape", scrape.as_bytes());
    for path in ["/readyz", "/livez", "/startupz"] {
        search.assert_nothing(path, served.admin(path, "*/*").await.unwrap().2.as_bytes());
    }

    // What anyone may ask for: the log, and what is told without a caller.
    for path in ["/log/checkpoint", "/log/tile/0/000.p/16", "/fhir/metadata", "/receipts/zqx"] {
        let request = Request::get(format!("https://localhost{path}")).body(Bytes::new()).unwrap();
        let (_, answer) = house.client(None).try_send(&served, request).await.unwrap();
        search.assert_nothing(path, answer.to_string().as_bytes());
    }

    // No answer holds a value, its sender's own included: places and rules alone, and ids of what was recorded.
    let values = Search::for_all(&[VALUE]);
    for (what, status, answer) in &sender.answers {
        if (400..600).contains(status) {
            // A path may name a member as it was sent.
            values.assert_nothing(&format!("the answer to {what}"), answer.as_bytes());
        }
        if what.contains("stranger") || what.contains("question") {
            search.assert_nothing(&format!("the answer to {what}"), answer.as_bytes());
        }
    }

    nothing_is_left(&house, served, 5).await;
}

/// All of them.
const TABLES: [Table; 27] = [
    Table::Resource,
    Table::Version,
    Table::Subject,
    Table::SubjectResource,
    Table::Operation,
    Table::Idempotency,
    Table::Work,
    Table::Leaf,
    Table::LeafPending,
    Table::Tile,
    Table::Checkpoint,
    Table::Receipt,
    Table::Outbox,
    Table::Lane,
    Table::Parked,
    Table::Feed,
    Table::Meta,
    Table::LocalId,
    Table::Opening,
    Table::Index,
    Table::Decision,
    Table::LeafIndex,
    Table::Body,
    Table::Stream,
    Table::Event,
    Table::PolicySet,
    Table::Staged,
];

/// Ends the gateway, and looks for canaries in what it has logged, in its files, and in the events that it has published,
/// of which there must be as many.
async fn nothing_is_left(house: &House, served: Served, events_min: usize) {
    let (search, values) = (Search::for_all(&[VALUE, ID]), Search::for_all(&[VALUE]));
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().count() > 10 && log.contains("\"answered\""), "the log is there: {log}");
    for line in log.lines() {
        search.assert_nothing("the log", line.as_bytes());
    }

    // On disk: store, keystore, spool and ledger.
    let data = house.folder.path().join("data");
    for folder in ["store", "keystore", "ledger"] {
        assert!(search.assert_nothing_under(&data.join(folder)) > 0, "{folder} is empty");
    }
    search.assert_nothing_under(&data.join("spool"));

    // Events, as they were published.
    let config = Config::load(&house.folder.path().join("sluice.toml")).unwrap();
    let built = build::build(&config, &Observer::new()).await.unwrap();
    let recorder = &built.gateway.recorder;
    let seal = Arc::clone(recorder.vault()) as Arc<dyn Seal>;
    let retention = Retention { age: Duration::from_hours(1), entries: u64::MAX };
    let feed = Feed::start(Arc::clone(recorder.store()), seal, retention);
    let events = feed.read_after("registry", 0, 1_000).await.unwrap();
    assert!(events.len() >= events_min, "{} events", events.len());
    for event in &events {
        values.assert_nothing("an event", bytes(event));
    }
    for event in feed.read_after("nobody", 0, 1_000).await.unwrap() {
        search.assert_nothing("an event without content", bytes(&event));
    }
    // The public leaves and the rows as the engine gives them, in case it writes them in another form.
    for table in TABLES {
        for row in recorder.store().scan(table, KeyRange::all(), 10_000, Direction::Up).await.unwrap() {
            search.assert_nothing("a row's key", &row.key);
            search.assert_nothing("a row's value", &row.value);
        }
    }
}
