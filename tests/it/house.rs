//! A gateway of its own for a test, as an operator has it: the binary, a folder, TLS, a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The token that an operator shows at the admin port of every house.
pub(crate) const OPERATOR: &str = "the operator's token";

/// Runs `sluice` to its end.
pub(crate) fn sluice(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that reads nothing closes its end.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_remove("SLUICE_CONFIG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The lines of stdout, each a JSON object.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A folder with keys, certificates (clients `hospital`, `stranger`, `insurer` and `registry`) and settings.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
}

impl House {
    /// One with these settings beside the least.
    pub(crate) fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert!(sluice(&["keys", "create", &path("keys")], b"").status.success());
        assert!({
            let clients = ["hospital", "stranger", "insurer", "registry"].map(|name| ["--client", name]);
            let tls = path("tls");
            sluice(&[&["keys", "tls", &tls], clients.as_flattened()].concat(), b"").status.success()
        });
        assert!(sluice(&["keys", "tls", &path("other"), "--client", "hospital"], b"").status.success());
        let settings = format!(
            "{more}\n\
             [tenant]\nid = \"hospital-a\"\nbase_url = \"https://localhost/fhir\"\n\
             [listen]\nfhir = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
             operator_token_sha256_file = \"operator\"\n\
             [listen.tls]\ncert_file = \"tls/server.pem\"\nkey_file = \"tls/server.key\"\nclient_ca_file = \"tls/ca.pem\"\n\
             [[caller]]\ninstitution = \"hospital-a\"\ncert_subject_cn = \"hospital\"\n\
             may = [\"read\", \"write\", \"consent\"]\n\
             [client]\nca_file = \"tls/ca.pem\"\ncert_file = \"tls/hospital.pem\"\nkey_file = \"tls/hospital.key\"\n\
             {}",
            if more.contains("[observe]") { "" } else { "[observe]\nlevel = \"error\"\n" }
        );
        std::fs::write(folder.path().join("sluice.toml"), settings).unwrap();
        let hash = HEXLOWER.encode(&Sha256::digest(OPERATOR));
        std::fs::write(folder.path().join("operator"), hash).unwrap();
        std::fs::write(folder.path().join("operator.token"), OPERATOR).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn serve(&self) -> Served {
        serve(&self.folder.path().join("sluice.toml"))
    }

    /// What a client shows: the files of this name in this folder.
    pub(crate) fn client(&self, shown: Option<&str>) -> Wire {
        let tls = self.folder.path().join("tls");
        let certificates =
            |path: PathBuf| CertificateDer::pem_file_iter(path).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificates(tls.join("ca.pem")).remove(0)).unwrap();
        let shown = shown.map(|name| {
            let file = self.folder.path().join(name);
            (
                certificates(file.with_extension("pem")),
                PrivateKeyDer::from_pem_file(file.with_extension("key")).unwrap(),
            )
        });
        Wire { roots, shown, version: &rustls::version::TLS13, h2: false }
    }
}

/// Starts the gateway of these settings.
pub(crate) fn serve(settings: &Path) -> Served {
    let mut child = command(&["serve", "--config", settings.to_str().unwrap()]).spawn().unwrap();
    let mut err = child.stderr.take().unwrap();
    // Read all the time, so that the gateway never waits for its log.
    let log = std::thread::spawn(move || {
        let mut told = String::new();
        // What is no UTF-8 is no log of ours.
        err.read_to_string(&mut told).unwrap();
        told
    });
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the gateway did not start: {}", log.join().unwrap());
    Served { child, log: Some(log), ready: serde_json::from_str(&line).unwrap() }
}

/// A gateway that serves; it ends with this.
pub(crate) struct Served {
    child: Child,
    log: Option<JoinHandle<String>>,
    /// The line that it printed.
    pub(crate) ready: Value,
}

impl Served {
    /// The address of a URL that it told: host and port.
    pub(crate) fn address(&self, name: &str) -> String {
        let url: http::Uri = self.ready[name].as_str().unwrap().parse().unwrap();
        url.authority().unwrap().to_string()
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had resident so far, in bytes.
    pub(crate) fn resident_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn stop(self) -> Option<i32> {
        self.terminate();
        self.ended().0
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
    }

    /// Waits for its end; gives the exit code and what it has logged.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.take().unwrap().join().unwrap())
    }

    /// What the admin port answers: status, media type, body.
    pub(crate) async fn admin(&self, path: &str, accept: &str) -> Option<(StatusCode, String, String)> {
        let stream = TcpStream::connect(self.address("admin")).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").header("accept", accept);
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let media_type = parts.headers["content-type"].to_str().unwrap().to_owned();
        Some((parts.status, media_type, String::from_utf8(body.to_vec()).unwrap()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the admin port, showing a token.
pub(crate) async fn admin(served: &Served, method: &str, path: &str, token: &str) -> (StatusCode, Value) {
    let io = TokioIo::new(TcpStream::connect(served.address("admin")).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}")).body(Full::<Bytes>::default()).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    (parts.status, value)
}

/// A client, by hand.
pub(crate) struct Wire {
    roots: RootCertStore,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    version: &'static SupportedProtocolVersion,
    h2: bool,
}

impl Wire {
    pub(crate) fn tls12(mut self) -> Self {
        self.version = &rustls::version::TLS12;
        self
    }

    pub(crate) fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    pub(crate) async fn connect(&self, served: &Served) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(&served.address("fhir")).await
    }

    async fn connect_to(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
        };
        config.alpn_protocols = vec![if self.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// Sends a request on a connection of its own. None if there is no answer.
    pub(crate) async fn try_send(&self, served: &Served, request: Request<Bytes>) -> Option<(StatusCode, Value)> {
        let response = self.answer(served, request).await?;
        Some((response.status(), serde_json::from_slice(response.body()).unwrap_or_default()))
    }

    /// The JSON at a path, asked from an address.
    pub(crate) async fn fetch_from(&self, address: &str, path: &str) -> Option<Value> {
        let request = Request::get(format!("https://localhost{path}")).body(Bytes::new()).unwrap();
        serde_json::from_slice(self.answer_from(address, request).await?.body()).ok()
    }

    /// Sends a request on a connection of its own, and reads all of the answer.
    pub(crate) async fn answer(&self, served: &Served, request: Request<Bytes>) -> Option<Response<Bytes>> {
        self.answer_from(&served.address("fhir"), request).await
    }

    async fn answer_from(&self, address: &str, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let io = TokioIo::new(self.connect_to(address).await.ok()?);
        let request = request.map(Full::new);
        let response = if self.h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await.ok()?
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(request).await.ok()?
        };
        let (parts, body) = response.into_parts();
        Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
    }

    /// Posts to a path below the base.
    pub(crate) async fn post(
        &self,
        served: &Served,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, Value) {
        let mut request = Request::post(format!("https://localhost/fhir{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/fhir+json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.try_send(served, request.body(body.into()).unwrap()).await.expect("an answer")
    }
}

/// Of the first issue: rule id, path, line, column.
pub(crate) fn first_issue(outcome: &Value) -> (String, String, u64, u64) {
    let issue = &outcome["issue"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let extension = |at: usize| issue["extension"][at]["valueInteger"].as_u64().unwrap_or_default();
    (text(&issue["details"]["coding"][0]["code"]), text(&issue["expression"][0]), extension(0), extension(1))
}
