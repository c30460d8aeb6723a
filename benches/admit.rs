//! What `admit` costs against the floor: the least that any program could do with the same bundle.
//!
//! `cargo bench --profile release --bench admit [-- --check] [--bundle]`; with `--bundle` the first half only. A transaction of about 550 kB goes over TLS to a real
//! server; its CPU time is that of all threads of the process but the client's. The floor, in the same process and in
//! alternate rounds, parses each resource into the tree, hashes its canonical form and holds it against HL7's JSON
//! Schema (values built beforehand: the floor does not pay for them). `--check` fails above the bar. Then, what one
//! entry costs in batches of 1,000 and of 100,000 entries.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench prints, fails by panicking, divides, and waits for the kernel's account"
)]

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use sluice::config::Config;
use sluice::keys::Keys;
use sluice::observe::Observer;
use sluice::serve::Server;
use sluice::serve::build::build;
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Tree};

const ROUNDS: usize = 40;
const BAR: f64 = 3.0;
const GROWTH_BAR: f64 = 1.3;
const TOKEN: &str = "bench";

fn main() {
    let check = std::env::args().any(|arg| arg == "--check");
    let one_bundle_only = std::env::args().any(|arg| arg == "--bundle");
    let bundle = synthea("Elisha_Schroeder");
    let served = Served::start();
    let floor = Floor::new(&bundle);
    println!("bundle: {} kB, {} resources", bundle.len() / 1000, floor.texts.len());
    let mut ratios = Vec::new();
    let (mut admits, mut floors) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        let admit = served.post(&bundle, round);
        let floor = floor.run();
        // The first rounds warm caches and compile programs.
        if round >= 3 {
            admits.push(admit);
            floors.push(floor);
            ratios.push(admit / floor);
        }
    }
    let ratio = median(&mut ratios);
    println!(
        "admit over TLS {:.2} ms, floor {:.2} ms of CPU: {ratio:.2} times",
        median(&mut admits) * 1e3,
        median(&mut floors) * 1e3
    );
    assert!(!check || ratio <= BAR, "admit costs more than {BAR} times the floor");
    if one_bundle_only {
        return;
    }
    let small = served.per_entry(1_000, 8);
    let large = served.per_entry(100_000, 1);
    let growth = large / small;
    println!("per entry: {:.1} us of 1,000, {:.1} us of 100,000: {growth:.2} times", small * 1e6, large * 1e6);
    assert!(!check || growth <= GROWTH_BAR, "the cost of an entry grows with the bundle");
}

/// CPU seconds of the process, without the threads of this name.
fn cpu_without(name: &str) -> f64 {
    // A thread's account is brought up to date when it leaves the processor.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos: u64 = tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let comm = std::fs::read_to_string(path.join("comm")).ok()?;
            if comm.trim() == name {
                return None;
            }
            std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    nanos as f64 / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn synthea(name: &str) -> Bytes {
    let archive = std::fs::File::open("tests/data/synthea/r4-30-patients.tar.gz").unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_string_lossy().contains(name) {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            return text.into();
        }
    }
    panic!("no such bundle");
}

/// The floor program.
struct Floor {
    texts: Vec<Bytes>,
    values: Vec<serde_json::Value>,
    schema: jsonschema::Validator,
}

impl Floor {
    fn new(bundle: &Bytes) -> Self {
        let schema = std::fs::File::open("tests/data/json-schema/fhir.schema.R4.json.gz").unwrap();
        let schema: serde_json::Value = serde_json::from_reader(GzDecoder::new(schema)).unwrap();
        let bundle: serde_json::Value = serde_json::from_slice(bundle).unwrap();
        let values: Vec<_> = bundle["entry"].as_array().unwrap().iter().map(|it| it["resource"].clone()).collect();
        let texts = values.iter().map(|it| serde_json::to_vec_pretty(it).unwrap().into()).collect();
        Self { texts, values, schema: jsonschema::validator_for(&schema).unwrap() }
    }

