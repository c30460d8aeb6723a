//! What `admit` costs against the floor: the least that any program could do with the same bundle.
//!
//! `cargo bench --profile release --bench admit [-- --check] [--bundle | --growth]`: `--bundle` is the first half alone,
//! `--growth` the second.
//!
//! A transaction goes over TLS to a real server; counted is the CPU time of every thread of the process but the
//! client's and this one's, from before the connection until the answer has been read, and apart from it what the settle loops then
//! still do with the unit. The floor runs on this thread, in alternate rounds: it parses each resource into the tree,
//! hashes its canonical form and holds it against HL7's JSON Schema. The values that the schema reads are built beforehand:
//! the floor does not pay for them. It asks the schema as HL7 publishes it or the definition of the resource's own type,
//! whichever is cheaper. Where Synthea's resource is valid `is_valid` has seen all of it; where it is not, every error is
//! counted, so that no part of it goes unseen. How many are valid is asserted.
//!
//! Then, what one entry costs in batches of 1,000 and of 100,000 entries, settling included: batches of 1,000 before the
//! large one and after it, so that both see an empty store and a full one. `--check` fails above the bars.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench prints, fails by panicking, divides, and waits for the kernel's account"
)]

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

const ROUNDS: usize = 20;
const BAR: f64 = 3.0;
const GROWTH_BAR: f64 = 1.3;
const PAUSE: Duration = Duration::from_millis(300);
const TOKEN: &str = "bench";

/// Synthea's patients, with white space or without, and how many of the resources HL7's schema finds valid. The first
/// is of the class that the bar speaks of: some 450 resources in some 570 kB.
const BUNDLES: [(&str, bool, usize); 2] = [("Granville_Crooks", true, 476), ("Elisha_Schroeder", false, 149)];

fn main() {
    let check = std::env::args().any(|arg| arg == "--check");
    let one_bundle_only = std::env::args().any(|arg| arg == "--bundle");
    let growth_only = std::env::args().any(|arg| arg == "--growth");
    let served = Served::start();
    let schema = std::fs::File::open("tests/data/json-schema/fhir.schema.R4.json.gz").unwrap();
    let schema: serde_json::Value = serde_json::from_reader(GzDecoder::new(schema)).unwrap();
    let mut missed = Vec::new();
    for (name, compact, valid) in BUNDLES.into_iter().filter(|_| !growth_only) {
        let ratio = one(&served, &schema, name, compact, valid);
        if ratio > BAR {
            missed.push(format!("admit of {name} costs {ratio:.2} times the floor; the bar is {BAR}"));
        }
    }
    if !one_bundle_only {
        // Compiles what Observations are held against.
        served.per_entry("warm", 1_000, 1);
        let before = served.per_entry("before", 1_000, 10);
        let large = served.per_entry("large", 100_000, 1);
        let after = served.per_entry("after", 1_000, 10);
        let growth = large / f64::midpoint(before, after);
        println!(
            "an entry of a batch: {:.1} us of 100,000; of 1,000 {:.1} us before that and {:.1} us after: {growth:.2} times",
            large * 1e6,
            before * 1e6,
            after * 1e6
        );
        if growth > GROWTH_BAR {
            missed.push(format!("an entry costs {growth:.2} times as much in a large batch; the bar is {GROWTH_BAR}"));
        }
    }
    assert!(!check || missed.is_empty(), "{missed:?}");
}

