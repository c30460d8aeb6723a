//! The real thing: HAPI's RestfulServer behind the gateway, killed before it commits and after it has.
//!
//! `tests/upstream` is built with Maven the first time, into a folder of the cache that is named by its sources' hash; from
//! then on nothing is fetched.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluice::forward::Found;
use sluice::gateway::{Fate, Ruling};

use super::{admission, recorded, staged_rows};
use crate::house::House;
use crate::rig::Rig;

/// No machine is so slow that a server says nothing for this long.
const PATIENCE: Duration = Duration::from_mins(3);

/// A HAPI server in a process of its own; it ends with this.
struct Hapi {
    child: Child,
    /// What it says, line by line.
    out: Receiver<String>,
    port: u16,
}

impl Hapi {
    /// Starts one on this state and port (0 for any), and waits until it answers.
    fn start(state: &Path, port: u16, hold: &str) -> Self {
        let built = built();
        let classpath = format!("{}:{}/*", built.join("classes").display(), built.join("lib").display());
        let mut child = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", &classpath])
            .arg("dev.sluice.upstream.Main")
            .arg(state)
            .args([&port.to_string(), hold])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("java: ./check installs it");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (says, out) = mpsc::channel();
        // Ends with the process: a test waits for a line, but not for ever.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| says.send(line)));
        let told: Value = serde_json::from_str(&out.recv_timeout(PATIENCE).unwrap()).expect("a port");
        Self { child, out, port: u16::try_from(told["port"].as_u64().unwrap()).unwrap() }
    }

    /// Waits until it holds a write up, then kills it.
    fn kill_when_held(self) -> u16 {
        // Dropped here, and so killed.
        self.held().port
    }

    fn held(self) -> Self {
        assert_eq!(self.out.recv_timeout(PATIENCE).unwrap(), "held");
        self
    }
}

impl Drop for Hapi {
    fn drop(&mut self) {
        // SIGKILL: nothing in it gets to run any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with its classes and what they need.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream");
    let mut sources = vec![project.join("pom.xml")];
    let folder = project.join("src/main/java/dev/sluice/upstream");
    sources.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    sources.sort();
    let mut hash = Sha256::new();
    for source in &sources {
        hash.update(std::fs::read(source).unwrap());
    }
    let name = data_encoding::HEXLOWER.encode(&hash.finalize()[..8]);
    let kept = cache().join("sluice/upstream");
    let built = kept.join(&name);
    if built.is_dir() {
        return built;
    }
    std::fs::create_dir_all(&kept).unwrap();
    // Another run may build it at the same time: whoever is first names it.
    let fresh = tempfile::tempdir_in(&kept).unwrap();
    let maven = Command::new("mvn")
        .args(["-q", "-B", "-ntp", "-f"])
        .arg(project.join("pom.xml"))
        .args(["--define", &format!("out={}", fresh.path().display())])
        .args(["compile", "dependency:copy-dependencies"])
        .output()
        .expect("mvn: ./check installs it");
    assert!(maven.status.success(), "tests/upstream: {}", String::from_utf8_lossy(&maven.stdout));
    if std::fs::rename(fresh.path(), &built).is_ok() {
        // It has another name now.
        let _ = fresh.keep();
    }
    assert!(built.is_dir());
    built
}

#[expect(clippy::disallowed_methods, reason = "where caches are is no setting of a gateway")]
fn cache() -> PathBuf {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).expect("a folder for caches")
}

/// What stands on the server, by its file.
fn stands(state: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(state).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn place(state: &Path, resource_type: &str) -> Found {
    let stands = stands(state);
    let found: Vec<&Value> = stands.iter().filter(|it| it["resourceType"] == resource_type).collect();
    let [one] = found[..] else { panic!("{} of type {resource_type}", found.len()) };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let version = Some(text(&one["meta"]["versionId"]));
    Found { resource_type: resource_type.to_owned(), id: text(&one["id"]), version }
}

fn settings(port: u16, resolve: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:{port}/fhir\"\nresolve = \"{resolve}\"\ntimeout = \"10s\"\nretries_max = 1\n"
    )
}

/// Recorded and to be announced: exactly what the server has, once.
async fn stands_once(rig: &Rig, state: &Path, at: &str) {
    assert_eq!(stands(state).len(), 2, "{at}");
    assert_eq!(recorded(rig).await, (2, 2), "{at}");
    assert_eq!(staged_rows(rig).await, [0_u8; 0], "{at}");
    for resource_type in ["Patient", "Observation"] {
        let Found { id, version, .. } = place(state, resource_type);
        let stored = rig.gateway.recorder.read_current(resource_type, &id).await.unwrap().unwrap();
        assert_eq!(stored.about.upstream_version, version, "{at}");
        assert_eq!(version.as_deref(), Some("1"), "{at}: written once");
    }
}