    /// CPU seconds of one pass. It runs on this thread alone, so the whole process's time is its own.
    fn run(&self) -> f64 {
        const PASSES: u32 = 20;
        let before = cpu_without("client");
        let mut valid = 0;
        for _ in 0..PASSES {
            for (text, value) in self.texts.iter().zip(&self.values) {
                let tree = Tree::parse(text.clone(), &Limits::default()).unwrap();
                std::hint::black_box(canonical::digest(tree.root()));
                valid += usize::from(self.schema.is_valid(value));
            }
        }
        std::hint::black_box(valid);
        (cpu_without("client") - before) / f64::from(PASSES)
    }
}

/// A real server, and a client on a thread of its own.
struct Served {
    _runtime: tokio::runtime::Runtime,
    server: Server,
    tls: Arc<rustls::ClientConfig>,
    _folder: tempfile::TempDir,
}

const SETTINGS: &str = r#"
[tenant]
id = "hospital-a"
base_url = "https://localhost/fhir"
[listen]
fhir = "127.0.0.1:0"
admin = "127.0.0.1:0"
tls = { cert_file = "cert.pem", key_file = "key.pem" }
[[caller]]
institution = "hospital-a"
bearer_token_sha256_file = "token"
roles = ["AUT"]
purpose = "TREAT"
[limits]
transaction_memory_max = "256MiB"
[check.severity]
"code.unknown" = "warning"
[store]
dir = "store"
keystore_dir = "keystore"
spool_dir = "spool"
[keys]
dir = "keys"
[ledger]
dir = "ledger"
origin = "ledger.example/consortium"
[log]
origin = "hospital-a/log"
"#;

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        Keys::create(&path.join("keys")).unwrap();
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(TOKEN));
        write_secret(&path.join("token"), &hash);
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path.join("cert.pem"), cert.pem()).unwrap();
        write_secret(&path.join("key.pem"), &signing_key.serialize_pem());
        let file = path.join("sluice.toml");
        std::fs::write(&file, SETTINGS).unwrap();
        let config = Config::load(&file).unwrap_or_else(|errors| panic!("{errors:?}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("server").enable_all().build().unwrap();
        let server = runtime.block_on(async {
            let observer = Observer::new();
            let built = build(&config, &observer).await.unwrap();
            Server::start(&config, built, Bytes::new(), observer).await.unwrap()
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(cert.der().to_vec())).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { _runtime: runtime, server, tls: Arc::new(tls), _folder: folder }
    }

    /// Posts the bundle on a new connection; CPU seconds of everything but the client.
    fn post(&self, bundle: &Bytes, round: usize) -> f64 {
        let before = cpu_without("client");
        let (address, tls, bundle) = (self.server.fhir, Arc::clone(&self.tls), bundle.clone());
        let client = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let tls = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap();
                let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
                let connection = tokio::spawn(connection);
                let request = http::Request::post("/fhir")
                    .header("host", "localhost")
                    .header("content-type", "application/fhir+json")
                    .header("authorization", format!("Bearer {TOKEN}"))
                    .header("idempotency-key", format!("round-{round}"))
                    .body(Full::new(bundle))
                    .unwrap();
                let response = send.send_request(request).await.unwrap();
                let status = response.status();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body[..body.len().min(2_000)]));
                drop(send);
                let _ = connection.await;
            });
        });
        client.unwrap().join().unwrap();
        cpu_without("client") - before
    }

    /// CPU seconds of one entry in batches of this many, everything but the client included.
    fn per_entry(&self, entries: usize, rounds: usize) -> f64 {
        let mut body = br#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Patient","id":"p","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"PUT","url":"Patient/p"}}"#.to_vec();
        for number in 1..entries {
            body.extend_from_slice(format!(r#",{{"resource":{{"resourceType":"Observation","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"8302-2"}}]}},"subject":{{"reference":"Patient/p"}},"effectiveDateTime":"2020-01-01","valueQuantity":{{"value":{number}.50,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}},"request":{{"method":"POST","url":"Observation"}}}}"#).as_bytes());
        }
        body.extend_from_slice(b"]}");
        let body = Bytes::from(body);
        let spent: f64 = (0..rounds).map(|round| self.post(&body, entries * 1_000 + round)).sum();
        spent / (entries * rounds) as f64
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}