/// Measures one bundle; gives how many times the floor's CPU `admit` takes.
fn one(served: &Served, schema: &serde_json::Value, name: &str, compact: bool, valid: usize) -> f64 {
    let bundle = synthea(name, compact);
    let floor = Floor::new(&bundle, schema);
    println!(
        "{name}: {} kB, {} resources, of which HL7's schema finds {} valid",
        bundle.len() / 1000,
        floor.resources.len(),
        floor.valid()
    );
    assert!(floor.valid() == valid, "the floor sees {} valid resources, not {valid}", floor.valid());
    let (mut ratios, mut admits, mut settles) = (Vec::new(), Vec::new(), Vec::new());
    let (mut parses, mut digests, mut schemas) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        let (admit, settle) = served.post(&bundle, &format!("{name}-{round}"));
        let (parse, digest, schema) = floor.run();
        // The first rounds warm caches and compile programs.
        if round >= 3 {
            admits.push(admit);
            settles.push(settle);
            ratios.push(admit / (parse + digest + schema));
            parses.push(parse);
            digests.push(digest);
            schemas.push(schema);
        }
    }
    let ratio = median(&mut ratios);
    let [admit, settle, parse, digest, schema] =
        [admits, settles, parses, digests, schemas].map(|mut times| median(&mut times) * 1e3);
    println!(
        "  admit over TLS {admit:.2} ms; floor {:.2} ms (parse {parse:.2}, canonical form and hash {digest:.2}, {} {schema:.2}): {ratio:.2} times; settle afterwards {settle:.2} ms",
        parse + digest + schema,
        if floor.by_root { "schema" } else { "schema of the type" }
    );
    ratio
}

/// CPU seconds of the process, without its main thread and the client's.
fn cpu_of_server() -> f64 {
    // A thread's account is brought up to date when it leaves the processor.
    std::thread::sleep(Duration::from_millis(2));
    let main = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos: u64 = tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            if comm.trim() == "client" || task.file_name() == *main {
                return None;
            }
            run_time(&task.path().join("schedstat"))
        })
        .sum();
    nanos as f64 / 1e9
}

/// CPU seconds of this thread.
fn cpu_of_thread() -> f64 {
    std::thread::yield_now();
    run_time(Path::new("/proc/thread-self/schedstat")).unwrap() as f64 / 1e9
}

fn run_time(schedstat: &Path) -> Option<u64> {
    std::fs::read_to_string(schedstat).ok()?.split(' ').next()?.parse().ok()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn synthea(name: &str, compact: bool) -> Bytes {
    let archive = std::fs::File::open("tests/data/synthea/r4-30-patients.tar.gz").unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_string_lossy().contains(name) {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            return if compact { compacted(&text).into() } else { text.into() };
        }
    }
    panic!("no such bundle");
}

/// The same JSON without white space between its tokens.
fn compacted(text: &[u8]) -> Vec<u8> {
    let mut compact = Vec::with_capacity(text.len());
    let (mut within, mut escaped) = (false, false);
    for byte in text {
        if within || !byte.is_ascii_whitespace() {
            compact.push(*byte);
        }
        within ^= *byte == b'"' && !escaped;
        escaped = within && *byte == b'\\' && !escaped;
    }
    compact
}

/// The floor program.
struct Floor {
    resources: Vec<FloorResource>,
    /// The definition of each type that occurs.
    schemas: HashMap<String, jsonschema::Validator>,
    /// The schema as HL7 publishes it: one of 146 definitions.
    root: jsonschema::Validator,
    by_root: bool,
}

struct FloorResource {
    text: Bytes,
    value: serde_json::Value,
    resource_type: String,
    valid: bool,
}

