//! Terminologies: the packages and a server pass one suite; a server that is wrong, slow or dead is no answer; and what
//! becomes of a unit then.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sluice::config;
use sluice::error::{Kind, Peer, Refusal};
use sluice::observe::Observer;
use sluice::terminology::{Local, Membership, Question, Remote, Terminology, Unavailable};
use sluice_fhir::validate::Validator;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::house::{House, lines, sluice};
use crate::rig::{Rig, transaction};

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Answered by the packages; codes of the value set `v` are those that begin with "in".
    Right,
    /// Answered with an OperationOutcome and this status.
    Says(u16),
    /// Answered with what is no answer.
    Mumbles,
    /// A page of something on the way.
    Page,
    /// The connection breaks.
    Breaks,
    /// Answered once there is a permit.
    Slow,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
    token: Arc<Mutex<Option<String>>>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(Mutex::new(Mode::Right)),
            asked: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
            token: Arc::default(),
        };
        let served = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| server.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(http.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        server
    }

    fn turn(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, std::io::Error> {
        assert_eq!((request.method(), request.uri().path()), (&http::Method::POST, "/fhir/ValueSet/$validate-code"));
        *self.token.lock().unwrap() = request.headers().get("authorization").map(|it| it.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let mode = *self.mode.lock().unwrap();
        let reply = |status: u16, text: String| {
            let builder = http::Response::builder().status(status).header("content-type", "application/fhir+json");
            Ok(builder.body(Full::new(Bytes::from(text))).unwrap())
        };
        let outcome =
            json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]});
        match mode {
            Mode::Says(status) => return reply(status, outcome.to_string()),
            Mode::Mumbles => return reply(200, json!({"resourceType": "Parameters"}).to_string()),
            Mode::Page => return reply(404, "<html>".to_owned()),
            Mode::Breaks => return Err(std::io::Error::other("told to")),
            Mode::Slow => self.permits.acquire().await.unwrap().forget(),
            Mode::Right => {}
        }
        let named = |name: &str| {
            let parameter = asked["parameter"].as_array().unwrap().iter().find(|it| it["name"] == name)?;
            let value = parameter.as_object().unwrap().iter().find(|(key, _)| key.starts_with("value"))?.1;
            Some(value.as_str()?.to_owned())
        };
        let (code, value_set) = (named("code").unwrap(), named("url").unwrap());
        let question = Question { value_set, system: named("system"), version: named("systemVersion"), code };
        let answer = match &*question.value_set {
            "http://x.example/ValueSet/v" if question.code.starts_with("in") => Membership::In,
            "http://x.example/ValueSet/v" => Membership::Out,
            _ => Local::new(Validator::r4()).member(&question).await.unwrap(),
        };
        match answer {
            Membership::Unknown => reply(404, outcome.to_string()),
            answer => {
                let result = json!({"name": "result", "valueBoolean": answer == Membership::In});
                reply(200, json!({"resourceType": "Parameters", "parameter": [result]}).to_string())
            }
        }
    }
}

