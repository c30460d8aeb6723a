//! A FHIR server in this process, which fails where it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// What becomes of a request that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Done and answered.
    Works,
    /// Refused, and not done; so is, whatever the mode, what holds the word REFUSE.
    Refuses,
    /// Not done; the connection breaks.
    BreaksBefore,
    /// Done; the connection breaks.
    BreaksAfter,
    /// Not done; answered with 500.
    FailsBefore,
    /// Done; answered with 500.
    FailsAfter,
    /// Done; answered with a yes that can't be read.
    Mumbles,
    /// Done; answered with a yes in which every entry stands where the first does.
    Doubles,
    /// Done; not answered.
    HangsAfter,
    /// Not done; answered with this status.
    Says(u16),
    /// Refused, and not done, with words that hold all that was sent.
    Tells,
    /// Done; answered with what is neither FHIR nor JSON and holds all that was sent.
    Garbles,
    /// The same, and questions get such an answer too.
    Babbles,
}

pub(crate) struct Held {
    pub(crate) mode: Mode,
    /// Requests that write, whatever became of them.
    pub(crate) writes: usize,
    /// The last of them: method, path, bearer token, body.
    pub(crate) last: (String, String, Option<String>, Bytes),
    /// What stands, by `Type/id`: version and content.
    pub(crate) stands: BTreeMap<String, (u64, Value)>,
    /// The number of the last id given.
    pub(crate) next: u64,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) held: Arc<Mutex<Held>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS.
    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Held { mode: Mode::Works, writes: 0, last: Default::default(), stands: BTreeMap::new(), next: 0 };
        let fake = Self { address, held: Arc::new(Mutex::new(held)) };
        let served = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fake, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| fake.clone().answer(request));
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
        fake
    }

    pub(crate) fn turn(&self, mode: Mode) {
        self.held.lock().unwrap().mode = mode;
    }

    pub(crate) fn writes(&self) -> usize {
        self.held.lock().unwrap().writes
    }

    pub(crate) fn count(&self, resource_type: &str) -> usize {
        let prefix = format!("{resource_type}/");
        self.held.lock().unwrap().stands.keys().filter(|key| key.starts_with(&prefix)).count()
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let path = head.uri.path().trim_start_matches("/fhir").trim_start_matches('/').to_owned();
        if head.method == http::Method::GET && self.held.lock().unwrap().mode == Mode::Babbles {
            let all = format!("{:?}", self.held.lock().unwrap().stands);
            return Ok(babble(all.as_bytes()));
        }
        if head.method == http::Method::GET {
            return Ok(self.read(&path, head.uri.query()));
        }
        let mode = {
            let mut held = self.held.lock().unwrap();
            held.writes += 1;
            let token = head.headers.get("authorization").map(|it| it.to_str().unwrap().to_owned());
            held.last = (head.method.to_string(), path.clone(), token, body.clone());
            held.mode
        };
        let mode = if String::from_utf8_lossy(&body).contains("REFUSE") { Mode::Refuses } else { mode };
        match mode {
            Mode::Refuses => {
                let issue = json!({"severity": "error", "code": "business-rule", "diagnostics": "the ward is closed"});
                return Ok(reply(422, &[], &json!({"resourceType": "OperationOutcome", "issue": [issue]})));
            }
            Mode::BreaksBefore => return Err(std::io::Error::other("told to")),
            Mode::FailsBefore => return Ok(reply(500, &[], &json!({}))),
            Mode::Says(status) => {
                let location = ("location", "http://127.0.0.1:1/fhir".to_owned());
                return Ok(reply(status, &[location], &json!({"resourceType": "OperationOutcome"})));
            }
            Mode::Tells => {
                let said = format!("not taken: {}", String::from_utf8_lossy(&body));
                let issue =
                    json!({"severity": "error", "code": "business-rule", "diagnostics": said, "expression": [said]});
                return Ok(reply(422, &[], &json!({"resourceType": "OperationOutcome", "issue": [issue]})));
            }
            Mode::Works
            | Mode::BreaksAfter
            | Mode::FailsAfter
            | Mode::Mumbles
            | Mode::HangsAfter
            | Mode::Doubles
            | Mode::Garbles
            | Mode::Babbles => {}
        }
        let matched = head.headers.get("if-match").map(|it| it.to_str().unwrap().to_owned());
        let done = self.write(&head.method, &path, matched.as_deref(), &serde_json::from_slice(&body).unwrap());
        match mode {
            Mode::BreaksAfter => Err(std::io::Error::other("told to")),
            Mode::FailsAfter => Ok(reply(500, &[], &json!({}))),
            Mode::Garbles | Mode::Babbles => Ok(babble(&body)),
            Mode::Mumbles => Ok(reply(200, &[], &json!({"resourceType": "Bundle"}))),
            Mode::HangsAfter => {
                tokio::time::sleep(Duration::from_mins(1)).await;
                Ok(done)
            }
            _ => Ok(done),
        }
    }

    fn read(&self, path: &str, query: Option<&str>) -> http::Response<Full<Bytes>> {
        let held = self.held.lock().unwrap();
        if let Some(query) = query {
            // One on a page.
            let (query, from) = query.split_once("&from=").unwrap_or((query, "0"));
            let from: usize = from.parse().unwrap();
            let found = held.search(path, query);
            let entries: Vec<_> = found.iter().skip(from).take(1).map(|(_, it)| json!({"resource": it})).collect();
            let mut bundle = json!({"resourceType": "Bundle", "type": "searchset", "entry": entries});
            if found.len() > from + 1 {
                let url = format!("http://{}/fhir/{path}?{query}&from={}", self.address, from + 1);
                bundle["link"] = json!([{"relation": "self", "url": "x"}, {"relation": "next", "url": url}]);
            }
            return reply(200, &[], &bundle);
        }
        match held.stands.get(path) {
            Some((version, value)) => reply(200, &[("etag", format!("W/\"{version}\""))], value),
            None => reply(404, &[], &json!({"resourceType": "OperationOutcome"})),
        }
    }

    fn write(
        &self,
        method: &http::Method,
        path: &str,
        matched: Option<&str>,
        body: &Value,
    ) -> http::Response<Full<Bytes>> {
        let mut held = self.held.lock().unwrap();
        let other = |held: &Held, at: &str, wanted: Option<&str>| {
            let version = held.stands.get(at).map(|(version, _)| format!("W/\"{version}\""));
            wanted.is_some_and(|wanted| version.as_deref() != Some(wanted))
        };
        let mut asked = body["entry"].as_array().into_iter().flatten().map(|it| &it["request"]);
        if other(&held, path, matched)
            || asked.any(|it| other(&held, it["url"].as_str().unwrap(), it["ifMatch"].as_str()))
        {
            return reply(412, &[], &json!({"resourceType": "OperationOutcome"}));
        }
        if !path.is_empty() {
            let (status, at, version) = held.put(method.as_str(), path, body.clone());
            let location = format!("http://fake/fhir/{at}/_history/{version}");
            return reply(status, &[("location", location), ("etag", format!("W/\"{version}\""))], &Value::Null);
        }
        let mut text = Vec::new();
        let mut entries = Vec::new();
        for entry in body["entry"].as_array().unwrap() {
            let (method, url) =
                (entry["request"]["method"].as_str().unwrap(), entry["request"]["url"].as_str().unwrap());
            let condition = entry["request"]["ifNoneExist"].as_str();
            let found = condition.and_then(|query| held.search(url, query).pop());
            let (status, at, version) = match found {
                Some((at, value)) => (200, at, value["meta"]["versionId"].as_str().unwrap().parse().unwrap()),
                None => held.put(method, url, entry["resource"].clone()),
            };
            if let Some(full_url) = entry["fullUrl"].as_str() {
                text.push((full_url.to_owned(), at.clone()));
            }
            entries.push(json!({"response": {
                "status": format!("{status} Done"), "location": format!("{at}/_history/{version}"), "etag": format!("W/\"{version}\"")
            }}));
        }
        if held.mode == Mode::Doubles {
            let first = entries[0].clone();
            entries.fill(first);
        }
        for (_, value) in held.stands.values_mut() {
            let mut written = value.to_string();
            for (full_url, at) in &text {
                written = written.replace(full_url, at);
            }
            *value = serde_json::from_str(&written).unwrap();
        }
        reply(200, &[], &json!({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}))
    }
}