impl Floor {
    fn new(bundle: &Bytes, schema: &serde_json::Value) -> Self {
        #[derive(serde::Deserialize)]
        struct Bundle<'a> {
            #[serde(borrow)]
            entry: Vec<Entry<'a>>,
        }
        #[derive(serde::Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            resource: &'a serde_json::value::RawValue,
        }
        let parsed: Bundle<'_> = serde_json::from_slice(bundle).unwrap();
        let mut schemas: HashMap<String, jsonschema::Validator> = HashMap::new();
        let resources = parsed.entry.iter().map(|entry| {
            let text = bundle.slice_ref(entry.resource.get().as_bytes());
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let resource_type = value["resourceType"].as_str().unwrap().to_owned();
            let schema = schemas.entry(resource_type.clone()).or_insert_with(|| {
                let mut schema = schema.clone();
                schema["oneOf"] = serde_json::json!([{ "$ref": format!("#/definitions/{resource_type}") }]);
                jsonschema::validator_for(&schema).unwrap()
            });
            let valid = schema.is_valid(&value);
            FloorResource { text, value, resource_type, valid }
        });
        let resources: Vec<FloorResource> = resources.collect();
        let mut floor = Self { resources, schemas, root: jsonschema::validator_for(schema).unwrap(), by_root: false };
        let own = floor.schema_time();
        floor.by_root = true;
        floor.by_root = floor.schema_time() < own;
        floor
    }

    /// The least of some passes of the schema alone.
    fn schema_time(&self) -> f64 {
        (0..10).map(|_| self.run().2).fold(f64::MAX, f64::min)
    }

    fn schema(&self, resource_type: &str) -> &jsonschema::Validator {
        if self.by_root { &self.root } else { &self.schemas[resource_type] }
    }

    fn valid(&self) -> usize {
        self.resources.iter().filter(|it| it.valid).count()
    }

    /// CPU seconds of one pass: parsing, canonical form and hash, schema.
    fn run(&self) -> (f64, f64, f64) {
        const PASSES: u32 = 5;
        let (mut parse, mut digest, mut schema) = (0.0, 0.0, 0.0);
        for _ in 0..PASSES {
            let start = cpu_of_thread();
            let trees: Vec<Tree> =
                self.resources.iter().map(|it| Tree::parse(it.text.clone(), &Limits::default()).unwrap()).collect();
            let parsed = cpu_of_thread();
            for tree in &trees {
                std::hint::black_box(canonical::digest(tree.root()));
            }
            let hashed = cpu_of_thread();
            for FloorResource { value, resource_type, valid, .. } in &self.resources {
                let schema = self.schema(resource_type);
                if *valid {
                    assert!(schema.is_valid(value));
                } else {
                    assert!(schema.iter_errors(value).count() > 0);
                }
            }
            let held = cpu_of_thread();
            parse += parsed - start;
            digest += hashed - parsed;
            schema += held - hashed;
        }
        (parse / f64::from(PASSES), digest / f64::from(PASSES), schema / f64::from(PASSES))
    }
}

/// A real server, and a client on a thread of its own.
struct Served {
    _runtime: tokio::runtime::Runtime,
    server: Server,
    /// CPU seconds of an idle server in one [`PAUSE`].
    idle: f64,
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
may = ["read", "write", "consent"]
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
        // The doors open once the mirror has caught up and the self-test has passed.
        std::thread::sleep(Duration::from_secs(2));
        let before = cpu_of_server();
        std::thread::sleep(PAUSE * 5);
        let idle = (cpu_of_server() - before) / 5.0;
        Self { _runtime: runtime, server, idle, tls: Arc::new(tls), _folder: folder }
    }

    /// Posts the bundle on a new connection. CPU seconds until the answer has been read, and from there until
    /// the settle loops have nothing more to do.
    fn post(&self, bundle: &Bytes, key: &str) -> (f64, f64) {
        let before = cpu_of_server();
        let key = key.to_owned();
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
                    .header("idempotency-key", key)
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
        let answered = cpu_of_server();
        (answered - before, self.settled(answered))
    }

    /// Waits until the server does no more than when it is idle, but not for ever; its CPU seconds beyond that meanwhile.
    fn settled(&self, answered: f64) -> f64 {
        let mut before = answered;
        let mut spent = 0.0;
        for _ in 0..100 {
            std::thread::sleep(PAUSE);
            let now = cpu_of_server();
            spent += (now - before - self.idle).max(0.0);
            if now - before < self.idle * 1.5 + 0.001 {
                break;
            }
            before = now;
        }
        spent
    }

    /// CPU seconds of one entry in batches of this many: of admitting and of settling, which runs meanwhile.
    fn per_entry(&self, name: &str, entries: usize, rounds: usize) -> f64 {
        let mut body = br#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Patient","id":"p","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"PUT","url":"Patient/p"}}"#.to_vec();
        for number in 1..entries {
            body.extend_from_slice(format!(r#",{{"resource":{{"resourceType":"Observation","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"8302-2"}}]}},"subject":{{"reference":"Patient/p"}},"effectiveDateTime":"2020-01-01","valueQuantity":{{"value":{number}.50,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}},"request":{{"method":"POST","url":"Observation"}}}}"#).as_bytes());
        }
        body.extend_from_slice(b"]}");
        let body = Bytes::from(body);
        let spent = (0..rounds).map(|round| self.post(&body, &format!("{name}-{round}")));
        let spent: f64 = spent.map(|(admit, settle)| admit + settle).sum();
        spent / (entries * rounds) as f64
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}
