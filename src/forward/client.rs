//! The wire to the hospital's FHIR server.
//!
//! Takes: a request. Gives: the answer, within limits of time and bytes. Never: sends again what may have been received.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::{Limits, Tree};
use tokio::sync::Semaphore;

use super::request::Request;
use super::{Told, answer};
use crate::config;
use crate::consent::subjects::PatientSource;
use crate::error::{Error, Peer, Result};
use crate::ingest::unit;
use crate::normalize::percent_encoded;
use crate::stage::Staged;
use crate::wire::{self, WireError};

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const RETRY_AFTER: Duration = Duration::from_secs(5);
const FHIR_JSON: &str = "application/fhir+json";

/// A client of one FHIR server.
pub struct Client {
    settings: config::Upstream,
    base: String,
    http: wire::Http,
    places: Semaphore,
}

/// How a request ended without an answer.
pub(super) enum Failed {
    /// It was never sent.
    Unsent(&'static str),
    /// It may have been received.
    Silent(&'static str),
}

/// The trace that a request belongs to.
#[derive(Clone, Copy, Default)]
struct Trace<'a> {
    parent: Option<&'a str>,
    state: Option<&'a str>,
}

impl<'a> Trace<'a> {
    fn of(context: &'a unit::Context) -> Self {
        Self { parent: context.traceparent.as_deref(), state: context.tracestate.as_deref() }
    }
}

pub(super) type Answer = (StatusCode, http::HeaderMap, Bytes);

impl Client {
    /// A client by the settings; connects at the first request.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn new(settings: &config::Upstream) -> Result<Self, WireError> {
        let http = wire::http(wire::Peer {
            section: "upstream",
            url: &settings.url,
            ca_file: settings.ca_file.as_deref(),
            client: settings.client.as_ref(),
            connect_timeout: settings.connect_timeout,
            idle_max: settings.concurrency_max,
        })?;
        let base = settings.url.to_string().trim_end_matches('/').to_owned();
        Ok(Self { base, http, places: Semaphore::new(settings.concurrency_max), settings: settings.clone() })
    }