fn settings(address: SocketAddr) -> config::Terminology {
    config::Terminology {
        url: format!("http://{address}/fhir/").parse().unwrap(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        ca_file: None,
        client: None,
        token_file: None,
        concurrency_max: 4,
        cache_entries_max: 100,
        cache_for: Duration::from_hours(1),
        failures_max: 1000,
        pause: Duration::from_hours(1),
    }
}

fn remote(settings: &config::Terminology) -> Remote {
    Remote::new(settings, Observer::new()).unwrap()
}

fn question(value_set: &str, system: Option<&str>, code: &str) -> Question {
    Question {
        value_set: value_set.to_owned(),
        system: system.map(str::to_owned),
        version: None,
        code: code.to_owned(),
    }
}

/// What every terminology answers that knows R4's own value sets.
async fn conforms(terminology: &dyn Terminology) {
    let gender = "http://hl7.org/fhir/ValueSet/administrative-gender";
    let system = "http://hl7.org/fhir/administrative-gender";
    for (asked, answer) in [
        (question(gender, Some(system), "female"), Membership::In),
        (question(gender, None, "female"), Membership::In),
        (question(&format!("{gender}|4.0.1"), None, "female"), Membership::In),
        (question(gender, Some(system), "FEMALE"), Membership::Out),
        (question(gender, Some("http://x.example/s"), "female"), Membership::Out),
        (question("http://x.example/ValueSet/none", None, "female"), Membership::Unknown),
        (
            question("http://hl7.org/fhir/ValueSet/ucum-units", Some("http://unitsofmeasure.org"), "mg"),
            Membership::Unknown,
        ),
    ] {
        for _ in 0..2 {
            assert_eq!(terminology.member(&asked).await, Ok(answer), "{} {}", asked.value_set, asked.code);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_and_servers_answer_alike() {
    conforms(&Local::new(Validator::r4())).await;
    let server = Server::start(None).await;
    conforms(&remote(&settings(server.address))).await;
    assert_eq!(server.asked(), 7, "what was answered is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_not_taken_for_one() {
    let server = Server::start(None).await;
    let asked = question("http://x.example/ValueSet/v", None, "in-1");
    for (mode, answer) in [
        (Mode::Says(404), Some(Membership::Unknown)),
        (Mode::Says(422), Some(Membership::Unknown)),
        (Mode::Says(401), None),
        (Mode::Says(403), None),
        (Mode::Says(429), None),
        (Mode::Says(500), None),
        (Mode::Says(302), None),
        (Mode::Mumbles, None),
        (Mode::Page, None),
        (Mode::Breaks, None),
        (Mode::Right, Some(Membership::In)),
    ] {
        server.turn(mode);
        let found = remote(&settings(server.address)).member(&asked).await;
        assert_eq!(found.ok(), answer, "{mode:?}");
    }
    // Nobody there.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(remote(&settings(free)).member(&asked).await.is_err());
    // Nobody who answers in time.
    server.turn(Mode::Slow);
    let hasty = config::Terminology { timeout: Duration::from_millis(100), ..settings(server.address) };
    assert!(remote(&hasty).member(&asked).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_is_left_alone_and_asked_again_later() {
    let (server, observer) = (Server::start(None).await, Observer::new());
    let pause = Duration::from_millis(300);
    let settings = config::Terminology { failures_max: 3, pause, ..settings(server.address) };
    let remote = Remote::new(&settings, Arc::clone(&observer)).unwrap();
    server.turn(Mode::Says(500));
    let ask =
        async |code: usize| remote.member(&question("http://x.example/ValueSet/v", None, &format!("in-{code}"))).await;
    for code in 0..50 {
        assert!(ask(code).await.is_err());
    }
    // After three, only what goes to see after a pause.
    let asked = server.asked();
    assert!((3..20).contains(&asked), "{asked}");
    assert_eq!(observer.notes(), "terminology: the terminology server answers with an error\n");
    server.turn(Mode::Right);
    let mut answered: Result<Membership, Unavailable> = ask(0).await;
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while answered.is_err() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answered = ask(0).await;
    }
    assert_eq!(answered, Ok(Membership::In));
    assert_eq!(ask(1).await, Ok(Membership::In));
    assert_eq!(observer.notes(), "");
    let text = observer.scrape(false);
    for result in ["answered", "failed", "refrained"] {
        let series = format!("sluice_terminology_total{{result=\"{result}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok());
        assert!(count > Some(0), "{result} in\n{text}");
    }
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_the_server_of_the_settings_is_asked_with_a_token() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tls", "other"] {
        let path = folder.path().join(name).display().to_string();
        assert!(sluice(&["keys", "tls", &path, "--client", "gateway"], b"").status.success());
    }
    std::fs::write(folder.path().join("token"), "secret\n").unwrap();
    let server = Server::start(Some(acceptor(&folder.path().join("tls")))).await;
    let of = |ca: &str| {
        remote(&config::Terminology {
            url: format!("https://localhost:{}/fhir", server.address.port()).parse().unwrap(),
            ca_file: Some(folder.path().join(ca).join("ca.pem")),
            token_file: Some(config::SecretFile::new(folder.path().join("token"))),
            ..settings(server.address)
        })
    };
    let asked = question("http://x.example/ValueSet/v", None, "in-1");
    assert!(of("other").member(&asked).await.is_err());
    assert_eq!(server.asked(), 0);
    assert_eq!(of("tls").member(&asked).await, Ok(Membership::In));
    assert_eq!(server.token.lock().unwrap().as_deref(), Some("Bearer secret"));
    let plain = config::Terminology { url: "http://tx.example/fhir".parse().unwrap(), ..settings(server.address) };
    assert!(Remote::new(&plain, Observer::new()).is_err(), "in the clear to another machine");
}

/// A profile whose code is bound to the value set `v`, which no package has.
fn bound(strength: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let profile = json!({
        "resourceType": "StructureDefinition", "url": "http://x.example/p", "type": "Basic", "derivation": "constraint",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Basic",
        "differential": {"element": [{"path": "Basic"}, {
            "path": "Basic.code", "binding": {"strength": strength, "valueSet": "http://x.example/ValueSet/v"},
        }]},
    });
    std::fs::write(folder.path().join("p.json"), profile.to_string()).unwrap();
    folder
}

fn basic(codes: &[&str]) -> String {
    let codings: Vec<Value> = codes.iter().map(|code| json!({"system": "http://x.example/s", "code": code})).collect();
    let basic =
        json!({"resourceType": "Basic", "meta": {"profile": ["http://x.example/p"]}, "code": {"coding": codings}});
    transaction(&[format!(r#"{{"resource":{basic},"request":{{"method":"POST","url":"Basic"}}}}"#)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_unit_is_for_the_settings_to_say() {
    let server = Server::start(None).await;
    let invalid = Kind::Refusal(Refusal::Invalid);
    let outage = Kind::Outage(Peer::Terminology);
    let packages = [("required", bound("required")), ("extensible", bound("extensible"))];
    for (strength, folder) in &packages {
        // What it is if it is not in the value set.
        let broken = (*strength == "required").then_some(invalid);
        for (setting, unknown, silent) in
            [("issue", None, None), ("refuse", Some(invalid), Some(outage)), ("outage", Some(outage), Some(outage))]
        {
            let rig = Rig::with(&format!(
                "[check]\npackages_dir = {:?}\nunknown_terminology = {{ {strength} = \"{setting}\" }}\n\
                 [terminology]\nurl = \"http://{}/fhir\"\nfailures_max = 10000\n",
                folder.path(),
                server.address
            ))
            .await;
            for (mode, codes, expected) in [
                (Mode::Right, &["in-1"][..], None),
                (Mode::Right, &["out-1", "in-2"], None),
                (Mode::Right, &["out-1", "out-2"], broken),
                (Mode::Says(404), &["code-3"], unknown),
                (Mode::Says(404), &["code-4", "in-1"], None),
                (Mode::Says(500), &["code-5"], silent),
                (Mode::Breaks, &["code-6"], silent),
                (Mode::Says(500), &["in-1"], None),
            ] {
                server.turn(mode);
                let found = rig.admit(&basic(codes)).await;
                let kind = found.as_ref().err().map(sluice::error::Error::kind);
                assert_eq!(kind, expected, "{strength} {setting} {mode:?} {codes:?}: {found:?}");
                if let Err(error) = found {
                    // What is wrong besides is told, and not held back by who does not answer.
                    let worse = basic(codes).replace("\"code\":{\"coding\"", "\"nonsense\":1,\"code\":{\"coding\"");
                    assert_eq!(rig.admit(&worse).await.unwrap_err().kind(), invalid, "{worse}");
                    let told = format!("{:?}", error.issues());
                    assert!(!codes.iter().any(|code| told.contains(code)), "no value is told: {told}");
                    assert_eq!(error.retry_after().is_some(), expected == Some(outage));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_ends_by_the_rules_that_it_began_with() {
    let (server, packages) = (Server::start(None).await, bound("required"));
    let rules = tempfile::tempdir().unwrap();
    let settings = format!(
        "[check]\nrules_dir = {:?}\npackages_dir = {:?}\npoll = \"0s\"\n[terminology]\nurl = \"http://{}/fhir\"\n",
        rules.path(),
        packages.path(),
        server.address
    );
    let rig = Arc::new(Rig::with(&settings).await);
    let before = rig.gateway.rules.current();
    server.turn(Mode::Slow);
    let admitting = {
        let rig = Arc::clone(&rig);
        tokio::spawn(async move { rig.admit(&basic(&["in-1"])).await })
    };
    while server.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rule =
        r#"{"id":"none","description":"Expected none.","resourceType":"Basic","severity":"error","schema":false}"#;
    std::fs::write(rules.path().join("none.json"), rule).unwrap();
    assert!(rig.gateway.rules.reload().unwrap());
    server.permits.add_permits(100);
    let answer = admitting.await.unwrap().unwrap();
    let id = sluice::stage::OperationId::parse(&answer.operation).unwrap();
    let operation = rig.gateway.recorder.operation(id).await.unwrap().unwrap();
    assert_eq!(operation.rules.as_deref(), Some(&**before.id()));
    let refused = rig.admit(&basic(&["in-2"])).await.unwrap_err();
    assert_eq!(refused.rule(), "site.none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_the_operation_ask_too() {
    let (server, packages) = (Server::start(None).await, bound("required"));
    let house = House::new(&format!(
        "[check]\npackages_dir = {:?}\nunknown_terminology = {{ required = \"outage\" }}\n\
         [terminology]\nurl = \"http://{}/fhir\"\nfailures_max = 10000\n",
        packages.path(),
        server.address
    ));
    let basic = |code: &str| {
        json!({"resourceType": "Basic", "meta": {"profile": ["http://x.example/p"]},
            "code": {"coding": [{"system": "http://x.example/s", "code": code}]}})
        .to_string()
    };
    let (good, bad, lost) = (house.path("good.json"), house.path("bad.json"), house.path("lost.json"));
    for (file, code) in [(&good, "in-1"), (&bad, "out-1"), (&lost, "lost-1")] {
        std::fs::write(file, basic(code)).unwrap();
    }
    let config = house.path("sluice.toml");
    let run = |files: &[&str]| {
        let files = [&["validate", "--format", "json", "--config", &config][..], files].concat();
        tokio::task::block_in_place(|| sluice(&files, b""))
    };
    let output = run(&[&good, &bad]);
    let told = lines(&output);
    assert_eq!((output.status.code(), &told[0]["valid"], &told[1]["valid"]), (Some(1), &json!(true), &json!(false)));
    assert_eq!(told[1]["outcome"]["issue"][0]["details"]["coding"][0]["code"], "binding.required");
    assert_eq!(told[1]["outcome"]["issue"][0]["expression"][0], "Basic.code");

    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let (status, outcome) = client.post(&served, "/Basic/$validate", &[], basic("out-1")).await;
    assert_eq!((status.as_u16(), &outcome["issue"]), (200, &told[1]["outcome"]["issue"]));
    server.turn(Mode::Breaks);
    let output = run(&[&lost]);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(2), 0));
    let request = http::Request::post("https://localhost/fhir/Basic/$validate")
        .header("content-type", "application/fhir+json")
        .body(Bytes::from(basic("lost-1")))
        .unwrap();
    let answer = client.answer(&served, request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
}
