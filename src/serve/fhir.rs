//! The FHIR face: `/fhir`.
//!
//! Takes: HTTP requests with what is known of their peer. Gives: responses as FHIR R4 http.html says. Never: decides
//! anything that a stage decides.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use sluice_fhir::reference::is_id;

use super::respond::{self, FHIR_JSON, Reply, answered, failure, reply};
use super::stream;
use crate::disclose::Question;
use crate::error::{Error, Refusal, Result};
use crate::gateway::Gateway;
use crate::ingest::body;
use crate::ingest::caller::{Callers, Peer};
use crate::ingest::entry::etag;
use crate::ingest::unit::{Caller, Context, Interaction, Prefer, Received};
use crate::ingest::units::{self, Units};
use crate::store::spool::Spools;

/// What the face needs.
pub struct Face {
    /// The tenant's gateway.
    pub gateway: Arc<Gateway>,
    /// Who is known by what.
    pub callers: Arc<Callers>,
    /// What bounds bodies.
    pub body: body::Limits,
    /// What bounds units.
    pub units: units::Limits,
    /// Where bodies and answers wait.
    pub spools: Spools,
    /// `[base]`, without a slash at its end.
    pub base: Arc<str>,
    /// The CapabilityStatement.
    pub metadata: bytes::Bytes,
    /// Units of one stream that are under way at once.
    pub stream_width: usize,
    /// Time for one unit, from its last byte to its answer.
    pub unit_timeout: Duration,
}

/// What a request asks for.
enum Ask<'a> {
    Metadata,
    Bundle,
    Lines,
    Create(&'a str),
    Update(&'a str, &'a str),
    Read(&'a str, &'a str, Option<u64>),
}

impl Face {
    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        match self.try_answer(request).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::info!(kind = ?error.kind(), rule = error.rule(), "not accepted");
                failure(&error)
            }
        }
    }

    async fn try_answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let ask = ask(&parts.method, &path)?;
        acceptable(&parts.headers)?;
        if matches!(ask, Ask::Metadata) {
            // FHIR R4 http.html#capabilities: open to all, so that a client can learn how to authenticate.
            return Ok(reply(StatusCode::OK, FHIR_JSON, self.metadata.clone()));
        }
        let caller = caller(&self.callers, &parts.extensions, &parts.headers)?;
        if let Ask::Read(resource_type, id, version) = ask {
            let (resource_type, id) = (resource_type.to_owned(), id.to_owned());
            return self.read(Question { caller, resource_type, id, version }, &parts).await;
        }
        let prefer = prefer(&parts.headers);
        media_type(&parts.headers, matches!(ask, Ask::Lines))?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        let if_none_exist = text(&parts.headers, "if-none-exist")?;
        let if_match = if_match(&parts.headers)?;
        let spool = body::read(&parts.headers, body, self.body, &self.spools).await?;
        let context = Context {
            caller,
            received_at: time::OffsetDateTime::now_utc(),
            idempotency_key,
            prefer,
            traceparent: traceparent(&parts.headers),
        };
        let units = match ask {
            Ask::Bundle => units::bundle(spool, context, self.units)?,
            Ask::Lines => Units::Many(Box::new(units::lines(spool, context, self.units)?)),
            Ask::Create(resource_type) => {
                let interaction = Interaction::Create { if_none_exist };
                Units::One(Box::new(units::resource(spool, resource_type, interaction, context, &self.units)?))
            }
            Ask::Update(resource_type, id) => {
                let interaction = Interaction::Update { id: id.to_owned(), if_match };
                Units::One(Box::new(units::resource(spool, resource_type, interaction, context, &self.units)?))
            }
            Ask::Metadata | Ask::Read(..) => return Err(Error::defect("a question has no units")),
        };
        match units {
            Units::One(unit) => {
                let gateway = Arc::clone(&self.gateway);
                // A task of its own: a unit once begun is ended even if the sender hangs up.
                let admit = tower::service_fn(move |unit: Received| {
                    let gateway = Arc::clone(&gateway);
                    async move { tokio::spawn(async move { gateway.admit(unit).await }).await }
                });
                let timed = tower::timeout::Timeout::new(admit, self.unit_timeout);
                let answer = match tower::ServiceExt::oneshot(timed, *unit).await {
                    Ok(answer) => answer?,
                    Err(error) if error.is::<tower::timeout::error::Elapsed>() => {
                        let text = "a unit took longer than the limit";
                        return Err(Error::outage(crate::error::Peer::Capacity, Duration::from_secs(5), text));
                    }
                    Err(_) => return Err(Error::defect("a unit's task ended early")),
                };
                Ok(answered(&answer, &self.base, prefer))
            }
            Units::Many(stream) => {
                let summary = matches!(ask, Ask::Lines);
                stream::answer(Arc::clone(&self.gateway), stream, &self.spools, self.stream_width, summary).await
            }
        }
    }

    /// FHIR R4 http.html#read and #vread.
    async fn read(&self, question: Question, parts: &http::request::Parts) -> Result<Reply> {
        let disclosed = tokio::time::timeout(self.unit_timeout, self.gateway.disclose(question)).await;
        let late = |_| {
            let text = "a question took longer than the limit";
            Error::outage(crate::error::Peer::Capacity, Duration::from_secs(5), text)
        };
        let shown = disclosed.map_err(late)??;
        let wanted = text(&parts.headers, "if-none-match")?;
        Ok(respond::shown(&shown, wanted.as_deref(), parts.method == Method::HEAD))
    }
}