    /// The longest that an answer is waited for.
    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// The path of a URL under the base; none for a URL of somewhere else.
    pub(super) fn below_base<'a>(&self, url: &'a str) -> Option<&'a str> {
        let path = url.strip_prefix(&self.base)?;
        // HAPI pages are at the base itself: `[base]?_getpages=…`.
        path.strip_prefix('/').or_else(|| path.starts_with('?').then_some(path))
    }

    /// Tells a unit once. What was never sent is tried again, as often as the settings say.
    pub(super) async fn tell(&self, request: &Request, staged: &Staged) -> Told {
        let unit = staged.permitted().checked().normalized();
        let trace = Trace::of(unit.context());
        let put = (request.method == Method::PUT).then(|| request.path.rsplit('/').next().unwrap_or(""));
        match self.send(request, trace).await {
            Ok((status, headers, body)) => answer::read(unit, put, status, &headers, body),
            Err(Failed::Unsent(why)) => Told::Untold(why),
            Err(Failed::Silent(why)) => Told::Silent(why),
        }
    }

    /// Reads what stands at a path under the base.
    pub(super) async fn read(&self, path: String) -> Result<Answer, Failed> {
        let (method, body) = (Method::GET, Bytes::new());
        self.send(&Request { method, path, if_none_exist: None, if_match: None, body }, Trace::default()).await
    }

    async fn send(&self, request: &Request, trace: Trace<'_>) -> Result<Answer, Failed> {
        let mut wait = self.settings.retry_wait;
        for _ in 0..self.settings.retries_max {
            match self.once(request, trace).await {
                Err(Failed::Unsent(_)) => {}
                ended => return ended,
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
        self.once(request, trace).await
    }

    async fn once(&self, request: &Request, trace: Trace<'_>) -> Result<Answer, Failed> {
        let Ok(Ok(_place)) = tokio::time::timeout(self.settings.timeout, self.places.acquire()).await else {
            return Err(Failed::Unsent("too many requests to the upstream are under way"));
        };
        let request = self.http_request(request, trace)?;
        let whole = async {
            let response = self.http.request(request).await.map_err(|error| {
                // The connector failed, so no byte of the request was sent.
                if error.is_connect() {
                    Failed::Unsent("no connection")
                } else {
                    Failed::Silent("the connection broke")
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| Failed::Silent("the answer broke off, or is too long"))?.to_bytes();
            Ok((head.status, head.headers, body))
        };
        let late = |_| Failed::Silent("no answer in time");
        tokio::time::timeout(self.settings.timeout, whole).await.map_err(late)?
    }

    fn http_request(&self, request: &Request, trace: Trace<'_>) -> Result<http::Request<Full<Bytes>>, Failed> {
        let uri = match request.path.as_bytes() {
            [] => self.base.clone(),
            [b'?', ..] => format!("{}{}", self.base, request.path),
            _ => format!("{}/{}", self.base, request.path),
        };
        let mut builder = http::Request::builder().method(&request.method).uri(uri).header(header::ACCEPT, FHIR_JSON);
        if request.method != Method::GET {
            builder = builder.header(header::CONTENT_TYPE, FHIR_JSON).header("prefer", "return=minimal");
        }
        if let Some(query) = &request.if_none_exist {
            builder = builder.header("if-none-exist", query);
        }
        if let Some(version) = &request.if_match {
            builder = builder.header(header::IF_MATCH, format!("W/\"{version}\""));
        }
        for (name, value) in [("traceparent", trace.parent), ("tracestate", trace.state)] {
            if let Some(value) = value {
                builder = builder.header(name, value);
            }
        }
        if let Some(file) = &self.settings.token_file {
            // Read each time, so that a rotated token is used at once.
            let token = file.read().map_err(|_| Failed::Unsent("upstream.token_file can't be read"))?;
            let mut value = header::HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())
                .map_err(|_| Failed::Unsent("upstream.token_file holds no token"))?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let request = builder.body(Full::new(request.body.clone()));
        request.map_err(|_| Failed::Unsent("the request can't be put into HTTP"))
    }
}

impl PatientSource for Client {
    fn patient<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Tree>>> {
        Box::pin(async move {
            if !is_id(id) {
                return Ok(None);
            }
            let Some(tree) = self.who(format!("Patient/{id}")).await? else { return Ok(None) };
            let is_patient = tree.resource_type() == Some("Patient");
            if is_patient { Ok(Some(tree)) } else { Err(unclear("the upstream's Patient is none")) }
        })
    }

    fn by_identifier<'a>(&'a self, system: &'a str, value: &'a str) -> BoxFuture<'a, Result<Option<Tree>>> {
        Box::pin(async move {
            let wanted = format!("{}|{}", percent_encoded(system), percent_encoded(value));
            let Some(page) = self.who(format!("Patient?identifier={wanted}&_count=2")).await? else { return Ok(None) };
            let found: Vec<_> = page
                .root()
                .find(&["entry", "resource"])
                .filter(|found| found.resource_type() == Some("Patient"))
                .map(|found| Bytes::copy_from_slice(found.raw()))
                .collect();
            let [one] = &found[..] else { return Ok(None) };
            let tree = Tree::parse(one.clone(), &Limits::default());
            tree.map(Some).map_err(|_| unclear("the upstream's Patient is not JSON"))
        })
    }
}

impl Client {
    /// Reads what says who a patient is; none if it is not there.
    async fn who(&self, path: String) -> Result<Option<Tree>> {
        match self.read(path).await {
            Ok((StatusCode::NOT_FOUND | StatusCode::GONE, ..)) => Ok(None),
            Ok((StatusCode::OK, _, body)) => {
                let tree = Tree::parse(body, &Limits::default());
                tree.map(Some).map_err(|_| unclear("the upstream's Patient is not JSON"))
            }
            Ok(_) => Err(unclear("the upstream does not say who a Patient is")),
            Err(Failed::Unsent(why) | Failed::Silent(why)) => Err(unclear(why)),
        }
    }
}

fn unclear(why: &'static str) -> Error {
    Error::outage(Peer::Upstream, RETRY_AFTER, why)
}