/// Kills the server while it holds the unit's commit up, and starts it again.
async fn killed(resolve: &str, hold: &str) -> (tempfile::TempDir, PathBuf, Hapi, Rig) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let hapi = Hapi::start(&state, 0, &format!("{hold}:1:600000"));
    let rig = Rig::with(&settings(hapi.port, resolve)).await;
    let killing = tokio::task::spawn_blocking(move || hapi.kill_when_held());
    assert_eq!(rig.admit(&admission()).await.unwrap_err().kind().face().status, 504);
    let port = killing.await.unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.gateway.recover().await.unwrap(), 0, "nobody answers");
    let hapi = Hapi::start(&state, port, "none");
    assert_eq!(stands(&state).len(), if hold == "after" { 2 } else { 0 });
    (folder, state, hapi, rig)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_commits() {
    let (_folder, state, _hapi, rig) = killed("client-ids", "before").await;
    assert_eq!(rig.gateway.recover().await.unwrap(), 1);
    stands_once(&rig, &state, "client-ids").await;

    for resolve in ["tag-probe", "park"] {
        let (_folder, state, _hapi, rig) = killed(resolve, "before").await;
        let mut parked = Vec::new();
        while parked.is_empty() {
            assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{resolve}");
            assert_eq!((stands(&state).len(), recorded(&rig).await), (0, (0, 0)), "{resolve}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            parked = rig.gateway.parked(9).await.unwrap().0;
        }
        assert_eq!(rig.gateway.decide(parked[0].operation, Ruling::Send).await.unwrap(), Fate::Recorded, "{resolve}");
        stands_once(&rig, &state, resolve).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_has_committed() {
    for resolve in ["client-ids", "tag-probe"] {
        let (_folder, state, _hapi, rig) = killed(resolve, "after").await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{resolve}");
        stands_once(&rig, &state, resolve).await;
        let answer = rig.admit(&admission()).await.unwrap();
        assert_eq!(answer.entries[0].id, place(&state, "Patient").id, "{resolve}: the first answer");
        stands_once(&rig, &state, resolve).await;
    }
    let (_folder, state, _hapi, rig) = killed("park", "after").await;
    assert_eq!(rig.gateway.recover().await.unwrap(), 0);
    assert_eq!(recorded(&rig).await, (0, 0));
    let operation = rig.gateway.parked(9).await.unwrap().0[0].operation;
    let places = vec![place(&state, "Patient"), place(&state, "Observation")];
    assert_eq!(rig.gateway.decide(operation, Ruling::Found(places)).await.unwrap(), Fate::Recorded);
    stands_once(&rig, &state, "park").await;
}

/// The gateway itself is killed, with the server still at work on what it was told.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_killed_meanwhile() {
    for resolve in ["client-ids", "tag-probe"] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let hapi = Hapi::start(&state, 0, "before:1:2000");
        // Nothing is given up on before a slow machine has come round.
        let patient = settings(hapi.port, resolve).replace("\"10s\"", "\"30s\"");
        let house = House::new(&patient);
        let served = house.serve();
        let wire = house.client(Some("tls/hospital"));
        let held = tokio::task::spawn_blocking(move || hapi.held());
        let post = || wire.post(&served, "", &[("idempotency-key", "a")], admission());
        let under_way = async {
            let hapi = held.await.unwrap();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            hapi
        };
        // On a slow machine the answer may be there first; then it is the same as before.
        let under_way = std::pin::pin!(under_way);
        let _hapi = match futures_util::future::select(under_way, std::pin::pin!(post())).await {
            Either::Left((hapi, _)) => hapi,
            Either::Right((_, under_way)) => under_way.await,
        };
        // SIGKILL.
        drop(served);
        let served = house.serve();
        let begun = Instant::now();
        let answer = loop {
            assert!(begun.elapsed() < Duration::from_mins(3), "{resolve}: it is never recorded");
            let (status, answer) = wire.post(&served, "", &[("idempotency-key", "a")], admission()).await;
            if status == 200 {
                break answer;
            }
            assert_eq!(status, 504, "{resolve}: {answer}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!(stands(&state).len(), 2, "{resolve}");
        let location = answer["entry"][0]["response"]["location"].as_str().unwrap();
        assert!(location.starts_with(&format!("Patient/{}/", place(&state, "Patient").id)), "{resolve}: {location}");
    }
}