impl Held {
    fn search(&self, resource_type: &str, query: &str) -> Vec<(String, Value)> {
        let (name, value) = query.split('&').next().unwrap().split_once('=').unwrap();
        let wanted = value.replace("%7C", "|");
        let (system, code) = wanted.split_once('|').unwrap();
        let has = |list: &Value, member: &str| {
            list.as_array().is_some_and(|it| it.iter().any(|it| it["system"] == system && it[member] == code))
        };
        let of_type = self.stands.iter().filter(|(at, _)| at.starts_with(&format!("{resource_type}/")));
        let found = of_type.filter(|(_, (_, it))| match name {
            "_tag" => has(&it["meta"]["tag"], "code"),
            _ => has(&it["identifier"], "value"),
        });
        found.map(|(at, (_, it))| (at.clone(), it.clone())).collect()
    }

    pub(crate) fn put(&mut self, method: &str, url: &str, mut resource: Value) -> (u16, String, u64) {
        let at = if method == "POST" {
            self.next += 1;
            format!("{url}/up-{}", self.next)
        } else {
            url.to_owned()
        };
        let version = self.stands.get(&at).map_or(1, |(version, _)| version + 1);
        resource["id"] = at.split('/').nth(1).unwrap().into();
        resource["meta"]["versionId"] = version.to_string().into();
        self.stands.insert(at.clone(), (version, resource));
        (if version == 1 { 201 } else { 200 }, at, version)
    }
}

/// An answer that says again what it was given, in its head and in its body.
fn babble(said: &[u8]) -> http::Response<Full<Bytes>> {
    let words: Vec<u8> = said.iter().copied().filter(|it| (0x20..0x7f).contains(it)).take(2000).collect();
    let word = http::HeaderValue::from_bytes(&words).unwrap();
    let builder = http::Response::builder().status(200).header("content-type", "text/html");
    let builder = builder.header("location", word.clone()).header("etag", word.clone()).header("x-said", word);
    builder.body(Full::new([b"<html>", said, b"</html>"].concat().into())).unwrap()
}

fn reply(status: u16, headers: &[(&str, String)], body: &Value) -> http::Response<Full<Bytes>> {
    let mut builder = http::Response::builder().status(status).header("content-type", "application/fhir+json");
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    builder.body(Full::new(body)).unwrap()
}