/// Who asks: by the certificate that it showed, else by a bearer token.
///
/// # Errors
/// 401 for one that is not known.
pub(super) fn caller(callers: &Callers, extensions: &http::Extensions, headers: &HeaderMap) -> Result<Caller> {
    let by_certificate = extensions.get::<Peer>().and_then(|peer| peer.by_certificate.as_deref()).cloned();
    let bearer = || {
        let header = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = header.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| callers.by_bearer(token)).flatten().cloned()
    };
    by_certificate.or_else(bearer).ok_or_else(|| {
        let text = "a client certificate or a bearer token of a caller that the settings list";
        Error::refusal(Refusal::Unauthenticated, "http.caller", text)
    })
}

fn ask<'a>(method: &Method, path: &'a str) -> Result<Ask<'a>> {
    let not_found = || Error::refusal(Refusal::NotFound, "http.path", "a path of the FHIR API under /fhir");
    let path = path.strip_prefix("/fhir").ok_or_else(not_found)?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments = path.split('/').filter(|it| !it.is_empty());
    let wanted = [segments.next(), segments.next(), segments.next()];
    let is_type = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    match (method.as_str(), wanted) {
        ("GET" | "HEAD", [Some("metadata"), None, None]) => Ok(Ask::Metadata),
        ("POST", [None, ..]) => Ok(Ask::Bundle),
        ("POST", [Some("$ingest"), None, None]) => Ok(Ask::Lines),
        (_, [Some(name), ..]) if is_type(name) && !sluice_fhir::resource_type::is_type(name) => {
            Err(Error::refusal(Refusal::NotFound, "http.type", "a resource type of FHIR R4"))
        }
        ("POST", [Some(name), None, None]) if is_type(name) => Ok(Ask::Create(name)),
        ("PUT", [Some(name), Some(id), None]) if is_type(name) && is_id(id) => Ok(Ask::Update(name, id)),
        ("GET" | "HEAD", [Some(name), Some(id), None]) if is_type(name) && is_id(id) => Ok(Ask::Read(name, id, None)),
        ("GET" | "HEAD", [Some(name), Some(id), Some("_history")]) if is_type(name) && is_id(id) => {
            // A version that is no number of ours stands nowhere.
            let version = segments.next().and_then(|it| it.parse().ok()).ok_or_else(not_found)?;
            if segments.next().is_some() { Err(not_found()) } else { Ok(Ask::Read(name, id, Some(version))) }
        }
        (_, [None, ..] | [Some(_), _, None]) => {
            Err(Error::refusal(Refusal::Method, "http.method", "an interaction that /fhir/metadata lists"))
        }
        _ => Err(not_found()),
    }
}

/// FHIR R4 http.html#mime-type.
fn media_type(headers: &HeaderMap, lines: bool) -> Result<()> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("");
    let mut parts = declared.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("").to_ascii_lowercase();
    let taken: &[&str] = if lines {
        &["application/fhir+ndjson", "application/x-ndjson", "application/ndjson"]
    } else {
        &["application/fhir+json", "application/json"]
    };
    let utf8 = parts.all(|it| {
        it.split_once('=').is_none_or(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset") || value.trim_matches([' ', '"']).eq_ignore_ascii_case("utf-8")
        })
    });
    if taken.contains(&&*essence) && utf8 {
        return Ok(());
    }
    let text = format!("Content-Type {} in UTF-8", taken.join(" or "));
    Err(Error::refusal(Refusal::UnsupportedMedia, "http.content-type", text))
}

/// Only JSON is written; a client that takes nothing else is told so.
fn acceptable(headers: &HeaderMap) -> Result<()> {
    let takes = |range: &str| {
        let essence = range.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        matches!(&*essence, "*/*" | "application/*" | "application/json" | "application/fhir+json" | "json" | "")
            || essence.ends_with("ndjson")
    };
    let mut ranges = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).peekable();
    if ranges.peek().is_none() || ranges.flat_map(|it| it.split(',')).any(takes) {
        return Ok(());
    }
    Err(Error::refusal(Refusal::NotAcceptable, "http.accept", "Accept with application/fhir+json"))
}

/// RFC 7240.
fn prefer(headers: &HeaderMap) -> Prefer {
    let mut given =
        headers.get_all("prefer").iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split([',', ';']));
    let wanted = given.find_map(|it| it.trim().strip_prefix("return=")).unwrap_or("minimal");
    match wanted {
        "representation" => Prefer::Representation,
        "OperationOutcome" => Prefer::Outcome,
        _ => Prefer::Minimal,
    }
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = value
        .to_str()
        .map_err(|_| Error::refusal(Refusal::Malformed, "http.header", format!("{name} in visible ASCII")))?;
    Ok(Some(value.to_owned()))
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = text(headers, "if-match")? else { return Ok(None) };
    let version = etag(&value).ok_or_else(|| {
        Error::refusal(Refusal::Precondition, "http.if-match", "If-Match with a weak ETag: W/\"[version]\"")
    })?;
    Ok(Some(version))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>> {
    let key = match text(headers, "idempotency-key")? {
        Some(key) => Some(key),
        None => text(headers, "x-request-id")?,
    };
    match key {
        Some(key) if key.is_empty() || key.len() > 255 => {
            Err(Error::refusal(Refusal::Malformed, "http.idempotency-key", "a key of 1 to 255 characters"))
        }
        key => Ok(key.map(Arc::from)),
    }
}

/// W3C Trace Context §3.2, version 00; what is malformed is dropped, as it says.
fn traceparent(headers: &HeaderMap) -> Option<Arc<str>> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let fields: Vec<&str> = value.split('-').collect();
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, parent, flags] = fields[..] else { return None };
    let well_formed = version == "00" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    (well_formed && !zero(trace) && !zero(parent)).then(|| Arc::from(value))
}
